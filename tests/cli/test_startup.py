"""What a command imports before it begins: a second of torch is long for a question that needs none."""

from __future__ import annotations

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import make_run

from msft.cli.example_commands import STUDIES
from msft.cli.main import COMMANDS, main, parser

HEAVY = ("torch", "transformers", "accelerate", "peft", "datasets", "pandas")
CODE = """
import sys
try:
    {code}
except SystemExit as ended:
    assert not ended.code
print("imported:", *(name for name in {heavy} if name in sys.modules))
"""


def imported_by(code: str) -> list[str]:
    made = CODE.format(code=code, heavy=HEAVY)
    done = subprocess.run([sys.executable, "-c", made], capture_output=True, text=True, check=True)
    return done.stdout.rsplit("imported:", 1)[1].split()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["schema"], ["status", "RUN"], ["report", "RUN"]], ids=lambda a: a[0]
)
def test_what_needs_no_model_imports_no_torch(arguments: list[str], tmp_path: Path) -> None:
    run = str(make_run(tmp_path / "run", horizon=2.0).path)
    given = [run if argument == "RUN" else argument for argument in arguments]
    assert imported_by(f"from msft.cli.main import main; sys.exit(main({given!r}))") == []


def test_datasets_waits_until_data_of_the_hub_are_read() -> None:
    assert "datasets" not in imported_by("from msft.cli.quiet import quiet; quiet()")


def test_the_help_of_a_command_says_what_it_does_with_an_example_that_parses() -> None:
    (commands,) = parser()._subparsers._group_actions  # type: ignore[union-attr]
    for name, command in commands.choices.items():  # type: ignore[attr-defined]
        shown = " ".join(command.format_help().split())
        example = shlex.split(shown.partition("Example: ")[2])
        assert example[:2] == ["msft", name] and command.description
        parser().parse_args([word for word in example[1:] if word not in (">", "msft.schema.json")])


def test_a_path_may_begin_with_the_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in `--output=~/x`, which shells leave as it is."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for line in (
        "init ~/d --output=~/c", "check ~/c", "preview ~/c", "train ~/c", "compare ~/c --methods=sft --output=~/o",
        "study peaks ~/c --output=~/o", "report ~/a ~/b --page=~/p", "status ~/a", "export ~/a --output=~/o",
        "eval ~/a --config=~/c", "quickstart --output=~/o",
    ):  # fmt: skip
        values = vars(parser().parse_args(line.split())).values()
        listed = [each for value in values for each in (value if isinstance(value, list) else [value])]
        found = [str(path) for path in listed if isinstance(path, (str, Path)) and "/" in str(path)]
        named = [word.rpartition("=")[2].replace("~", str(tmp_path)) for word in line.split() if "~" in word]
        assert sorted(found) == sorted(named)


def test_the_help_of_study_has_the_question_of_each(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    for name, question in STUDIES.items():
        assert [name, question] in lines


@pytest.mark.parametrize("command", ["schema", "env"])
def test_an_output_that_is_closed_or_on_a_full_disk_is_no_traceback(command: str) -> None:
    def ran(where: str) -> subprocess.CompletedProcess[str]:
        line = f"{sys.executable} -m msft {command} {where}"
        return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False, env=dict(os.environ))

    closed = ran(">&-")
    assert (closed.returncode, closed.stderr) == (0, "")
    if Path("/dev/full").exists():
        full = ran(">/dev/full")
        assert full.returncode == 2
        assert full.stderr.splitlines() == [
            "msft: standard output: the output cannot be written (No space left on device). Fix: send it elsewhere"
        ]


def test_a_file_that_cannot_be_used_is_named(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(error: OSError) -> str:
        def command(*_: object) -> int:
            raise error

        monkeypatch.setitem(COMMANDS, "env", command)
        assert main(["env"]) == 2
        return capfd.readouterr().err

    for code in (errno.EROFS, errno.EACCES, errno.EDQUOT, errno.ENAMETOOLONG):
        said = fails(OSError(code, os.strerror(code), "run/lock"))
        assert said.startswith(f"msft: run/lock: cannot be read or written ({os.strerror(code)}). Fix: check its perm")
    with pytest.raises(FileNotFoundError):  # a file that we did not look for is a bug
        fails(FileNotFoundError(errno.ENOENT, "", "lost"))

    reading, writing = os.pipe()
    with os.fdopen(reading), os.fdopen(writing, "w") as pipe, monkeypatch.context() as patched:
        patched.setattr("sys.stdout", pipe)
        said = fails(OSError(errno.ENOSPC, "No space left on device"))
    assert said == (
        "msft: a file cannot be written (No space left on device). Fix: make room on the disks of the output, of the "
        "cache and of temporary files\n"
    )


def test_after_ctrl_c_only_what_exists_is_continued(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(f"output: {tmp_path / 'run'}\n")

    def interrupted(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setitem(COMMANDS, "train", interrupted)
    assert main(["train", str(config)]) == 130
    assert capsys.readouterr().err == "msft: interrupted; nothing had begun\n"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "journal.jsonl").touch()
    assert main(["train", str(config)]) == 130
    assert "continue with --resume" in capsys.readouterr().err
