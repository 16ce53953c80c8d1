"""Journals written at version 0.1.0 still replay, read back to what is written today, and can be reported on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from msft.config.method_section import resolve
from msft.core.search import Search
from msft.core.vocabulary import Brief
from msft.core.wire import brief_from_json, brief_to_json, outcome_to_json, segment_to_json
from msft.record.journal import read
from msft.record.run_folder import RunFolder
from msft.report.page import write_page
from msft.report.summary import summarise

JOURNALS = Path(__file__).parent / "journals"
RUNS = sorted(path.name for path in JOURNALS.iterdir())


def brief_of(header: dict[str, Any]) -> Brief:
    params = type(resolve({"name": header["method"]}).params)(**header["brief"]["params"])
    return brief_from_json(header["brief"], params=params)


@pytest.mark.parametrize("run", RUNS)
def test_a_recorded_search_replays_to_its_answer(run: str) -> None:
    transcript = read(JOURNALS / run / "journal.jsonl", JOURNALS / run / "sidecars")
    header = transcript.header
    section = resolve({"name": header["method"]})
    brief = brief_of(header)
    search = Search(section.definition, brief, transcript.segments)
    assert search.ask() is None
    assert transcript.final is not None and search.answer == transcript.final["answer"]


@pytest.mark.parametrize("run", RUNS)
def test_what_is_written_today_is_what_was_recorded(run: str) -> None:
    lines = (JOURNALS / run / "journal.jsonl").read_text().splitlines()
    bodies = [json.loads(line)["body"] for line in lines]
    transcript = read(JOURNALS / run / "journal.jsonl", JOURNALS / run / "sidecars")
    assert brief_to_json(brief_of(transcript.header)) == bodies[0]["brief"]
    for (segment, outcome), body in zip(transcript.segments, bodies[1:-1], strict=True):
        assert segment_to_json(segment) == body["segment"]
        written = outcome_to_json(outcome)
        sidecars = {key for key in ("items", "losses") if written[key] is not None}
        assert {k: v for k, v in written.items() if k not in sidecars} == {
            k: v for k, v in body["outcome"].items() if k not in sidecars
        }


@pytest.mark.parametrize("run", RUNS)
def test_a_recorded_run_can_be_reported_on(run: str, tmp_path: Path) -> None:
    shutil.copytree(JOURNALS / run, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    assert summarise(folder)["answer"] is not None
    write_page(folder, folder.page)
    assert "<html" in folder.page.read_text()[:500]
