"""The page of a comparison, in a browser: no script, no request, and still something to switch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browser import opened
from test_comparison import TASKS, results

from msft.study.compare_page import comparison_page
from msft.study.comparison import comparison

EVIL = "<img src=x onerror=alert(1)>"


@pytest.mark.parametrize(("count", "scheme"), [(4, "light"), (13, "dark")])
def test_a_comparison_is_read_without_an_error_or_a_request(count: int, scheme: str, tmp_path: Path) -> None:
    names = [EVIL, *(f"method_{i}" for i in range(1, count))]
    gains = {name: 0.1 + 0.01 * i for i, name in enumerate(names)}
    file = tmp_path / "report.html"
    file.write_text(comparison_page(comparison(results(**gains), "method_1")))
    with opened(file, color_scheme=scheme) as page:
        assert page.locator("img").count() == 0
        assert page.get_by_text(EVIL).count() >= 5
        # Every line of the figure tells its numbers under the pointer, whatever the name looks like.
        assert page.locator("svg.frontier g").count() == count
        assert page.locator("svg.frontier g").first.locator("title").text_content().startswith(f"{EVIL}: ")
        lines = page.locator("svg:not(.frontier) g")
        assert lines.count() == count - 1
        assert lines.first.locator("title").text_content().startswith(f"{EVIL}: −")
        for kind in ("these", "like"):  # both intervals are drawn
            assert page.evaluate(f"getComputedStyle(document.querySelector('svg line.{kind}')).display") == "inline"
        the_keyboard_switches_methods_off(page, count)
        the_keyboard_shows_intervals(page)
        page.set_viewport_size({"width": 400, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= 400
        box = page.locator("svg").first.bounding_box()
        assert box["x"] + box["width"] <= 400, "the figure is whole"
        colours = page.evaluate("[document.body, document.querySelector('svg text')].map(e => getComputedStyle(e))"
                                ".map((style, i) => i ? style.fill : style.backgroundColor)")  # fmt: skip
        paper, ink = (int(colour.split("(")[1].split(",")[0]) for colour in colours)
        assert (paper < 60, ink > 180) == ((True, True) if scheme == "dark" else (False, False))


def the_keyboard_switches_methods_off(page: Any, count: int) -> None:
    """A method that is switched off goes from every table and from the figure."""
    assert shown(page, "m0") == shown(page, "m2") > 2 * len(TASKS)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert shown(page, "m0") == 0
    assert shown(page, "m2") > 0
    assert page.locator("svg:not(.frontier) g:visible").count() == count - 2
    assert page.locator("svg.frontier g:visible").count() == count - 1
    page.keyboard.press("Space")
    assert shown(page, "m0") == shown(page, "m2")


def the_keyboard_shows_intervals(page: Any) -> None:
    spans = page.locator(".more")
    assert not spans.first.is_visible()
    page.locator("#intervals").focus()
    page.keyboard.press("Space")
    assert spans.first.is_visible()
    assert " to " in spans.first.text_content()


def shown(page: Any, mark: str) -> int:
    return int(
        page.evaluate(f"[...document.querySelectorAll('.{mark}')].filter(e => e.getClientRects().length).length")
    )
