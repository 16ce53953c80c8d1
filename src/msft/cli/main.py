"""`msft`: the commands. An error that a user can fix ends with a message and exit code 2, never with a traceback."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from msft.cli.encodable import said as not_encodable
from msft.cli.encodable import use_plain_characters
from msft.cli.example_commands import explain
from msft.cli.loading import loading
from msft.core.errors import Stopped, UserError
from msft.core.version import __version__
from msft.system.stopwatch import Stopwatch, spent

STUDIES = ("peaks", "shift", "budget", "granularity", "ticks", "loss", "optimizer", "noise", "headroom", "similar")
"""As in `msft.study.studies`, which is not imported for `--help`."""
SIGNALLED = 128
"""Beside the number of the signal, the exit code of a command that it ended."""
DTYPES = ("float32", "bfloat16", "float16")
SPLITS = ("validation", "test")


def entry() -> None:
    # Read by torch at its first allocation: large tensors then lie in large pages, where Linux has some to give. Those
    # of a vocabulary come and go with every micro-batch, in tens of thousands of small pages otherwise.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    use_plain_characters()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Runs a command and returns its exit code.

    0, 1 if runs of a study failed, 2 for an error that the user can fix, 130 for Ctrl-C, 143 for SIGTERM.
    """
    arguments = parser().parse_args(argv)
    try:
        _know_methods(arguments.imports)
        return arguments.run(arguments) or 0
    except UserError as error:
        _say(f"msft: {error}")
        return 2
    except UnicodeEncodeError as error:
        _say(f"msft: {not_encodable(error)}")
        return 2
    except Stopped as stopped:
        more = [] if arguments.continues_by_itself or "--resume" in argv else ["--resume"]
        again = shlex.join(["msft", *argv, *more])
        _say(f"msft: {signal.Signals(stopped.signal).name}: stopped; what is journaled is safe. Continue: {again}")
        return SIGNALLED + stopped.signal
    except KeyboardInterrupt:
        how = "the same command" if arguments.continues_by_itself else "--resume"
        _say(f"msft: interrupted; what is journaled is safe: continue with {how}")
        return SIGNALLED + signal.SIGINT


def _know_methods(modules: Sequence[str]) -> None:
    """Registers the methods of installed packages and of the modules of `--import`. Raises ConfigError."""
    from msft.methods import load_installed

    for problem in load_installed():
        _say(f"msft: {problem}")
    if modules:
        from msft.cli.imports import import_methods

        import_methods(modules)


def _say(text: str) -> None:
    """A message; nothing that data or names put into it may move the cursor."""
    # Bytes of names that are not text would vanish too, so they are shown as escapes.
    text = text.encode("utf-8", "backslashreplace").decode()
    shown = "".join(c for c in text if c == "\n" or not unicodedata.category(c).startswith("C"))
    Console(stderr=True, highlight=False).print(shown, markup=False, soft_wrap=True)


class Parser(argparse.ArgumentParser):
    """Says where values of the configuration go, which scripts of other trainers take as options."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: --"):
            message += ". Fix: give a value of the configuration as --set training.learning_rate=2e-5"
        super().error(message)


def parser() -> argparse.ArgumentParser:
    top = Parser(prog="msft", description="Fine-tune one model on a mixture of data sets, each until its own peak.")
    top.add_argument("--version", action="version", version=f"msft {__version__}")
    top.set_defaults(continues_by_itself=False, imports=[])
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
    train.add_argument("config", type=Path, help="the configuration (YAML); with --resume also the folder of a run")
    _takes_overrides(train)
    train.add_argument(
        "--resume", action="store_true", help="continue the run in the output folder, with the --set that it began with"
    )
    train.add_argument(
        "--allow-changed", action="append", default=[], metavar="FIELD",
        help="with --resume: continue although this differs, such as environment, model.name_or_path, "
        "datasets.gsm8k.path or training.learning_rate; the journal notes it",
    )  # fmt: skip
    train.set_defaults(run=_train)

    compare = commands.add_parser("compare", help="methods side by side on the same splits, with statistics")
    _takes_config(compare)
    compare.add_argument(
        "--methods", type=_names, required=True, metavar="A,B,...",
        help="such as sft,msft,msft:release,sft_equal_flops,placebo; or all",
    )  # fmt: skip
    compare.add_argument("--seeds", type=_positive, default=6, help="training seeds of each method (default: 6)")
    compare.add_argument("--jobs", type=_positive, default=1, help="runs at the same time (default: 1)")
    compare.add_argument("--redraw", action="store_true", help="each seed draws its own rows and splits, too")
    compare.add_argument("--against", metavar="METHOD", help="the reference (default: the first but sft)")
    compare.add_argument("--output", type=Path, help="the study's folder (default: <output>-compare)")
    compare.set_defaults(run=_compare, continues_by_itself=True)

    study = commands.add_parser("study", help="one of the paper's analyses on this job, or a question it leaves open")
    study.add_argument("name", choices=STUDIES, metavar="NAME", help=f"one of: {', '.join(STUDIES)}")
    _takes_config(study)
    study.add_argument("--seeds", type=_positive, default=3, help="training seeds of each run (default: 3)")
    study.add_argument("--jobs", type=_positive, default=1, help="runs at the same time (default: 1)")
    study.add_argument("--output", type=Path, help="the study's folder (default: <output>-NAME)")
    study.set_defaults(run=_study, continues_by_itself=True)

    report = commands.add_parser("report", help="the table and the page of a run, finished or not, or of several")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder, or a folder of such folders")
    report.add_argument("--page", type=Path, help="where to write the page (default: report.html in the folder)")
    report.add_argument("--watch", action="store_true", help="write the page again and again until the run is finished")
    report.set_defaults(run=_report)

    status = commands.add_parser("status", help="where a run stands, beside it or after it")
    status.add_argument("run_folder", type=Path, metavar="RUN", help="the run's folder")
    status.set_defaults(run=_status)

    export = commands.add_parser("export", help="a plain Hugging Face folder out of a finished run")
    export.add_argument("run_folder", type=Path, metavar="RUN", help="the run's folder")
    export.add_argument("--output", type=Path, metavar="DIR", help="where to write it (default: export in the run)")
    export.add_argument("--merge", action="store_true", help="merge an adapter into its base: a whole model")
    export.add_argument("--dtype", choices=DTYPES, help="of the weights (default: as trained, float32)")
    export.add_argument("--push-to-hub", metavar="ID", help="upload it too, as user/name on the Hugging Face hub")
    export.add_argument("--private", action="store_true", help="where the hub's repository is made, make it private")
    export.set_defaults(run=_export)

    evaluate = commands.add_parser("eval", help="score the final model of a run, or any model folder, on a split")
    evaluate.add_argument("model", metavar="RUN|MODEL", help="a run's folder, or a model's folder or hub id")
    evaluate.add_argument("--config", type=Path, help="whose data to score on (default: the run's own)")
    evaluate.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="default: validation")
    evaluate.add_argument("--json", action="store_true", help="print JSON, for scripts")
    _takes_overrides(evaluate)
    evaluate.set_defaults(run=_eval)

    quickstart = commands.add_parser("quickstart", help="plain SFT and a search on a laptop CPU, offline, in minutes")
    quickstart.add_argument(
        "--output", type=Path, default=Path("runs/quickstart"), help="holds both runs; repeated, it continues them"
    )
    quickstart.set_defaults(run=_quickstart, continues_by_itself=True)

    env = commands.add_parser("env", help="versions, hardware and settings: what a bug report needs")
    env.set_defaults(run=_env)

    explain(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--import", dest="imports", action="append", default=[], metavar="MODULE",
            help="a module that registers a method of your own (msft.methods.register)",
        )  # fmt: skip
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
        raise argparse.ArgumentTypeError(f"{text} is not a number of rows")
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

    from msft.cli.json_schema import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")


def _train(arguments: argparse.Namespace) -> None:
    stopwatch = Stopwatch()
    with stopwatch.running(), spent("start.imports"), loading():
        from msft.cli.train import read, run

    config, overrides = read(
        arguments.config, arguments.overrides, resume=arguments.resume, allow_changed=arguments.allow_changed
    )
    run(
        config, overrides=overrides, resume=arguments.resume, allow_changed=arguments.allow_changed,
        stopwatch=stopwatch,
    )  # fmt: skip


def _compare(arguments: argparse.Namespace) -> int:
    with loading():
        from msft.cli.compare import run
        from msft.config.reader import load

    return run(
        load(arguments.config, arguments.overrides),
        arguments.methods,
        seeds=arguments.seeds,
        jobs=arguments.jobs,
        redraw=arguments.redraw,
        output=arguments.output,
        against=arguments.against,
    )


def _study(arguments: argparse.Namespace) -> None:
    with loading():
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

    run(arguments.output)


def _env(_: argparse.Namespace) -> None:
    from msft.cli.env import run

    run()
