"""The badges of the README, from the project's own metadata: files, so that nothing is asked of the network.

python docs/_site/badges.py
"""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "badges"
LETTER, PAD = 6.6, 8


def badges() -> dict[str, str]:
    """SVG by file name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    python = project["requires-python"].removeprefix(">=")
    return {
        "license.svg": badge("license", project["license"], "#2f6fae"),
        "python.svg": badge("python", f"{python}+", "#2f6fae"),
        "paper.svg": badge("paper", "arXiv 2603.21606", "#a33b20"),
    }


def badge(name: str, value: str, colour: str) -> str:
    """A badge of 20 px height."""
    left, right = (len(text) * LETTER + 2 * PAD for text in (name, value))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + right:.0f}" height="20" role="img" '
        f'aria-label="{escape(name)}: {escape(value)}">\n'
        f'<rect width="{left + right:.0f}" height="20" rx="3" fill="{colour}"/>\n'
        f'<path d="M3 0h{left - 3:.0f}v20h-{left - 3:.0f}a3 3 0 0 1-3-3v-14a3 3 0 0 1 3-3z" fill="#444"/>\n'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{left / 2:.0f}" y="14">{escape(name)}</text>'
        f'<text x="{left + right / 2:.0f}" y="14">{escape(value)}</text></g>\n</svg>\n'
    )


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file, content in badges().items():
        (FOLDER / file).write_text(content, encoding="utf-8")
