"""The first lines of a comparison: does the searched method beat plain SFT here."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy import stats
from test_comparison import results

from msft.study.compare_answer import answers, lead, reference_of, returned_base
from msft.study.compare_markdown import to_markdown
from msft.study.compare_page import comparison_page
from msft.study.compare_table import render_comparison
from msft.study.comparison import comparison
from msft.study.results import Results
from msft.study.statistics import seeds_to_show, t_interval


def by_seed(differences: list[float], split: str = "test") -> dict[str, Any]:
    """A comparison of as much as the answer reads."""
    rows = [
        {"method": "sft", "plain": True, "runs": [{"seed": s, "macro": 0.5, "base": False} for s in range(20)]},
        {"method": "msft", "plain": False,
         "runs": [{"seed": s, "macro": 0.5 + d, "base": False} for s, d in enumerate(differences)]},
    ]  # fmt: skip
    against = [{"method": "msft", "seeds": list(range(len(differences)))}]
    seeds = list(range(20))
    return {"methods": rows, "split": split, "reference": "sft", "against": against, "seeds": seeds}


def answer(data: dict[str, Any]) -> str:
    return answers(data)[0]


@pytest.mark.parametrize(
    ("differences", "said"),
    [
        ([0.02, 0.03, 0.01, 0.02], "Yes: msft minus sft is +2.0 points on test (95 % interval +0.7 to +3.3, 4 seeds)."),
        ([-0.02, -0.03, -0.01], "Not shown: msft minus sft is −2.0 points on test (95 % interval −4.5 to +0.5"),
        ([-0.02, -0.03, -0.01, -0.02], "No, it is worse: msft minus sft is −2.0 points on test (95 % interval −3.3 to"),
        (
            [0.02, -0.01, 0.02],
            "Not shown: msft minus sft is +1.0 points on test (95 % interval −3.3 to +5.3, 3 seeds).",
        ),
        ([0.02, -0.01], "Too few seeds to tell (2 seeds): msft minus sft is +0.5 points on test (+2.0 and −1.0)."),
        ([0.02], "Too few seeds to tell (1 seed): msft minus sft is +2.0 points on test. Use 6"),
        ([], "Not known: no seed is finished for both."),
        ([0.0] * 4, "No: both have the same average on test with each of 4 seeds."),
        ([0.01] * 4, "Not tested: msft minus sft is +1.0 points on test with each of 4 seeds."),
    ],
)
def test_the_answer_follows_the_interval_over_seeds(differences: list[float], said: str) -> None:
    found = answer(by_seed(differences))
    assert found is not None and found.startswith(f"Does msft beat sft here? {said}")


@pytest.mark.parametrize("power", [0.5, 0.8])
def test_so_many_seeds_show_a_difference_in_so_many_studies(power: float) -> None:
    """Counted over drawn studies, whose differences have this mean and this standard deviation."""
    differences = [0.02, -0.01, 0.02, 0.0, 0.01]
    needed = seeds_to_show(differences, power, 100)
    assert needed is not None and needed > 5

    def shown(seeds: int) -> float:
        studies = np.random.default_rng(3).normal(np.mean(differences), np.std(differences, ddof=1), (40_000, seeds))
        reach = stats.t.ppf(0.975, seeds - 1) * studies.std(axis=1, ddof=1) / np.sqrt(seeds)
        return float(np.mean(studies.mean(axis=1) - reach > 0))

    assert shown(needed - 1) < power + 0.005 and shown(needed) > power - 0.005
    assert shown(needed) - shown(needed - 1) > 0.01


def test_the_seeds_that_would_show_it_are_named_for_two_powers() -> None:
    differences = [0.02, -0.01, 0.02, 0.0, 0.01]
    half, most = seeds_to_show(differences, 0.5, 100), seeds_to_show(differences, 0.8, 100)
    told = answer(by_seed(differences))
    assert told is not None and told.endswith(
        f" About {half} seeds would show it in every second such study, {most} in four of five, "
        "if difference and spread stay as they are."
    )
    hopeless = answer(by_seed([0.05, -0.05, 0.001]))
    assert hopeless is not None and "More than 100 seeds would show it in every second such study, if" in hopeless
    assert seeds_to_show([0.1, -0.1, 0.0], 0.5, 100) is None, "no number of seeds shows a difference of 0"
    sure = t_interval([0.02, 0.03, 0.01, 0.02])
    assert sure.low is not None and sure.low > 0


def test_validation_scores_are_named() -> None:
    assert "+2.0 points on validation, on which the methods acted" in str(
        answer(by_seed([0.02, 0.03, 0.01], "validation"))
    )


def test_plain_sft_is_subtracted_whatever_the_order_of_methods() -> None:
    assert reference_of({"auto": "auto", "sft_decay": "sft", "sft": "sft", "msft": "msft"}) == "sft"
    assert reference_of({"auto": "auto", "sft_average": "sft", "sft_decay": "sft"}) == "sft_average"
    assert reference_of({"sro": "sro", "msft": "msft"}) == "sro"
    for found in (results(msft=0.2, sft=0.1), results(sft=0.1, msft=0.2)):
        told = answer(comparison(found, "sft"))
        assert told.startswith("Does msft beat sft here? Yes: msft minus sft is +")


def test_each_method_is_held_against_plain_sft_the_searches_first() -> None:
    """`auto` was nowhere compared with `sft`, where `msft` stood before it."""
    found = results(wsd=0.12, sft=0.1, msft=0.2, auto=0.0)
    search = {name: {s: replace(r, searches=name in ("msft", "auto")) for s, r in of.items()}
              for name, of in found.runs.items()}  # fmt: skip
    data = comparison(replace(found, runs=search), "sft")
    told = answers(data)
    assert [line.split(" minus ")[0] for line in told] == [
        "Does msft beat sft here? Yes: msft",
        "Does auto beat sft here? No, it is worse: auto",
        "Does wsd beat sft here? Yes: wsd",
    ]
    assert (data["version"], data["reference"]) == (2, "sft"), "the sign has turned"
    assert {row["method"]: row["difference"]["mean"] > 0 for row in data["against"]} == {
        "wsd": True, "msft": True, "auto": False
    }  # fmt: skip
    assert [line.split("?")[0] for line in answers(comparison(found, "msft"))] == [
        "Does wsd beat msft here", "Does auto beat msft here", "Does sft beat msft here"
    ]  # fmt: skip


def test_methods_that_handed_over_the_same_models_are_said_to() -> None:
    found = results(auto=0.1, sft=0.1)
    runs = {name: {s: replace(r, reports=found.runs["sft"][s].reports, items=found.runs["sft"][s].items,
                              made=(None, [("steps of seed", s)])) for s, r in of.items()}
            for name, of in found.runs.items()}  # fmt: skip
    data = comparison(replace(found, runs=runs), "sft")
    assert answers(data) == ["Does auto beat sft here? No: both handed over the same models with each of 6 seeds."]
    written = to_markdown(data)
    assert "| auto | the same models |\n" in written and "+0.0 to +0.0" not in written, "no column is empty"
    assert "- auto handed over the same models as sft." in written
    page = comparison_page(data)
    assert "auto and sft: the same models with each of 6 seeds." in page and "1.000" not in page


def test_seeds_that_would_show_it_are_taken_afresh() -> None:
    """Added to the first ones, they are discounted in the notes."""
    said = lead(comparison(results(msft=0.101, sft=0.1, seeds=3), "sft"))
    assert "in every second such study" in said[0]
    assert said[1].startswith("Take those seeds afresh (--set training.seed=3, with another --output)")
    assert not [line for line in lead(comparison(results(msft=0.3, sft=0.1), "sft")) if "afresh" in line]


def with_base(found: Results, **seeds: int) -> Results:
    """As if the first so many seeds of these methods had returned the base model."""
    runs = {name: dict(of) for name, of in found.runs.items()}
    for name, count in seeds.items():
        for seed in range(count):
            run = runs[name][seed]
            summary = {**run.summary, "answer": {"epoch": 0.0, "snapshot": 0}}
            runs[name][seed] = replace(run, summary=summary)
    return replace(found, runs=runs)


def test_methods_that_returned_the_base_model_are_named() -> None:
    found = results(msft=0.2, sft=0.1)
    assert returned_base(comparison(found, "msft")) == []
    some = comparison(with_base(found, msft=2), "msft")
    assert returned_base(some) == ["msft returned the untrained base model with 2 of 6 seeds."]
    every = comparison(with_base(found, msft=6, sft=6), "msft")
    assert returned_base(every) == ["Every run returned the untrained base model: nothing was gained by any method."]


def test_page_terminal_and_markdown_begin_with_the_answer() -> None:
    data = comparison(with_base(results(msft=0.3, sft=0.1, sro=0.2), msft=1), "sft")
    said = lead(data)
    assert [line.split(" ")[0] for line in said] == ["Does", "Does", "msft", "msft"]
    out = io.StringIO()
    render_comparison(data, Console(file=out, width=500))
    assert out.getvalue().splitlines()[1:5] == said
    drawn = comparison_page(data)
    assert f'<p class="lead">{said[0]}</p>' in drawn and drawn.index(said[0]) < drawn.index("<section")
    assert to_markdown(data).splitlines()[2:6] == [f"- {line}" for line in said]
