"""Examples that are stored one after another in files and read as views of memory-mapped arrays; items likewise."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from msft.data.examples import Example, Item


class PackedExamples(Sequence[Example]):
    """The examples that `pack` wrote: memory-mapped, so that only those in use are in memory."""

    def __init__(self, folder: Path, name: str) -> None:
        self._offsets: NDArray[np.int64] = np.load(folder / f"{name}.offsets.npy", mmap_mode="r")
        self._ids = _mapped(folder / f"{name}.ids", np.int32)
        self._trained = _mapped(folder / f"{name}.trained", np.bool_)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> list[Example]: ...
    def __getitem__(self, index: int | slice) -> Example | list[Example]:
        if isinstance(index, slice):
            return [self[at] for at in range(len(self))[index]]
        at = range(len(self))[index]
        start, end = int(self._offsets[at]), int(self._offsets[at + 1])
        return Example(ids=self._ids[start:end], trained=self._trained[start:end])


def _mapped(file: Path, dtype: Any) -> NDArray[Any]:
    """The numbers of a file as a plain array, whose slices are cheaper than those of `np.memmap`."""
    return np.asarray(np.memmap(file, dtype, "r")) if file.stat().st_size else np.empty(0, dtype)


def pack(folder: Path, name: str, examples: Iterable[Example]) -> PackedExamples:
    """Writes the examples as they come, then opens them: `<name>.ids`, `.trained` and `.offsets.npy`."""
    ends = [0]
    with (folder / f"{name}.ids").open("wb") as ids, (folder / f"{name}.trained").open("wb") as trained:
        for example in examples:
            ids.write(np.ascontiguousarray(example.ids, np.int32).data)
            trained.write(np.ascontiguousarray(example.trained, np.bool_).data)
            ends.append(ends[-1] + len(example))
    np.save(folder / f"{name}.offsets.npy", np.asarray(ends, np.int64))
    return PackedExamples(folder, name)


def pack_items(folder: Path, name: str, items: Sequence[Item]) -> None:
    """Writes the items: their options as examples, and the rest of each as a line of `<name>.json`."""
    pack(folder, name, (option for item in items for option in item.options))
    rest = [field.name for field in dataclasses.fields(Item) if field.name != "options"]
    lines = [[len(item.options), {key: getattr(item, key) for key in rest}] for item in items]
    (folder / f"{name}.json").write_text(json.dumps(lines), encoding="utf-8")


def read_items(folder: Path, name: str) -> list[Item]:
    """The items that `pack_items` wrote."""
    options = iter(PackedExamples(folder, name))
    lines = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return [
        Item(options=tuple(next(options) for _ in range(count)), **{key: tupled(value) for key, value in rest.items()})
        for count, rest in lines
    ]


def tupled(value: Any) -> Any:
    """A value read from JSON, with tuples in place of lists."""
    return tuple(map(tupled, value)) if isinstance(value, list) else value
