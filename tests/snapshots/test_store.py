from __future__ import annotations

import errno
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msft.core.errors import RunError
from msft.core.vocabulary import ROOT
from msft.data.order import Cursor
from msft.snapshots import publish
from msft.snapshots import store as store_module
from msft.snapshots.state import State
from msft.snapshots.store import Store
from msft.system import files
from msft.system.files import Operation


def state(seed: int = 0) -> State:
    random = torch.Generator().manual_seed(seed)
    tensors = {f"weight/{name}": torch.randn(4, 6, generator=random) for name in "ab"}
    tensors["step/a"] = torch.tensor(3.0)
    return State(tensors=tensors, cursor=Cursor(step=seed, began=1, epoch=2, drawn={"ä": 3}))


def same(first: State, second: State) -> bool:
    equal = all(torch.equal(first.tensors[name], tensor) for name, tensor in second.tensors.items())
    return equal and first.tensors.keys() == second.tensors.keys() and first.cursor == second.cursor


def test_pinned_memory_counts_as_what_it_takes(tmp_path: Path) -> None:
    """Two tensors of 96 bytes take 128 each."""
    plain, pinned = state(), replace(state(), pinned=True)
    assert (plain.taken, pinned.taken, pinned.nbytes) == (196, 260, 196)
    with Store(tmp_path / "s", memory_bytes=2 * 196) as store:
        store.put(1, plain, False)
        store.put(2, pinned, False)
        assert store.durable == {2}, "with the other, it does not fit in memory"


@pytest.mark.parametrize(("memory_bytes", "durable"), [(0, False), (10**6, True)])
def test_a_durable_snapshot_survives_the_process_bit_for_bit(tmp_path: Path, memory_bytes: int, durable: bool) -> None:
    with Store(tmp_path / "s", memory_bytes=memory_bytes) as store:
        assert store.put(2, state(), durable) == state().nbytes == 2 * 96 + 4
    again = Store(tmp_path / "s", memory_bytes=0)
    assert again.on_disk() == [2] and again.has(2) and again.has(ROOT) and not again.has(1)
    assert same(again.get(2), state())


def test_snapshots_lie_in_memory_where_they_fit(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", memory_bytes=2 * state().nbytes)
    for number in (1, 2, 3):
        store.put(number, state(number), False)
    assert store.on_disk() == [3] and all(store.has(number) for number in (1, 2, 3))
    assert all(same(store.get(number), state(number)) for number in (1, 2, 3))
    store.persist([1, 3, ROOT])
    assert store.on_disk() == [1, 3]
    store.prune({3})
    assert not store.has(1) and not store.has(2) and store.on_disk() == [3]


def test_a_snapshot_made_again_replaces_the_old_one(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", memory_bytes=10**6)
    store.put(1, state(1), True)
    store.put(1, state(2), True)
    store.finish()
    assert same(Store(tmp_path / "s", memory_bytes=0).get(1), state(2))
    store.put(1, state(3), False)
    assert store.on_disk() == [] and same(store.get(1), state(3))


def test_only_the_main_process_writes_and_the_others_read(tmp_path: Path) -> None:
    main, other = (Store(tmp_path / "s", memory_bytes=0, main=main) for main in (True, False))
    other.put(1, state(), False)
    assert not other.has(1)
    main.put(1, state(), False)
    assert same(other.get(1), state())
    other.prune(())
    assert main.has(1)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_damage_is_refused_and_never_used(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("damage")
    store = Store(folder, memory_bytes=0)
    store.put(1, state(), True)
    path = data.draw(st.sampled_from(sorted((folder / "1").iterdir())))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del content[place:]
    path.write_bytes(bytes(content))
    try:
        assert same(store.get(1), state()), "damage was used"
    except RunError as error:
        assert str(folder / "1") in str(error) and "Fix:" in str(error)
    else:
        assert path.name == publish.MANIFEST, "damage to the content was not noticed"


def test_a_missing_file_or_snapshot_is_named(tmp_path: Path) -> None:
    store = Store(tmp_path, memory_bytes=0)
    store.put(1, state(), True)
    (tmp_path / "1" / "state.json").unlink()
    with pytest.raises(RunError, match=r"state\.json: the file is missing"):
        store.get(1)
    with pytest.raises(RunError, match="the snapshot is missing"):
        store.get(7)


def test_a_crash_while_writing_leaves_nothing_and_its_leftovers_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, memory_bytes=0)

    def crash(operation: Operation) -> None:
        if operation.kind == "rename":
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "observer", crash)
    with pytest.raises(KeyboardInterrupt):
        store.put(1, state(), True)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["1.unfinished"]
    Store(tmp_path, memory_bytes=0)
    assert list(tmp_path.iterdir()) == []


class Gate:
    """Holds the writing thread before each publication until it is let through."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.published: list[str] = []

    def __call__(self, operation: Operation) -> None:
        if operation.name == "snapshot.publish":
            self.reached.set()
            assert self.open.wait(10)
            assert operation.to is not None
            self.published.append(operation.to.name)
        if operation.name == "snapshot.doom":
            self.published.append(f"-{operation.path.name}")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    made = Gate()
    monkeypatch.setattr(files, "observer", made)
    return made


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_nothing_is_deleted_before_what_takes_its_place_is_durable(tmp_path: Path, gate: Gate) -> None:
    store = Store(tmp_path, memory_bytes=10**6)
    gate.open.set()
    store.put(1, state(1), True)
    store.finish()
    gate.open.clear()
    gate.reached.clear()
    store.put(2, state(2), False)
    store.persist({2})
    store.prune({2})
    assert gate.reached.wait(10)
    assert not store.has(1) and store.has(2) and same(store.get(2), state(2))
    assert names(tmp_path) == {"1", "2.unfinished"}, "a crash here must find the old one"
    gate.open.set()
    assert store.on_disk() == [2]
    assert gate.published == ["1", "2", "-1"]


def test_what_was_let_go_of_before_it_was_begun_is_never_written(tmp_path: Path, gate: Gate) -> None:
    store = Store(tmp_path, memory_bytes=10**6)
    for number in (1, 2, 3):
        store.put(number, state(number), False)
    store.persist({1, 2, 3})
    assert gate.reached.wait(10)
    store.prune({3})
    store.put(2, state(7), True)  # made again, with other content
    gate.open.set()
    assert store.on_disk() == [2, 3] and names(tmp_path) == {"2", "3"}
    assert same(Store(tmp_path, memory_bytes=0).get(2), state(7))
    assert gate.published == ["1", "3", "-1", "2"], "1 had been begun, the first 2 had not"


def test_what_stays_durable_leaves_memory(tmp_path: Path) -> None:
    store = Store(tmp_path, memory_bytes=2 * state().nbytes)
    store.put(1, state(1), True)
    store.put(2, state(2), False)
    store.prune({2}, {1})
    assert store.on_disk() == [1] and store.has(1)
    store.put(3, state(3), False)
    assert store.on_disk() == [1], "there was no room for 3 in memory"
    assert same(store.get(1), state(1))
    store.prune({3})
    assert store.on_disk() == [] and not store.has(1)


def test_a_failure_is_raised_by_whoever_comes_next_and_nothing_is_deleted_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, memory_bytes=10**6)
    store.put(1, state(1), True)
    store.finish()

    def full(operation: Operation) -> None:
        if operation.kind == "write":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "observer", full)
    store.put(2, state(2), False)
    store.persist({2})
    with pytest.raises(OSError, match="No space left"):
        store.prune({2})
        store.finish()
    for again in (store.finish, lambda: store.put(3, state(3), False), lambda: store.prune({3}), lambda: store.get(1)):
        with pytest.raises(OSError, match="No space left"):
            again()
    assert names(tmp_path) == {"1"}


def test_broken_off_at_once_it_ends_behind_what_it_is_writing(tmp_path: Path, gate: Gate) -> None:
    opened = threading.Timer(0.2, gate.open.set)
    with pytest.raises(KeyboardInterrupt), Store(tmp_path, memory_bytes=10**6) as store:
        for number in (1, 2):
            store.put(number, state(number), True)
        assert gate.reached.wait(10)
        opened.start()
        raise KeyboardInterrupt
    assert names(tmp_path) == {"1"}


def test_a_bit_that_flips_before_the_manifest_is_written_is_not_vouched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flip(operation: Operation) -> None:
        if operation.name == "snapshot.manifest":
            target = operation.path.with_name("state.safetensors")
            data = bytearray(target.read_bytes())
            data[-1] ^= 1
            target.write_bytes(data)

    monkeypatch.setattr(files, "observer", flip)
    store = Store(tmp_path, memory_bytes=0)
    store.put(1, state(), True)
    with pytest.raises(RunError, match=r"state\.safetensors: the content differs from the manifest"):
        store.get(1)


def test_a_check_spares_the_reading_behind_it_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(tmp_path / "s", memory_bytes=0) as store:
        store.put(1, state(), True)
    again, verified, now = Store(tmp_path / "s", memory_bytes=0), list[Path](), [1000.0]
    monkeypatch.setattr(store_module, "verify", lambda path: verified.append(path) or publish.verify(path))
    monkeypatch.setattr(store_module.time, "monotonic", lambda: now[0])
    again.check(1)
    again.get(1)
    assert len(verified) == 1
    again.get(1)
    assert len(verified) == 2
    again.check(1)
    now[0] += store_module.FRESH
    again.get(1)
    assert len(verified) == 4
    again.check(1)
    again.put(1, state(1), True)
    again.finish()
    again.get(1)
    assert len(verified) == 6
    again._writer.close()
