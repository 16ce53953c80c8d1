from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from browser import DRAWN, opened, until
from run_folders import NAMES, make_run

from msft.report.page import write_page

EVIL = "<img src=x onerror=alert(1)>"
BOLD = "<b>bold</b> &amp; %{x}"
MANY = (EVIL, BOLD, *(f"task_{i:02d}" for i in range(2, 21)))


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """A page of 4 and one of 21 sub-datasets."""
    made = {}
    for names in (NAMES, MANY):
        peaks = tuple(0.6 + 0.35 * i for i in range(len(names)))
        folder = make_run(tmp_path_factory.mktemp("runs") / "run", names=names, peaks=peaks, items=30)
        write_page(folder, folder.page)
        assert folder.page.stat().st_size < 6_000_000
        made[len(names)] = folder.page
    return made


@pytest.mark.parametrize(("count", "scheme"), [(4, "light"), (21, "dark")])
def test_a_run_is_read_without_an_error_or_a_request(count: int, scheme: str, pages: dict[int, Path]) -> None:
    with opened(pages[count], color_scheme=scheme) as page:
        names = NAMES if count == 4 else MANY
        assert page.locator(".plot[id^=curve]").count() == count
        # A hover shows the sub-dataset's name, whatever it looks like, as text, and the value.
        label = hovered(page, "curve0")
        assert label.startswith(names[0])
        assert hovered(page, "curve1").startswith(names[1])
        assert "epoch 0, " in label
        if count > 8:
            page.set_viewport_size({"width": 1280, "height": 900})
            page.wait_for_timeout(300)
            assert page.evaluate("document.documentElement.scrollHeight") < 4000
            the_heat_map_is_read_with_the_keyboard(page)
            page.locator("#singles summary").click()
        # So does a real mouse over a real point.
        page.locator("#average").scroll_into_view_if_needed()
        box = page.locator("#average .point").first.bounding_box()
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        until(page, "document.querySelector('#average .hovertext') !== null")
        assert page.locator("#average .hovertext").first.text_content().startswith("average")
        assert page.locator("img").count() == 0
        assert page.get_by_text(names[0]).count() >= 3
        a_keyboard_reaches_values(page, names)
        files_are_saved(page, names)
        # The other axis shows what was rolled back in the lanes as well.
        before = page.evaluate("document.getElementById('lanes').data.length")
        page.locator("#view-compute").check()
        assert "compute spent" in page.locator("#average .xtitle").text_content()
        assert page.evaluate("document.getElementById('lanes').data.length") > before
        it_fits_a_narrow_window(page)
        ink, paper = page.evaluate(
            "[document.querySelector('.plot text'), document.body].map(element => getComputedStyle(element))"
            ".map((style, i) => i ? style.backgroundColor : style.fill)"
        )
        assert abs(brightness(ink) - brightness(paper)) > 120
        assert (brightness(paper) < 60) == (scheme == "dark")


def test_a_watched_page_keeps_what_the_reader_chose(tmp_path: Path) -> None:
    """It is read again as a whole, with more of the search in it; where the reader is and what is shown stays."""
    run = make_run(tmp_path / "run", stop_after=6)
    write_page(run, run.page, refresh=3600)
    with opened(run.page) as page:
        drawn = page.evaluate("document.getElementById('curve2').data[0].x.length")
        page.locator("#view-compute").check()
        page.locator("#configuration summary").click()
        page.locator("#curve2").focus()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        said = read_out(page)
        page.evaluate("scrollBy(0, document.getElementById('part-curves').getBoundingClientRect().top + 30)")
        decisions = page.locator("#part-timeline li").count()
        shutil.rmtree(run.path)
        make_run(run.path, stop_after=30)
        write_page(run, run.page, refresh=2)
        page.reload()
        write_page(run, run.page, refresh=1000)  # which the browser then reads by itself
        page.locator("meta[content='1000']").wait_for(state="attached")
        until(page, DRAWN)
        assert page.evaluate("document.getElementById('curve2').data[0].x.length") > drawn
        assert page.locator("#part-timeline li").count() > decisions
        assert page.evaluate("document.getElementById('part-curves').getBoundingClientRect().top") == pytest.approx(
            -30, abs=1
        )
        assert page.locator("#view-compute").is_checked()
        assert "compute spent" in page.locator("#average .xtitle").text_content()
        assert page.locator("#configuration").get_attribute("open") is not None
        assert page.evaluate("document.activeElement.id") == "curve2"
        page.keyboard.press("ArrowLeft")
        page.keyboard.press("ArrowRight")
        assert read_out(page) == said


def a_keyboard_reaches_values(page: Any, names: tuple[str, ...]) -> None:
    page.locator("#curve1").focus()
    page.keyboard.press("ArrowRight")
    assert names[1] in read_out(page)


def the_heat_map_is_read_with_the_keyboard(page: Any) -> None:
    page.locator("#heat").focus()
    for key, name in (("ArrowRight", EVIL), ("ArrowDown", BOLD)):
        page.keyboard.press(key)
        until(page, f"document.getElementById('said').textContent.startsWith({json.dumps(name)})", seconds=10)


def files_are_saved(page: Any, names: tuple[str, ...]) -> None:
    """From the page alone: the scores as a table, and a figure as a picture."""
    with page.expect_download() as caught:
        page.get_by_role("link", name="CSV").click()
    assert caught.value.suggested_filename == "scores.csv"
    rows = list(csv.DictReader(Path(caught.value.path()).read_text().splitlines()))
    assert {row["sub_dataset"] for row in rows} == set(names)
    with page.expect_download() as caught:
        page.locator("#save-lanes").click()
    assert caught.value.suggested_filename == "lanes.png"
    assert Path(caught.value.path()).read_bytes().startswith(b"\x89PNG")


def read_out(page: Any) -> str:
    """What a screen reader is told, once plotly.js has shown the label."""
    page.wait_for_timeout(400)
    return str(page.locator("#said").text_content())


def it_fits_a_narrow_window(page: Any) -> None:
    page.set_viewport_size({"width": 400, "height": 800})
    until(page, "document.documentElement.scrollWidth <= 400")


def hovered(page: Any, plot: str) -> str:
    """What the label says at the first point of a figure's first line that was not rolled back."""
    page.evaluate(
        """plot => {
            const lines = document.getElementById(plot).data;
            const first = lines.findIndex(line => line.mode === "lines+markers" && !line.name.includes("discarded"));
            Plotly.Fx.hover(plot, [{curveNumber: first, pointNumber: 0}]);
        }""",
        plot,
    )
    return str(page.locator(f"#{plot} .hovertext").first.text_content())


def brightness(colour: str) -> float:
    red, green, blue = (int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")[:3])
    return 0.3 * red + 0.6 * green + 0.1 * blue
