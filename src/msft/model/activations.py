"""An upper bound on what a forward and a backward pass keep in memory, from a model's skeleton."""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from torch import nn
from transformers.pytorch_utils import Conv1D

from msft.model.head import LOGITS
from msft.model.model_parts import base_of, decoder_layers, vocabulary_of
from msft.model.precision import Precision

FP32 = 4


def activation_bytes(skeleton: nn.Module, tokens: int, precision: Precision, *, checkpointing: bool) -> int:
    """Bytes for a micro-batch of `tokens` tokens, every one of which is a target, at most.

    Of a layer: the inputs and outputs of its linear layers, an fp32 copy beside each norm, and what an adapter adds.
    With checkpointing, of every layer but one only its input. One more layer is counted for the backward pass, and the
    logits with their gradients. Attention that holds the scores of whole rows takes more, with the square of their
    length.
    """
    base: Any = base_of(skeleton)
    size = FP32 if precision == "fp32" else 2
    adapter = skeleton.peft_config["default"] if isinstance(skeleton, PeftModel) else None
    layers = decoder_layers(base) or [base]
    each = [_of_layer(layer, size, adapter, _experts(base.config)) for layer in layers]
    width, vocabulary = base.get_input_embeddings().weight.shape[1], vocabulary_of(base)
    of_ends = 3 * width * (size + FP32)
    if checkpointing:
        of_layers = len(layers) * width * size + 2 * max(each, default=0)
    else:
        of_layers = sum(each) + max(each, default=0)
    logits = min(tokens * vocabulary, LOGITS) * (2 * size + 2 * FP32)
    return int(tokens * (of_layers + of_ends) + logits)


def _of_layer(layer: nn.Module, size: int, adapter: Any, experts: int) -> int:
    """Bytes for each token."""
    total = 0
    for name, module in layer.named_modules():
        if "lora_" in name:
            continue
        own = dict(module.named_parameters(recurse=False))
        if isinstance(module, nn.Linear | Conv1D):
            total += size * sum(module.weight.shape)
            if adapter is not None and name.endswith("base_layer"):
                total += _of_adapter(module.weight.shape, size, adapter)
        elif len(own) <= 2 and all(parameter.ndim == 1 for parameter in own.values()):  # a norm, or nothing of its own
            total += sum((FP32 + size) * len(parameter) for name, parameter in own.items() if name == "weight")
        total += experts * size * sum(sum(parameter.shape[1:]) for parameter in own.values() if parameter.ndim == 3)
    return total


def _of_adapter(shape: Any, size: int, adapter: Any) -> int:
    """What an adapter keeps beside its layer: with dropout its input and a mask, and the product of a DoRA."""
    dropped = (size + 1) * shape[1] if adapter.lora_dropout else 0
    return int(2 * size * adapter.r + dropped + (2 * size * shape[0] if adapter.use_dora else 0))


def _experts(config: Any) -> int:
    """How many experts a token is given to."""
    fields = vars(config.get_text_config(decoder=True))
    known = (fields.get(name) for name in ("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token"))
    return next((found for found in known if isinstance(found, int)), 1)
