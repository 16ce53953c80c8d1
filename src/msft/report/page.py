"""report.html: one self-contained page (DESIGN 4).

It asks the network for nothing, and its content security policy forbids it to; scripts run only if their hash is
known, so that nothing in a name can become one. Names are escaped wherever they appear.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from plotly.offline import get_plotlyjs

from msft import files
from msft.core.errors import RunError, complaint
from msft.report.assets import SCRIPT, STYLE
from msft.report.comparison import compare
from msft.report.figures import Figure, average_figure, curve_figure, lane_figure
from msft.report.story import Story, read_story
from msft.report.table import costs, headline, notes, shown_columns
from msft.report.words import clean, decisions, scaled
from msft.run import RunFolder


def write_page(folder: RunFolder, out: Path) -> None:
    """Write the page of a run, finished or not, to the file `out`. Raises RunError where a file cannot be used."""
    story = read_story(folder)
    content = page(story, story.header.get("environment", {}))
    try:
        files.replace("page", out, content.encode())
    except OSError as error:
        mend = "name a file in a folder that exists and that you may write to"
        raise RunError(complaint(f"the page cannot be written ({error.strerror})", mend, file=out)) from None


def page(story: Story, environment: Mapping[str, Any]) -> str:
    """The page as text."""
    figures = {"lanes": lane_figure(story), "average": average_figure(story)}
    figures |= {f"curve{i}": curve_figure(story, task) for i, task in enumerate(story.tasks)}
    library = get_plotlyjs()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {_hash(library)} {_hash(SCRIPT)}; "
        "base-uri 'none'; form-action 'none'"
    )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(headline(story))}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{_body(story, environment)}
</main>
<script type="application/json" id="figures">{embedded(figures)}</script>
<script>{library}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def embedded(figures: Mapping[str, Figure]) -> str:
    """JSON for a script element: no character in it can end the element or open another."""
    text = json.dumps(figures, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _text(value: object) -> str:
    return escape(clean(str(value)))


def _body(story: Story, environment: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            f"<h1>{_text(headline(story))}</h1>",
            f'<p class="soft">{_text(decisions(story)[-1])}</p>',
            _facts(story),
            _section("Base model and answer" if story.answer else "Base model and the search so far", _scores(story)),
            _section("What was trained when", _lanes()),
            _section("Score curves", _curves(story)),
            _section("What happened", _decisions(story)),
            _section("What it cost", _pairs(costs(story))),
            _section("Configuration and environment", _settings(story, environment)),
        ]
    )


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>"


def _facts(story: Story) -> str:
    model = story.header.get("model", {})
    facts = [
        ("Model", model.get("name", "")),
        ("Parameters without embeddings", scaled(model.get("parameters", 0), "").strip()),
        ("Method", story.header.get("method", "")),
        ("Sub-datasets", len(story.tasks)),
        ("Training examples", f"{sum(story.brief.sizes):,}"),
        ("Batch size", story.brief.batch_size),
        ("Roll-outs", len({rollout.number for rollout in story.rollouts})),
        ("Seed", story.brief.seed),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{_text(value)}</dd></div>" for name, value in facts)
    return f'<dl class="facts card">{items}</dl>'


def _scores(story: Story) -> str:
    comparison = compare(story)
    names, rows = shown_columns(story, comparison)
    change = names.index("change")
    lines = []
    for i, row in enumerate(rows):
        kind = ' class="average"' if i == len(rows) - 1 else ""
        lines.append(f"<tr{kind}>{''.join(_cell(cell, number == change) for number, cell in enumerate(row))}</tr>")
    head = "".join(f"<th>{_text(name)}</th>" for name in names)
    table = f'<table class="scores"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    said = "".join(f'<p class="soft">{_text(note)}</p>' for note in notes(comparison))
    return f'<div class="card wide">{table}</div>{said}'


def _cell(text: str, signed: bool) -> str:
    direction = {"+": "up", "−": "down"}.get(text[:1]) if signed else None
    return f'<td class="{direction}">{_text(text)}</td>' if direction else f"<td>{_text(text)}</td>"


def _plot(identifier: str) -> str:
    return f'<div class="plot" id="{identifier}"></div>'


def _lanes() -> str:
    caption = "An epoch is one pass over what was active. Dotted: an exclusion. Yellow: the answer."
    return f'<figure class="card">{_plot("lanes")}<figcaption>{caption}</figcaption></figure>'


def _curves(story: Story) -> str:
    key = (
        "Control scores on the validation split, on which the search acts. Line: the surviving trajectory. "
        "Dotted grey: rolled back. Cross: excluded from here on. Star: the answer."
    )
    average = (
        f'<figure class="card"><h3>Average of all sub-datasets</h3>{_plot("average")}'
        "<figcaption>Only where every sub-dataset was scored. Circle: rolled back to here.</figcaption></figure>"
    )
    small = "".join(
        f'<figure class="card"><h3>{_text(task)}</h3>{_plot(f"curve{i}")}</figure>'
        for i, task in enumerate(story.tasks)
    )
    return f'<p class="soft">{key}</p>{average}<div class="grid" style="margin-top:.9rem">{small}</div>'


def _decisions(story: Story) -> str:
    items = "".join(f"<li>{_text(line)}</li>" for line in decisions(story))
    smooth = f'<p class="soft">Peaks are read from means over {story.window} ticks.</p>' if story.window > 1 else ""
    return f"<ol>{items}</ol>{smooth}"


def _pairs(pairs: Iterable[tuple[str, object]]) -> str:
    rows = "".join(f"<tr><td>{_text(name)}</td><td>{_text(value)}</td></tr>" for name, value in pairs)
    return f'<div class="card wide"><table class="pairs"><tbody>{rows}</tbody></table></div>'


def _settings(story: Story, environment: Mapping[str, Any]) -> str:
    trees = [
        ("Configuration", story.header.get("config", {})),
        ("Environment", environment),
        ("Fingerprints", story.header.get("fingerprints", {})),
    ]
    parts = [(title, list(flat(tree))) for title, tree in trees]
    return "\n".join(
        f"<details><summary>{title} ({len(pairs)})</summary>{_pairs(pairs)}</details>"
        for title, pairs in parts
        if pairs
    )


def flat(tree: Mapping[str, Any], path: Sequence[str] = ()) -> Iterable[tuple[str, object]]:
    """Dotted keys and leaves of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, (*path, key))
        else:
            yield ".".join((*path, key)), value
