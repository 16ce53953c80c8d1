"""Optimizers: their steps against torch's own, their state in snapshots, roll-backs, resumes and look-aheads."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_engine import same, segment, tiny_data, tiny_engine, tiny_example, tiny_folder, tiny_model

from msft.core.errors import ModelError
from msft.core.vocabulary import ROOT, Probe
from msft.engine import optimizers
from msft.engine.optimizers import make_optimizer, moment_bytes, outside
from msft.engine.settings import EngineSettings
from msft.snapshots.state import trainable

KEPT = {
    "adamw": {"exp_avg", "exp_avg_sq", "step"},
    "adamw_8bit": {"state1", "state2", "absmax1", "absmax2", "exp_avg", "exp_avg_sq", "step"},
    "muon": {"momentum_buffer", "exp_avg", "exp_avg_sq", "step"},
    "adafactor": {"row_var", "col_var", "variance", "step"},
}
OPTIMIZERS = [
    pytest.param(
        name, marks=[] if name != "adamw_8bit" or importlib.util.find_spec("bitsandbytes") else pytest.mark.skip
    )
    for name in KEPT
]
RATE = {"adamw": 1e-2, "adamw_8bit": 1e-2, "muon": 1e-2, "adafactor": 3e-2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llama"))


@pytest.fixture(autouse=True)
def matrices_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the tiny model get moments in 8 bits, its norms do not."""
    monkeypatch.setattr(optimizers, "FEW", 100)


def settings(optimizer: str) -> dict[str, Any]:
    return {"optimizer": optimizer, "learning_rate": RATE[optimizer], "weight_decay": 0.1, "average": 0.5}


@pytest.mark.parametrize(
    ("more", "field"),
    [({"optimizer": "adamw_8bit"}, "training.optimizer: adamw_8bit"), ({"quantize": "nf4"}, "model.quantize: nf4")],
)
def test_what_needs_bitsandbytes_says_so_where_it_is_missing(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any], field: str
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *of: None if name == "bitsandbytes" else found(name, *of)
    )
    adapter = {"r": 2, "target_modules": "all-linear"}
    with pytest.raises(ModelError, match=rf"{field} needs the library bitsandbytes.*Fix: pip install 'msft"):
        tiny_engine(folder, tmp_path, peft=adapter, **more)


@pytest.mark.parametrize("memory_bytes", [10**9, 0])
@pytest.mark.parametrize("precision", ["fp32", "mixed"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_run_is_rolled_back_and_resumed_bit_for_bit(
    folder: Path, tmp_path: Path, optimizer: str, precision: str, memory_bytes: int
) -> None:
    more = settings(optimizer) | {"precision": precision, "memory_bytes": memory_bytes}
    engine, store = tiny_engine(folder, tmp_path / "one", **more, durable="tick")
    engine.run(segment(0, 3), 1)
    first = engine.run(segment(3, 7, parent=1), 2)
    kinds = {name.partition("/")[0] for name in store.get(2).tensors} - {"weight", "mean", "mean_steps"}
    assert kinds == KEPT[optimizer]
    engine.run(segment(0, 2, parent=ROOT, rollout=2), 3)  # without moments again
    again = engine.run(segment(3, 7, parent=1), 4)
    assert again.scores == first.scores and same(dict(store.get(2).tensors), dict(store.get(4).tensors))
    resumed, _ = tiny_engine(folder, tmp_path / "one", **more)  # another process, from what is on disk
    third = resumed.run(segment(3, 7, parent=1), 5)
    assert third.scores == first.scores and third.train_loss == first.train_loss
    engine.export(2, tmp_path / "final")
    assert (tmp_path / "final" / "model.safetensors").is_file()


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_look_ahead_leaves_no_trace_and_a_reset_starts_anew(folder: Path, tmp_path: Path, optimizer: str) -> None:
    engine, store = tiny_engine(folder, tmp_path / "a", **settings(optimizer))
    looked = engine.run(segment(0, 4, probes=frozenset({Probe.LOOKAHEAD})), 1)
    other, plain = tiny_engine(folder, tmp_path / "b", **settings(optimizer))
    other.run(segment(0, 4), 1)
    assert looked.lookahead is not None and same(dict(store.get(1).tensors), dict(plain.get(1).tensors))
    engine.run(segment(0, 1, parent=1, rollout=2, reset_optimizer=True), 2)
    tensors = store.get(2).tensors
    steps = [float(tensor) for name, tensor in tensors.items() if name.startswith("step/")]
    assert set(steps) <= {1.0}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_biases_of_experts_and_decay_rates_are_no_matrices(optimizer: str, folder: Path) -> None:
    names = ("experts.gate_up_proj_bias", "mixer.A_log", "experts.down_proj", "norm.weight")
    weights = {name: torch.ones(3, 2, requires_grad=True) for name in names[:-1]} | {names[-1]: torch.ones(3)}
    chosen = EngineSettings(seed=1, batch_size=1, horizon=1, **settings(optimizer) | {"average": None})
    groups = make_optimizer(weights, chosen, tiny_model()).param_groups
    decayed = {id(weight) for group in groups if group["weight_decay"] for weight in group["params"]}
    assert [name for name in names if id(weights[name]) in decayed] == ["experts.down_proj"]
    if optimizer == "muon":
        assert [len(group["params"]) for group in groups if "momentum" in group] == [1]


def test_muon_is_torchs_muon_for_hidden_matrices_and_adamw_for_the_rest(folder: Path, tmp_path: Path) -> None:
    engine, _ = tiny_engine(folder, tmp_path, optimizer="muon", weight_decay=0.1)
    names = trainable(engine._model)
    ends = outside(engine._model)
    assert ends == {"model.embed_tokens.weight"}, "the head is tied to it"
    copies = {name: parameter.detach().clone() for name, parameter in names.items()}
    hidden = [copies[name] for name, parameter in names.items() if parameter.ndim == 2 and name not in ends]
    matrices, vectors = [copies[name] for name in ends], [copies[n] for n, p in names.items() if p.ndim < 2]
    muon = torch.optim.Muon(hidden, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}], lr=1e-2, fused=True
    )
    random = np.random.default_rng(1)
    for step in range(3):
        engine._stepper.backward([tiny_example(random) for _ in range(6)], (1, 1, step))
        for name, parameter in names.items():
            copies[name].grad = parameter.grad.clone()  # type: ignore[union-attr]
        engine._stepper.update(1e-2)
        muon.step()
        adamw.step()
    assert all(torch.equal(parameter, copies[name]) for name, parameter in names.items())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_bytes_of_moments_are_those_in_a_snapshot(folder: Path, tmp_path: Path, optimizer: str) -> None:
    engine, store = tiny_engine(folder, tmp_path, **settings(optimizer))
    engine.run(segment(0, 1), 1)
    tensors = store.get(1).tensors.items()
    kept = sum(t.nbytes for n, t in tensors if n.partition("/")[0] not in {"weight", "mean", "mean_steps", "step"})
    assert kept == moment_bytes(optimizer, engine._model)


@pytest.mark.parametrize("precision", ["fp32", "mixed"])
def test_adamw_in_8_bits_is_nearly_adamw(folder: Path, tmp_path: Path, precision: str) -> None:
    pytest.importorskip("bitsandbytes")
    ends = []
    for optimizer in ("adamw", "adamw_8bit"):
        engine, store = tiny_engine(
            folder, tmp_path / optimizer, optimizer=optimizer, weight_decay=0.1, precision=precision
        )
        start = dict(engine.state().tensors)
        begun = {name: tensor.clone() for name, tensor in start.items()}
        engine.run(segment(0, 6), 1)
        ends.append({name: store.get(1).tensors[name] - begun[name] for name in start})
    plain, few = ends
    for name in plain:
        away = float((plain[name] - few[name]).norm() / plain[name].norm())
        assert away < 0.2, name
    assert any(not torch.equal(plain[name], few[name]) for name in plain)


@pytest.mark.cpu("there, the optimizer's steps are computed by other kernels")
@pytest.mark.parametrize(
    "more", [{}, {"average": 0.5, "max_grad_norm": 0.1}, {"optimizer": "muon"}, {"peft": {"r": 2}}]
)
def test_masters_on_the_host_are_updated_alike(folder: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    """Several micro-batches a step, a roll-back, a look-ahead and a plain virtual step included."""
    found = []
    for on_host in (False, True):
        engine, store = tiny_engine(
            folder, tmp_path / str(on_host), precision="mixed", offload_optimizer=on_host, virtual="sgd", **more
        )
        masters = engine._stepper.masters
        assert masters is not None and masters.on_host is on_host
        engine.run(segment(0, 3), 1)
        looked = engine.run(segment(3, 6, parent=1, probes=frozenset({Probe.LOOKAHEAD})), 2)
        again = engine.run(segment(3, 5, parent=1), 3)
        angles = engine.conflict(2, 3)
        found.append((looked.scores, looked.lookahead, looked.train_loss, again.scores, angles, store.get(3).tensors))
    assert found[0][:-1] == found[1][:-1] and same(dict(found[0][-1]), dict(found[1][-1]))


def test_gradients_add_up_until_they_are_cleared(folder: Path, tmp_path: Path) -> None:
    engine, _ = tiny_engine(folder, tmp_path, precision="mixed", offload_optimizer=True, light=False)
    stepper, examples = engine._stepper, tiny_data()["one"].train[:4]
    stepper.backward(examples, None)
    once = {name: weight.grad.clone() for name, weight in stepper.weights.items()}  # type: ignore[union-attr]
    stepper.backward(examples, None)
    assert all(torch.equal(weight.grad, 2 * once[name]) for name, weight in stepper.weights.items())  # type: ignore[arg-type]
