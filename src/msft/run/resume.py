"""Checks before a run starts or continues: disk space, the same run, undamaged files (design 3.8, 3.15)."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from msft.config.reader import output_of
from msft.core.errors import ConfigError, Diverged, RunError, complaint
from msft.core.retention import Limits
from msft.core.vocabulary import Snapshot
from msft.core.wire import KEPT_NAMES, Json, KeyPath, changed, dotted
from msft.record.journal import Transcript, canonical, digest
from msft.record.run_folder import INPUTS, RunFolder
from msft.report.cost import MAX, RATE, limits_of, rates_of
from msft.report.words import scaled
from msft.snapshots.publish import MANIFEST, read_manifest, sweep, verify
from msft.snapshots.store import Store
from msft.system import files

RESERVE = 64 << 20
"""Bytes that must stay free beside snapshots and model: journal, sidecars, page."""
HARMLESS = (
    "environment", "environment.*", "model.name_or_path", "datasets.*.path", "aggregate.path", "snapshots.durable",
    "snapshots.max", "training.learning_rate",
)  # fmt: skip
"""Fields that a resumed run may change with `--allow-changed`. Content is fingerprinted: a path may change, a file's
content may not. A new learning rate or `snapshots.max` applies from the next segment on."""
_ALIASES = {
    "model.name": "model.name_or_path",
    "msft": "environment.msft",
    "brief.horizon": "method.max_epochs",
    **{kept: name for name, kept in KEPT_NAMES.items()},
}
PARTS = "sharded_over"
"""Of the environment in the journal's header: over how many processes the model is split; absent where each holds all
of it."""
OF_DATA: Mapping[KeyPath, str] = {
    ("fingerprints", "data"): "",
    ("brief", "sizes"): "training examples in an epoch",
    ("brief", "pools"): "training examples",
    ("brief", "validation_sizes"): "validation items",
}
"""What of a header differs where data do: with numbers, what they count."""
_RATE, _BOUND = ("config", RATE), ("config", MAX)


def least_room(snapshot_bytes: int, model_bytes: int) -> int:
    """Bytes of the disk without which a run does not begin."""
    return 2 * snapshot_bytes + model_bytes + RESERVE


def check_room(folder: RunFolder, snapshot_bytes: int, model_bytes: int, past: Transcript | None = None) -> None:
    """Raises RunError unless two snapshots, the final model and a reserve fit.

    `past`: of a run that is resumed. Its snapshots and model take their room already, and it needs none for snapshots
    once it has its end.
    """
    wanted, free = least_room(snapshot_bytes, model_bytes), shutil.disk_usage(folder.path).free
    fix = "make room, or name another output folder"
    if past is not None:
        ended = past.final is not None
        wanted = max((model_bytes if ended else wanted) - _taken(folder), 0 if ended else RESERVE)
        fix = "make room, then continue: the same command with --resume"
    if free < wanted:
        need = f"need {scaled(wanted, 'B')}{' more' if past else ''}, and {scaled(free, 'B')} are free"
        found = f"two snapshots, the model and a reserve {need}"
        raise RunError(complaint(found, fix, file=folder.path, field="output"))


def _taken(folder: RunFolder) -> int:
    """Bytes of the snapshots and the final model that are there."""
    found = (file for place in (folder.snapshots, folder.final) for file in place.rglob("*"))
    return sum(file.stat().st_size for file in found if file.is_file())


def paused(error: OSError, folder: RunFolder, snapshot_bytes: int) -> RunError:
    """The error for a disk failure; what was durable before is intact."""
    there = next(path for path in (folder.path, *folder.path.absolute().parents) if path.exists())
    free, wanted = shutil.disk_usage(there).free, 2 * snapshot_bytes + RESERVE
    room, fix = f" ({scaled(free, 'B')} are free, {scaled(wanted, 'B')} are needed)", "free space or fix the disk"
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):  # more room would not help
        room, fix = "", "make the folder writable"
    gone = error.errno in (errno.ENOENT, errno.ESTALE)
    if gone:
        room, fix = ": it was moved, removed or changed while the run used it", "put it back as it was"
    if folder.exists or gone:
        found, fix = "the run is paused", f"{fix}, then continue: the same command with --resume"
    else:
        found, fix = "the run did not begin", f"{fix}, or name another output folder, then start again"
    return RunError(complaint(f"{found}: {error.strerror}{room}", fix, file=error.filename))


def identity(header: Json, position: Json) -> dict[str, Any]:
    """What a manifest records of its run: environment, fingerprints, and the journal's position."""
    prints = header["fingerprints"]
    return {
        "environment": header["environment"],
        "fingerprints": {
            "config": digest(canonical(header["config"])),
            "data": digest(canonical(prints["data"])),
            "model": prints["model"],
        },
        "journal": position,
    }


def reconcile(past: Transcript, now: Json, allowed: Collection[str], where: Path) -> list[tuple[KeyPath, Any, Any]]:
    """The differences between the run's header and the header of what would run now; all are in `allowed`.

    Raises Diverged for a difference that is not, RunError if a field in `allowed` is not one of `HARMLESS`.
    """
    for field in allowed:
        if not _harmless(field):
            found = f"{field} affects the result, or is not a field of a run"
            fix = f"start a new run folder; a resumed run may change {', '.join(HARMLESS)}"
            raise RunError(complaint(found, fix, field="--allow-changed"))
    recorded = {key: value for key, value in past.current.items() if key != "wire"}
    found_changes = changed(recorded, now)
    refused = [
        change
        for change in found_changes
        if not (_moved(*change[1:]) or any(_covers(field, _field(change[0])) for field in allowed))
    ]
    if refused:
        fixes = sorted({_field(path) for path, _, _ in refused})
        fix, may_change = "undo the change, or start a new run folder", []
        if all(map(_harmless, fixes)):
            may_change = fixes
            flags = " ".join(f"--allow-changed {_quoted(field)}" for field in fixes)
            fix = f"undo the change, or add {flags}, which the journal records"
        of_data = [path for path, _, _ in refused if path[:2] in OF_DATA]
        # Data differ also where a key of the configuration does, which is then what to undo.
        if of_data and all(path in of_data or _harmless(_field(path)) for path, _, _ in refused):
            fix = _about_data(str(recorded.get("msft", "")))
        tasks = recorded["brief"]["tasks"]
        said = list(dict.fromkeys(_difference(*change, tasks) for change in refused))
        raise Diverged(str(where), said, fix, may_change=may_change)
    return found_changes


def _difference(path: KeyPath, was: Any, new: Any, tasks: Sequence[str]) -> str:
    """One difference, in words. `tasks`: the run's sub-datasets."""
    kind = OF_DATA.get(path[:2])
    if kind is None or None in (was, new) or len(path) < 3:
        return f"{_named(path)} was {was!r}, is now {new!r}"
    task = tasks[path[2]] if isinstance(path[2], int) else path[2]
    if not kind:
        return f"the data of datasets.{task} changed (its rows, their tokens or the scorer)"
    return f"datasets.{task} had {was:,} {kind}, has {new:,}"


def _moved(was: Any, now: Any) -> bool:
    """Whether it is the path of an input in the run's own folder, which lies elsewhere now."""
    if not (isinstance(was, str) and isinstance(now, str)):
        return False
    return all(Path(each).parent.name == INPUTS for each in (was, now)) and Path(was).name == Path(now).name


def _about_data(version: str) -> str:
    """What to do where the data's fingerprint differs; `version`: of the msft that made the run."""
    fix = "restore the data, the tokenizer and the chat template, or start a new run folder"
    if version.startswith("0.1."):
        fix += f" (if they are as they were: msft {version} tokenised prompts and completions apart)"
    return fix


def limits(past: Transcript, changes: Collection[tuple[KeyPath, Any, Any]]) -> Limits:
    """(first segment, `snapshots.max` from there on), in order."""
    now = [(len(past.segments) + 1, bound) for path, _, bound in changes if path == _BOUND]
    return [*limits_of(past.header, past.changes), *now]


def regrouped(past: Transcript, changes: Collection[tuple[KeyPath, Any, Any]]) -> bool:
    """Whether the run's model is, or was at some time, split over another number of processes than before."""
    paths = [tuple(change["path"]) for change in past.changes] + [tuple(path) for path, _, _ in changes]
    return ("environment", PARTS) in paths


def learning_rates(past: Transcript, changes: Collection[tuple[KeyPath, Any, Any]]) -> list[tuple[int, float]]:
    """(first segment, learning rate from there on), in order; a recomputed segment keeps its own rate."""
    rates = rates_of(past.header, past.changes)
    return rates + [(len(past.segments) + 1, float(now)) for path, _, now in changes if path == _RATE]


def check_journal_is_whole(records: int, folder: RunFolder, manifests: dict[Path, dict[str, Any]]) -> None:
    """Raises RunError if a snapshot or the final model was written after the last of the journal's `records`.

    `manifests`: those of the snapshots, by folder.
    """
    with suppress(RunError):  # where it is missing or damaged, it is made again
        manifests[folder.final] = read_manifest(folder.final)
    for path, said in manifests.items():
        known = said.get("run", {}).get("journal", {}).get("records", 0)
        if known > records:
            found = f"it holds {records} records, and {path / MANIFEST} was written after {known}"
            fix = "restore the journal from a copy, or start a new run folder"
            raise RunError(complaint(found, fix, file=folder.journal))


def discard_damaged(store: Store, needed: Collection[Snapshot], note: Callable[[str], None]) -> None:
    """Deletes needed snapshots that cannot be used, with a note; they are recomputed from their ancestors."""
    for number in sorted(set(needed) & set(store.on_disk())):
        try:
            store.check(number)
        except RunError as error:
            note(f"snapshot {number} cannot be used and is recomputed from an earlier one: {error}")
            store.discard(number)


def restore_derived(folder: RunFolder, contents: Mapping[Path, bytes], note: Callable[[str], None]) -> None:
    """Deletes what a crash left, and rewrites files whose content the journal has too."""
    sweep("run", folder.path)
    for file in folder.path.glob(".*.tmp"):
        files.remove("run", file)
    for file, content in contents.items():
        if not file.is_file() or file.read_bytes() != content:
            note(f"{file}: {_why_again(folder, file)}, and it is written again")
            files.replace(file.stem, file, content, place=False)


def _why_again(folder: RunFolder, file: Path) -> str:
    """What happened to a file of the run that is not as the journal has it."""
    if not file.exists():
        return "it was missing"
    place = None
    with suppress(ConfigError):  # it is gone, or damaged
        place = output_of(file) if file == folder.config else None
    if place is not None and place.resolve() != folder.path.resolve():
        return "it named another place, as the folder was moved or copied"
    return "its content had changed"


def final_is_whole(folder: RunFolder, about: Mapping[str, Any], note: Callable[[str], None]) -> bool:
    """Whether `final/` exists, is complete, and is of this run. A damaged one is noted."""
    if not folder.final.is_dir():
        return False
    try:
        whole = verify(folder.final).get("run") == about
    except RunError as error:
        note(f"the final model is written again: {error}")
        return False
    if not whole:
        note(f"{folder.final}: the final model is not the one of this run, and is written again")
    return whole


def _named(path: KeyPath) -> str:
    """The full name of a header field, or the configuration's name where the header has an older one."""
    field = _field(path)
    return field if field in KEPT_NAMES else dotted(path)


def _field(path: KeyPath) -> str:
    """The configuration's name of a header field, such as `training.learning_rate`."""
    field = dotted(path[1:] if path[0] == "config" else path)
    return _ALIASES.get(field, field)


def _harmless(field: str) -> bool:
    return any(fnmatchcase(field, pattern) for pattern in HARMLESS)


def _covers(allowed: str, field: str) -> bool:
    return field == allowed or field.startswith(f"{allowed}.")


def _quoted(field: str) -> str:
    return f'"{field}"' if " " in field else field
