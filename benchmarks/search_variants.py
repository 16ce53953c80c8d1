"""mSFT on averaged weights with one thing changed: does a variant of the search beat it? Paired by seed.

    python examples/cheap_model.py
    python benchmarks/search_variants.py OUT --job uneven --seeds 850:858
    python benchmarks/search_variants.py OUT --job cheap --seeds 850:854
    python benchmarks/search_variants.py OUT --job uneven --seeds 870:882 --variants sft,msft,NAME
    python benchmarks/search_variants.py OUT --table --job uneven --seeds 850:858
    python benchmarks/search_variants.py OUT --looks --job uneven --seeds 850:858

Plain SFT, mSFT with the example's own settings, and each variant of `varied_search.py`, on averages over one epoch at
the rate that was chosen for plain SFT with averages; each seed draws its own rows and splits. Seeds 850-857 are for
development: the variant that is better than mSFT by search score on validation is confirmed once on others, by test
accuracy. A finished run is kept, so the same command goes on. `--looks` computes from the recorded items of the mSFT
runs what sequential validation would have saved.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, variance
from typing import Any, NamedTuple, TypeAlias

from average_first import JOBS, example, measured, run
from grid import RATES, said
from varied_search import METHOD, VARIANTS, Decision, Params, fall, search, track_of

from msft.core.curves import peak
from msft.core.headroom import measured as recorded
from msft.core.rollout import Answer
from msft.core.vocabulary import Brief, Outcome, Task
from msft.methods import METHODS, params_of, register
from msft.report.story import Story, read_story
from msft.study.grid import StudyFolder, Variant
from msft.study.overrides import with_method
from msft.study.variants import variants

Runs: TypeAlias = dict[int, dict[str, Any]]
"""Seed to what was measured."""
VARIED = "varied"
"""The name under which `main` registers the method of `varied_search.py`."""
AVERAGE = 1.0
"""Window of the averaged weights, in epochs."""
NAMES = ("sft", "msft", *(name for name in VARIANTS if name != "msft"), "one_pass")
MEASURES: dict[str, Callable[[dict[str, Any]], float]] = {
    "search score, validation": lambda run: fmean(run["choice"].values()),
    "search score, test": lambda run: fmean(run["scores"].values()),
    "accuracy, test": lambda run: fmean(run["reports"].values()),
}
"""A choice among variants uses the first only."""
LOOKS = 5
BOUNDS = {
    "O'Brien-Fleming": [2.0401 * math.sqrt(LOOKS / look) for look in range(1, LOOKS + 1)],
    "Pocock": [2.4132] * LOOKS,
}
"""Distance from 0, in standard errors, beyond which each of five equal looks decides: two-sided 5 % in all."""


def variant_of(job: str, name: str) -> Variant:
    """A variant of the search, or another method, on a job."""
    base = example(job, RATES[job], average=AVERAGE)
    if name not in VARIANTS or name in METHODS:
        (made,) = variants(base, [name])
        return made
    own = base.method.params
    return Variant(name=name, config=with_method(base, VARIED, name, budget=own.budget, smooth=own.smooth))


def go(out: Path, job: str, seeds: Sequence[int], names: Sequence[str]) -> None:
    began = time.monotonic()
    for seed in seeds:
        for name in names:
            run(out / name / job / str(seed), [variant_of(job, name)], seed)
            print(f"{job} seed {seed}, {name}: {time.monotonic() - began:.0f} s", flush=True)


def stories(out: Path, job: str, name: str, seeds: Sequence[int]) -> Iterator[tuple[int, Story]]:
    """Those of the finished runs."""
    for seed in seeds:
        folder = StudyFolder(out / name / job / str(seed)).run(name, seed)
        if folder.summary.exists():
            yield seed, read_story(folder)


def all_runs(out: Path, job: str, seeds: Sequence[int]) -> dict[str, Runs]:
    """By variant and seed, what was measured of each finished run; each run is read once."""
    kept = out / "measured.json"
    known = json.loads(kept.read_text()) if kept.exists() else {}
    found: dict[str, Runs] = {}
    for name in NAMES:
        for seed in seeds:
            key = f"{name} {job} {seed}"
            if key not in known:
                for _, story in stories(out, job, name, [seed]):
                    assert story.answer is not None, "the run is finished"
                    known[key] = measured(story.folder) | {
                        "choice": dict(story.answer.scores),
                        "blend": next((dict(o.scores) for s, o in story.segments if s.blend), None),
                        "left": [task for r in story.rollouts for task in r.excluded],
                    }
            if key in known:
                found.setdefault(name, {})[seed] = known[key]
    kept.write_text(json.dumps(known) + "\n")
    return found


def table(out: Path, job: str, seeds: Sequence[int]) -> None:
    found = all_runs(out, job, seeds)
    print("| | n | seeds | " + " | ".join(MEASURES) + " | FLOPs of sft | exclusions |")
    print("|---|---:|---|---:|---:|---:|---:|---:|")
    for name, runs in found.items():
        cells = [f"{100 * fmean(map(of, runs.values())):.2f}" for of in MEASURES.values()]
        both = sorted(runs.keys() & found["sft"].keys())
        cost = fmean(runs[seed]["flops"] / found["sft"][seed]["flops"] for seed in both)
        left = fmean(len(run["left"]) for run in runs.values())
        print(f"| {name} | {len(runs)} | {min(runs)}-{max(runs)} | {' | '.join(cells)} | {cost:.2f} | {left:.1f} |")
    for against in ("msft", "sft"):
        print(f"\n| minus {against} | n | " + " | ".join(MEASURES) + " |\n|---|---:|---:|---:|---:|")
        for name, runs in found.items():
            both = sorted(runs.keys() & found[against].keys())
            if name == against or len(both) < 2:
                continue
            cells = [said([100 * (of(runs[s]) - of(found[against][s])) for s in both]) for of in MEASURES.values()]
            print(f"| {name} | {len(both)} | " + " | ".join(cell.rsplit(",", 1)[0] for cell in cells) + " |")
    print()
    for name, runs in found.items():
        same = [s for s in runs if s in found["msft"] and runs[s]["choice"] == found["msft"][s]["choice"]]
        print(f"- {name}: the same model as msft in {len(same)} of {len(runs)} seeds")
    blends = [run for run in found.get("soup", {}).values() if run["blend"] is not None]
    if len(blends) > 1:
        away = [100 * (fmean(run["blend"].values()) - fmean(run["choice"].values())) for run in blends]
        print(f"- the blend of soup - its final model, search score, validation: {said(away)}")


class Look(NamedTuple):
    """The decision on one sub-dataset at the end of one roll-out, taken at the first look that is sure."""

    items: float
    """Share of its validation items that were scored."""
    leaves: bool
    all_leave: bool
    """What all items decide."""
    peak_moved: bool
    """Whether the peak of the scored items is another tick than that of all."""
    evaluations: int
    """Evaluations of the sub-dataset in the roll-out."""
    needed: int
    """Those of them where every item is needed, because they are candidates for the final model."""


def decisions_of(brief: Brief, outcomes: Sequence[Outcome]) -> list[Decision]:
    """What a search decided, from the outcomes of its segments."""
    track = track_of(brief)
    running = search(track, brief.params, Answer(brief, track.base))
    try:
        next(running)
        for outcome in outcomes:
            running.send(outcome)
    except StopIteration as end:
        return list(end.value[2])
    raise AssertionError("the search is not finished")


def looked(decision: Decision, task: Task, window: int, bounds: Sequence[float]) -> Look:
    """Scores the items of a sub-dataset in equal parts until the difference between its peak and its end is sure."""
    outcomes = [point.outcome for point in decision.points]
    values = recorded(outcomes, [task]).scores[task]
    number = len(values.values[0])
    whole = peak(values.curve(), window)
    for look, bound in enumerate(bounds, 1):
        items = range(number * look // len(bounds))
        found = peak(curve := values.curve(items), window)
        best = found.tick if found.before_end else peak(curve[:-1], window).tick
        lost = fall(outcomes, task, best, window, items)
        error = math.sqrt(variance(lost) / len(lost))
        if look == len(bounds) or abs(fmean(lost)) >= bound * error > 0:
            break
    leaves = found.before_end and found.falls
    needed = {decision.points[-1].snapshot, decision.here.snapshot} - {decision.points[0].snapshot}
    return Look(
        items=len(items) / number,
        leaves=leaves,
        all_leave=whole.before_end and whole.falls,
        peak_moved=found.tick != whole.tick,
        evaluations=len(decision.points) - 1,
        needed=len(needed),
    )


def looks(out: Path, job: str, seeds: Sequence[int]) -> None:
    """What sequential validation would have saved in the mSFT runs, and what it would have changed."""
    decided: list[tuple[Decision, Task, int]] = []
    for _, story in stories(out, job, "msft", seeds):
        own: Mapping[str, Any] = story.brief.params
        kept = {name: own[name] for name in Params.__dataclass_fields__ if name in own}
        params = params_of(METHOD, kept)
        brief = Brief(**{name: getattr(story.brief, name) for name in Brief.__slots__} | {"params": params})
        for decision in decisions_of(brief, [outcome for _, outcome in story.segments]):
            decided += [(decision, task, params.smooth) for task in decision.active]
    for name, bounds in BOUNDS.items():
        all_looks = [looked(decision, task, window, bounds) for decision, task, window in decided]
        early = [look for look in all_looks if look.items < 1]
        changed = sum(look.leaves != look.all_leave for look in all_looks)
        moved = sum(look.peak_moved for look in all_looks if look.leaves and look.all_leave)
        both = sum(look.leaves and look.all_leave for look in all_looks)
        saved = sum((1 - look.items) * (look.evaluations - look.needed) for look in all_looks)
        share = saved / sum(look.evaluations for look in all_looks)
        print(
            f"- {name}: {len(all_looks)} decisions, {len(early)} before the last look; at most "
            f"{100 * share:.1f} % of what the roll-outs score saved; {changed} decisions changed; "
            f"the peak is another tick in {moved} of {both} falls"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--job", choices=tuple(JOBS), default="uneven")
    parser.add_argument("--seeds", default="850:858", help="first:beyond (default: %(default)s)")
    parser.add_argument("--variants", default=",".join(NAMES), help="(default: %(default)s)")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--table", action="store_true")
    shown.add_argument("--looks", action="store_true")
    given = parser.parse_args()
    register(VARIED, METHOD)
    seeds = range(*map(int, given.seeds.split(":")))
    if given.table or given.looks:
        (table if given.table else looks)(given.out, given.job, seeds)
        return
    go(given.out, given.job, seeds, given.variants.split(","))


if __name__ == "__main__":
    main()
