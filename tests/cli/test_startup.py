"""What a command imports before it begins: a second of torch is long for a question that needs none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from run_folders import make_run

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
