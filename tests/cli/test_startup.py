"""What a command imports before it begins: a second of torch is long for a question that needs none."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import make_run

from msft.cli.main import parser

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
