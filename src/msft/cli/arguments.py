"""What can be given to the commands on the command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NoReturn, TypeAlias

from msft.cli.example_commands import STUDIES, explain
from msft.cli.machines import Machine, machine
from msft.core.paths import expanded, in_full
from msft.core.version import __version__

DTYPES = ("float32", "bfloat16", "float16")
SPLITS = ("validation", "test")


class Parser(argparse.ArgumentParser):
    """Says where values of the configuration go, which scripts of other trainers take as options."""

    def error(self, message: str) -> NoReturn:
        if message.startswith("unrecognized arguments: --"):
            message += ". Fix: give a value of the configuration as --set training.learning_rate=2e-5"
        super().error(message)


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="msft",
        description="Fine-tune one model on a mixture of data sets, each until its own peak.",
    )
    top.add_argument("--version", action="version", version=f"msft {__version__}")
    top.set_defaults(continues_by_itself=False, imports=[])
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", dest="command")

    _of_a_job(commands)
    _of_studies(commands)
    _of_a_run(commands)
    explain(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--import", dest="imports", action="append", default=[], metavar="MODULE",
            help="a module that registers a method of your own (msft.methods.register)",
        )  # fmt: skip
    return top


def _of_a_job(commands: Commands) -> None:
    check = commands.add_parser("check", help="what a job will take: data, steps, compute, disk; nothing is loaded")
    _takes_config(check)
    check.add_argument(
        "--jobs",
        type=_positive,
        default=1,
        help="plan the GPU's memory for so many runs of a study at a time (default: 1)",
    )
    where = check.add_mutually_exclusive_group()
    where.add_argument(
        "--gpu-memory", type=_gib, metavar="GIB", help="memory of the GPU to plan for (default: this machine's)"
    )
    where.add_argument(
        "--on", type=_machine, metavar="NxCARD",
        help="say whether the job fits on this machine, such as 8xH100, L4 or 2x24GiB, and what to change if not",
    )  # fmt: skip
    check.add_argument("--json", action="store_true", help="print JSON, for scripts")

    preview = commands.add_parser("preview", help="a few examples as the model sees them, learned tokens marked")
    _takes_config(preview)
    preview.add_argument("--rows", type=_count, default=3, help="training examples of each sub-dataset (default: 3)")
    preview.add_argument("--task", metavar="ID", help="only this sub-dataset")

    init = commands.add_parser("init", help="write a configuration for a folder of data files")
    init.add_argument("folder", type=expanded, metavar="FOLDER", help="holds .jsonl, .json, .parquet or .csv files")
    init.add_argument("-o", "--output", type=expanded, default=Path("config.yaml"), help="default: config.yaml")
    init.add_argument("--model", help="hub id or folder of the base model")

    commands.add_parser("schema", help="the JSON Schema of a configuration, for editors")

    train = commands.add_parser("train", help="run the job of a configuration file")
    train.add_argument("config", type=expanded, help="the configuration (YAML); with --resume also the folder of a run")
    _takes_overrides(train)
    train.add_argument(
        "--resume", action="store_true", help="continue the run in the output folder, with the --set that it began with"
    )
    train.add_argument(
        "--resume-if-begun", action="store_true",
        help="as --resume if the output folder holds a run, else begin one: for jobs that a scheduler starts again",
    )  # fmt: skip
    train.add_argument(
        "--allow-changed", action="append", default=[], metavar="FIELD",
        help="with --resume: continue although this differs, such as environment, model.name_or_path, "
        "datasets.gsm8k.path (moved, with the same content) or training.learning_rate; the journal notes it",
    )  # fmt: skip


def _of_studies(commands: Commands) -> None:
    compare = commands.add_parser("compare", help="methods side by side on the same splits, with statistics")
    _takes_config(compare)
    compare.add_argument(
        "--methods", type=_names, required=True, metavar="A,B,...",
        help="such as sft_average,auto,msft_average,sft_decay,msft:release; or all",
    )  # fmt: skip
    compare.add_argument("--seeds", type=_positive, default=6, help="training seeds of each method (default: 6)")
    compare.add_argument("--jobs", type=_positive, default=1, help="runs at the same time (default: 1)")
    _takes_backend(compare)
    compare.add_argument("--redraw", action="store_true", help="each seed draws its own rows and splits, too")
    compare.add_argument(
        "--against", metavar="METHOD", help="the reference of all differences (default: sft, or the first plain SFT)"
    )
    compare.add_argument("--output", type=expanded, help="the study's folder (default: <output>-compare)")
    compare.set_defaults(continues_by_itself=True)

    study = commands.add_parser(
        "study", help="one diagnostic of this job over several seeds: a page that answers a question"
    )
    study.add_argument("name", choices=STUDIES, metavar="NAME", help=f"one of: {', '.join(STUDIES)}")
    _takes_config(study)
    study.add_argument("--seeds", type=_positive, default=3, help="training seeds of each run (default: 3)")
    study.add_argument("--jobs", type=_positive, default=1, help="runs at the same time (default: 1)")
    _takes_backend(study)
    study.add_argument("--output", type=expanded, help="the study's folder (default: <output>-NAME)")
    study.set_defaults(continues_by_itself=True)


def _takes_backend(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--backend", choices=("local", "ray", "slurm"), default="local",
        help="where the runs are: processes of this machine (default), a Ray cluster, or jobs of SLURM",
    )  # fmt: skip
    command.add_argument(
        "--gpus-per-run",
        type=float,
        metavar="N",
        help="GPUs of each run, on a cluster (default: 1 where the cluster has any; with 0.5, two runs share one)",
    )
    command.add_argument(
        "--cpus-per-run", type=_positive, default=1, metavar="N", help="CPUs of each run, on a cluster (default: 1)"
    )
    command.add_argument(
        "--backend-option", type=_pair, action="append", default=[], metavar="KEY=VALUE",
        help="for slurm: a parameter of submitit, such as slurm_partition=gpu or timeout_min=600",
    )  # fmt: skip


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"write KEY=VALUE, such as slurm_partition=gpu, and not {text!r}")
    return key, value


def _of_a_run(commands: Commands) -> None:
    report = commands.add_parser("report", help="the table and the page of a run, finished or not, or of several")
    report.add_argument(
        "runs", type=expanded, nargs="+", metavar="RUN", help="a run's folder, or a folder of such folders"
    )
    report.add_argument(
        "--page", type=expanded,
        help="where to write the page (default: report.html in the run's folder; of several runs, in the nearest "
        "folder that holds them all, where it replaces no other page than one of several runs)",
    )  # fmt: skip
    report.add_argument("--watch", action="store_true", help="write the page again and again until the run is finished")

    status = commands.add_parser("status", help="how far a run is, while it runs or afterwards")
    status.add_argument("run_folder", type=expanded, metavar="RUN", help="the run's folder")

    export = commands.add_parser("export", help="a plain Hugging Face folder out of a finished run")
    export.add_argument("run_folder", type=expanded, metavar="RUN", help="the run's folder")
    export.add_argument("--output", type=expanded, metavar="DIR", help="where to write it (default: export in the run)")
    export.add_argument("--merge", action="store_true", help="merge an adapter into its base: a whole model")
    export.add_argument(
        "--dtype", choices=DTYPES, help="type of the weights that are written (default: as trained, float32)"
    )
    export.add_argument("--push-to-hub", metavar="ID", help="upload it too, as user/name on the Hugging Face hub")
    export.add_argument("--private", action="store_true", help="where the hub's repository is made, make it private")
    export.add_argument(
        "--set", dest="overrides", action="append", default=[], metavar="model.name_or_path=DIR",
        help="with --merge: where the base of the adapter lies now, if it was moved",
    )  # fmt: skip

    evaluate = commands.add_parser("eval", help="score the final model of a run, or any model folder, on a split")
    evaluate.add_argument(
        "model", type=in_full, metavar="RUN|MODEL", help="a run's folder, or a model's folder or hub id"
    )
    evaluate.add_argument(
        "--config", type=expanded, help="score on the data of this configuration (default: the run's own)"
    )
    evaluate.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="default: validation")
    evaluate.add_argument("--json", action="store_true", help="print JSON, for scripts")
    _takes_overrides(evaluate)

    quickstart = commands.add_parser("quickstart", help="plain SFT and a search on a laptop CPU, offline, in minutes")
    quickstart.add_argument(
        "--output",
        type=expanded,
        default=Path("runs/quickstart"),
        help="folder of both runs; the same command continues them (default: runs/quickstart)",
    )
    quickstart.set_defaults(continues_by_itself=True)

    commands.add_parser("env", help="versions, hardware and settings: what a bug report needs")


def _takes_config(command: argparse.ArgumentParser) -> None:
    command.add_argument("config", type=expanded, help="the configuration (YAML)")
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


def _gib(text: str) -> int:
    """Bytes."""
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not a number of GiB")
    return int(found * 2**30)


def _machine(text: str) -> Machine:
    try:
        return machine(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]
