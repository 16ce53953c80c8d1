"""Progress of a run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from msft.cli.view import View
from msft.core.vocabulary import Brief, Outcome, Segment
from msft.engine.progress import ScoreInfo, StepInfo
from msft.report.words import clean, epochs


class Display:
    """Shows the progress of a run: the trainer's `Watcher`, and a context manager. It only reads.

    On a terminal: a live table (see `View`). Elsewhere (a log file, a pipe): one plain line per evaluation and
    decision, without control codes.
    """

    def __init__(self, console: Console | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(stderr=True)
        self._now = now
        self._live: Live | None = None
        self._view: View | None = None
        self._status = "preparing"
        """The activity before the search begins."""

    def __enter__(self) -> Display:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(self, console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leaves the last state of the table on the screen, without remaining times."""
        self._status = ""
        if self._view is not None:
            self._view.status = ""
            if kind is None:
                self._view.over()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begin(self, brief: Brief, method: str) -> None:
        """The base model has been scored and the search begins.

        A resumed run reports its earlier segments again, without the steps.
        """
        self._view = View(brief, method, self._now)
        if self._live is None:
            limit = brief.horizon
            span = f"at most {epochs(limit)} epochs" if math.isfinite(limit) else "no limit on epochs"
            base = f"base model  {self._view.scores()}"
            self._line(f"{self._view.method}: {len(brief.tasks)} sub-datasets, {span}; {base}")

    def segment(self, number: int, segment: Segment) -> None:
        """Segment `number` is about to run."""
        view = self._known_view
        if number <= view.known:
            if not view.recovering:
                self._line(f"repeating training from segment {number}: a snapshot that is needed is not stored")
            view.again(segment)
        elif decided := view.begins(segment):
            self._line(f"decision  {decided}")

    def progress(self, info: StepInfo | ScoreInfo) -> None:
        """A step was taken, or more items were scored."""
        if self._view is not None:
            self._view.progress(info)
        elif isinstance(info, ScoreInfo):
            self._status = f"scoring the base model: {info.done}/{info.total}"

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None:
        """Segment `number` has been written to the journal."""
        view = self._known_view
        view.ends(number, segment, outcome)
        if self._live is None and segment.blend:
            where = f"roll-out {segment.rollout}  epoch {epochs(segment.epoch)}  mean of {len(segment.blend)} snapshots"
            self._line(f"{where}  {view.scores(outcome)}".rstrip())
        if self._live is None and segment.trains:
            loss = "" if outcome.train_loss is None else f"  loss {outcome.train_loss:.3f}"
            step = f"step {segment.stop}/{view.pace.planned}"
            where = f"roll-out {segment.rollout}  epoch {epochs(view.trail.end(segment))}  {step}{loss}"
            self._line(f"{where}  {view.scores(outcome)}".rstrip())

    def note(self, text: str) -> None:
        """A message for the user."""
        self._line(clean(text))

    @property
    def _known_view(self) -> View:
        assert self._view is not None, "begin must be called first"
        return self._view

    def _line(self, text: str) -> None:
        # In a log file a line is not wrapped; a Text is never interpreted as mark-up.
        self.console.print(Text(text), soft_wrap=self._live is None)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._view if self._view is not None else Text(self._status, style="dim")
