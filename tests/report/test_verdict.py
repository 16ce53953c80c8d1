"""The first lines of a run: each sentence from its evidence, and commands that name real files."""

from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from run_folders import NAMES, make_run, with_header

from msft.core.vocabulary import Outcome
from msft.record.run_folder import STUDY
from msft.report.base_and_answer import compare
from msft.report.card import Form, card
from msft.report.cautions import cautions
from msft.report.cost import flops, ledger
from msft.report.final_path import final_path, outcome, same_model
from msft.report.intervals import Change, of_answers
from msft.report.page import page
from msft.report.several import Run, macro_gap
from msft.report.story import Story, read_story
from msft.report.table import costs, render_text
from msft.report.verdict import Verdict, against_plain, compare_command, judged, plain_beside, verdict
from msft.report.verdict_views import render_verdict
from msft.report.words import decisions, epochs, those

ITEMS = 100


def cost_against(other: str) -> str:
    """The sentence on the cost of a run, as a pattern."""
    share = r"Of its compute, (\d+)% was spent on training \(and its evaluations\) that is not in the final model\."
    return rf"The run used \d\.\d\d times the compute of {re.escape(other)}\. {share}"


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    return read_story(make_run(tmp_path_factory.mktemp("run") / "run", items=ITEMS))


def render(story: Story) -> str:
    out = io.StringIO()
    render_verdict(story, Console(file=out, width=1000))
    return "\n".join([out.getvalue(), *decisions(story)])


def found(story: Story) -> Verdict:
    made = verdict(story)
    assert made is not None
    return made


def with_items(story: Story, gained: int, lost: int) -> Story:
    """The story as if, on every sub-dataset, so many test items were right in one of the two models only."""
    both = 20
    base = [1.0] * both + [0.0] * gained + [1.0] * lost + [0.0] * (ITEMS - both - gained - lost)
    answer = [1.0] * both + [1.0] * gained + [0.0] * lost + [0.0] * (ITEMS - both - gained - lost)
    return replace(story, test={"base": outcome_of(story, base), "answer": outcome_of(story, answer)})


def outcome_of(story: Story, items: Sequence[float]) -> Outcome:
    reports: Mapping[str, float] = dict.fromkeys(NAMES, math.fsum(items) / len(items))
    return replace(story.test["base"], reports=reports, items={name: tuple(items) for name in NAMES})


@pytest.mark.parametrize(
    ("gained", "lost", "said"),
    [
        (30, 2, "Clearly better than the base model: +28.0 points on the test split, from 22.0 to 50.0 (95 %"),
        (12, 7, "Better than the base model, on weak evidence: +5.0 points on the test split"),
        (8, 7, "Perhaps better than the base model, not shown: +1.0 points on the test split"),
        (7, 7, "Not shown to differ from the base model: +0.0 points on the test split"),
        (7, 8, "Not shown to be better than the base model, more likely worse: −1.0 points on the test split"),
        (7, 12, "Worse than the base model, on weak evidence: −5.0 points on the test split"),
        (2, 30, "Clearly worse than the base model: −28.0 points on the test split, from 50.0 to 22.0 (95 %"),
    ],
)
def test_the_words_follow_the_evidence(story: Story, gained: int, lost: int, said: str) -> None:
    made = with_items(story, gained, lost)
    gain, interval = found(made).gain, compare(made).macro.interval
    assert gain.startswith(said)
    assert interval is not None
    low, high = (f"{100 * end:+.1f}".replace("-", "−") for end in interval)
    assert gain.endswith(f"(95 % interval of the change: {low} to {high}).")


def symmetric(value: float, error: float) -> Change:
    return Change(value, lambda z: (value - z * error, value + z * error))


def test_clear_is_three_standard_errors() -> None:
    error = 0.01
    for change, clear in ((0.031, True), (0.029, False), (-0.031, True), (-0.029, False)):
        assert judged(symmetric(change, error), "x").startswith("Clearly") is clear
    assert judged(of_answers(7, 0, 200), "x") == "Better than x, on weak evidence", "2.6 standard errors"
    assert judged(of_answers(10, 0, 200), "x") == "Clearly better than x", "3.2 of them"
    assert judged(symmetric(0.0195, 0.01), "x") == "Perhaps better than x, not shown"
    assert (
        judged(symmetric(0.0001, 0.00002), "x")
        == judged(symmetric(0.0, 0.0), "x")
        == "Level with x, to a tenth of a point"
    )
    assert judged(symmetric(0.0, 0.01), "x") == "Not shown to differ from x"
    assert judged(symmetric(-0.0195, 0.01), "x") == "Not shown to be better than x, more likely worse"


def test_sub_datasets_are_counted_by_their_intervals(story: Story) -> None:
    assert "Of 4 sub-datasets, 4 are shown to be better and 0 to be worse." in found(with_items(story, 30, 2)).more
    assert "Of 4 sub-datasets, 0 are shown to be better and 0 to be worse." in found(with_items(story, 8, 7)).more


def test_the_data_sets_of_a_group_are_counted_as_such(story: Story) -> None:
    """A mixture of three sub-datasets and a group of two was said to have five sub-datasets that were tested."""
    member = {"train": 10, "taken": 10, "validation": 5, "test": ITEMS}
    grouped = replace(story, header={**story.header, "groups": {"arc": {"easy": member, "hard": member}}})

    def scored(right: int, names: Sequence[str]) -> Outcome:
        items = (1.0,) * right + (0.0,) * (ITEMS - right)
        reports = dict.fromkeys(names, right / ITEMS)
        return replace(story.test["base"], reports=reports, scores=reports, items=dict.fromkeys(names, items))

    five = replace(grouped, test={"base": scored(60, grouped.entries), "answer": scored(20, grouped.entries)})
    assert "Of 5 data sets, 0 are shown to be better and 5 to be worse." in found(five).more
    assert "Worse than the base model on the test split: easy, hard, gsm8k, piqa and boolq." in cautions(
        five, compare(five)
    )
    four = replace(grouped, test={"base": scored(60, grouped.entries[:4]), "answer": scored(20, grouped.entries[:4])})
    assert ", on 4 of 5 data sets (95 % interval" in found(four).gain
    assert those(["x"] * 9, 9, "data set") == "all 9 data sets"


def test_without_test_scores_it_says_so(story: Story, tmp_path: Path) -> None:
    gain = found(replace(story, test={})).gain
    assert gain.startswith("Not tested: +")
    assert "on the validation split" in gain and gain.endswith("so expect less on new data.")
    no_items = {which: replace(o, items=None) for which, o in story.test.items()}
    assert found(replace(story, test=no_items)).gain.startswith(
        "Better than the base model, without an interval that shows it: +"
    )
    few = {which: replace(o, reports={"arc": o.reports["arc"]}) for which, o in story.test.items()}
    assert ", on 1 of 4 sub-datasets (95 % interval" in found(replace(story, test=few)).gain
    nan = {which: replace(o, reports=dict.fromkeys(NAMES, math.nan)) for which, o in story.test.items()}
    assert found(replace(story, test=nan)).gain.startswith("Not known whether it is better")
    base = found(read_story(make_run(tmp_path / "base", chosen=0, items=ITEMS)))
    assert base.gain == "Nothing was gained: the final model is the untrained base model."
    assert verdict(read_story(make_run(tmp_path / "cut", stop_after=3))) is None


def test_a_search_that_hands_over_the_model_of_plain_sft_says_so(tmp_path: Path) -> None:
    """The same steps from the base model; another point of the path, or another loss, is another model."""
    search, plain = (
        read_story(make_run(tmp_path / name, name, items=ITEMS, chosen=3, params=params))
        for name, params in (("msft", {"smooth": 1}), ("sft", {}))
    )
    assert search.answer is not None
    _, against, _ = found(search).more
    assert against == (
        f"Its final model is the same as that of plain SFT with the same seed and data: at epoch "
        f"{epochs(search.answer.epoch)}. On this seed, msft changed nothing."
    )
    (segment, outcome), *others = plain.segments
    changed = replace(plain, segments=[(segment, replace(outcome, train_loss=9.0)), *others])
    assert same_model(search, plain) and same_model(plain, search) and not same_model(search, changed)
    assert not same_model(search, replace(plain, answer=plain.trail.points[2]))
    assert not same_model(search, replace(plain, answer=None))
    averaged = replace(plain, header={**plain.header, "config": {**plain.config, "training.average": 1}})
    assert not same_model(search, averaged)
    debiased, falling = (
        replace(averaged, header={**plain.header, "config": {**averaged.config, **changed}})
        for changed in ({"training.average_warmup": "debiased"}, {"training.schedule": "linear"})
    )
    assert same_model(averaged, averaged) and not same_model(averaged, debiased) and not same_model(averaged, falling)
    bases = [replace(each, answer=each.base) for each in (search, plain)]
    assert same_model(*bases) and ": the base model. On this" in against_plain(
        *(Run(name="", story=each) for each in bases)
    )


def test_plain_sft_beside_it_is_compared_item_by_item(tmp_path: Path) -> None:
    search = read_story(make_run(tmp_path / "msft", items=ITEMS))
    alone = found(search).more
    assert "It was not compared with plain SFT." in alone
    assert re.fullmatch(cost_against("plain SFT of 10 epochs (estimate)"), alone[-1])
    plain = read_story(make_run(tmp_path / "sft", "sft", items=ITEMS))
    _, against, cost = found(search).more
    gap = macro_gap(Run(name="", story=search), Run(name="", story=plain))
    assert gap.difference is not None and gap.change is not None
    told = judged(gap.change, "plain SFT with the same seed and data")
    assert against.startswith(f"{told}: {100 * gap.difference:+.1f}".replace("-", "−"))
    assert against.endswith("One seed compares two models, not two methods.")
    times = sum(flops(search).values()) / sum(flops(plain).values())
    assert re.fullmatch(cost_against(f"that plain SFT of {epochs(plain.tip.epoch)} epochs"), cost)
    assert cost.startswith(f"The run used {times:.2f} times")
    assert not [line for line in found(plain).more if "SFT" in line], "plain SFT is not compared with itself"


def test_the_discarded_part_of_the_compute_is_that_of_its_segments(tmp_path: Path, story: Story) -> None:
    """It used to be the whole run, against plain SFT of all `max_epochs`."""
    told = re.fullmatch(cost_against("plain SFT of 10 epochs (estimate)"), found(story).more[-1])
    spent, path = ledger(story), final_path(story)
    left = [n for n in range(1, len(spent)) if story.segments[n - 1][0].makes and n not in path.snapshots]
    share = sum(spent[n] - spent[n - 1] for n in left) / sum(flops(story).values())
    assert told is not None and float(told[1]) == round(100 * share) > 0
    alone = sum(6 * story.header["model"]["parameters"] * story.segments[n - 1][1].tokens.train for n in left)
    assert alone < sum(spent[n] - spent[n - 1] for n in left), "the share is not one of training alone"
    ended = read_story(make_run(tmp_path / "run", "ies", horizon=1.0, select="last"))
    assert found(ended).more[-1].endswith("plain SFT of 1 epoch (estimate)."), "nothing was discarded"
    assert "plain SFT of 1 epoch (estimate: 4 evaluations" in dict(costs(ended))["Relative compute"]


def test_the_average_of_different_measures_is_called_that(story: Story) -> None:
    measures = {**story.header["measures"], "piqa": {"name": "loss"}, "boolq": {"name": "loss"}}
    mixed = replace(story, header={**story.header, "measures": measures})
    said = "The average is a mean of different measures: accuracy, exp(−NLL)."
    assert found(mixed).more[0] == said and said not in found(story).more
    assert said in card(mixed, Form(kind="model")) and said in render(mixed) and said in page(mixed, {})


def test_another_job_is_no_comparison(tmp_path: Path) -> None:
    search = read_story(make_run(tmp_path / "msft", items=ITEMS))
    make_run(tmp_path / "sft", "sft", items=ITEMS, stop_after=2)
    assert plain_beside(search) is None, "it is not finished"
    for number, changed in enumerate(
        ({"config": {"method.name": "sft", "training.learning_rate": 2}}, {"fingerprints": {"data": "cd" * 32}})
    ):
        place = tmp_path / f"other{number}"
        mine = read_story(make_run(place / "msft", items=ITEMS))
        with_header(make_run(place / "sft", "sft", items=ITEMS), **changed)
        assert plain_beside(mine) is None
    (tmp_path / "sft" / "journal.jsonl").write_text("damaged")
    assert plain_beside(search) is None
    moved = tmp_path / "moved"  # the same model and data under other paths, as the Python API writes them
    config = {"method.name": "sft", "datasets.arc.path": "a.jsonl", "model.name_or_path": "m"}
    with_header(make_run(moved / "sft", "sft", items=ITEMS), config=config)
    assert plain_beside(read_story(make_run(moved / "msft", items=ITEMS))) is not None
    make_run(tmp_path / "third" / "sft", "msft", items=ITEMS)
    assert plain_beside(read_story(make_run(tmp_path / "third" / "msft", items=ITEMS))) is None, "it is no SFT"
    seeds = tmp_path / "seeds"
    make_run(seeds / "sft", "sft", items=ITEMS, seed=8)
    assert plain_beside(read_story(make_run(seeds / "msft", items=ITEMS, seed=7))) is None


def test_in_a_study_it_is_the_run_of_the_same_seed(tmp_path: Path) -> None:
    runs = tmp_path / "study" / "runs"
    search = make_run(runs / "msft" / "20", items=ITEMS)
    averaged = {"config": {"method.name": "sft", "training.average": 1.0}}
    with_header(make_run(runs / "sft_average" / "20", "sft", items=ITEMS), **averaged)
    make_run(runs / "sft" / "21", "sft", items=ITEMS)
    assert plain_beside(read_story(search)) is None, "this is no study"
    (tmp_path / "study" / STUDY).write_text(json.dumps({}))
    story = read_story(search)
    other = plain_beside(story)
    assert other is not None and other.story.folder.path == runs.absolute() / "sft_average" / "20"
    make_run(runs / "sft" / "20", "sft", items=ITEMS)
    other = plain_beside(story)
    assert other is not None and other.story.folder.path == runs.absolute() / "sft" / "20"
    mean = {"config": {"method.name": "msft", "training.average": 1.0}}
    other = plain_beside(read_story(with_header(search, **mean)))
    assert other is not None and other.story.folder.path == runs.absolute() / "sft_average" / "20"
    assert compare_command(story) == f"msft report {tmp_path / 'study'}"


def test_the_commands_name_the_files_of_the_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "my runs" / "a", items=ITEMS)
    steps = found(read_story(run)).steps
    assert steps[0].lines == (f"msft train '{run.config}' --resume",), "a run of a study has kept no model"
    run.final.mkdir()
    load, beside, export = found(read_story(run)).steps
    assert load.lines[0] == "from transformers import AutoModelForCausalLM"
    assert load.lines[1] == f"model = AutoModelForCausalLM.from_pretrained('{run.final}')"
    assert beside.lines == (f"msft compare '{run.config}' --methods msft,sft --seeds 6",)
    assert export.lines == (f"msft export '{run.path}'",)
    adapted = with_header(run, config={"method.name": "msft", "peft.r": 8})
    assert found(read_story(adapted)).steps[0].lines[0] == "from peft import AutoPeftModelForCausalLM"
    plain = make_run(tmp_path / "b", "sft", items=ITEMS)
    assert compare_command(read_story(plain)).endswith("--methods msft,sft --seeds 6")
    story = read_story(run)
    auto = replace(story, header={**story.header, "method": "auto"})
    assert compare_command(auto).endswith("--methods auto,sft_average --seeds 6")


def test_page_terminal_and_card_begin_with_it_in_one_order(tmp_path: Path) -> None:
    make_run(tmp_path / "sft", "sft", items=ITEMS)
    run = make_run(tmp_path / "msft", items=ITEMS)
    story, out = read_story(run), io.StringIO()
    said = [found(story).gain, *found(story).more, outcome(story)]
    render_text(run, Console(file=out, width=500, color_system=None))
    assert out.getvalue().splitlines()[1 : 1 + len(said)] == said
    for step in found(story).steps:
        assert all(line in out.getvalue() for line in step.lines)
    drawn = page(story, {})
    places = [drawn.index(line) for line in said]
    assert places == sorted(places) and places[-1] < drawn.index("<section")
    assert drawn.index(found(story).steps[1].lines[0]) < drawn.index("<section")
    written = card(story, Form(kind="model")).replace("\\", "")
    places = [written.index(line) for line in said]
    assert places == sorted(places) and places[-1] < written.index("## ")
    assert str(tmp_path) not in written


def test_no_path_becomes_html(tmp_path: Path) -> None:
    run = make_run(tmp_path / "<b>x", items=ITEMS)
    assert "<b>x" not in page(read_story(run), {}).split("<section")[0]
