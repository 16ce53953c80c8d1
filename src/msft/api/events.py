"""A run's progress as the events of transformers' callbacks."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from msft.api.config import MSFTConfig
from msft.core.errors import Stopped
from msft.core.vocabulary import Brief, Outcome, Segment, Task
from msft.engine.progress import ScoreInfo, StepInfo
from msft.report.trail import BRANCHES, Trail

log = logging.getLogger("msft")


class Events:
    """Watches a run: keeps a `TrainerState` and calls the callbacks.

    `state.global_step` counts all steps, discarded ones included, so that it never decreases; `state.epoch` is the
    position of the search, which decreases at a roll-back and after a candidate. In addition to transformers' events, a
    callback may have `on_exclusion(args, state, control, tasks=[...])` and `on_roll_back(args, state, control,
    epoch=..., from_epoch=...)`. A callback that sets `control.should_training_stop` ends the run as Ctrl-C does: after
    the current step, and it can be resumed.
    """

    def __init__(self, args: MSFTConfig, callbacks: Sequence[TrainerCallback | type[TrainerCallback]]) -> None:
        self.args = args
        # Instances or classes, as in transformers' trainer.
        self.callbacks = [callback() if isinstance(callback, type) else callback for callback in callbacks]
        self.state, self.control = TrainerState(logging_steps=args.logging_steps, log_history=[]), TrainerControl()
        self._trail: Trail | None = None
        self._known = 0
        self._losses: list[float] = []
        self._active: tuple[Task, ...] = ()
        self._segment: Segment | None = None

    @property
    def mean_loss(self) -> float:
        """The mean loss over all steps taken; 0 before the first."""
        return sum(self._losses) / len(self._losses) if self._losses else 0.0

    def call(self, event: str, **details: Any) -> None:
        for callback in self.callbacks:
            handler = getattr(callback, event, None)
            if handler is not None:
                handler(self.args, self.state, self.control, **details)

    def begin(self, brief: Brief, method: str) -> None:
        self._trail, self._active = Trail(brief), brief.tasks
        self.call("on_train_begin")
        self._scored(brief.base)

    def segment(self, number: int, segment: Segment) -> None:
        trail = self._begun
        self._segment = segment
        if number <= self._known:
            return  # recomputed: its snapshot was lost
        self.state.epoch = segment.epoch
        if segment.why in BRANCHES:
            return  # nothing is decided by it
        after = segment.mixture.active
        left = [task for task in self._active if task not in after]
        self._active = after
        if left:
            self.call("on_exclusion", tasks=left)
        if trail.goes_back(segment):
            tip, back = trail.points[trail.tip], trail.points[segment.parent]
            self.call("on_roll_back", epoch=back.epoch, from_epoch=tip.epoch)

    def progress(self, info: StepInfo | ScoreInfo) -> None:
        if isinstance(info, ScoreInfo):
            return
        segment = self._segment
        assert segment is not None, "a step belongs to a segment"
        state, steps = self.state, self._begun.clock.steps_per_epoch(segment.mixture)
        state.global_step += 1
        state.num_input_tokens_seen += info.tokens
        state.epoch = segment.epoch + (info.step - segment.start) / steps
        self._losses.append(info.loss)
        self.call("on_step_end")
        if state.global_step % self.args.logging_steps == 0:
            self._log({"loss": info.loss, "learning_rate": info.learning_rate})
        if self.control.should_training_stop:
            raise Stopped(signal.SIGINT)

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None:
        self._begun.add(number, segment, outcome)
        self._known = number
        if segment.makes:
            self.state.epoch = self._begun.end(segment)
            self.call("on_save")
        if outcome.scores:
            self._scored(outcome)

    def note(self, text: str) -> None:
        log.info(text)

    def _scored(self, outcome: Outcome) -> None:
        metrics = {f"eval_{task}": report for task, report in outcome.reports.items()}
        self.call("on_evaluate", metrics=metrics)
        self._log(metrics)

    def _log(self, values: dict[str, float]) -> None:
        entry = {**values, "epoch": self.state.epoch, "step": self.state.global_step}
        self.state.log_history.append(entry)
        self.call("on_log", logs=entry)

    @property
    def _begun(self) -> Trail:
        assert self._trail is not None, "begin comes first"
        return self._trail
