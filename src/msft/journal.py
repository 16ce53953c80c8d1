"""The append-only record of a run: with the configuration, it *is* the run's state (DESIGN 2.1).

One line per record, JSON: ``{"seq", "prev", "kind", "body", "sha"}``, where `sha` is the SHA-256 of the line without
it and `prev` the `sha` of the line before. A line is on the disk (fsync) before anything acts on it. A torn last line
was never acted on and is cut off; a bad line anywhere else refuses. Per-item scores and losses lie in sidecar files,
named by their content hash and durable before the line that names them. Kinds: `header`, `segment`, `final`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
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

SIDECAR_FIELDS = ("items", "losses")
FIRST = "0" * 64
RESTORE = "restore the file from a copy, or start a new run folder"


def canonical(data: Any) -> str:
    """One JSON text per value: sorted keys, no spaces, no NaN."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Transcript:
    """What a journal says, checked."""

    header: Json
    segments: list[tuple[Segment, Outcome]]
    """Segment number k is entry k - 1."""
    final: Json | None = None
    torn: int = 0
    """Bytes of a torn last line, which were not read."""

    @property
    def brief(self) -> Brief:
        """The brief, with `params` as a plain mapping of the method's parameters."""
        return brief_from_json(self.header["brief"], params=self.header["brief"]["params"])


@dataclass
class Journal:
    """A journal open for appending. Use `create` or `resume`; reading alone is `read`."""

    path: Path
    sidecars: Path
    seq: int = 0
    head: str = field(default=FIRST)

    @classmethod
    def create(cls, path: Path, sidecars: Path, header: Json) -> Journal:
        journal = cls(path, sidecars)
        journal._append("header", {"wire": VERSION, **header})
        return journal

    @classmethod
    def resume(cls, path: Path, sidecars: Path) -> tuple[Journal, Transcript]:
        """Read it back, cut off a torn last line, and go on behind the rest."""
        records, good = _records(path)
        transcript = _transcript(path, sidecars, records, torn=path.stat().st_size - good)
        if transcript.torn:
            with path.open("r+b") as file:
                file.truncate(good)
                os.fsync(file.fileno())
        return cls(path, sidecars, len(records), records[-1]["sha"]), transcript

    def segment(self, number: int, segment: Segment, outcome: Outcome) -> None:
        """The commit point of a segment."""
        body = outcome_to_json(outcome)
        for name in SIDECAR_FIELDS:
            if body[name] is not None:
                body[name] = self._sidecar(name, number, body[name])
        self._append("segment", {"number": number, "segment": segment_to_json(segment), "outcome": body})

    def final(self, body: Json) -> None:
        """The end of the run: its answer and what was measured on it."""
        self._append("final", body)

    def _sidecar(self, name: str, number: int, data: Any) -> Json:
        text = canonical(data)
        file = self.sidecars / f"{number:06d}-{name}-{digest(text)[:16]}.json"
        self.sidecars.mkdir(mode=0o700, exist_ok=True)
        write_durably(file, text.encode())
        return {"file": file.name, "sha256": digest(text)}

    def _append(self, kind: str, body: Json) -> None:
        record: Json = {"seq": self.seq, "prev": self.head, "kind": kind, "body": body}
        record["sha"] = digest(canonical(record))
        new = not self.path.exists()
        with self.path.open("ab") as file:
            file.write(canonical(record).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if new:
            sync(self.path.parent)
        self.seq += 1
        self.head = record["sha"]


def read(path: Path, sidecars: Path) -> Transcript:
    """What a journal says; changes nothing, so it works beside a running search."""
    records, good = _records(path)
    return _transcript(path, sidecars, records, torn=path.stat().st_size - good)


def _records(path: Path) -> tuple[list[Json], int]:
    """The chain of records, and the number of bytes that they take."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(complaint(f"cannot be read ({error.strerror})", RESTORE, file=path)) from None
    records: list[Json] = []
    good, head = 0, FIRST
    lines = content.split(b"\n")
    for i, line in enumerate(lines[:-1]):  # behind the last line feed: nothing, or a torn line
        record = _parse(line)
        if record is None or record.get("prev") != head or record.get("seq") != len(records):
            found = "this record does not follow from the one before" if record else "this record is damaged"
            raise RunError(complaint(found, RESTORE, file=path, line=i + 1))
        records.append(record)
        head = record["sha"]
        good += len(line) + 1
    if not records:
        raise RunError(complaint("the journal holds no complete record", "remove the run folder", file=path))
    return records, good


def _parse(line: bytes) -> Json | None:
    """The record on a line, or None where it is not what was written."""
    try:
        record = json.loads(line)
        sha = record.pop("sha")
        if sha != digest(canonical(record)):
            return None
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        return None
    return {**record, "sha": sha}


def _transcript(path: Path, sidecars: Path, records: list[Json], torn: int) -> Transcript:
    header = records[0]["body"]
    if records[0]["kind"] != "header":
        raise RunError(complaint("the first record must be the header", RESTORE, file=path, line=1))
    if header["wire"] != VERSION:
        found = f"written in format {header['wire']}, this version reads {VERSION}"
        raise RunError(complaint(found, "use the version of msft that wrote it", file=path, line=1))
    segments = [
        (segment_from_json(r["body"]["segment"]), outcome_from_json(_with_sidecars(r["body"]["outcome"], sidecars)))
        for r in records
        if r["kind"] == "segment"
    ]
    final = records[-1]["body"] if records[-1]["kind"] == "final" else None
    return Transcript(header, segments, final, torn)


def _with_sidecars(outcome: Json, sidecars: Path) -> Json:
    for name in SIDECAR_FIELDS:
        reference: Mapping[str, str] | None = outcome[name]
        if reference is not None:
            file = sidecars / Path(reference["file"]).name
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                raise RunError(complaint("a file that the journal names cannot be read", RESTORE, file=file)) from None
            if digest(text) != reference["sha256"]:
                raise RunError(complaint("the content is not what the journal recorded", RESTORE, file=file))
            outcome = {**outcome, name: json.loads(text)}
    return outcome


def write_durably(file: Path, content: bytes) -> None:
    """All of it or nothing: a temporary file, synced, renamed into place, the folder synced."""
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    temporary.replace(file)
    sync(file.parent)


def sync(path: Path) -> None:
    """Makes a file's content, or a folder's entries, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
