"""The picture of the README: when each sub-dataset of a finished run was trained, and what it gained.

msft train examples/uneven.yaml
python docs/_site/picture.py runs/uneven docs/picture.svg
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

from msft.record.run_folder import RunFolder
from msft.report.final_path import final_path
from msft.report.story import Story, read_story

WIDTH, LEFT, RIGHT, ROW, TOP = 760, 150, 150, 26, 54
BLUE, LIGHT, GREY, MARK, STAR = "#3b82c4", "#bcd6ee", "#8c8c8c", "#c2410c", "#a16207"
STYLE = """text { font: 13px system-ui, sans-serif; fill: #333 } .small { font-size: 11px; fill: #666 }
.head { font-size: 15px; font-weight: 600 } .white { fill: #fff; font-size: 11px; text-anchor: middle }
@media (prefers-color-scheme: dark) { text { fill: #ddd } .small { fill: #aaa } .paper { fill: #161616 } }
.paper { fill: #fff } @media (prefers-color-scheme: dark) { .paper { fill: #161616 } }"""


def picture(story: Story) -> str:
    """The picture as SVG text. The run must have a final model and a test split."""
    assert story.answer is not None
    path = final_path(story)
    until = {each.task: each.epoch for each in path.excluded}
    end = story.answer.epoch
    order = sorted(story.tasks, key=lambda task: (until.get(task, end), story.tasks.index(task)))
    span = WIDTH - LEFT - RIGHT
    height = TOP + ROW * len(order) + 58

    def at(epoch: float) -> float:
        return LEFT + span * epoch / end

    numbers = {epoch: i + 1 for i, epoch in enumerate(sorted(set(until.values())))}
    parts = [
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'<text class="head" x="{LEFT}" y="22">One run: each sub-dataset until its own peak</text>',
        f'<text class="small" x="{WIDTH - RIGHT + 12}" y="{TOP - 10}">test, in %: base → final</text>',
    ]
    base, final = story.test["base"].reports, story.test["answer"].reports
    for row, task in enumerate(order):
        y, left = TOP + ROW * row, until.get(task, end)
        parts += [
            f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(task)}</text>',
            f'<rect x="{LEFT}" y="{y + 3}" width="{at(left) - LEFT:.1f}" height="{ROW - 9}" rx="3" fill="{BLUE}"/>',
        ]
        if left < end:
            parts += [
                f'<rect x="{at(left):.1f}" y="{y + 3}" width="{at(end) - at(left):.1f}" height="{ROW - 9}" rx="3" '
                f'fill="{LIGHT}"/>',
                f'<circle cx="{at(left):.1f}" cy="{y + 11.5}" r="9" fill="{MARK}"/>',
                f'<text class="white" x="{at(left):.1f}" y="{y + 15.5}">{numbers[left]}</text>',
            ]
        gain = f"{100 * base[task]:.1f} → {100 * final[task]:.1f}"
        parts.append(f'<text x="{WIDTH - RIGHT + 12}" y="{y + 15}">{gain}</text>')
    bottom = TOP + ROW * len(order)
    parts += [
        f'<line x1="{at(end):.1f}" x2="{at(end):.1f}" y1="{TOP - 4}" y2="{bottom + 4}" stroke="{STAR}" '
        'stroke-width="2"/>',
        *(f'<text class="small" x="{at(e):.1f}" y="{bottom + 18}" text-anchor="middle">{e}</text>'
          for e in range(int(end) + 1)),
        f'<text class="small" x="{LEFT + span / 2}" y="{bottom + 34}" text-anchor="middle">epochs of the final '
        "model's path</text>",
        f'<rect x="{LEFT}" y="{bottom + 42}" width="12" height="10" fill="{BLUE}"/>'
        f'<text class="small" x="{LEFT + 17}" y="{bottom + 51}">trained in full</text>',
        f'<rect x="{LEFT + 110}" y="{bottom + 42}" width="12" height="10" fill="{LIGHT}"/>'
        f'<text class="small" x="{LEFT + 127}" y="{bottom + 51}">a tenth is replayed</text>',
        f'<circle cx="{LEFT + 256}" cy="{bottom + 47}" r="6" fill="{MARK}"/>'
        f'<text class="small" x="{LEFT + 267}" y="{bottom + 51}">excluded here, in this order</text>',
    ]  # fmt: skip
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        f'aria-label="When each of {len(order)} sub-datasets was trained">\n<style>{STYLE}</style>\n{body}\n</svg>\n'
    )


if __name__ == "__main__":
    run, out = sys.argv[1:]
    Path(out).write_text(picture(read_story(RunFolder(Path(run)))), encoding="utf-8")
