"""The loop: what is lost is recomputed, and a recomputation that differs is refused."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from msft.core.errors import Diverged, RunError
from msft.core.search import Search
from msft.core.vocabulary import Outcome, Segment
from msft.methods import METHODS
from msft.record.run_folder import RunFolder
from msft.run.loop import drive, needed
from msft.testing.fake import Curve, FakeEngine, brief_of

CURVES = {"a": Curve(peak=0.6), "b": Curve(peak=2.0), "c": Curve(peak=3.0)}
SIZES = {"a": 12, "b": 12, "c": 12}


class Killed(Exception):  # noqa: N818
    pass


def search_of(engine: FakeEngine, method: str, past: Sequence[tuple[Segment, Outcome]] = (), **params: Any) -> Search:
    return Search(METHODS[method], brief_of(engine, METHODS[method].Params(**params)), past)


def killed_after(
    count: int, method: str = "msft", kind: type[FakeEngine] = FakeEngine, **params: Any
) -> tuple[FakeEngine, list[tuple[Segment, Outcome]]]:
    engine = kind(CURVES, SIZES)
    journal: list[tuple[Segment, Outcome]] = []

    def record(_: int, segment: Segment, outcome: Outcome) -> None:
        journal.append((segment, outcome))
        if len(journal) == count:
            raise Killed

    with suppress(Killed):
        drive(search_of(engine, method, **params), engine, engine.store, record)
    engine.store.crash()
    return engine, journal


def test_only_what_a_crash_lost_is_run_again() -> None:
    engine, journal = killed_after(20)  # roll-out 2 has begun: its start is durable
    rollout = journal[-1][0].rollout
    assert rollout > 1
    first = next(i for i, (s, _) in enumerate(journal, 1) if s.rollout == rollout)
    engine.runs.clear()
    search = Search(METHODS["msft"], brief_of(engine, METHODS["msft"].Params()), journal)
    drive(search, engine, engine.store, lambda *_: None, past=journal)
    assert min(engine.runs) >= first
    assert engine.runs[: 20 - first] == list(range(first + 1, 21))


class Writes(FakeEngine):
    """Every third snapshot is durable when it is made, as where the disk is that fast."""

    def run(self, segment: Segment, number: int) -> Outcome:
        outcome = super().run(segment, number)
        if segment.makes and number % 3 == 0:
            self.store.durable.add(number)
        return outcome


@pytest.mark.parametrize(("method", "cut"), [("sft", 20), ("sft", 21), ("sft", 23), ("msft", 11), ("msft", 20)])
def test_the_latest_durable_tick_stays_on_disk_though_no_decision_needs_it(method: str, cut: int) -> None:
    """In a long roll-out too, a crash costs, for each snapshot that is needed, no more than the training since its
    nearest durable ancestor; the end leaves only the answer."""
    engine, journal = killed_after(cut, method, Writes)
    needs = needed(search_of(engine, method, journal))
    engine.runs.clear()
    answer = drive(search_of(engine, method, journal), engine, engine.store, lambda *_: None, past=journal)
    again = [number for number in engine.runs if number <= cut]
    assert len(again) <= 2 * len(needs) and (cut % 3 == 0 or again)
    for number in again:  # each is trained from a durable one, or from one that was trained again
        parent = journal[number - 1][0].parent
        assert parent % 3 == 0 or parent in again or journal[parent][0].rollout != journal[number - 1][0].rollout
    assert engine.store.held == {answer}


def test_a_recomputation_that_differs_is_refused() -> None:
    engine, journal = killed_after(20)
    segment, outcome = journal[-2]
    journal[-2] = (segment, replace(outcome, train_loss=0.123))
    search = Search(METHODS["msft"], brief_of(engine, METHODS["msft"].Params()), journal)
    with pytest.raises(Diverged, match=r"segment 19, run again,: .*train_loss was 0\.123"):
        drive(search, engine, engine.store, lambda *_: None, past=journal)


def test_one_owner(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.create()
    with folder.owned(), pytest.raises(RunError, match=r"process \d+ on .* is using"), RunFolder(folder.path).owned():
        pass
    with folder.owned():
        pass


def test_a_used_folder_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.check_free()
    with pytest.raises(RunError, match="holds no run to resume"):
        folder.check_resumable()
    for ours in (folder.config, folder.environment, folder.timings):
        ours.write_text("")  # what a run leaves that was killed while it scored the base model
    folder.check_free()
    (tmp_path / "thesis.txt").write_text("")
    with pytest.raises(RunError, match="not an empty folder"):
        folder.check_free()
    folder.journal.write_text("")
    with pytest.raises(RunError, match=r"already holds a run.*--resume"):
        folder.check_free()


@pytest.mark.parametrize(
    ("method", "params"),
    [("msft", {}), ("msft", {"budget": 1.0, "smooth": 1, "leave_within": 0.0}), ("sro", {}), ("continual", {})],
)
def test_a_crash_never_costs_more_than_the_rollout_that_it_falls_into(method: str, params: dict[str, Any]) -> None:
    """Even where no tick needs the roll-out's beginning any more, it is there to go on from. A roll-out that has
    scored its beginning, and trained nothing yet, is still part of the one before."""
    whole = killed_after(10**6, method, **params)[1]
    assert len({segment.rollout for segment, _ in whole}) > 1
    for count in range(1, len(whole), 3):
        engine, journal = killed_after(count, method, **params)
        engine.runs.clear()
        drive(search_of(engine, method, journal, **params), engine, engine.store, lambda *_: None, past=journal)
        rollout = next(segment.rollout for segment, _ in reversed(journal) if segment.trains)
        first = next(i for i, (segment, _) in enumerate(whole, 1) if segment.rollout == rollout)
        assert min(engine.runs) >= first, count
