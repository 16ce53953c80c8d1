"""The optimizers (`training.optimizer`): torch's own, over the weights that are trained."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from msft.engine.settings import EngineSettings
from msft.model.open import of_ends
from msft.snapshots.state import trainable


def make_optimizer(weights: Mapping[str, Tensor], settings: EngineSettings, model: nn.Module | None = None) -> Any:
    """The optimizer over these weights, by name; weight decay applies to matrices, not to norms and biases.

    `model`: tells which matrices are embeddings and output head, for `muon`.
    """
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(_groups(list(weights.values()), settings), lr=settings.learning_rate)
    if settings.optimizer == "muon":
        assert model is not None, "which matrices are embeddings?"
        ends = outside(model)
        return MuonWithAdamW(weights, {n for n, w in weights.items() if w.ndim == 2 and n not in ends}, settings)
    return _adamw(list(weights.values()), settings)


def outside(model: Any) -> set[str]:
    """The names of the parameters of embeddings and output head."""
    ends = of_ends(model)
    return {name for name, parameter in model.named_parameters() if id(parameter) in ends}


def _adamw(weights: list[Tensor], settings: EngineSettings) -> torch.optim.AdamW:
    fused = weights[0].device.type in {"cpu", "cuda"}
    return torch.optim.AdamW(_groups(weights, settings), lr=settings.learning_rate, fused=fused)


def _groups(weights: list[Tensor], settings: EngineSettings) -> list[dict[str, Any]]:
    groups = [
        {"params": [w for w in weights if w.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
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
        else:
            total += (4 if optimizer == "muon" and len(shape) == 2 and name not in ends else 8) * size
    return total


class MuonWithAdamW:
    """Muon for hidden matrices, AdamW for all else: embeddings, output head, norms and biases.

    Muon's steps are scaled to the size of AdamW's (`match_rms_adamw`, arXiv 2502.16982), so that one learning rate is
    right for both. Their states are one dictionary, and their groups one list, as of a single optimizer.
    """

    def __init__(self, weights: Mapping[str, Tensor], hidden: set[str], settings: EngineSettings) -> None:
        matrices = [weight for name, weight in weights.items() if name in hidden]
        others = [weight for name, weight in weights.items() if name not in hidden]
        self._parts: list[torch.optim.Optimizer] = []
        if matrices:
            self._parts.append(
                torch.optim.Muon(
                    matrices,
                    lr=settings.learning_rate,
                    weight_decay=settings.weight_decay,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        if others:
            self._parts.append(_adamw(others, settings))
        self.state = self._parts[0].state
        for part in self._parts[1:]:
            part.state = self.state
        self.param_groups = [group for part in self._parts for group in part.param_groups]

    def step(self) -> None:
        for part in self._parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        for part in self._parts:
            part.zero_grad(set_to_none=set_to_none)
