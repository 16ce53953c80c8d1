"""A search as a table, for the live display of a run and for `msft status`, and as a line of a log."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.text import Text

from msft.core.outlook import Bound, Standing
from msft.core.refit import steps_of
from msft.core.vocabulary import Brief, Mixture, Outcome, Segment, Snapshot, Task
from msft.engine.progress import ScoreInfo, StepInfo
from msft.methods import outlook_of
from msft.report.rollouts import find_rollouts
from msft.report.table import plain_table
from msft.report.trail import ASIDE, BRANCHES, Trail, with_teachers
from msft.report.words import clean, decision, duration, epochs, percent
from msft.screen.pace import Pace, Scoring

BARS, ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-~=+*#"
NEARLY = 1.02
"""Steps of a roll-out are counted exactly, those that remain at most in examples: the last step of an epoch may be
smaller than others."""
SPARK_WIDTH, BESIDE = 24, 80
"""Evaluations that a curve shows at least, and the columns of a wide terminal that it leaves to the rest."""


class View:
    """The state of a search, updated segment by segment. For each sub-dataset: its part in the mixture, its latest and
    best search score, and its curve along the current trajectory. Also the current activity and the remaining time.
    """

    def __init__(self, brief: Brief, method: str, now: Callable[[], float]) -> None:
        self.method, self._now = clean(method), now
        self.trail = Trail(brief)
        self._name = method
        self.outlook = outlook_of(method, brief)
        self.mixture = Mixture(tasks=brief.tasks)
        self._active = brief.tasks
        """What the search trains, apart from candidates."""
        self.segment: Segment | None = None
        self.status = ""
        """The current activity other than training steps."""
        self.pace = Pace()
        self._scoring = Scoring()
        self._ended = False
        """Whether the outcome of the latest segment is known: what is scored before the next one is the test split."""
        self.seconds_per_step: float | None = None
        """The speed if no steps are reported (`msft status`)."""
        self.bound: Bound | None = None
        self.decided = ""
        """The last decision, in words."""
        self.recovering = False
        """Segments with known outcomes are being run again."""
        self._past: list[tuple[Segment, Outcome]] = []

    @property
    def known(self) -> int:
        """The number of the last segment whose outcome is known."""
        return len(self._past)

    def begins(self, segment: Segment) -> str:
        """A new segment is about to run. Returns the decision that led to it, if any."""
        trail, searches, moves = self.trail, segment.why not in BRANCHES, segment.why not in ASIDE
        left = any(task not in segment.mixture.active for task in self._active)
        decided = ""
        taught = segment.teacher is not None and segment.start == 0
        if self._past and searches and (left or taught or trail.goes_back(segment)):
            # Given as a segment without training, it only closes the roll-out before it.
            closing = (replace(segment, stop=segment.start), trail.brief.base)
            known = with_teachers([*self._past, closing])
            ended = [r for r in find_rollouts(trail, known, self.outlook) if r.why not in BRANCHES or taught]
            if ended:
                self.decided = decided = decision(ended[-1])
        elif self._past and searches and self._decides_at(segment):
            self.decided = decided = (
                f"Roll-out {segment.rollout}, to epoch {epochs(segment.epoch)}: no sub-dataset is past its peak; "
                "nothing was excluded."
            )
        if segment.why == "refit":
            self.bound = None  # which was that of the search
            if not segment.trains:
                self.decided = decided = f"The search chose epoch {epochs(segment.epoch)}; now all rows are trained on."
        self.mixture, self.segment, self.status, self.recovering = segment.mixture, segment, "", False
        self._ended = False
        if moves:
            self._active = segment.mixture.active
        if segment.trains:
            if moves and (segment.start == 0 or self.bound is None):
                at = Standing(mixture=segment.mixture, rollout=segment.rollout, epoch=self._start(segment))
                self.bound = outlook_of(self._name, trail.brief, at).bound
            self.pace.begin(segment, self._steps(segment), self._now())
        return decided

    def _decides_at(self, segment: Segment) -> bool:
        """Whether a segment that continues its roll-out begins where the search had to decide."""
        if not (segment.trains and segment.start and self.outlook.decides and math.isfinite(self.outlook.rollout)):
            return False
        return segment.start % self.trail.clock.steps(segment.mixture, self.outlook.rollout) == 0

    def again(self, segment: Segment) -> None:
        """A segment with a known outcome is about to run again."""
        self.segment, self.status, self.recovering = segment, "", True
        self.pace.restart(self._now())

    def progress(self, info: StepInfo | ScoreInfo) -> None:
        """A step was taken, or more items were scored."""
        if isinstance(info, ScoreInfo):
            self._scoring.advance(info, self._now())
            if info.what:  # a teacher reads before the first step
                self.pace.restart(self._now())
            self.status = self._scoring.words(self._now(), "the test split" if self._ended else "")
        else:
            self.pace.advance(info, self._now())
            self.status = ""

    def ends(self, number: int, segment: Segment, outcome: Outcome) -> None:
        """The outcome of segment `number` is known."""
        self.trail.add(number, segment, outcome)
        if number > self.known:
            self._past.append((segment, outcome))
        self.status, self._ended = "", True

    def over(self) -> None:
        """The run has ended: clear the activity and the remaining time."""
        self.segment, self.bound, self.status, self.pace = None, None, "", Pace()

    def _start(self, segment: Segment) -> float:
        """Position at which the segment's roll-out began."""
        return segment.epoch - self.trail.clock.epochs(segment.mixture, segment.start)

    def _steps(self, segment: Segment) -> int:
        """The number of steps from a segment's start to the end of the roll-out; 0 if unknown."""
        if segment.why == "refit":
            return steps_of([made for made, _ in self._past], segment, self.trail.clock) - segment.start
        if segment.why in ASIDE:
            return segment.stop - segment.start
        left = min(self.outlook.rollout, self.trail.brief.horizon - segment.epoch)
        return self.trail.clock.steps(segment.mixture, left) if math.isfinite(left) else 0

    def curve(self, task: Task, end: Snapshot | None = None) -> list[float]:
        """Search scores along the path to a point; None: to the latest of the search."""
        path = self.trail.lineage(self.trail.tip if end is None else end)
        return [place.scores[task] for place in path if task in place.scores]

    def scores(self, outcome: Outcome | None = None) -> str:
        """Scores in one line: of an outcome, with the best so far where that is another, or of the latest point of the
        search."""
        tasks = [task for task in self.trail.brief.names if outcome is None or task in outcome.scores]
        curves = {task: self.curve(task, None if outcome is None else outcome.snapshot) for task in tasks}
        said = []
        for task, curve in curves.items():
            if curve:
                now, best = percent(curve[-1]), percent(_best(curve))
                said.append(f"{clean(task)} {now}" + (f" (best {best})" if outcome and best != now else ""))
        return "  ".join(said)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        bars = ASCII_BARS if options.ascii_only else BARS
        # A narrow terminal has no room for the curves.
        wide = options.max_width >= 72
        table = plain_table()
        table.add_column("sub-dataset", overflow="ellipsis", no_wrap=True)
        table.add_column("part", no_wrap=True)
        table.add_column("search score", justify="right")
        table.add_column("best", justify="right")
        if wide:
            table.add_column("so far", no_wrap=True)
        rows, hidden = self._rows(options.size.height)
        for task in rows:
            curve, (part, style) = self.curve(task), self._part(task)
            best = percent(_best(curve)) if curve else ""
            cells = [clean(task), part, percent(curve[-1]) if curve else "", best]
            if wide:
                cells.append(sparkline(curve[-max(SPARK_WIDTH, options.max_width - BESIDE) :], bars))
            table.add_row(*map(Text, cells), style=style)
        lines = [Text(f"and {hidden} more sub-datasets", style="dim")] if hidden else []
        said = (self._footline(), self._speed(), self._why(), self._at_most())
        lines += [Text(line, style="dim") for line in said if line]
        yield Group(Text(self._headline(), style="bold"), table, *lines)

    def _rows(self, height: int) -> tuple[Sequence[Task], int]:
        """The sub-datasets that fit on the screen, active ones preferred; and the number of those that do not fit."""
        tasks = self.trail.brief.names
        room = max(3, height - 11)
        if len(tasks) <= room:
            return tasks, 0
        chosen = sorted(tasks, key=lambda task: task not in self.mixture.active)[:room]
        return [task for task in tasks if task in chosen], len(tasks) - room

    def _part(self, task: Task) -> tuple[str, str]:
        """The part of a sub-dataset in the mixture, and the style of its row."""
        mixture = self.mixture
        if task == self.trail.brief.aggregate:
            return "chooses", ""
        if task not in mixture.tasks:
            # A method that trains one sub-dataset after another excludes none.
            return "excluded" if self.outlook.excludes else "not now", "dim"
        part = "" if (share := mixture.share(task)) == 1 else f" {share:.0%}"
        return (f"replayed{part}", "dim") if task in mixture.replayed else (f"active{part}", "")

    def _headline(self) -> str:
        return f"{self.method}  {self._place()}"

    def _place(self) -> str:
        """The roll-out, and the position in epochs."""
        trail, segment = self.trail, self.segment
        tip = trail.points[trail.tip]
        epoch = tip.epoch
        if segment is not None and segment.trains:
            done = max(0, self.pace.step - segment.start)
            epoch = segment.epoch + trail.clock.epochs(segment.mixture, done)
        limit = trail.brief.horizon
        of = f" of {epochs(limit)}" if math.isfinite(limit) else ""
        rollout = segment.rollout if segment is not None else tip.rollout
        # The last step may go a little beyond the limit.
        return f"roll-out {rollout}  epoch {epochs(min(epoch, limit))}{of}"

    def moment(self) -> str:
        """Where the search stands, as one line of a log."""
        parts = [self._place(), self._footline(), self._speed()]
        # None while what it ends with is scored.
        if not self._ends_here and (seconds := self._most_seconds()):
            parts.append(f"at most {duration(seconds)} left{'' if self.outlook.plain else ' in the search'}")
        return "  ".join(part for part in parts if part)

    def _footline(self) -> str:
        pace, segment, parts = self.pace, self.segment, []
        # The run on all rows is not planned as a whole: its end is known when it comes.
        planned = segment is None or segment.why != "refit"
        if pace.planned and segment is not None:
            parts.append(f"step {pace.step}/{pace.planned}" if planned else f"step {pace.step}")
        if pace.loss is not None:
            parts.append(f"loss {pace.loss:.3f}")
        left, most = pace.left(self._now()), self._most_seconds()
        if left and planned:  # none while the end of the roll-out is scored
            where = "" if self._ends_here else " in this roll-out"
            parts.append(f"{duration(left if most is None else min(left, most))} left{where}")
        if self.status:
            parts.append(self.status)
        return "  ".join(parts)

    def _speed(self) -> str:
        """Learning rate and tokens per second, of a search that trains."""
        pace, parts = self.pace, []
        if self.status:
            return ""
        if pace.learning_rate is not None:
            parts.append(f"learning rate {pace.learning_rate:.3g}")
        if pace.tokens_per_second is not None:
            parts.append(f"{pace.tokens_per_second:,.0f} tokens/s")
        return "  ".join(parts)

    def _why(self) -> str:
        """The decision at the end of the current roll-out."""
        segment = self.segment
        if segment is None or not segment.trains or not self.outlook.decides or not self.pace.planned or self._tests:
            return ""
        if segment.why == "candidate":
            return "A candidate for the final model; the search returns to where it was."
        if segment.why == "teacher":
            return "A first run, which teaches a second one."
        if segment.why == "refit":
            return "The run on all rows, with the times that the search found; nothing is scored or decided."
        end = self._start(segment) + self.trail.clock.epochs(segment.mixture, self.pace.planned)
        several = len(segment.mixture.active) > 1
        which = "sub-datasets that are past their peak are" if several else "the last sub-dataset, if past its peak, is"
        return f"At epoch {epochs(end)}: {which} excluded, and the model is restored to that peak."

    def _at_most(self) -> str:
        seconds = self._most_seconds()
        if self.bound is None or seconds is None:
            return ""
        of = "" if self.outlook.plain else " of the search"
        return f"maximum remaining time{of}: {duration(seconds)} ({self.bound.why})"

    @property
    def _tests(self) -> bool:
        """Whether the search is over and the test split is scored: nothing is decided any more."""
        return self._ended and bool(self.status)

    @property
    def _ends_here(self) -> bool:
        """Whether nothing can follow the current roll-out, as in plain fine-tuning."""
        steps = math.inf if self.bound is None else self.bound.instances / self.trail.brief.batch_size
        return steps <= NEARLY * self.pace.planned

    def _most_seconds(self) -> float | None:
        """Upper bound on the seconds that the search still takes; None if there is none, or before the first step."""
        if self._tests:
            return None
        each = self.pace.per_step(self._now()) or self.seconds_per_step
        if self.bound is None or each is None:
            return None
        return max(0.0, (self.bound.instances / self.trail.brief.batch_size - self.pace.step) * each)


def _best(curve: Sequence[float]) -> float:
    return max((score for score in curve if math.isfinite(score)), default=math.nan)


def sparkline(curve: Sequence[float], bars: str = BARS) -> str:
    """A curve as a row of bars from its lowest to its highest score; a non-finite score is a gap."""
    known = [score for score in curve if math.isfinite(score)]
    if not known:
        return " " * len(curve)
    low, high = min(known), max(known)
    span = high - low or 1.0
    return "".join(
        bars[round((score - low) / span * (len(bars) - 1))] if math.isfinite(score) else " " for score in curve
    )
