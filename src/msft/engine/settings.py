"""The settings that determine a training step, beside the model and the data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from msft.core.averages import WarmUp
from msft.core.errors import RunError, complaint
from msft.core.schedule import learning_rate
from msft.core.vocabulary import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """The engine's settings; the configuration's schema explains and checks them."""

    seed: int
    batch_size: int
    """Examples per optimizer step, whatever the hardware."""
    horizon: float
    """`max_epochs`, the length of the learning rate's schedule. May be infinite."""
    learning_rate: float
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    warmup: float = 0.0
    """Share of `max_epochs` over which the learning rate rises from 0."""
    optimizer: Literal["adamw", "adamw_8bit", "muon", "adafactor"] = "adamw"
    weight_decay: float = 0.0
    """On matrices only: norms and biases are never decayed."""
    max_grad_norm: float | None = None
    loss_reduction: Literal["token", "example"] = "token"
    max_tokens_per_microbatch: int | None = None
    """Padding included; None: a fixed number on a CPU, what fits on a GPU."""
    longest: int | None = None
    """No sequence has more tokens; None: unknown. A longer window of the model is inert."""
    offload_optimizer: bool = False
    """Whether masters, moments and averages are in the memory of the host, and updated there."""
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    light: bool | Literal["auto"] = "auto"
    """Whether layers do less work for the same results; `auto`: where a probe shows that they can; true: fail if none
    can."""
    average: float | None = None
    """Epochs of the full mixture over which weights are averaged; None: they are not."""
    average_warmup: WarmUp = "none"
    """How much the first steps count in the average (engine/averaging.py)."""
    precision: Literal["auto", "mixed", "autocast", "fp32"] = "auto"
    shard: Literal["auto"] | bool = "auto"
    cuda_graphs: Literal["auto", "plain"] | bool = "auto"
    deterministic: Literal["auto"] | bool = "auto"
    lengths: bool = False
    """Whether attention is told the rows' lengths on a CPU too, where spans are faster; for tests."""
    beside: bool = False
    """Whether the method has gradients computed beside the steps, as for a look-ahead."""
    soft_targets: int = 0
    """Targets of each trained token in steps with a teacher; 0: the method has none."""
    lookahead_batch: int = 32
    """Examples of each sub-dataset in a look-ahead."""
    virtual: Literal["adam", "sgd"] = "adam"
    """Optimizer of the virtual step in a look-ahead."""
    durable: Literal["auto", "tick", "rollout"] = "auto"
    """Which snapshots survive a crash: `tick` all, `rollout` those at the ends of roll-outs, `auto` all while writing
    one takes little time."""


def two_schedules(schedule: str) -> str:
    """The complaint where both a method and `training.schedule` lower the learning rate."""
    return complaint(
        f"the method lowers the learning rate itself, and the schedule is {schedule}",
        "set training.schedule: constant",
        field="training.schedule",
    )


def rates_of(segment: Segment, settings: EngineSettings, steps_per_epoch: int) -> Callable[[int], float]:
    """Returns a function from a step of a segment's roll-out to its learning rate: a pure function of the step.

    Raises RunError where both the method and the schedule lower it: then neither would get what it asks for.
    """
    anneal = segment.anneal
    if anneal is not None and settings.schedule != "constant":
        raise RunError(two_schedules(settings.schedule))

    def rate_at(step: int) -> float:
        position = segment.epoch + (step - segment.start) / steps_per_epoch
        plain = learning_rate(settings.learning_rate, settings.schedule, settings.warmup, settings.horizon, position)
        return plain if anneal is None else plain * anneal.factor(step)

    return rate_at
