"""The notebook runs from top to bottom, in a folder of its own."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest
import torch

NOTEBOOK = Path(__file__).parents[2] / "examples" / "first_steps.ipynb"


def test_every_cell_runs_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["metadata"]["kernelspec"]["language"]) == (4, "python")
    code = ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] for cell in content["cells"] if cell["cell_type"] == "code")
    (tmp_path / "cells.py").write_text("\n\n".join(code), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        runpy.run_path("cells.py")
    shown = capsys.readouterr()
    assert "plain SFT: 0% before, " in shown.out and "excluded in the final model: [" in shown.out
    assert "also in a validation or test split" not in shown.err
    page = (tmp_path / "runs" / "msft" / "report.html").read_text(encoding="utf-8")
    assert "plain SFT with the same seed and data" in page and 'id="part-outputs"' in page
