"""What msft does with each causal architecture of the installed transformers, tried on small models of its
configuration class with every kind of layer: `python benchmarks/architectures.py [NAME ...] [--markdown PAGE]`.

Likelihoods and gradients of the training step are held against the plain model's, computed sequence by sequence;
generated texts against its greedy continuation without a cache; a merged adapter against the adapter.
"""

from __future__ import annotations

import argparse
import os
import re
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

from msft.core.errors import ModelError
from msft.data.examples import Example
from msft.engine.batched_decoding import fitting_decoding
from msft.engine.optimizers import make_optimizer
from msft.engine.settings import EngineSettings
from msft.engine.step import Stepper
from msft.forward.runtime import Runtime
from msft.model.adapters import fresh_adapter, write_merged
from msft.model.isolation import twin_of
from msft.model.lighten import lighten
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss
from msft.scoring.generation import Request, generate
from msft.snapshots.state import trainable

CPU = torch.device("cpu")
SETTINGS = EngineSettings(seed=1, batch_size=8, horizon=1, learning_rate=0.01)
ADAPTER = {"r": 2, "target_modules": "all-linear"}
LONGROPE = {"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 4096}
FACTORS = {"short_factor": [1.0] * 48, "long_factor": [1.0 + n for n in range(48)]}
MIXED = ["sliding_attention", "full_attention"]
MORE: dict[str, tuple[str, dict[str, Any]]] = {
    "falcon (alibi)": ("falcon", {"alibi": True}),
    "falcon (grouped heads)": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "lfm2": ("lfm2", {"layer_types": ["conv", "conv", "full_attention", "conv"], "num_hidden_layers": 4}),
    "lfm2_moe": ("lfm2_moe", {"layer_types": ["conv", "full_attention", "conv"], "num_hidden_layers": 3}),
    "big_bird (full attention)": ("big_bird", {"attention_type": "original_full"}),
    "bamba": ("bamba", {"attn_layer_indices": [1], "num_hidden_layers": 3}),
    "deepseek_v2": ("deepseek_v2", {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}),
    "granitemoehybrid": ("granitemoehybrid", {"layer_types": ["mamba", "attention", "mamba"], "num_hidden_layers": 3}),
    "hunyuan_v1_dense": ("hunyuan_v1_dense", {"head_dim": 128}),
    "hunyuan_v1_moe": ("hunyuan_v1_moe", {"head_dim": 128, "num_experts": 4, "moe_topk": 2}),
    "llama (dynamic rope)": (
        "llama",
        {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}, "num_hidden_layers": 2},
    ),
    "ministral": ("ministral", {"head_dim": 128, "layer_types": MIXED, "num_hidden_layers": 2}),
    "nemotron": ("nemotron", {"num_key_value_heads": 8}),
    "phi3 (longrope)": (
        "phi3",
        {"rope_parameters": LONGROPE | FACTORS, "original_max_position_embeddings": 4096, "num_hidden_layers": 2},
    ),
    "qwen2 (window)": ("qwen2", {"use_sliding_window": True, "layer_types": MIXED, "num_hidden_layers": 2}),
    "qwen3 (window)": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 4096, "layer_types": MIXED, "num_hidden_layers": 2},
    ),
}
"""Variants, and what a configuration class leaves out or does not use by itself."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was seen of one architecture: yes, no, refused, or WRONG."""

    name: str
    layout: str
    head: str = ""
    generation: str = ""
    lora: str = ""
    merge: str = ""
    why: str = ""
    """Why it is refused, or cannot be made."""

    @property
    def wrong(self) -> bool:
        return "WRONG" in (self.layout, self.generation, self.lora, self.merge)


def names() -> list[str]:
    """All architectures, and variants of some."""
    return sorted({*NAMES, *MORE})


def small(name: str) -> PreTrainedModel | str:
    """A small model with every kind of layer, or why none can be made."""
    kind, values = MORE.get(name, (name, {}))
    try:
        config = CONFIG_MAPPING[kind](**values)
        if hasattr(config, "is_decoder") and not NAMES[kind].endswith("ConditionalGeneration"):
            config.is_decoder = True
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except Exception as error:
        return f"its configuration class makes no model by itself: {type(error).__name__}"
    return twin_of(model, None, CPU) or "no small model of it can be made"


def judge(name: str) -> Verdict:
    """Tries one architecture."""
    model = small(name)
    if isinstance(model, str):
        return Verdict(name, "not tried", why=model)
    loss = TokenLoss(_copy(model))
    try:
        layout = fitting_layout(loss, CPU)
    except ModelError as error:
        return Verdict(name, "refused", why=_short(error))
    lighten(loss, layout.rows, CPU, precision="fp32", direct=True)
    trained = str(layout) if _trains(loss, model, layout) else "WRONG"
    return Verdict(name, trained, "yes" if loss.fused is not None else "no", *_generates(model), *_adapts(model))


def _copy(model: PreTrainedModel) -> PreTrainedModel:
    """Made anew: some models keep states of their last rows, which cannot be copied."""
    made: Any = type(model)(model.config)
    made.load_state_dict(model.state_dict())
    made.set_attn_implementation(model.config._attn_implementation)
    return made.eval()


def _short(error: Exception) -> str:
    return str(error).partition(" Fix:")[0].partition("here: ")[2] or str(error)


def _examples(seed: int) -> list[Example]:
    random = np.random.default_rng(seed)
    made = []
    for length in (4, 6, 9, 10, 17, 17, 25, 33):
        trained = random.random(length) < 0.5
        trained[0], trained[-1] = False, True
        made.append(Example(ids=random.integers(3, 60, length).astype(np.int32), trained=trained))
    return made


def _trains(loss: TokenLoss, plain: nn.Module, layout: Any) -> bool:
    """Whether a step's losses and gradients are those of single sequences through the plain model."""
    examples = _examples(1)
    runtime = Runtime(device=CPU, max_tokens=layout.budget(80), layout=layout.rows, border=layout.border)
    found = Stepper(loss.train(), make_optimizer(trainable(loss.model), SETTINGS), SETTINGS, runtime).backward(
        examples, None
    )
    plain.zero_grad()
    expected = []
    targets = sum(example.targets for example in examples)
    for example in examples:
        at = np.flatnonzero(example.trained)
        ids = torch.from_numpy(example.ids.astype(np.int64))[None]
        logits = plain(input_ids=ids[:, : at[-1]], use_cache=False).logits[0, at - 1].float()
        nll = nn.functional.cross_entropy(logits, ids[0, at], reduction="sum")
        (nll / targets).backward()
        expected.append(float(nll.detach()) / example.targets)
    same = np.allclose(found.examples, expected, rtol=1e-4, atol=1e-4)
    return bool(same and _same_gradients(_gradients(loss.model), _gradients(plain)))


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad and p.grad is not None}


def _same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    largest = max((float(gradient.abs().max()) for gradient in expected.values()), default=0.0)
    for name in found.keys() | expected.keys():
        one, two = (side.get(name, torch.zeros(1)) for side in (found, expected))
        if float((one - two).abs().max()) > 2e-3 * float(two.abs().max()) + 1e-5 * largest:
            return False
    return True


def _generates(model: PreTrainedModel) -> Iterator[str]:
    random = np.random.default_rng(2)
    requests = [
        Request(prompt=random.integers(3, 60, n).astype(np.int32), ends=frozenset(), stop=(), max_new_tokens=new)
        for n, new in ((5, 12), (7, 3), (16, 7))
    ]
    try:
        way = fitting_decoding(model, None, CPU)
    except ModelError:
        yield "refused"
        return
    border = fitting_layout(TokenLoss(_copy(model)), CPU).border
    runtime = Runtime(device=CPU, max_tokens=4096, decoding=way, border=border)
    found, _ = generate(TokenLoss(_copy(model)), requests, _Numbers(), runtime)
    yield "yes" if found == [_continued(model, request) for request in requests] else "WRONG"


class _Numbers:
    def decode(self, token_ids: Sequence[int], **_: bool) -> str:
        return " ".join(map(str, token_ids))


@torch.no_grad()
def _continued(model: PreTrainedModel, request: Request) -> str:
    ids = torch.from_numpy(request.prompt.astype(np.int64))[None]
    for _ in range(request.max_new_tokens):
        ids = torch.cat([ids, model(input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)], 1)
    return _Numbers().decode(ids[0, len(request.prompt) :].tolist())


def _adapts(model: PreTrainedModel) -> Iterator[str]:
    """Whether an adapter on all linear layers learns, and can be merged."""
    try:
        adapted, plain = (fresh_adapter(_copy(model), dict(ADAPTER), 1) for _ in range(2))
    except ModelError:
        yield from ("refused", "")
        return
    for one in (adapted, plain):
        with torch.no_grad():
            torch.manual_seed(3)
            for weight in one.parameters():
                if weight.requires_grad:
                    weight.add_(torch.randn_like(weight), alpha=0.1)
    loss = TokenLoss(adapted)
    try:
        layout = fitting_layout(loss, CPU)
        lighten(loss, layout.rows, CPU, precision="fp32", direct=True)
        yield "yes" if _trains(loss, plain.eval(), layout) else "WRONG"
    except (ModelError, NotImplementedError):
        yield from ("refused", "")
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            write_merged(plain, Path(folder), lambda merged, to: merged.save_pretrained(to))
            yield "yes"
        except Exception as error:
            yield "refused" if isinstance(error, ModelError) else f"no ({type(error).__name__})"


def markdown(verdicts: Sequence[Verdict]) -> str:
    """The table of docs/models.md, and the list of what was not tried."""
    tried = [verdict for verdict in verdicts if verdict.layout != "not tried"]
    lines = ["| architecture | rows | fused head | generation | LoRA | merge |", "|---|---|---|---|---|---|"]
    for verdict in tried:
        why = f": {verdict.why}" if verdict.why else ""
        cells = [verdict.name, verdict.layout + why, *astuple(verdict)[2:6]]
        lines.append(f"| {' | '.join(cells)} |")
    others = [f"{verdict.name} ({verdict.why})" for verdict in verdicts if verdict not in tried]
    return "\n".join(lines) + f"\n\nNot tried: {'; '.join(others)}.\n"


MARKS = re.compile(r"(<!-- made by benchmarks/architectures.py -->\n).*(<!-- end -->)", re.DOTALL)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("names", nargs="*")
    ask.add_argument("--markdown", type=Path, help="the page whose table is written anew")
    asked = ask.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    verdicts = []
    for name in asked.names or names():
        verdicts.append(judge(name))
        print(" | ".join(astuple(verdicts[-1])), flush=True)
    if asked.markdown is not None:
        page = asked.markdown.read_text(encoding="utf-8")
        asked.markdown.write_text(MARKS.sub(lambda m: m[1] + markdown(verdicts) + m[2], page), encoding="utf-8")


if __name__ == "__main__":
    main()
