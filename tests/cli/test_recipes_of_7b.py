"""The recipes for 7B and 8B run to their end, as they are, by the commands of recipes/README.md, in all the ways that
its table names for these models.

The models and the data sets are those of `thousandths.py`; eight cards are two processes on a CPU.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from published_shapes import shaped
from safetensors.torch import load_file
from test_fits import FILES, RECIPES, rows_of_the_table
from thousandths import HUB, publish, thousandth
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from msft.cli.main import parser
from msft.config.reader import load
from msft.config.schema import Config
from msft.record.journal import Transcript
from msft.record.run_folder import RunFolder

MODELS = {"Qwen2.5-7B": "Qwen/Qwen2.5-7B", "Qwen3-8B": "Qwen/Qwen3-8B"}
LAUNCHERS = {"msft": "msft", "torchrun": "torch.distributed.run", "accelerate": "accelerate.commands.accelerate_cli"}
WHY = "two processes need two cards: these are on the CPU"
BITS = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
SECONDS = 400
"""A run that takes longer hangs."""


def commands() -> dict[str, str]:
    """Those of recipes/README.md that start a run, by the program that they begin with."""
    lines = (RECIPES / "README.md").read_text(encoding="utf-8").splitlines()
    return {line.split()[0]: line for line in lines if line.endswith(" train FILE")}


def ways() -> list[Any]:
    """Every recipe for these models on several cards; the one with five data sets also in every other way."""
    found = []
    for file in FILES:
        name = load(RECIPES / file).model.name_or_path.rpartition("/")[2]
        for model, _, machine, changes in rows_of_the_table():
            if model != name or model not in MODELS:
                continue
            programs = ["msft"] if machine.startswith("1x") else ["torchrun", "accelerate"]
            for program in programs if "n05" in file else [each for each in programs if each == "torchrun"]:
                title = f"{Path(file).stem}, {program}, {changes}"
                marks = [BITS] if "8bit" in changes or "quantize" in changes else []
                found.append(pytest.param(file, program, changes, id=title, marks=marks))
    return found


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    for name in MODELS.values():
        thousandth(folder / name, name)
    publish(folder, list(HUB), {"train": 24, "validation": 4, "test": 4})
    (folder / "recipes").symlink_to(RECIPES)
    return folder


@pytest.fixture
def place(hub: Path, tmp_path: Path) -> Path:
    """A working directory in which the names that recipes have for models and data sets are folders."""
    return place_at(hub, tmp_path)


def place_at(hub: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for each in hub.iterdir():
        (folder / each.name).symlink_to(each)
    return folder


def less_to_do(config: Config) -> list[str]:
    """What is left of a recipe's work: two roll-outs of an epoch, four items, and four tokens of a generated text. And
    the precision that every card of the table has by itself."""
    sets = ["method.budget=1", "method.max_rollouts=2", "model.precision=mixed"]
    for data in config.datasets:
        sets.append(f"datasets.{data.id}.validation.max_samples=4")
        if data.scorer is not None and data.scorer.name == "generate":
            sets.append(f"datasets.{data.id}.scorer.max_new_tokens=4")
    return sets


def command_of(file: str, program: str, changes: str) -> list[str]:
    """The command of the README with this recipe and these changes, for two processes."""
    line = re.sub(r"(--nproc-per-node|--num_processes) 8\b", r"\1 2", commands()[program])
    sets = re.findall(r"\S+=(?:\{[^}]*\}|\S+)", changes) + less_to_do(load(RECIPES / file))
    words = shlex.split(line.replace("FILE", f"recipes/{file}"))
    return [sys.executable, "-m", LAUNCHERS[words[0]], *words[1:], *(word for each in sets for word in ("--set", each))]


def start(command: list[str], place: Path) -> subprocess.Popen[str]:
    environment = os.environ | {
        "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "cache"),
        "XDG_CACHE_HOME": str(place / "cache"), "PYTHONPATH": str(RECIPES.parent / "src"),
    }  # fmt: skip
    bounded = ["timeout", "--kill-after=10", str(SECONDS), *command]
    return subprocess.Popen(
        bounded, cwd=place, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def finished(command: list[str], place: Path) -> str:
    process = start(command, place)
    said, _ = process.communicate()
    assert process.returncode == 0, said[-4000:]
    return said


@pytest.mark.parametrize("program", LAUNCHERS)
def test_a_command_of_the_readme_is_one_of_ours(program: str) -> None:
    words = shlex.split(commands()[program])
    parsed = parser().parse_args(words[words.index("train") :])
    assert parsed.config == Path("FILE") and set(words) & {"msft"}


@pytest.mark.parametrize("name", MODELS.values())
def test_the_models_are_a_thousandth_of_the_published_ones(name: str, tmp_path: Path) -> None:
    small, whole = (
        AutoConfig.from_pretrained(made(folder, name))
        for made, folder in ((thousandth, tmp_path / "small"), (shaped, tmp_path / "whole"))
    )
    for key in ("model_type", "num_attention_heads", "num_key_value_heads", "tie_word_embeddings"):
        assert getattr(small, key) == getattr(whole, key)
    with torch.device("meta"):
        counts = [AutoModelForCausalLM.from_config(config).num_parameters() for config in (small, whole)]
    assert 950 < counts[1] / counts[0] < 1050


@pytest.mark.campaign
@pytest.mark.cpu(WHY)
@pytest.mark.parametrize(("file", "program", "changes"), ways())
def test_a_recipe_runs_to_its_end(file: str, program: str, changes: str, place: Path) -> None:
    finished(command_of(file, program, changes), place)
    config = load(RECIPES / file)
    run = RunFolder(place / config.output)
    split = run.transcript().header["environment"].get("sharded_over")
    assert split == (None if program == "msft" else 2)
    check_final(run, place / config.model.name_or_path)
    for words in (["status", str(run.path)], ["report", str(run.path)]):
        assert "finished" in finished([sys.executable, "-m", "msft", *words], place)


def check_final(run: RunFolder, base: Path) -> None:
    """The model that is handed over is the best of those that may be it, and plain transformers loads it."""
    transcript = run.transcript()
    assert transcript.final is not None
    means, chosen = candidates(transcript), transcript.final["answer"]
    assert len(means) > 1 and means[chosen] >= max(means.values()) - 1e-12

    model = AutoModelForCausalLM.from_pretrained(run.final)
    plain = AutoModelForCausalLM.from_pretrained(base)
    assert type(model) is type(plain) and model.dtype == plain.dtype == torch.bfloat16
    before = plain.state_dict()
    if (run.final / "adapter_model.safetensors").exists():
        handed = load_file(run.final / "adapter_model.safetensors")
        assert model.active_adapters() == ["default"]
        fresh = {name: torch.zeros_like(weight) for name, weight in handed.items() if "lora_B" in name}
        learned = {name.replace(".default", ""): weight for name, weight in kept(run.snapshots).items()}
        learned = learned if chosen else handed | fresh
    else:
        handed = model.state_dict()
        assert handed.keys() == before.keys()
        assert chosen == 0 or not all(torch.equal(weight, before[name]) for name, weight in handed.items())
        learned = kept(run.snapshots) if chosen else before
    assert handed.keys() == learned.keys()
    for name, weight in handed.items():
        assert torch.equal(weight, learned[name].to(weight.dtype)), name


def candidates(transcript: Transcript) -> dict[int, float]:
    """The mean score over all sub-datasets, of the base model and of the points that may become the final model: ends
    of roll-outs, and those that a roll-out goes back to."""
    scores = {0: dict(transcript.brief.base.scores)}
    begins, ends = {0: 0}, {0: 0}
    for number, (segment, outcome) in enumerate(transcript.segments, 1):
        scores.setdefault(number if segment.trains else segment.parent, {}).update(outcome.scores)
        begins.setdefault(segment.rollout, segment.parent)
        if segment.trains:
            ends[segment.rollout] = number
    may = {*begins.values(), *ends.values()}
    return {n: fmean(scores[n].values()) for n in may if scores[n].keys() == set(transcript.brief.tasks)}


def kept(snapshots: Path) -> dict[str, Tensor]:
    """The weights of the only snapshot that is left, by name; from its parts, which are rows. None: the base model."""
    parts = [load_file(file) for file in sorted(snapshots.rglob("state.safetensors"))]
    names = [name for name in (parts[0] if parts else ()) if name.startswith("weight/")]
    return {name.removeprefix("weight/"): torch.cat([part[name] for part in parts]) for name in names}


@pytest.mark.campaign
@pytest.mark.cpu(WHY)
def test_a_killed_run_goes_on_to_the_same_bytes(hub: Path, tmp_path: Path) -> None:
    file, changes = "hub/n05-qwen2.5-7b.yaml", "training.shard=true"
    command = command_of(file, "torchrun", changes)
    whole, killed = (place_at(hub, tmp_path / name) for name in ("whole", "killed"))
    finished(command, whole)
    output = load(RECIPES / file).output
    journal = RunFolder(killed / output).journal
    process = start(command, killed)
    while not journal.exists() or journal.read_bytes().count(b"\n") < 4:
        assert process.poll() is None, process.communicate()[0][-4000:]
        time.sleep(0.05)
    os.kill(second_of(killed), signal.SIGKILL)
    process.communicate()
    assert process.returncode == 1, "the process that is left ends too"
    assert not RunFolder(killed / output).final.exists()
    finished([*command, "--resume"], killed)
    assert hashes(killed / output) == hashes(whole / output)


def second_of(place: Path) -> int:
    """The process of rank 1 that runs in this folder."""
    for each in Path("/proc").iterdir():
        with suppress(OSError):
            here = each.name.isdecimal() and (each / "cwd").resolve() == place.resolve()
            if here and b"\0RANK=1\0" in (each / "environ").read_bytes():
                return int(each.name)
    raise AssertionError("no process of rank 1 runs")


def hashes(run: Path) -> dict[str, str]:
    files = [run / "journal.jsonl", run / "final" / "model.safetensors", *sorted((run / "sidecars").glob("*"))]
    return {str(file.relative_to(run)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
