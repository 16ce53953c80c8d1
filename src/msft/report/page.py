"""report.html of one run, section by section (design 4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msft.core.errors import RunError, complaint
from msft.core.plain_words import many
from msft.record.run_folder import RunFolder
from msft.report.base_and_answer import compare
from msft.report.cautions import cautions
from msft.report.charts import compute_figure, disk_figure, time_figure
from msft.report.downloads import links
from msft.report.figures import Curves
from msft.report.final_path import FinalPath, final_path
from msft.report.gains import gains_of, sentences
from msft.report.heat_map import heat_map
from msft.report.html import Section, axis, document, flat, items, numbered_line, pairs, plot, soft, table, text
from msft.report.lanes import circled, in_path, lane_figure, numbered
from msft.report.outputs import outputs
from msft.report.plots import MANY, Figure
from msft.report.seconds import run_facts, seconds_of
from msft.report.story import Story, read_story
from msft.report.sub_datasets import rows_table
from msft.report.table import cost_line, costs, headline, model_name, notes, smoothing
from msft.report.training_curves import training_figures
from msft.report.verdict_views import verdict_html
from msft.report.words import TEACHER, decision, decision_in_short, decisions, epochs, scaled, without_secrets
from msft.system import files

SCORES_KEY = (
    "A change is blue or orange where its 95 % interval does not hold 0, and grey elsewhere. ✕: excluded from this "
    "epoch on. A fall is that of the search score from its peak, in points, ± its standard error; it is clear if it is "
    "more than two of them. ≤: an upper bound, from the number of validation items alone."
)
MOST_NAMES = 3
"""A decision that excludes more sub-datasets is folded."""
HEAT_KEY = (
    "Colour: search score minus that of the base model, in points. Pale: within two standard errors, where they are "
    "known. A column is as wide as the training before its evaluation. Empty: not scored. Grey: discarded. Yellow: "
    "final model. With the figure in focus, the arrow keys move from cell to cell."
)
CURVES_KEY = (
    "Grey and dotted: discarded. ✕: excluded from training here. {star} Band: one standard error from the "
    "validation items, where it is known. All have the same scale. With a figure in focus, the arrow keys move from "
    "point to point."
)
SMOOTH_KEY = " Thick: the mean over several evaluations, in which peaks are found; thin: each evaluation."


def write_page(folder: RunFolder, out: Path, *, refresh: int | None = None) -> None:
    """Write the page of a run, finished or not, to the file `out`. Raises RunError if a file cannot be used."""
    story = read_story(folder)
    save(page(story, story.header.get("environment", {}), refresh=None if story.answer else refresh), out)


def save(content: str, out: Path) -> None:
    """Write a page. Raises RunError if it cannot be written."""
    try:
        files.replace("page", out, content.encode())
    except OSError as error:
        fix = "name a file in an existing folder with write permission"
        raise RunError(complaint(f"the page cannot be written ({error.strerror})", fix, file=out)) from None


def page(story: Story, environment: Mapping[str, Any], *, refresh: int | None = None) -> str:
    """The page as text."""
    curves, path = Curves(story), final_path(story)
    sections = [_cautions(story), _scores(story, path), _timeline(story, path), _curves(story, curves)]
    sections += [
        _headroom(story),
        outputs(story),
        _training(story, curves),
        _cost(story),
        _settings(story),
    ]
    intro = verdict_html(story) + _facts(story, environment)
    said = [section for section in sections if section.content]
    return document(headline(story), intro, said, unit=curves.unit, refresh=refresh)


def _facts(story: Story, environment: Mapping[str, Any]) -> str:
    model = story.header.get("model", {})
    facts = [
        *run_facts(story, environment),
        ("Model", model_name(story)),
        ("Parameters without embeddings", scaled(model.get("parameters", 0), "").strip()),
        ("Method", story.header.get("method", "")),
        ("Sub-datasets", len(story.tasks)),
        *([("Data sets", len(story.entries))] if story.groups else []),
        *([("Chosen by", story.aggregate)] if story.aggregate is not None else []),
        ("Training examples", _examples(story)),
        *([("Training examples per epoch", f"{sum(story.sizes):,}")] if story.brief.pools else []),
        ("Batch size", story.brief.batch_size),
        ("Roll-outs", len({rollout.number for rollout in story.rollouts})),
        ("Seed", story.brief.seed),
    ]
    lines = "".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts card">{lines}</dl>'


def _examples(story: Story) -> str:
    held = sum(story.held)
    every = f"{sum(story.brief.distinct) + held:,}"
    return f"{every}, {held:,} of them held out in the search" if held else every


def _cautions(story: Story) -> Section:
    said = cautions(story, compare(story))
    content = f'<div class="card wary">{items(said)}</div>' if said else ""
    return Section(name="warnings", title="Warnings", content=content)


def _scores(story: Story, path: FinalPath) -> Section:
    comparison = compare(story)
    title = "Base model and final model" if story.answer else "Base model and the search so far"
    content = rows_table(story, path, comparison) + "".join(map(soft, notes(comparison)))
    return Section(name="scores", title=title, content=content + soft(SCORES_KEY))


def _kept(story: Story) -> str:
    return f"training that led to {'the final model' if story.answer else 'the latest point of the search'}"


def _taught(story: Story) -> str:
    return f" Violet: the {TEACHER}." if story.teachers else ""


def _timeline(story: Story, path: FinalPath) -> Section:
    caption = (
        f"An epoch is one pass over the active sub-datasets. Blue: {_kept(story)}. Grey: discarded.{_taught(story)} "
        "Dotted: an exclusion or a roll-back on this path. Yellow: final model. The numbers are those of the "
        "decisions below."
    )
    if story.answer is story.base:
        caption = "The final model is the base model: all training was discarded, and is under all compute spent."
    content = axis() + plot("lanes", "When each sub-dataset was trained", caption) + _decisions(story, path)
    return Section(name="timeline", title="Timeline", content=content, figures={"lanes": lane_figure(story)})


def _decisions(story: Story, path: FinalPath) -> str:
    """The decisions of the final path; those on discarded training are folded, with the same numbers."""
    kept, others = list[str](), list[str]()
    for number, rollout in numbered(story):
        short = decision_in_short(rollout) if len(rollout.excluded) > MOST_NAMES else ""
        line = numbered_line(circled(number), decision(rollout), short, name=f"decision{number}")
        (kept if in_path(path, rollout) else others).append(line)
    content = f'<ol class="numbered">{"".join(kept)}</ol>' if kept else ""
    if others:
        where = "not part of the final model" if story.answer else "on discarded training"
        count = f"{many(len(others), 'decision')} {where}"
        content += (
            f'<details id="others"><summary>{count}</summary><ol class="numbered">{"".join(others)}</ol></details>'
        )
    said = decisions(story)[len(kept) + len(others) :]
    if story.answer is not story.base:
        said.pop()  # it stands above, below the verdict
    if story.outlook.window > 1:
        said.append(smoothing(story.outlook.window))
    return content + "".join(map(soft, said))


def _curves(story: Story, curves: Curves) -> Section:
    many = len(story.tasks) > MANY
    figures: dict[str, Figure] = {"average": curves.average()}
    star = "★: chosen by the search." if story.refit else "★: final model."
    # The curve is the macro-average; its best point need not be the one that was chosen.
    other = f" Chosen by: {story.selecting}." if story.brief.average == "micro" and story.aggregate is None else ""
    average = plot(
        "average", "Average score of all sub-datasets",
        f"Only points where every sub-dataset was scored. Circle: rolled back to this point. {star}{other}",
        "Average of all sub-datasets",
    )  # fmt: skip
    content = soft("Search scores on the validation split: the search acts on them. Higher is better.")
    if many:
        figures["heat"] = heat_map(story, curves.path)
        content += plot("heat", "Change of every search score against the base model", HEAT_KEY, "All sub-datasets")
    key = (
        f"Solid: {_kept(story)}. "
        + (f"Dash-dotted: the {TEACHER}. " if story.teachers else "")
        + CURVES_KEY.format(star=star)
        + (SMOOTH_KEY if curves.window > 1 else "")
    )
    cards = []
    for i, task in enumerate(story.tasks):
        figures[f"curve{i}"] = curves.single(task)
        cards.append(plot(f"curve{i}", f"Score curve of {task}", title=task))
    if story.aggregate is not None:
        figures["aggregate"] = curves.aggregate(story.aggregate)
        title = f"Score curve of {story.aggregate}, which chose the final model"
        caption = f"Only points that could become the final model were scored. {star}"
        average = plot("aggregate", title, caption, story.aggregate) + average
    small = f'{average}{soft(key)}<div class="grid">{"".join(cards)}</div>'
    if many:
        head = f"Curves: the average, and each of {len(cards)} sub-datasets"
        small = f'<details id="singles"><summary>{head}</summary>{small}</details>'
    data = f'<p class="soft">All scores: {links(story)}</p>'
    return Section(name="curves", title="Score curves", content=content + small + data, figures=figures)


def _headroom(story: Story) -> Section:
    """What reading each sub-dataset at its own best epoch would gain; empty where it was not recorded."""
    gains = gains_of(story)
    if gains is None:
        return Section(name="headroom", title="Headroom", content="")
    rows = [
        [task, epochs(gains.own[task]), "at the end of the run" if task in gains.unreached else ""]
        for task in story.tasks
    ]
    said = items(sentences(gains, decided=bool(story.explanations)))
    content = said + table(["sub-dataset", "best epoch", ""], rows, average=False)
    return Section(name="headroom", title="Headroom", content=content)


def _training(story: Story, curves: Curves) -> Section:
    found = training_figures(story, curves)
    plots = "".join(plot(name, title, title=title) for name, (title, _) in found.items())
    content = f'<div class="grid">{plots}</div>' if found else ""
    if found and len(story.tasks) > MANY:  # where the page is long, what says nothing of a sub-dataset is folded
        head = ", ".join(title if i == 0 else title.lower() for i, (title, _) in enumerate(found.values()))
        content = f'<details id="optimizer"><summary>{head}</summary>{content}</details>'
    return Section(
        name="training", title="Training", content=content,
        figures={name: made for name, (_, made) in found.items()},
    )  # fmt: skip


def _cost(story: Story) -> Section:
    labels = {
        "compute": ("Compute, against plain fine-tuning", compute_figure(story)),
        "time": ("Wall-clock time by activity", time_figure(story)),
        "disk": ("Snapshots held, against plain fine-tuning", disk_figure(story)),
    }
    drawn = {name: (title, made) for name, (title, made) in labels.items() if made is not None}
    plots = "".join(plot(name, title, title=title) for name, (title, _) in drawn.items())
    clock = seconds_of(story)
    spent = table(["activity", "parts", "time", "share"], clock.rows(), text_columns=2) if clock.total else ""
    details = f'{pairs(costs(story))}{spent}<div class="stack">{plots}</div>'
    return Section(
        name="cost", title="Cost",
        content=f'<p>{text(cost_line(story))}</p><details id="costs"><summary>Details</summary>{details}</details>',
        figures={name: made for name, (_, made) in drawn.items()},
    )  # fmt: skip


def _settings(story: Story) -> Section:
    trees = [
        ("Configuration", story.config),
        ("Environment", story.with_changes.get("environment", {})),
        ("Fingerprints", story.header.get("fingerprints", {})),
    ]
    parts = [(title, [(key, without_secrets(value)) for key, value in flat(tree)]) for title, tree in trees]
    content = "\n".join(
        f'<details id="{title.lower()}"><summary>{title} ({len(rows)})</summary>{pairs(rows)}</details>'
        for title, rows in parts
        if rows
    )
    again = soft("The same run again, with the file in this folder: msft train config.yaml --set output=ANOTHER_FOLDER")
    return Section(name="settings", title="Configuration and environment", content=content + again)
