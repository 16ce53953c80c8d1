"""Whatever happens to a file of a run folder: it is refused, or noticed and made again; never used, no traceback."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import pytest
from schedules import AtOnce
from stored_runs import METHODS, At, Kill, config_of, content, operations, run, unsynced

from msft.config.schema import Config
from msft.core.errors import RunError
from msft.record import journal
from msft.record.run_folder import RunFolder
from msft.report.summary import summarise
from msft.run import attempt
from msft.snapshots import publish, store
from msft.system.files import Operation

CORRUPTIONS = 1400
Damage = Callable[[random.Random, Path, Path], None]
"""Called with (draw, the file, the folder of another run)."""


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with unsynced(AtOnce):
        yield


def flip(draw: random.Random, file: Path, other: Path) -> None:
    data = bytearray(file.read_bytes())
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    file.write_bytes(data)


def truncate(draw: random.Random, file: Path, other: Path) -> None:
    file.write_bytes(file.read_bytes()[: draw.randrange(file.stat().st_size)])


def zero(draw: random.Random, file: Path, other: Path) -> None:
    data = bytearray(file.read_bytes())
    at = draw.randrange(len(data))
    end = min(len(data), at + draw.choice([1, 16, 512]))
    data[at:end] = bytes(end - at)
    file.write_bytes(data)


def delete(draw: random.Random, file: Path, other: Path) -> None:
    file.unlink()


def duplicate(draw: random.Random, file: Path, other: Path) -> None:
    """A second file beside it, or its own content twice."""
    if draw.random() < 0.5:
        file.with_name(f"copy-{file.name}").write_bytes(file.read_bytes())
    else:
        file.write_bytes(file.read_bytes() * 2)


def swap(draw: random.Random, file: Path, other: Path) -> None:
    """With another file of the folder."""
    files_there = [path for path in sorted(file.parent.iterdir()) if path.is_file() and path != file]
    second = draw.choice(files_there) if files_there else file
    mine, theirs = file.read_bytes(), second.read_bytes()
    file.write_bytes(theirs)
    second.write_bytes(mine)


def stale(draw: random.Random, file: Path, other: Path) -> None:
    """The file of the same name as another run had it."""
    if (other / file.name).exists():
        file.write_bytes((other / file.name).read_bytes())
    else:
        matches = [path for path in sorted(other.rglob(file.name)) if path.is_file()]
        if matches:
            file.write_bytes(draw.choice(matches).read_bytes())


KINDS: dict[str, Damage] = {
    "flip": flip, "truncate": truncate, "zero": zero, "delete": delete, "duplicate": duplicate, "swap": swap,
    "stale": stale,
}  # fmt: skip


def swap_lines(draw: random.Random, file: Path, other: Path) -> None:
    lines = file.read_bytes().splitlines(keepends=True)
    at = draw.randrange(1, len(lines) - 1)
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    file.write_bytes(b"".join(lines))


def stale_folder(draw: random.Random, file: Path, other: Path) -> None:
    """The whole snapshot as another run, killed at the same place, had it."""
    theirs = other / "snapshots" / file.parent.name
    if theirs.is_dir():
        shutil.rmtree(file.parent)
        shutil.copytree(theirs, file.parent)


DAMAGES = {**KINDS, "swap lines": swap_lines, "stale folder": stale_folder}


class Bench:
    """A finished run and one that was killed, each in several kinds; and another run to take stale files from."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.cases: list[tuple[str, Config, Path, dict[str, str]]] = []
        self.summaries: dict[str, dict[str, object]] = {}
        for kind in METHODS:
            (place / kind).mkdir()
            config = config_of(kind, place / kind / "run")
            seen = operations(config)
            wanted = content(place / kind / "run")
            shutil.move(place / kind / "run", place / kind / "finished")
            late = [i for i, operation in enumerate(seen) if operation.name == "loop.run"][-1]
            with pytest.raises(Kill):
                run(config, observer=At(late, Kill()))
            shutil.move(place / kind / "run", place / kind / "killed")
            with pytest.raises(Kill):
                run(config_of(kind, place / kind / "run", learning_rate=0.02), observer=At(late, Kill()))
            shutil.move(place / kind / "run", place / kind / "other")
            self.cases += [
                (f"{kind} {state}", config, place / kind / state, wanted) for state in ("finished", "killed")
            ]
            for _, _, pristine, _ in self.cases[-2:]:
                self.summaries[str(pristine)] = summarise(RunFolder(pristine))

    def used_silently(self, draw: random.Random, kind: str, *, only: str | None = None) -> str | None:
        """Damages a file drawn at random, reads the run and resumes it; what went wrong."""
        cases = [
            case
            for case in self.cases
            if only is None or any(only in str(p.relative_to(case[2])) for p in case[2].rglob("*") if p.is_file())
        ]
        name, config, pristine, wanted = draw.choice(cases)
        folder = Path(config.output)
        self.restore(pristine, folder)
        listed = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.stat().st_size]
        file = draw.choice([path for path in listed if only is None or only in str(path.relative_to(folder))])
        DAMAGES[kind](draw, file, pristine.with_name("other"))
        what = f"{name}: {kind} {file.relative_to(folder)}"
        # The whole journal of another run is, to a reader, that other run; to go on with it is refused.
        problem = None if what.endswith("stale journal.jsonl") else self._read(folder, pristine)
        if problem is None:
            problem = self._resume(config, wanted)
        return None if problem is None else f"{what}: {problem}"

    def restore(self, pristine: Path, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(pristine, folder)

    def _read(self, folder: Path, pristine: Path) -> str | None:
        try:
            found = summarise(RunFolder(folder))
        except RunError as error:
            return _not_helpful(error, folder)
        wanted = self.summaries[str(pristine)]
        if found["seconds"] != wanted["seconds"]:
            found = {**found, "seconds": wanted["seconds"]}  # a lost line of timings
        torn = len(found["rollouts"]) <= len(wanted["rollouts"]) and found["answer"] is None  # type: ignore[arg-type]
        return None if found == wanted or torn else "the summary was made from it"

    def _resume(self, config: Config, wanted: dict[str, str]) -> str | None:
        folder = Path(config.output)
        try:
            run(config)
        except RunError as error:
            return _not_helpful(error, folder)
        # A stray copy in the run folder itself is nobody's file, and stays; in a published folder it must not.
        found = {name: sha for name, sha in content(folder).items() if not name.startswith("copy-")}
        return None if found == wanted else f"the result differs: {sorted(found.items() ^ wanted.items())}"


def _not_helpful(error: RunError, folder: Path) -> str | None:
    """A message must name a file of the run, and the fix."""
    return None if str(folder) in str(error) and "Fix: " in str(error) else f"the message does not help: {error}"


def campaign(bench: Bench, count: int) -> list[str]:
    draw = random.Random(11)
    found = [bench.used_silently(draw, list(KINDS)[i % len(KINDS)]) for i in range(count)]
    return [problem for problem in found if problem]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    with unsynced(AtOnce):
        return Bench(tmp_path_factory.mktemp("corruption"))


def test_no_corruption_is_used(bench: Bench) -> None:
    problems = campaign(bench, 63)
    assert not problems, problems[:5]


def unchecked_manifest(folder: Path, *, fix: str = "") -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / publish.MANIFEST).read_bytes())
    found.pop("sha256")
    return found


VERIFICATIONS: dict[str, tuple[object, str, object, str, str]] = {
    "a record's checksum": (journal, "_parse", lambda line: json.loads(line), "flip", "journal"),
    "the chain of records": (journal._Reading, "_follows", lambda self, record: True, "swap lines", "journal"),
    "a sidecar's content": (journal, "_read_sidecar", lambda f, sha: json.loads(f.read_bytes()), "flip", "sidecars"),
    "a snapshot's content": (store, "verify", unchecked_manifest, "flip", "state.safetensors"),
    "a snapshot's run": (store.Store, "check", lambda self, n: publish.verify(self.path(n)), "stale folder", "snap"),
    "a manifest's own checksum": (publish, "read_manifest", unchecked_manifest, "flip", "MANIFEST"),
    "the final model": (attempt, "final_is_whole", lambda folder, about, note: folder.final.is_dir(), "flip", "final/"),
    "configuration and environment": (attempt, "restore_derived", lambda *_: None, "flip", "config.yaml"),
    "the header": (attempt, "reconcile", lambda *_: [], "stale", "journal"),
}
"""What is checked: where, what stands there without it, and the damage that it is there for."""


@pytest.mark.parametrize("name", VERIFICATIONS)
def test_every_verification_is_needed(bench: Bench, name: str) -> None:
    """Without it, some damage is used silently or ends in a traceback."""
    owner, attribute, replacement, kind, only = VERIFICATIONS[name]

    def problem() -> str | None:
        try:
            return bench.used_silently(draw, kind, only=only)
        except Exception as error:
            return f"traceback: {error!r}"

    draw = random.Random(3)
    assert not any(problem() for _ in range(6))
    with patch.object(owner, attribute, replacement):
        assert any(problem() for _ in range(60))


def test_a_journal_that_lost_records_is_refused(bench: Bench) -> None:
    """Whole lines are gone, and only the snapshots' manifests and the final model's know it."""
    for name, config, pristine, _ in bench.cases:
        folder = RunFolder(Path(config.output))
        bench.restore(pristine, folder.path)
        lines = folder.journal.read_bytes().splitlines(keepends=True)
        for keep in (1, len(lines) - 1) if "finished" in name else (1,):
            folder.journal.write_bytes(b"".join(lines[:keep]))
            with pytest.raises(RunError, match=rf"journal\.jsonl: it holds {keep} records, and .*MANIFEST.*Fix:"):
                run(config)
        folder.journal.unlink()
        with pytest.raises(RunError, match=r"journal\.jsonl: there are snapshots.*no journal.*Fix:"):
            run(config)


def test_a_damaged_snapshot_is_made_again_from_its_ancestor_and_said(bench: Bench) -> None:
    _, config, pristine, wanted = next(case for case in bench.cases if case[0] == "tick killed")
    folder = RunFolder(Path(config.output))
    bench.restore(pristine, folder.path)
    latest = max(folder.snapshots.iterdir(), key=lambda path: int(path.name))
    flip(random.Random(1), latest / "state.safetensors", folder.path)
    again: list[Operation] = []
    _, notes = run(config, observer=again.append)
    assert any(f"snapshot {latest.name} cannot be used" in note for note in notes.said)
    # The parent of the damaged one was let go of: it, too, is made again, and what came before it is not.
    assert 1 <= sum(operation.name == "recover.run" for operation in again) <= int(latest.name)
    assert content(folder.path) == wanted


@pytest.mark.campaign
def test_a_thousand_corruptions(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    problems = campaign(bench, CORRUPTIONS)
    with capsys.disabled():
        print(f"\n{CORRUPTIONS} corruptions, {len(problems)} used silently or without a helpful message")
    assert not problems, problems[:5]
