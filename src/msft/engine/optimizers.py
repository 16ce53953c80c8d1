"""The optimizers (`training.optimizer`): torch's own and bitsandbytes', over the weights that are trained."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from msft.engine.settings import EngineSettings
from msft.model.open import of_ends
from msft.model.quantised import require
from msft.snapshots.state import trainable

FEW = 4096
"""Tensors with fewer numbers keep moments in fp32 beside those in 8 bits, as bitsandbytes recommends."""
SCALED = 256
"""Numbers of 8 bits that share a scale."""


def make_optimizer(weights: Mapping[str, Tensor], settings: EngineSettings, model: nn.Module | None = None) -> Any:
    """The optimizer over these weights, by name; weight decay applies to matrices, not to norms and biases.

    `model`: tells which matrices are embeddings and output head, for `muon`.
    """
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(_groups(weights, settings), lr=settings.learning_rate)
    if settings.optimizer == "muon":
        assert model is not None, "which matrices are embeddings?"
        ends = outside(model)
        hidden = {n: w for n, w in weights.items() if w.ndim == 2 and is_matrix(n, w) and n not in ends}
        others = {n: w for n, w in weights.items() if n not in hidden}
        return Together(_muon(list(hidden.values()), settings), _adamw(others, settings))
    if settings.optimizer == "adamw_8bit":
        many = {name: weight for name, weight in weights.items() if weight.numel() >= FEW}
        few = {name: weight for name, weight in weights.items() if name not in many}
        return Together(_adamw_8bit(many, settings), _adamw(few, settings))
    return _adamw(weights, settings)


def is_matrix(name: str, weight: Tensor) -> bool:
    """Whether a weight is one that weight decay and Muon are for. Biases of experts and the decay rates of state-space
    layers (`A_log`), which have two dimensions, are not."""
    last = name.rpartition(".")[2]
    return weight.ndim >= 2 and not (last.endswith("bias") or last == "A_log")


def outside(model: Any) -> set[str]:
    """The names of the parameters of embeddings and output head."""
    ends = of_ends(model)
    return {name for name, parameter in model.named_parameters() if id(parameter) in ends}


def _adamw(weights: Mapping[str, Tensor], settings: EngineSettings) -> torch.optim.AdamW | None:
    if not weights:
        return None
    fused = next(iter(weights.values())).device.type in {"cpu", "cuda"}
    return torch.optim.AdamW(_groups(weights, settings), lr=settings.learning_rate, fused=fused)


def _muon(weights: list[Tensor], settings: EngineSettings) -> torch.optim.Optimizer | None:
    """Muon, with steps scaled to the size of AdamW's (`match_rms_adamw`, arXiv 2502.16982): one learning rate is right
    for both."""
    if not weights:
        return None
    decay, rate = settings.weight_decay, settings.learning_rate
    return torch.optim.Muon(weights, lr=rate, weight_decay=decay, adjust_lr_fn="match_rms_adamw")


def _adamw_8bit(weights: Mapping[str, Tensor], settings: EngineSettings) -> torch.optim.Optimizer | None:
    """AdamW whose moments are in 8 bits, with a scale for each SCALED of them."""
    require("training.optimizer", "adamw_8bit")
    if not weights:
        return None
    optim: Any = importlib.import_module("bitsandbytes.optim")
    made: torch.optim.Optimizer = optim.AdamW8bit(
        _groups(weights, settings), lr=settings.learning_rate, min_8bit_size=0
    )
    return made


def _groups(weights: Mapping[str, Tensor], settings: EngineSettings) -> list[dict[str, Any]]:
    groups = [
        {"params": [w for n, w in weights.items() if is_matrix(n, w)], "weight_decay": settings.weight_decay},
        {"params": [w for n, w in weights.items() if not is_matrix(n, w)], "weight_decay": 0.0},
    ]
    return [group for group in groups if group["params"]]


def moment_bytes(optimizer: str, model: nn.Module) -> int:
    """What an optimizer keeps of the parameters that are trained, in bytes, without step counts."""
    ends = outside(model) if optimizer == "muon" else set()
    total = 0
    for name, parameter in trainable(model).items():
        size, shape = parameter.numel(), parameter.shape
        if optimizer == "adafactor":
            total += 4 * (size // shape[-1] + size // shape[-2] if len(shape) > 1 else size)
        elif optimizer == "adamw_8bit" and size >= FEW:
            total += 2 * (size + 4 * -(-size // SCALED))
        else:
            hidden = len(shape) == 2 and is_matrix(name, parameter) and name not in ends
            total += (4 if optimizer == "muon" and hidden else 8) * size
    return total


class Together:
    """Optimizers of different parameters as one: their states are one dictionary, and their groups one list."""

    def __init__(self, *parts: torch.optim.Optimizer | None) -> None:
        self.parts: Sequence[torch.optim.Optimizer] = [part for part in parts if part is not None]
        self.state = self.parts[0].state
        for part in self.parts[1:]:
            part.state = self.state
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=set_to_none)
