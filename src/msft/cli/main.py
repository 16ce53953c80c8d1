"""`msft`: the commands. What a user can mend ends with a message and exit code 2, never with a traceback."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from msft import __version__
from msft.core.errors import UserError

INTERRUPTED = 130
STUDIES = ("peaks", "shift", "budget", "granularity", "ticks", "loss", "optimizer", "noise", "similar")
"""As in `msft.study.studies`, which is not imported for `--help`."""


def entry() -> None:
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Runs a command and returns its exit code: 0, 1 if runs failed, 2 for what the user can mend, 130 for Ctrl-C."""
    arguments = parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except UserError as error:
        Console(stderr=True, highlight=False).print(f"msft: {error}", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        how = "the same command" if arguments.run is _compare else "--resume"
        Console(stderr=True).print(f"msft: interrupted; what is journaled is safe: go on with {how}", markup=False)
        return INTERRUPTED


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="msft",
        description="Fine-tune one model on a mixture of data sets, each until its own peak.",
    )
    top.add_argument("--version", action="version", version=f"msft {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="what a job will take: data, steps, compute, disk; nothing is loaded")
    _takes_config(check)
    check.add_argument("--json", action="store_true", help="print JSON, for scripts")
    check.set_defaults(run=_check)

    preview = commands.add_parser("preview", help="a few examples as the model sees them, learned tokens marked")
    _takes_config(preview)
    preview.add_argument("--rows", type=_count, default=3, help="training examples of each sub-dataset (default: 3)")
    preview.add_argument("--task", metavar="ID", help="only this sub-dataset")
    preview.set_defaults(run=_preview)

    init = commands.add_parser("init", help="write a configuration for a folder of data files")
    init.add_argument("folder", type=Path, metavar="FOLDER", help="holds .jsonl, .json, .parquet or .csv files")
    init.add_argument("-o", "--output", type=Path, default=Path("config.yaml"), help="default: config.yaml")
    init.add_argument("--model", help="hub id or folder of the base model")
    init.set_defaults(run=_init)

    schema = commands.add_parser("schema", help="the JSON Schema of a configuration, for editors")
    schema.set_defaults(run=_schema)

    train = commands.add_parser("train", help="run the job of a configuration file")
    _takes_config(train)
    train.add_argument("--resume", action="store_true", help="go on with the run in the output folder")
    train.set_defaults(run=_train)

    compare = commands.add_parser("compare", help="methods side by side on the same splits, with statistics")
    _takes_config(compare)
    compare.add_argument(
        "--methods", type=_names, required=True, metavar="A,B,...",
        help="such as sft,msft,msft:release,sft_equal_flops,placebo; or all. The first is the reference",
    )  # fmt: skip
    compare.add_argument("--seeds", type=_positive, default=6, help="training seeds of each method (default: 6)")
    compare.add_argument("--jobs", type=_positive, default=1, help="runs at the same time (default: 1)")
    compare.add_argument("--against", metavar="METHOD", help="the reference, in place of the first (or msft, of all)")
    compare.add_argument("--output", type=Path, help="the study's folder (default: <output>-compare)")
    compare.set_defaults(run=_compare)

    study = commands.add_parser("study", help="one of the paper's analyses on this job, or a question it leaves open")
    study.add_argument("name", choices=STUDIES, metavar="NAME", help=f"one of: {', '.join(STUDIES)}")
    _takes_config(study)
    study.add_argument("--seeds", type=_positive, default=3, help="training seeds of each run (default: 3)")
    study.add_argument("--jobs", type=_positive, default=1, help="runs at the same time (default: 1)")
    study.add_argument("--output", type=Path, help="the study's folder (default: <output>-NAME)")
    study.set_defaults(run=_study)

    report = commands.add_parser("report", help="the table and the page of a run, finished or not, or of several")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder, or a folder of such folders")
    report.add_argument("--page", type=Path, help="where to write the page (default: report.html in the folder)")
    report.add_argument("--watch", action="store_true", help="write the page again and again until the run is finished")
    report.set_defaults(run=_report)

    status = commands.add_parser("status", help="where a run stands, beside it or after it")
    status.add_argument("run_folder", type=Path, metavar="RUN", help="the run's folder")
    status.set_defaults(run=_status)

    quickstart = commands.add_parser("quickstart", help="a whole search on a laptop CPU, offline, in minutes")
    quickstart.add_argument("--output", type=Path, default=Path("runs/quickstart"), help="the run folder")
    quickstart.add_argument("--resume", action="store_true", help="go on with an interrupted quickstart")
    quickstart.set_defaults(run=_quickstart)
    return top


def _takes_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=Path, help="the configuration (YAML)")
    command.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="A.B=VALUE",
        help="override a value, such as training.learning_rate=2e-5 or datasets.gsm8k.max_samples=100",
    )  # fmt: skip


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number of rows")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


# The commands import what they need when they are called: torch alone costs seconds, and `--help` needs none.


def _check(arguments: argparse.Namespace) -> None:
    from msft.cli.check import run
    from msft.config.reader import load

    run(load(arguments.config, arguments.overrides), as_json=arguments.json)


def _preview(arguments: argparse.Namespace) -> None:
    from msft.cli.preview import run
    from msft.config.reader import load

    run(load(arguments.config, arguments.overrides), rows=arguments.rows, task=arguments.task)


def _init(arguments: argparse.Namespace) -> None:
    from msft.cli.init import write

    write(arguments.folder, arguments.output, arguments.model)
    Console().print(
        f"{arguments.output}: look it over, then: msft check {arguments.output}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _schema(_: argparse.Namespace) -> None:
    import json

    from msft.cli.schema import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")


def _train(arguments: argparse.Namespace) -> None:
    from msft.cli.train import run
    from msft.config.reader import load

    run(load(arguments.config, arguments.overrides), resume=arguments.resume)


def _compare(arguments: argparse.Namespace) -> int:
    from msft.cli.compare import run
    from msft.config.reader import load

    return run(
        load(arguments.config, arguments.overrides),
        arguments.methods,
        seeds=arguments.seeds,
        jobs=arguments.jobs,
        output=arguments.output,
        against=arguments.against,
    )


def _study(arguments: argparse.Namespace) -> None:
    from msft.cli.study import run
    from msft.config.reader import load

    config = load(arguments.config, arguments.overrides)
    run(arguments.name, config, arguments.output, seeds=arguments.seeds, jobs=arguments.jobs)


def _report(arguments: argparse.Namespace) -> None:
    from msft.cli.report import run

    run(arguments.runs, arguments.page, watch=arguments.watch)


def _status(arguments: argparse.Namespace) -> None:
    from msft.cli.status import run

    run(arguments.run_folder)


def _quickstart(arguments: argparse.Namespace) -> None:
    from msft.cli.quickstart import run

    run(arguments.output, resume=arguments.resume)
