"""CUDA graphs, flash attention and compiled layers: what can run on a card only (`make gpu-check`)."""

from __future__ import annotations

import gc
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_static_step import run
from tiny_engine import same, segment, tiny_engine, tiny_example, tiny_folder

from msft.core.errors import in_a_line
from msft.core.vocabulary import Mixture, Probe, Teacher
from msft.engine.static_step import StaticStepper
from msft.engine.torch_engine import TorchEngine
from msft.model.hardware import recording, warmed_up
from msft.snapshots.tensor_file import blocks

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda")
MIXED: dict[str, Any] = {"precision": "mixed", "max_tokens_per_microbatch": 400}
PLAIN = MIXED | {"cuda_graphs": "plain"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llama"))


def graphs(engine: TorchEngine) -> list[Any]:
    stepper = engine._stepper
    assert isinstance(stepper, StaticStepper) and stepper.late
    assert stepper._graphs and all(stepper._graphs.values()), stepper.said
    return list(stepper._graphs.values())


@pytest.mark.parametrize("heads", [(4, 4, 64), (9, 3, 64), (8, 2, 128), (4, 1, 256)])
@pytest.mark.parametrize("before", [-1, 5])
def test_flash_attention_gives_the_padded_rows(heads: tuple[int, int, int], before: int) -> None:
    query_heads, key_heads, width = heads
    ends = torch.tensor([0, 3, 3, 40, 97, 128, 128], dtype=torch.int32, device=CUDA)
    torch.manual_seed(0)
    parts = [torch.randn(128, count, width, device=CUDA) for count in (query_heads, key_heads, key_heads)]
    given = torch.randn_like(parts[0])
    found = []
    for dtype in (torch.bfloat16, torch.float32):
        inputs = [part.to(dtype).requires_grad_() for part in parts]
        out = torch.ops.msft.rows_attention(*inputs, ends, 57, width**-0.5, before)[0]
        found.append([out, *torch.autograd.grad(out, inputs, given.to(dtype))])
    for flash, padded in zip(*found, strict=True):
        assert (flash.float() - padded).norm() < 0.02 * padded.norm()


@pytest.mark.parametrize("more", [{}, {"average": 0.5}, {"peft": {"r": 2, "target_modules": "all-linear"}},
                                  {"gradient_checkpointing": True}, {"max_grad_norm": 0.1}],
                         ids=["full", "averages", "lora", "checkpointing", "clipped"])  # fmt: skip
def test_a_graph_gives_the_bits_of_the_same_code_without_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    engine, store, found = run(folder, tmp_path / "graphs", **MIXED, **more, cuda_graphs="plain")
    graphs(engine)
    with monkeypatch.context() as patch:
        patch.setattr(StaticStepper, "_record", lambda self: None)
        _, other, expected = run(folder, tmp_path / "none", **MIXED, **more, cuda_graphs="plain")
    assert found.train_loss == expected.train_loss and found.scores == expected.scores
    assert same(dict(store.get(2).tensors), dict(other.get(2).tensors))


def test_compiled_layers_give_the_plain_ones_up_to_rounding(folder: Path, tmp_path: Path) -> None:
    engine, _, found = run(folder, tmp_path / "compiled", **MIXED)
    graphs(engine)
    assert "not compiled" not in engine.light
    _, _, expected = run(folder, tmp_path / "plain", **MIXED, cuda_graphs="plain")
    assert found.train_loss == pytest.approx(expected.train_loss, rel=1e-2)
    assert found.scores == pytest.approx(expected.scores, rel=0.05)


def test_layers_of_a_deep_model_whose_padding_is_zero_are_compiled(tmp_path: Path) -> None:
    """Through 30 layers, the gradient of a token whose embedding is zero overflows, so no such token may be tried."""
    engine, _ = tiny_engine(tiny_folder(tmp_path / "deep", "deep"), tmp_path / "run", **MIXED)
    graphs(engine)
    assert "not compiled" not in engine.light


def test_snapshots_stay_on_the_card_where_there_is_room(folder: Path, tmp_path: Path) -> None:
    _, roomy, found = run(folder, tmp_path / "room", **MIXED, cuda_graphs="plain", gpu_bytes=10**9, durable="tick")
    assert roomy.get(2).on_gpu and found.bytes == roomy.get(2).nbytes
    _, full, again = run(folder, tmp_path / "full", **MIXED, cuda_graphs="plain", gpu_bytes=0)
    assert not full.get(2).on_gpu and again.scores == found.scores
    on_host = {name: tensor.cpu() for name, tensor in roomy.get(2).tensors.items()}
    assert same(on_host, dict(full.get(2).tensors))
    roomy.prune({2})
    read, _ = tiny_engine(folder, tmp_path / "room", **MIXED, cuda_graphs="plain")
    assert same(on_host, dict(read._store.get(2).tensors)), "what was written is what is on the card"


def test_the_same_run_cut_differently_and_rolled_back_gives_the_same_bits(folder: Path, tmp_path: Path) -> None:
    engine, store, first = run(folder, tmp_path / "one", (4, 9), **PLAIN)
    _, whole, _ = run(folder, tmp_path / "whole", (9,), **PLAIN)
    assert same(dict(store.get(2).tensors), dict(whole.get(1).tensors))
    engine.run(
        segment(0, 3, parent=2, rollout=2, mixture=Mixture(tasks=("two",)), probes=frozenset({Probe.LOOKAHEAD})), 3
    )
    again = engine.run(segment(4, 9, parent=1), 4)
    assert same(dict(store.get(2).tensors), dict(store.get(4).tensors))
    assert again.scores == first.scores and again.train_loss == first.train_loss


def test_a_step_with_a_teacher_repeats_its_bits_and_is_that_of_the_eager_path(folder: Path, tmp_path: Path) -> None:
    """It has recorded sizes of its own."""
    found = []
    for name, settings in (("graphs", PLAIN | {"soft_targets": 3}), ("eager", PLAIN | {"cuda_graphs": False})):
        engine, store, _ = run(folder, tmp_path / name, (9,), **settings)
        if name == "graphs":
            graphs(engine)
            assert {filled.shape.width for filled in engine._stepper._filled} == {1, 3}  # type: ignore[attr-defined]
        taught = [engine.run(segment(0, 4, rollout=2, teacher=Teacher(snapshots=(1,), top=2)), n) for n in (2, 3)]
        assert same(dict(store.get(2).tensors), dict(store.get(3).tensors))
        assert taught[0].scores == taught[1].scores
        found.append(taught[0])
    assert found[0].train_loss == pytest.approx(found[1].train_loss, rel=1e-2)
    assert found[0].scores == pytest.approx(found[1].scores, rel=0.05)


def test_several_micro_batches_add_up(folder: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    examples = [tiny_example(random) for _ in range(60)]
    found = []
    for name, tokens in (("one", 4000), ("many", 256)):
        engine, _ = tiny_engine(folder, tmp_path / name, **PLAIN | {"max_tokens_per_microbatch": tokens}, batch_size=60)
        stepper = engine._stepper
        graphs(engine)
        for _ in range(2):
            loss = stepper.backward(examples, (1, 1, 1)).loss
            gradients = {name: t.grad.clone() for name, t in stepper.masters.tensors.items()}  # type: ignore[union-attr]
            stepper.optimizer.zero_grad(set_to_none=True)
            found.append((loss, gradients))
    assert found[0][0] == pytest.approx(found[2][0], rel=1e-2) and found[2][0] == found[3][0]
    for name, gradient in found[0][1].items():
        assert (gradient - found[2][1][name]).norm() < 0.05 * gradient.norm() + 1e-6, name
        assert torch.equal(found[2][1][name], found[3][1][name]), name


def test_dropout_is_drawn_anew_in_each_step_and_again_the_same(tmp_path: Path) -> None:
    dropping = tiny_folder(tmp_path / "base")
    lora = {"r": 2, "lora_dropout": 0.3, "target_modules": "all-linear"}
    engine, _ = tiny_engine(dropping, tmp_path / "run", **PLAIN, peft=lora)
    graphs(engine)
    torch.nn.init.normal_(next(t for n, t in engine._stepper.weights.items() if "lora_B" in n))
    engine._stepper.cast()
    random = np.random.default_rng(1)
    examples = [tiny_example(random) for _ in range(6)]
    one, again, other = (engine._stepper.backward(examples, (1, 1, step)).loss for step in (1, 1, 2))
    assert one == again != other


def fails_to_record() -> str:
    """Why: reading a number waits for the device, which a recording cannot."""
    number = torch.ones(1 << 20, device=CUDA)
    with pytest.raises(RuntimeError) as failed, recording(torch.cuda.CUDAGraph()):
        float((number * 2).sum())
    return in_a_line(failed.value)


def test_after_a_failed_recording_all_works_again() -> None:
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    stream = torch.cuda.current_stream()
    assert "capture" in fails_to_record()
    assert torch.cuda.current_stream() == stream
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() <= before, "what was recorded is given back"
    number, graph = torch.zeros(1, device=CUDA), torch.cuda.CUDAGraph()
    warmed_up(lambda: number.add_(1), 2)
    with recording(graph):
        number.add_(1)
    graph.replay()
    assert float(number) == 3 and 0 <= float(torch.rand(1, device=CUDA)) < 1


def test_graphs_that_exist_are_seeded_after_a_failed_recording(tmp_path: Path) -> None:
    lora = {"r": 2, "lora_dropout": 0.3, "target_modules": "all-linear"}
    engine, _ = tiny_engine(tiny_folder(tmp_path / "base"), tmp_path / "run", **MIXED, peft=lora)
    graphs(engine)
    assert "not compiled" not in engine.light, "compiled layers drop what plain ones drop"
    torch.nn.init.normal_(next(t for n, t in engine._stepper.weights.items() if "lora_B" in n))
    engine._stepper.cast()
    random = np.random.default_rng(1)
    examples = [tiny_example(random) for _ in range(6)]
    before = engine._stepper.backward(examples, (1, 1, 1)).loss
    fails_to_record()
    assert engine._stepper.backward(examples, (1, 1, 1)).loss == before


def test_snapshots_are_written_while_steps_are_recorded() -> None:
    tensors, stops = {f"weight/{n}": torch.ones(64, 64, device=CUDA) for n in range(100)}, threading.Event()
    failed: list[BaseException] = []

    def write() -> None:
        try:
            while not stops.is_set():
                assert sum(map(len, blocks(tensors))) > 100 * 64 * 64 * 4
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    number = torch.zeros(64, 64, device=CUDA)
    for _ in range(40):
        with recording(torch.cuda.CUDAGraph()):
            for _ in range(100):
                number = number @ number
    stops.set()
    writer.join()
    assert not failed


def test_an_engine_that_is_gone_leaves_nothing_on_the_card(folder: Path, tmp_path: Path) -> None:
    found = []
    for name in "abc":
        engine, _ = tiny_engine(folder, tmp_path / name, **MIXED)
        engine.run(segment(0, 3), 1)
        del engine
        gc.collect()
        found.append(torch.cuda.memory_allocated())
    assert found[2] <= found[1]


def test_attention_over_lengths_is_for_bf16(folder: Path, tmp_path: Path) -> None:
    for precision in ("fp32", "autocast"):
        engine, _ = tiny_engine(folder, tmp_path / precision, precision=precision)
        assert engine._stepper.runtime.layout == "flat", "its stand-in takes GiB of long rows"
        assert engine.run(segment(0, 3), 1).train_loss is not None


def test_a_model_that_cannot_be_recorded_runs_without_graphs(folder: Path, tmp_path: Path) -> None:
    hooked: list[Any] = []

    def reads(module: Any, inputs: Any, output: torch.Tensor) -> None:
        hooked.append(float(output.sum()))  # waits for the device

    from msft.model import token_loss

    before = token_loss.TokenLoss.__init__

    def made(self: Any, model: Any) -> None:
        before(self, model)
        self.embedding.register_forward_hook(reads)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(token_loss.TokenLoss, "__init__", made)
        engine, _ = tiny_engine(folder, tmp_path, **MIXED, cuda_graphs="plain")
    stepper = engine._stepper
    assert isinstance(stepper, StaticStepper) and not any(stepper._graphs.values()) and "no CUDA graph" in stepper.said
    assert engine.run(segment(0, 3), 1).train_loss is not None
