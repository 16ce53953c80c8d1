"""From runs to a comparison: what is counted, what is said, and that names cannot do harm."""

from __future__ import annotations

import csv
import io
import json
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from msft.study.compare_markdown import to_markdown
from msft.study.compare_page import comparison_page
from msft.study.compare_table import render_comparison, to_csv
from msft.study.compare_words import HEADINGS, against_cells, cells, in_brief, notes, sentence, verdict
from msft.study.comparison import comparison
from msft.study.results import Results, Run
from msft.study.statistics import t_test

TASKS = ("=cmd", "<b>boolq</b>", "piqa", "arc", "gsm8k", "[red]x")
ITEMS = 50
WHY = "the difference is identical with each seed"


def run_of(seed: int, reports: list[float], *, plain: bool = False) -> Run:
    """Items of which the report is the mean, in an order that the seed decides."""
    order = np.random.default_rng(seed)
    items = [order.permutation(np.arange(ITEMS) < round(r * ITEMS)).astype(float) for r in reports]
    summary = {
        "flops": {"train": 6000, "eval": 3000, "probe": 1000},
        "seconds": {"total": 2.0 + seed},
        "disk": {"peak_bytes": 300, "mean_bytes": 150, "sft_bytes": 200},
        "answer": {"epoch": 1.5, "snapshot": 6},
    }
    exact = np.array([float(x.mean()) for x in items])
    best = dict(zip(TASKS, exact, strict=True)) | {"piqa": 0.25}
    return Run(
        seed=seed, reports=exact, items=items, validation=float(exact.mean()) + 0.02, best=best, plain=plain,
        few_candidates=False, summary=summary,
    )  # fmt: skip


def results(seeds: int = 6, **methods: float) -> Results:
    """Each method: so much better than 50 % on all sub-datasets, with a seed's noise that all share, and its own."""
    draw = np.random.default_rng(0)
    shared = draw.normal(0, 0.02, (seeds, len(TASKS)))
    runs: dict[str, dict[int, Run]] = {}
    for name, gain in methods.items():
        noise = shared + draw.normal(0, 0.01, shared.shape)
        plain = name == "sft"
        runs[name] = {s: run_of(s, [0.5 + gain + float(x) for x in noise[s]], plain=plain) for s in range(seeds)}
    return Results(
        split="test", tasks=TASKS, left_out=("copy",), measures=dict.fromkeys(TASKS, "accuracy"),
        validation_items=dict.fromkeys(TASKS, 100), base=dict.fromkeys(TASKS, 0.25),
        base_validation=dict.fromkeys(TASKS, 0.25), model="tiny\x1b[2J", runs=runs, failures={},
    )  # fmt: skip


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return comparison(results(msft=0.2, sft=0.1, sro=0.2, placebo=0.05), "msft", ["a note"])


def test_the_numbers_are_those_of_the_runs(data: dict[str, Any]) -> None:
    made = results(msft=0.2, sft=0.1, sro=0.2, placebo=0.05)
    row = data["methods"][0]
    macros = [run.reports.mean() for run in made.runs["msft"].values()]
    assert row["macro"]["mean"] == pytest.approx(np.mean(macros))
    assert row["worst"]["mean"] == pytest.approx(np.mean([run.reports.min() for run in made.runs["msft"].values()]))
    assert row["gap"]["mean"] == pytest.approx(0.02)
    assert row["flops"]["total"]["mean"] == 10_000
    assert row["disk"]["peak_of_sft"]["mean"] == 1.5
    against = {entry["method"]: entry for entry in data["against"]}
    gaps = [made.runs["sft"][s].reports.mean() - made.runs["msft"][s].reports.mean() for s in range(6)]
    assert against["sft"]["p"] == pytest.approx(t_test(gaps))
    assert against["sft"]["difference"]["mean"] == pytest.approx(np.mean(gaps))
    assert against["sft"]["sign_flips"] == 2 / 64
    assert against["sft"]["holm"] == pytest.approx(2 * against["sft"]["p"])
    for entry in against.values():
        tested = sum(task["p"] is not None for task in entry["tasks"])
        assert entry["win"] + entry["tie"] + entry["loss"] == tested
    assert against["placebo"]["loss"] == len(TASKS)
    json.dumps(data, allow_nan=False)


def test_without_a_test_split_there_is_no_gap() -> None:
    """The average is then that of validation, and the gap was +0.0."""
    (row, *_) = comparison(replace(results(msft=0.2, sft=0.1), split="validation"), "msft")["methods"]
    assert row["gap"] is None and cells(row)[HEADINGS.index("gap")] == "–"


def test_what_is_said_follows_from_the_tests(data: dict[str, Any]) -> None:
    assert data["better_than_all"] == []
    assert "No method is significantly better" in verdict(data)
    assert in_brief(data) == ["sft and placebo are worse than msft.", "No difference shown between msft and sro."]
    worse = comparison(results(msft=0.1, sft=0.2), "msft")
    assert in_brief(worse) == ["sft is better than msft."]
    assert worse["better_than_all"] == ["sft"]
    assert "sft is significantly better than all others" in verdict(worse)
    assert "compares single models" in " ".join(notes(data))
    assert {f"{name.capitalize()}: " in " ".join(notes(data)) for name in ("worst", "spread", "gap", "disk")} == {True}
    assert {"worst", "spread", "gap", "disk"} <= set(HEADINGS), "what a column shows is said below the table"


def test_an_average_of_different_measures_is_called_that(data: dict[str, Any]) -> None:
    found = results(msft=0.2, sft=0.1)
    mixed = replace(found, measures={**found.measures, "piqa": "exp(−NLL)"})
    said = "The average is a mean of different measures: accuracy, exp(−NLL)."
    assert said in notes(comparison(mixed, "sft")) and said not in notes(data)


def test_one_seed_says_nothing_of_methods() -> None:
    single = comparison(results(seeds=1, msft=0.3, sft=0.1), "msft")
    (row,) = single["against"]
    assert row["p"] is None
    assert row["model_pairs"] == {"pairs": 1, "differ": 1}
    assert single["better_than_all"] == []
    assert sentence(single, row).endswith("points; not tested: only one seed is finished for both.")
    assert in_brief(single) == ["Not tested against msft: sft (only one seed is finished for both)."]
    assert {task["verdict"] for task in row["tasks"]} == {None} and against_cells(row)[-1] == "–"


def tied(found: Results, name: str, away: float) -> Results:
    """As if a method were away from sft by the same with each seed, item by item."""
    moved = {s: replace(run, reports=run.reports + away, items=[x + away for x in run.items])
             for s, run in found.runs["sft"].items()}  # fmt: skip
    return replace(found, runs={**found.runs, name: moved})


@pytest.mark.parametrize("away", [0.0, 0.125])
def test_a_difference_that_is_identical_with_each_seed_is_not_tested(away: float) -> None:
    """It was summed up as no difference shown, with an interval of width 0, or p = 1.000."""
    found = tied(results(msft=0.2, sft=0.1, sro=0.1), "sro", away)
    data = comparison(found, "sft")
    (row,) = [row for row in data["against"] if row["method"] == "sro"]
    assert row["difference"] == {"mean": pytest.approx(away), "low": None, "high": None}
    assert (row["p"], row["holm"], row["like_these"]) == (None, None, None)
    assert {task["verdict"] for task in row["tasks"]} == {None} and row["win"] == row["tie"] == row["loss"] == 0
    assert {(task["difference"]["low"], task["p"]) for task in row["tasks"]} == {(None, None)}
    assert row["model_pairs"] == {"pairs": 0 if away else 6, "differ": 0}, "items that all move alike tell no spread"
    points = f"+{100 * away:.1f}"
    assert against_cells(row) == ["sro", points, "identical", "–", "–", "–"]
    assert sentence(data, row) == f"sro minus sft: {points} points; not tested: {WHY}."
    assert in_brief(data) == ["msft is better than sft.", f"Not tested against sft: sro ({WHY})."]
    (other,) = [row for row in data["against"] if row["method"] == "msft"]
    assert "Holm" not in sentence(data, other), "one comparison was tested"
    for text in (comparison_page(data), to_markdown(data), rendered(data, 160)):
        assert "No difference shown" not in text and f"{points} to {points}" not in text and "1.000" not in text
        assert re.search(f"not tested( against sft)?: (sro )?[(]?{WHY}", " ".join(text.split()), re.IGNORECASE)
    average = next(r for r in csv.DictReader(io.StringIO(to_csv(data))) if r["method"] == "sro")
    assert (average["difference_low"], average["p"], average["verdict"]) == ("", "", "")


def test_holms_correction_counts_the_comparisons_that_were_tested() -> None:
    data = comparison(tied(results(msft=0.2, sft=0.1, ies=0.3, sro=0.1), "sro", 0.0), "sft")
    said = sentence(data, data["against"][0])
    assert "with Holm's correction for 2 comparisons" in said


def test_methods_with_fewer_seeds_show_their_number() -> None:
    found = results(msft=0.2, sft=0.1)
    assert "seeds" not in rendered(comparison(found, "sft"), 80).splitlines()[4]
    fewer = replace(found, runs={**found.runs, "msft": {0: found.runs["msft"][0]}})
    data = comparison(fewer, "sft")
    for width in (80, 160):
        lines = [line.split() for line in rendered(data, width).splitlines()]
        head = next(line for line in lines if line[:2] == ["method", "average"])
        assert head[-1] == "seeds" and next(line[-1] for line in lines if line[:1] == ["msft"]) == "1"
    assert "<th>seeds</th>" in comparison_page(data) and "<th>seeds</th>" not in comparison_page(
        comparison(found, "sft")
    )


def test_what_cannot_be_learned_is_marked_and_counted(data: dict[str, Any]) -> None:
    assert [entry["task"] for entry in data["tasks"] if not entry["learnable"]] == ["piqa"]
    assert "above the base model): piqa" in " ".join(notes(data))
    assert "piqa" in data["methods"][0]["tasks"]


def test_a_method_whose_runs_failed_is_shown_as_such() -> None:
    made = results(msft=0.2, sft=0.1)
    half = {seed: run for seed, run in made.runs["sft"].items() if seed < 3}
    failures = {"sft": {"4": "diverged"}, "ies": {"0": "no\x1b[2Jmemory"}}
    made = Results(**{f: getattr(made, f) for f in Results.__slots__} | {
        "runs": {"msft": made.runs["msft"], "sft": half, "ies": {}}, "failures": failures,
    })  # fmt: skip
    data = comparison(made, "msft")
    assert data["against"][0]["seeds"] == [0, 1, 2]
    rows = {row["method"]: row for row in data["methods"]}
    assert rows["ies"]["macro"] is None
    assert "Failed: ies, seed 0: no[2Jmemory" in notes(data)
    for text in (comparison_page(data), to_csv(data), to_markdown(data), rendered(data, 80)):
        assert "ies" in text


def rendered(data: dict[str, Any], width: int) -> str:
    console = Console(width=width, file=io.StringIO(), force_terminal=True, color_system=None)
    render_comparison(data, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(len(line) <= width for line in text.splitlines())
    return str(text)


@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_shows_whole_names_and_no_mark_up(data: dict[str, Any], width: int) -> None:
    text = rendered(data, width)
    for name in (*TASKS, "placebo", "win/tie/loss"):
        assert name in text
    assert "\x1b" not in text


def test_no_name_becomes_a_formula_or_html(data: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(data))))
    assert len(rows) == 4 * (1 + len(TASKS))
    assert {row["sub-dataset"] for row in rows} == {"average", *TASKS} - {"=cmd"} | {"'=cmd"}
    assert float(rows[0]["mean"]) == data["methods"][0]["macro"]["mean"]
    markdown = to_markdown(data)
    assert "\\<b>boolq\\</b>" in markdown
    assert {line.replace(r"\|", "").count("|") for line in markdown.splitlines() if line.startswith("| sft")} == {
        10,
        8,
        6,
    }
    page = comparison_page(data)
    assert "<b>boolq" not in page
    assert "&lt;b&gt;boolq" in page
    assert "<script" not in page
    assert "http" not in page.replace('http-equiv="', "")


def test_methods_that_chose_among_fewer_candidates_are_named() -> None:
    found = results(msft=0.2, sft=0.1, continual=0.1)
    assert not [note for note in comparison(found, "msft")["notes"] if "candidates" in note]
    choice: dict[str, bool | None] = {"msft": True, "sft": False, "continual": None}
    apart = {name: {seed: replace(run, few_candidates=choice[name]) for seed, run in by_seed.items()}
             for name, by_seed in found.runs.items()}  # fmt: skip
    unequal = replace(found, runs=apart)
    said = comparison(unequal, "msft")["notes"]
    assert said == [
        "The final model was chosen among fewer candidates by msft: only points where the search decides "
        "(method.score_excluded: rollout); by sft among all evaluations. This favours the latter."
    ]
    # Written again from its own notes, as `msft report` does, it is said once.
    assert comparison(unequal, "msft", said)["notes"] == said


def test_a_time_is_told_by_what_seeds_took() -> None:
    """An interval of the mean would tell the load of the machine."""
    page = comparison_page(comparison(results(seeds=3, msft=0.1, sft=0.0), "msft"))
    assert "<td>2.0 s to 4.0 s</td>" in page
    one = comparison_page(comparison(results(seeds=1, msft=0.1, sft=0.0), "msft"))
    assert "<td>2.0 s</td>" in one


def test_each_seed_has_its_circle_at_its_difference() -> None:
    found = results(seeds=4, msft=0.1, sft=0.0)
    data = comparison(found, "msft")
    page = comparison_page(data)
    circles = [float(x) for x in re.findall(r'circle class="seed" cx="([\d.]+)"', page)]
    (mean,) = [float(x) for x in re.findall(r'<circle cx="([\d.]+)" cy="[\d.]+" r="4"/></g>', page)]
    assert len(circles) == 4 and sum(circles) / 4 == pytest.approx(mean, abs=0.1)
    away = [100 * float((found.runs["sft"][s].reports - found.runs["msft"][s].reports).mean()) for s in range(4)]
    order = sorted(range(4), key=away.__getitem__)
    assert [circles[s] for s in order] == sorted(circles) and max(circles) - min(circles) > 1


def test_a_difference_far_beyond_the_others_is_a_number_at_the_edge() -> None:
    data = comparison(results(msft=0.1, sft=0.1, sro=0.11, one_pass=0.09, merge=-0.4), "msft")
    page = comparison_page(data)
    (mean,) = [row["difference"]["mean"] for row in data["against"] if row["method"] == "merge"]
    assert page.count('class="far"') == 1 and f">← −{-100 * mean:.1f}</text>" in page
    places = [float(x) for x in re.findall(r'<circle cx="([\d.]+)" cy="[\d.]+" r="4"/></g>', page)]
    assert len(places) == 3 and max(places) - min(places) > 40, "the others are not squeezed"


def test_no_difference_stands_at_the_edge_that_the_axis_reaches() -> None:
    """A method whose interval over sub-datasets like these is wide draws the axis past the one that is far."""
    data = comparison(results(msft=0.1, sft=0.1, sro=0.11, one_pass=0.09, merge=-0.4), "msft")
    for row in data["against"]:
        if row["method"] == "sro":
            row["like_these"] = {"mean": 0.0, "low": -0.6, "high": 0.1}
    assert 'class="far"' not in comparison_page(data)
