"""Pictures of a run's page for the site, each light and dark. Needs Chromium.

msft train examples/uneven.yaml --set output=runs/sft --set "method={name: sft, max_epochs: 6, eval_every: 0.5}"
msft train examples/uneven.yaml --set output=runs/msft
python docs/_site/screenshots.py runs/msft/report.html docs/pictures
python docs/_site/screenshots.py runs/quickstart/msft/report.html docs/pictures verdict=quickstart

The first of these makes all of PARTS; the second only one, under another name.
"""

from __future__ import annotations

import io
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

WIDTH, SHARPNESS, COLOURS = 1000, 1.5, 48
"""Of the page in pixels; pixels of the picture for one of the page; colours of the picture, which keep it small."""
PARTS = {
    "verdict": ("h1", ".steps"),
    "sub_datasets": ("#part-scores h2", "#part-scores .card"),
    "timeline": ("#part-timeline h2", "#part-timeline figure"),
    "curves": ("#part-curves .grid figure:nth-of-type(1)", "#part-curves .grid figure:nth-of-type(3)"),
}
"""The first and the last element of each picture."""
MARGIN = 10
BOX = """([first, last]) => {
    const boxes = [first, last].map(name => document.querySelector(name).getBoundingClientRect())
    const [start, end] = boxes, left = document.querySelector("main").getBoundingClientRect()
    return [left.x, start.y + scrollY, left.width, end.bottom - start.y]
}"""


def main(page: Path, folder: Path, names: Mapping[str, str]) -> None:
    """`names`: what the files of some parts are called, and that only these are made; empty for all."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    folder.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            size = {"width": WIDTH, "height": 900}
            opened = browser.new_page(viewport=size, color_scheme=scheme, device_scale_factor=SHARPNESS)
            opened.goto(page.absolute().as_uri())
            _settle(opened)
            for part, name in (names or dict(zip(PARTS, PARTS, strict=True))).items():
                x, y, width, height = opened.evaluate(BOX, list(PARTS[part]))
                clip = {"x": x, "y": y - MARGIN, "width": width, "height": height + 2 * MARGIN}
                shot = Image.open(io.BytesIO(opened.screenshot(clip=clip, full_page=True))).convert("RGB")
                shot.quantize(COLOURS, dither=Image.Dither.NONE).save(folder / f"{name}_{scheme}.png", optimize=True)
        browser.close()


def _settle(page: Any) -> None:
    """Waits for the figures, opens what is folded around the curves, and hides the buttons that save them."""
    end = time.monotonic() + 60
    while not page.evaluate("[...document.querySelectorAll('.plot')].every(plot => plot.data)"):
        assert time.monotonic() < end, "the figures are not drawn"
        page.wait_for_timeout(100)
    page.evaluate("document.querySelectorAll('#singles').forEach(each => each.open = true)")
    page.evaluate("document.querySelectorAll('.save').forEach(each => each.hidden = true)")
    page.wait_for_timeout(500)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), dict(pair.split("=") for pair in sys.argv[3:]))
