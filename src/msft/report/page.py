"""report.html of one run, section by section (design 4)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msft.core.errors import RunError, complaint
from msft.record.run_folder import RunFolder
from msft.report.base_and_answer import compare
from msft.report.cautions import cautions
from msft.report.charts import change_figure, compute_figure, disk_figure, time_figure
from msft.report.figures import Curves
from msft.report.gains import gains_of, sentences
from msft.report.html import Section, axis, document, flat, items, pairs, plot, soft, table, text, toggles
from msft.report.lanes import lane_figure
from msft.report.plots import Figure
from msft.report.seconds import seconds_of
from msft.report.story import Story, read_story
from msft.report.table import costs, headline, notes, shown_columns, smoothing
from msft.report.verdict_views import verdict_html
from msft.report.words import decisions, epochs, scaled
from msft.system import files


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
    curves = Curves(story)
    sections = [_cautions(story), _scores(story), _lanes(story), _curves(story, curves), _happened(story)]
    sections.append(_headroom(story))
    sections += [_cost(story), _settings(story, environment)]
    intro = verdict_html(story) + _facts(story)
    said = [section for section in sections if section.content]
    return document(headline(story), intro, said, unit=curves.unit, refresh=refresh)


def _facts(story: Story) -> str:
    model = story.header.get("model", {})
    facts = [
        ("Model", model.get("name", "")),
        ("Parameters without embeddings", scaled(model.get("parameters", 0), "").strip()),
        ("Method", story.header.get("method", "")),
        ("Sub-datasets", len(story.tasks)),
        ("Training examples", f"{sum(story.brief.distinct):,}"),
        *([("Training examples per epoch", f"{sum(story.brief.sizes):,}")] if story.brief.pools else []),
        ("Batch size", story.brief.batch_size),
        ("Roll-outs", len({rollout.number for rollout in story.rollouts})),
        ("Seed", story.brief.seed),
    ]
    lines = "".join(f"<div><dt>{name}</dt><dd>{text(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts card">{lines}</dl>'


def _cautions(story: Story) -> Section:
    said = cautions(story, compare(story))
    content = f'<div class="card wary">{items(said)}</div>' if said else ""
    return Section(name="warnings", title="Warnings", content=content)


def _scores(story: Story) -> Section:
    comparison = compare(story)
    names, rows = shown_columns(story, comparison)
    title = "Base model and final model" if story.answer else "Base model and the search so far"
    label = f"{title}: {comparison.split} scores of every sub-dataset, with intervals of the change"
    whiskers = "Whiskers: 95 % interval of the change. Dashed: no change." if "95 % interval" in names else ""
    spans = [row.interval for row in (*comparison.rows, comparison.macro)]
    sure = [span is not None and span[0] * span[1] > 0 for span in spans]
    content = table(names, rows, signed=[names.index("change")], shown=sure, text_columns=2)
    content += "".join(map(soft, notes(comparison)))
    if story.answer is story.base:  # nothing has changed
        return Section(name="scores", title=title, content=content)
    content += plot("change", label, whiskers)
    drawn = change_figure(comparison, "final model" if story.answer else "so far")
    return Section(name="scores", title=title, content=content, figures={"change": drawn})


def _kept(story: Story) -> str:
    return f"training that led to {'the final model' if story.answer else 'the latest point of the search'}"


def _lanes(story: Story) -> Section:
    caption = (
        f"An epoch is one pass over the active sub-datasets. Blue: {_kept(story)}. Grey: discarded. Dotted: an "
        "exclusion or a roll-back on this path. Yellow: final model."
    )
    if story.answer is story.base:
        caption = "The final model is the base model: all training was discarded, and is under all compute spent."
    content = axis() + plot("lanes", "When each sub-dataset was trained", caption)
    return Section(name="lanes", title="What was trained when", content=content, figures={"lanes": lane_figure(story)})


def _curves(story: Story, curves: Curves) -> Section:
    key = (
        f"Search scores on the validation split: the search acts on them. Solid: {_kept(story)}. Grey and dotted: "
        "discarded. ✕: excluded from training here. Dotted vertical line: a decision on the solid path. ★ and yellow "
        "line: final model. With a figure in focus, the arrow keys move from point to point."
    )
    figures: dict[str, Figure] = {"together": curves.together(), "average": curves.average()}
    figures |= {f"curve{i}": curves.single(task) for i, task in enumerate(story.tasks)}
    small = "".join(
        plot(f"curve{i}", f"Score curve of {task}", title=task).replace("<figure", f'<figure data-task="{i}"', 1)
        for i, task in enumerate(story.tasks)
    )
    average = plot(
        "average", "Average score of all sub-datasets",
        "Only points where every sub-dataset was scored. Circle: rolled back to this point.",
        "Average of all sub-datasets",
    )  # fmt: skip
    content = (
        soft(key)
        + average
        + toggles(story.tasks, "Sub-datasets")
        + plot("together", "Score curves of all sub-datasets")
    )
    return Section(
        name="curves", title="Score curves", content=f'{content}<div class="grid">{small}</div>', figures=figures
    )


def _happened(story: Story) -> Section:
    smooth = soft(smoothing(story.outlook.window)) if story.outlook.window > 1 else ""
    return Section(name="decisions", title="What happened", content=items(decisions(story), ordered=True) + smooth)


def _headroom(story: Story) -> Section:
    """What reading each sub-dataset at its own best epoch would gain; empty where it was not recorded."""
    gains = gains_of(story)
    if gains is None:
        return Section(name="headroom", title="Headroom", content="")
    rows = [[task, epochs(gains.own[task]), "still rising" if task in gains.unreached else ""] for task in story.tasks]
    content = items(sentences(gains)) + table(["sub-dataset", "best epoch", ""], rows, average=False)
    return Section(name="headroom", title="Headroom", content=content)


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
    return Section(
        name="cost", title="What it cost", content=pairs(costs(story)) + spent + f'<div class="stack">{plots}</div>',
        figures={name: made for name, (_, made) in drawn.items()},
    )  # fmt: skip


def _settings(story: Story, environment: Mapping[str, Any]) -> Section:
    trees = [
        ("Configuration", story.config),
        ("Environment", environment),
        ("Fingerprints", story.header.get("fingerprints", {})),
    ]
    parts = [(title, list(flat(tree))) for title, tree in trees]
    content = "\n".join(
        f'<details id="{title.lower()}"><summary>{title} ({len(rows)})</summary>{pairs(rows)}</details>'
        for title, rows in parts
        if rows
    )
    return Section(name="settings", title="Configuration and environment", content=content)
