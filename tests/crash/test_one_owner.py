"""One process owns a run folder; who comes second changes nothing and is told at once who is at work."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stored_runs import config_of, content, run, unsynced

from msft.core.errors import RunError
from msft.record.run_folder import RunFolder
from msft.report.summary import summarise
from msft.system.files import Operation


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with unsynced():
        yield


def race(place: Path) -> tuple[list[str], float]:
    """Two processes begin the same run at the same moment: what became of each, and how long the loser took."""
    config = config_of("tick", place / "run")
    read_end, write_end = os.pipe()
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            os.close(write_end)
            os.read(read_end, 1)  # until the parent lets both go at once
            began, code = time.monotonic(), "failed"

            def slowly(operation: Operation) -> None:
                if operation.name == "loop.run":
                    time.sleep(0.02)

            try:
                run(config, observer=slowly)
                code = "won"
            except RunError as error:
                code = "refused" if "is using this folder" in str(error) else f"{error}"
            finally:
                (place / str(os.getpid())).write_text(f"{time.monotonic() - began} {code}")
                os._exit(0)
        children.append(child)
    os.close(read_end)
    os.close(write_end)
    told = []
    for child in children:
        os.waitpid(child, 0)
        told.append((place / str(child)).read_text().split(" ", 1))
    loser = max((float(seconds) for seconds, code in told if code == "refused"), default=0.0)
    return sorted(code for _, code in told), loser


def races(place: Path, count: int) -> float:
    run(config_of("tick", place / "run"))
    wanted = content(place / "run")
    slowest = 0.0
    for number in range(count):
        (place / "run").rename(place / f"done{number}")
        outcomes, seconds = race(place)
        assert outcomes == ["refused", "won"], outcomes
        assert content(place / "run") == wanted
        slowest = max(slowest, seconds)
    return slowest


def test_one_of_two_wins_and_the_other_changes_nothing(tmp_path: Path) -> None:
    assert races(tmp_path, 3) < 5


@pytest.mark.campaign
def test_two_hundred_races(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slowest = races(tmp_path, 200)
    with capsys.disabled():
        print(f"\n200 races, one owner each; the slowest loser was told after {slowest:.2f} s")
    assert slowest < 1


def test_reading_works_beside_a_running_search(tmp_path: Path) -> None:
    config = config_of("losses", tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    read = 0

    def reader(operation: Operation) -> None:
        nonlocal read
        if folder.exists and operation.kind != "stage":
            summarise(folder)
            read += 1

    run(config, observer=reader)
    assert read > 100
