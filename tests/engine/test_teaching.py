"""A teacher's predictions as targets: against the formulas on the models' own logits, in every layout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from device import DEVICE
from tiny_engine import TASKS, VOCABULARY, same, segment, tiny_data, tiny_engine, tiny_example, tiny_folder, tiny_model
from torch.nn import functional

from msft.core.vocabulary import ROOT, Mixture, Teacher
from msft.data.examples import Example
from msft.engine.optimizers import make_optimizer
from msft.engine.progress import ScoreInfo
from msft.engine.settings import EngineSettings
from msft.engine.step import Stepper
from msft.forward.runtime import Runtime
from msft.forward.soft_targets import SoftTargets, mixed, soft_targets
from msft.model.lighten import lighten
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss
from msft.snapshots.state import trainable


def examples(count: int) -> list[Example]:
    random = np.random.default_rng(1)
    return [tiny_example(random) for _ in range(count)]


def logits_of(model: torch.nn.Module, example: Example) -> torch.Tensor:
    """[targets, vocabulary], by the model alone, one sequence at a time."""
    ids = torch.from_numpy(example.ids.astype(np.int64)).to(DEVICE)
    return model(input_ids=ids[None]).logits[0, :-1].float()[torch.from_numpy(example.trained[1:])]


def other_model(kind: str = "llama") -> torch.nn.Module:
    """Of the same shape, with other weights."""
    model = tiny_model(kind).to(DEVICE).eval()
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.mul_(1 + 0.3 * (number % 3))
    return model


def teach(
    model: torch.nn.Module, batch: Sequence[Example], share: float, top: int, **runtime: Any
) -> list[SoftTargets]:
    found = Runtime(device=DEVICE, max_tokens=30, **runtime)
    wrapped = model if isinstance(model, TokenLoss) else TokenLoss(model)
    return soft_targets(wrapped, batch, found, share=share, top=top, progress=lambda done: None)


def test_a_target_is_the_teachers_distribution_by_its_share_and_the_label_by_the_rest() -> None:
    """Number by number: a label that the teacher predicts too, one that it does not, and a token that it rules out."""
    labels, predicted = np.array([7, 9, 5], np.int32), np.array([[4, 7], [1, 2], [5, 3]], np.int32)
    tokens, odds = mixed(labels, predicted, np.array([[0.5, 0.25], [0.6, 0.1], [1.0, 0.0]]), 0.4)
    assert tokens.tolist() == [[7, 4, 7], [9, 1, 2], [5, 5, 5]]
    assert odds == pytest.approx(np.array([[0.8, 0.2, 0.0], [0.72, 0.24, 0.04], [1.0, 0.0, 0.0]]))


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("top", [3, VOCABULARY, VOCABULARY + 5])
def test_what_a_teacher_predicts_is_the_softmax_of_its_own_logits(kind: str, top: int) -> None:
    teacher, batch = other_model(kind), examples(7)
    found = teach(teacher, batch, 1.0, top)
    with torch.no_grad():
        expected = [logits_of(teacher, example).softmax(-1).cpu().numpy() for example in batch]
    for example, soft, full in zip(batch, found, expected, strict=True):
        labels = example.ids[example.trained]
        assert (soft.tokens[:, 0] == labels).all() and soft.odds.sum(1) == pytest.approx(np.ones(len(labels)))
        for at, label in enumerate(labels):
            most = set(np.argsort(-full[at])[:top].tolist())
            told: dict[int, float] = {}
            for token, share in zip(soft.tokens[at].tolist(), soft.odds[at].tolist(), strict=True):
                told[token] = told.get(token, 0.0) + share
            by_hand = {token: float(full[at][token]) for token in most}
            by_hand[label] = by_hand.get(label, 0.0) + 1 - sum(by_hand.values())
            told = {token: share for token, share in told.items() if token in by_hand or share}
            assert told == pytest.approx(by_hand, abs=1e-5)


CUTS = {"padded": False, "flat": False, "fused": True, "lengths": False}


def stepper(model: torch.nn.Module, way: str, reduction: str) -> Stepper:
    settings = EngineSettings(seed=1, batch_size=9, horizon=1, learning_rate=0.1, loss_reduction=reduction)  # type: ignore[arg-type]
    loss = TokenLoss(model)
    runtime = Runtime(device=DEVICE, max_tokens=30)
    if way != "padded":
        layout = fitting_layout(loss, DEVICE, 14, lengths=way == "lengths")
        runtime = replace(runtime, layout=layout.rows)
        assert layout.rows == ("lengths" if way == "lengths" else "flat")
    if way == "fused":
        lighten(loss, runtime.layout, DEVICE, precision="fp32", direct=True, longest=14)
        assert loss.fused is not None
    return Stepper(loss, make_optimizer(trainable(model), settings), settings, runtime)


@pytest.mark.cpu("on a card, no layer is replaced")
@pytest.mark.parametrize("reduction", ["token", "example"])
@pytest.mark.parametrize("way", CUTS)
def test_the_gradient_is_that_of_cross_entropy_with_both_distributions(way: str, reduction: str) -> None:
    """(1 - share) times that of the label and share times the divergence from the teacher, whose entropy is constant
    (arXiv 1503.02531, at temperature 1), with weights of examples on top."""
    batch, share, weights = examples(9), 0.3, np.array([0.5, 2.0, 0.0, 1.0, 1.5, 0.5, 0.0, 3.0, 1.0])
    teacher, plain = other_model(), tiny_model().to(DEVICE)
    total, labels, tokens = torch.zeros((), device=DEVICE), [], sum(example.targets for example in batch)
    for example, weight in zip(batch, weights, strict=True):
        ours = logits_of(plain, example).log_softmax(-1)
        with torch.no_grad():
            theirs = logits_of(teacher, example).log_softmax(-1)
        own = torch.from_numpy(example.ids[example.trained].astype(np.int64)).to(DEVICE)
        of_label = functional.nll_loss(ours, own, reduction="none")
        divergence = functional.kl_div(ours, theirs, log_target=True, reduction="none").sum(-1)
        losses = (1 - share) * of_label + share * divergence
        total = total + weight * (losses.sum() / tokens if reduction == "token" else losses.mean() / len(batch))
        labels.append(of_label.detach())
    total.backward()
    model = tiny_model().to(DEVICE)
    step = stepper(model, way, reduction)
    found = step.begin(batch, (1, 2, 3), weights, teach(teacher, batch, share, VOCABULARY))()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, plain.get_parameter(name).grad, rtol=1e-4, atol=2e-6)
    means = [each.mean().item() for each in labels]
    assert found.examples == pytest.approx(means, rel=1e-5), "what is reported is the loss of the labels"
    mean = torch.cat(labels).mean().item() if reduction == "token" else np.mean(means)
    assert found.loss == pytest.approx(mean, rel=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llama"))


TAUGHT = Teacher(snapshots=(1,), share=0.5, top=8)
TOKENS = sum(len(example) for part in tiny_data().values() for example in part.train)


@pytest.mark.parametrize("more", [{}, {"lengths": True}, {"average": 0.5},
                                  {"peft": {"r": 2, "target_modules": ["q_proj"]}}],
                         ids=["full", "static", "averages", "lora"])  # fmt: skip
def test_a_second_run_learns_from_the_first_and_is_repeated_bit_for_bit(
    folder: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    """Whether the predictions are known from the segment before, or the teacher has to be asked again."""
    told: list[ScoreInfo] = []
    watch = lambda info: told.append(info) if isinstance(info, ScoreInfo) and info.what else None  # noqa: E731
    engine, store = tiny_engine(folder, tmp_path / "one", on_step=watch, **more)
    engine.run(segment(0, 9, score=()), 1)
    first = engine.run(segment(0, 4, rollout=2, teacher=TAUGHT), 2)
    later = engine.run(segment(4, 8, parent=2, rollout=2, teacher=TAUGHT), 3)
    assert [(info.done, info.total) for info in told][-1] == (32, 32)
    assert len({info.what for info in told}) == 1, "asked once"
    assert (first.tokens.probe, later.tokens.probe) == (TOKENS, 0), "read once"
    alone = engine.run(segment(0, 4, rollout=2), 4)
    assert first.train_loss != alone.train_loss and first.tokens.train == alone.tokens.train
    with store:
        store.persist({1, 2})
        store.finish()
    again, other = tiny_engine(folder, tmp_path / "one", **more)
    resumed = again.run(segment(4, 8, parent=2, rollout=2, teacher=TAUGHT), 3)
    assert resumed == later
    assert same(dict(store.get(3).tensors), dict(other.get(3).tensors))


def test_what_a_teacher_reads_is_counted_once_a_roll_out(folder: Path, tmp_path: Path) -> None:
    """Of the sub-datasets of the mixture, whatever was read before."""
    engine, _ = tiny_engine(folder, tmp_path / "a")
    engine.run(segment(0, 9, score=()), 1)
    one = Mixture(tasks=("one",))
    told = [engine.run(segment(0, 2, rollout=2, mixture=one, teacher=TAUGHT), 2)]
    told.append(engine.run(segment(0, 3, rollout=3, parent=2, teacher=TAUGHT), 3))
    told.append(engine.run(segment(0, 3, rollout=4, teacher=replace(TAUGHT, snapshots=(ROOT,))), 4))
    own = sum(len(example) for example in tiny_data()["one"].train)
    assert [outcome.tokens.probe for outcome in told] == [own, TOKENS, TOKENS]


def test_each_sub_dataset_has_the_targets_of_its_own_teacher(folder: Path, tmp_path: Path) -> None:
    engine, _ = tiny_engine(folder, tmp_path / "a")
    engine.run(segment(0, 9, score=()), 1)
    own = replace(TAUGHT, snapshots=(1, *[ROOT] * (len(TASKS) - 1)))
    told = engine.run(segment(0, 2, rollout=2, teacher=own, score=()), 2)
    assert told.tokens.probe == TOKENS, "each example is read once"
    found = {task: engine._teaching._known[task] for task in TASKS}
    for task, snapshot in zip(TASKS, own.snapshots, strict=True):
        engine.run(segment(0, 2, rollout=3, teacher=replace(TAUGHT, snapshots=(snapshot,)), score=()), 3)
        for soft, expected in zip(found[task], engine._teaching._known[task], strict=True):
            assert np.array_equal(soft.tokens, expected.tokens) and np.array_equal(soft.odds, expected.odds)
    assert not np.array_equal(found[TASKS[0]][0].odds, engine._teaching._known[TASKS[0]][0].odds)


def test_held_out_rows_are_taught_where_they_are_trained(folder: Path, tmp_path: Path) -> None:
    """They follow the others in number, and are asked for anew: a search's roll-out did not need them."""
    data = {task: replace(part, held_out=tuple(examples(3))) for task, part in tiny_data().items()}
    engine, _ = tiny_engine(folder, tmp_path / "a", data=data)
    engine.run(segment(0, 9, score=()), 1)
    engine.run(segment(0, 2, rollout=2, teacher=TAUGHT, score=()), 2)
    known = {task: list(engine._teaching._known[task]) for task in TASKS}
    whole = Mixture(tasks=TASKS, whole=True)
    told = engine.run(segment(0, 6, rollout=3, mixture=whole, teacher=TAUGHT, score=()), 3)
    assert told.tokens.probe == TOKENS + sum(len(e) for part in data.values() for e in part.held_out)
    for task in TASKS:
        here = engine._teaching._known[task]
        assert len(here) == len(known[task]) + 3
        for one, other in zip(known[task], here, strict=False):
            assert np.array_equal(one.tokens, other.tokens) and one.odds == pytest.approx(other.odds, abs=1e-5)


@pytest.mark.cpu("on a card, test_graphs.py has its place")
def test_soft_targets_fill_up_a_micro_batch_as_labels_do(folder: Path, tmp_path: Path) -> None:
    """In sizes of their own, which give what the eager path gives."""
    found, filled = [], []
    for name, more in (("static", {"lengths": True, "soft_targets": 1 + TAUGHT.top}), ("eager", {})):
        engine, store = tiny_engine(folder, tmp_path / name, batch_size=3, **more)
        for each in getattr(engine._stepper, "_filled", ()):
            each.take = lambda values, take=each.take, width=each.shape.width: filled.append(width) or take(values)
        filled.clear()
        engine.run(segment(0, 9, score=()), 1)
        assert set(filled) <= {1}
        filled.clear()
        outcome = engine.run(segment(0, 5, rollout=2, teacher=TAUGHT), 2)
        found.append((outcome, store.get(2).tensors, list(filled)))
    (static, one, widths), (eager, other, _) = found
    assert len(widths) == 5 and set(widths) == {1 + TAUGHT.top}, "each step has one micro-batch"
    assert static.train_loss == pytest.approx(eager.train_loss, rel=1e-5)
    for key, tensor in other.items():
        if key.startswith("exp_avg/"):
            assert torch.allclose(one[key], tensor, rtol=1e-4, atol=1e-4 * float(tensor.abs().max()))


def test_the_teacher_is_the_average_where_weights_are_averaged(folder: Path, tmp_path: Path) -> None:
    """A run on averages whose teacher is snapshot 1 has the targets that snapshot 1, exported, predicts."""
    engine, _ = tiny_engine(folder, tmp_path / "one", average=0.5)
    engine.run(segment(0, 9, score=()), 1)
    engine.run(segment(0, 2, rollout=2, teacher=TAUGHT, score=()), 2)
    (tmp_path / "final").mkdir()
    engine.export(1, tmp_path / "final")
    model = type(tiny_model()).from_pretrained(tmp_path / "final").to(DEVICE).eval()
    for task in TASKS:
        part = tiny_data()[task].train
        expected = teach(model, part, TAUGHT.share, TAUGHT.top)
        given = segment(0, 1, teacher=TAUGHT)
        for soft, wanted in zip(
            engine._teaching.of(given, [(task, i) for i in range(len(part))]), expected, strict=True
        ):
            assert soft.odds == pytest.approx(wanted.odds, abs=1e-4)
