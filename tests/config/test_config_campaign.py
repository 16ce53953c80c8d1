"""Whatever a configuration file holds, reading it gives a configuration or a typed error, in little memory."""

from __future__ import annotations

import json
import resource
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from msft.config.reader import dump, load
from msft.config.schema import Config
from msft.core.errors import UserError

MINUTES = 10
GIBIBYTE = 2**30
WHOLE = """\
model: {name_or_path: m, precision: auto}
method: {name: msft, preset: robust, budget: 2.5}
datasets:
  - id: a
    path: a.jsonl
    where: {split: train}
    columns: {prompt: question, completion: answer}
    template: {prompt: "Question: {question}\\nAnswer:", completion: " {answer}"}
    validation: {split: test, max_samples: 300}
    test: {fraction: 0.1}
    scorer: {name: generate, extract: "####", stop: ["\\n\\n"]}
    shots: {k: 5, from: train, seed: 20}
  - {id: b, path: "reasoning_gym:chain_sum", max_samples: 10, scorer: exact_match, split_by: subject}
data: {seed: 20, max_length: 128, leaks: drop}
training:
  batch_size: 64
  learning_rate: 1e-5
  max_grad_norm: null
peft: {r: 16, target_modules: all-linear}
snapshots: {durable: auto}
output: runs/x
"""
ODD = st.sampled_from(
    ["\t", "&a ", "*a", "!!python/object:os.system ", "!!set", "<<: *a", "---\n", "...\n", "? ", "| ", "> ", "%TAG\n",
     "null", "~", ".nan", "-.inf", "1e999", "0x", "1_000", "2026-01-01", "{", "}", "[", "]", ": ", "- ", "#", "'", '"',
     "\x00", "\x85", "\u2028", "\ufeff", "\u202e", "id: a\n", "\n  ", "\r\n", "[" * 400, "{a: " * 400]
)  # fmt: skip
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
KEYS = st.sampled_from(
    ["model", "method", "datasets", "data", "training", "peft", "snapshots", "output", "method.budget", "method.name",
     "datasets.a", "datasets.a.id", "datasets.a.validation", "datasets.a.scorer", "datasets.b.path",
     "datasets.a.columns", "data.seed", "training.learning_rate", "model.revision", "peft.r", "", "."]
)  # fmt: skip


@st.composite
def damaged(draw):
    """The whole file with odd pieces put in, lines dropped or doubled, or bytes changed."""
    lines = WHOLE.splitlines(keepends=True)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(lines) - 1))
        match draw(st.sampled_from(["drop", "double", "odd", "cut"])):
            case "drop":
                lines[at] = "\n"
            case "double":
                lines[at] *= 2
            case "odd":
                place = draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:place] + draw(ODD) + lines[at][place:]
            case "cut":
                lines[at] = lines[at][: draw(st.integers(0, len(lines[at])))]
    content = bytearray("".join(lines).encode("utf-8", "surrogatepass"))
    for _ in range(draw(st.integers(0, 2))):
        content[draw(st.integers(0, len(content) - 1))] = draw(st.integers(0, 255))
    return bytes(content)


OVERRIDES = st.lists(st.builds(lambda key, value: f"{key}={json.dumps(value)}", KEYS, VALUE), max_size=3)


def read(path, content, overrides):
    path.write_bytes(content)
    try:
        config = load(path, overrides)
    except UserError as error:
        assert "Fix: " in str(error)
        return
    assert isinstance(config, Config)
    path.write_text(dump(config), encoding="utf-8")
    assert load(path) == config


@pytest.mark.campaign
@pytest.mark.timeout(60 * MINUTES + 300)
def test_configurations_are_read_or_answered(tmp_path):
    @settings(max_examples=2000, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(damaged() | st.binary(max_size=100), OVERRIDES)
    def campaign(content, overrides):
        read(tmp_path / "c.yaml", content, overrides)

    end = time.monotonic() + 60 * MINUTES
    while time.monotonic() < end:
        campaign()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak < GIBIBYTE, f"{peak / 2**20:.0f} MiB"
