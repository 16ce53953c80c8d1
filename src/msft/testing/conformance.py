"""The suite that every method passes, of this package or of another.

```python
import pytest
from msft.testing import conformance

from my_package import METHOD

@pytest.mark.parametrize("case", conformance.cases(METHOD), ids=str)
def test_conformance(case: conformance.Case) -> None:
    conformance.check(METHOD, case)
```

`check` runs a whole search on a fake engine, whose scores rise and fall with what was trained, and fails with an
AssertionError (or the error of the method or of `Search`) where a rule is broken. The rules: the search ends; its
answer is a snapshot that it kept; roll-outs continue where they ended; the journal replays from every cut; a crash
changes nothing; scoring the excluded more often decides nothing, and where every evaluation may become the final
model, it is not worse; the outlook's bounds hold; and a run on all rows (`Method.refits`) changes nothing before it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal, TypeAlias

from msft.core.clock import Clock
from msft.core.curves import average
from msft.core.method import Method
from msft.core.outlook import Standing
from msft.core.search import Search
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Snapshot
from msft.core.wire import (
    brief_from_json,
    brief_to_json,
    outcome_from_json,
    outcome_to_json,
    segment_from_json,
    segment_to_json,
)
from msft.run.loop import drive, needed
from msft.testing.fake import Curve, FakeEngine, brief_of

Journal: TypeAlias = list[tuple[Segment, Outcome]]
Excluded: TypeAlias = Literal["rollout", "tick"]
"""When the excluded are scored (`Brief.score_excluded`)."""

JOBS: Mapping[str, Mapping[str, Curve]] = {
    "apart": {"a": Curve(peak=0.7), "b": Curve(peak=2.0), "c": Curve(peak=4.5), "d": Curve(peak=7.0)},
    "one": {"a": Curve(peak=1.3)},
    "never": {"a": Curve(peak=1.0), "b": Curve(peak=100.0)},
    "at_the_start": {"a": Curve(peak=1e-9, base=0.8), "b": Curve(peak=2.0)},
    "together": {"a": Curve(peak=2.0), "b": Curve(peak=2.0), "c": Curve(peak=2.0)},
    "flat": {"a": Curve(top=0.2, fall=0.0), "b": Curve(top=0.2, fall=0.0), "c": Curve(top=0.2, fall=0.0)},
    "flat_beside": {"a": Curve(top=0.0, base=0.0, fall=0.0), "b": Curve(peak=1.0)},
}
"""When each sub-dataset peaks."""
SIZES: Mapping[str, tuple[int, ...]] = {"plain": (17, 9, 30, 12), "one_step_an_epoch": (1, 1, 1, 1)}
"""Training instances that an epoch takes of the sub-datasets."""
MIXED: Mapping[str, tuple[int, ...]] = {"mixed": (3, 9, 40, 5)}
"""Different training instances of the sub-datasets, where an epoch takes other numbers: those of `plain`."""
NOISE = (0, 20)
"""Validation items of each sub-dataset; 0: exact scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One search of the suite."""

    preset: str
    job: str
    """A key of JOBS."""
    sizes: str
    """A key of SIZES or MIXED."""
    items: int
    """Validation items of each sub-dataset; 0: exact scores."""

    def __str__(self) -> str:
        return f"{self.preset}-{self.job}-{self.sizes}-{self.items}"

    def engine(self) -> FakeEngine:
        """A fresh fake engine."""
        curves = JOBS[self.job]
        sizes = dict(zip(curves, SIZES.get(self.sizes, SIZES["plain"]), strict=False))
        pools = dict(zip(curves, MIXED[self.sizes], strict=False)) if self.sizes in MIXED else None
        return FakeEngine(curves, sizes, items=self.items, interference=0.05, pools=pools)

    def brief(self, method: Method, engine: FakeEngine, score_excluded: Excluded = "rollout") -> Brief:
        """The brief of the method with the case's preset."""
        return brief_for(method, engine, self.preset, score_excluded=score_excluded)


def cases(method: Method) -> list[Case]:
    """Every case of a method: its presets on all jobs, sizes and noise levels. Of a job whose sub-datasets are repeated
    or not all taken in an epoch, the noisy ones."""
    return [
        Case(preset=preset, job=job, sizes=sizes, items=items)
        for preset in method.presets
        for job in JOBS
        for sizes in (*SIZES, *MIXED)
        for items in (NOISE if sizes in SIZES else NOISE[-1:])
    ]


def brief_for(method: Method, engine: FakeEngine, preset: str | None = None, **changes: Any) -> Brief:
    """The brief of a method on an engine, with the values of a preset; None: of the first one."""
    values = dict(method.presets[preset or next(iter(method.presets))])
    own = {field.name for field in dataclasses.fields(method.Params)}
    params = method.Params(**{name: value for name, value in values.items() if name in own})
    common = {name: value for name, value in values.items() if name not in own}
    if "max_epochs" in common:
        limit = common.pop("max_epochs")
        common["horizon"] = math.inf if limit is None else limit
    return brief_of(engine, params, **{**common, **changes})


def run(method: Method, brief: Brief, engine: FakeEngine) -> tuple[Snapshot, Journal]:
    """A whole search: its answer and its journal."""
    journal: Journal = []
    answer = drive(
        Search(method, brief), engine, engine.store, lambda _, segment, outcome: journal.append((segment, outcome))
    )
    return answer, journal


def check(method: Method, case: Case) -> None:
    """Raises where the method breaks a rule on this case."""
    engine = case.engine()
    brief = case.brief(method, engine)
    answer, journal = run(method, brief, engine)  # it ends; a parent that was not kept fails inside the engine
    assert answer == ROOT or journal[answer - 1][1].snapshot == answer, "the answer is no snapshot of the search"
    assert engine.store.held == {answer} - {ROOT}, "something else than the answer is held at the end"
    assert answer == ROOT or answer in engine.store.durable, "the answer is not durable"
    check_segments(journal)
    check_replay(method, brief, journal, answer, thorough=case.job == "apart" and not case.items)
    check_crash(method, brief, journal, answer, case.engine())
    check_outlook(method, brief, journal)
    if method.refits and case.job == "apart":
        check_refit(method, case, journal)
    if case.items:
        check_scoring_decides_nothing(method, case)
    else:  # noise depends on the rounding of what was trained, and so on how many ticks there were
        check_candidates(method, case)


def check_refit(method: Method, case: Case, journal: Journal) -> None:
    """The search before a run on all rows is the search without one, and what follows it is scored nowhere."""
    fresh = case.engine()
    engine = replace(fresh, held=dict.fromkeys(fresh.sizes, 3))
    brief = case.brief(method, engine)
    answer, whole = run(method, brief, engine)
    assert whole[: len(journal)] == journal, "the search depends on the run that follows it"
    rest = [segment for segment, _ in whole[len(journal) :]]
    assert answer == (len(whole) if rest else ROOT), "the final model is not the end of the run on all rows"
    assert all(s.why == "refit" and not s.score for s in rest), "the run on all rows is scored"
    check_replay(method, brief, whole, answer, thorough=False)


def check_segments(journal: Journal) -> None:
    """Roll-outs are numbered in order, continue where they ended, and start afresh where they must."""
    rollout, last = 0, 0
    for number, (segment, _) in enumerate(journal, 1):
        assert max(segment.sources) < number, f"segment {number} starts from a snapshot that is not made yet"
        assert segment.rollout in (rollout, rollout + 1), f"segment {number} skips a roll-out number"
        assert segment.rollout == rollout or segment.start == 0, f"segment {number} opens a roll-out in its middle"
        assert ROOT not in segment.keep, f"segment {number} keeps the base model, which is never kept"
        if segment.blend:
            rollout = segment.rollout
            continue  # made beside the training, which may continue where it was
        if segment.rollout == rollout and last:
            before, made = journal[last - 1]
            continues = (segment.parent, segment.start) == (made.snapshot, before.stop)
            assert continues, f"segment {number} does not continue its roll-out"
            assert segment.mixture.tasks == before.mixture.tasks, f"segment {number} changes the sub-datasets"
        rollout, last = segment.rollout, number
        assert segment.trains or segment.start == 0, f"segment {number} trains nothing, and not at a roll-out's start"


def check_replay(method: Method, brief: Brief, journal: Journal, answer: Snapshot, *, thorough: bool) -> None:
    """Replayed from any cut, through JSON, the method asks for what it asked for."""
    wire = [(segment_from_json(segment_to_json(s)), outcome_from_json(outcome_to_json(o))) for s, o in journal]
    assert wire == journal, "a segment or an outcome does not survive JSON"
    last = len(journal)
    for cut in range(last + 1) if thorough else sorted({0, 1, last // 3, last // 2, last - 1, last}):
        search = Search(method, brief, wire[:cut])
        for segment, outcome in journal[cut:]:
            assert search.ask() == segment, f"replayed from segment {cut}, the method asks for something else"
            assert search.ask() == segment, "asking twice changes the answer"
            search.tell(outcome)
        assert search.ask() is None and search.answer == answer, f"replayed from segment {cut}, it ends otherwise"


def check_crash(method: Method, brief: Brief, journal: Journal, answer: Snapshot, engine: FakeEngine) -> None:
    """A crash that loses every snapshot since the last durable one changes nothing."""
    cut = 2 * len(journal) // 3
    if cut == 0:
        return
    rest: Journal = []

    class Killed(Exception):  # noqa: N818
        pass

    def record(_: int, segment: Segment, outcome: Outcome) -> None:
        rest.append((segment, outcome))
        if len(rest) == cut:
            raise Killed

    try:
        drive(Search(method, brief), engine, engine.store, record)
    except Killed:
        engine.store.crash()
    search = Search(method, brief, rest)
    wanted = needed(search)
    resumed = drive(search, engine, engine.store, lambda _, s, o: rest.append((s, o)), past=rest[:])
    assert resumed == answer and rest == journal, "a crash and a resume lead elsewhere"
    assert all(engine.states[snapshot] is not None for snapshot in wanted)


def check_outlook(method: Method, brief: Brief, journal: Journal) -> None:
    """No more is trained from any roll-out on than the outlook said, and no more snapshots are held."""
    held = method.outlook_at(brief).snapshots
    trained = [instances(brief, segment) for segment, _ in journal]
    for i, (segment, _) in enumerate(journal):
        asked = (segment.sources | segment.keep) - {ROOT}
        # The segment's own snapshot comes on top while it runs into its end.
        assert held is None or len(asked) + segment.makes <= held, (
            f"segment {i + 1}: {len(asked) + segment.makes} snapshots are held, the outlook says at most {held}"
        )
        if segment.trains and segment.start == 0 and segment.why != "candidate":
            at = Standing(mixture=segment.mixture, rollout=segment.rollout, epoch=segment.epoch)
            bound = method.outlook(brief, at).bound
            # Roll-outs end on whole steps.
            slack = brief.batch_size * (1 + len({s.rollout for s, _ in journal[i:]}))
            found = sum(trained[i:])
            assert bound is None or found <= bound.instances + slack, (
                f"the outlook at roll-out {segment.rollout}, epoch {segment.epoch:g}, of {segment.mixture.tasks}: "
                f"at most {bound.instances:g} instances ({bound.why}), but the search trained {found:g} from there on"
            )


def check_scoring_decides_nothing(method: Method, case: Case) -> None:
    """With every sub-dataset scored at every tick the search is the same, and nothing is measured twice."""

    def searched(when: Excluded) -> tuple[Snapshot, Journal, Brief]:
        engine = case.engine()
        brief = case.brief(method, engine, when)
        return *run(method, brief, engine), brief

    answer, plain, _ = searched("rollout")
    same, full, brief = searched("tick")
    assert same == answer, "scoring the excluded at every tick changes the answer"
    assert [replace(s, score=()) for s, _ in full] == [replace(s, score=()) for s, _ in plain]
    measured: dict[Snapshot, set[str]] = {ROOT: set(brief.tasks)}
    for (asked, fewer), (segment, more) in zip(plain, full, strict=True):
        everything = brief.tasks if segment.makes and asked.score else segment.score
        assert segment.score == everything, "score_excluded: tick does not score every sub-dataset"
        assert not measured.get(more.snapshot, set()) & set(segment.score), "a snapshot is scored twice"
        measured.setdefault(more.snapshot, set()).update(segment.score)
        assert all(more.scores[task] == fewer.scores[task] for task in asked.score if task in segment.score)
    wire = brief_from_json(brief_to_json(brief), params=brief.params)
    assert Search(method, wire, full).answer == answer


def check_candidates(method: Method, case: Case) -> None:
    """Where every tick may become the final model, the search decides as before, and its answer is not worse."""
    answers, decided = [], []
    for changes in ({}, {"score_excluded": "tick", "candidates": "ticks"}):
        engine = case.engine()
        brief = brief_for(method, engine, case.preset, **changes)
        answer, journal = run(method, brief, engine)
        check_segments(journal)
        check_outlook(method, brief, journal)
        check_replay(method, brief, journal, answer, thorough=False)
        weights = brief.validation_sizes if brief.average == "micro" else None
        scores = {task: math.fsum(xs) / len(xs) for task in brief.tasks for xs in [engine.score(answer, task)]}
        answers.append(average(scores, brief.tasks, weights))
        decided.append([(s.rollout, s.mixture, round(s.epoch, 6)) for s, _ in journal if s.start == 0])
    assert decided[0] == decided[1], "the candidates for the final model change what the search decides"
    if brief.select == "best":
        assert answers[1] >= answers[0] - Fraction(1, 10**9), "with more candidates, the final model is worse"


def instances(brief: Brief, segment: Segment) -> float:
    """Training instances that go through the optimizer in a segment."""
    if not segment.trains:
        return 0.0
    clock = Clock.of(brief)
    return clock.epochs(segment.mixture, segment.stop - segment.start) * clock.instances(segment.mixture)


def summary(journal: Sequence[tuple[Segment, Outcome]]) -> list[str]:
    """A search in one line a segment, for reading what a method did."""
    return [
        f"{number}: from {s.parent}, roll-out {s.rollout}, steps {s.start} to {s.stop}, "
        f"{'/'.join(s.mixture.tasks)}, scores {', '.join(f'{t} {x:.3f}' for t, x in o.scores.items())}"
        for number, (s, o) in enumerate(journal, 1)
    ]
