"""What the model leaves out changes no likelihood: logits' copies, norms' copies, tokens that nobody reads."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from tiny_engine import VOCABULARY, tiny_engine, tiny_folder, tiny_model
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from msft.core.errors import ModelError
from msft.data.examples import Example
from msft.forward.batches import MicroBatch, collate
from msft.forward.swap import restore, swap, swapped
from msft.forward.token_rows import row
from msft.model import cross_entropy, gated, head
from msft.model.cross_entropy import token_nll
from msft.model.lighten import Lighter, lighten
from msft.model.norms import WHY_NARROW, lighten_narrow_norms, lighten_norms
from msft.model.precision import narrow
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss

CPU = torch.device("cpu")
PROMPT = [5, 6, 7, 8]
OPTIONS = [[9], [10, 11], [9, 3, 2]]


def bf16() -> AbstractContextManager[object]:
    return torch.autocast("cpu", torch.bfloat16)


def batch(*, flat: bool = True, choices: bool = False) -> MicroBatch:
    def example(prompt: list[int], target: list[int]) -> Example:
        return Example(ids=np.array(prompt + target, np.int32), trained=np.arange(len(prompt + target)) >= len(prompt))

    groups = [[example(PROMPT[:length], option)] for length, option in zip((2, 3, 4), OPTIONS, strict=True)]
    if choices:
        groups.append([example(PROMPT, option) for option in OPTIONS])
    return collate([row(group) for group in groups], CPU, layout="flat" if flat else "padded", hits=True)


def loss_and_gradients(loss: TokenLoss, given: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
    loss.zero_grad()
    nll = loss(given).nll
    (nll * torch.linspace(0.1, 1, len(nll))).sum().backward()
    return nll.detach(), {n: p.grad.clone() for n, p in loss.named_parameters() if p.grad is not None}


def lightened(model: PreTrainedModel, *, bf16: bool = False) -> TokenLoss:
    loss = TokenLoss(model)
    lighten(loss, fitting_layout(loss, CPU).rows, CPU, precision="autocast" if bf16 else "fp32", direct=True)
    return loss


def qwen3() -> PreTrainedModel:
    """A norm on each head's queries and keys too, which the rotation reads."""
    torch.manual_seed(1)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, head_dim=8, max_position_embeddings=64,
        )
    )  # fmt: skip


@given(rows=st.integers(0, 9), piece=st.integers(1, 40), half=st.booleans(), seed=st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_the_loss_is_cross_entropy_however_it_is_cut(rows: int, piece: int, half: bool, seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(rows, 7, generator=draw)).to(torch.bfloat16 if half else torch.float32).requires_grad_()
    targets = torch.randint(0, 7, (rows,), generator=draw)
    weights = torch.rand(rows, generator=draw)
    expected = functional.cross_entropy(logits.float(), targets, reduction="none")
    (of_expected,) = torch.autograd.grad((expected * weights).sum(), logits)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_entropy, "PIECE", {"cpu": piece})
        nll = token_nll(logits, torch.arange(rows), targets)
        (of_nll,) = torch.autograd.grad((nll * weights).sum(), logits)
    torch.testing.assert_close(nll, expected)
    torch.testing.assert_close(of_nll, of_expected)
    assert of_nll.dtype == logits.dtype and nll.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "light"),
    [
        ("llama", ["model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"]),
        ("qwen3", ["model.layers.0.input_layernorm", "model.layers.0.post_attention_layernorm"]),
        ("gemma2", []),
        ("gpt2", []),
    ],
)
def test_norms_are_light_where_only_linear_layers_read_them(kind: str, light: list[str]) -> None:
    """Of the last layer the second is read by what picks the tokens out; Gemma's is another formula."""
    model = qwen3() if kind == "qwen3" else tiny_model(kind)
    lightened(model, bf16=True)
    after = {name for name in swapped(model) if "norm" in name}
    assert after == {*light, *(["model.layers.1.input_layernorm"] if light else [])}


def test_light_norms_give_the_same_bits_and_nearly_the_same_gradients() -> None:
    plain, light = (TokenLoss(tiny_model()) for _ in range(2))
    for loss in (plain, light):
        fitting_layout(loss, CPU)
        loss.get_parameter("model.model.layers.0.input_layernorm.weight").data.copy_(torch.linspace(0.5, 1.7, 16))
    assert lighten_norms(light.model, lambda: light(batch())) == 4
    with bf16():
        (nll, expected), (own, found) = (loss_and_gradients(loss, batch()) for loss in (plain, light))
    assert torch.equal(own, nll)
    exact = loss_and_gradients(plain, batch())[1]
    for name, gradient in expected.items():
        # As far from the gradient in fp32 as without them, give or take.
        rounding = (gradient - exact[name]).norm() + 1e-3 * exact[name].norm()
        assert (found[name] - exact[name]).norm() <= 2 * rounding, name
    with bf16():
        norm = light.model.model.layers[0].input_layernorm
        assert norm(torch.ones(1, 2, 16)).dtype == torch.bfloat16
        assert norm(torch.ones(1, 2, 16, dtype=torch.float64)).dtype == torch.float64
    assert norm(torch.ones(1, 2, 16)).dtype == torch.float32


def test_norms_of_a_model_in_bf16_give_the_same_bits() -> None:
    """The last norm too, whose output is no linear layer's input."""
    plain, light, exact = (TokenLoss(tiny_model()) for _ in range(3))
    for loss in (plain, light, exact):
        fitting_layout(loss, CPU)
        loss.get_parameter("model.model.layers.0.input_layernorm.weight").data.copy_(torch.linspace(0.5, 1.7, 16))
    lighten(light, "flat", CPU, precision="mixed", direct=True, parts=Lighter(head=False, last_mlp=False))
    assert sum(why == WHY_NARROW for why in swapped(light.model).values()) == 5
    for loss in (plain, light):
        narrow(loss.model)
    (nll, expected), (own, found) = (loss_and_gradients(loss, batch()) for loss in (plain, light))
    assert torch.equal(own, nll)
    for name, gradient in loss_and_gradients(exact, batch())[1].items():
        rounding = (expected[name] - gradient).norm() + 1e-3 * gradient.norm()
        assert found[name].dtype == torch.bfloat16
        assert (found[name] - gradient).norm() <= 2 * rounding, name


def test_a_norm_of_another_formula_in_bf16_stays_as_it_is() -> None:
    """Gemma multiplies by its weight before it rounds."""
    assert lighten_narrow_norms(tiny_model("gemma2")) == 0


def test_a_copy_of_a_light_norm_has_its_own_weight_and_a_frozen_one_no_gradient() -> None:
    model = tiny_model()
    lightened(model, bf16=True)
    norm = model.model.layers[0].input_layernorm
    twin = copy.deepcopy(norm)
    torch.nn.init.constant_(twin.weight, 3.0)
    twin.weight.requires_grad = False
    hidden = torch.randn(1, 4, 16, requires_grad=True)
    with bf16():
        torch.testing.assert_close(twin(hidden).float(), 3 * norm(hidden).float(), rtol=0.02, atol=0.02)
        twin(hidden).sum().backward()
    assert twin.weight.grad is None and hidden.grad is not None


def test_a_norm_that_anything_else_reads_stays_as_it_is() -> None:
    model = tiny_model()
    attention = model.model.layers[0].self_attn
    inner = attention.forward

    def forward(hidden_states: Tensor, **given: object) -> object:
        output, weights = inner(hidden_states=hidden_states, **given)
        return output + hidden_states, weights

    attention.forward = forward
    lightened(model, bf16=True)
    light = {name for name in swapped(model) if name.endswith("input_layernorm")}
    assert light == {"model.layers.1.input_layernorm"}


@pytest.mark.parametrize("layout", ["flat", "branches", "padded"])
@pytest.mark.parametrize("half", [False, True])
def test_the_last_mlp_sees_only_what_is_read(layout: str, half: bool) -> None:
    """With choices, several targets are predicted from the end of one prompt: its gradient counts once."""
    model, whole = tiny_model(), TokenLoss(tiny_model())
    if layout != "flat":
        model.config._attn_implementation = "eager" if layout == "padded" else "sdpa"
    loss = lightened(model)
    assert loss.narrow
    if layout == "flat":
        fitting_layout(whole, CPU)
    else:
        model.set_attn_implementation("sdpa")
    given = batch(flat=layout == "flat", choices=layout != "padded")
    seen: list[tuple[int, ...]] = []
    model.model.layers[-1].mlp.gate_proj.register_forward_pre_hook(lambda m, inputs: seen.append(inputs[0].shape))
    with bf16() if half else nullcontext():
        (nll, expected), (own, found) = (loss_and_gradients(one, given) for one in (whole, loss))
    assert seen == [(1, len(set(given.read[given.rows].tolist())), 16)]
    torch.testing.assert_close(own, nll, rtol=1e-5, atol=1e-6)
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-2 if half else 1e-5, atol=1e-2 if half else 1e-6)


def test_a_last_mlp_that_mixes_tokens_is_left_alone() -> None:
    class Mixes(nn.Module):
        """Each token takes from the one before it."""

        def forward(self, hidden: Tensor) -> Tensor:
            return hidden + hidden.roll(1, 1)

    mixing = tiny_model()
    mixing.model.layers[-1].mlp.down_proj = nn.Sequential(mixing.model.layers[-1].mlp.down_proj, Mixes())
    assert not lightened(mixing).narrow
    assert not TokenLoss(tiny_model("gpt2")).narrows, "its layers go by another name"


def test_the_last_mlp_sees_all_where_it_is_run_again() -> None:
    model = tiny_model()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = lightened(model).train()
    assert loss.checkpoints and not loss.narrow
    found = loss_and_gradients(loss, batch())[1]
    for name, gradient in loss_and_gradients(lightened(tiny_model()), batch())[1].items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("half", [False, True])
def test_light_gates_give_the_same_bits(half: bool) -> None:
    plain, light = TokenLoss(tiny_model()), TokenLoss(tiny_model())
    for loss in (plain, light):
        fitting_layout(loss, CPU)
    assert gated.lighten_gates(light.model) == 2
    with bf16() if half else nullcontext():
        (nll, expected), (own, found) = (loss_and_gradients(loss, batch()) for loss in (plain, light))
    assert torch.equal(own, nll)
    for name, gradient in expected.items():
        assert torch.equal(found[name], gradient), name


def test_a_gate_of_another_kind_is_left_alone() -> None:
    """Gemma's opens by GELU; one that drops out does so in training only."""
    model = tiny_model().eval()
    model.model.layers[0].mlp.down_proj = nn.Sequential(model.model.layers[0].mlp.down_proj, nn.Dropout(0.1))
    inner = type(model.model.layers[1].mlp)

    class Drops(inner):  # type: ignore[misc, valid-type]
        def forward(self, hidden: Tensor) -> Tensor:
            dropped: Tensor = functional.dropout(super().forward(hidden), 0.1, self.training)
            return dropped

    model.model.layers[1].mlp.__class__ = Drops
    assert gated.lighten_gates(model) <= 1
    assert type(model.model.layers[1].mlp) is Drops and not model.training
    assert gated.lighten_gates(tiny_model("gemma2")) == gated.lighten_gates(tiny_model("gpt2")) == 0


def test_a_light_gate_keeps_no_activation() -> None:
    """Of gate, up, their product and the activation, three are kept for the backward pass."""
    kept: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        kept.append(tensor.numel())
        return tensor

    counts = []
    for light in (False, True):
        mlp = tiny_model().model.layers[0].mlp
        if light:
            assert gated.lighten_gates(nn.ModuleList([mlp])) == 1
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            mlp(torch.randn(1, 10, 16, requires_grad=True))
        counts.append(kept.count(10 * 32))
    assert counts[1] < counts[0]


def test_a_copy_of_a_light_model_computes_with_its_own_weights() -> None:
    """A closure would compute with the original's in silence."""
    model = tiny_model()
    lightened(model, bf16=True)
    assert swapped(model)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        twin, before = copy.deepcopy(model), model(ids).logits
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(ids).logits.any()
        assert torch.equal(model(ids).logits, before)


def test_a_light_model_can_be_saved_whole_and_read_back(tmp_path: Path) -> None:
    model = tiny_model()
    lightened(model, bf16=True)
    torch.save(model, tmp_path / "model.pt")
    again = torch.load(tmp_path / "model.pt", weights_only=False)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)


def test_an_adapter_merges_into_a_light_model() -> None:
    def merged(*, light: bool) -> Tensor:
        torch.manual_seed(3)
        adapted = get_peft_model(tiny_model(), LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_()
        if light:
            loss = TokenLoss(adapted)
            lighten(loss, fitting_layout(loss, CPU).rows, CPU, precision="autocast", direct=True)
            assert swapped(adapted)
        whole = copy.deepcopy(adapted).merge_and_unload()
        with torch.no_grad():
            return whole(torch.tensor([[1, 2, 3]])).logits

    torch.testing.assert_close(merged(light=True), merged(light=False))


def test_a_light_model_can_be_put_back() -> None:
    model, plain = tiny_model(), tiny_model()
    lightened(model, bf16=True)
    assert restore(model) == 7, "three norms, two MLPs, head, embedding"
    assert not swapped(model) and restore(model) == 0
    assert all("forward" not in module.__dict__ for module in model.modules())
    model.set_attn_implementation("sdpa")
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad(), bf16():
        assert torch.equal(model(ids).logits, plain(ids).logits)


def test_nothing_but_a_function_named_forward_takes_a_forwards_place() -> None:
    layer = nn.Linear(2, 2)

    def forward(self: nn.Module, states: Tensor) -> Tensor:
        return states

    with pytest.raises(AssertionError, match="a copy of the model"):
        swap(layer, forward, "a closure")
    assert swap(layer, head.forward, "once") and not swap(layer, head.forward, "twice")
    assert swapped(nn.Sequential(layer)) == {"0": "once"}


@pytest.mark.cpu("layers are made lighter on CPUs")
@pytest.mark.parametrize("light", ["auto", False])
def test_what_a_run_made_lighter_is_said_and_can_be_turned_off(tmp_path: Path, light: bool | str) -> None:
    engine, _ = tiny_engine(tiny_folder(tmp_path / "model"), tmp_path / "snapshots", light=light)
    assert ("2 x gated MLP" in engine.light and "head, fused" in engine.light) is (light == "auto")
    assert engine.light or light is False


@pytest.mark.cpu("layers are made lighter on CPUs")
def test_of_compiled_layers_the_head_alone_is_fused(tmp_path: Path) -> None:
    engine, _ = tiny_engine(tiny_folder(tmp_path / "model"), tmp_path / "snapshots", torch_compile=True)
    assert "head, fused" in engine.light and "gated MLP" not in engine.light and "last MLP" not in engine.light


def test_a_model_that_cannot_be_made_lighter_is_refused_where_that_is_asked_for(tmp_path: Path) -> None:
    """Gemma 2 scales its embedding and caps its logits; its layers are left to the compiler."""
    model = tiny_folder(tmp_path / "model", "gemma2")
    with pytest.raises(ModelError, match=r"training\.light: no layer of this model can be made lighter"):
        tiny_engine(model, tmp_path / "snapshots", light=True, torch_compile=True)
