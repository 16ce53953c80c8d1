"""Quality over compute: points of a curve recomputed by hand, and what is said of methods that never get there."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from run_folders import PARAMETERS, make_run
from test_comparison import results

from msft.core.headroom import halves
from msft.core.vocabulary import ROOT
from msft.report.story import Story, read_story
from msft.study.compare_markdown import to_markdown
from msft.study.compare_page import comparison_page
from msft.study.comparison import comparison
from msft.study.frontier import frontier, mean_curve, reached
from msft.study.frontier_figure import LEFT, WIDTH, figure, headings, rows
from msft.study.held_out import HALVINGS, Curve, held_out
from msft.study.results import Results

NAMES = ("arc", "gsm8k", "piqa")


def story_of(path: Path, method: str, **changes: Any) -> Story:
    fields = {"names": NAMES, "peaks": (0.6, 2.0, 5.0), "items": 9, "record": True, "horizon": 4.0}
    return read_story(make_run(path, method, **{**fields, **changes}))


@pytest.fixture(scope="module")
def sft(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return story_of(tmp_path_factory.mktemp("frontier") / "sft", "sft")


def quality_by_hand(story: Story, evaluations: int) -> float:
    """Of the best of the first evaluations, chosen by one half of the items and valued on the other."""
    outcomes = [outcome for _, outcome in story.segments[:evaluations]]
    found = []
    for split in range(HALVINGS):
        both = {task: halves(9, task, split) for task in NAMES}
        for chooses in (0, 1):
            best, most = -1.0, -1.0
            for outcome in outcomes:
                chosen = valued = 0.0
                for task in NAMES:
                    mine, others = both[task][chooses], both[task][1 - chooses]
                    chosen += sum(outcome.items[task][i] for i in mine) / len(mine) / len(NAMES)
                    valued += sum(outcome.metrics[task][i] for i in others) / len(others) / len(NAMES)
                if chosen > most + 1e-12:
                    best, most = valued, chosen
            found.append(best)
    return sum(found) / len(found)


@pytest.mark.parametrize("evaluations", [1, 5, 16])
def test_a_point_is_the_best_model_so_far_on_items_that_did_not_choose_it(sft: Story, evaluations: int) -> None:
    """16 evaluations: three of the points, and the FLOPs at which they stand."""
    curve = held_out(sft, NAMES)
    assert curve is not None and len(curve) == 1 + 16 + 1
    flops, quality = curve[evaluations]
    assert quality == pytest.approx(quality_by_hand(sft, evaluations))
    tokens = [sft.brief.base.tokens, *(outcome.tokens for _, outcome in sft.segments[:evaluations])]
    assert flops == sum(PARAMETERS * (6 * each.train + 2 * each.eval) for each in tokens)
    base = sum(sft.brief.base.reports.values()) / len(NAMES)
    assert curve[0] == (2 * PARAMETERS * sft.brief.base.tokens.eval, pytest.approx(base))
    assert curve[-1] == curve[-2], "the end of the search, without the test"


def test_a_search_has_a_point_where_every_sub_dataset_is_scored(tmp_path: Path) -> None:
    """Exclusions and turns score the rest at a snapshot that is scored already in part."""
    story = story_of(tmp_path / "run", "msft", params={"budget": 2.0, "smooth": 1, "replay": 0.0})
    curve = held_out(story, NAMES)
    assert curve is not None
    known: dict[int, set[str]] = {}
    for _, outcome in story.segments:
        known.setdefault(outcome.snapshot, set()).update(outcome.scores)
    whole = [snapshot for snapshot, tasks in known.items() if tasks == set(NAMES) and snapshot != ROOT]
    assert len(curve) == 1 + len(whole) + 1 < len(story.segments)
    assert [flops for flops, _ in curve] == sorted(flops for flops, _ in curve)


def test_a_method_that_takes_its_last_model_has_nothing_to_show_before(tmp_path: Path) -> None:
    story = story_of(tmp_path / "run", "merge", select="last")
    curve = held_out(story, NAMES)
    assert curve is not None and len(curve) == 2
    end = story.segments[-1][1]
    by_hand = []
    for split in range(HALVINGS):
        for half in (0, 1):
            items = {task: halves(9, task, split)[half] for task in NAMES}
            by_hand += [sum(sum(end.metrics[t][i] for i in part) / len(part) for t, part in items.items()) / len(NAMES)]
    assert curve[1][1] == pytest.approx(sum(by_hand) / len(by_hand))


@pytest.mark.parametrize(("method", "start"), [("sro", None), ("soft_sro", ROOT), ("placebo", ROOT)])
def test_what_only_finds_times_is_not_shown(tmp_path: Path, method: str, start: int | None) -> None:
    """Models of the last run alone may be handed over, and the one from which it begins, if that is not the base."""
    story = story_of(tmp_path / "run", method, params={"smooth": 1, "budget": 2.0} if method == "placebo" else None)
    curve = held_out(story, NAMES)
    trained = [(number, segment) for number, (segment, _) in enumerate(story.segments, 1) if segment.trains]
    backs = [n for (_, before), (n, s) in pairwise(trained) if s.start == 0 and s.parent != before_end(story, n)]
    first = backs[-1]
    begins = story.segments[first - 1][0].parent
    assert begins == start if start is not None else begins != ROOT
    whole = [n for n, (_, outcome) in enumerate(story.segments, 1) if n >= first and set(outcome.scores) == set(NAMES)]
    assert curve is not None and len(curve) == 1 + (begins != ROOT) + len(whole) + 1
    tokens = [story.brief.base.tokens, *(outcome.tokens for _, outcome in story.segments[:first])]
    assert curve[1][0] >= sum(PARAMETERS * (6 * each.train + 2 * each.eval + 2 * each.probe) for each in tokens)


def before_end(story: Story, number: int) -> int:
    """The snapshot at which the training before a segment ended."""
    return max((n for n, (s, _) in enumerate(story.segments[: number - 1], 1) if s.trains), default=ROOT)


def test_a_run_without_items_or_with_few_has_no_curve(tmp_path: Path) -> None:
    assert held_out(story_of(tmp_path / "a", "one_pass", record=False), NAMES) is None
    assert held_out(story_of(tmp_path / "b", "sft", items=3), NAMES) is None


ONE: Curve = [(1.0, 0.2), (2.0, 0.5), (4.0, 0.6), (6.0, 0.6)]
TWO: Curve = [(1.5, 0.1), (3.0, 0.7), (5.0, 0.7)]


def test_the_mean_over_seeds_changes_where_a_run_does_and_holds_where_one_has_ended() -> None:
    points = [(1.5, 0.15), (2.0, 0.3), (3.0, 0.6), (4.0, 0.65), (6.0, 0.65)]
    assert mean_curve([ONE, TWO]) == [(flops, pytest.approx(quality)) for flops, quality in points]


@pytest.mark.parametrize(
    ("curves", "target", "expected"),
    [
        ([ONE, TWO], 0.5, (2, 2.5)),
        ([ONE, TWO], 0.65, (1, None)),  # the median of 3 and never
        ([ONE, TWO, TWO], 0.65, (2, 3.0)),
        ([ONE, TWO], 0.9, (0, None)),
        ([ONE], 0.2, (1, 1.0)),
    ],
)
def test_a_seed_that_never_gets_there_is_later_than_all(
    curves: Sequence[Curve], target: float, expected: tuple[int, float | None]
) -> None:
    assert reached(curves, target) == {"seeds": expected[0], "of": len(curves), "flops": expected[1]}


def with_curves(**curves: Sequence[Curve | None]) -> Results:
    made = results(seeds=2, **dict.fromkeys(curves, 0.1))
    runs = {
        name: {
            seed: replace(run, held_out=curve, base=0.2, spent=(1.0, 8.0))
            for (seed, run), curve in zip(made.runs[name].items(), each, strict=True)
        }
        for name, each in curves.items()
    }
    return replace(made, runs=runs)


def test_methods_are_held_against_the_mean_end_of_plain_fine_tuning() -> None:
    data = frontier(with_curves(sft=[ONE, TWO], msft=[TWO, TWO]))
    assert (data["measure"], data["reference"]) == ("held_out", "sft")
    assert (data["target"], data["unit"]) == (pytest.approx(0.65), 5.5)
    assert headings(data) == ["method", "quality at the end", "FLOPs", "as good as sft", "seeds that get there"]
    assert rows(data) == [
        ["sft", "65.0", "1.00 ×", "–", "–"],
        ["msft", "70.0", "0.91 ×", "0.55 ×", "2 of 2"],
    ]


def test_one_run_without_items_and_all_are_shown_by_their_ends() -> None:
    found = with_curves(sft=[ONE, TWO], msft=[TWO, None])
    data = frontier(found)
    assert data["measure"] == "test"
    ends = [run.reports.mean() for run in found.runs["msft"].values()]
    assert data["methods"][1]["curve"] == [[1.0, 0.2], [8.0, pytest.approx(sum(ends) / 2)]]
    compared = comparison(found, "msft")
    told = to_markdown(compared)
    assert "Some runs did not record each item" in told and "dashed" not in told
    assert [line for line in told.splitlines() if line.startswith("| sft |") and " × " in line], told
    page = comparison_page(compared)
    assert "Some runs did not record each item, so this is the test metric" in page


def test_a_comparison_without_plain_fine_tuning_or_from_before_still_has_a_page() -> None:
    data = comparison(with_curves(msft=[ONE, TWO], sro=[TWO, TWO]), "msft")
    assert data["frontier"]["target"] is None
    assert rows(data["frontier"])[0] == ["msft", "65.0", "5.5"]
    page = comparison_page(data)
    assert "Quality over compute" in page and "as good as" not in page
    del data["frontier"]
    assert "Quality over compute" not in comparison_page(data)


def ends_of(drawn: str) -> list[float]:
    return [float(y) for y in re.findall(r'<circle cx="[\d.]+" cy="([\d.]+)"', drawn)]


def drawn_of(**ends: float) -> str:
    """A figure of methods that end at these qualities, and at one cost."""
    data = frontier(with_curves(**{name: [[(1.0, 0.01), (2.0, end)]] * 2 for name, end in ends.items()}))
    return figure(data, dict.fromkeys(ends, "m"))


def test_a_method_far_below_stands_at_the_edge_with_its_number() -> None:
    close = drawn_of(sft=0.23, msft=0.24, sro=0.22)
    both = drawn_of(sft=0.23, msft=0.24, sro=0.22, merge=0.04)
    assert "merge (4.0)" in both and both.count("l-5 8z") == 1
    apart = [max(ends) - min(ends) for ends in (ends_of(close), ends_of(both))]
    assert apart[1] == pytest.approx(apart[0], abs=1), "it does not squeeze the others"
    whole = drawn_of(sft=0.5, msft=0.9, merge=0.04)
    assert "merge (" not in whole and len(ends_of(whole)) == 3, "where all are far apart, all are on the axis"


def test_an_expensive_method_makes_the_axis_of_flops_logarithmic() -> None:
    found = with_curves(sft=[ONE, TWO], msft=[TWO, TWO], release=[[(1.0, 0.1), (50.0, 0.6)]] * 2)
    drawn = figure(frontier(found), dict.fromkeys(found.runs, "m"))
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)"', drawn)]
    # 5.5 and 50 FLOPs; the axis begins at the first entry of all, 1
    assert places[0] == pytest.approx(LEFT + WIDTH * math.log(5.5) / math.log(50), abs=0.1)
    assert places[2] == pytest.approx(LEFT + WIDTH)
    assert [t for t in ("0.2", "0.5", "1", "2", "5") if f">{t}</text>" in drawn] == ["0.2", "0.5", "1", "2", "5"]
