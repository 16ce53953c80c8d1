"""The static step without graphs, on a CPU: the numbers of the eager one, the same bits again, masters in fp32."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_engine import export_merged, same, segment, tiny_engine, tiny_example, tiny_folder
from torch.utils._python_dispatch import TorchDispatchMode

from msft.core.vocabulary import ROOT, Mixture, Probe
from msft.engine import static_step as module
from msft.engine.masters import Masters
from msft.engine.static_step import StaticStepper, fitting
from msft.engine.torch_engine import TorchEngine
from msft.forward.filled import Filled, arrays
from msft.forward.token_rows import Row, row
from msft.model import hardware, isolation
from msft.model.compiled import _reading
from msft.model.token_loss import TokenLoss
from msft.snapshots.store import Store

pytestmark = pytest.mark.cpu("on a card, test_graphs.py has its place")
FULL: dict[str, Any] = {"lengths": True}


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def plain(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("llama"), tied=request.param)


def run(folder: Path, into: Path, cuts: tuple[int, ...] = (4, 9), **settings: Any) -> tuple[TorchEngine, Store, Any]:
    engine, store = tiny_engine(folder, into, **settings)
    last, parent = 0, ROOT
    for number, stop in enumerate(cuts, 1):
        outcome = engine.run(segment(last, stop, parent=parent), number)
        last, parent = stop, number
    return engine, store, outcome


def stepper(engine: TorchEngine) -> StaticStepper:
    found = engine._stepper
    assert isinstance(found, StaticStepper) and not found.late
    return found


@pytest.mark.parametrize("more", [{}, {"peft": {"r": 2, "target_modules": "all-linear"}},
                                  {"gradient_checkpointing": True}, {"average": 0.5},
                                  {"max_grad_norm": 0.1, "loss_reduction": "example"}],
                         ids=["full", "lora", "checkpointing", "averages", "clipped"])  # fmt: skip
def test_the_static_step_gives_the_eager_one_in_fp32(plain: Path, tmp_path: Path, more: dict[str, Any]) -> None:
    engine, store, found = run(plain, tmp_path / "static", **FULL, **more)
    assert stepper(engine)._filled, "micro-batches are filled up"
    _, eager, expected = run(plain, tmp_path / "eager", **more)
    assert found.train_loss == pytest.approx(expected.train_loss, rel=1e-6)
    assert found.scores == pytest.approx(expected.scores, rel=1e-5)
    assert found.tokens.train == expected.tokens.train, "what fills up is not counted"
    for name, tensor in eager.get(2).tensors.items():
        if name.startswith("exp_avg/"):  # gradients; Adam divides weights by their own size
            assert torch.allclose(store.get(2).tensors[name], tensor, rtol=1e-4, atol=1e-5 * float(tensor.abs().max()))


def test_the_same_bits_when_repeated_cut_differently_and_rolled_back(plain: Path, tmp_path: Path) -> None:
    engine, store, first = run(plain, tmp_path / "one", (4, 9), **FULL, precision="mixed")
    _, whole, _ = run(plain, tmp_path / "whole", (9,), **FULL, precision="mixed")
    assert same(dict(store.get(2).tensors), dict(whole.get(1).tensors))
    engine.run(segment(0, 3, parent=2, rollout=2, mixture=Mixture(tasks=("two",))), 3)
    again = engine.run(segment(4, 9, parent=1), 4)
    assert same(dict(store.get(2).tensors), dict(store.get(4).tensors))
    assert again.scores == first.scores and again.train_loss == first.train_loss


def test_an_engine_that_is_gone_leaves_no_model(plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A study's process runs one after another, and what it has proven of a model stays."""
    monkeypatch.setattr(isolation, "_PROVEN", {})
    engine, _ = tiny_engine(plain, tmp_path, **FULL)
    gone = weakref.ref(engine._model)
    del engine
    gc.collect()
    assert isolation._PROVEN and gone() is None


def test_masters_are_those_of_a_plain_adamw_and_the_model_holds_their_roundings(plain: Path, tmp_path: Path) -> None:
    """20 steps: masters against AdamW on the same gradients in fp32, copies and mean against the masters."""
    engine, _ = tiny_engine(plain, tmp_path, **FULL, precision="mixed", average=0.5, weight_decay=0.1)
    masters = stepper(engine).masters
    assert isinstance(masters, Masters) and all(t.dtype == torch.float32 for t in masters.tensors.values())
    expected = {name: tensor.clone() for name, tensor in masters.tensors.items()}
    groups = [[t for t in expected.values() if t.ndim >= 2], [t for t in expected.values() if t.ndim < 2]]
    reference = torch.optim.AdamW(
        [{"params": groups[0], "weight_decay": 0.1}, {"params": groups[1], "weight_decay": 0.0}], lr=1e-2
    )
    random = np.random.default_rng(1)
    examples = [tiny_example(random) for _ in range(6)]
    for step in range(20):
        stepper(engine).backward(examples, (1, 1, step))
        for name, tensor in expected.items():
            tensor.grad = masters.tensors[name].grad.clone()  # type: ignore[union-attr]
        stepper(engine).update(1e-2)
        engine._average.update()  # type: ignore[union-attr]
        reference.step()
    for name, parameter in engine._model.named_parameters():
        assert torch.allclose(masters.tensors[name], expected[name], rtol=1e-5, atol=1e-6)
        assert parameter.dtype == torch.bfloat16 and torch.equal(parameter, masters.tensors[name].bfloat16())
    with engine._evaluated():
        for name, parameter in engine._model.named_parameters():
            assert torch.equal(parameter, masters.tensors[name].bfloat16())
            assert not torch.equal(masters.tensors[name], expected[name]), "the mean is evaluated"
    assert all(torch.allclose(masters.tensors[n], expected[n], rtol=1e-5, atol=1e-6) for n in expected)


def test_several_micro_batches_add_up_in_fp32(plain: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    examples = [tiny_example(random) for _ in range(6)]
    found = []
    for name, tokens in (("one", 400), ("many", 30)):
        engine, _ = tiny_engine(plain, tmp_path / name, **FULL, precision="mixed", max_tokens_per_microbatch=tokens)
        loss = stepper(engine).backward(examples, (1, 1, 1)).loss
        found.append((loss, {n: t.grad.clone() for n, t in stepper(engine).masters.tensors.items()}))  # type: ignore[union-attr]
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-2)
    for name, gradient in found[0][1].items():
        assert (gradient - found[1][1][name]).norm() < 0.05 * gradient.norm(), name


def test_layers_are_tried_on_rows_whose_gradients_are_finite(tmp_path: Path) -> None:
    """Not on what fills up: a token whose embedding is zero has gradients that overflow in a deep model."""
    engine, _ = tiny_engine(tiny_folder(tmp_path / "deep", "deep"), tmp_path / "run", **FULL, precision="mixed")
    loss, largest = stepper(engine).model, stepper(engine)._filled[-1]
    assert isinstance(loss, TokenLoss)
    random = np.random.default_rng(1)
    given = [row([tiny_example(random)]) for _ in range(60)]
    some = fitting(given, largest.shape)
    assert 1 < len(some) < 60 and {id(one) for one in some} == {id(one) for one in given[: len(some)]}
    assert largest.shape.holds(some) and not largest.shape.holds(given[: len(some) + 1])

    def finite(rows: list[Row]) -> bool:
        largest.take(arrays(rows, largest.shape, np.ones(sum(len(one.targets) for one in rows))))
        return all(bool(found.isfinite().all()) for found in _reading(loss, largest.batch, learns=True)[1].values())

    assert finite(some) and not finite([])


@pytest.mark.parametrize("precision", ["fp32", "mixed"])
def test_what_fills_up_changes_no_bit(plain: Path, tmp_path: Path, precision: str) -> None:
    engine, _ = tiny_engine(plain, tmp_path, **FULL, precision=precision)
    random = np.random.default_rng(1)
    rows = [row([tiny_example(random)]) for _ in range(6)]
    filled = next(filled for filled in stepper(engine)._filled if filled.shape.holds(rows))
    targets, tokens = sum(len(one.targets) for one in rows), sum(map(len, rows))
    assert filled.shape.tokens > tokens and filled.shape.targets > targets
    found = []
    for token in (0, 7):
        filled.take(arrays(rows, filled.shape, np.linspace(0, 2, targets)))
        filled.batch.ids[0, tokens:] = token
        filled.batch.targets[targets:] = token
        nll = stepper(engine)._pass(filled.batch, filled.weights)[:targets]
        found.append([nll, *(w.grad.clone() for w in stepper(engine).weights.values() if w.grad is not None)])
        stepper(engine).optimizer.zero_grad(set_to_none=True)
    assert len(found[0]) > 10 and all(map(torch.equal, *found))


def test_a_lookahead_losses_conflict_and_scores_use_the_masters(plain: Path, tmp_path: Path) -> None:
    settings = {**FULL, "precision": "mixed"}
    engine, store = tiny_engine(plain, tmp_path / "a", **settings)
    probes = frozenset({Probe.LOOKAHEAD, Probe.LOSSES})
    with_probe = engine.run(segment(0, 6, probes=probes), 1)
    other, plain_store = tiny_engine(plain, tmp_path / "b", **settings)
    without = other.run(segment(0, 6), 1)
    assert same(dict(store.get(1).tensors), dict(plain_store.get(1).tensors)), "a look-ahead leaves no trace"
    assert with_probe.scores == without.scores and with_probe.lookahead is not None
    eager, _ = tiny_engine(plain, tmp_path / "c")
    expected = eager.run(segment(0, 6, probes=probes), 1)
    assert with_probe.lookahead == pytest.approx(expected.lookahead, abs=0.05)
    cosines = engine.conflict(1, 4)
    assert cosines == pytest.approx(eager.conflict(1, 4), abs=0.05)


def test_the_final_model_has_the_masters_in_the_stored_type(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "base")
    engine, store, _ = run(folder, tmp_path / "run", **FULL, precision="mixed")
    from safetensors.torch import load_file

    engine.export(2, tmp_path / "final")
    found = load_file(tmp_path / "final" / "model.safetensors")
    kept = store.get(2).tensors
    assert all(torch.equal(tensor, kept[f"weight/{name}"]) for name, tensor in found.items())
    assert all(p.dtype == torch.bfloat16 for p in engine._model.parameters()), "the model goes on in bf16"
    assert engine.run(segment(9, 10, parent=2), 3).scores


def test_a_merged_adapter_is_merged_in_fp32(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "base")
    engine, _, _ = run(
        folder, tmp_path / "run", **FULL, precision="mixed", peft={"r": 2, "target_modules": "all-linear"}
    )
    export_merged(engine, 2, tmp_path / "merged")
    from transformers import AutoModelForCausalLM

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    name = "model.layers.0.self_attn.q_proj.weight"
    changed = merged.state_dict()[name] - base.state_dict()[name]
    assert changed.abs().max() > 0 and torch.linalg.matrix_rank(changed, rtol=1e-3) <= 2, "not rounded to bf16"


def with_stand_ins(patch: pytest.MonkeyPatch, made: StaticStepper, fails: Exception | None = None) -> None:
    """Records all sizes by stand-ins, or fails to. A replay computes what was recorded."""
    masters, pending = made.masters, []
    assert masters is not None
    collect = masters.collect
    patch.setattr(masters, "collect", lambda: (pending.append(masters.pending), collect()))

    @contextmanager
    def recording(graph: Any, pool: object) -> Iterator[None]:
        if fails is not None:
            raise fails
        yield
        graph.adds = pending[-1]

    class Replays:
        adds = False

        def replay(self) -> None:
            both = [(graph, each) for graph in made._graphs.values() if graph for each in (graph._sets, graph._adds)]
            ((graph, nll),) = ((graph, nll) for graph, (recorded, nll) in both if recorded is self)
            assert masters is not None and masters.pending is self.adds
            nll.data.copy_(graph._compute())

    patch.setattr(torch.cuda, "CUDAGraph", Replays)
    patch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
    patch.setattr(module, "recording", recording)
    patch.setattr(module, "warmed_up", lambda compute, times: [compute() for _ in range(times)])
    made._record()


def test_both_graphs_of_a_size_are_recorded_before_training_and_leave_no_gradient(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A parameter that no pass uses has none, however many micro-batches a step has, and so does not decay."""
    few, many = (tiny_engine(plain, tmp_path / name, **FULL, precision="mixed", max_tokens_per_microbatch=40)[0]
                 for name in ("graphs", "none"))  # fmt: skip
    made = stepper(few)
    few._model.unused = torch.nn.Parameter(torch.ones(2, 2, dtype=torch.bfloat16))
    made.held = Masters(few._model)
    with_stand_ins(monkeypatch, made)
    assert len(made._graphs) == len(made._filled) and all(made._graphs.values())
    assert not made.masters.pending and all(p.grad is None for p in few._model.parameters())  # type: ignore[union-attr]
    random = np.random.default_rng(1)
    for count in (1, 9, 9):
        examples = [tiny_example(random) for _ in range(count)]
        assert made.backward(examples, (1, 1, count)).loss == stepper(many).backward(examples, (1, 1, count)).loss
        found, expected = (each.masters.tensors for each in (made, stepper(many)))  # type: ignore[union-attr]
        assert all(torch.equal(found[name].grad, tensor.grad) for name, tensor in expected.items())  # type: ignore[arg-type]
        assert found["unused"].grad is None
        for each in (made, stepper(many)):
            each.masters.detach()  # type: ignore[union-attr]


def test_a_size_that_cannot_be_recorded_says_why_and_is_computed(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, _ = tiny_engine(plain, tmp_path, **FULL, precision="mixed")
    with_stand_ins(monkeypatch, stepper(engine), torch.OutOfMemoryError("out of memory\nand more"))
    assert not any(stepper(engine)._graphs.values()) and not stepper(engine).masters.pending  # type: ignore[union-attr]
    assert "no CUDA graph for 128 tokens: OutOfMemoryError: out of memory" in stepper(engine).said
    assert "and more" not in stepper(engine).said
    assert engine.run(segment(0, 3), 1).train_loss is not None


def with_two_sizes(made: StaticStepper) -> StaticStepper:
    (whole,) = made._filled
    half = replace(whole.shape, tokens=whole.shape.tokens // 2)
    made._filled.insert(0, Filled(half, torch.device("cpu")))
    return made


def test_all_sizes_are_warmed_up_before_one_is_recorded(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a pass takes that is not recorded would not fit beside the memory of the graphs."""
    engine, _ = tiny_engine(plain, tmp_path, **FULL, precision="mixed")
    made, order = with_two_sizes(stepper(engine)), []
    warm, recorded = made._warm, made._recorded
    monkeypatch.setattr(made, "_warm", lambda *given: (order.append("warm"), warm(*given))[1])
    monkeypatch.setattr(made, "_recorded", lambda *given: (order.append("recorded"), recorded(*given))[1])
    with_stand_ins(monkeypatch, made)
    assert order == ["warm"] * len(made._filled) + ["recorded"] * len(made._filled)


def test_a_size_without_a_graph_gives_way_to_a_larger_one_with_a_graph(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training only, where a pass without a graph takes memory beside that of the graphs."""
    engine, _ = tiny_engine(plain, tmp_path, **FULL, precision="mixed")
    made = with_two_sizes(stepper(engine))
    with_stand_ins(monkeypatch, made)
    rows = [row([tiny_example(np.random.default_rng(1))])]
    assert made._place_of(rows, trains=True) == 0
    made._graphs[0] = None
    assert made._place_of(rows, trains=True) == 1 and made._place_of(rows, trains=False) == 0
    made._graphs = dict.fromkeys(made._graphs)
    assert made._place_of(rows, trains=True) == 0


def test_a_recording_that_fails_raises_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not that it cannot be ended, nor an error that had been handled before."""

    @contextmanager
    def graph(*_: Any, **__: Any) -> Iterator[None]:
        try:
            yield
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    ended: list[Any] = []
    for name, stand_in in (("graph", graph), ("stream", lambda _: nullcontext()), ("current_stream", lambda: None)):
        monkeypatch.setattr(torch.cuda, name, stand_in)
    monkeypatch.setattr(hardware, "_after_failed_recording", ended.append)
    with pytest.raises(ValueError, match="the reason"), hardware.recording(None, "pool"):  # type: ignore[arg-type]
        try:
            raise KeyError("handled")
        except KeyError:
            raise ValueError("the reason")  # noqa: B904
    with pytest.raises(RuntimeError, match="previous error"), hardware.recording(None, "pool"):  # type: ignore[arg-type]
        pass
    assert ended == ["pool", "pool"]


class Counted(TorchDispatchMode):
    """Counts the operations that a GPU would run: views are none."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        views = any(a.alias_info is not None and not a.alias_info.is_write for a in func._schema.arguments)
        self.count += not views
        return func(*args, **(kwargs or {}))


def operations(folder: Path, into: Path, rows: int, layers: int) -> int:
    engine, _ = tiny_engine(folder, into, **FULL, precision="mixed", batch_size=rows, max_tokens_per_microbatch=2000)
    random = np.random.default_rng(1)
    examples = [tiny_example(random) for _ in range(rows)]
    stepper(engine).backward(examples, None)
    stepper(engine).update(1e-3)
    with Counted() as counted:
        stepper(engine).begin(examples, None)
        stepper(engine).update(1e-3)
    return counted.count


def test_the_operations_of_a_step_do_not_grow_with_its_rows(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "base")
    few, many = (operations(folder, tmp_path / str(rows), rows, 2) for rows in (6, 30))
    assert few == many
    # 2 layers. Of an eager Llama layer, forward and backward, that a compiler then joins.
    assert few < MOST_OPERATIONS


MOST_OPERATIONS = 330
