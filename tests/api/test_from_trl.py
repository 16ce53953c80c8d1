"""A script for TRL's SFTTrainer becomes one for MSFTTrainer by changing at most six lines."""

from __future__ import annotations

import difflib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from job import make_data, make_model
from transformers import AutoModelForCausalLM

EXAMPLES = Path(__file__).parents[2] / "examples" / "from_trl"


def code(name):
    """Without its first line, which says what the script is, and blank lines."""
    return [line for line in (EXAMPLES / name).read_text().splitlines()[1:] if line]


def test_at_most_six_lines_change():
    changed = [line for line in difflib.ndiff(code("sft.py"), code("msft_sft.py")) if line.startswith("+ ")]
    assert 1 <= len(changed) <= 6, changed


@pytest.mark.parametrize("script", ["sft.py", "msft_sft.py"])
def test_both_run(tmp_path, script):
    if script == "sft.py" and importlib.util.find_spec("trl") is None:
        pytest.skip("trl is not installed: it belongs to the extra `benchmarks`")
    make_model(tmp_path / "model")
    make_data(tmp_path)
    (tmp_path / "double.jsonl").write_text(
        "".join(f'{{"prompt": "{n}+{n}=", "completion": "{2 * n}"}}\n' for n in range(40))
    )
    command = [sys.executable, str(EXAMPLES / script), "model", "copy.jsonl", "double.jsonl", "out"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model").num_parameters() > 0


def test_the_example_of_the_readme_runs(tmp_path):
    readme = (EXAMPLES.parents[1] / "README.md").read_text()
    (example,) = (block for block in readme.split("```python\n")[1:] if "MSFTTrainer" in block)
    make_model(tmp_path / "model")
    make_data(tmp_path)
    (tmp_path / "data").mkdir()
    for name, made in (("a", "copy"), ("b", "choice")):
        (tmp_path / f"{made}.jsonl").rename(tmp_path / "data" / f"{name}.jsonl")
    code = example.split("```")[0].replace("Qwen/Qwen2.5-0.5B", "model")
    command = [sys.executable, "-c", f"{code}\nassert set(trainer.summary['validation']) == {{'a', 'b'}}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
