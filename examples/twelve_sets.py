"""Every method on twelve real sub-datasets, made to be cut off and gone on with: for a GPU that is lent by the minute.

    python examples/twelve_sets.py [--model FOLDER] [--data FOLDER] --output FOLDER [--minutes 9.5] [--jobs 4] [--carry]

First plain SFT at each of --rates with training seed 1: the rate whose best evaluation has the best validation
macro-average is kept. Then --methods with seeds 2, 3, ... at that rate, all methods of a seed before the next seed.
After --minutes the call ends, and the same command goes on where it was, down to the last evaluation. --jobs runs share
the GPUs there are.

FOLDER/compare holds what `msft compare` writes, made anew at each end from the runs that are finished; runs keep their
records, no model and no snapshot. With --carry a run that was cut off is dropped, to begin anew, so that the folder is
a few megabytes and can be moved between machines: give --model, --data and --output as the same relative paths then.
It needs none of datasets, trl and plotly.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from types import FrameType

from transformers.utils import logging

from msft.config.reader import load
from msft.config.schema import Config
from msft.core.errors import Stopped, UserError
from msft.report.story import read_story
from msft.study.compare_markdown import to_markdown
from msft.study.comparison import comparison, write
from msft.study.grid import Grid, StudyFolder, Variant
from msft.study.overrides import with_method
from msft.study.results import read_results
from msft.study.runs import Progress, run_grid
from msft.study.variants import ignored, variants

METHODS = "sft_decay,sft_average,auto,msft_average,release_short"
SHORT = "release_short"
"""The release's rule with the configuration's C and horizon. `msft:release` itself, with C = 10 and no horizon, takes
several times the compute of everything else: name it in --methods where there is time."""
SWEEP_SEED = 1


class Clock:
    """Ends the process's work after so many minutes, as Ctrl-C would: at the next step, with everything durable."""

    def __init__(self, minutes: float | None) -> None:
        self.minutes = minutes
        self.rang = False

    def __enter__(self) -> Clock:
        if self.minutes is not None:
            signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, 60 * self.minutes)
        return self

    def __exit__(self, *_: object) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _ring(self, number: int, frame: FrameType | None) -> None:
        self.rang = True
        os.kill(os.getpid(), signal.SIGINT)


def still() -> None:
    """Silences transformers; every worker process calls it."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def configuration(arguments: argparse.Namespace) -> Config:
    """The job, its paths relative to the working directory: a study that is carried elsewhere finds them there."""
    config = load(arguments.config, arguments.set)
    if arguments.model is not None:
        config = config.model_copy(update={"model": config.model.model_copy(update={"name_or_path": arguments.model})})
    datasets = []
    for dataset in config.datasets:
        path = str(arguments.data / Path(dataset.path).name) if arguments.data is not None else dataset.path
        datasets.append(dataset.model_copy(update={"path": _relative(path)}))
    model = config.model.model_copy(update={"name_or_path": _relative(config.model.name_or_path)})
    return config.model_copy(update={"datasets": tuple(datasets), "model": model})


def _relative(path: str) -> str:
    return os.path.relpath(path) if Path(path).exists() else path


def at_rate(config: Config, rate: float) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update={"learning_rate": rate})})


def told(progress: Progress) -> None:
    outcome = f"failed: {progress.failure}"
    if progress.summary is not None:
        outcome = f"{100 * (progress.summary['macro']['test']['answer'] or 0):.1f} %"
    place = f"[{progress.done}/{progress.total}]"
    print(f"{place} {progress.variant}, seed {progress.seed}: {outcome}, {progress.seconds:.0f} s", flush=True)


def swept(config: Config, rates: Sequence[str], folder: StudyFolder, jobs: int) -> str:
    """The rate whose best evaluation has the best macro-average of the search scores on the validation splits."""
    made = tuple(Variant(name=rate, config=with_method(at_rate(config, float(rate)), "sft")) for rate in rates)
    if failures := run_grid(
        folder, Grid(kind="rates", variants=made, seeds=(SWEEP_SEED,)), jobs=jobs, tell=told, setup=still
    ):
        raise SystemExit(f"these runs failed: {failures}")
    best = {}
    print("| learning rate | best search score | at epoch | validation, % | test, % |\n|---|---|---|---|---|")
    for rate in rates:
        story = read_story(folder.run(rate, SWEEP_SEED))
        place = max(story.trunk, key=lambda place: mean(place.scores.values()))
        best[rate] = mean(place.scores.values())
        test = mean(story.test["answer"].reports.values())
        reports = mean(place.reports.values())
        print(f"| {rate} | {100 * best[rate]:.2f} | {place.epoch:.2f} | {100 * reports:.1f} | {100 * test:.1f} |")
    return max(best, key=lambda rate: best[rate])


def compared(config: Config, names: Sequence[str]) -> tuple[Variant, ...]:
    made = variants(config, [name for name in names if name != SHORT])
    if SHORT not in names:
        return made
    own = config.method
    release = with_method(config, "msft", "release", budget=own.params.budget, max_epochs=own.max_epochs)
    return (*made, Variant(name=SHORT, config=release))


def drop_unfinished(folder: StudyFolder) -> None:
    """Their snapshots are gigabytes, and without those their records cannot be gone on with."""
    for run in folder.path.glob("runs/*/*"):
        if not (run / "summary.json").exists():
            shutil.rmtree(run)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, default=Path(__file__).with_suffix(".yaml"))
    parser.add_argument("--model", help="a hub id or a folder")
    parser.add_argument("--data", type=Path, help="the folder of the .jsonl files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--methods", default=METHODS, type=lambda text: text.split(","))
    parser.add_argument("--rates", default="1e-5,3e-5,1e-4", type=lambda text: text.split(","), help="one: no sweep")
    parser.add_argument("--seeds", default=5, type=int)
    parser.add_argument("--jobs", default=1, type=int)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--carry", action="store_true", help="drop what a run that was cut off leaves behind")
    parser.add_argument("--set", default=[], action="append", metavar="key=value")
    arguments = parser.parse_args()
    still()
    sweep, study = StudyFolder(arguments.output / "rates"), StudyFolder(arguments.output / "compare")
    config, ended = configuration(arguments), False
    with Clock(arguments.minutes) as clock:
        try:
            rate = arguments.rates[0]
            if len(arguments.rates) > 1:
                rate = swept(config, arguments.rates, sweep, arguments.jobs)
            print(f"learning rate {rate}", flush=True)
            made = compared(at_rate(config, float(rate)), arguments.methods)
            grid = Grid(kind="compare", variants=made, seeds=tuple(range(2, 2 + arguments.seeds)))
            run_grid(study, grid, jobs=arguments.jobs, tell=told, setup=still)
            ended = True
        except (Stopped, KeyboardInterrupt):
            if not clock.rang:
                raise
    if study.record.exists() and any(study.path.glob("runs/*/*/summary.json")):
        reference = "msft" if "msft" in arguments.methods else arguments.methods[0]
        data = comparison(read_results(study), reference, ignored(config, [n for n in arguments.methods if n != SHORT]))
        write(study, data)
        print(to_markdown(data))
    if arguments.carry:
        for folder in (sweep, study):
            drop_unfinished(folder)
    print("finished" if ended else "time is up: the same command goes on")
    return 0


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except UserError as error:
        raise SystemExit(f"{error}") from None
    except (Stopped, KeyboardInterrupt):
        raise SystemExit("stopped: the same command goes on") from None
