"""What `msft train` starts from: a configuration, or a run that was begun. Loads none of the large libraries, so that
a mistake is told at once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from msft.config.reader import load, output_of, with_absolute_path
from msft.config.schema import Config
from msft.config.written import key_of
from msft.core.errors import ConfigError, complaint
from msft.record.run_folder import RunFolder
from msft.run.moved import config_of


def begun(path: Path, overrides: Sequence[str]) -> bool:
    """Whether the output folder of a configuration holds a run that can be resumed. Raises ConfigError."""
    output = path if path.is_dir() else output_of(path, overrides)
    return output is not None and RunFolder(output).exists


def read(
    path: Path, overrides: Sequence[str], *, resume: bool, allow_changed: Collection[str] = ()
) -> tuple[Config, list[str]]:
    """The configuration of a run, from a file or from the folder of a run that is resumed, and its overrides: those
    that the run began with are applied again. Raises ConfigError or RunError, also where one of them would undo a
    change of the file that `allow_changed` allows."""
    folder = RunFolder(path)
    if resume and not path.exists():
        found, fix = "there is no such file or folder", "name the configuration, or the folder of the run"
        raise ConfigError(complaint(found, fix, file=path))
    if not path.is_dir():
        output = output_of(path, overrides) if resume else None
        kept = list(overrides) if output is None else _kept(RunFolder(output), overrides)
        _check_changed(kept, overrides, allow_changed)
        return load(path, kept), _to_keep(kept, path.parent)
    if not resume and folder.exists:
        fix = "add --resume to continue the run, or name a configuration file"
        raise ConfigError(complaint("this is the folder of a run, not a configuration", fix, file=path))
    if not resume:
        raise ConfigError(complaint("this is a folder", "name a configuration file", file=path))
    folder.check_resumable()
    if any(key_of(override) == "output" for override in overrides):
        found = "the run that is resumed is the one in the folder that is named"
        raise ConfigError(complaint(found, "omit it", file="--set", field="output"))
    return config_of(folder, overrides), _to_keep(_kept(folder, overrides), path)


def _kept(folder: RunFolder, overrides: Sequence[str]) -> list[str]:
    """The overrides that a run began with, and the new ones."""
    new = set(map(key_of, overrides))
    return [*(kept for kept in folder.read_overrides() if key_of(kept) not in new), *overrides]


def _check_changed(kept: Sequence[str], overrides: Sequence[str], allowed: Collection[str]) -> None:
    """Raises ConfigError if a field that may change has an override of the run, which would hide a new value in the
    file."""
    for override in kept:
        if key_of(override) in allowed and override not in overrides:
            found = f"the run began with --set {override}, which applies again, whatever the file says"
            fix = f"give the new value as --set {key_of(override)}=VALUE"
            raise ConfigError(complaint(found, fix, file="--allow-changed", field=key_of(override)))


def _to_keep(overrides: Sequence[str], folder: Path) -> list[str]:
    """Without the run folder, which may be moved, and such that they mean the same in any working directory. `folder`:
    that of the configuration."""
    return [with_absolute_path(override, folder) for override in overrides if key_of(override) != "output"]
