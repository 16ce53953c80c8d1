"""Where the time went, as summary.json, page, report and status tell it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from run_folders import make_run

from msft.cli.main import main
from msft.report.page import page
from msft.report.seconds import GROUPS, Seconds, seconds_of
from msft.report.story import read_story
from msft.system.stopwatch import Kind

SPENT = {
    "start.imports": 2.0, "start.model": 1.0, "train.compute": 60.0, "train.optimizer": 10.0, "train.input": 1.0,
    "eval.base": 2.0, "eval.ticks": 14.0, "eval.rollback": 3.0, "eval.test": 1.0, "snapshot.durable": 4.0,
    "record": 0.5, "other": 1.5,
}  # fmt: skip


def test_groups_parts_and_shares_account_for_everything() -> None:
    seconds = Seconds(SPENT)
    told = seconds.as_json()
    assert told["total"] == 100.0
    assert math.fsum(told[group] for group in GROUPS) == 100.0
    assert (told["start"], told["train"], told["eval"], told["snapshot"], told["other"]) == (3.0, 71.0, 20.0, 4.0, 1.5)
    assert told["parts"]["eval"] == {"ticks": 14.0, "rollback": 3.0, "base": 2.0, "test": 1.0}
    assert told["shares"] == pytest.approx({"compute": 0.7, "eval": 0.2, "else": 0.1})
    assert seconds.in_words == (
        "1 min 40 s: training 70%, scoring 20%, everything else 10% (snapshot 4.0 s, start 3.0 s, other 1.5 s)"
    )


def test_every_kind_has_a_group() -> None:
    assert {kind.partition(".")[0] for kind in Kind.__args__} <= set(GROUPS)  # type: ignore[attr-defined]


def test_kinds_of_other_versions_are_counted() -> None:
    early = Seconds({"train": 8.0, "eval": 1.0, "an unknown kind": 1.0}).as_json()
    assert early["shares"] == pytest.approx({"compute": 0.8, "eval": 0.1, "else": 0.1})
    assert (early["other"], early["total"]) == (1.0, 10.0)
    assert Seconds({}).as_json()["shares"] == {}


def test_the_lines_of_all_sittings_are_added(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "run", stop_after=2)
    before = seconds_of(read_story(folder)).total
    folder.add_timing({"kind": "start", "number": None, "seconds": {"start.data": 3.0, "train.compute": 1.0}})
    story = read_story(folder)
    assert seconds_of(story).total == before + 4.0
    assert seconds_of(story).groups["start"] == 3.0
    content = page(story, {})
    assert '<th scope="row">start</th>' in content and "data 3.0 s" in content
    assert main(["status", str(folder.path)]) == 0
    assert f"Time so far: {seconds_of(story).in_words}" in " ".join(capsys.readouterr().out.split())
