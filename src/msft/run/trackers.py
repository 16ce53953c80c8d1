"""Logs a run to TensorBoard, Weights & Biases, trackio or MLflow, through Accelerate's trackers (`report_to`).

Their horizontal axis is the number of optimizer steps, discarded ones included: it never decreases, as these services
require; the position of the search is logged beside it (`search/epoch`). A segment is logged after it is journaled, so
that a run that was killed and resumed continues as the same run, and logs nothing twice.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker, get_available_trackers

from msft.core.clock import Clock
from msft.core.errors import ConfigError, RunError, complaint
from msft.core.vocabulary import Brief, Outcome, Segment
from msft.engine.progress import ScoreInfo, StepInfo
from msft.system import files

PROJECT = "msft"


def check_trackers(names: Sequence[str]) -> None:
    """Raises ConfigError where a tracker's package is not installed."""
    installed = {str(name) for name in get_available_trackers()}
    for name in names:
        if name not in installed:
            fix = f"pip install {name}, or leave it out"
            raise ConfigError(complaint(f"the package {name} is not installed", fix, field="training.report_to"))


class Trackers:
    """A `Watcher` that logs to trackers, for the main process. Call `close` at the end, after an error too.

    `folder` holds what makes a resumed run the same run in each tracker, and TensorBoard's files.
    """

    def __init__(self, names: Sequence[str], folder: Path, run: str, config: Mapping[str, Any]) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        self._file = folder / "run.json"
        fresh = not self._file.exists()
        self._run = {"id": uuid.uuid4().hex} if fresh else self._known_run()
        settings = {key: str(value) for key, value in config.items()}
        self._trackers = [self._start(name, folder, run, settings) for name in names]
        self._remember()
        for tracker in self._trackers if fresh else []:
            # TensorBoard would make a separate run of them; trackio keeps only what it gets at the start.
            if tracker.name not in ("tensorboard", "trackio"):
                tracker.store_init_configuration(settings)
        self._brief: Brief | None = None
        self._known, self._steps = 0, 0
        self._told: list[StepInfo] = []
        self._live = False
        """Whether anything of the current segment was trained or scored."""

    def _remember(self) -> None:
        files.replace("trackers", self._file, json.dumps(self._run).encode())

    def _known_run(self) -> dict[str, str]:
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
            return {"id": str(known["id"]), **{key: str(value) for key, value in known.items()}}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            fix = "remove it: the run then continues as a new one in its trackers"
            raise RunError(complaint("this file cannot be read", fix, file=self._file)) from None

    def _start(self, name: str, folder: Path, run: str, settings: Mapping[str, str]) -> GeneralTracker:
        options: dict[str, dict[str, Any]] = {
            "tensorboard": {"logging_dir": folder},
            "wandb": {"name": run, "id": self._run["id"], "resume": "allow", "dir": folder},
            "trackio": {"name": f"{run}-{self._run['id'][:8]}", "resume": "allow", "config": settings},
            "mlflow": {"run_name": run, "run_id": self._run.get("mlflow")},
        }
        tracker = LOGGER_TYPE_TO_CLASS[name](PROJECT, **options[name])
        tracker.start()
        if name == "mlflow":
            self._run["mlflow"] = tracker.tracker.info.run_id
        return tracker

    def begin(self, brief: Brief, method: str) -> None:
        self._brief = brief

    def resumed(self, past: Sequence[tuple[Segment, Outcome]], *, finished: bool) -> None:
        self._known, self._steps = len(past), sum(segment.stop - segment.start for segment, _ in past)

    def segment(self, number: int, segment: Segment) -> None:
        if number == 1 > self._known and "based" not in self._run:
            assert self._brief is not None, "begin comes first"
            self._log(self._scores(self._brief.base), 0)
            self._run["based"] = "yes"
            self._remember()
        self._told, self._live = [], False

    def progress(self, info: StepInfo | ScoreInfo) -> None:
        self._live = True
        if isinstance(info, StepInfo):
            self._told.append(info)

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None:
        if number <= self._known:
            return  # recomputed, because its snapshot was lost
        self._known, start = number, self._steps
        self._steps += segment.stop - segment.start
        for info in self._told:
            values = {"train/loss": info.loss, "train/learning_rate": info.learning_rate, "train/tokens": info.tokens}
            self._log(values, start + info.step - segment.start)
        if self._live:
            self._log(self._scores(outcome) | self._where(segment), self._steps)

    def note(self, text: str) -> None:
        """Ignored: trackers take numbers only."""

    def finish(self, test: Mapping[str, Mapping[str, float | None]]) -> None:
        """Logs the test scores of `base` and `answer`, at the last step, unless an earlier process has."""
        if "tested" in self._run:
            return
        self._log({f"test/{which}/{task}": v for which, scores in test.items() for task, v in scores.items()},
                  self._steps)  # fmt: skip
        self._run["tested"] = "yes"
        self._remember()

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.finish()

    def _scores(self, outcome: Outcome) -> dict[str, float | None]:
        assert self._brief is not None, "begin comes first"
        values: dict[str, float | None] = {f"control/{task}": score for task, score in outcome.scores.items()}
        values |= {f"report/{task}": score for task, score in outcome.reports.items()}
        if set(self._brief.tasks) <= outcome.reports.keys():
            values["report/average"] = fmean(outcome.reports[task] for task in self._brief.tasks)
        return values

    def _where(self, segment: Segment) -> dict[str, float | None]:
        assert self._brief is not None, "begin comes first"
        epoch = segment.epoch
        if segment.trains:  # where nothing is left to train, an epoch has no steps
            epoch += Clock.of(self._brief).epochs(segment.mixture, segment.stop - segment.start)
        return {
            "search/epoch": epoch, "search/rollout": segment.rollout, "search/active": len(segment.mixture.active)
        }  # fmt: skip

    def _log(self, values: Mapping[str, float | None], step: int) -> None:
        known = {name: value for name, value in values.items() if value is not None and math.isfinite(value)}
        for tracker in self._trackers if known else []:
            tracker.log(known, step=step)


class Several:
    """Passes every event to several watchers."""

    def __init__(self, *watchers: Any) -> None:
        self._watchers = watchers

    def begin(self, brief: Brief, method: str) -> None:
        for watcher in self._watchers:
            watcher.begin(brief, method)

    def resumed(self, past: Sequence[tuple[Segment, Outcome]], *, finished: bool) -> None:
        for watcher in self._watchers:
            watcher.resumed(past, finished=finished)

    def segment(self, number: int, segment: Segment) -> None:
        for watcher in self._watchers:
            watcher.segment(number, segment)

    def progress(self, info: StepInfo | ScoreInfo) -> None:
        for watcher in self._watchers:
            watcher.progress(info)

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None:
        for watcher in self._watchers:
            watcher.outcome(number, segment, outcome)

    def note(self, text: str) -> None:
        for watcher in self._watchers:
            watcher.note(text)
