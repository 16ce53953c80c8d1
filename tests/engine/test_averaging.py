"""Averaged weights: a reference loop, what is evaluated and handed over, and states that restore it bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_engine import export_merged, same, segment, tiny_engine, tiny_folder

from msft.core.averages import Averaging
from msft.core.vocabulary import ROOT, Probe
from msft.engine.torch_engine import TorchEngine
from msft.snapshots.store import Store

LORA = {"r": 2, "target_modules": "all-linear"}
STEPS = 6
"""Of an epoch of the tiny data: 32 examples, six a step."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("model"))


def of(tensors: dict[str, torch.Tensor], kind: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(f"{kind}/"): t for name, t in tensors.items() if name.startswith(f"{kind}/")}


def shares(warm_up: str, window: float, steps: int) -> list[float]:
    """The share of each step, written out from its definition."""
    decay = 1 - 1 / window
    if warm_up == "ramp":
        return [1 - min(decay, (1 + t) / (10 + t)) for t in range(1, steps + 1)]
    if warm_up == "debiased":
        return [(1 - decay) / (1 - decay**t) for t in range(1, steps + 1)]
    return [1 - decay] * steps


@pytest.mark.parametrize("warm_up", ["none", "debiased", "ramp"])
@pytest.mark.parametrize("window", [0.4, 2.0])
@pytest.mark.parametrize("peft", [None, LORA])
def test_the_mean_is_that_of_a_plain_loop(
    folder: Path, tmp_path: Path, warm_up: str, window: float, peft: dict[str, object] | None
) -> None:
    """Past the point where the window binds: 13 steps, and a window of 2.4 or 12."""
    plain, store = tiny_engine(folder, tmp_path / "plain", peft=peft)
    plain.run(segment(0, 1), 1)
    path = [store.get(1).tensors]
    for step in range(1, 13):
        plain.run(segment(step, step + 1, parent=step), step + 1)
        path.append(store.get(step + 1).tensors)
    engine, kept = tiny_engine(folder, tmp_path / "mean", peft=peft, average=window, average_warmup=warm_up)
    engine.run(segment(0, 5), 1)
    engine.run(segment(5, 13, parent=1), 2)
    found = kept.get(2).tensors
    assert same(of(found, "weight"), of(path[-1], "weight")), "training itself does not change"
    first, _ = tiny_engine(folder, tmp_path / "base", peft=peft)
    mean = {name: weight.cpu().double() for name, weight in of(dict(first.state().tensors), "weight").items()}
    for tensors, share in zip(path, shares(warm_up, window * STEPS, 13), strict=True):
        for name, weight in of(tensors, "weight").items():
            mean[name] = mean[name] + share * (weight.cpu().double() - mean[name])
    for name, expected in mean.items():
        torch.testing.assert_close(found[f"mean/{name}"].cpu().double(), expected, rtol=1e-5, atol=1e-6)
    assert int(found["mean_steps"]) == 13


@pytest.mark.parametrize("peft", [None, LORA])
def test_the_mean_is_evaluated_and_handed_over(folder: Path, tmp_path: Path, peft: dict[str, object] | None) -> None:
    engine, store = tiny_engine(folder, tmp_path / "mean", peft=peft, average=0.5)
    raw, _ = tiny_engine(folder, tmp_path / "raw", peft=peft)
    assert engine.base().scores == raw.base().scores, "the mean of no steps is the base model"
    averaged, plain = engine.run(segment(0, 5), 1), raw.run(segment(0, 5), 1)
    assert averaged.train_loss == plain.train_loss and averaged.scores != plain.scores
    hand_over = TorchEngine.export if peft is None else export_merged
    hand_over(engine, 1, tmp_path / "final")
    reloaded, _ = tiny_engine(tmp_path / "final", tmp_path / "other")
    for task, score in reloaded.base().scores.items():
        assert score == pytest.approx(averaged.scores[task], rel=1e-5)
    before = store.get(1).tensors
    engine.run(segment(5, 9, parent=1), 2)
    again, _ = tiny_engine(folder, tmp_path / "again", peft=peft, average=0.5)
    again.run(segment(0, 5), 1)
    again.run(segment(5, 9, parent=1), 2)
    assert same(dict(store.get(1).tensors), dict(before))
    assert engine.test(2).scores == again.test(2).scores, "evaluating in between changes nothing"


@pytest.mark.parametrize("reset", [False, True])
def test_a_roll_back_restores_the_mean_and_its_steps(folder: Path, tmp_path: Path, reset: bool) -> None:
    """In this process and, from the disk, in another; a reset of the optimizer is none of the mean."""
    engine, store = tiny_engine(folder, tmp_path / "snapshots", average=0.5, durable="tick")
    engine.run(segment(0, 5), 1)
    engine.run(segment(5, 9, parent=1), 2)
    back = segment(0, 3, parent=1, rollout=2, epoch=5 / 6, reset_optimizer=reset)
    there = engine.run(back, 3)
    assert int(store.get(3).tensors["mean_steps"]) == 8
    engine.run(segment(3, 5, parent=3, rollout=2), 4)
    assert engine.run(back, 5) == there.__class__(**{**_fields(there), "snapshot": 5})
    store.finish()
    other, again = tiny_engine(folder, tmp_path / "snapshots", average=0.5, durable="tick", memory_bytes=0)
    assert isinstance(again, Store)
    other.run(back, 6)
    assert same(dict(again.get(6).tensors), dict(store.get(3).tensors))


def _fields(outcome: object) -> dict[str, object]:
    return {name: getattr(outcome, name) for name in outcome.__slots__}  # type: ignore[attr-defined]


def test_a_look_ahead_and_losses_read_the_raw_weights(folder: Path, tmp_path: Path) -> None:
    probes = frozenset({Probe.LOOKAHEAD, Probe.LOSSES})
    engine, store = tiny_engine(folder, tmp_path / "mean", average=0.5)
    raw, _ = tiny_engine(folder, tmp_path / "raw")
    found, plain = (one.run(segment(0, 5, probes=probes), 1) for one in (engine, raw))
    assert found.lookahead == plain.lookahead and found.losses == plain.losses
    engine._live.become(ROOT)
    engine._live.become(1)
    assert same(dict(engine._average.tensors()), {n: t for n, t in store.get(1).tensors.items() if "mean" in n})


def test_the_mean_age_is_that_of_its_shares() -> None:
    plain = Averaging(10)
    assert plain.age(1) == pytest.approx(0.9)  # a tenth is new, the rest is the base model, one step old
    assert plain.age(1000) == pytest.approx(9)
    assert Averaging(10, "debiased").age(3) < 1.01 and Averaging(10, "ramp").age(1000) == pytest.approx(9)
