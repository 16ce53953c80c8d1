from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from accelerate import PartialState
from run_folders import NAMES, engine_for

from msft.core.errors import ConfigError, RunError
from msft.core.search import Search
from msft.core.vocabulary import Outcome, Segment
from msft.engine.progress import ScoreInfo, StepInfo
from msft.methods import METHODS
from msft.run.trackers import Trackers, check_trackers
from msft.testing.fake import brief_of

events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
Points = dict[str, list[tuple[int, float]]]


def run(
    folder: Path,
    *,
    tracker: str = "tensorboard",
    past: int = 0,
    stop: int = 10**6,
    again: tuple[int, ...] = (),
    replay: float = 0.1,
) -> list[tuple[Segment, Outcome]]:
    """A search as the trainer tells it: `past` segments replayed from the journal, some of them run again."""
    engine = engine_for(NAMES)
    brief = brief_of(engine, METHODS["msft"].Params(replay=replay))
    search = Search(METHODS["msft"], brief)
    trackers = Trackers([tracker], folder, "run", {"a.b": 1})
    trackers.begin(brief, "msft")
    done: list[tuple[Segment, Outcome]] = []
    while (segment := search.ask()) is not None and len(done) < stop:
        number = search.number
        if number > past:
            trackers.segment(number, segment)
            steps(trackers, segment)
        outcome = engine.run(segment, number)
        search.tell(outcome)
        done.append((segment, outcome))
        if number > past:
            trackers.outcome(number, segment, outcome)
        elif number == past:
            trackers.resumed(done, finished=False)
        for n in again if number == past else ():
            trackers.segment(n, done[n - 1][0])
            steps(trackers, done[n - 1][0])
            trackers.outcome(n, *done[n - 1])
    if stop < 10**6 and segment is not None:  # killed in the middle of a segment that is then never journaled
        trackers.segment(len(done) + 1, segment)
        steps(trackers, segment)
    trackers.close()
    return done


def steps(trackers: Trackers, segment: Segment) -> None:
    for step in range(segment.start + 1, segment.stop + 1):
        trackers.progress(
            StepInfo(rollout=1, step=step, stop=segment.stop, loss=1 / step, learning_rate=1e-5, tokens=9)
        )
    trackers.progress(ScoreInfo(tasks=segment.score, done=1, total=1))


def read(folder: Path) -> Points:
    """Every scalar of every event file, in the order in which it was written."""
    points: Points = {}
    for file in sorted(folder.rglob("events.*"), key=lambda f: f.stat().st_mtime_ns):
        accumulator = events.EventAccumulator(str(file), size_guidance={"scalars": 0})
        accumulator.Reload()
        for tag in accumulator.Tags()["scalars"]:
            points.setdefault(tag, []).extend((e.step, e.value) for e in accumulator.Scalars(tag))
    return points


@pytest.mark.parametrize("replay", [0.1, 0.0])
def test_steps_count_all_compute_and_never_go_backwards(replay: float, tmp_path: Path) -> None:
    done = run(tmp_path, replay=replay)
    points = read(tmp_path)
    for tag, curve in points.items():
        at = [step for step, _ in curve]
        # A decision scores where the search came back to, at the step at which it did.
        assert at == sorted(at), tag
    total = sum(segment.stop - segment.start for segment, _ in done)
    assert [step for step, _ in points["train/loss"]] == list(range(1, total + 1))
    assert points["search/epoch"][-1][0] == total
    # A roll-back shows as a position that falls.
    epochs = [value for _, value in points["search/epoch"]]
    assert epochs != sorted(epochs)
    told = [value for _, value in points["control/arc"]]
    base = engine_for(NAMES).base().scores["arc"]
    assert told == pytest.approx([base, *(o.scores["arc"] for s, o in done if "arc" in o.scores)])
    assert points["control/arc"][0][0] == points["report/average"][0][0] == 0, "a curve begins at the base model"


@pytest.mark.parametrize("again", [(), (1, 2)])
def test_a_resumed_run_goes_on_as_the_same_run(again: tuple[int, ...], tmp_path: Path) -> None:
    run(tmp_path / "whole")
    run(tmp_path / "cut", stop=9)
    run(tmp_path / "cut", past=9, again=again)
    assert read(tmp_path / "cut") == read(tmp_path / "whole")


def check_one_run(told: list[tuple[int, float]], where: list[tuple[int, float]], total: int) -> None:
    assert [step for step, _ in told] == list(range(1, total + 1))
    steps = [step for step, _ in where]
    assert steps == sorted(steps)
    assert steps[-1] == total
    assert [epoch for _, epoch in where] != sorted(epoch for _, epoch in where)


def test_mlflow_is_told_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="no mlflow")
    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    run(tmp_path / "cut", tracker="mlflow", stop=9)
    done = run(tmp_path / "cut", tracker="mlflow", past=9)
    client = mlflow.MlflowClient()
    (found,) = [r for e in client.search_experiments() for r in client.search_runs([e.experiment_id])]
    assert found.data.params == {"a.b": "1"}
    assert found.info.status == "FINISHED"
    curves = [client.get_metric_history(found.info.run_id, tag) for tag in ("train/loss", "search/epoch")]
    told, where = ([(point.step, point.value) for point in curve] for curve in curves)
    check_one_run(told, where, sum(segment.stop - segment.start for segment, _ in done))


def test_trackio_is_told_of_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # which is read on import
    pytest.importorskip("trackio", reason="no trackio")
    PartialState(cpu=True)
    run(tmp_path / "cut", tracker="trackio", stop=9)
    done = run(tmp_path / "cut", tracker="trackio", past=9)
    with closing(sqlite3.connect(tmp_path / "trackio" / "msft.db")) as base:
        ((kept,),) = base.execute("select config from configs")
        rows = base.execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert json.loads(kept)["a.b"] == "1"
    assert len({name for name, _, _ in rows}) == 1
    told, where = (
        [(step, json.loads(values)[tag]) for _, step, values in rows if tag in json.loads(values)]
        for tag in ("train/loss", "search/epoch")
    )
    check_one_run(told, where, sum(segment.stop - segment.start for segment, _ in done))


def test_a_tracker_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("msft.run.trackers.get_available_trackers", list)
    with pytest.raises(ConfigError, match=r"training\.report_to: the package wandb is not installed\. Fix: pip"):
        check_trackers(["wandb"])


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"i'])
def test_a_damaged_record_of_the_run_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match=r"run\.json: this file cannot be read\. Fix: remove it"):
        Trackers(["tensorboard"], tmp_path, "run", {})
