"""`msft`: the commands. An error that a user can fix ends with a message and exit code 2, never with a traceback."""

from __future__ import annotations

import argparse
import logging
import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msft.cli.arguments import parser
from msft.cli.encodable import not_written, use_plain_characters
from msft.cli.encodable import said as not_encodable
from msft.cli.loading import loading
from msft.core.errors import Stopped, UserError
from msft.core.plain_words import is_control
from msft.screen.console import new_console
from msft.system.host import limit_threads
from msft.system.large_pages import use_large_pages
from msft.system.stopwatch import Stopwatch, spent

if TYPE_CHECKING:
    from msft.config.schema import Config
    from msft.study.clusters import Backend

COMPUTING = {"train", "compare", "study", "eval", "quickstart"}
"""Commands that train or score."""
SIGNALLED = 128
"""Beside the number of the signal, the exit code of a command that it ended."""


def entry() -> None:
    if COMPUTING & set(sys.argv[1:]):
        use_large_pages()
    # Read by torch at its first allocation: it asks for large pages too, for large tensors, which the C library does
    # not manage.
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    limit_threads()
    # At import, which peft does, it may warn of faster kernels in another package.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    use_plain_characters()
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Runs a command and returns its exit code.

    0, 1 if runs of a study failed, 2 for an error that the user can fix, 128 and the number of a signal that ended it:
    130 for Ctrl-C, 143 for SIGTERM.
    """
    arguments = parser().parse_args(argv)
    try:
        _know_methods(arguments.imports)
        return COMMANDS[arguments.command](arguments) or 0
    except UserError as error:
        _say(f"msft: {_with_places(str(error), arguments)}")
        return 2
    except UnicodeEncodeError as error:
        _say(f"msft: {not_encodable(error)}")
        return 2
    except OSError as error:
        if (found := not_written(error)) is None:
            raise
        _say(f"msft: {found}")
        return 2
    except Stopped as stopped:
        continues = arguments.continues_by_itself or {"--resume", "--resume-if-begun"} & set(argv)
        more = [] if continues else ["--resume"]
        again = shlex.join(["msft", *argv, *more])
        if _rank() == "0":  # all processes of a run stop together
            _say(f"msft: {signal.Signals(stopped.signal).name}: stopped; what is journaled is safe. Continue: {again}")
        return SIGNALLED + stopped.signal
    except RuntimeError as error:
        if not _left_alone(error):
            raise
        _say(f"msft: process {_rank()} ends, because another process of this run ended; that one says why")
        return 1
    except KeyboardInterrupt:
        _say(f"msft: interrupted; {_after_interrupt(arguments)}")
        return SIGNALLED + signal.SIGINT


def _rank() -> str:
    """The number of this process, among those that a launcher started together."""
    return os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"


def _left_alone(error: RuntimeError) -> bool:
    """Whether another process of the run ended while this one waited for it."""
    together = os.environ.get("WORLD_SIZE", "1") != "1"
    return together and ("closed by peer" in str(error) or "reset by peer" in str(error))


def _after_interrupt(arguments: argparse.Namespace) -> str:
    """What is left of a command that Ctrl-C ended outside a run's own steps, and how to go on."""
    safe = "what is journaled is safe: continue with"
    if arguments.continues_by_itself:
        return f"{safe} the same command"
    if arguments.command != "train":
        return "nothing is lost"
    from msft.cli.begun import begun

    try:
        return f"{safe} --resume" if begun(arguments.config, arguments.overrides) else "nothing had begun"
    except UserError:  # the configuration cannot be read, so nothing began
        return "nothing had begun"


def _know_methods(modules: Sequence[str]) -> None:
    """Registers the methods of installed packages and of the modules of `--import`. Raises ConfigError."""
    from msft.methods import load_installed

    for problem in load_installed():
        _say(f"msft: {problem}")
    if modules:
        from msft.cli.imports import import_methods

        import_methods(modules)


def _with_places(message: str, arguments: argparse.Namespace) -> str:
    """The message of an error, which names the lines of the configuration that it is about."""
    path: Path | None = getattr(arguments, "config", None)
    if path is None:
        return message
    from msft.config.written import located

    return located(message, path / "config.yaml" if path.is_dir() else path, arguments.overrides)


def _say(text: str) -> None:
    """A message; nothing that data or names put into it may move the cursor."""
    # Bytes of names that are not text would vanish too, so they are shown as escapes.
    text = text.encode("utf-8", "backslashreplace").decode()
    shown = "".join(c for c in text if c == "\n" or not is_control(c))
    new_console(stderr=True, highlight=False).print(shown, markup=False, soft_wrap=True)


# The commands import what they need when they are called: torch alone costs seconds, and `--help` needs none. A
# configuration is read before, so that a mistake in it is told at once.


def _config(arguments: argparse.Namespace) -> Config:
    from msft.config.reader import load

    return load(arguments.config, arguments.overrides)


def _check(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    with loading():
        from msft.cli.check import run

    run(
        config,
        jobs=arguments.jobs,
        gpu_bytes=arguments.gpu_memory,
        machine=arguments.on,
        as_json=arguments.json,
    )


def _preview(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    with loading():
        from msft.cli.preview import run

    run(config, rows=arguments.rows, task=arguments.task)


def _init(arguments: argparse.Namespace) -> None:
    from msft.cli.init import write

    notes = write(arguments.folder, arguments.output, arguments.model)
    command = shlex.join(["msft", "check", str(arguments.output)])
    for line in (*notes, f"{arguments.output}: look it over, then: {command}"):
        new_console().print(line, markup=False, highlight=False, soft_wrap=True)


def _schema(_: argparse.Namespace) -> None:
    import json

    from msft.cli.json_schema import json_schema

    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n")


def _train(arguments: argparse.Namespace) -> None:
    from msft.cli.begun import begun, read

    path, changed = arguments.config, arguments.allow_changed
    resume = arguments.resume or (arguments.resume_if_begun and begun(path, arguments.overrides))
    config, overrides = read(path, arguments.overrides, resume=resume, allow_changed=changed)
    stopwatch = Stopwatch()
    with stopwatch.running(), spent("start.imports"), loading():
        from msft.cli.train import run

    run(config, overrides=overrides, resume=resume, allow_changed=changed, stopwatch=stopwatch)


def _compare(arguments: argparse.Namespace) -> int:
    config = _config(arguments)
    with loading():
        from msft.cli.compare import run

    return run(
        config,
        arguments.methods,
        seeds=arguments.seeds,
        jobs=arguments.jobs,
        redraw=arguments.redraw,
        output=arguments.output,
        against=arguments.against,
        backend=_backend(arguments),
    )


def _study(arguments: argparse.Namespace) -> None:
    config = _config(arguments)
    with loading():
        from msft.cli.study import run

    run(
        arguments.name,
        config,
        arguments.output,
        seeds=arguments.seeds,
        jobs=arguments.jobs,
        backend=_backend(arguments),
    )


def _backend(arguments: argparse.Namespace) -> Backend:
    from msft.study.clusters import Backend

    return Backend(
        where=arguments.backend,
        gpus=arguments.gpus_per_run,
        cpus=arguments.cpus_per_run,
        options=dict(arguments.backend_option),
    )


def _report(arguments: argparse.Namespace) -> None:
    from msft.cli.report import run

    run(arguments.runs, arguments.page, watch=arguments.watch)


def _status(arguments: argparse.Namespace) -> None:
    from msft.cli.status import run

    run(arguments.run_folder)


def _export(arguments: argparse.Namespace) -> None:
    from msft.cli.export import run

    run(
        arguments.run_folder, arguments.output, arguments.overrides, merge=arguments.merge, dtype=arguments.dtype,
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


COMMANDS: dict[str, Callable[[argparse.Namespace], int | None]] = {
    "check": _check,
    "preview": _preview,
    "init": _init,
    "schema": _schema,
    "train": _train,
    "compare": _compare,
    "study": _study,
    "report": _report,
    "status": _status,
    "export": _export,
    "eval": _eval,
    "quickstart": _quickstart,
    "env": _env,
}
