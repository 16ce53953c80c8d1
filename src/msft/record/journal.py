"""The append-only record of a run, which together with the configuration is the run's complete state (design 2.1).

One line per record, JSON: ``{"seq", "prev", "kind", "body", "sha"}``, where `sha` is the SHA-256 of the line without
it and `prev` the `sha` of the line before. A line is durable (fsync) before anything acts on it. A torn last line had
no effect yet and is cut off; a damaged line anywhere else is an error. Per-item scores and losses are in sidecar files,
named by their content hash and durable before the line that names them. Kinds: `header`, `segment`, `change` (a setting
that the user changed from here on) and `final`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msft.core.errors import RunError, complaint
from msft.core.vocabulary import Brief, Outcome, Segment
from msft.core.wire import (
    VERSION,
    Json,
    brief_from_json,
    outcome_from_json,
    outcome_to_json,
    segment_from_json,
    segment_to_json,
)
from msft.system import files

SIDECAR_FIELDS = ("items", "metrics", "losses")
FIRST = "0" * 64
_SEAL = len(',"sha":""}') + 64
RESTORE = "restore the file from a copy, or start a new run folder"


def canonical(data: Any) -> str:
    """One JSON text per value: sorted keys, no spaces, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Transcript:
    """The checked content of a journal."""

    header: Json
    segments: list[tuple[Segment, Outcome]]
    """Segment number k is entry k - 1."""
    final: Json | None = None
    torn: int = 0
    """Bytes of a torn last line, which were not read."""
    changes: Sequence[Json] = ()
    """Each: `{"since": number of the first segment it applies to, "path": keys in the header, "was", "now"}`."""

    @property
    def current(self) -> Json:
        """The header with all changes applied."""
        header: Json = json.loads(json.dumps(self.header))
        for change in self.changes:
            place = header
            for key in change["path"][:-1]:
                place = place[key]
            place[change["path"][-1]] = change["now"]
        return header

    @property
    def day(self) -> str | None:
        """The day that the run's chat template writes (`data.date`); None if it writes none."""
        day = self.header["config"].get("data.date")
        return day if isinstance(day, str) else None

    @property
    def score_excluded(self) -> str:
        """`method.score_excluded` as it was decided when the run began."""
        return str(self.header["config"].get("method.score_excluded", "rollout"))

    @property
    def records(self) -> int:
        """The number of complete records: the header, the segments, the changes and the end."""
        return 1 + len(self.segments) + len(self.changes) + (self.final is not None)

    @property
    def brief(self) -> Brief:
        """The brief, with `params` as a plain mapping of the method's parameters."""
        return brief_from_json(self.header["brief"], params=self.header["brief"]["params"])


@dataclass
class Journal:
    """A journal open for appending. Use `create` or `resume`; to read only, use `read`."""

    path: Path
    sidecars: Path
    heads: list[str] = field(default_factory=list)
    """The `sha` of every record."""
    before: list[int] = field(default_factory=list)
    """Number of records before that of segment 1, 2, ..."""
    found: set[str] = field(default_factory=set)
    """The sidecar files named in the records that existed at `resume`."""
    size: int = 0
    """Bytes of all records."""

    @classmethod
    def create(cls, path: Path, sidecars: Path, header: Json) -> Journal:
        """Writes the header atomically: if the file exists, it is a run."""
        journal = cls(path, sidecars)
        line = journal._line("header", {"wire": VERSION, **header})
        files.replace("journal.create", path, line)
        journal.size = len(line)
        return journal

    @classmethod
    def resume(cls, path: Path, sidecars: Path) -> tuple[Journal, Transcript]:
        """Reads the journal, cuts off a torn last line, and opens it for appending.

        The content may not be durable yet, if the process died before it could sync it, so it is synced first.
        """
        read = _Reading(path, sidecars)
        if read.torn:
            files.cut("journal.cut", path, read.good)
        files.sync("journal.found", path)
        files.sync("journal.placed", path.parent)
        return cls(path, sidecars, read.heads, read.before, read.sidecar_names, read.good), read.transcript()

    def sweep(self) -> None:
        """Deletes sidecar files whose records were never written. Call it only after `resume`."""
        for file in sorted(self.sidecars.iterdir()) if self.sidecars.is_dir() else []:
            if file.name not in self.found:
                files.remove("sidecar.orphan", file)

    def segment(self, number: int, segment: Segment, outcome: Outcome) -> None:
        """Records a segment: the commit point of the segment."""
        body = outcome_to_json(outcome)
        for name in SIDECAR_FIELDS:
            if body.get(name) is not None:
                body[name] = self._sidecar(name, number, body[name])
        self._append("segment", {"number": number, "segment": segment_to_json(segment), "outcome": body})
        self.before.append(len(self.heads) - 1)

    def change(self, path: Sequence[str | int], was: Any, now: Any) -> None:
        """Records that from the next segment on the header's value at `path` is `now`."""
        self._append("change", {"since": len(self.before) + 1, "path": list(path), "was": was, "now": now})

    def final(self, body: Json) -> None:
        """Records the end of the run: its final model, and what was measured on it."""
        self._append("final", body)

    def position(self, number: int | None = None) -> Json:
        """Number of records, and hash of the last, when segment `number` was run, or now if it has not run yet."""
        known = number is not None and number <= len(self.before)
        records = self.before[number - 1] if known and number is not None else len(self.heads)
        return {"records": records, "head": self.heads[records - 1]}

    def _sidecar(self, name: str, number: int, data: Any) -> Json:
        text = canonical(data)
        file = self.sidecars / f"{number:06d}-{name}-{digest(text)[:16]}.json"
        files.make_folder("sidecar", self.sidecars, mode=0o700, home=self.path.parent)
        files.replace("sidecar", file, text.encode())
        return {"file": file.name, "sha256": digest(text)}

    def _line(self, kind: str, body: Json) -> bytes:
        head = self.heads[-1] if self.heads else FIRST
        record: Json = {"seq": len(self.heads), "prev": head, "kind": kind, "body": body}
        record["sha"] = digest(canonical(record))
        self.heads.append(record["sha"])
        return canonical(record).encode() + b"\n"

    def _append(self, kind: str, body: Json) -> None:
        line = self._line(kind, body)
        try:
            files.append("journal.append", self.path, line, at=self.size)
        except OSError:
            self.heads.pop()
            raise
        self.size += len(line)


def read(path: Path, sidecars: Path) -> Transcript:
    """The content of a journal. Changes nothing, so it can be called while a search is running."""
    return _Reading(path, sidecars).transcript()


class _Reading:
    """Reads and checks a journal record by record. Raises RunError."""

    def __init__(self, path: Path, sidecars: Path) -> None:
        self.path, self.sidecars = path, sidecars
        self.header: Json = {}
        self.segments: list[tuple[Segment, Outcome]] = []
        self.changes: list[Json] = []
        self.final: Json | None = None
        self.heads: list[str] = []
        self.before: list[int] = []
        self.sidecar_names: set[str] = set()
        self.good = 0
        """Bytes of complete records."""
        for record in self._records():
            self._take(record)
        self.torn = path.stat().st_size - self.good

    def transcript(self) -> Transcript:
        return Transcript(self.header, self.segments, self.final, self.torn, self.changes)

    def _records(self) -> Iterator[Json]:
        try:
            content = self.path.open("rb")
        except OSError as error:
            raise RunError(complaint(f"cannot be read ({error.strerror})", RESTORE, file=self.path)) from None
        with content:
            for line in content:
                if not line.endswith(b"\n"):
                    break
                record = _parse(line[:-1])
                if record is None and b"\0" in line and not content.peek(1):
                    break  # a power loss kept the end of the last line, but not a block before it
                if record is None or not self._follows(record):
                    found = "this record does not follow from the one before" if record else "this record is damaged"
                    raise RunError(complaint(found, RESTORE, file=self.path, line=len(self.heads) + 1))
                self.good += len(line)
                yield record
                self.heads.append(record["sha"])
        if not self.heads:
            fix = "restore it from a copy, or remove the run folder"
            raise RunError(complaint("the journal holds no complete record", fix, file=self.path))

    def _follows(self, record: Json) -> bool:
        return bool(record["prev"] == (self.heads[-1] if self.heads else FIRST))

    def _take(self, record: Json) -> None:
        kind, body = record["kind"], record["body"]
        if (kind == "header") == bool(self.heads):
            raise RunError(complaint("the header must be the first record", RESTORE, file=self.path, line=1))
        if kind == "header":
            if body["wire"] != VERSION:
                found = f"written in format {body['wire']}, this version reads {VERSION}"
                raise RunError(complaint(found, "use the version of msft that wrote it", file=self.path, line=1))
            self.header = body
        elif kind == "segment":
            self.before.append(len(self.heads))
            outcome = outcome_from_json(self._with_sidecars(body["outcome"]))
            self.segments.append((segment_from_json(body["segment"]), outcome))
        elif kind == "change":
            self.changes.append(body)
        else:
            self.final = body

    def _with_sidecars(self, outcome: Json) -> Json:
        for name in SIDECAR_FIELDS:
            reference: Mapping[str, str] | None = outcome.get(name)
            if reference is not None:
                file = self.sidecars / Path(reference["file"]).name
                self.sidecar_names.add(file.name)
                outcome = {**outcome, name: _read_sidecar(file, reference["sha256"])}
        return outcome


def _read_sidecar(file: Path, sha256: str) -> Any:
    try:
        text = file.read_bytes().decode()
    except (OSError, UnicodeDecodeError):
        raise RunError(complaint("a file that the journal names cannot be read", RESTORE, file=file)) from None
    if digest(text) != sha256:
        raise RunError(complaint("the content is not what the journal recorded", RESTORE, file=file))
    return json.loads(text)


def _parse(line: bytes) -> Json | None:
    """The record on a line, or None if the line is not what was written."""
    # The checksum is the last key of a canonical text, which is hashed without it.
    rest, sha = line[:-_SEAL], line[-_SEAL:]
    if sha != b',"sha":"' + hashlib.sha256(rest + b"}").hexdigest().encode() + b'"}':
        return None
    record: Json = json.loads(line)
    return record
