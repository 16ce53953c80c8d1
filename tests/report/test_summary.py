from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from run_folders import NAMES, PARAMETERS, engine_for, header_of, make_run

from msft.core.vocabulary import Mixture, Outcome, Segment, Tokens
from msft.core.wire import outcome_to_json
from msft.methods import METHODS
from msft.record.journal import Journal
from msft.record.run_folder import RunFolder
from msft.report.base_and_answer import compare
from msft.report.intervals import tango
from msft.report.page import page
from msft.report.story import read_story
from msft.report.summary import summarise
from msft.testing.fake import brief_of

KEYS = ["version", "msft", "method", "answer", "rollouts", "base", "validation", "test", "macro", "flops", "headroom",
        "seconds", "disk"]  # fmt: skip


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_a_summary(method: str, tmp_path: Path) -> None:
    summary = summarise(make_run(tmp_path / "run", method, horizon=7.0))
    assert list(summary) == KEYS
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary["macro"]["test"]["answer"] == pytest.approx(math.fsum(summary["test"]["answer"].values()) / 4)
    assert summary["macro"]["validation"]["answer"] >= summary["macro"]["validation"]["base"]


def test_rollouts_of_the_paper_algorithm(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", names=("a", "b"), peaks=(1.0, 3.0), params={"smooth": 1, "replay": 0.0})
    first, second = summarise(folder)["rollouts"]
    assert first["parent"] == 0
    assert (first["active"], first["excluded"], first["epoch"]) == (["a", "b"], ["a"], 1.0)
    assert (second["parent"], second["active"], second["excluded"]) == (first["snapshot"], ["b"], ["b"])


def test_an_unfinished_run_has_no_answer_but_all_else(tmp_path: Path) -> None:
    summary = summarise(make_run(tmp_path / "run", stop_after=2))
    assert summary["answer"] is None
    assert summary["validation"] == {}
    assert summary["macro"]["validation"]["answer"] is None
    assert set(summary["base"]) == set(NAMES)
    assert summary["seconds"]["total"] == pytest.approx(4.0)


def by_hand(path: Path) -> RunFolder:
    """Three segments of one sub-dataset, and a turn, with round numbers."""
    brief = brief_of(engine_for(("a",)), METHODS["sft"].Params())
    folder = RunFolder(path)
    folder.create()
    journal = Journal.create(folder.journal, folder.sidecars, header_of("sft", brief))
    mixture = Mixture(tasks=("a",))

    def add(number: int, parent: int, start: int, stop: int, keep: set[int], size: int) -> None:
        segment = Segment(
            parent=parent, rollout=1, mixture=mixture, start=start, stop=stop, epoch=start / 5, score=("a",),
            keep=frozenset(keep),
        )  # fmt: skip
        tokens = Tokens(train=10 * (stop - start), eval=3, probe=1)
        snapshot = number if segment.trains else parent
        outcome = Outcome(snapshot=snapshot, scores={"a": 0.5}, reports={"a": 0.5}, tokens=tokens, bytes=size)
        journal.segment(number, segment, outcome)

    add(1, 0, 0, 5, set(), 100)
    add(2, 1, 5, 10, set(), 100)
    add(3, 2, 10, 20, {1}, 100)
    add(4, 1, 0, 0, {2, 3}, 0)
    tested = {which: outcome_to_json(Outcome(snapshot=n, scores={"a": 0.5}, reports={"a": 0.5}, tokens=Tokens(eval=7)))
              for which, n in (("base", 0), ("answer", 1))}  # fmt: skip
    journal.final({"answer": 1, "test": tested})
    return folder


def test_costs_by_hand(tmp_path: Path) -> None:
    folder = by_hand(tmp_path / "run")
    summary = summarise(folder)
    base = read_story(folder).brief.base.tokens.eval
    assert summary["flops"] == {
        "train": 6 * PARAMETERS * 200,
        "eval": 2 * PARAMETERS * (base + 4 * 3 + 2 * 7),
        "probe": 2 * PARAMETERS * 4,
        "recompute": 0,
    }
    # Held while training: nothing, then 1, then 1 and 2; at the end of segment 3 all three.
    assert summary["disk"] == {"peak_bytes": 300, "mean_bytes": (5 * 0 + 5 * 100 + 10 * 200) / 20, "sft_bytes": 200}


def test_an_answer_that_is_the_base_model_is_tested_once(tmp_path: Path) -> None:
    # The only sub-dataset falls from the start: the untrained model stays the best.
    folder = make_run(tmp_path / "run", names=("a",), peaks=(0.0,), horizon=1.0, method="sft")
    story = read_story(folder)
    assert story.answer is story.base
    expected = story.brief.base.tokens.eval + sum(o.tokens.eval for _, o in story.segments)
    assert story.tokens.eval == expected + story.test["base"].tokens.eval


def run_tested_as(tmp_path: Path, base: Outcome, answer: Outcome, measure: str) -> RunFolder:
    brief = brief_of(engine_for(("a",)), METHODS["sft"].Params())
    folder = RunFolder(tmp_path / "run")
    folder.create()
    journal = Journal.create(folder.journal, folder.sidecars, header_of("sft", brief, measure))
    made = Outcome(snapshot=1, scores={"a": 0.5}, reports={"a": 0.5})
    mixture = Mixture(tasks=("a",))
    journal.segment(1, Segment(parent=0, rollout=1, mixture=mixture, start=0, stop=1, epoch=0.0, score=("a",)), made)
    journal.final({"answer": 1, "test": {"base": outcome_to_json(base), "answer": outcome_to_json(answer)}})
    return folder


def outcome(items: tuple[float, ...], report: float) -> Outcome:
    return Outcome(snapshot=0, scores={"a": report}, reports={"a": report}, items={"a": items})


def test_interval_of_an_accuracy_is_paired(tmp_path: Path) -> None:
    folder = run_tested_as(tmp_path, outcome((1, 0, 0, 0), 0.25), outcome((1, 1, 1, 0), 0.75), "choice")
    (row,) = compare(read_story(folder)).rows
    assert row.interval == tango(2, 0, 4)
    assert row.items == 4


def test_probabilities_give_an_accuracy_no_interval(tmp_path: Path) -> None:
    folder = run_tested_as(tmp_path, outcome((0.4, 0.1), 0.5), outcome((0.9, 0.6), 1.0), "choice")
    assert compare(read_story(folder)).rows[0].interval is None


def test_interval_of_a_likelihood_is_that_of_its_exponential(tmp_path: Path) -> None:
    was, now = (-2.0, -1.0, -1.5), (-1.0, -0.5, -1.2)
    base, answer = (math.exp(sum(xs) / 3) for xs in (was, now))
    folder = run_tested_as(tmp_path, outcome(was, base), outcome(now, answer), "loss")
    (row,) = compare(read_story(folder)).rows
    gaps = [answer * b - base * a for a, b in zip(was, now, strict=True)]
    centre = sum(gaps) / 3
    half = 4.302653 * math.sqrt(sum((gap - centre) ** 2 for gap in gaps) / 2 / 3)  # Student's, 2 degrees of freedom
    assert row.interval == pytest.approx((answer - base - half, answer - base + half))
    assert row.measure == "exp(−NLL)"


def test_without_a_test_split_validation_stands_in_and_says_so(tmp_path: Path) -> None:
    comparison = compare(read_story(make_run(tmp_path / "run", stop_after=4)))
    assert comparison.split == "validation"
    assert comparison.macro.interval is None


def test_a_final_model_that_is_the_base_model_has_no_interval(tmp_path: Path) -> None:
    story = read_story(make_run(tmp_path / "run", chosen=0, items=18))
    assert {row.difference for row in compare(story).rows} == {0.0}
    assert {row.interval for row in (*compare(story).rows, compare(story).macro)} == {None}


def test_a_change_is_coloured_only_where_its_interval_shows_it(tmp_path: Path) -> None:
    content = page(read_story(make_run(tmp_path / "run", chosen=3, params={"smooth": 1}, items=40)), {})
    rows = re.findall(r'<tr[^>]*><th scope="row">(\w+)</th>.*?</tr>', content)
    for name, row in zip(rows, re.findall(r"<tr[^>]*><th scope=\"row\">.*?</tr>", content), strict=False):
        if (found := re.search(r">([+−][\d.]+) to ([+−][\d.]+)</td>", row)) is not None:
            shown = found[1][0] == found[2][0]
            assert ('class="up"' in row or 'class="down"' in row) == shown, name
    assert 'class="up"' in content
