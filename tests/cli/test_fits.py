"""`msft check --on`: what a machine is, what a process needs, what is proposed, and which machine each recipe needs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from job import make_job
from published_shapes import SHAPES, shaped
from transformers import AutoConfig, AutoModelForCausalLM

from msft.cli.estimate_warnings import about_host
from msft.cli.fit_words import of_host
from msft.cli.fitting import Plan, fit, opened_for, plan
from msft.cli.machines import GIB, machine
from msft.cli.main import main
from msft.cli.needs import HostNeeds, host_needs, needs_of, packed_of
from msft.config.reader import load
from msft.config.schema import Config
from msft.data.examples import Example
from msft.engine.optimizers import moment_bytes
from msft.forward.batches import collate
from msft.forward.token_rows import row
from msft.model.activations import activation_bytes
from msft.model.adapters import fresh_adapter
from msft.model.memory import training_bytes
from msft.model.open import OpenModel
from msft.model.precision import narrow
from msft.model.token_loss import TokenLoss
from msft.run.job import model_source

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = sorted(path.relative_to(RECIPES).as_posix() for path in RECIPES.glob("*/*.yaml"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in SHAPES:
        shaped(folder / name.rpartition("/")[2], name)
    return folder


@pytest.mark.parametrize(
    ("written", "meant", "gib"),
    [
        ("8xH100", "8xH100", 79), ("nvidia h100 80GB HBM3", "H100", 79), ("A100 40GB", "A100-40", 39),
        ("4090", "RTX4090", 23.5), ("2x24GiB", "2x24GiB", 24),
    ],
)  # fmt: skip
def test_machines(written: str, meant: str, gib: float) -> None:
    found = machine(written)
    assert (str(found), found.card) == (meant, int(gib * GIB))


@pytest.mark.parametrize(
    ("written", "fix"),
    [("A100", "A100-80, A100-40"), ("H20", "H200"), ("0xL4", "from 1 to 1024"), ("24", "or its memory: 24GiB")],
)
def test_other_machines_are_refused(written: str, fix: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["check", "config.yaml", "--on", written])
    assert fix in capsys.readouterr().err


@cache
def rows_of_the_table() -> list[list[str]]:
    lines = (RECIPES / "README.md").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [row for row in rows if len(row) == 4 and "-" in row[0] and row[0][0].isalpha()]


def test_each_recipe_fits_on_the_machine_that_is_named(models: Path) -> None:
    """The recipes of one model differ in their data only."""
    kinds = {}
    for file in FILES:
        config = load(RECIPES / file)
        name = config.model.name_or_path.rpartition("/")[2]
        kinds[name, config.data.max_length, repr(config.training), repr(config.peft)] = file
    for (name, *_), file in kinds.items():
        of_model = [row for row in rows_of_the_table() if row[0] == name]
        assert of_model, f"{name} is missing in recipes/README.md"
        for _, as_it_is, smaller, changes in of_model:
            assert as_it_is == "none" or planned(file, models / name, as_it_is).fits
            flags = re.findall(r"\S+=(?:\{[^}]*\}|\S+)", changes)
            assert planned(file, models / name, smaller, *flags).fits
            assert not planned(file, models / name, smaller).fits, "the changes are needed"


def planned(file: str, model: Path, on: str, *changes: str) -> Plan:
    config = load(RECIPES / file, [f"model.name_or_path={model}", *changes])
    return plan(opened(config), config, machine(on), config.data.max_length)


def opened(config: Config) -> OpenModel:
    OPENED.append(opened_for(model_source(config), OPENED))
    return OPENED[-1]


OPENED: list[OpenModel] = []


@pytest.mark.parametrize(
    ("name", "on", "changes"),
    [
        ("Qwen2.5-3B", "H100", ("training.gradient_checkpointing=true",)),
        ("Qwen2.5-7B", "H200", ("training.optimizer=adamw_8bit", "training.gradient_checkpointing=true")),
        ("Qwen2.5-7B", "H100", ("training.offload_optimizer=true", "training.gradient_checkpointing=true")),
        ("Llama-3.1-8B", "L4", ("peft={r: 16}", "model.quantize=nf4", "training.gradient_checkpointing=true")),
        ("Qwen2.5-0.5B", "1GiB", None),
        ("Llama-3.1-8B", "8xH100", ("training.shard=true",)),
        ("Qwen2.5-7B", "8xL40S", ("training.shard=true",)),
    ],
)
def test_the_cheapest_change_is_proposed(name: str, on: str, changes: tuple[str, ...] | None, models: Path) -> None:
    config = load(RECIPES / "hub/n10-qwen2.5-7b.yaml", [f"model.name_or_path={models / name}"])
    found = fit(opened(config), config, machine(on), 2048)
    assert not found.plan.fits
    assert (None if found.proposal is None else found.proposal.changes) == changes


def test_what_is_proposed_fits(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    config = make_job(tmp_path, "sft", ", max_epochs: 1")
    command = ["check", str(config), "--on", "8xL4", "--set", f"model.name_or_path={models / 'Qwen2.5-1.5B'}"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert re.search(r"^fits +no: each card of 8xL4 has 23\.6 GB", said, re.MULTILINE)
    (change,) = re.findall(r"^change +(.*) makes it fit", said, re.MULTILINE)
    flags = re.findall(r'--set (?:"([^"]+)"|(\S+))', change)
    changed = [part for quoted, plain in flags for part in ("--set", quoted or plain)]
    assert main([*command, *changed, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["fit"]["fits"] is True and made["fit"]["proposal"] is None
    assert made["fit"]["plan"]["needs"] == made["needs"] and made["precision"] == "mixed"


def test_what_all_processes_take_of_their_machine(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Together; and the plan of a card is that of a process that has its part of the model."""
    monkeypatch.chdir(tmp_path)
    config = make_job(tmp_path, "sft", ", max_epochs: 1")
    command = ["check", str(config), "--set", f"model.name_or_path={models / 'Qwen2.5-7B'}", "--on", "8xL40S"]
    parameters = 7_615_616_512
    wide, inner, of_keys, vocabulary = 3584, 18944, 512, 152064
    layer = [wide * wide, wide, wide * wide, *[wide * of_keys, of_keys] * 2, *[wide * inner] * 3, wide, wide]
    sizes = [4 * size for size in (*layer * 28, vocabulary * wide, vocabulary * wide, wide)]
    assert sum(sizes) == 4 * parameters
    # torch takes pinned memory by powers of two, tensor by tensor.
    taken = sum(1 << (size - 1).bit_length() for size in sizes) / 4
    for shard, read, written in (("true", 4 * parameters, 3 * 12), ("false", 8 * 4 * parameters, (3 + 7) * 12)):
        assert main([*command, "--json", "--set", f"training.shard={shard}"]) == 0
        made = json.loads(capsys.readouterr().out)
        assert made["host"]["read"] == pytest.approx(read, rel=1e-6)
        assert made["host"]["snapshots"] == pytest.approx(written * taken, rel=1e-6)
        assert made["host"]["memory"] is None, "the name of a card does not tell it"
        short = [line for line in made["warnings"] if line.startswith("weights, gradients and moments need")]
        assert made["fit"]["fits"] is (shard == "true") and len(short) == (shard == "false")
    assert main([*command, "--set", "training.shard=true"]) == 0
    said = capsys.readouterr().out
    together = "30.5 GB in 8 processes together; with snapshots that wait to be written, at most 521 GB"
    assert re.search(rf"^host +{together}; how much the machine has is not known here$", said, re.MULTILINE)
    assert main([*command[:-2], "--json"]) == 0
    here = json.loads(capsys.readouterr().out)
    assert here["host"]["memory"] == psutil.virtual_memory().total, "without --on, it is that of this machine"
    most = here["host"]["kept"] + here["host"]["snapshots"]
    told = [warning for warning in here["warnings"] if "this machine's own memory" in warning]
    assert len(told) == (most > here["host"]["memory"])


@pytest.mark.parametrize(
    ("memory", "said"), [(None, None), (300, None), (200, "may need 296 GB"), (50, "needs 122 GB")]
)
def test_too_little_memory_beside_the_gpu_is_told(memory: int | None, said: str | None) -> None:
    gb = 10**9
    known = None if memory is None else memory * gb
    host = HostNeeds(processes=1, read=30 * gb, kept=122 * gb, snapshots=174 * gb, memory=known)
    warnings = about_host(host)
    assert len(warnings) == (said is not None) and all(f"{said} of this machine's own memory" in w for w in warnings)
    assert ("not known" if known is None else f"this machine has {memory} GB") in of_host(host)


def test_without_a_gpu_all_of_a_run_is_in_the_memory_of_the_machine(models: Path) -> None:
    """With `offload_optimizer` too, which moves nothing there."""
    found = []
    for offload in ("true", "false"):
        given = [f"model.name_or_path={models / 'Qwen2.5-0.5B'}", f"training.offload_optimizer={offload}"]
        config = load(RECIPES / "local/n10.yaml", given)
        needs = needs_of(opened(config), config, "mixed", longest=10, on_card=False)
        found.append(host_needs(needs, None, processes=2, writers=2, memory=None))
    assert found[0].kept >= 2 * 20 * 494_032_768 == found[1].kept
    assert found[0].snapshots == found[1].snapshots == 2 * 3 * 12 * 494_032_768


@pytest.mark.parametrize(
    "more",
    [
        ["training.average=1", "training.offload_optimizer=true"],
        ["training.average=1"],
        ["peft={r: 8}", "model.quantize=nf4"],
    ],
)
def test_what_a_process_needs_is_what_a_run_reckons_with(models: Path, more: list[str]) -> None:
    given = [f"model.name_or_path={models / 'Qwen2.5-0.5B'}", "training.optimizer=muon", *more]
    config = load(RECIPES / "local/n10.yaml", given)
    model = opened(config)
    parameters = [(p.numel(), p.requires_grad) for p in model.skeleton.parameters()]
    for precision in ("mixed", "fp32"):
        needs = needs_of(model, config, precision, longest=10, on_card=True)
        assert needs.state == training_bytes(
            precision,
            sum(size for size, _ in parameters),
            sum(size for size, trained in parameters if trained),
            averaged="training.average=1" in more,
            moments=moment_bytes("muon", model.skeleton),
            packed=packed_of(model),
            on_host="training.offload_optimizer=true" in more and precision == "mixed",
        )


@pytest.mark.campaign
@pytest.mark.parametrize("layers", [2, 28])
def test_a_process_of_a_split_model_needs_what_torch_counts(models: Path, tmp_path: Path, layers: int) -> None:
    """A 7B model on 8 GPUs: torch's tracker, with fake tensors in a fake group of processes."""
    folder = tmp_path / "model"
    shutil.copytree(models / "Qwen2.5-7B", folder)
    shape = json.loads((folder / "config.json").read_text())
    shape |= {"num_hidden_layers": layers, "layer_types": ["full_attention"] * layers}
    (folder / "config.json").write_text(json.dumps(shape))
    config = load(RECIPES / "local/n10.yaml", [f"model.name_or_path={folder}", "training.shard=true"])
    needs = needs_of(opened(config), config, "mixed", longest=64, on_card=True, processes=8)
    script = Path(__file__).parents[1] / "cases" / "split_memory.py"
    environment = os.environ | {"PYTHONPATH": str(RECIPES.parent / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder), str(layers), "8"], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    counted = {moment: int(size) for moment, size in (line.split() for line in done.stdout.splitlines())}
    assert counted["current"] == pytest.approx(needs.weights + needs.masters + needs.moments, rel=0.001)
    assert counted["peak"] == pytest.approx(needs.state, rel=0.1)


@pytest.mark.parametrize("adapter", [None, {"r": 4}, {"r": 4, "lora_dropout": 0.1, "use_dora": True}])
@pytest.mark.parametrize(("kind", "precision"), [("llama", "fp32"), ("qwen3", "mixed"), ("olmo2", "mixed")])
def test_activations_are_within_their_bound(kind: str, precision: str, adapter: dict[str, object] | None) -> None:
    """Against the tensors that torch keeps for the backward pass."""
    tokens = 64
    shape = {"hidden_size": 32, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model(kind, vocab_size=128, num_hidden_layers=6, head_dim=8, **shape)
    for checkpointing in (False, True):
        model = AutoModelForCausalLM.from_config(config)
        if adapter is not None:
            model = fresh_adapter(model, {"target_modules": "all-linear", **adapter}, 0)
        if precision == "mixed":
            narrow(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        kept = kept_by(TokenLoss(model).train(), tokens)
        bound = activation_bytes(model, tokens, precision, checkpointing=checkpointing)  # type: ignore[arg-type]
        assert kept <= bound
        assert checkpointing or bound <= 2.2 * kept


def kept_by(loss: TokenLoss, tokens: int) -> int:
    ids = np.random.default_rng(0).integers(3, 128, tokens + 1).astype(np.int32)
    batch = collate([row([Example(ids=ids, trained=np.arange(tokens + 1) > 0)])], torch.device("cpu"), layout="padded")
    weights = {parameter.untyped_storage().data_ptr() for parameter in loss.parameters()}
    found: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            found[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss(batch)
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())
