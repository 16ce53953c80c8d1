"""report.html of several runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from msft.core.plain_words import many
from msft.report.charts import stacked_flops
from msft.report.cost import flops, ledger
from msft.report.differing import settings_in_words
from msft.report.figures import Curves
from msft.report.html import Section, axis, document, items, plot, soft, table, text, toggles
from msft.report.page import save
from msft.report.plots import FADED, Figure, figure, ink, rows_of, shown, unit
from msft.report.several import MODELS_ONLY, Run, against, macro_gap, overview, scores, wary
from msft.report.table import print_line, print_table, rich_table
from msft.report.verdict import against_plain, is_plain_sft_of
from msft.report.words import TEACHER, clean, difference

SIDE_BY_SIDE = "side by side"
FIT = 4
"""At most this many runs have their scores shown side by side in a terminal; the page shows all."""
COUNTED = "Better / worse: number of sub-datasets that differ with p < 0.05, each tested separately."


def write_several(runs: Sequence[Run], out: Path) -> None:
    """Write the page of several runs. Raises RunError if it cannot be written."""
    per, name = unit(max(ledger(run.story)[-1] for run in runs), "FLOPs")
    sections = [_wary(runs), _overview(runs), _against(runs), _scores(runs), _curves(runs, (per, name)), _cost(runs)]
    said = [section for section in sections if section.content]
    intro = "".join(f'<p class="lead">{text(line)}</p>' for line in answers(runs))
    intro += soft(", ".join(run.name for run in runs))
    save(document(f"{many(len(runs), 'run')} {SIDE_BY_SIDE}", intro, said, unit=name), out)


def is_of_several(file: Path) -> bool:
    """Whether a file is a page that `write_several` wrote."""
    with file.open(encoding="utf-8", errors="replace") as opened:
        return f"{SIDE_BY_SIDE}</title>" in opened.read(4096)


def answers(runs: Sequence[Run]) -> list[str]:
    """Each finished run against the reference, in a few sentences, where that is plain SFT of the same job and seed."""
    reference, *others = runs
    found = [run for run in others if run.story.answer is not None and not run.story.outlook.plain]
    return [
        f"{clean(run.name)}: {against_plain(run, reference)}"
        for run in found
        if len(others) <= FIT and is_plain_sft_of(reference.story, run.story)
    ]


def render_several(runs: Sequence[Run], console: Console) -> None:
    """The part that fits in a terminal. Names are printed literally, never as mark-up."""
    names, rows = overview(runs)
    tables = [("Runs", (names[:7], [row[:7] for row in rows]), False)]
    if len(runs) > 1:
        tables.append((_against_title(runs), against(runs), False))
    if len(runs) <= FIT:
        tables.append((_scores_title(runs), scores(runs), True))
    for title, (heads, lines), average in tables:
        console.print(Text(title, style="bold"))
        print_table(console, rich_table(heads, lines, text_columns=1, average=average))
        if title == "Runs" and (said := settings_in_words(runs)):
            print_line(console, said)
        console.print()
    for line in _tests(runs) + wary(runs):
        print_line(console, line, "dim")


def _against_title(runs: Sequence[Run]) -> str:
    return f"{runs[0].split.capitalize()} average, difference to {clean(runs[0].name)} in points"


def _scores_title(runs: Sequence[Run]) -> str:
    return f"{runs[0].split.capitalize()} scores, in %"


def _tests(runs: Sequence[Run]) -> list[str]:
    """What one has to know of intervals and p-values, where there are any."""
    return [MODELS_ONLY, COUNTED] if len(runs) > 1 and runs[0].split == "test" else []


def _wary(runs: Sequence[Run]) -> Section:
    said = wary(runs)
    content = f'<div class="card wary">{items(said)}</div>' if said else ""
    return Section(name="warnings", title="Warnings", content=content)


def _overview(runs: Sequence[Run]) -> Section:
    names, rows = overview(runs)
    spread = soft("Spread: standard deviation over the sub-datasets, in points.")
    settings = f"<p>{text(said)}</p>" if (said := settings_in_words(runs)) else ""
    content = table(names, rows, text_columns=2, average=False) + settings + spread
    return Section(name="runs", title="Runs", content=content)


def _against(runs: Sequence[Run]) -> Section:
    if len(runs) < 2:
        return Section(name="against", title="", content="")
    names, rows = against(runs)
    sure = [(p := macro_gap(run, runs[0]).p) is not None and p < 0.05 for run in runs[1:]]
    content = table(names, rows, signed=[1], shown=sure, average=False) + "".join(map(soft, _tests(runs)))
    made = _forest(runs)
    content += plot("against", f"Difference of the {runs[0].split} average to {runs[0].name}, with 95 % intervals")
    return Section(name="against", title=text(_against_title(runs)), content=content, figures={"against": made})


def _forest(runs: Sequence[Run]) -> Figure:
    gaps = [macro_gap(run, runs[0]) for run in runs[1:]]
    known = [(g.difference, g.interval) if g.difference is not None and g.interval is not None else None for g in gaps]
    above = [100 * (g[1][1] - g[0]) if g else 0.0 for g in known]
    below = [100 * (g[0] - g[1][0]) if g else 0.0 for g in known]
    dots = {
        "type": "scatter", "mode": "markers", "hoverinfo": "text",
        "x": [None if gap.difference is None else round(100 * gap.difference, 3) for gap in gaps],
        "y": list(range(len(gaps))),
        "hovertext": [f"{shown(run.name)}: {difference(g.difference)}" for run, g in zip(runs[1:], gaps, strict=True)],
        "error_x": {
            "type": "data", "symmetric": False, "array": above, "arrayminus": below, "thickness": 1.4, "width": 4,
        },
        "marker": {"size": 10, "color": ink(0)[0]},
    }  # fmt: skip
    made = figure([dots], height=90 + 30 * len(gaps), x=f"difference to {shown(runs[0].name)}, points")
    made["layout"]["xaxis"]["rangemode"] = "normal"
    made["uprights"] = [{"at": [0, 0], "colour": FADED, "dash": "dash"}]
    return rows_of(made, [run.name for run in runs[1:]])


def _scores(runs: Sequence[Run]) -> Section:
    names, rows = scores(runs)
    return Section(name="scores", title=_scores_title(runs), content=table(names, rows))


def _curves(runs: Sequence[Run], per: tuple[float, str]) -> Section:
    traces = []
    for i, run in enumerate(runs):
        colour, dash = ink(i)
        curves = Curves(run.story, per)
        traces += [{**trace, "meta": i} for trace in curves.average_of(shown(run.name), colour, dash) if trace]
    made = figure(traces, height=400, y="average search score, %") | {"follows": True}
    key = soft("Average of the validation scores at points where every sub-dataset was scored. Faded: discarded.")
    taught = soft(f"Dash-dotted: the {TEACHER} of a run.") if any(run.story.teachers for run in runs) else ""
    chips = toggles([run.name for run in runs], "Runs")
    content = key + taught + axis() + chips + plot("together", "Average validation score of every run")
    return Section(name="curves", title="Average score", content=content, figures={"together": made})


def _cost(runs: Sequence[Run]) -> Section:
    made = stacked_flops({run.name: flops(run.story) for run in runs})
    return Section(
        name="cost", title="Compute", content=plot("compute", "FLOPs of every run"), figures={"compute": made}
    )
