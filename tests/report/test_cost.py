from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from run_folders import PARAMETERS, make_run

from msft.report.base_and_answer import compare
from msft.report.cautions import cautions
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
    folder.write_json(
        folder.notes, ["arc: 3 training examples are in the test split too", "gsm8k: 30 validation items"]
    )
    story = read_story(folder)
    said = cautions(story, compare(story))
    assert "arc: 3 training examples are in the test split too" in said
    # What the data's own check said of a sub-dataset is not said again.
    few = next(line for line in said if line.startswith("Fewer than 60 validation items"))
    assert few.endswith("arc, piqa and boolq.")
    assert not [line for line in said if "No clear improvement" in line or "do not show" in line]
    cut = read_story(make_run(tmp_path / "cut", items=100, stop_after=1))
    assert cautions(cut, compare(cut))[0].startswith("The run is not finished")
    assert "No clear improvement" not in " ".join(cautions(cut, compare(cut)))
    short = read_story(make_run(tmp_path / "short", "sft", items=100, horizon=0.25))
    assert "above the base model): gsm8k, piqa and boolq." in " ".join(cautions(short, compare(short)))


def test_an_answer_that_is_not_shown_to_be_better_is_said_to_be_so(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", items=100))
    same = replace(story, test={**story.test, "answer": story.test["base"]})
    assert "do not show that the final model is better" in cautions(same, compare(same))[0]
    swapped = replace(story, test={"base": story.test["answer"], "answer": story.test["base"]})
    assert any(
        line == "Worse than the base model on the test split: arc, gsm8k, piqa and boolq."
        for line in cautions(swapped, compare(swapped))
    )
