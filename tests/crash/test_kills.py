"""Killed anywhere, a run that is resumed ends as if nothing had happened: journal, snapshots, model, summary."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from methods_of_every_word import OWN
from schedules import SCHEDULES
from stored_runs import METHODS, At, Kill, config_of, content, operations, run, unsynced

from msft import methods
from msft.config.schema import Config
from msft.record.journal import read
from msft.record.run_folder import RunFolder
from msft.system.files import Operation


@pytest.fixture(autouse=True, params=SCHEDULES)
def fake(request: pytest.FixtureRequest) -> Iterator[None]:
    with unsynced(SCHEDULES[request.param]):
        yield


def failpoints(seen: list[Operation]) -> list[tuple[int, bool]]:
    """The last arrival at every named point; of each write, torn as well."""
    last = {(operation.name, operation.kind): index for index, operation in enumerate(seen)}
    torn = [(index, True) for (_, kind), index in last.items() if kind in {"write", "append"}]
    return sorted([*((index, False) for index in last.values()), *torn])


def kill(config: Config, index: int, torn: bool = False) -> None:
    with pytest.raises(Kill):
        run(config, observer=At(index, Kill(), torn))


def killed_at_each(place: Path, config: Config, seen: list[Operation], points: list[tuple[int, bool]]) -> None:
    folder = place / "run"
    wanted = content(folder)
    folder.rename(place / "whole")
    for index, torn in points:
        kill(config, index, torn)
        _, notes = run(config)
        assert content(folder) == wanted, f"killed before {seen[index]}"
        assert all("removed an incomplete last record" in note for note in notes.said), notes.said
        shutil.rmtree(folder)


def test_killed_at_every_named_point(tmp_path: Path) -> None:
    """At the last arrival at each: of a run, and of the sidecars and memory of two others."""
    known: set[tuple[str, str]] = set()
    count = 0
    for kind in METHODS:
        (tmp_path / kind).mkdir()
        config = config_of(kind, tmp_path / kind / "run")
        seen = operations(config)
        points = [(i, torn) for i, torn in failpoints(seen) if (seen[i].name, seen[i].kind) not in known]
        killed_at_each(tmp_path / kind, config, seen, points)
        known |= {(operation.name, operation.kind) for operation in seen}
        count += len(points)
    assert len(known) >= 55 and count >= 65, (len(known), count)


@pytest.mark.campaign
@pytest.mark.parametrize("kind", METHODS)
def test_killed_at_every_operation(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = config_of(kind, tmp_path / "run")
    seen = operations(config)
    points = [(index, False) for index in range(len(seen))]
    points += [(index, True) for index, operation in enumerate(seen) if operation.kind in {"write", "append"}]
    killed_at_each(tmp_path, config, seen, points)
    with capsys.disabled():
        print(f"\n{kind}: {len(points)} kills, 0 differences")


@pytest.mark.parametrize("kind", [*METHODS, "averages", "soups", "teaches"])
def test_killed_while_it_recovers(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed, and killed again and again while it resumes, at places drawn at random.

    The last three kinds need snapshots beside the parent, of which a crash loses all that are not a roll-out's end.
    """
    if kind in OWN:
        monkeypatch.setitem(methods.METHODS, kind, OWN[kind])
        monkeypatch.setitem(METHODS, "rollout", {"name": kind, "max_epochs": 3, "eval_every": 0.5})
    whole = config_of("rollout" if kind in OWN else kind, tmp_path / "run")
    count = len(operations(whole))
    wanted = content(tmp_path / "run")
    draw = random.Random(5)
    kills = 0
    for _ in range(4):
        shutil.rmtree(tmp_path / "run")
        kill(whole, draw.randrange(count), draw.random() < 0.3)
        finished = False
        while not finished:
            try:
                run(whole, observer=At(int(draw.expovariate(1 / 25)), Kill(), draw.random() < 0.3))
                finished = True
            except Kill:
                kills += 1
        assert content(tmp_path / "run") == wanted
    assert kills >= 8, kills


def test_a_resumed_run_without_loss_trains_nothing_again(tmp_path: Path) -> None:
    """With every snapshot durable; where only roll-outs' ends are, what came since is run again, and no more."""
    for kind in ("tick", "rollout"):
        config = config_of(kind, tmp_path / kind)
        seen = operations(config)
        # The last but one segment has its record.
        index = [i for i, operation in enumerate(seen) if operation.name == "loop.settle"][-2]
        (tmp_path / kind).rename(tmp_path / f"{kind}-whole")
        kill(config, index)
        done = len(read(RunFolder(tmp_path / kind).journal, RunFolder(tmp_path / kind).sidecars).segments)
        again: list[Operation] = []
        _, notes = run(config, observer=again.append)
        recovered = sum(operation.name == "recover.run" for operation in again)
        assert recovered == 0 if kind == "tick" else 0 < recovered < done, (kind, recovered)
        assert max(notes.began) > done
