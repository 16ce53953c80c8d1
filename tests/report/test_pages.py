from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from rich.console import Console
from run_folders import make_run

from msft.cli.main import main
from msft.core.errors import RunError
from msft.methods import METHODS
from msft.report.base_and_answer import compare
from msft.report.cautions import cautions
from msft.report.cost import ledger
from msft.report.html import embedded
from msft.report.page import write_page
from msft.report.plots import short, unit
from msft.report.story import read_story
from msft.report.table import render_text

EVIL = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    '"><svg onload=alert(3)>',
    "[red]&lt;b&gt;%{x}[/red]\x1b[31m\u202e",
)


class Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.shown = ""
        self.in_script = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.in_script = tag == "script"
        if self.in_script:
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.in_script = False

    def handle_data(self, data: str) -> None:
        if self.in_script:
            self.scripts[-1] += data
        else:
            self.shown += data


@pytest.fixture(scope="module")
def evil_page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = make_run(tmp_path_factory.mktemp("runs") / "run", names=EVIL)
    out = folder.path / "report.html"
    write_page(folder, out)
    assert out.stat().st_size < 6_000_000
    return out.read_text(encoding="utf-8")


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    return reader


def test_no_name_becomes_an_element(evil_page: str) -> None:
    reader = read(evil_page)
    assert {tag for tag, _ in reader.elements} <= {
        "html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "h3", "p", "section", "div", "dl", "dt",
        "dd", "figure", "figcaption", "table", "thead", "tbody", "tr", "th", "td", "ol", "li", "details", "summary",
        "script", "nav", "pre", "code", "a", "fieldset", "legend", "label", "input", "button", "span", "ul", "svg",
        "line", "circle", "text",
    }  # fmt: skip
    assert not [name for _, attributes in reader.elements for name in attributes if name.startswith("on")]
    # The names are there to be read, as text.
    assert EVIL[0] in reader.shown
    assert "\x1b" not in evil_page
    assert "\u202e" not in evil_page


def test_nothing_is_fetched_and_only_our_scripts_run(evil_page: str) -> None:
    reader = read(evil_page)
    assert not [a for _, a in reader.elements if {"src", "srcset", "action"} & a.keys()]
    links = [a["href"] or "" for _, a in reader.elements if "href" in a]
    held = [link for link in links if not link.startswith("#")]
    assert [link.partition(",")[0] for link in held] == ["data:text/csv;base64", "data:application/json;base64"]
    (policy,) = (a["content"] for _, a in reader.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    data, *scripts = reader.scripts
    assert [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in scripts] == allowed
    assert not set("<>&") & set(data)


def test_names_in_figures_are_text_to_plotly_too(evil_page: str) -> None:
    data = read(evil_page).scripts[0]
    figures = json.loads(data)["figures"]
    plots = {a["id"] for _, a in read(evil_page).elements if a.get("class") == "plot"}
    single = {f"curve{i}" for i in range(4)}
    assert set(figures) == plots == {
        "lanes", "average", "loss", "speed", "compute", "time", "disk", *single
    }  # fmt: skip
    strings: list[str] = []

    def collect(value: object) -> None:
        if isinstance(value, dict):
            for each in value.values():
                collect(each)
        elif isinstance(value, list):
            for each in value:
                collect(each)
        elif isinstance(value, str):
            strings.append(value)

    collect(figures)
    assert any("onerror" in text for text in strings)
    assert not [text for text in strings if "<" in text or ">" in text]
    # Templates would interpolate names; plain hover texts do not.
    assert "template" not in data


@pytest.mark.parametrize("method", sorted(METHODS))
def test_every_method_has_a_page(method: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", method, horizon=7.0)
    write_page(folder, tmp_path / "page.html")
    figures = json.loads(read((tmp_path / "page.html").read_text(encoding="utf-8")).scripts[0])["figures"]
    trajectory, compute = figures["lanes"]["views"]
    story, spent = read_story(folder), ledger(read_story(folder))
    assert ends(trajectory) == pytest.approx(story.best_known.epoch)
    # The lanes over compute end where the last training ended.
    trained = max(n for n, (segment, _) in enumerate(story.segments, start=1) if segment.trains)
    assert ends(compute) == pytest.approx(spent[trained] / unit(spent[-1], "")[0], rel=1e-3)
    # Every score that was ever measured is in the picture of its sub-dataset, at its epoch and its compute.
    for i, task in enumerate(story.tasks):
        drawn = {
            (row[0], y)
            for trace in figures[f"curve{i}"]["data"]
            if not trace["name"].endswith(("standard error", "evaluations"))
            for row, y in zip(trace["customdata"], trace["y"], strict=True)
        }
        measured = {
            (short(p.epoch), round(100 * p.scores[task], 3)) for p in story.trail.points.values() if task in p.scores
        }
        assert {point for point in drawn if point[1] is not None} == measured


def ends(bars: list[dict[str, list[float]]]) -> float:
    return max(base + x for trace in bars for base, x in zip(trace["base"], trace["x"], strict=True))


def test_compute_never_runs_backwards_and_a_roll_back_breaks_the_line(tmp_path: Path) -> None:
    write_page((folder := make_run(tmp_path / "run")), tmp_path / "page.html")
    figures = json.loads(read((tmp_path / "page.html").read_text(encoding="utf-8")).scripts[0])["figures"]
    (trunk,) = (t for t in figures["average"]["data"] if t["name"] == "average")
    at = [row[1] for row in trunk["customdata"]]
    assert at == sorted(at)
    story = read_story(folder)
    assert trunk["y"].count(None) == len([r for r in story.rollouts[:-1] if r.rolled_back]) > 0
    # Where the line is taken up again, it is at the score that was rolled back to.
    for i in (i for i, y in enumerate(trunk["y"]) if y is None):
        assert trunk["y"][i - 1] == trunk["y"][i + 1]
        assert trunk["customdata"][i - 1][0] == trunk["customdata"][i + 1][0]


def test_the_page_of_a_run_that_has_just_begun(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", stop_after=1)
    write_page(folder, folder.page)
    assert "not finished" in folder.page.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", stop_after=1)
    with pytest.raises(RunError, match="absent"):
        write_page(folder, tmp_path / "absent" / "page.html")


@pytest.mark.parametrize("terminal", [True, False])
def test_text_shows_names_as_they_are(terminal: bool, tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", names=EVIL, items=30)
    out = io.StringIO()
    render_text(folder, Console(file=out, width=200, force_terminal=terminal, color_system=None))
    text = out.getvalue()
    assert "[red]&lt;b&gt;%{x}[/red][31m" in text
    assert "\u202e" not in text
    if not terminal:
        assert "\x1b" not in text
    for needed in ("test, in %", "95 % interval", "average", "Excluded:", "FLOPs", "plain SFT"):
        assert needed in text


def test_the_warnings_stand_in_the_terminal_too_once_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_run(tmp_path / "run", items=30)
    folder.write_json(folder.notes, ["arc: 3 examples are in the test split too"])
    said = cautions(read_story(folder), compare(read_story(folder)))
    assert len(said) >= 2
    for command in ("report", "status"):
        assert main([command, str(folder.path)]) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert [shown.count(f"warning: {line}") for line in said] == [1] * len(said)
        places = [shown.index(line) for line in said]
        assert places == sorted(places)
    assert [folder.page.read_text().count(f"<li>{escape(line)}") for line in said] == [1] * len(said)


def test_nothing_embedded_can_end_its_script_element() -> None:
    figures = {"lanes": {"layout": {"title": "</script><!--&"}}}
    assert not set("<>&") & set(embedded(figures))
    assert json.loads(embedded(figures)) == figures
