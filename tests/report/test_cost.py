from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from run_folders import PARAMETERS, make_run

from msft.report.base_and_answer import compare
from msft.report.cautions import FEW_ITEMS, cautions, few_items
from msft.report.cost import flops, holdings, ledger, plain
from msft.report.story import read_story


def test_the_ledger_ends_at_what_was_spent_before_the_test(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run"))
    entries = ledger(story)
    tested = sum(2 * PARAMETERS * outcome.tokens.eval for outcome in story.test.values())
    assert entries[-1] + tested == sum(flops(story).values())
    assert entries[0] == 2 * PARAMETERS * story.brief.base.tokens.eval
    assert len(entries) == len(story.segments) + 1
    assert entries == sorted(entries)


def test_plain_fine_tuning_is_reckoned_as_it_really_costs(tmp_path: Path) -> None:
    reckoned = plain(read_story(make_run(tmp_path / "msft", "msft")))
    sft = read_story(make_run(tmp_path / "sft", "sft"))
    assert reckoned is not None
    assert reckoned.flops == pytest.approx(flops(sft), rel=0.02)
    assert reckoned.evaluations == len([segment for segment, _ in sft.segments if segment.trains])
    assert plain(sft) is None
    assert plain(read_story(make_run(tmp_path / "one by one", "continual"))) is None


def test_what_is_held_is_the_parent_what_may_be_asked_for_and_the_new_one(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run"))
    held, two = holdings(story)
    assert two == 2000
    for each, (segment, _) in zip(held, story.segments, strict=True):
        assert each.during == 1000 * len((segment.keep | {segment.parent}) - {0})
        assert each.end == each.during + 1000 * segment.trains


def test_warnings_name_what_the_numbers_cannot_carry(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", items=30)
    leaks = "3 training examples are in the test split too"
    notes = [
        f"arc: {leaks}",
        "gsm8k: 30 validation items are few: ...",
        f"piqa: {leaks}",
        "boolq: the template drops it",
    ]
    folder.write_json(folder.notes, [*notes, "padded rows"])
    story = read_story(folder)
    said = cautions(story, compare(story))
    # One line for one fact; what a run of version 0.1 said of few items itself is not said again.
    assert said[-3:] == [f"arc and piqa: {leaks}", "boolq: the template drops it", "padded rows"]
    few = [line for line in said if "few" in line]
    assert few == [
        "Too few validation items to find peaks reliably: 30 in arc, gsm8k, piqa and boolq. With 30, an accuracy is "
        "uncertain by ±9 points (standard error). Use 150 or more."
    ]
    # What the display of the same run has shown at its start is left out.
    assert cautions(story, compare(story), with_notes=False) == [line for line in said[:-3] if line not in few]
    assert not [line for line in said if "No clear improvement" in line or "not shown" in line]
    cut = read_story(make_run(tmp_path / "cut", items=100, stop_after=1))
    assert cautions(cut, compare(cut))[0].startswith("The run is not finished")
    assert "No clear improvement" not in " ".join(cautions(cut, compare(cut)))
    short = read_story(make_run(tmp_path / "short", "sft", items=100, horizon=0.25))
    assert "above the base model): gsm8k, piqa and boolq." in " ".join(cautions(short, compare(short)))


def test_sub_datasets_that_got_worse_are_named(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", items=100))
    swapped = replace(story, test={"base": story.test["answer"], "answer": story.test["base"]})
    first = cautions(swapped, compare(swapped))[0]
    assert first == "Worse than the base model on the test split: arc, gsm8k, piqa and boolq."


def test_few_items_are_grouped_by_their_number() -> None:
    said = few_items({"a": 12, "b": 200, "c": 40, "d": 12, "e": FEW_ITEMS})
    assert len(said) == 1
    assert said[0].startswith("Too few validation items to find peaks reliably: 12 in a and d; 40 in c. With 12, ")
    assert few_items({"a": FEW_ITEMS}) == []
