"""A terminal or pipe that is not UTF-8: every command says what it has to say, in characters that the encoding has."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from small_models import make_model

import msft
from msft.cli.encodable import use_plain_characters
from msft.cli.main import main

NAME = "p\u0441\u4e2d\u00e9\U0001f600"
ESCAPED = "p\\u0441\\u4e2d\\xe9\\U0001f600"
"""The same in ASCII."""
SOURCES = str(Path(msft.__file__).parents[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a model, a configuration, and a finished run."""
    folder = tmp_path_factory.mktemp("encodings")
    make_model(folder / "model")
    rows = [{"prompt": f"Say {n}:", "completion": f" {n % 7}\u00e9"} for n in range(40)]
    (folder / "pc.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (folder / "config.yaml").write_text(
        f"model: {{name_or_path: model, precision: fp32}}\nmethod: {{name: sft, max_epochs: 1}}\n"
        f"datasets:\n  - {{id: {NAME}, path: pc.jsonl, validation: {{max_samples: 10}}, scorer: {{name: loss}}}}\n"
        f"data: {{leaks: warn, max_length: 400}}\ntraining: {{batch_size: 16}}\noutput: {folder / 'run'}\n",
        encoding="utf-8",
    )
    code, _, err = ran("ascii", folder, "train", "config.yaml")
    assert code == 0, err
    return folder


def ran(encoding: str, folder: Path, *arguments: str) -> tuple[int, str, str]:
    """A command on strict streams of this encoding: its exit code, standard output and standard error."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="strict") for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        patch.chdir(folder)
        use_plain_characters()
        code = main(arguments)
    said = []
    for stream in streams:
        stream.flush()
        assert isinstance(stream.buffer, io.BytesIO)
        said.append(stream.buffer.getvalue().decode(encoding))
    return code, said[0], said[1]


COMMANDS = {
    "check config.yaml": (f"10 in {ESCAPED}", "+/-16 points"),
    "report run": (ESCAPED, "exp(-NLL)"),
    "report run run --page several.html": (ESCAPED, "| 0.4"),
    "status run": (ESCAPED, "active"),
    "preview config.yaml --rows 1": (f"{ESCAPED}  training example", "[[ 0\\xe9</s>]]"),
    "eval run": (ESCAPED, "exp(-NLL)"),
    "export run --output exported": ("The model: exported", ""),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_ascii(folder: Path, command: str) -> None:
    code, out, err = ran("ascii", folder, *command.split())
    assert code == 0, err
    assert all(text in out for text in COMMANDS[command]), out


@pytest.mark.parametrize(
    ("encoding", "name", "sign"),
    [
        ("latin-1", "p\\u0441\\u4e2d\u00e9\\U0001f600", "\u00b1"),
        ("cp1251", "p\u0441\\u4e2d\\xe9\\U0001f600", "\u00b1"),
        ("cp866", "p\u0441\\u4e2d\\xe9\\U0001f600", "+/-"),
        ("utf-16", NAME, "\u00b1"),
        ("utf-8", NAME, "\u00b1"),
    ],
)
def test_what_an_encoding_has_is_written_as_it_is(folder: Path, encoding: str, name: str, sign: str) -> None:
    code, out, _ = ran(encoding, folder, "check", "config.yaml")
    assert code == 0 and f": 10 in {name}" in out and f"{sign}16 points" in out


def test_the_files_are_utf8_whatever_the_terminal_is(folder: Path) -> None:
    for file in ("config.yaml", "summary.json", "report.html"):
        assert NAME in (folder / "run" / file).read_text(encoding="utf-8"), file


@pytest.mark.parametrize("command", ["eval run --json", "check config.yaml --json"])
def test_json_stays_json(folder: Path, command: str) -> None:
    _, out, _ = ran("ascii", folder, *command.split())
    assert NAME in str(json.loads(out))


def test_errors_show_names_too(folder: Path) -> None:
    code, _, err = ran("ascii", folder, "check", "config.yaml", "--set", f"datasets.{NAME}.split=1")
    assert code == 2 and f"datasets.{ESCAPED}.split=1" in err and "Traceback" not in err
    code, _, err = ran("ascii", folder, "status", "n\udce9")  # a name of bytes that are not text
    assert code == 2 and "msft: n\\udce9: there is no folder n\\udce9" in err


def test_a_file_whose_name_cannot_be_encoded(folder: Path) -> None:
    code, _, err = ran("ascii", folder, "report", "run", "--page", "\ud800.html")
    assert code == 2 and re.search(r"\\ud800\.html\.\d+\.tmp' has characters that cannot be encoded as utf-8", err)
    assert "Fix: set PYTHONUTF8=1" in err


def test_a_process_in_the_c_locale(folder: Path) -> None:
    """`report` needs no torch, so it starts fast."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": SOURCES}
    command = [sys.executable, "-m", "msft", "report", "run"]
    done = subprocess.run(command, cwd=folder, env=os.environ | plain, capture_output=True, check=False)
    assert done.returncode == 0 and ESCAPED.encode() in done.stdout and b"exp(-NLL)" in done.stdout, done.stderr
