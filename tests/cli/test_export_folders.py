"""Where `msft export` writes: new files with the modes of such, and an answer at once where it cannot."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_export import place  # noqa: F401 - a fixture

from msft.cli.main import main
from msft.run.hand_over import Finished

HALF = ["--dtype", "bfloat16"]


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.rglob("*")}


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_what_is_exported_has_the_modes_of_new_files(place: Path, tmp_path: Path, mask: int) -> None:  # noqa: F811
    """Of a run folder that nobody may write, too."""
    run = tmp_path / "archived"
    shutil.copytree(place / "lora", run)
    for path in (run, *run.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    os.umask(mask)
    for name, options in (("copied", []), ("narrow", HALF), ("merged", ["--merge", *HALF])):
        out = tmp_path / name
        assert main(["export", str(run), "--output", str(out), *options]) == 0
        assert modes(out) == {0o666 & ~mask}
        assert out.stat().st_mode & 0o777 == 0o777 & ~mask
    assert {path.name for path in tmp_path.iterdir()} == {"archived", "copied", "narrow", "merged"}


def test_a_link_to_an_empty_folder_or_to_none_is_followed(place: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "empty").mkdir()
    for target in ("empty", "none"):
        link = tmp_path / f"link to {target}"
        link.symlink_to(tmp_path / target)
        assert main(["export", str(place / "full"), "--output", str(link)]) == 0
        assert link.is_symlink() and (tmp_path / target / "model.safetensors").is_file()


def test_links_in_a_circle_are_answered(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one").symlink_to(tmp_path / "two")
    (tmp_path / "two").symlink_to(tmp_path / "one")
    assert main(["export", "nowhere", "--output", str(tmp_path / "one")]) == 2
    assert f"{tmp_path / 'one'} --output: the folder cannot be read" in capsys.readouterr().err


def test_a_folder_that_cannot_be_replaced_is_refused_before_the_model_is_read(
    place: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Finished, "read", lambda *_, **__: pytest.fail("the model was read"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    is_mount = Path.is_mount
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "mounted" or is_mount(path))
    (tmp_path / "mounted").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "mounted")
    for output in (".", "../mounted", "../linked"):
        assert main(["export", str(place / "full"), "--output", output]) == 2
        said = capsys.readouterr().err
        assert "cannot be replaced by the new folder" in said
        assert f"Fix: name a folder in it: --output {Path(output) / 'model'}" in said
