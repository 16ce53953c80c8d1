"""Standard errors of search scores and of their differences, from the validation items (docs/statistics.md).

Where a run recorded the score of each item, differences are paired over the items. Elsewhere a score that is a mean of
values in [0, 1] has an upper bound, from the number of items alone; any other score has no known standard error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from msft.core.vocabulary import ROOT, Outcome, Snapshot, Task
from msft.report.rollouts import Reading
from msft.report.story import Story
from msft.report.words import NOT_KNOWN, difference, percent

EVIDENT = 2.0
"""Standard errors beyond which a difference is called clear."""


@dataclass(frozen=True, slots=True)
class Error:
    """One standard error, in the unit of the scores."""

    size: float
    at_most: bool = False
    """An upper bound, from the number of items."""

    def __str__(self) -> str:
        return f"± {'≤' if self.at_most else ''}{percent(self.size)}"


class Errors:
    """The standard errors of one run."""

    def __init__(self, story: Story) -> None:
        self.story = story
        self.sizes = dict(zip(story.tasks, story.brief.validation_sizes, strict=True))
        self.items: dict[tuple[Snapshot, Task], Sequence[float]] = {}
        self._add(ROOT, story.brief.base)
        for _, outcome in story.segments:
            self._add(outcome.snapshot, outcome)

    def _add(self, snapshot: Snapshot, outcome: Outcome) -> None:
        self.items |= {(snapshot, task): items for task, items in (outcome.items or {}).items()}

    def of(self, task: Task, here: Sequence[Snapshot], there: Sequence[Snapshot] = ()) -> Error | None:
        """That of the mean score at `here`, minus the mean at `there`; None if it is not known."""
        if all((snapshot, task) in self.items for snapshot in (*here, *there)):
            found = _spread(self._carried(task, here), self._carried(task, there) if there else None)
            if found:
                return Error(found)
        return self._bound(task, here, there)

    def fall(self, reading: Reading) -> Error | None:
        """That of the fall from the peak of a reading to its end."""
        return self.of(reading.task, reading.best_at, reading.end_at)

    def _carried(self, task: Task, snapshots: Sequence[Snapshot]) -> list[float]:
        """Per item, its part in the mean score of these snapshots: the score itself, or by the delta method."""
        columns = []
        for snapshot in snapshots:
            items, score = self.items[snapshot, task], self._score(snapshot, task)
            is_mean = math.isclose(fmean(items), score, abs_tol=1e-6)
            slope = 1.0 if is_mean else score  # else the score is the exponential of the mean
            columns.append([slope * item for item in items])
        return [fmean(values) for values in zip(*columns, strict=True)]

    def _bound(self, task: Task, here: Sequence[Snapshot], there: Sequence[Snapshot]) -> Error | None:
        """The scores as if they were shares of independent yes/no items: of all values in [0, 1], these vary most."""
        measure, items = self.story.measure(task), self.sizes[task]
        if items < 2 or not (measure.get("name") == "choice" or measure.get("control") == "report"):
            return None
        variance = 0.0
        for snapshots in (here, there):
            if snapshots:
                score = fmean(self._score(snapshot, task) for snapshot in snapshots)
                share = (items * score + 2) / (items + 4)  # at 0 and 1, the items do not prove that nothing varies
                variance += share * (1 - share) / items
        return Error(math.sqrt(variance), at_most=True) if math.isfinite(variance) and variance > 0 else None

    def _score(self, snapshot: Snapshot, task: Task) -> float:
        return self.story.trail.points[snapshot].scores[task]


def _spread(one: Sequence[float], other: Sequence[float] | None) -> float:
    """Standard error of the mean of `one`, or of `one - other`; 0 where it is not known."""
    gaps = one if other is None else [a - b for a, b in zip(one, other, strict=True)]
    if len(gaps) < 2 or not all(map(math.isfinite, gaps)):
        return 0.0
    centre = fmean(gaps)
    return math.sqrt(math.fsum((gap - centre) ** 2 for gap in gaps) / (len(gaps) - 1) / len(gaps))


def told_fall(reading: Reading, error: Error | None) -> str:
    """The fall on which an exclusion was decided: `1.6 ± 2.1, weak`."""
    fall = reading.best - reading.end
    if not reading.peaked or not math.isfinite(fall):
        return NOT_KNOWN
    size = difference(fall).lstrip("+")
    if error is None:
        return size
    return f"{size} {error}, {'clear' if fall > EVIDENT * error.size else 'weak'}"
