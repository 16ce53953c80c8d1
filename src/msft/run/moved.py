"""The configuration in the folder of a run, wherever the folder lies now."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from msft.config.reader import load
from msft.config.schema import Config
from msft.config.written import key_of
from msft.core.errors import ConfigError, complaint
from msft.methods import METHODS
from msft.record.run_folder import RunFolder

Section = TypeVar("Section", bound=BaseModel)
PATHS = ("path", "name_or_path", "tokenizer")
"""Keys that may name what was passed from Python as an object, and lies in the run's own `inputs/`."""

BASE = "model.name_or_path"


def config_of(run: RunFolder, overrides: Sequence[str] = ()) -> Config:
    """The run's configuration. If its folder was moved, or is seen from another working directory, `output` is where it
    is, and so are the model and data in it. Raises ConfigError."""
    if not run.config.exists():
        again = shlex.join(["msft", "train", "FILE", "--set", f"output={run.path}", "--resume"])
        fix = f"give the run's configuration again, which writes it: {again}"
        raise ConfigError(complaint("the run's configuration is missing", fix, file=run.config))
    config = load(run.config, overrides)
    if Path(config.output).resolve() == run.path.resolve():
        return config
    update = {
        "output": str(run.path),
        "model": _found(config.model, run),
        "datasets": tuple(_found(dataset, run) for dataset in config.datasets),
        "aggregate": None if config.aggregate is None else _found(config.aggregate, run),
    }
    return config.model_copy(update=update)


def config_of_model(run: RunFolder, overrides: Sequence[str] = ()) -> Config:
    """The run's configuration, to score or export its model, which needs no method: where that is not known here (it is
    of one's own, and there is no `--import`), plain SFT stands in its place. Raises ConfigError, RunError."""
    header = run.transcript().header
    if header.get("method") in METHODS:
        return config_of(run, overrides)
    refit = "true" if header.get("config", {}).get("method.refit") else "false"  # which decides the rows of the splits
    return config_of(run, [*overrides, f"method={{name: sft, refit: {refit}}}"])


def moved_base(run: RunFolder, overrides: Sequence[str], *, only: bool = False) -> str | None:
    """Where `--set model.name_or_path` says that the base of the run's adapter lies now; None: where it was.

    Raises ConfigError for other keys of the model, which is the run's own, but `model.precision`; with `only`, for
    every other key.
    """
    keys = [key_of(override) for override in overrides]
    for key in keys:
        of_model = key.partition(".")[0] in ("model", "peft") and key != "model.precision"
        if key != BASE and (only or of_model):
            found = "the model of a run is its own: this key does not apply"
            fix = f"leave it out; {BASE} may name the place where the base of an adapter lies now"
            raise ConfigError(complaint(found, fix, field=f"--set {key}"))
    if BASE not in keys:
        return None
    given = [override for override, key in zip(overrides, keys, strict=True) if key == BASE]
    return config_of_model(run, given).model.name_or_path


def _found(section: Section, run: RunFolder) -> Section:
    """The section with the paths of inputs that lie in this folder now, those of its splits too."""
    update: dict[str, object] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            update[name] = _found(value, run)
        elif name in PATHS and isinstance(value, str) and Path(value).parent.name == run.inputs.name:
            here = run.inputs / Path(value).name
            if here.exists() and not Path(value).exists():
                update[name] = str(here.resolve())
    return section.model_copy(update=update)
