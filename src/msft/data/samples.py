"""The samples of a split: made once and kept if they are few, made at each access if they are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from msft.data.chat_template import ChatTemplateError
from msft.data.chats import renderings
from msft.data.complaints import Complaints
from msft.data.encode import Encoder
from msft.data.formats import Format, Sample
from msft.data.remarks import Remarks
from msft.data.rows import IN_MEMORY, Row, Rows, Subset

T = TypeVar("T")


class Samples(Sequence[Sample]):
    """The rows as text, in the same order. `made`: the samples, if they are already in memory."""

    def __init__(self, rows: Rows, form: Format, made: Sequence[Sample] | None = None) -> None:
        self.rows, self.form = rows, form
        self._made = made

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._made) if self._made is not None else map(self.form.sample, self.rows)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Samples: ...
    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return self.subset(np.arange(len(self))[index])
        return self._made[index] if self._made is not None else self.form.sample(self.rows[index])

    def subset(self, indices: NDArray[np.int64]) -> Samples:
        """The samples at `indices`, [samples]."""
        made = None if self._made is None else [self._made[int(index)] for index in indices]
        return Samples(Subset(self.rows, indices), self.form, made)


def sample_of(row: Row, form: Format, encoder: Encoder, remarks: Remarks | None = None) -> Sample:
    """The sample of a row. Raises ValueError if the row cannot be converted, or its conversation not be rendered.

    What the chat template does to a conversation, and columns that are not read, are added to `remarks`.
    """
    sample = form.sample(row)
    if sample.messages:
        rendered = renderings(encoder.chats, sample)
        if remarks is not None:
            remarks.add(sample, rendered)
    elif remarks is not None:
        remarks.add_text(sample, {*form.prompt.names, *form.completion.names})
    return sample


def checked(rows: Rows, form: Format, encoder: Encoder, complaints: Complaints, remarks: Remarks) -> Samples:
    """The samples of the rows. Each row is converted and checked here; problems are added to `complaints`, and what
    the chat template does to a conversation to `remarks`."""
    made: list[Sample] = []
    for row in rows:
        try:
            sample = sample_of(row, form, encoder, remarks)
        except ValueError as error:
            fix = error.fix if isinstance(error, ChatTemplateError) else "fix or remove this row"
            complaints.row(str(error), fix, file=row.file, line=row.line, number=row.number)
        else:
            if len(rows) <= IN_MEMORY:
                made.append(sample)
    return Samples(rows, form, made if len(rows) <= IN_MEMORY else None)


def batches(values: Sequence[T], size: int) -> Iterator[list[T]]:
    """The values in order, `size` at a time."""
    batch: list[T] = []
    for value in values:
        batch.append(value)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
