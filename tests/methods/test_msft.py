"""mSFT's decisions against a brute-force oracle that sees whole curves (design 1.1), and the cost law."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from msft.core.search import Search
from msft.core.vocabulary import ROOT, Brief, Outcome, Segment, Task, Tokens
from msft.methods import METHODS
from msft.methods.msft import RELEASE, Params
from msft.run.loop import drive
from msft.testing.fake import Curve, FakeEngine, FakeStore, brief_of

F = Fraction
Path = tuple[tuple[tuple[tuple[Task, float], ...], int], ...]
"""What a model was trained on: ((mixture with shares), steps), roll-out after roll-out."""
Score = Callable[[Path, Task], F]

ROBUST, PAPER = (
    Params(),
    Params(**{k: v for k, v in RELEASE.items() if k in Params.__dataclass_fields__}),
)


@dataclass
class TableEngine:
    """Scores are an arbitrary function of the path: no curve is too odd."""

    score: Score
    tasks: tuple[Task, ...]
    store: FakeStore = field(default_factory=FakeStore)

    def __post_init__(self) -> None:
        self.paths: dict[int, Path] = {ROOT: ()}

    def base(self) -> Outcome:
        return self.outcome(ROOT, self.tasks)

    def outcome(self, snapshot: int, tasks: tuple[Task, ...]) -> Outcome:
        scores = {task: float(self.score(self.paths[snapshot], task)) for task in tasks}
        return Outcome(snapshot=snapshot, scores=scores, reports=scores, tokens=Tokens())

    def run(self, segment: Segment, number: int) -> Outcome:
        if not segment.trains:
            return self.outcome(segment.parent, segment.score)
        mixture = segment.mixture
        key = tuple(zip(mixture.tasks, mixture.shares or (1.0,) * len(mixture.tasks), strict=True))
        path = self.paths[segment.parent]
        self.paths[number] = (path if segment.start == 0 else path[:-1]) + ((key, segment.stop),)
        self.store.held.add(number)
        return self.outcome(number, segment.score)

    def test(self, snapshot: int) -> Outcome:
        return self.outcome(snapshot, self.tasks)

    def export(self, snapshot: int, folder: object) -> None:
        raise AssertionError("not part of a search")


def oracle(brief: Brief, score: Score, horizon: F, average_of: str) -> tuple[list[tuple[frozenset[Task], Path]], Path]:
    """Every exclusion with the path rolled back to, and the path of the answer. Written from design 1.1 alone."""
    p: Params = brief.params
    n = dict(zip(brief.tasks, brief.sizes, strict=True))
    weight = dict(zip(brief.tasks, brief.validation_sizes if average_of == "micro" else [1] * len(n), strict=True))
    excluded: set[Task] = set()
    path: Path = ()
    position = F(0)
    fresh, steps_before = True, 0
    decisions, full = [], [path]
    for _ in range(10**6 if p.max_rollouts is None else p.max_rollouts):
        active = [t for t in brief.tasks if t not in excluded]
        if not active or position >= horizon:
            break
        if p.replay and excluded:
            mixture = tuple((t, p.replay if t in excluded else 1.0) for t in brief.tasks)
        else:
            mixture = tuple((t, 1.0) for t in active)
        epoch = sum(math.ceil(F(str(share)) * n[t]) for t, share in mixture)
        per_epoch = math.ceil(F(epoch, brief.batch_size))
        length = math.ceil(min(F(p.budget), horizon - position) * per_epoch)
        ticks = sorted({math.ceil(k * F(brief.eval_every) * per_epoch) for k in range(1, 1000)} | {length})
        ticks = [0] + [t for t in ticks if t <= length]
        stem = path if fresh else path[:-1]
        paths = [path] + [(*stem, (mixture, steps_before + t)) for t in ticks[1:]]
        half = p.smooth // 2
        best: dict[Task, int] = {}
        falls: dict[Task, bool] = {}
        for t in active:
            raw = [score(q, t) for q in paths]
            smooth = [sum(w := raw[max(0, i - half) : i + half + 1]) / len(w) for i in range(len(raw))]
            best[t] = smooth.index(max(smooth))
            falls[t] = smooth[-1] < max(smooth)
        full.append(paths[-1])
        end = len(ticks) - 1
        leavers = [t for t in active if best[t] < end and (falls[t] or p.flat == "leaves")]
        if not leavers:
            path, position = paths[-1], position + F(length, per_epoch)
            fresh, steps_before = False, steps_before + length
            continue
        m = min(best[t] for t in leavers)
        out = [t for t in leavers if F(ticks[best[t]] - ticks[m], per_epoch) <= F(p.leave_within)]
        if p.ties == "first":
            out = [sorted(t for t in leavers if best[t] == m)[0]]
        peaks = sorted(best[t] for t in out)
        chosen = peaks[(len(peaks) - 1) // 2] if p.roll_back == "lower_median" else peaks[0]
        path, position = paths[chosen], position + F(ticks[chosen], per_epoch)
        fresh, steps_before = True, 0
        excluded |= set(out)
        decisions.append((frozenset(out), path))
        full.append(path)

    def mean(q: Path) -> F:
        return sum((weight[t] * score(q, t) for t in brief.tasks), start=F(0)) / sum(weight.values())

    return decisions, max(full, key=lambda q: (mean(q), -full.index(q)))


def decisions_of(engine: TableEngine, brief: Brief) -> tuple[list[tuple[frozenset[Task], Path]], Path]:
    journal: list[Segment] = []
    answer = drive(Search(METHODS["msft"], brief), engine, engine.store, lambda _, s, o: journal.append(s))
    found, active = [], frozenset(brief.tasks)
    for segment in journal:
        if not segment.trains:
            found.append((active - set(segment.mixture.active), engine.paths[segment.parent]))
            active = frozenset(segment.mixture.active)
    return found, engine.paths[answer]


@settings(max_examples=300, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 23), min_size=1, max_size=5),
    levels=st.integers(1, 12),
    salt=st.integers(0, 2**32),
    drift=st.sampled_from([0, 1, -1]),
    release=st.booleans(),
    params=st.fixed_dictionaries(
        {},
        optional={
            "budget": st.sampled_from([0.5, 1.0, 3.0, 4.0]),
            "smooth": st.sampled_from([1, 3, 5, 7]),
            "flat": st.sampled_from(["stays", "leaves"]),
            "leave_within": st.sampled_from([0.0, 0.5, 1.0]),
            "ties": st.sampled_from(["all", "first"]),
            "roll_back": st.sampled_from(["lower_median", "earliest"]),
            "replay": st.sampled_from([0.0, 0.1, 0.5]),
        },
    ),
    eval_every=st.sampled_from([0.25, 0.5, 1.0]),
)
def test_every_decision_equals_the_oracles(
    sizes: list[int], levels: int, salt: int, drift: int, release: bool, params: dict[str, object], eval_every: float
) -> None:
    tasks = tuple("abcde"[: len(sizes)])

    def score(path: Path, task: Task) -> F:
        raw = int.from_bytes(hashlib.sha256(f"{salt} {path} {task}".encode()).digest()[:4]) % levels
        return F(raw + drift * sum(steps for _, steps in path) // 3, 16)

    engine = TableEngine(score, tasks)
    preset = PAPER if release else ROBUST
    brief = Brief(
        tasks=tasks, sizes=tuple(sizes), validation_sizes=tuple(range(1, len(sizes) + 1)), batch_size=4, seed=1,
        base=engine.base(), horizon=math.inf if release else 6.0, eval_every=eval_every,
        average="micro" if release else "macro", params=replace(preset, **params),
    )  # fmt: skip
    horizon = F(10**9) if release else F(6)
    assert decisions_of(engine, brief) == oracle(brief, score, horizon, brief.average)


@settings(max_examples=150, deadline=None)
@given(
    peaks=st.lists(st.floats(0.1, 12), min_size=1, max_size=6),
    size=st.integers(4, 40),
    budget=st.sampled_from([1.0, 2.0, 4.0]),
    replay=st.sampled_from([0.0, 0.1]),
)
def test_the_cost_law(peaks: list[float], size: int, budget: float, replay: float) -> None:
    """Training costs at most horizon + the sum of C * (share of the mixture still active) over excluding roll-outs."""
    curves = {chr(97 + i): Curve(peak=peak) for i, peak in enumerate(peaks)}
    engine = FakeEngine(curves, dict.fromkeys(curves, size), interference=0.1)
    brief = brief_of(engine, Params(budget=budget, replay=replay))
    journal: list[Segment] = []
    drive(Search(METHODS["msft"], brief), engine, engine.store, lambda _, s, o: journal.append(s))
    total = size * len(curves)
    bound, rollouts = brief.horizon * total, 0
    for before, segment in pairwise(journal):
        rollouts += not segment.trains
        if not segment.trains:
            bound += budget * engine.clock.instances(before.mixture)
    assert engine.trained <= bound + (rollouts + 2) * brief.batch_size  # a stage ends on a whole step


def test_the_presets_differ_as_the_paper_needs() -> None:
    """A sub-dataset that starts late: the release excludes it before it begins, the robust preset keeps it."""
    curves = {"late": Curve(base=0.0, top=0.0, fall=0.0), "early": Curve(peak=1.0)}

    def first_out(params: Params) -> frozenset[Task]:
        engine = FakeEngine(curves, {"late": 16, "early": 16})
        search = Search(METHODS["msft"], brief_of(engine, params))
        while (segment := search.ask()) is not None and (segment.trains or segment.rollout == 1):
            search.tell(engine.run(segment, search.number))
        assert segment is not None
        return frozenset({"late", "early"}) - set(segment.mixture.active)

    assert first_out(PAPER) == {"late"}
    assert first_out(ROBUST) == {"early"}


def test_exclusion_keeps_a_share_in_replay_and_resets_the_optimizer_only_on_request() -> None:
    curves = {"a": Curve(peak=0.5), "b": Curve(peak=6.0)}
    for params, share, reset in ((ROBUST, (0.1, 1.0), False), (replace(PAPER, max_rollouts=3), None, True)):
        engine = FakeEngine(curves, {"a": 40, "b": 40})
        journal: list[Segment] = []
        record = lambda _, s, o, journal=journal: journal.append(s)  # noqa: E731
        drive(Search(METHODS["msft"], brief_of(engine, params)), engine, engine.store, record)
        after = next(s for s in journal if s.trains and s.rollout == 2)
        assert after.mixture.shares == share
        assert after.mixture.active == ("b",)
        assert after.reset_optimizer is reset
        assert {s.reset_optimizer for s in journal if s.trains and s.start > 0} == {False}
