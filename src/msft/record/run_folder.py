"""The run folder: the files of one run, the process that owns it, and its environment (design 4)."""

from __future__ import annotations

import fcntl
import json
import os
import platform
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from msft.core.errors import RunError, complaint
from msft.core.paths import absent
from msft.core.version import __version__
from msft.record.journal import Transcript, canonical, digest, read
from msft.system import files
from msft.system.locks import lock

LOCK = "lock"
INPUTS = "inputs"
STUDY = "study.json"
"""The record of a study, in the folder that holds its runs."""
LONGEST_NAME = 255
"""Maximum bytes of a folder's name in file systems."""
LIBRARIES = ("torch", "transformers", "accelerate", "peft", "datasets", "safetensors", "numpy")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The files of a run. Their names are defined only here."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def overrides(self) -> Path:
        """What was given as `--set` when the run began; there is no file if nothing was."""
        return self.path / "overrides.json"

    @property
    def notes(self) -> Path:
        return self.path / "notes.json"

    @property
    def trackers(self) -> Path:
        return self.path / "trackers"

    @property
    def journal(self) -> Path:
        return self.path / "journal.jsonl"

    @property
    def sidecars(self) -> Path:
        return self.path / "sidecars"

    @property
    def timings(self) -> Path:
        return self.path / "timings.jsonl"

    @property
    def snapshots(self) -> Path:
        return self.path / "snapshots"

    @property
    def summary(self) -> Path:
        return self.path / "summary.json"

    @property
    def samples(self) -> Path:
        """What base model and final model answer to a few prompts; for people, outside every hash."""
        return self.path / "samples.json"

    @property
    def page(self) -> Path:
        return self.path / "report.html"

    @property
    def inputs(self) -> Path:
        """Model and data that were passed as objects, saved as files."""
        return self.path / INPUTS

    @property
    def final(self) -> Path:
        return self.path / "final"

    @property
    def lock(self) -> Path:
        return self.path / LOCK

    @property
    def exists(self) -> bool:
        """Whether the folder contains a run."""
        try:
            return self.journal.exists()
        except OSError:  # not a valid name of a folder
            return False

    @property
    def visited(self) -> bool:
        """Whether a process has owned the folder."""
        try:
            return self.lock.exists()
        except OSError:  # not a valid name of a folder
            return False

    def holds(self, file: str | None) -> bool:
        """Whether a path, as given by an error, is the folder, is in it, or is its parent."""
        return file is not None and (Path(file) == self.path.parent or Path(file).is_relative_to(self.path))

    def check_free(self) -> None:
        """Raises RunError if the folder contains something else, or cannot be made. Writes nothing."""
        # `exists` is False for a broken link, but no folder can be made in its place.
        there = next(place for place in (self.path, *self.path.absolute().parents) if os.path.lexists(place))
        if there != self.path and not there.is_dir():
            found = f"{there} is not a folder, so no folder can be made in it"
            raise RunError(complaint(found, "name another output folder", file=self.path, field="output"))
        if max(len(os.fsencode(part)) for part in self.path.absolute().parts) > LONGEST_NAME:
            found, fix = f"a name in it has more than {LONGEST_NAME} bytes", "name a shorter output folder"
            raise RunError(complaint(found, fix, file=self.path, field="output"))
        if self.exists:
            fix = "add --resume to continue it, or name another output folder"
            raise RunError(complaint("this folder already holds a run", fix, file=self.path, field="output"))
        self._check_no_orphans()
        # A run that ended before its first record has no results: a new run may replace it.
        ours = {
            file.name
            for file in (
                self.config, self.environment, self.overrides, self.notes, self.trackers, self.journal, self.timings,
                self.snapshots, self.inputs,
            )
        }  # fmt: skip
        if there == self.path and not (self.path.is_dir() and files.holds_only(self.path, {LOCK, *ours})):
            raise RunError(
                complaint("this is not an empty folder", "name another output folder", file=self.path, field="output")
            )

    def check_resumable(self) -> None:
        """Raises RunError if the folder contains no run. Writes nothing."""
        if not self.exists:
            self._check_no_orphans()
            fix = "leave out --resume to start one, or name the folder of a run"
            found = "this folder holds no run to resume"
            if (self.path / STUDY).exists():
                found, fix = "this is the folder of a study", "repeat the command that began it, which continues it"
            raise RunError(complaint(found, fix, file=self.path, field="output"))

    def _check_no_orphans(self) -> None:
        if self.final.exists() or (
            self.snapshots.is_dir() and any(p.name.isdecimal() for p in self.snapshots.iterdir())
        ):
            fix = "restore journal.jsonl from a copy, or name another output folder"
            raise RunError(complaint("there are snapshots or a model here, but no journal", fix, file=self.journal))

    def create(self) -> None:
        if not self.path.is_dir():  # the mode of a folder that the user made is the user's
            files.make_folder("run", self.path, mode=0o700)
            self.path.chmod(0o700)

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Locks the folder in this context; the kernel releases the lock if the process dies.

        Raises RunError if another process has locked it, or nothing can be locked there.
        """
        with self.lock.open("a+", encoding="utf-8") as file:
            if not lock(file, self.path, fcntl.LOCK_EX | fcntl.LOCK_NB):
                file.seek(0)
                owner = file.read().strip() or "another process"
                fix = "wait for it, stop it, or name another output folder"
                raise RunError(complaint(f"{owner} is using this folder", fix, file=self.path))
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} on {socket.gethostname()}")
            file.flush()
            yield

    def owner(self) -> str | None:
        """The process that uses the folder; None if it is free."""
        try:
            with (self.path / LOCK).open(encoding="utf-8") as file:
                free = lock(file, self.path, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None if free else file.read().strip() or "another process"
        except (OSError, RunError):
            return None

    def transcript(self) -> Transcript:
        """The content of the journal so far; can be called while a search is running."""
        if not self.exists:
            fix = "name the folder of a run: it holds journal.jsonl"
            found = "this folder holds no run" if self.path.exists() else absent(self.path)
            raise RunError(complaint(found, fix, file=self.path))
        return read(self.journal, self.sidecars)

    def write_json(self, file: Path, content: Any, *, place: bool = True) -> None:
        """`place=False`: see `files.replace`."""
        data = (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
        files.replace(file.stem, file, data, place=place)

    def add_timing(self, entry: dict[str, Any]) -> None:
        """Appends times to `timings.jsonl`, outside every hash and not durable; only the times depend on it."""
        text = json.dumps(entry)
        # The line feed comes first, so that an entry after a torn line is still on a separate line.
        files.append("timings", self.timings, f"\n{digest(text)[:8]} {text}".encode(), durable=False)

    def read_timings(self) -> list[dict[str, Any]]:
        """The entries of all complete lines; torn or damaged lines are skipped."""
        if not self.timings.exists():
            return []
        lines = (line.partition(" ") for line in self.timings.read_text("utf-8", errors="replace").split("\n"))
        return [json.loads(text) for check, _, text in lines if text and check == digest(text)[:8]]

    def read_notes(self) -> list[str]:
        """The notes about the data from the start of the run; empty if the file is missing or damaged."""
        return _texts(self.notes)

    def read_samples(self) -> dict[str, Any]:
        """What `write_samples` was given; empty if the file is missing, damaged, or not of this run's journal."""
        try:
            content = json.loads(self.samples.read_text(encoding="utf-8"))
            whole = content["sha"] == digest(canonical(content["body"])) and content["body"]["head"] == self._head
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return dict(content["body"]) if whole else {}

    def write_samples(self, samples: Mapping[str, Any]) -> None:
        """Durable once the folder's entries are; beside them stands which journal they belong to."""
        body = {**samples, "head": self._head}
        self.write_json(self.samples, {"sha": digest(canonical(body)), "body": body}, place=False)

    @property
    def _head(self) -> str:
        """The hash of the journal's last record."""
        last: dict[str, str] = json.loads(self.journal.read_bytes().rstrip(b"\n").rpartition(b"\n")[2])
        return last["sha"]

    def read_overrides(self) -> list[str]:
        """What `--set` was given when the run began; empty if the file is missing or damaged."""
        return _texts(self.overrides)

    def keep_overrides(self, overrides: Sequence[str]) -> None:
        """Writes them, unless they are what is there."""
        if list(overrides) != self.read_overrides():
            self.write_json(self.overrides, list(overrides), place=False)


def _texts(file: Path) -> list[str]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [text for text in content if isinstance(text, str)] if isinstance(content, list) else []


def environment(also: Sequence[str] = ()) -> dict[str, Any]:
    """What a result may depend on in addition to configuration, data and model; `also`: further libraries."""
    return {
        "msft": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "libraries": {name: _version(name) for name in (*LIBRARIES, *also)},
    }


@cache
def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
