"""The compare page, with its figure of quality over compute, of runs that grid.py made seed by seed.

    python benchmarks/grid.py OUT --part d --seeds 760:766
    python benchmarks/frontier_page.py OUT PAGE_FOLDER

`msft compare` writes it for one study; here each seed is a study of its own, so that a campaign can be stopped between
seeds. Seeds that all of the methods have are shown.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from msft.study import frontier_figure
from msft.study.comparison import comparison, write
from msft.study.grid import StudyFolder
from msft.study.results import Results, read_results


def merged(found: Sequence[Results]) -> Results:
    """One comparison of the seeds that all methods have; base scores are means over seeds."""
    names = list(found[0].runs)
    whole = [each for each in found if all(each.runs.get(name) for name in names)]
    runs = {name: {seed: run for each in whole for seed, run in each.runs[name].items()} for name in names}

    def mean(of: str) -> dict[str, float]:
        return {task: sum(getattr(each, of)[task] for each in whole) / len(whole) for task in found[0].tasks}

    return replace(found[0], runs=runs, redrawn=True, base=mean("base"), base_validation=mean("base_validation"))


STYLE = """<style>
text { fill: #222; font: 12px system-ui, sans-serif; } .soft { fill: #667; } line { stroke: #ddd; }
.zero { stroke: #667; stroke-dasharray: 3 3; } path { fill: none; stroke-width: 1.7; }
.lead { stroke: #ddd; stroke-width: 1; } .clipped { clip-path: url(#frontier-plot); } circle { stroke: #fff; }
</style><rect width="100%" height="100%" fill="#fff"/>"""
"""What the style sheet of the page gives the figure."""


def alone(drawn: str) -> str:
    """The figure as a file of its own."""
    head, _, rest = drawn.partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">{STYLE}{rest}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("page", type=Path)
    parser.add_argument("--part", default="d/cheap", help="folder of the seeds, in OUT (default: %(default)s)")
    parser.add_argument("--reference", default="sft_average", help="(default: %(default)s)")
    given = parser.parse_args()
    done = [
        StudyFolder(path)
        for path in sorted((given.out / given.part).iterdir())
        if any(path.glob("runs/*/*/summary.json"))
    ]
    given.page.mkdir(parents=True, exist_ok=True)
    data = comparison(merged([read_results(folder) for folder in done]), given.reference)
    write(StudyFolder(given.page), data)
    marks = {row["method"]: "m" for row in data["methods"]}
    (given.page / "frontier.svg").write_text(alone(frontier_figure.figure(data["frontier"], marks)), encoding="utf-8")
    print(f"wrote {given.page}/report.html")


if __name__ == "__main__":
    main()
