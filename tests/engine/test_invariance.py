"""What must not change the training: segments, roll-backs, the cut, scoring, probes (design 3)."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_engine import TASKS, same, segment, tiny_data, tiny_engine, tiny_folder

from msft.core.errors import RunError
from msft.core.vocabulary import ROOT, Anneal, Mixture, Probe
from msft.engine.progress import ScoreInfo, StepInfo
from msft.forward.runtime import NotFiniteError
from msft.system import files
from msft.system.files import Operation
from msft.system.stopwatch import Stopwatch


@pytest.fixture(scope="module")
def dropping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("gpt2"), "gpt2", dropout=0.2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llama"))


def steps(told: list[object]) -> list[float]:
    return [info.loss for info in told if isinstance(info, StepInfo)]


def test_four_segments_equal_one_bit_for_bit(dropping: Path, tmp_path: Path) -> None:
    short: list[object] = []
    long: list[object] = []
    pieces, piece_store = tiny_engine(dropping, tmp_path / "a", on_step=short.append, schedule="linear")
    whole, whole_store = tiny_engine(dropping, tmp_path / "b", on_step=long.append, schedule="linear")
    for number in range(4):
        part = segment(5 * number, 5 * number + 5, parent=number, epoch=5 * number / 6)
        last = pieces.run(part, number + 1)
    only = whole.run(segment(0, 20), 1)
    assert steps(short) == steps(long) and len(steps(long)) == 20
    assert same(dict(piece_store.get(4).tensors), dict(whole_store.get(1).tensors))
    assert piece_store.get(4).cursor == whole_store.get(1).cursor
    assert last.scores == only.scores


@pytest.mark.parametrize("memory_bytes", [10**9, 0])
def test_rolling_back_and_repeating_gives_the_same_again(dropping: Path, tmp_path: Path, memory_bytes: int) -> None:
    engine, store = tiny_engine(dropping, tmp_path, memory_bytes=memory_bytes)
    engine.run(segment(0, 3), 1)
    first = engine.run(segment(3, 8, parent=1), 2)
    engine.run(segment(0, 4, parent=2, rollout=2, mixture=Mixture(tasks=("two",))), 3)
    again = engine.run(segment(3, 8, parent=1), 4)
    assert same(dict(store.get(2).tensors), dict(store.get(4).tensors))
    assert (again.scores, again.train_loss, again.tokens, again.bytes) == (
        first.scores,
        first.train_loss,
        first.tokens,
        first.bytes,
    )


def test_the_base_model_is_re_read_with_an_empty_optimizer(dropping: Path, tmp_path: Path) -> None:
    engine, store = tiny_engine(dropping, tmp_path)
    base = engine.base()
    engine.run(segment(0, 3), 1)
    engine.run(segment(0, 3), 2)
    assert same(dict(store.get(1).tensors), dict(store.get(2).tensors))
    assert engine.base() == base


def test_dropout_is_on_in_training(dropping: Path, plain: Path, tmp_path: Path) -> None:
    losses = []
    for seed in (5, 6):
        told: list[object] = []
        # A single example: the order of instances cannot make the difference, only dropout's seed can.
        data = {task: part for task, part in tiny_data((1, 8, 13)).items() if task == "one"}
        engine, _ = tiny_engine(dropping, tmp_path / str(seed), on_step=told.append, seed=seed, data=data)
        engine.run(segment(0, 1, mixture=Mixture(tasks=("one",)), score=()), 1)
        losses += steps(told)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("reduction", ["token", "example"])
def test_cutting_otherwise_changes_only_the_rounding(plain: Path, tmp_path: Path, reduction: str) -> None:
    runs = []
    for budget in (14, 60, 4096):
        told: list[object] = []
        engine, _ = tiny_engine(
            plain,
            tmp_path / str(budget),
            on_step=told.append,
            max_tokens_per_microbatch=budget,
            loss_reduction=reduction,
            batch_size=16,
        )
        outcome = engine.run(segment(0, 4), 1)
        runs.append((steps(told), outcome.scores))
    for losses, scores in runs[1:]:
        assert losses == pytest.approx(runs[0][0], rel=1e-5)
        assert scores == pytest.approx(runs[0][1], rel=1e-4)


def test_losses_weighed_alike_train_as_unweighted_ones_and_unlike_ones_do_not(plain: Path, tmp_path: Path) -> None:
    found = []
    for name, weights in (("none", None), ("ones", (1.0, 1.0, 1.0)), ("one", (1.0, 0.0, 0.0))):
        engine, store = tiny_engine(plain, tmp_path / name)
        outcome = engine.run(segment(0, 4, mixture=Mixture(tasks=TASKS, loss_weights=weights)), 1)
        found.append((outcome, dict(store.get(1).tensors)))
    assert found[0][0] == found[1][0] and same(found[0][1], found[1][1])
    assert not same(found[0][1], found[2][1])
    assert found[2][0].tokens == found[0][0].tokens


def test_scoring_between_steps_changes_nothing(dropping: Path, tmp_path: Path) -> None:
    scored, scored_store = tiny_engine(dropping, tmp_path / "a")
    blind, blind_store = tiny_engine(dropping, tmp_path / "b")
    torch.manual_seed(1)
    before = torch.get_rng_state()
    scored.base()
    for number in range(3):
        scored.run(segment(number, number + 1, parent=number), number + 1)
        scored.test(number + 1)
    assert torch.equal(torch.get_rng_state(), before), "the global random state was touched"
    blind.run(segment(0, 3, score=()), 1)
    assert same(dict(scored_store.get(3).tensors), dict(blind_store.get(1).tensors))


@pytest.mark.parametrize("virtual", ["adam", "sgd"])
def test_a_lookahead_leaves_no_trace(dropping: Path, tmp_path: Path, virtual: str) -> None:
    looking, looking_store = tiny_engine(dropping, tmp_path / "a", virtual=virtual, weight_decay=0.1)
    blind, blind_store = tiny_engine(dropping, tmp_path / "b", virtual=virtual, weight_decay=0.1)
    before = torch.get_rng_state()
    probes = frozenset({Probe.LOOKAHEAD})
    empty = looking.run(segment(0, 0, probes=probes), 1)
    assert empty.snapshot == ROOT and empty.bytes == 0 and empty.train_loss is None
    seen = looking.run(segment(0, 3, probes=probes), 2)
    looking.run(segment(3, 6, parent=2, probes=probes), 3)
    blind.run(segment(0, 3), 1)
    blind.run(segment(3, 6, parent=1), 2)
    assert same(dict(looking_store.get(3).tensors), dict(blind_store.get(2).tensors))
    assert torch.equal(torch.get_rng_state(), before)
    assert seen.lookahead is not None and set(seen.lookahead) == set(TASKS)
    assert empty.lookahead is not None and all(fall > 0 for fall in empty.lookahead.values())
    assert seen.tokens.probe > 0


def test_a_reset_optimizer_starts_without_moments(plain: Path, tmp_path: Path) -> None:
    engine, store = tiny_engine(plain, tmp_path)
    engine.run(segment(0, 3), 1)
    engine.run(segment(0, 1, parent=1, rollout=2, reset_optimizer=True), 2)
    engine.run(segment(0, 1, parent=1, rollout=2), 3)
    name = "step/model.embed_tokens.weight"
    assert store.get(2).tensors[name] == 1 and store.get(3).tensors[name] == 4


def test_losses_are_those_of_the_batch_as_trained_and_of_the_left_out_at_an_epochs_end(
    plain: Path, tmp_path: Path
) -> None:
    data = tiny_data()
    out = frozenset({("two", 3), ("one", 0)})
    mixture = Mixture(tasks=TASKS, without=out)
    engine, _ = tiny_engine(plain, tmp_path, learning_rate=0.0, loss_reduction="example")
    middle = engine.run(segment(0, 2, mixture=mixture, probes=frozenset({Probe.LOSSES})), 1)
    end = engine.run(segment(2, 5, parent=1, mixture=mixture, probes=frozenset({Probe.LOSSES})), 2)
    assert middle.losses is not None and end.losses is not None
    assert not any(task in middle.losses and index in middle.losses[task] for task, index in out)
    seen = {(task, index) for losses in (middle.losses, end.losses) for task in losses for index in losses[task]}
    assert seen == {(task, index) for task, part in data.items() for index in range(len(part.train))}
    assert middle.train_loss == pytest.approx(np.mean([x for task in middle.losses.values() for x in task.values()]))
    assert end.tokens.probe == sum(len(data[task].train[index]) for task, index in out)


def test_the_validation_loss_costs_nothing_beside_the_scores(plain: Path, tmp_path: Path) -> None:
    engine, _ = tiny_engine(plain, tmp_path)
    silent = engine.run(segment(0, 2), 1)
    asked = engine.run(segment(0, 2, probes=frozenset({Probe.LOSS})), 2)
    assert silent.loss is None and asked.loss is not None and set(asked.loss) == set(TASKS)
    assert (asked.tokens, asked.scores) == (silent.tokens, silent.scores)
    # The score of the measure `loss` is exp(-NLL) itself.
    assert np.exp(-asked.loss["two"]) == asked.scores["two"]
    turned = engine.run(segment(0, 0, parent=2, score=("one",), probes=frozenset({Probe.LOSS})), 3)
    # On a GPU, other rows beside them change the rounding.
    assert turned.loss == pytest.approx({"one": asked.loss["one"]}, rel=1e-6)


def test_a_loss_that_is_no_number_names_the_step_and_its_examples(plain: Path, tmp_path: Path) -> None:
    engine, _ = tiny_engine(plain, tmp_path, learning_rate=1e30)
    with pytest.raises(NotFiniteError, match=r"step \d+ of roll-out 1 .*(one|two|three)\[\d+\].*Fix:"):
        engine.run(segment(0, 20, score=()), 1)


def test_progress_and_tokens_are_told(plain: Path, tmp_path: Path) -> None:
    told: list[object] = []
    engine, _ = tiny_engine(plain, tmp_path, on_step=told.append)
    data = tiny_data()
    stopwatch = Stopwatch()
    with stopwatch.running():
        outcome = engine.run(segment(0, 6), 1)
    assert outcome.tokens.train == sum(len(example) for part in data.values() for example in part.train)
    assert outcome.tokens.train == sum(info.tokens for info in told if isinstance(info, StepInfo))
    scored = [info for info in told if isinstance(info, ScoreInfo)]
    assert scored[-1].done == scored[-1].total == 15
    assert set(stopwatch.drain()) == {
        "train.input", "train.compute", "train.optimizer", "eval.ticks", "snapshot.capture", "snapshot.durable",
        "other",
    }  # fmt: skip


def test_an_annealed_rate_is_the_schedule_times_the_factor_of_each_step(plain: Path, tmp_path: Path) -> None:
    """Whatever the segments and wherever training resumes: here from another process's snapshot."""
    told: list[object] = []
    anneal = Anneal(start=2, stop=7, to=0.1, shape="cosine")
    parts = [segment(at, stop, parent=number, anneal=anneal) for number, (at, stop) in enumerate([(0, 3), (3, 9)])]
    engine, store = tiny_engine(plain, tmp_path / "a", on_step=told.append, warmup=0.1)
    engine.run(parts[0], 1)
    store.persist([1])
    store.finish()
    later, later_store = tiny_engine(plain, tmp_path / "a", on_step=told.append, warmup=0.1)
    later.run(parts[1], 2)
    rates = [info.learning_rate for info in told if isinstance(info, StepInfo)]
    expected = [1e-2 * min(1.0, step / 6) * anneal.factor(step) for step in range(9)]
    assert rates == pytest.approx(expected, rel=1e-12) and rates[8] == pytest.approx(1e-3)
    whole, whole_store = tiny_engine(plain, tmp_path / "b", warmup=0.1)
    whole.run(segment(0, 9, anneal=anneal), 1)
    assert same(dict(later_store.get(2).tensors), dict(whole_store.get(1).tensors))


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_method_and_a_schedule_cannot_both_lower_the_rate(plain: Path, tmp_path: Path, schedule: str) -> None:
    engine, _ = tiny_engine(plain, tmp_path, schedule=schedule)
    message = rf"the schedule is {schedule}\. Fix: set training\.schedule: constant"
    with pytest.raises(RunError, match=message):
        engine.run(segment(0, 2, anneal=Anneal(start=0, stop=2)), 1)


def test_a_segment_that_was_broken_off_starts_again_from_its_parent(dropping: Path, tmp_path: Path) -> None:
    def break_off(info: object) -> None:
        if isinstance(info, StepInfo) and info.step == 4 and not broken:
            broken.append(info)
            raise KeyboardInterrupt

    broken: list[object] = []
    engine, store = tiny_engine(dropping, tmp_path / "a", on_step=break_off)
    whole, whole_store = tiny_engine(dropping, tmp_path / "b")
    engine.run(segment(0, 2), 1)
    with pytest.raises(KeyboardInterrupt):
        engine.run(segment(2, 6, parent=1), 2)
    engine.run(segment(2, 6, parent=1), 2)
    whole.run(segment(0, 6), 1)
    assert same(dict(store.get(2).tensors), dict(whole_store.get(1).tensors))


@pytest.mark.parametrize(("rate", "written"), [(None, [1]), (1.0, []), (1e15, [1])])
def test_a_snapshot_is_durable_at_once_where_writing_costs_little(
    tmp_path: Path, plain: Path, rate: float | None, written: list[int]
) -> None:
    engine, store = tiny_engine(plain, tmp_path / "snapshots", durable="auto")
    store.bytes_per_second = rate
    engine.run(segment(0, 2), 1)
    assert store.on_disk() == written and store.has(1)
    if written:
        assert store.bytes_per_second not in {None, rate}


def test_the_rehearsal_tells_how_fast_the_disk_is(tmp_path: Path, plain: Path) -> None:
    engine, store = tiny_engine(plain, tmp_path / "snapshots", durable="auto")
    store.rehearse(engine.state())
    assert store.bytes_per_second is not None and store.on_disk() == []


def test_a_snapshot_that_must_be_durable_is_written_while_it_is_scored(
    tmp_path: Path, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring, seen = threading.Event(), []

    def observer(operation: Operation) -> None:
        seen.append(operation.name)
        if operation.name == "engine.score":
            scoring.set()
        if operation.name == "snapshot.publish":
            assert scoring.wait(20), "scoring waits for the disk"

    engine, _ = tiny_engine(plain, tmp_path / "snapshots", durable="tick")
    monkeypatch.setattr(files, "observer", observer)
    engine.run(segment(0, 2), 1)
    assert "snapshot.published" in seen, "it is not durable on return"
