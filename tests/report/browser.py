"""A headless Chromium for tests of the page; tests that ask for it are skipped where there is none."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRAWN = "[...document.querySelectorAll('.plot')].every(plot => plot.data)"


@contextmanager
def opened(file: Path, **context: Any) -> Iterator[Any]:
    """The page open in a browser that fails the test for an error in the console or any request of the page."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            page = browser.new_context(viewport={"width": 1100, "height": 900}, **context).new_page()
            page.set_default_timeout(120_000)
            said: list[str] = []
            page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
            page.on("pageerror", lambda error: said.append(f"error: {error}"))
            page.on("dialog", lambda dialog: (said.append(f"dialog: {dialog.message}"), dialog.dismiss()))
            page.on("request", lambda request: said.append(f"request: {request.url}"))
            page.goto(file.as_uri())
            until(page, DRAWN)
            yield page
            assert set(said) == {f"request: {file.as_uri()}"}  # more than once where the page is read again
        finally:
            browser.close()


def until(page: Any, condition: str, seconds: float = 120) -> None:
    """Waits for a condition. The page's policy forbids the browser's own way, which evaluates text within the page."""
    end = time.monotonic() + seconds
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(100)
