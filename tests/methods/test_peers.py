"""What the peers do that the conformance suite cannot know: each against its paper's formula, by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from msft.core.search import Search
from msft.core.vocabulary import ROOT, Anneal, Outcome, Probe, Segment, Snapshot, Teacher
from msft.methods import METHODS, coba, merge, self_distil
from msft.run.loop import drive
from msft.testing.fake import Curve, FakeEngine, brief_of

APART = {"a": Curve(peak=1.0), "b": Curve(peak=3.0), "c": Curve(peak=6.0)}
SIZES = {"a": 16, "b": 16, "c": 32}
Journal = list[tuple[Segment, Outcome]]


def play(name: str, engine: FakeEngine | None = None, /, **changes: object) -> tuple[FakeEngine, Journal, Snapshot]:
    engine = engine or FakeEngine(APART, SIZES)
    method = METHODS[name]
    brief = brief_of(engine, changes.pop("params", method.Params()), **changes)
    journal: Journal = []
    answer = drive(Search(method, brief), engine, engine.store, lambda _, s, o: journal.append((s, o)))
    return engine, journal, answer


@pytest.mark.parametrize(("cooldown", "start"), [(0.2, 128), (1.0, 0), (0.001, 159)])
def test_wsd_is_sft_until_the_rate_falls_to_zero_at_the_end(cooldown: float, start: int) -> None:
    """10 epochs of 16 steps: the last fifth are 32 steps; a cooldown has at least one."""
    _, plain, _ = play("sft")
    _, journal, answer = play("wsd", params=METHODS["wsd"].Params(cooldown=cooldown))
    falls = [segment.anneal for segment, _ in journal]
    first = next(i for i, fall in enumerate(falls) if fall is not None)
    assert set(falls[first:]) == {Anneal(start=start, stop=160, to=0.0, shape="sqrt")}
    assert journal[first][0].stop > start >= journal[first][0].start
    assert journal[:first] == plain[:first]
    assert [s.stop for s, _ in journal] == [s.stop for s, _ in plain]
    macro = [sum(o.scores.values()) for _, o in journal]
    assert answer == 1 + macro.index(max(macro))
    for step in (start, (start + 160) // 2, 159):
        by_hand = 1 - ((step - start) / (160 - start)) ** 0.5
        assert falls[-1] is not None and falls[-1].factor(step) == pytest.approx(by_hand)


@pytest.mark.parametrize("cooldown", [0.0, -0.1, 1.5])
def test_a_cooldown_is_a_share(cooldown: float) -> None:
    with pytest.raises(ValueError, match="cooldown must be a share above 0, at most 1"):
        METHODS["wsd"].Params(cooldown=cooldown)


LOSSES = [
    {"a": 2.0, "b": 4.0, "c": 1.0},
    {"a": 1.0, "b": 3.6, "c": 1.1},
    {"a": 0.8, "b": 3.2, "c": 1.4},
    {"a": 0.7, "b": 2.4, "c": 1.5},
]
"""Of three sub-datasets at four evaluations: a falls fast at first, b evenly, c rises."""


def softmax(*logits: float) -> list[float]:
    return [math.exp(x) / sum(math.exp(y) for y in logits) for x in logits]


def told(params: coba.Params, losses: Sequence[Mapping[str, float]]) -> list[tuple[float, ...] | None]:
    """The loss weights of each segment of an epoch in as many evaluations, if these are the validation losses."""
    engine = FakeEngine(APART, {"a": 8, "b": 8, "c": 8}, batch_size=2, eval_every=0.25)
    search = Search(METHODS["coba"], brief_of(engine, params, horizon=1.25))
    weights = []
    for number, loss in enumerate([*losses, losses[-1]], 1):
        segment = search.ask()
        assert segment is not None and segment.probes == {Probe.LOSS}
        assert segment.rollout == 1, "weights change within an epoch, which goes on"
        weights.append(segment.mixture.loss_weights)
        search.tell(replace(engine.run(segment, number), loss=loss))
    assert search.ask() is None
    return weights


def test_coba_weighs_by_the_papers_formulas() -> None:
    """Window 3, evaluations at 0.25, 0.5, 0.75 and 1 epochs, losses divided by the first: every number by hand."""
    found = told(coba.Params(window=3, tau=5.0), LOSSES)
    assert found[:2] == [None, None], "one loss has no slope"
    # One slope each, of two points: a (0.5 - 1) / 0.25, b (0.9 - 1) / 0.25, c (1.1 - 1) / 0.25. DF is 1.
    first = [-2.0, -0.4, 0.4]
    assert found[2] == pytest.approx([3 * w for w in softmax(*(3 * x / 2.8 for x in first))])
    # Of three points, a line has the slope (last - first) / 0.5.
    second = [(0.4 - 1.0) / 0.5, (0.8 - 1.0) / 0.5, (1.4 - 1.0) / 0.5]
    third = [(0.35 - 0.5) / 0.5, (0.6 - 0.9) / 0.5, (1.5 - 1.1) / 0.5]
    worst = [0.4, 0.8, 0.8]
    rcs = softmax(*(3 * x / (0.3 + 0.6 + 0.8) for x in third))
    history = list(zip(first, second, third, strict=True))
    acs = softmax(*(-3 * each[-1] / sum(map(abs, each)) for each in history))
    df = min(1.0, 3 * softmax(*(-5 * 3 * x / 2.0 for x in worst))[-1])
    assert 0 < df < 1
    assert found[4] == pytest.approx([3 * (df * r + (1 - df) * a) for r, a in zip(rcs, acs, strict=True)])
    assert found[4][2] < min(found[4][:2]), "c diverges, and the divergence factor has fallen"


def test_coba_keeps_its_weights_where_a_loss_is_not_finite_and_none_moves() -> None:
    flat = [LOSSES[0]] * 3
    assert told(coba.Params(), [*flat, {**LOSSES[0], "b": math.inf}])[2:] == [pytest.approx((1.0, 1.0, 1.0))] * 3
    broken = told(coba.Params(), [LOSSES[0], LOSSES[1], {**LOSSES[2], "b": math.nan}, LOSSES[3]])
    assert broken[2] == broken[3] != broken[4]


@pytest.mark.parametrize(("params", "said"), [({"window": 1}, "window must be at least 2"), ({"tau": 0.0}, "tau must")])
def test_coba_names_a_parameter_that_cannot_be(params: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        coba.Params(**params)


@pytest.mark.parametrize("how", ["linear", "ties"])
def test_a_merger_is_of_the_best_model_of_each_sub_dataset_from_the_base_model(how: str) -> None:
    """Peaks lie on ticks: a at 1 epoch of its own, b at 3; c is best before any training."""
    curves = {**APART, "c": Curve(peak=1e-9, base=0.8)}
    engine, journal, answer = play("merge", FakeEngine(curves, SIZES), params=merge.Params(how=how), select="last")
    trained = [segment for segment, _ in journal if segment.trains]
    starts = [(s.parent, s.mixture.tasks, s.epoch, s.rollout) for s in trained if s.start == 0]
    assert starts == [(ROOT, (task,), 0.0, number) for number, task in enumerate("abc", 1)]
    assert {s.score for s in trained} == {("a",), ("b",), ("c",)}
    assert engine.trained == 10 * sum(SIZES.values()), "as much as plain fine-tuning"
    end, outcome = journal[-1]
    parts = dict(end.blend)
    models = [snapshot for snapshot in parts if snapshot != ROOT]
    assert [engine.states[model] for model in models] == [
        {"a": 1.0, "b": 0.0, "c": 0.0}, {"a": 0.0, "b": 3.0, "c": 0.0},
    ]  # fmt: skip
    assert {s.why for s in trained} == {"candidate"}, "no report calls them roll-backs, or exclusions"
    assert (end.epoch, end.why, end.score) == (3.0, "final", tuple(curves))
    assert answer == outcome.snapshot == len(journal)
    if how == "linear":
        assert (set(parts.values()), ROOT in parts, end.ties) == ({1 / 3}, True, None)
    else:
        assert (set(parts.values()), ROOT in parts, end.ties) == ({1 / 2}, False, 0.2)


@pytest.mark.parametrize("how", ["linear", "ties"])
def test_a_merger_of_models_that_none_improves_is_the_base_model(how: str) -> None:
    curves = dict.fromkeys(SIZES, Curve(peak=1e-9, base=0.8))
    engine, journal, answer = play("merge", FakeEngine(curves, SIZES), params=merge.Params(how=how), select="last")
    assert journal[-1][0].blend == ((ROOT, 1.0),)
    assert engine.states[answer] == engine.states[ROOT]


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_a_density_is_a_share(density: float) -> None:
    with pytest.raises(ValueError, match="density must be a share between 0 and 1"):
        merge.Params(density=density)


def test_the_best_model_of_plain_fine_tuning_teaches_a_second_run_from_the_base_model() -> None:
    engine, plain, best = play("sft", horizon=6.0)
    params = self_distil.Params(teachers="common", share=0.7, top=5)
    engine, journal, _ = play("self_distil", params=params, horizon=6.0)
    first, second = journal[: len(plain)], journal[len(plain) :]
    assert [replace(segment, why="search") for segment, _ in first] == [segment for segment, _ in plain]
    assert {segment.why for segment, _ in first} == {"teacher"}
    assert {segment.teacher for segment, _ in second} == {Teacher(snapshots=(best,), share=0.7, top=5)}
    assert (second[0][0].parent, second[0][0].start, second[0][0].epoch) == (ROOT, 0, 0.0)
    assert [segment.stop for segment, _ in second] == [segment.stop for segment, _ in plain]
    assert engine.trained == 2 * 6 * sum(SIZES.values())


def test_each_sub_dataset_is_taught_by_the_model_at_its_own_best_evaluation() -> None:
    engine, journal, _ = play("self_distil", horizon=6.0)
    first, second = journal[: len(journal) // 2], journal[len(journal) // 2 :]
    scores = {task: [outcome.scores[task] for _, outcome in first] for task in SIZES}
    peaks = tuple(1 + by.index(max(by)) for by in scores.values())
    assert len(set(peaks)) == 3, "a test of nothing"
    assert {segment.teacher for segment, _ in second} == {Teacher(snapshots=peaks)}
    brief = brief_of(engine, self_distil.Params(), horizon=6.0)
    said = METHODS["self_distil"].explain(brief, [outcome for _, outcome in journal])
    clock = [segment.epoch for segment, _ in first] + [6.0]
    assert said == [
        "Each sub-dataset is taught by the model at its own best evaluation of the first run: from epoch "
        f"{clock[peaks[0]]:.4g} (a) to epoch {clock[peaks[2]]:.4g} (c)."
    ]


def test_a_sub_dataset_that_is_best_with_the_base_model_is_taught_by_it() -> None:
    """And where the average never rises, the final model is the base model, and is not called that of a run."""
    curves = {
        "a": Curve(peak=3.0),
        "b": Curve(peak=1e-9, base=0.9, fall=1.0),
        "c": Curve(peak=1e-9, base=0.9, fall=1.0),
    }
    engine, journal, answer = play("self_distil", FakeEngine(curves, SIZES), horizon=3.0)
    assert answer == ROOT and journal[-1][0].teacher.snapshots[1:] == (ROOT, ROOT)
    brief = brief_of(engine, self_distil.Params(), horizon=3.0)
    (said,) = METHODS["self_distil"].explain(brief, [outcome for _, outcome in journal])
    assert "from the base model (b) to epoch 3 (a)" in said


def test_teachers_dealt_at_random_are_the_same_ones() -> None:
    found = []
    for teachers in ("own", "random"):
        _, journal, _ = play("self_distil", params=self_distil.Params(teachers=teachers), horizon=6.0, seed=3)
        ((teacher,),) = [{segment.teacher for segment, _ in journal[len(journal) // 2 :]}]
        assert teacher is not None
        found.append(teacher.snapshots)
    assert found[0] != found[1] and sorted(found[0]) == sorted(found[1])


@pytest.mark.parametrize(("curve", "of_second"), [(Curve(peak=6.0), False), (Curve(peak=0.8, fall=1.0), True)])
def test_the_final_model_of_self_distillation_is_the_best_of_both_runs(curve: Curve, of_second: bool) -> None:
    """Teachers slow learning down here: the second run does not come as far, or it is not past the peak so soon."""
    engine = FakeEngine(dict.fromkeys(SIZES, curve), SIZES)
    engine, journal, answer = play("self_distil", engine, horizon=2.0, eval_every=1.0)
    macro = [sum(outcome.scores.values()) for _, outcome in journal]
    assert answer == 1 + macro.index(max(macro)) and (answer > len(journal) // 2) is of_second
    brief = brief_of(engine, self_distil.Params(), horizon=2.0, eval_every=1.0)
    said = METHODS["self_distil"].explain(brief, [outcome for _, outcome in journal])
    assert any("not better on validation" in sentence for sentence in said) is not of_second


def test_a_base_model_that_no_training_improves_teaches_nothing() -> None:
    curves = dict.fromkeys(SIZES, Curve(peak=1e-9, base=0.8))
    engine, journal, answer = play("self_distil", FakeEngine(curves, SIZES))
    assert answer == ROOT and engine.trained == 10 * sum(SIZES.values())
    brief = brief_of(engine, self_distil.Params())
    said = METHODS["self_distil"].explain(brief, [outcome for _, outcome in journal])
    assert said == [
        "No sub-dataset is better at any evaluation of the first run than with the base model, so there is no second "
        "run."
    ]
    params = self_distil.Params(teachers="common")
    _, journal, answer = play("self_distil", FakeEngine(curves, SIZES), params=params, select="last")
    assert answer == len(journal) and journal[-1][0].teacher == Teacher(snapshots=(len(journal) // 2,))


@pytest.mark.parametrize(("params", "said"), [({"share": 0.0}, "share must be"), ({"share": 1.1}, "share must be"),
                                              ({"top": 0}, "top must be at least 1")])  # fmt: skip
def test_self_distillation_names_a_parameter_that_cannot_be(params: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        self_distil.Params(**params)
