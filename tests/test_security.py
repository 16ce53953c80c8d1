"""What no code of ours may do, told from its syntax; and what nobody else may do through us."""

from __future__ import annotations

import ast
import math
from pathlib import Path

import pytest

import msft
from msft.cli import main as cli
from msft.report.sheet import sheet

SOURCES = sorted(Path(msft.__file__).parent.rglob("*.py"))
MODULES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
NAMES = {"eval", "exec", "compile", "__import__"}
CALLS = {"yaml.load", "yaml.unsafe_load", "os.system", "os.popen"}


GUARDED = "report/sheet.py"
"""Where cells are guarded before they are written."""


def problems(tree: ast.AST) -> list[str]:
    """What is banned, with its line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [f"{node.lineno} {a.name}" for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(f"{node.lineno} {node.module}")
        elif isinstance(node, ast.Call):
            found += _call(node)
    return found


def _call(node: ast.Call) -> list[str]:
    called = ast.unparse(node.func)
    keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
    banned = called in NAMES | CALLS
    if called == "torch.load" and keywords.get("weights_only") != "True":
        banned = True
    if keywords.get("shell") == "True" or keywords.get("allow_pickle") == "True":
        banned = True
    if called.endswith(("csv.writer", "DictWriter", ".to_csv")):
        return [f"{node.lineno} {called}: spreadsheets run what begins with = + - @; use {GUARDED}"]
    return [f"{node.lineno} {called}"] if banned else []


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(SOURCES[0].parent).as_posix())
def test_no_code_runs_what_it_reads(path: Path) -> None:
    found = problems(ast.parse(path.read_text(encoding="utf-8")))
    if path.as_posix().endswith(GUARDED):
        found = [problem for problem in found if "csv.writer" not in problem]
    assert found == []


def test_no_cell_is_a_formula() -> None:
    assert sheet([("=1+1", "+a", "\x1b-x", "@s", "fine"), (-1.5, 3, None, math.nan, "")]) == (
        "'=1+1,'+a,'-x,'@s,fine\n-1.5,3,,,\n"
    )


@pytest.mark.parametrize(
    "code",
    ["import pickle", "from pickle import loads", "eval(x)", "exec(x)", "torch.load(f)", "yaml.load(f)",
     "subprocess.run(c, shell=True)", "np.load(f, allow_pickle=True)", "csv.writer(f)", "os.system(c)"],
)  # fmt: skip
def test_the_check_finds_what_it_is_for(code: str) -> None:
    assert problems(ast.parse(code))


def test_a_message_moves_no_cursor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What data and names bring into a message is printed, and not obeyed by the terminal."""
    config = tmp_path / "c.yaml"
    config.write_text('model: {name_or_path: "x"}\n"a\\e[2Jb\\u202ec\\u009b": 1\n')
    assert cli.main(["check", str(config)]) == 2
    said = capsys.readouterr().err
    assert "[2Jb" in said
    assert not set("\x1b\x9b\u202e\x07") & set(said)
