"""Building blocks of a page: sections with their figures, and the document around them (design 4).

The page makes no network requests, and its content security policy forbids them. A script runs only if its hash is
listed there, so that no name can become a script. Names are escaped wherever they appear.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import Any

from msft.report.assets import SCRIPT, STYLE
from msft.report.plots import Figure, ink
from msft.report.words import clean


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A titled part of a page."""

    name: str
    """Its anchor within the page: letters and dashes."""
    title: str
    content: str
    """HTML, in which everything that came from a run is escaped."""
    figures: Mapping[str, Figure] = field(default_factory=dict)
    """By the identifiers of the `plot` elements in `content`."""

    def __str__(self) -> str:
        return f'<section id="part-{self.name}">\n<h2>{self.title}</h2>\n{self.content}\n</section>'


def document(title: str, intro: str, sections: Sequence[Section], *, unit: str = "", refresh: int | None = None) -> str:
    """A whole page. `unit` is that of the compute axis; `refresh` is the reload interval of the browser in seconds."""
    from plotly.offline import get_plotlyjs  # imported here: the runs of a study write no page and work without plotly

    library = get_plotlyjs()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {_hash(library)} {_hash(SCRIPT)}; "
        "base-uri 'none'; form-action 'none'"
    )
    data = {"unit": unit, "figures": {name: f for section in sections for name, f in section.figures.items()}}
    links = "".join(f'<a href="#part-{section.name}">{section.title}</a>' for section in sections)
    again = f'<meta http-equiv="refresh" content="{refresh}">\n' if refresh else ""
    body = f"""<main>
<h1>{text(title)}</h1>
{intro}
<nav aria-label="Sections">{links}</nav>
{"".join(map(str, sections))}
<p id="said" class="unseen" aria-live="polite"></p>
</main>
<script type="application/json" id="figures">{embedded(data)}</script>
<script>{library}</script>
<script>{SCRIPT}</script>"""
    return skeleton(title, body, policy=policy, style=STYLE, head=again)


def skeleton(title: str, body: str, *, policy: str, style: str, head: str = "") -> str:
    """A page around its body; `policy`: the content that a browser may load; `head`: more elements of the head."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
{head}<title>{text(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def embedded(data: Mapping[str, Any]) -> str:
    """JSON for a script element: no character in it can end the element or start another."""
    content = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return content.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def text(value: object) -> str:
    """A value as escaped text."""
    return escape(clean(str(value)))


def plot(identifier: str, label: str, caption: str = "", title: str = "") -> str:
    """The element of a figure. `label` is its text for screen readers."""
    save = f'<button type="button" class="save" id="save-{identifier}" data-save="{identifier}">PNG</button>'
    head = f"<h3>{text(title)}</h3>" if title else ""
    foot = f"<figcaption>{text(caption)}</figcaption>" if caption else ""
    drawn = f'<div class="plot" id="{identifier}" tabindex="0" role="group" aria-label="{text(label)}"></div>'
    return f'<figure class="card">{save}{head}{drawn}{foot}</figure>'


def pairs(rows: Iterable[tuple[str, object]]) -> str:
    """A table of names and values."""
    lines = "".join(f'<tr><th scope="row">{text(name)}</th><td>{text(value)}</td></tr>' for name, value in rows)
    return f'<div class="card wide"><table class="pairs"><tbody>{lines}</tbody></table></div>'


def axis() -> str:
    """Radio buttons for the horizontal axis of every figure that has both axes."""
    choices = (("trajectory", "epochs of the final path"), ("compute", "all compute spent"))
    radios = "".join(
        f'<label><input type="radio" name="view" value="{i}" id="view-{name}"{"" if i else " checked"}>{words}</label>'
        for i, (name, words) in enumerate(choices)
    )
    return f'<fieldset class="axis"><legend>Horizontal axis</legend>{radios}</fieldset>'


def toggles(names: Sequence[str], legend: str) -> str:
    """A checkbox per name: it shows or hides the lines with this `meta` in the figure `together`."""

    def chip(i: int, name: str) -> str:
        colour, dash = ink(i)
        line = f'<span class="swatch" style="border-top:3px {_BORDERS[dash]} {colour}"></span>'
        return f'<label class="chip"><input type="checkbox" checked data-toggle="{i}">{line}{text(name)}</label>'

    buttons = '<button type="button" id="all">all</button><button type="button" id="none">none</button>'
    chips = "".join(chip(i, name) for i, name in enumerate(names))
    return f'<fieldset class="toggles"><legend>{legend}</legend>{buttons}{chips}</fieldset>'


_BORDERS = {"solid": "solid", "dash": "dashed", "dot": "dotted"}


def table(
    names: Sequence[str], rows: Sequence[Sequence[str]], *, signed: Sequence[int] = (), shown: Sequence[bool] = (),
    text_columns: int = 1, average: bool = True,
) -> str:  # fmt: skip
    """A table of numbers. The first `text_columns` columns are text; with `average`, the last row is the average.

    The columns in `signed` contain changes. They are coloured by sign in the rows where `shown` says that the change is
    shown by its interval, and not by sign alone.
    """
    head = "".join(f'<th scope="col"{_left(i < text_columns)}>{text(name)}</th>' for i, name in enumerate(names))
    lines = []
    for number, row in enumerate(rows):
        kind = ' class="average"' if average and number == len(rows) - 1 else ""
        first = f'<th scope="row">{text(row[0])}</th>'
        sure = number < len(shown) and shown[number]
        rest = "".join(_cell(cell, sure and i in signed, i < text_columns) for i, cell in enumerate(row) if i)
        lines.append(f"<tr{kind}>{first}{rest}</tr>")
    whole = f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody>"
    return f'<div class="card wide"><table class="scores">{whole}</table></div>'


def _left(is_word: bool) -> str:
    return ' class="word"' if is_word else ""


def _cell(content: str, signed: bool, is_word: bool) -> str:
    moved = content.strip("+−.0") != ""
    kind = {"+": "up", "−": "down"}.get(content[:1] if moved else "", "") if signed else "word" if is_word else ""
    return f'<td class="{kind}">{text(content)}</td>' if kind else f"<td>{text(content)}</td>"


def soft(sentence: str) -> str:
    return f'<p class="soft">{text(sentence)}</p>'


def items(sentences: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{text(line)}</li>' for line in sentences)}</ul>"


def numbered_line(number: str, sentence: str, short: str = "", *, name: str = "") -> str:
    """A list item with a number of its own. With `short`, the sentence is folded under that; `name`: its identifier."""
    head = f'<span class="number">{text(number)}</span> {text(short or sentence)}'
    if not short:
        return f"<li>{head}</li>"
    return f'<li><details id="{name}"><summary>{head}</summary><p>{text(sentence)}</p></details></li>'


def flat(tree: Mapping[str, Any], path: Sequence[str] = ()) -> Iterable[tuple[str, object]]:
    """Dotted keys and leaves of nested mappings."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, (*path, key))
        else:
            yield ".".join((*path, key)), value
