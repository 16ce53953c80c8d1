"""`msft`: the commands. What a user can mend ends with a message and exit code 2, never with a traceback."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from msft import __version__
from msft.core.errors import UserError

INTERRUPTED = 130
DTYPES = ("float32", "bfloat16", "float16")
SPLITS = ("validation", "test")


def entry() -> None:
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Runs a command and returns its exit code: 0, 2 for what the user can mend, 130 for Ctrl-C."""
    arguments = parser().parse_args(argv)
    # Only the numbers of the tokenizer's threads, and only where the user has not chosen: forked workers would warn.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        arguments.run(arguments)
    except UserError as error:
        Console(stderr=True, highlight=False).print(f"msft: {error}", markup=False, soft_wrap=True)
        return 2
    except KeyboardInterrupt:
        Console(stderr=True).print("msft: interrupted; what is journaled is safe: go on with --resume", markup=False)
        return INTERRUPTED
    return 0


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

    report = commands.add_parser("report", help="the table and the page of a run, finished or not")
    report.add_argument("run_folder", type=Path, metavar="RUN", help="the run's folder")
    report.add_argument("--page", type=Path, help="where to write the page (default: report.html in the run folder)")
    report.set_defaults(run=_report)

    export = commands.add_parser("export", help="a plain Hugging Face folder out of a finished run")
    export.add_argument("run_folder", type=Path, metavar="RUN", help="the run's folder")
    export.add_argument("--output", type=Path, metavar="DIR", help="where to write it (default: export in the run)")
    export.add_argument("--merge", action="store_true", help="merge an adapter into its base: a whole model")
    export.add_argument("--dtype", choices=DTYPES, help="of the weights (default: as trained, float32)")
    export.add_argument("--push-to-hub", metavar="ID", help="upload it too, as user/name on the Hugging Face hub")
    export.add_argument("--private", action="store_true", help="where the hub's repository is made, make it private")
    export.set_defaults(run=_export)

    evaluate = commands.add_parser("eval", help="score a run's answer, or any model folder, on a split")
    evaluate.add_argument("model", metavar="RUN|MODEL", help="a run's folder, or a model's folder or hub id")
    evaluate.add_argument("--config", type=Path, help="whose data to score on (default: the run's own)")
    evaluate.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="default: validation")
    evaluate.add_argument("--json", action="store_true", help="print JSON, for scripts")
    _takes_overrides(evaluate)
    evaluate.set_defaults(run=_eval)

    quickstart = commands.add_parser("quickstart", help="a whole search on a laptop CPU, offline, in minutes")
    quickstart.add_argument("--output", type=Path, default=Path("runs/quickstart"), help="the run folder")
    quickstart.add_argument("--resume", action="store_true", help="go on with an interrupted quickstart")
    quickstart.set_defaults(run=_quickstart)
    return top


def _takes_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=Path, help="the configuration (YAML)")
    _takes_overrides(command)


def _takes_overrides(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="A.B=VALUE",
        help="override a value, such as training.learning_rate=2e-5 or datasets.gsm8k.max_samples=100",
    )  # fmt: skip


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text} is no number of rows")
    return int(text)


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


def _report(arguments: argparse.Namespace) -> None:
    from msft.report.page import write_page
    from msft.report.table import render_text
    from msft.run import RunFolder

    folder = RunFolder(arguments.run_folder)
    render_text(folder, Console())
    page = arguments.page or folder.page
    write_page(folder, page)
    Console().print(f"\nThe page: {page}", markup=False, highlight=False, soft_wrap=True)


def _export(arguments: argparse.Namespace) -> None:
    from msft.cli.export import run

    run(
        arguments.run_folder, arguments.output, merge=arguments.merge, dtype=arguments.dtype,
        hub_id=arguments.push_to_hub, private=arguments.private,
    )  # fmt: skip


def _eval(arguments: argparse.Namespace) -> None:
    from msft.cli.eval import run

    run(arguments.model, arguments.config, arguments.overrides, split=arguments.split, as_json=arguments.json)


def _quickstart(arguments: argparse.Namespace) -> None:
    from msft.cli.quickstart import run

    run(arguments.output, resume=arguments.resume)
