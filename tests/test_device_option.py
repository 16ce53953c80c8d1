"""`--device` and `--by-file`, which `make gpu-check` uses: seen from outside, on a small suite of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

SUITE = {
    "test_one.py": """\
import os, pytest, torch
def test_holds(): assert os.environ["CUDA_VISIBLE_DEVICES"] == "" and not torch.cuda.is_available()
def test_breaks(): assert 1 + 1 == 3
@pytest.fixture
def broken(): raise KeyError("of a fixture")
def test_never_begins(broken): pass
""",
    "test_two.py": """\
import pytest
@pytest.mark.gpu
def test_of_a_card(): raise SystemExit
@pytest.mark.cpu("counts threads")
def test_of_a_cpu(): pass
""",
    "test_unread.py": "import no_such_module\n",
}


def run(folder: Path, *options: str) -> tuple[int, str]:
    for name, content in SUITE.items():
        (folder / name).write_text(content)
    marks = 'markers = ["gpu: a", "cpu(reason): b"]\n'
    (folder / "pyproject.toml").write_text(f"[tool.pytest.ini_options]\n{marks}")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "conftest", "-p", "no:cacheprovider", *options]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_failures_are_told_as_they_happen_and_every_file_has_a_line(tmp_path: Path) -> None:
    code, told = run(tmp_path, "--by-file", "--tb", "short", "--continue-on-collection-errors")
    assert code == 1
    early, late = told[: told.index("\n\n")], told[told.index("\n\n") :]
    for part in (early, late):
        assert "FAILED test_one.py::test_breaks: test_one.py:3: assert (1 + 1) == 3" in part
        assert "FAILED test_one.py::test_never_begins: test_one.py:5: KeyError: 'of a fixture'" in part
        assert re.search(r"FAILED test_unread\.py: .*no_such_module", part)
        assert re.search(r"^test_one\.py: 1 passed, 2 failed, \d+ s$", part, re.M)
        assert re.search(r"^test_two\.py: 1 passed, 1 skipped, \d+ s$", part, re.M)
    assert "\n    E   assert (1 + 1) == 3" in early and "E   assert" not in late, "tracebacks come once"
    assert "skipped 1: needs a CUDA device: run by `make gpu-check`" in late
    assert re.match(r"1 failed, 2 passed, 1 skipped, 2 errors in ", told.strip().splitlines()[-1])


def test_a_card_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    code, told = run(tmp_path, "--device", "cuda")
    assert code == 4 and "--device cuda: torch sees no CUDA device here" in told
