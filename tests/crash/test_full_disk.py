"""A disk that is full or fails pauses the run with a message that helps; what was there is intact."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
from schedules import AtOnce
from stored_runs import METHODS, At, config_of, content, operations, run, unsynced

from msft.core.errors import RunError
from msft.record.run_folder import RunFolder
from msft.run import resume
from msft.system import files
from msft.system.files import Operation


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with unsynced(AtOnce):
        yield


def points(seen: list[Operation], *, every: bool) -> list[int]:
    """Where the disk may fail: the last arrival at every operation's name, or all of them."""
    last = {(operation.name, operation.kind): i for i, operation in enumerate(seen) if operation.kind != "stage"}
    return [i for i, o in enumerate(seen) if o.kind != "stage"] if every else sorted(last.values())


def fails_at_each(place: Path, kind: str, code: int, *, every: bool) -> int:
    config = config_of(kind, place / "run")
    seen = operations(config)
    wanted = content(place / "run")
    chosen = points(seen, every=every)
    for number, index in enumerate(chosen):
        shutil.rmtree(place / "run")
        torn = number % 2 == 0
        with pytest.raises(RunError, match=r"(?s)the run (is paused|did not begin)|cannot be written") as caught:
            run(config, observer=At(index, OSError(code, os.strerror(code)), torn))
        assert str(place) in str(caught.value) and "Fix: " in str(caught.value)
        if "the run" in str(caught.value):
            assert "B are free" in str(caught.value) and "are needed" in str(caught.value)
        _, notes = run(config)
        assert notes.said == [], notes.said
        assert content(place / "run") == wanted, seen[index]
    return len(chosen)


def test_a_full_disk_at_every_named_operation(tmp_path: Path) -> None:
    assert fails_at_each(tmp_path, "losses", errno.ENOSPC, every=False) >= 30


@pytest.mark.campaign
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("kind", METHODS)
def test_the_disk_fails_at_every_operation(
    tmp_path: Path, kind: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    count = fails_at_each(tmp_path, kind, code, every=True)
    with capsys.disabled():
        print(f"\n{kind}: {errno.errorcode[code]} at {count} operations, 0 differences")


def test_a_small_disk_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    config = config_of("tick", tmp_path / "run")
    with (
        patch.object(resume, "RESERVE", 10**18),
        pytest.raises(RunError, match=r"need [\d.]+ .B, and [\d.]+ .?B are free.*Fix: make room"),
    ):
        run(config)
    assert not RunFolder(tmp_path / "run").exists
    run(config)


def test_a_resumed_run_needs_only_the_room_that_it_has_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of("tick", tmp_path / "run")
    run(config)
    ended, folder = RunFolder(tmp_path / "run").transcript(), RunFolder(tmp_path / "other")
    paused = replace(ended, final=None)
    for place in (folder.snapshots / "1", folder.snapshots / "2"):
        place.mkdir(parents=True)
        (place / "state.safetensors").write_bytes(bytes(1000))
    monkeypatch.setattr(resume.shutil, "disk_usage", lambda path: SimpleNamespace(free=resume.RESERVE + 500))
    resume.check_room(folder, 1000, 500, paused)
    for past, bytes_ in ((None, 500), (paused, 501)):
        with pytest.raises(RunError, match=r"two snapshots, the model and a reserve need"):
            resume.check_room(folder, 1000, bytes_, past)
    monkeypatch.setattr(resume.shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    resume.check_room(folder, 1000, 2000, ended)
    with pytest.raises(RunError, match=r"Fix: make room, then continue: the same command with --resume"):
        resume.check_room(folder, 1000, 2001, ended)


def test_two_processes_may_write_the_same_file(tmp_path: Path) -> None:
    """A report beside the end of the run: each has a temporary file of its own."""
    code = "import sys; from pathlib import Path; from msft.system import files\n"
    code += "for _ in range(300): files.replace('test', Path(sys.argv[1]), sys.argv[2].encode() * 1000)"
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "file"), text]) for text in ("a", "b")]
    assert [process.wait(60) for process in both] == [0, 0]
    assert (tmp_path / "file").read_bytes() in (b"a" * 1000, b"b" * 1000) and len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_the_user_made_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o2775)
    run(config_of("tick", tmp_path / "run"))
    run(config_of("tick", tmp_path / "new"))
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("run", "new")] == [0o2775, 0o700]


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_said_of_a_folder_that_cannot_be_written(tmp_path: Path, begun: bool) -> None:
    """More room would not help."""
    folder = RunFolder(tmp_path)
    if begun:
        folder.journal.touch()
    read_only = OSError(errno.EROFS, "Read-only file system", str(tmp_path / "run"))
    said, full = str(resume.paused(read_only, folder, 100)), str(resume.paused(OSError(errno.ENOSPC, ""), folder, 100))
    assert ("the run is paused: Read-only file system. Fix: make the folder writable, then continue" in said) == begun
    assert ("the run did not begin: Read-only file system. Fix: make the folder writable, or name" in said) != begun
    assert "are needed). Fix: free space or fix the disk, " in full


@pytest.mark.parametrize("kind", METHODS)
@pytest.mark.parametrize("what", ["folder", "journal", "journal of another run"])
def test_a_run_whose_folder_or_journal_goes_away_pauses_and_makes_nothing_again(
    tmp_path: Path, kind: str, what: str
) -> None:
    """Put back, it goes on as if nothing had happened."""
    config, run_folder, aside = config_of(kind, tmp_path / "run"), tmp_path / "run", tmp_path / "aside"
    run(config)
    wanted = content(run_folder)
    shutil.rmtree(run_folder)
    place = run_folder if what == "folder" else run_folder / "journal.jsonl"
    records = 0

    def takes_it_away(operation: Operation) -> None:
        nonlocal records
        records += operation.name == "journal.append"
        # The journal as a record is to be written, the folder before the next snapshot is.
        if records == 4 and operation.kind == ("stage" if what == "folder" else "append"):
            records += 1
            place.rename(aside)
            if what == "journal of another run":
                place.write_bytes(aside.read_bytes()[:200])

    with pytest.raises(RunError, match=r"the run is paused: .*moved, removed or changed") as caught:
        run(config, observer=takes_it_away)
    assert "put it back as it was, then continue: the same command with --resume" in str(caught.value)
    assert place.exists() == (what == "journal of another run"), "nothing was made again"
    aside.replace(place)
    _, notes = run(config)
    assert content(run_folder) == wanted, notes.said


def test_a_disk_that_keeps_other_bytes_is_found_before_anything_is_trained(tmp_path: Path) -> None:
    def forgetful(operation: Operation) -> None:
        if operation.name == "snapshot.published":
            target = operation.path / "rehearsal" / "state.safetensors"
            data = bytearray(target.read_bytes())
            data[-1] ^= 1
            target.write_bytes(data)

    config = config_of("tick", tmp_path / "run")
    with pytest.raises(RunError, match="differs from the manifest"):
        run(config, observer=forgetful)


@pytest.mark.campaign
def test_a_real_small_file_system(tmp_path: Path) -> None:
    """A tmpfs that fills up in the middle: the kernel's own error, from the library's writes as well."""
    disk = tmp_path / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(disk)], check=False)
    if made.returncode:
        pytest.skip("a file system can be mounted by root only")
    try:
        config = config_of("tick", disk / "run")
        with patch.object(resume, "RESERVE", 0):
            run(config)
            wanted = content(disk / "run")
            paused = 0
            for left in range(2, 80, 2):
                shutil.rmtree(disk / "run")
                ballast = disk / "ballast"
                ballast.write_bytes(bytes(shutil.disk_usage(disk).free - left * 4096))
                try:
                    run(config)
                except RunError as error:
                    assert str(disk / "run") in str(error)
                    paused += 1
                ballast.unlink()
                run(config)
                assert content(disk / "run") == wanted
        assert paused >= 5
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_an_error_names_its_file(tmp_path: Path) -> None:
    with (
        patch.object(os, "write", side_effect=OSError(errno.ENOSPC, "No space left on device")),
        pytest.raises(OSError) as caught,
    ):
        files.replace("test", tmp_path / "file", b"content")
    assert caught.value.filename == str(tmp_path / f".file.{os.getpid()}.tmp")
    assert list(tmp_path.iterdir()) == []
