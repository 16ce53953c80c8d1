from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from msft.core.errors import RunError
from msft.data.order import Cursor
from msft.snapshots.regroup import forget, regroup
from msft.snapshots.row_parts import part_folder, rows_of, whole_snapshots, worlds
from msft.snapshots.shared_store import SharedStore
from msft.snapshots.state import State
from msft.snapshots.store import Store

T = TypeVar("T")
ROWS = (5, 1, 4)
"""Of three tensors: rows that two and four processes hold unevenly, or not at all."""


class Threads:
    """Processes that share a store's folder, as threads."""

    def __init__(self, world: int) -> None:
        self.world = world
        self._barrier = threading.Barrier(world, timeout=20)
        self._values: list[Any] = [None] * world

    def run(self, do: Callable[[One], T]) -> list[T]:
        """What `do` returns in each; raises what it raises in the first, if it does so in any."""
        found: list[Any] = [None] * self.world
        errors: list[BaseException] = []

        def go(rank: int) -> None:
            try:
                found[rank] = do(One(self, rank))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=go, args=(rank,)) for rank in range(self.world)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            assert len(errors) == self.world, "an error in one is one in all"
            raise errors[0]
        return found


class One:
    """One of them."""

    def __init__(self, all_: Threads, rank: int) -> None:
        self._all, self.rank, self.world = all_, rank, all_.world

    def barrier(self) -> None:
        self._all._barrier.wait()

    def of_all(self, value: Any) -> list[Any]:
        self._all._values[self.rank] = value
        self.barrier()
        found = list(self._all._values)
        self.barrier()
        return found

    def from_main(self, value: Any) -> Any:
        return self.of_all(value)[0]


def whole(seed: int) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    found = {f"weight/{n}": torch.randn(rows, 3, generator=draw) for n, rows in enumerate(ROWS)}
    found |= {f"exp_avg/{n}": torch.randn(rows, 3, generator=draw) for n, rows in enumerate(ROWS)}
    return found | {"step/0": torch.tensor(float(seed)), "mean_steps": torch.tensor(2.0)}


def part(tensors: dict[str, torch.Tensor], world: int, rank: int) -> State:
    def own(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[slice(*rows_of(len(tensor), world, rank))].clone() if tensor.ndim else tensor

    return State(tensors={name: own(tensor) for name, tensor in tensors.items()}, cursor=Cursor(step=3))


def store_of(one: One, folder: Path, memory: int = 10**6) -> SharedStore:
    store = SharedStore(folder, together=one, memory_bytes=memory)
    # Only the main process has the journal.
    store.about = (lambda number: {"journal": number}) if one.rank == 0 else None
    return store


def same(found: State, expected: State) -> bool:
    return found.tensors.keys() == expected.tensors.keys() and all(
        torch.equal(tensor, expected.tensors[name]) for name, tensor in found.tensors.items()
    )


def written(folder: Path, world: int, *numbers: int) -> None:
    def write(one: One) -> None:
        with store_of(one, folder) as store:
            for number in numbers:
                store.put(number, part(whole(number), world, one.rank), durable=True)

    Threads(world).run(write)


def test_rows_are_those_of_fsdp2() -> None:
    assert [rows_of(5, 4, rank) for rank in range(4)] == [(0, 2), (2, 4), (4, 5), (5, 5)]
    for count in range(9):
        chunks = torch.arange(count).chunk(4) if count else ()
        for rank in range(4):
            first, last = rows_of(count, 4, rank)
            assert list(range(first, last)) == (chunks[rank].tolist() if rank < len(chunks) else [])


def test_each_process_stores_and_finds_its_own_rows(tmp_path: Path) -> None:
    written(tmp_path, 2, 1, 2)

    def read(one: One) -> bool:
        with store_of(one, tmp_path) as store:
            assert store.on_disk() == [1, 2] and store.has(1) and not store.has(3)
            return same(store.get(2), part(whole(2), 2, one.rank))

    assert Threads(2).run(read) == [True, True]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_damaged_part_is_found_by_its_owner_and_is_an_error_in_all(tmp_path: Path, rank: int) -> None:
    written(tmp_path, 2, 1)
    file = part_folder(tmp_path, 2, rank) / "1" / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)

    def read(one: One) -> None:
        with store_of(one, tmp_path) as store:
            store.get(1)

    with pytest.raises(RunError, match=str(file)):
        Threads(2).run(read)


def test_a_snapshot_of_which_a_process_has_no_part_is_not_there(tmp_path: Path) -> None:
    """A crash between the writes of two processes: the older snapshot is whole, and the newer is not there."""
    written(tmp_path, 2, 1)

    def write_in_one(one: One) -> None:
        with store_of(one, tmp_path) as store:
            if one.rank == 1:
                store._publish(store.path(2), part(whole(2), 2, 1), {})

    Threads(2).run(write_in_one)

    def after(one: One) -> tuple[bool, bool, list[int]]:
        with store_of(one, tmp_path) as store:
            return store.has(1), store.has(2), store.on_disk()

    assert Threads(2).run(after) == [(True, False, [1])] * 2
    assert not (part_folder(tmp_path, 2, 1) / "2").exists(), "what is of no use is deleted"


def test_a_part_is_deleted_only_when_all_have_written_what_replaces_it(tmp_path: Path) -> None:
    """The second process cannot write: its disk is slower than that of the first. The old snapshot must stay whole."""
    written(tmp_path, 2, 1)
    seen: list[list[int]] = []

    def replace(one: One) -> None:
        with store_of(one, tmp_path) as store:
            if one.rank == 1:
                plain = store._publish

                def slow(*given: Any) -> None:
                    time.sleep(0.3)
                    seen.append(whole_snapshots(tmp_path, 2))
                    plain(*given)

                store._publish = slow  # type: ignore[method-assign]
            store.put(2, part(whole(2), 2, one.rank), durable=True)
            store.prune({2})

    Threads(2).run(replace)
    assert seen == [[1]], "while the second writes, nothing has been deleted"
    assert whole_snapshots(tmp_path, 2) == [2]


def test_processes_decide_alike_whether_a_snapshot_stays_in_memory(tmp_path: Path) -> None:
    """The first process holds more rows: what does not fit there goes to disk in all."""
    sizes = [part(whole(1), 2, rank).nbytes for rank in range(2)]
    assert sizes[0] > sizes[1]

    def put(one: One) -> list[int]:
        with store_of(one, tmp_path, memory=sizes[1]) as store:
            store.put(1, part(whole(1), 2, one.rank), durable=False)
            return store.on_disk()

    assert Threads(2).run(put) == [[1], [1]]


@pytest.mark.parametrize(("old", "new"), [(2, 1), (1, 2), (4, 2), (2, 4), (4, 3)])
def test_snapshots_are_cut_anew_for_another_number_of_processes(tmp_path: Path, old: int, new: int) -> None:
    if old == 1:
        with Store(tmp_path, memory_bytes=0) as plain:
            plain.about = lambda number: {"journal": number}
            plain.put(1, part(whole(1), 1, 0), durable=True)
    else:
        written(tmp_path, old, 1)
    assert worlds(tmp_path) == {old}

    def take(one: One) -> bool:
        store = Store(tmp_path, memory_bytes=0) if new == 1 else store_of(one, tmp_path)
        with store:
            if new == 1:
                store.about = lambda number: {"journal": number}
            regroup(store, tmp_path, new, one.rank)
            one.barrier()
            if one.rank == 0:
                forget(tmp_path, new)
            one.barrier()
            return same(store.get(1), part(whole(1), new, one.rank)) and store.get(1).cursor == Cursor(step=3)

    assert Threads(new).run(take) == [True] * new
    assert worlds(tmp_path) == {new}


def test_state_that_does_not_follow_rows_is_not_cut(tmp_path: Path) -> None:
    with Store(tmp_path, memory_bytes=0) as plain:
        plain.put(1, State(tensors={"row_var/0": torch.ones(3)}), durable=True)

    def take(one: One) -> None:
        with store_of(one, tmp_path) as store:
            regroup(store, tmp_path, 2, one.rank)

    with pytest.raises(RunError, match=r"row_var/0 cannot be split .* continue with 1 process"):
        Threads(2).run(take)
