"""Numbers and decisions as text for people."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from msft.core.plain_words import is_control, many
from msft.core.vocabulary import Segment
from msft.report.rollouts import Reading, Rollout
from msft.report.story import Story

MEASURES = {"choice": "accuracy", "exact_match": "exact match", "loss": "exp(−NLL)", "generate": "answer found"}
NOT_KNOWN = "–"
PREFIXES = ("", "k", "M", "G", "T", "P", "E")

TEACHER = "first run (teacher)"
"""The training of a model that teaches the final one: it is neither part of it nor discarded."""
MOST_NAMES = 8
"""Names in a sentence at most."""


def clean(text: str) -> str:
    """Remove control and formatting characters: no name can then move the cursor or reverse a line."""
    return "".join(c for c in text if not is_control(c))


def percent(score: float | None) -> str:
    """A score in [0, 1] in percent: 61.3."""
    return NOT_KNOWN if score is None or not math.isfinite(score) else f"{100 * score:.1f}"


def p_value(p: float | None) -> str:
    if p is None:
        return NOT_KNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def difference(score: float | None) -> str:
    """A difference of two scores, in percentage points, with its sign."""
    if score is None or not math.isfinite(score):
        return NOT_KNOWN
    return f"{100 * score:+.1f}".replace("-", "−")


def span(low: float | None, high: float | None) -> str:
    """An interval of a difference, in percentage points: −0.3 to +1.2."""
    return NOT_KNOWN if low is None or high is None else f"{difference(low)} to {difference(high)}"


def epochs(number: float) -> str:
    """1.25, 3, 0.07."""
    return f"{number:.2f}".rstrip("0").rstrip(".")


def in_epochs(number: float) -> str:
    """1 epoch, 2.5 epochs."""
    return f"{(count := epochs(number))} epoch{'' if count == '1' else 's'}"


def mixed(measures: Iterable[str]) -> list[str]:
    """Says that an average over sub-datasets is one of different measures, if it is."""
    found = list(dict.fromkeys(measures))
    return [f"The average is a mean of different measures: {', '.join(map(clean, found))}."] if len(found) > 1 else []


def scaled(number: float, unit: str) -> str:
    """Three significant digits and the SI prefix: 12.3 GB."""
    power = 0
    while abs(number) >= 999.5 and power < len(PREFIXES) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.3g} {PREFIXES[power]}{unit}" if abs(number) < 999.5 else f"{number:.0f} {PREFIXES[power]}{unit}"


def duration(seconds: float) -> str:
    """4 s, 12 min 5 s, 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def listed(names: Sequence[str]) -> str:
    """a, b and c; each cleaned."""
    shown = [clean(name) for name in names]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


def those(names: Sequence[str], total: int, unit: str = "sub-dataset") -> str:
    """Some of `total` sub-datasets; of many, not every name: a, b, ... and 12 more; all 21 sub-datasets."""
    if len(names) <= MOST_NAMES:
        return listed(names)
    if len(names) == total:
        return f"all {many(total, unit)}"
    return f"{', '.join(map(clean, names[:MOST_NAMES]))} and {len(names) - MOST_NAMES} more"


def measure_label(story: Story, task: str) -> str:
    name = story.measure(task).get("name", "")
    return MEASURES.get(name, clean(name) or "score")


def decision(rollout: Rollout) -> str:
    """The scores that a finished roll-out showed and the decision taken on them: one or two sentences."""
    place = f"Roll-out {rollout.number}, epoch {epochs(rollout.start.epoch)} to {epochs(rollout.end.epoch)}"
    if rollout.why == "candidate":
        return f"{place}: a candidate for the final model."
    if rollout.why == "teacher":
        return f"{place}: the {TEACHER}."
    if rollout.why == "refit":
        return f"{place}: the run on all rows, the held-out ones included."
    if rollout.excluded:
        read = "; ".join(map(_reading, rollout.readings))
        conclusion = f"Excluded: {listed(rollout.excluded)}{_whence(rollout)}."
        return f"{place}: {read}. {conclusion}" if read else f"{place}. {conclusion}"
    if rollout.rolled_back:
        return f"{place}: the search continued from epoch {epochs(rollout.went_on.epoch)}{_discarded(rollout)}."
    return f"{place}: {'nothing was excluded' if rollout.may_exclude else 'trained to the end'}."


def decision_in_short(rollout: Rollout) -> str:
    """The same without names and scores."""
    place = f"Roll-out {rollout.number}, epoch {epochs(rollout.start.epoch)} to {epochs(rollout.end.epoch)}"
    return f"{place}: {many(len(rollout.excluded), 'sub-dataset')} excluded{_whence(rollout)}."


def decisions(story: Story) -> list[str]:
    """One entry per roll-out, in the order in which they ran; then what the method says about them; the choice of the
    final model last."""
    done = [rollout for rollout in story.rollouts if story.answer or rollout.followed]
    where = f"the search is at epoch {epochs(story.tip.epoch)}"
    if story.refit_of is not None:
        where = f"the search chose epoch {epochs(story.refit_of.epoch)}, and the run on all rows is not over"
    last = answer(story) if story.answer else f"Not finished: {where}."
    return [*map(decision, done), *story.explanations, last]


def answer(story: Story) -> str:
    """Which point the search chose as the final model."""
    place = story.chosen
    assert place is not None, "only a finished run has a final model"
    rule = f"best {clean(story.selecting)}" if story.brief.select == "best" else "last point of the search"
    if place.snapshot == story.base.snapshot:
        return f"The final model is the untrained base model ({rule})."
    segment = story.segments[place.snapshot - 1][0]
    which = f"the {blended(segment)}" if segment.blend else "the one"
    if story.refit:
        return (
            f"The search chose epoch {epochs(place.epoch)} of roll-out {place.rollout} ({rule}). The final model was "
            f"then trained again from the base model, for the same epochs{_followed(story)}, on all rows: those that "
            "were held out for validation included. So it has no validation score of any sub-dataset."
        )
    return f"The final model is {which} at epoch {epochs(place.epoch)}, from roll-out {place.rollout} ({rule})."


def _followed(story: Story) -> str:
    """What the run on all rows took over from the search, beside its epochs."""
    again = [segment for segment, _ in story.segments if segment.why == "refit" and segment.trains]
    same = ["the same exclusions"] if any(set(each.mixture.active) != {*story.tasks} for each in again) else []
    same += ["the same teachers"] if any(each.teacher is not None for each in again) else []
    return f" and with {listed(same)}" if same else ""


def blended(segment: Segment) -> str:
    """What a blend is, such as "mean of 3 snapshots"."""
    return f"{'mean' if segment.ties is None else 'TIES merger'} of {many(len(segment.blend), 'snapshot')}"


def _reading(reading: Reading) -> str:
    if reading.measured is not None:
        return _smoothed(reading, *reading.measured)
    name, best = clean(reading.task), percent(reading.best)
    if not reading.peaked:
        return f"{name} had its best score at the end ({best})"
    at = f"{name} peaked at epoch {epochs(reading.best_epoch)} ({best})"
    if reading.end < reading.best:
        end = percent(reading.end)
        return f"{at} and fell {f'to {end}' if end != best else 'by less than 0.1'} by the end"
    return f"{at} and did not rise after it"


def _smoothed(reading: Reading, at_peak: float, at_end: float) -> str:
    """The same where the method decides on smoothed scores: those that were measured need not fall."""
    name, best = clean(reading.task), f"{percent(at_peak)} (smoothed {percent(reading.best)})"
    if not reading.peaked:
        return f"{name} had its best score at the end: {best}"
    end = f"{percent(at_end)} (smoothed {percent(reading.end)})"
    return f"{name} peaked at epoch {epochs(reading.best_epoch)} with {best} and ended with {end}"


def _whence(rollout: Rollout) -> str:
    if not rollout.rolled_back:
        return ""
    return f"; rolled back to epoch {epochs(rollout.went_on.epoch)}{_discarded(rollout)}"


def _discarded(rollout: Rollout) -> str:
    return f" ({in_epochs(rollout.rolled_back)} discarded)"


def without_secrets(value: object) -> object:
    """An address without what may be secret in it: the user's name and password, and the query, which may be a
    signature. Anything else as it is."""
    if not isinstance(value, str) or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", value):
        return value
    scheme, _, rest = value.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"
