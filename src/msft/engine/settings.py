"""What decides a training step beside the model and the data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """The engine's settings; the configuration says what each means to people and checks them."""

    seed: int
    batch_size: int
    """Instances per optimizer step, whatever the hardware."""
    horizon: float
    """Epochs; what the learning rate's schedule is laid over. May be infinite."""
    learning_rate: float
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: float = 0.0
    """Share of the horizon over which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """On matrices only: norms and biases are never decayed."""
    max_grad_norm: float | None = None
    loss_reduction: Literal["token", "example"] = "token"
    max_tokens_per_microbatch: int | None = None
    """Padding included; None: what is best on a CPU, what fits on a GPU."""
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    light: bool | Literal["auto"] = "auto"
    """Whether layers do less work for the same results, where a trial shows that they can; true: or refuse."""
    autocast: Literal["auto", "bf16", "no"] = "auto"
    lookahead_batch: int = 32
    """Examples of each sub-dataset that a look-ahead looks at."""
    virtual: Literal["adam", "sgd"] = "adam"
    """The virtual step of a look-ahead."""
    durable: Literal["auto", "tick", "rollout"] = "auto"
    """Which snapshots survive a crash: all, those at the ends of roll-outs, or all while writing one costs little."""


def learning_rate_at(settings: EngineSettings, position: float) -> float:
    """The learning rate of a step that begins at `position` (epochs along the surviving trajectory), design 3.12.

    An infinite horizon has no end to decay towards and no share to warm up over: the rate is constant.
    """
    if math.isinf(settings.horizon):
        return settings.learning_rate
    warmup = settings.warmup * settings.horizon
    if position < warmup:
        return settings.learning_rate * position / warmup
    done = min(1.0, (position - warmup) / (settings.horizon - warmup)) if settings.horizon > warmup else 1.0
    if settings.schedule == "linear":
        return settings.learning_rate * (1 - done)
    if settings.schedule == "cosine":
        return settings.learning_rate * (1 + math.cos(math.pi * done)) / 2
    return settings.learning_rate
