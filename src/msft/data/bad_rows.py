"""`data.bad_rows: drop`: leaves out the rows of a sub-dataset that cannot be used, before its splits are made."""

from __future__ import annotations

from msft.config.dataset_section import DatasetConfig, Where
from msft.data.complaints import note_of_dropped
from msft.data.detect import detect
from msft.data.encode import Encoder
from msft.data.formats import Format
from msft.data.samples import sample_of
from msft.data.sources import Source


def leave_out_bad_rows(dataset: DatasetConfig, source: Source, encoder: Encoder) -> tuple[Format, list[str]]:
    """The format of the rows that are left, and the note about those that are not. Raises DataError if these are many.

    A bad row can hide the format: choices without an answer in one row are no choices. So the format is found again
    until no row is bad. Each time fewer rows are left, and the order of the rows decides nothing.
    """
    places = _places(dataset)
    rows = sum(len(source.rows(*place)) for place in places)
    dropped, source.dropped = source.dropped, []
    total = rows + len(dropped)
    while True:
        form = detect(dataset, source.rows(where=dataset.where))
        if form.conversation and encoder.chat_template is None:
            return form, []  # no row can be used, which `check` reports
        before = len(dropped)
        for path, split, where in places:
            bad: set[tuple[str, int]] = set()
            for row in source.rows(path, split, where):
                try:
                    sample_of(row, form, encoder)
                except ValueError as error:
                    bad.add((row.file, row.number))
                    dropped.append(f"{row.place} ({error})")
            if bad:
                source.leave_out(path, split, bad)
        notes = note_of_dropped(dropped, total, dataset.field)
        if len(dropped) == before:
            return form, notes


def _places(dataset: DatasetConfig) -> list[tuple[str | None, str | None, Where | None]]:
    """Path, split and where of the training rows, and of the splits that are read."""
    read = [split for split in (dataset.validation, dataset.test) if split is not None and split.given]
    return [(None, None, dataset.where), *((split.path, split.split, split.where) for split in read)]
