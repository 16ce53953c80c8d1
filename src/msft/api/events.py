"""A run's progress as the events of transformers' callbacks."""

from __future__ import annotations

import logging
import math
import signal
from collections.abc import Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from msft.api.config import MSFTConfig
from msft.api.given_callbacks import checked
from msft.core.errors import Stopped
from msft.core.vocabulary import Brief, Mixture, Outcome, Segment, Task
from msft.engine.progress import ScoreInfo, StepInfo
from msft.report.trail import BRANCHES, Trail

log = logging.getLogger("msft")


FLAGS = {
    "should_evaluate": "evaluations are those of the method; set how often with method_kwargs={'eval_every': ...}",
    "should_save": "each snapshot that the search may need is kept, and the final model",
    "should_epoch_stop": "set control.should_training_stop to end the run",
}
"""The flags of a `TrainerControl` that are not followed, and why."""


class Events:
    """Watches a run: keeps a `TrainerState` and calls the callbacks.

    `state.global_step` counts all steps, discarded ones included, so that it never decreases within a call of `train`;
    `state.epoch` is the position of the search, which decreases at a roll-back and after a candidate. `state.max_steps`
    is the number of steps of `max_epochs` on the whole mixture, 0 if there is no maximum; discarded steps come on top.
    In addition to transformers' events, a callback may have `on_exclusion(args, state, control, tasks=[...])` and
    `on_roll_back(args, state, control, epoch=..., from_epoch=...)`. A callback that sets `control.should_training_stop`
    ends the run as Ctrl-C does: after the current step, and it can be resumed.

    A resumed run begins with the state that its journal gives: the steps and tokens up to the last evaluation, and in
    `log_history` all evaluations, and the mean loss up to each of them. What happened then is not called again.
    """

    def __init__(
        self,
        args: MSFTConfig,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None,
        *,
        is_main: bool = True,
    ) -> None:
        self.args = args
        self.callbacks = checked(callbacks)
        self.control = TrainerControl()
        self.is_main = is_main
        self._unanswered: set[str] = set()
        self._past: Sequence[tuple[Segment, Outcome]] | None = None
        self._restart()

    def _restart(self) -> None:
        main = self.is_main
        self.state = TrainerState(logging_steps=self.args.logging_steps, log_history=[], is_world_process_zero=main)
        self._trail: Trail | None = None
        self._known = 0
        """Segments that were journaled."""
        self._means: list[tuple[int, float]] = []
        """(steps, their mean loss) of each journaled segment."""
        self._losses: list[float] = []
        """Of the steps of the current segment."""
        self._active: tuple[Task, ...] = ()
        self._segment: Segment | None = None
        """What is trained now; None while a lost snapshot is computed again."""

    @property
    def mean_loss(self) -> float:
        """The mean loss over all steps taken; 0 before the first."""
        means = [*self._means, *((1, loss) for loss in self._losses)]
        steps = sum(count for count, _ in means)
        return math.fsum(count * mean for count, mean in means) / steps if steps else 0.0

    def call(self, event: str, **details: Any) -> None:
        for callback in self.callbacks:
            handler = getattr(callback, event, None)
            if handler is not None:
                handler(self.args, self.state, self.control, **details)

    def expect(self, past: Sequence[tuple[Segment, Outcome]] | None) -> None:
        """The run that begins next is new (None), or continues after these segments."""
        self._past = past
        # As transformers does it: a stop that a callback asked for ended the training before this one.
        self.control.should_training_stop = self.control.should_epoch_stop = False

    def begin(self, brief: Brief, method: str) -> None:
        self._restart()
        self._trail, self._active = Trail(brief), brief.tasks
        if math.isfinite(brief.horizon):
            self.state.num_train_epochs = math.ceil(brief.horizon)
            self.state.max_steps = self._trail.clock.steps(Mixture(tasks=brief.tasks), brief.horizon)
        if self._past is None:
            self.call("on_train_begin")
            self._scored(brief.base)
            return
        self._note_scores(brief.base)
        for number, (segment, outcome) in enumerate(self._past, 1):
            self._replay(number, segment, outcome)
        self.call("on_train_begin")

    def _replay(self, number: int, segment: Segment, outcome: Outcome) -> None:
        """The state after a segment that an earlier process has run."""
        self._take(number, segment, outcome)
        self.state.global_step += segment.stop - segment.start
        self.state.num_input_tokens_seen += outcome.tokens.train
        if segment.why not in BRANCHES:
            self._active = segment.mixture.active
        if outcome.train_loss is not None:
            self._enter({"loss": outcome.train_loss})
        if outcome.scores:
            self._note_scores(outcome)

    def resumed(self, past: Sequence[tuple[Segment, Outcome]], *, finished: bool) -> None:
        """Known from `expect`: `on_train_begin` already sees the state after them."""

    def segment(self, number: int, segment: Segment) -> None:
        if number <= self._known:
            return
        trail = self._begun
        self._segment = segment
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
        if self._segment is not None:
            self._step(info, self._segment)
        if self.control.should_training_stop:
            raise Stopped(signal.SIGINT)

    def _step(self, info: StepInfo, segment: Segment) -> None:
        state, steps = self.state, self._begun.clock.steps_per_epoch(segment.mixture)
        state.global_step += 1
        state.num_input_tokens_seen += info.tokens
        state.epoch = segment.epoch + (info.step - segment.start) / steps
        self._losses.append(info.loss)
        self.call("on_step_end")
        if state.global_step % self.args.logging_steps == 0 or self.control.should_log:
            self._log({"loss": info.loss, "learning_rate": info.learning_rate})

        self._answer_flags()

    def _answer_flags(self) -> None:
        """Says once of each flag that a callback sets and that a search cannot follow; resets the flags of a step."""
        for flag, instead in FLAGS.items():
            if getattr(self.control, flag) and flag not in self._unanswered:
                self._unanswered.add(flag)
                log.warning("a callback set control.%s, which is not followed: %s", flag, instead)
            setattr(self.control, flag, False)
        self.control.should_log = False

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None:
        if number <= self._known:
            return
        self._take(number, segment, outcome)
        if segment.makes:
            self.call("on_save")
        if outcome.scores:
            self._scored(outcome)

    def _take(self, number: int, segment: Segment, outcome: Outcome) -> None:
        self._begun.add(number, segment, outcome)
        self._known, self._segment, self._losses = number, None, []
        if outcome.train_loss is not None:
            self._means.append((segment.stop - segment.start, outcome.train_loss))
        self.state.epoch = self._begun.end(segment) if segment.makes else segment.epoch

    def note(self, text: str) -> None:
        # Where nobody has set up logging, its last resort is standard error, which has the note already.
        if self.is_main and (self.args.disable_tqdm or log.hasHandlers()):
            log.warning("%s", text)

    def _scored(self, outcome: Outcome) -> None:
        self.call("on_evaluate", metrics=_metrics(outcome))
        self._log(_metrics(outcome))

    def _note_scores(self, outcome: Outcome) -> None:
        self._enter(_metrics(outcome))

    def _log(self, values: dict[str, float]) -> None:
        self.call("on_log", logs=dict(self._enter(values)))

    def _enter(self, values: dict[str, float]) -> dict[str, float]:
        entry = {**values, "epoch": self.state.epoch, "step": self.state.global_step}
        self.state.log_history.append(entry)
        return entry

    @property
    def _begun(self) -> Trail:
        assert self._trail is not None, "begin comes first"
        return self._trail


def _metrics(outcome: Outcome) -> dict[str, float]:
    return {f"eval_{task}": report for task, report in outcome.reports.items()}
