"""One fresh job: ten tasks that no other job here has, one set of settings, named before it was run.

    python examples/cheap_model.py
    python benchmarks/fresh_job.py OUT --seeds 800:812
    python benchmarks/fresh_job.py OUT

The first command writes the rows (OUT/data) and goes on where it was stopped; the second prints the comparisons that
docs/results/fresh_job.md names. Base model, sizes, draws, rate and method settings are those of examples/uneven.yaml as
docs/results/headroom.md chose them: nothing was chosen on these tasks.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import time
from pathlib import Path

from average_first import EXAMPLES, all_measured, example, run, searching
from grid import differences, said

from msft.config.schema import Config
from msft.config.temperature import MixingConfig
from msft.study.statistics import t_test
from msft.study.variants import variants

sys.path.append(str(EXAMPLES))

from cheap_model import Task, write_tasks

RATE = 1.5e-3
METHODS = ["sft_average", "auto", "msft_average", "msft_average_placebo"]
MARGIN = 0.3
"""Points that auto may be below sft_average, at the lower end of the interval."""
SPLITS = {"train": 250, "validation": 250, "test": 300}
"""Rows written of each task; the configuration takes what it wants of them."""
MIXINGS: dict[str, MixingConfig] = {"equal": "equal", "size": "size"}


def digits(matrix: list[list[int]]) -> str:
    return " ".join("".join(map(str, row)) for row in matrix)


def with_i(number: tuple[float, float]) -> str:
    """(-3, 2) as -3+2i."""
    return f"{round(number[0])}{round(number[1]):+d}i"


TASKS = (
    Task("lcm", {"max_value": 40}, lambda m, q: "lcm {} {}".format(*m["numbers"])),
    Task(
        "fraction_simplification",
        {"min_value": 1, "max_value": 30, "min_factor": 2, "max_factor": 9, "styles": ("plain",)},
        lambda m, q: f"simplify {m['numerator']}/{m['denominator']}",
    ),
    Task("count_primes", {"max_n": 90}, lambda m, q: f"primes {m['start']} to {m['end']}"),
    Task(
        "word_sorting",
        {"min_words": 3, "max_words": 3, "min_word_length": 3, "max_word_length": 3},
        lambda m, q: f"{m['direction'][:3]} {' '.join(m['transformed_words'])}",
        lambda m, a: a.replace(",", ""),
    ),
    Task(
        "complex_arithmetic",
        {"operations": ("+", "-"), "operations_weights": [0.5, 0.5]},
        lambda m, q: f"({with_i(m['num1'])}){m['operation']}({with_i(m['num2'])})",
        lambda m, a: with_i(m["result"]),
    ),
    Task("string_insertion", {"min_string_length": 5, "max_string_length": 9}, lambda m, q: f"insert {m['string']}"),
    Task(
        "leg_counting",
        {"min_animals": 2, "max_animals": 2, "max_instances": 9},
        lambda m, q: f"legs {' '.join(f'{count} {name}' for name, count in m['animals'].items())}",
    ),
    Task(
        "prime_factorization",
        {"max_value": 999},
        lambda m, q: f"factor {m['number']}",
        lambda m, a: " ".join(map(str, m["factors"])),
    ),
    Task(
        "rotate_matrix",
        {"min_n": 2, "max_n": 3, "max_rotations": 3},
        lambda m, q: f"turn {m['num_rotations']} {digits(m['matrix'])}",
        lambda m, a: digits(m["solution"]),
    ),
    Task(
        "spiral_matrix",
        {"min_n": 3, "max_n": 3},
        lambda m, q: f"spiral {digits(m['matrix'])}",
        lambda m, a: a.replace(" ", ""),
    ),
)  # fmt: skip


def write_data(folder: Path) -> None:
    """One file of each task, its rows distinct questions."""
    write_tasks(folder, TASKS, SPLITS, 3)


def config_of(data: Path, mixing: str) -> Config:
    """The uneven job with these tasks in place of its own: its ten sizes are dealt to them by a fixed draw."""
    base = example("uneven", RATE, average=1.0)
    sizes = [dataset.max_samples for dataset in base.datasets]
    random.Random("sizes of the fresh job").shuffle(sizes)
    datasets = tuple(
        base.datasets[0].model_copy(
            update={"id": task.name, "path": str((data / f"{task.name}.jsonl").resolve()), "max_samples": size}
        )
        for task, size in zip(TASKS, sizes, strict=True)
    )
    return base.model_copy(
        update={"datasets": datasets, "data": base.data.model_copy(update={"mixing": MIXINGS[mixing]})}
    )


def table(out: Path) -> None:
    for stage, found in all_measured(out).items():
        print(f"\n## {stage}")
        searched = sum(run["searched"] for run in found["auto"].values())
        print(f"auto searched in {searched} of {len(found['auto'])} seeds")
        for one, other in (
            ("auto", "sft_average"),
            ("msft_average", "msft_average_placebo"),
            ("msft_average", "sft_average"),
        ):
            for what, kind in (("reports", "test accuracy"), ("scores", "search score")):
                away = differences(found[one], found[other], what)
                print(f"- {one} - {other}, {kind}: {said(away)}; p {t_test(away)}")
        for name, seeds in found.items():
            print(f"- {name}: {level(seeds, 'reports')}, search score {level(seeds, 'scores')}")
            print(f"  learned in half of the seeds or more: {learned(seeds)}")


def level(seeds: dict[int, dict], what: str) -> str:
    values = [100 * sum(run[what].values()) / len(run[what]) for run in seeds.values()]
    return f"{sum(values) / len(values):.2f}"


def learned(seeds: dict[int, dict]) -> list[str]:
    tasks = next(iter(seeds.values()))["reports"]
    return [task for task in tasks if 2 * sum(task in run["learned"] for run in seeds.values()) >= len(seeds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", help="first:beyond; without it, the tables of what is there")
    parser.add_argument("--mixing", choices=tuple(MIXINGS), default="equal")
    parser.add_argument("--seconds", type=float, default=3600.0, help="no seed is begun after them (default: 3600)")
    given = parser.parse_args()
    if given.seeds is None:
        table(given.out)
        return
    if os.environ.get("PYTHONHASHSEED") != "0":
        # As in cheap_model.py: some tasks draw from sets.
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONHASHSEED": "0"})
    data = given.out / "data"
    if not (data / f"{TASKS[-1].name}.jsonl").exists():
        write_data(data)
    began = time.monotonic()
    made = searching(variants(config_of(data, given.mixing), METHODS))
    for seed in range(*map(int, given.seeds.split(":"))):
        if time.monotonic() - began > given.seconds:
            print("the time is over: the same command goes on")
            return
        run(given.out / "fresh" / given.mixing / str(seed), made, seed)
        print(f"fresh {given.mixing} seed {seed}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
