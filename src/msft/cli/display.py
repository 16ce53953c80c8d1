"""Progress while a run is on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from types import TracebackType

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from msft.core.vocabulary import Brief, Mixture, Outcome, Segment, Task
from msft.engine.progress import ScoreInfo, StepInfo
from msft.report.story import Trail
from msft.report.words import clean, duration, epochs, listed, percent

BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
SPARK_WIDTH = 24


class Display:
    """Shows a run to a person: the trainer's `Watcher`, and a context manager. Never changes anything.

    On a terminal a live table: for each sub-dataset its part in the mixture, its control score now and at best, and
    its curve along the surviving trajectory. Elsewhere (a log file, a pipe) one plain line per outcome and decision,
    without control codes.
    """

    def __init__(self, console: Console | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self.console = console or Console(stderr=True)
        self._now = now
        self._live: Live | None = None
        self._trail: Trail | None = None
        self._method = ""
        self._mixture = Mixture(tasks=())
        self._segment: Segment | None = None
        self._known = 0
        """The number of the last segment whose outcome is known."""
        self._progress = _Progress()
        self._status = ""

    def __enter__(self) -> Display:
        if self.console.is_terminal and not self.console.is_dumb_terminal:
            self._live = Live(self, console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """The run is over, or has failed; the last state of the table stays on the screen."""
        self._status = ""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def begin(self, brief: Brief, method: str) -> None:
        """The base model is scored; the search begins.

        A run that is resumed tells its past as it told it the first time, but for the steps.
        """
        self._method, self._mixture, self._status = clean(method), Mixture(tasks=brief.tasks), ""
        self._trail = Trail(brief)
        if self._live is None:
            span = f"at most {epochs(brief.horizon)} epochs" if math.isfinite(brief.horizon) else "no fixed end"
            self._line(f"{self._method}: {len(brief.tasks)} sub-datasets, {span}; base model  {self._scores()}")

    def segment(self, number: int, segment: Segment) -> None:
        """Segment `number` is about to run."""
        self._segment = segment
        if number <= self._known:
            self._line(f"running segment {number} again: its snapshot did not survive")
            return
        before, after = self._mixture.active, segment.mixture.active
        self._decision(segment, [task for task in before if task not in after])
        self._mixture = segment.mixture
        if segment.trains:
            self._progress.begin(segment, self._steps(segment), self._now())
        self._status = ""

    def progress(self, info: StepInfo | ScoreInfo) -> None:
        """A step was taken, or scoring went on."""
        if isinstance(info, ScoreInfo):
            names = clean(info.tasks[0]) if len(info.tasks) == 1 else f"{len(info.tasks)} sub-datasets"
            self._status = f"scoring {names}: {info.done}/{info.total}"
        else:
            self._progress.advance(info)
            self._status = ""

    def outcome(self, number: int, segment: Segment, outcome: Outcome) -> None:
        """Segment `number` is journaled."""
        trail = self._known_trail
        trail.add(number, segment, outcome)
        self._known, self._status = number, ""
        if self._live is None and segment.trains:
            loss = "" if outcome.train_loss is None else f"  loss {outcome.train_loss:.3f}"
            step = f"step {segment.stop}/{self._progress.planned}"
            where = f"roll-out {segment.rollout}  epoch {epochs(trail.end(segment))}  {step}{loss}"
            self._line(f"{where}  {self._scores(outcome)}".rstrip())

    def note(self, text: str) -> None:
        """Something that a person should read."""
        self._line(clean(text))

    @property
    def _known_trail(self) -> Trail:
        assert self._trail is not None, "begin comes first"
        return self._trail

    def _line(self, text: str) -> None:
        # soft_wrap: a line stays a line, whatever the width; a Text is never read as mark-up.
        self.console.print(Text(text), soft_wrap=True)

    def _decision(self, segment: Segment, excluded: Sequence[Task]) -> None:
        """A line where sub-datasets leave, or where the search leaves the point that it had reached."""
        trail = self._known_trail
        tip, back = trail.places[trail.tip], trail.places[segment.parent]
        parts = [f"excluded {listed(excluded)}"] if excluded else []
        if back.snapshot != tip.snapshot:
            parts.append(f"back to epoch {epochs(back.epoch)} from {epochs(tip.epoch)}")
        if parts:
            self._line(f"decision  {'; '.join(parts)}")

    def _steps(self, segment: Segment) -> int:
        """The steps that may be taken from a segment's start until the roll-out ends; 0 where nobody knows."""
        trail = self._known_trail
        left = min(getattr(trail.brief.params, "budget", math.inf), trail.brief.horizon - segment.epoch)
        return trail.clock.steps(segment.mixture, left) if math.isfinite(left) else 0

    def _curve(self, task: Task) -> list[float]:
        """Control scores along the path to where the search stands."""
        trail = self._known_trail
        return [place.scores[task] for place in trail.lineage(trail.tip) if task in place.scores]

    def _scores(self, outcome: Outcome | None = None) -> str:
        tasks = [task for task in self._known_trail.brief.tasks if outcome is None or task in outcome.scores]
        curves = {task: self._curve(task) for task in tasks}
        return "  ".join(
            f"{clean(task)} {percent(curve[-1])}" + (f" (best {percent(_best(curve))})" if outcome else "")
            for task, curve in curves.items()
            if curve
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if self._trail is None:
            yield Text(self._status, style="dim")
            return
        bars = ASCII_BARS if options.ascii_only else BARS
        # A narrow terminal has no room for the curves.
        wide = options.max_width >= 72
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, header_style="bold")
        table.add_column("sub-dataset", overflow="ellipsis", no_wrap=True)
        table.add_column("part", no_wrap=True)
        table.add_column("now", justify="right")
        table.add_column("best", justify="right")
        if wide:
            table.add_column("control score so far", no_wrap=True)
        for task in self._known_trail.brief.tasks:
            curve, (part, style) = self._curve(task), self._part(task)
            best = percent(_best(curve)) if curve else ""
            cells = [clean(task), part, percent(curve[-1]) if curve else "", best]
            if wide:
                cells.append(sparkline(curve[-SPARK_WIDTH:], bars))
            table.add_row(*map(Text, cells), style=style)
        yield Group(Text(self._headline(), style="bold"), table, Text(self._footline(), style="dim"))

    def _part(self, task: Task) -> tuple[str, str]:
        """The part of a sub-dataset in the mixture, and how its row is printed."""
        mixture = self._mixture
        if task not in mixture.tasks:
            return "excluded", "dim"
        share = 1.0 if mixture.shares is None else mixture.shares[mixture.tasks.index(task)]
        return ("active", "") if share == 1 else (f"replayed {share:.0%}", "dim")

    def _headline(self) -> str:
        trail = self._known_trail
        tip = trail.places[trail.tip]
        epoch = tip.epoch
        if self._segment is not None and self._segment.trains:
            done = max(0, self._progress.step - self._segment.start)
            epoch = self._segment.epoch + trail.clock.epochs(self._segment.mixture, done)
        of = f" of {epochs(trail.brief.horizon)}" if math.isfinite(trail.brief.horizon) else ""
        rollout = self._segment.rollout if self._segment is not None else tip.rollout
        return f"{self._method}  roll-out {rollout}  epoch {epochs(epoch)}{of}"

    def _footline(self) -> str:
        progress = self._progress
        parts = [f"step {progress.step}/{progress.planned}"] if progress.planned else []
        if progress.loss is not None:
            parts.append(f"loss {progress.loss:.3f}")
        left = progress.left(self._now())
        if left is not None:
            parts.append(f"{duration(left)} left in this roll-out")
        if self._status:
            parts.append(self._status)
        return "  ".join(parts)


class _Progress:
    """Where a roll-out stands, in steps, and how fast it goes."""

    def __init__(self) -> None:
        self.rollout = 0
        self.planned = 0
        """The step at which it is expected to end."""
        self.step = 0
        self.loss: float | None = None
        self._first = 0
        self._began = 0.0
        self._started: float | None = None
        """When the first segment began of which steps were told; None before."""

    def begin(self, segment: Segment, steps: int, now: float) -> None:
        """A segment of the roll-out begins; `steps` may be taken from its start, 0 where nobody knows."""
        if segment.rollout != self.rollout or segment.start == 0:
            self.rollout, self.planned, self._started = segment.rollout, 0, None
        if segment.stop > self.planned:
            self.planned = max(segment.stop, segment.start + steps)
        self.step, self._began = segment.start, now
        if self._started is None:
            self._first = segment.start

    def advance(self, info: StepInfo) -> None:
        self.step, self.loss = info.step, info.loss
        if self._started is None:
            self._started = self._began

    def left(self, now: float) -> float | None:
        """Seconds left at the pace so far, scoring included; None before the first step."""
        done = self.step - self._first
        return (
            (now - self._started) / done * (self.planned - self.step)
            if self._started is not None and done > 0
            else None
        )


def _best(curve: Sequence[float]) -> float:
    return max((score for score in curve if math.isfinite(score)), default=math.nan)


def sparkline(curve: Sequence[float], bars: str = BARS) -> str:
    """A curve as a row of bars from its lowest to its highest score; a score that is not finite leaves a gap."""
    known = [score for score in curve if math.isfinite(score)]
    if not known:
        return " " * len(curve)
    low, high = min(known), max(known)
    span = high - low or 1.0
    return "".join(
        bars[round((score - low) / span * (len(bars) - 1))] if math.isfinite(score) else " " for score in curve
    )
