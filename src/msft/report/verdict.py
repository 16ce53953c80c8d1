"""The verdict on a run: whether its final model is better than the base model and than plain SFT, at what cost, and
what to do with it now (design 4). Page, terminal and model card begin with it.

The words follow the evidence: the interval of the change on the test split, and the standard error that it implies.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from msft.core.errors import RunError
from msft.core.plain_words import many
from msft.methods import IMPORTED, METHODS
from msft.record.run_folder import STUDY, RunFolder
from msft.report.base_and_answer import Comparison, compare, mean
from msft.report.cautions import CLEAR
from msft.report.cost import flops, plain
from msft.report.final_path import BY_RUN, discarded_share, final_path, same_model
from msft.report.intervals import Change, Interval
from msft.report.load_snippets import BITS, is_dora, quantized_in
from msft.report.several import Run, macro_gap, on_one_split
from msft.report.story import Story, read_story
from msft.report.words import clean, difference, epochs, in_epochs, mixed, percent, span

PLAIN = ("sft", "sft_average")
"""Names of runs of plain SFT, beside a run or in the same study."""
FREE = ("method.", *BY_RUN)
"""How the settings begin in which a method and the plain SFT that it is compared with may differ."""
PLACES = (".path", "model.name_or_path")
"""Where data and model lie: no difference if their content is the same."""
SEEDS = 6
"""Seeds of each method that a comparison needs: with fewer, no exact test can be significant."""


NOTHING = 0.0005
"""A change of less than this is shown as 0.0 points, whatever its interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one can do with a finished run: lines to copy."""

    name: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    gain: str
    """The final model against the base model, in one sentence."""
    more: tuple[str, ...]
    """Sentences: the sub-datasets, plain SFT, the cost."""
    steps: tuple[Step, ...]


def verdict(story: Story) -> Verdict | None:
    """The verdict on a finished run; None while it is in progress."""
    if story.answer is None:
        return None
    comparison = compare(story)
    other = None if story.outlook.plain else plain_beside(story)
    mean_of = mixed(row.measure for row in comparison.rows) if comparison.aggregate is None else []
    more = [
        *mean_of,
        _by_task(comparison),
        *([] if story.outlook.plain else _plain_sft(story, other)),
        _cost(story, other),
    ]
    return Verdict(gain=_gain(story, comparison), more=tuple(filter(None, more)), steps=tuple(steps(story)))


def judged(change: Change, than: str) -> str:
    """What the intervals of a change show, as the beginning of a sentence."""
    low, high = change.interval
    if low == high == 0 or (abs(change.value) < NOTHING and not low <= 0 <= high):
        return f"Level with {than}, to a tenth of a point"
    clear = change.shown(CLEAR)
    if low > 0:
        return f"Clearly better than {than}" if clear else f"Better than {than}, on weak evidence"
    if high < 0:
        return f"Clearly worse than {than}" if clear else f"Worse than {than}, on weak evidence"
    if change.value > 0:
        return f"Perhaps better than {than}, not shown"
    if change.value < 0:
        return f"Not shown to be better than {than}, more likely worse"
    return f"Not shown to differ from {than}"


def _gain(story: Story, comparison: Comparison) -> str:
    macro, of = comparison.macro, ""
    if comparison.aggregate is not None:
        macro, of = comparison.aggregate, f" of {clean(comparison.aggregate.label)}"
    if story.answer is story.base:
        return "Nothing was gained: the final model is the untrained base model."
    change = macro.difference
    if change is None or not math.isfinite(change):
        return "Not known whether it is better than the base model: an average score is missing or is not a number."
    moved = f"{difference(change)} points on the {comparison.split} split{of}, from {percent(macro.base)} to "
    moved += percent(macro.answer)
    if comparison.refit and not of:
        return (
            f"Not tested: the model that the search chose changed by {moved}. The final model was trained on these "
            "rows too, so nothing was measured on it. For a score of it, give a test split."
        )
    if comparison.split == "validation":
        return f"Not tested: {moved}. The run chose its final model by these scores, so expect less on new data."
    moved += "" if of else _of_all(len(comparison.rows), len(story.entries), comparison.unit)
    if macro.change is None:
        return f"{_direction(change)} the base model, without an interval that shows it: {moved}."
    return f"{judged(macro.change, 'the base model')}: {moved} {_interval(macro.change.interval)}."


def _of_all(tested: int, every: int, unit: str) -> str:
    return f", on {tested} of {many(every, unit)}" if tested < every else ""


def _direction(change: float) -> str:
    return "Better than" if change > 0 else "Worse than" if change < 0 else "Equal to"


def _interval(interval: Interval) -> str:
    return f"(95 % interval of the change: {span(*interval)})"


def _by_task(comparison: Comparison) -> str:
    """How many sub-datasets changed beyond the noise of their items; empty where that is not known."""
    spans = [row.interval for row in comparison.rows if row.interval is not None]
    if len(spans) < len(comparison.rows) or len(spans) < 2:
        return ""
    up, down = sum(low > 0 for low, _ in spans), sum(high < 0 for _, high in spans)
    return f"Of {many(len(spans), comparison.unit)}, {up} {_are(up)} shown to be better and {down} to be worse."


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _plain_sft(story: Story, other: Run | None) -> Iterable[str]:
    if other is None:
        yield _teacher(story) or "It was not compared with plain SFT."
    else:
        yield against_plain(Run(name="", story=story), other)


def _teacher(story: Story) -> str:
    """A first run that teaches is plain SFT of the same job; it has validation scores, and no test scores."""
    first, last = story.plain_first, story.chosen
    if first is None or last is None or last is story.base or story.answer is None:
        return ""
    if last.snapshot in story.teachers:
        whose = "The model that the run on all rows follows" if story.refit else "Its final model"
        return (
            f"{whose} is of its first run, plain SFT of the same job: the second run, which the first taught, was not "
            "better on validation."
        )
    names, what = story.tasks, "validation average"
    if story.aggregate is not None:
        names, what = (story.aggregate,), f"validation score of {clean(story.aggregate)}"
    was, now = (mean([point.reports.get(name) for name in names]) for point in (first, last))
    which = "the model that the run on all rows follows" if story.refit else "the final model"
    chosen = " (both chosen by these items)" if story.brief.select == "best" else ""
    return (
        f"Its first run, the teacher, is plain SFT of the same job: its {what} is {percent(was)}, that of {which} "
        f"{percent(now)}{chosen}."
    )


def against_plain(run: Run, other: Run) -> str:
    """What the test items show about the final models of a run and of plain SFT, in two sentences."""
    run, other = on_one_split([run, other])
    found, than = macro_gap(run, other), "plain SFT with the same seed and data"
    if same_model(run.story, other.story):
        which = (
            "the base model" if run.story.answer is run.story.base else f"at epoch {epochs(run.story.best_known.epoch)}"
        )
        method = clean(str(run.story.header.get("method", "")))
        return f"Its final model is the same as that of {than}: {which}. On this seed, {method} changed nothing."
    if found.difference is None or not math.isfinite(found.difference):
        return "It was not compared with plain SFT: the two have no scores in common."
    part = _of_all(len(run.scores), len(run.names), run.story.unit(run.split))
    moved = f"{difference(found.difference)} points on the {run.split} split{part}"
    if run.split == "validation":
        return f"Not tested against {than}: {moved}, by which both chose their final models."
    if found.change is None:
        said = f"{_direction(found.difference)} {than}, without an interval that shows it: {moved}."
    else:
        said = f"{judged(found.change, than)}: {moved} {_interval(found.change.interval)}."
    return f"{said} One seed compares two models, not two methods."


def _cost(story: Story, other: Run | None) -> str:
    spent, estimated = sum(flops(story).values()), plain(story)
    said = _discarded(story)
    if other is not None and (counted := sum(flops(other.story).values())):
        plainly = f"that plain SFT of {in_epochs(other.story.tip.epoch)}"
        return f"The run used {spent / counted:.2f} times the compute of {plainly}.{said}"
    if estimated is not None and estimated.total:
        return f"The run used {spent / estimated.total:.2f} times the compute of {estimated.name} (estimate).{said}"
    return said.strip()


def _discarded(story: Story) -> str:
    """How much of the compute left no trace in the final model; empty if it is less than 1 %, or for plain SFT."""
    share = 0.0 if story.outlook.plain else discarded_share(story, final_path(story))
    what = "training (and its evaluations) that is not in the final model"
    return f" Of its compute, {share:.0%} was spent on {what}." if share >= 0.01 else ""


def plain_beside(story: Story) -> Run | None:
    """The finished run of plain SFT that this run can be compared with: the same job with the same seed.

    It is `sft` in the same folder (as in a quickstart), or `sft` or `sft_average` in the same study. If both are there,
    the one with averaged weights is for a run with averaged weights.
    """
    here = story.folder.path.absolute()
    study = _study(here)
    places = [here.parent / PLAIN[0], *(study / "runs" / name / here.name for name in PLAIN if study)]
    found = [other for place in places if place != here and (other := _plain_run(place, story)) is not None]
    averaged = bool(story.config.get("training.average"))
    found.sort(key=lambda run: bool(run.story.config.get("training.average")) is not averaged)
    return found[0] if found else None


def _plain_run(place: Path, story: Story) -> Run | None:
    """None if there is no such run, or it is another job."""
    folder = RunFolder(place)
    if not folder.exists:
        return None
    try:
        other = read_story(folder)
    except RunError:  # it is damaged: this run's own records are whole
        return None
    return Run(name=place.name, story=other) if is_plain_sft_of(other, story) else None


def is_plain_sft_of(other: Story, story: Story) -> bool:
    """Whether `other` is a finished run of plain SFT, of the same job with the same seed."""
    marks = [each.header.get("fingerprints") for each in (other, story)]
    same = _job(other) == _job(story) and other.brief.seed == story.brief.seed and marks[0] == marks[1]
    return other.answer is not None and other.outlook.plain and same


def _job(story: Story) -> dict[str, object]:
    """The settings that must be equal. Paths need not be: the fingerprints say whether model and data are the same, and
    the Python API writes objects into each run's own folder."""
    return {key: value for key, value in story.config.items() if not key.startswith(FREE) and not key.endswith(PLACES)}


def _study(run: Path) -> Path | None:
    """The folder of the study that a run belongs to."""
    study = run.parent.parent.parent
    return study if run.parent.parent.name == "runs" and (study / STUDY).is_file() else None


def steps(story: Story) -> Iterable[Step]:
    """Commands to copy, with the paths as they were given."""
    folder = story.folder
    if story.answer is None:
        again = f"msft train {shlex.quote(clean(str(folder.path)))} --resume{_imports(story)}"
        yield Step(name="Continue it, unless a process is running it", lines=(again,))
        return
    config, place = shlex.quote(clean(str(folder.config))), shlex.quote(clean(str(folder.path)))
    if folder.final.is_dir():
        adapter = any(key.startswith("peft.") and value is not None for key, value in story.config.items())
        package, model = ("peft", "AutoPeftModelForCausalLM") if adapter else ("transformers", "AutoModelForCausalLM")
        load, given = [f"from {package} import {model}"], ""
        if quantized := quantized_in(story):
            load += ["from transformers import BitsAndBytesConfig", f"bits = {BITS[quantized]}"]
            given = ", quantization_config=bits"
        if is_dora(story):
            load.append("# not with AutoModelForCausalLM, which drops the magnitudes of a DoRA adapter")
        load.append(f"model = {model}.from_pretrained({clean(str(folder.final))!r}{given})")
        yield Step(name="Load it, in Python", lines=tuple(load))
    else:
        yield Step(
            name="Make its model, which it has not kept", lines=(f"msft train {config} --resume{_imports(story)}",)
        )
    yield Step(name=_question(story), lines=(compare_command(story),))
    yield Step(name="Export it", lines=(f"msft export {place}",))


def _question(story: Story) -> str:
    return "Compare it with mSFT" if story.outlook.plain else "Compare it with plain SFT, over several seeds"


def compare_command(story: Story) -> str:
    """The command that compares the method of a run with plain SFT, over several seeds."""
    if (study := _study(story.folder.path)) is not None:
        return f"msft report {shlex.quote(clean(str(study)))}"
    name = str(story.header.get("method", ""))
    averaged = name in METHODS and METHODS[name].averaged
    methods = f"msft,{name}" if story.outlook.plain else f"{name},{PLAIN[1] if averaged else PLAIN[0]}"
    config = shlex.quote(clean(str(story.folder.config)))
    # Methods are compared by the scores of sub-datasets, and by validation scores of final models.
    searched = " --set method.refit=false" if story.brief.whole is not None else ""
    searched += " --set aggregate=null" if story.aggregate is not None else ""
    return f"msft compare {config} --methods {shlex.quote(clean(methods))} --seeds {SEEDS}{searched}{_imports(story)}"


def _imports(story: Story) -> str:
    """The option that makes the run's method known, where this command had it."""
    module = IMPORTED.get(str(story.header.get("method", "")))
    return "" if module is None else f" --import {shlex.quote(clean(module))}"
