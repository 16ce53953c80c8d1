"""Blends on a real model: the mean of what the parts would hand over, and a run with them is resumed bit for bit."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from methods_of_every_word import OWN
from peft.utils.merge_utils import ties
from safetensors.torch import load_file
from tiny_engine import TASKS, same, segment, tiny_data, tiny_engine, tiny_folder

from msft.core.search import Search
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Snapshot
from msft.engine.torch_engine import TorchEngine
from msft.run.loop import drive
from msft.snapshots.store import Store

PARTS = ((ROOT, 0.125), (1, 0.375), (2, 0.5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("gpt2"), "gpt2", dropout=0.2)


def trained(engine: TorchEngine) -> None:
    engine.run(segment(0, 4, score=()), 1)
    engine.run(segment(4, 9, parent=1, score=()), 2)


def blend(**fields: Any) -> Segment:
    return segment(0, 0, **{"parent": 2, "blend": PARTS, **fields})


def exported(engine: TorchEngine, snapshot: Snapshot, folder: Path) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    engine.export(snapshot, folder)
    return load_file(next(folder.glob("*.safetensors")))


@pytest.mark.parametrize("average", [None, 0.5])
@pytest.mark.parametrize("peft", [None, {"r": 2, "target_modules": ["c_attn"]}])
def test_a_blend_is_the_mean_of_what_its_parts_would_hand_over(
    folder: Path, tmp_path: Path, average: float | None, peft: dict[str, Any] | None
) -> None:
    """Of averaged weights where there are any, of each factor of an adapter, and of the base model."""
    engine, store = tiny_engine(folder, tmp_path / "snapshots", average=average, peft=peft)
    trained(engine)
    outcome = engine.run(blend(), 3)
    parts = {number: exported(engine, number, tmp_path / str(number)) for number, _ in PARTS}
    found = exported(engine, 3, tmp_path / "blend")
    for name, tensor in found.items():
        mean = torch.stack([share * parts[number][name].double() for number, share in PARTS]).sum(0)
        torch.testing.assert_close(tensor.double(), mean, rtol=1e-6, atol=1e-7)
    assert not same(found, parts[2])
    state = store.get(3)
    assert (outcome.snapshot, outcome.bytes, outcome.train_loss) == (3, state.nbytes, None)
    assert (outcome.tokens.train, set(outcome.scores)) == (0, set(TASKS))
    assert state.cursor.step == 0 and not [name for name in state.tensors if name.startswith(("exp_avg", "step"))]
    if average is not None:
        assert state.tensors["mean_steps"] == 0
        weights = [name for name in state.tensors if name.startswith("weight/")]
        assert all(torch.equal(state.tensors[name], state.tensors[f"mean/{name[7:]}"]) for name in weights)


def by_hand(changes: list[torch.Tensor], density: float) -> torch.Tensor:
    """TIES of differences from the base model, number by number: trim, elect a sign, mean of those that have it."""
    kept = []
    for change in (each.double().flatten() for each in changes):
        ranks = sorted(range(len(change)), key=lambda i, change=change: -abs(float(change[i])))
        large = set(ranks[: int(density * len(change))])
        kept.append([float(x) if i in large else 0.0 for i, x in enumerate(change)])
    found = []
    for column in zip(*kept, strict=True):
        sign = 1 if sum(column) >= 0 else -1
        agreeing = [x for x in column if x * sign > 0]
        found.append(sum(agreeing) / len(agreeing) if agreeing else 0.0)
    return torch.tensor(found, dtype=torch.float64).reshape(changes[0].shape)


@pytest.mark.parametrize("average", [None, 0.5])
@pytest.mark.parametrize("peft", [None, {"r": 4, "target_modules": ["c_attn"]}])
def test_a_merger_by_ties_is_that_of_the_paper_and_of_peft(
    folder: Path, tmp_path: Path, average: float | None, peft: dict[str, Any] | None
) -> None:
    engine, store = tiny_engine(folder, tmp_path / "snapshots", average=average, peft=peft)
    trained(engine)
    engine.run(segment(0, 3, rollout=2, score=()), 3)
    engine.run(blend(parent=3, blend=((1, 0.25), (2, 0.25), (3, 0.5)), ties=0.3), 4)
    engine.run(blend(parent=3, blend=((1, 0.25), (2, 0.25), (3, 0.25), (ROOT, 0.25)), ties=0.3), 5)
    engine.run(segment(0, 1, rollout=3, score=()), 6)  # the live state is another one
    engine.run(blend(parent=6, blend=((1, 0.5), (2, 0.5)), ties=0.3), 7)
    parts = [exported(engine, number, tmp_path / str(number)) for number in (ROOT, 1, 2, 3)]
    uneven, root, even = (exported(engine, number, tmp_path / str(number)) for number in (4, 5, 7))
    differ = 0
    for name, base in parts[0].items():
        changes = [part[name] - base for part in parts[1:]]
        expected = base.double() + by_hand(changes[:2], 0.3)
        torch.testing.assert_close(even[name].double(), expected, rtol=1e-5, atol=1e-7)
        weights = torch.tensor([0.75, 0.75, 1.5])
        torch.testing.assert_close(uneven[name], base + ties(changes, weights, 0.3), rtol=1e-5, atol=1e-7)
        of_three = base + ties(changes, torch.ones(3), 0.3)  # the base model has no differences, so it counts nothing
        torch.testing.assert_close(root[name], of_three, rtol=1e-5, atol=1e-7)
        differ += not torch.equal(even[name], torch.stack([parts[1][name], parts[2][name]]).mean(0))
    assert differ, "it is no mean"
    state = store.get(7)
    assert state.cursor.step == 0 and not [name for name in state.tensors if name.startswith("exp_avg")]


@pytest.mark.parametrize("average", [None, 0.5])
def test_a_blend_does_not_depend_on_where_its_parts_are(folder: Path, tmp_path: Path, average: float | None) -> None:
    """In memory, on disk, or only in the model itself."""
    found = []
    for name, memory in (("memory", 10**9), ("disk", 0), ("live", 10**9), ("elsewhere", 10**9)):
        engine, store = tiny_engine(folder, tmp_path / name, average=average, memory_bytes=memory)
        trained(engine)
        if name == "live":
            store.prune({1})
        if name == "elsewhere":
            engine.run(segment(0, 2, rollout=2), 4)
        outcome = engine.run(blend(), 3)
        after = engine.run(segment(0, 3, parent=3, rollout=2), 5)
        found.append((outcome, after, dict(store.get(3).tensors), dict(store.get(5).tensors)))
    for outcome, after, tensors, later in found[1:]:
        assert (outcome, after) == found[0][:2]
        assert same(tensors, found[0][2]) and same(later, found[0][3])


def test_a_blend_of_one_snapshot_is_that_snapshot_and_leaves_the_training_alone(folder: Path, tmp_path: Path) -> None:
    engine, store = tiny_engine(folder, tmp_path / "a")
    alone, alone_store = tiny_engine(folder, tmp_path / "b")
    trained(engine)
    trained(alone)
    scores = engine.run(segment(0, 0, parent=2), 3).scores
    assert engine.run(blend(blend=((2, 1.0),)), 4).scores == scores
    engine.run(segment(9, 12, parent=2, score=()), 5)
    alone.run(segment(9, 12, parent=2, score=()), 3)
    assert same(dict(store.get(5).tensors), dict(alone_store.get(3).tensors))


class Killed(BaseException):
    """The process is gone: what waits to be written is lost."""


Journal = list[tuple[Segment, Outcome]]


def go(
    folder: Path, snapshots: Path, name: str, journal: Journal, limit: int | None, until: int = 10**6
) -> tuple[Snapshot, Store]:
    """A process's part in a search: goes on from the journal, and from what is on disk."""
    data = tiny_data((5, 4, 6))
    engine, store = tiny_engine(folder, snapshots, average=0.5, data=data)

    def record(number: int, asked: Segment, outcome: Outcome) -> None:
        journal.append((asked, outcome))
        if len(journal) == until:
            raise Killed

    sizes = tuple(len(part.train) for part in data.values())
    method = OWN[name]
    brief = Brief(
        tasks=TASKS, sizes=sizes, validation_sizes=(5, 5, 5), batch_size=6, seed=5, base=engine.base(), eval_every=0.5,
        horizon=2.0 if name in {"averages", "weighs"} else 10.0, params=method.Params(),
    )  # fmt: skip
    search = Search(method, brief, journal)
    with store:
        return drive(search, engine, store, record, journal[:], limits=((1, limit),)), store


@pytest.mark.parametrize(("name", "limit"), [("averages", None), ("averages", 1), ("soups", 2), ("wanders", 2),
                                             ("weighs", None), ("decays", None), ("halves", None),
                                             ("teaches", None), ("teaches", 1)])  # fmt: skip
def test_a_run_with_every_word_is_resumed_bit_for_bit(
    folder: Path, tmp_path: Path, name: str, limit: int | None
) -> None:
    plain: Journal = []
    answer, store = go(folder, tmp_path / "whole", name, plain, None)
    cut, journal = 2 * len(plain) // 3, Journal()
    with suppress(Killed):
        go(folder, tmp_path / "killed", name, journal, limit, until=cut)
    assert len(journal) == cut
    resumed, kept = go(folder, tmp_path / "killed", name, journal, limit)
    assert (resumed, journal) == (answer, plain)
    if answer != ROOT:
        assert same(dict(kept.get(answer).tensors), dict(store.get(answer).tensors))
