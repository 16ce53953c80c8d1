"""Modules of `--import`, each of which registers a method (`msft.methods.register`)."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from msft.core.errors import ConfigError, complaint, in_a_line
from msft.methods import IMPORTED, METHODS


def import_methods(modules: Sequence[str]) -> None:
    """Imports modules from the working directory, or installed ones. Raises ConfigError."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # and there it stays: processes of a study import the module too
    for name in modules:
        _import(name.removesuffix(".py"))


def _import(name: str) -> None:
    field = f"--import {name}"
    fresh, before = name not in sys.modules, set(METHODS)
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            fix = "put the file into the working directory, or install its package"
            raise ConfigError(complaint(f"there is no module {name}", fix, field=field)) from None
        raise ConfigError(complaint(f"it needs {error.name}, which is missing", "install it", field=field)) from error
    except Exception as error:  # a module may do anything when it is imported
        found = f"the module cannot be imported ({in_a_line(error)})"
        raise ConfigError(complaint(found, "correct the module", field=field)) from error
    if fresh and set(METHODS) == before:
        fix = "call msft.methods.register(name, method) at its end"
        raise ConfigError(complaint("the module registers no method", fix, field=field))
    IMPORTED.update(dict.fromkeys(set(METHODS) - before, name))
