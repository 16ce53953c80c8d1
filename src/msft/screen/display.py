"""Progress of a run: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderResult
from rich.live import Live
from rich.text import Text

from msft.config.schema import Config
from msft.core.plain_words import many
from msft.core.vocabulary import Brief, Outcome, Segment
from msft.engine.progress import ScoreInfo, StepInfo
from msft.report.words import blended, clean, epochs, in_epochs
from msft.screen.console import new_console
from msft.screen.pace import Scoring
from msft.screen.view import View

EVERY = 60.0
"""Seconds between two lines of a log that say where a run stands."""


def live_on(console: Console, shown: ConsoleRenderable, *, transient: bool = False) -> Live | None:
    """Starts to draw something again and again; None where a console cannot do that, and gets plain lines."""
    if not console.is_terminal or console.is_dumb_terminal or console.quiet:
        return None
    # What others print to standard output appears above the table, unless it goes elsewhere, where it stays.
    live = Live(
        shown, console=console, refresh_per_second=4, transient=transient, redirect_stdout=sys.stdout.isatty()
    )  # fmt: skip
    live.start()
    return live


def local_time() -> datetime:
    return datetime.now().astimezone()


class Minutes:
    """Says when the next line of a log is due, and begins it with the local time."""

    def __init__(self, now: Callable[[], float] = time.monotonic, clock: Callable[[], datetime] = local_time) -> None:
        self._now, self._clock = now, clock
        self._said = now()

    def due(self) -> bool:
        """Whether a line may be said again; the caller then says it."""
        if self._now() - self._said < EVERY:
            return False
        self._said = self._now()
        return True

    def dated(self, text: str) -> str:
        return f"{self._clock():%Y-%m-%d %H:%M:%S}  {text}"


def plan_of(config: Config) -> str:
    """What a run is going to do, in one line."""
    count, limit = len(config.datasets), config.method.max_epochs
    tasks = many(count, "sub-dataset")
    span = "" if limit is None else f", {_at_most(limit)}"
    return clean(f"{config.method.name}: {config.model.name_or_path} on {tasks}{span}, into {config.output}")


def _at_most(limit: float) -> str:
    return f"at most {in_epochs(limit)}"


class Display:
    """Shows the progress of a run: the trainer's `Watcher`, and a context manager. It only reads.

    On a terminal: a live table (see `View`). Elsewhere (a log file, a pipe, a notebook): one plain line per evaluation
    and decision, and at most one a minute on what runs, without control codes.
    """

    def __init__(
        self,
        console: Console | None = None,
        now: Callable[[], float] = time.monotonic,
        *,
        plan: str = "",
        clock: Callable[[], datetime] = local_time,
    ) -> None:
        """`plan`: what the run is going to do, shown while it prepares. `now`, `clock`: the clocks of a test."""
        self.console = console or new_console(stderr=True)
        self._now, self._plan = now, plan
        self._minutes = Minutes(now, clock)
        self._live: Live | None = None
        self._view: View | None = None
        self._base = Scoring()
        self._status = f"{plan}\npreparing data and model" if plan else "preparing"
        """The activity before the search begins."""

    def __enter__(self) -> Display:
        self._live = live_on(self.console, self)
        if self._live is None and self._plan:
            self._line(self._minutes.dated(f"{self._plan}; preparing data and model"))
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
        """The base model has been scored and the search begins."""
        self._view = View(brief, method, self._now)
        if self._live is None:
            limit = brief.horizon
            span = _at_most(limit) if math.isfinite(limit) else "no limit on epochs"
            base = f"search score of the base model: {self._view.scores()}"
            self._line(f"{self._view.method}: {many(len(brief.tasks), 'sub-dataset')}, {span}; {base}")

    def resumed(self, past: Sequence[tuple[Segment, Outcome]], *, finished: bool) -> None:
        """Says where the run goes on; of what was shown before, only the curves are drawn again."""
        view = self._known_view
        for number, (segment, outcome) in enumerate(past, 1):
            view.begins(segment)
            view.ends(number, segment, outcome)
        recorded = many(sum(bool(outcome.scores) for _, outcome in past), "recorded evaluation")
        if finished:
            self._line(f"finished already, after {recorded}; nothing new is trained")
        elif not past:
            self._line("continues at the beginning: only the scores of the base model are recorded")
        else:
            last, _ = past[-1]
            where = f"epoch {epochs(view.trail.end(last))} of roll-out {last.rollout}"
            self._line(self._minutes.dated(f"continues at {where}, after {recorded}; search score: {view.scores()}"))

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
            if self._live is None and self._minutes.due():
                self._line(self._minutes.dated(self._view.moment()))
        elif isinstance(info, ScoreInfo):
            begins = self._base.advance(info, self._now())
            self._status = self._base.words(self._now(), "the base model")
            if self._live is None and (begins or self._minutes.due()):
                self._line(self._minutes.dated(self._status))

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None:
        """Segment `number` has been written to the journal."""
        view = self._known_view
        view.ends(number, segment, outcome)
        if self._live is not None or not (segment.trains or segment.blend):
            return
        parts = [f"roll-out {segment.rollout}", f"epoch {epochs(view.trail.end(segment))}"]
        if segment.blend:
            parts.append(blended(segment))
        if segment.trains:
            parts.append(f"step {segment.stop}/{view.pace.planned}")
            parts += [] if outcome.train_loss is None else [f"loss {outcome.train_loss:.3f}"]
        if scores := view.scores(outcome):
            parts.append(f"search score: {scores}")
        self._line("  ".join(parts))

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
