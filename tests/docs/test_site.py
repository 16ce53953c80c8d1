"""The site works from a folder, without a server or a network: its search finds, and its pictures are small."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ROOT = Path(__file__).parents[2]
LARGEST = 150_000
"""Bytes of a picture."""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Two pages, built with the settings of the real site."""
    config, build = pytest.importorskip("mkdocs.config"), pytest.importorskip("mkdocs.commands.build")
    docs, out = tmp_path / "docs", tmp_path / "site"
    shutil.copytree(ROOT / "docs" / "javascripts", docs / "javascripts")
    (docs / "index.md").write_text("# First\n\nNothing to see.\n")
    (docs / "other.md").write_text("# Second\n\nHere is a chrysanthemum.\n")
    ours = {"docs_dir": str(docs), "site_dir": str(out), "nav": ["index.md", "other.md"], "hooks": []}
    build.build(config.load_config(str(ROOT / "mkdocs.yml"), **ours))
    return out


def test_the_search_works_from_a_folder_and_asks_no_network(site: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    asked: list[str] = []
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.on("request", lambda request: asked.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.click("input.md-search__input")
        page.keyboard.type("chrysanthemum")
        found = page.locator(".md-search-result__item a").first
        found.wait_for()
        target = found.get_attribute("href")
        browser.close()
    assert target is not None
    assert target.partition("?")[0].endswith("/other.html")
    assert [url for url in asked if not url.startswith("file:")] == []


def test_pictures_are_small() -> None:
    sizes = {file.name: file.stat().st_size for file in (ROOT / "docs" / "pictures").iterdir()}
    assert sizes
    assert {name: size for name, size in sizes.items() if size > LARGEST} == {}


def test_the_badges_say_what_the_project_says() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "_site" / "badges.py"))["badges"]()
    assert {name: (ROOT / "docs" / "badges" / name).read_text(encoding="utf-8") for name in made} == made
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"docs/badges/{name}" in readme for name in made)
