"""The `training` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from msft.config.problems import Problem, ProblemsError, shown
from msft.config.section import Section
from msft.core.averages import WarmUp
from msft.core.vocabulary import LATER

AVERAGE = 1.0
"""Epochs of averaged weights where a method needs them and none are given."""


def optimizer_name(given: object) -> object:
    """Raises ProblemsError for well-known optimizers that are not here, with the one that serves instead."""
    name = given if isinstance(given, str) else ""
    if name.startswith("paged_"):
        why = (
            "its moments move between GPU and host by themselves, so memory cannot be planned, nor snapshots made of it"
        )
        raise ProblemsError(
            [Problem(f"found {shown(name)}: {why}", "write adamw_8bit, which takes a quarter of the memory")]
        )
    if name.startswith("schedule_free"):
        why = "it trains other weights than it evaluates, which every snapshot would have to hold"
        fix = "write adamw, with training.average: 1: evaluations use averaged weights, at a constant rate"
        raise ProblemsError([Problem(f"found {shown(name)}: {why}", fix)])
    if name in {"adamw_bnb_8bit", "adamw8bit", "adam_8bit"}:
        raise ProblemsError([Problem(f"found {shown(name)}", "write adamw_8bit")])
    return given


class TrainingConfig(Section):
    """The optimizer and its steps."""

    seed: int | None = Field(default=None, ge=0, lt=2**32)
    """Seed of the order of examples, of dropout, of an adapter's initial weights and of the placebo's assignment; null:
    `data.seed`. Runs that differ only in this seed have the same splits."""
    batch_size: int = Field(default=64, ge=1)
    """Examples per optimizer step, on any hardware (design 3.3)."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Peak learning rate."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning rate as a function of position / `max_epochs` (design 3.12)."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of `max_epochs` over which the learning rate rises linearly from 0."""
    average: Annotated[Annotated[float, Field(gt=0)] | None, LATER] = None
    """Epochs of the full mixture over which the weights are averaged (exponential moving average); null: they are not.
    The method `auto` needs them: there the default is 1.
    Evaluations, decisions and the final model use the average, and training goes on from the weights themselves. It
    needs no falling learning rate, which is how it is best used: with `schedule: constant`."""
    average_warmup: Annotated[WarmUp, LATER] = "none"
    """How much the first steps count in the average: `none`: as all others, the base model fades with the window;
    `debiased`: the base model does not count; `ramp`: a decay of at most (1 + t) / (10 + t) at step t."""
    optimizer: Annotated[Literal["adamw", "adamw_8bit", "muon", "adafactor"], BeforeValidator(optimizer_name)] = "adamw"
    """`adamw`: betas 0.9 and 0.999. `adamw_8bit`: bitsandbytes', with a quarter of the memory for moments: those of
    tensors of at least 4,096 numbers are in 8 bits. `muon`: Muon for hidden matrices, with steps of AdamW's size, and
    AdamW for embeddings, head, norms and biases; a third to a half less memory for moments. `adafactor`: almost none;
    its learning rate is relative to the size of a weight, so that 1e-3 is a usual one. But for `adamw_8bit`, all are
    torch's, with its values."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Weight decay, applied to matrices only, never to norms and biases."""
    max_grad_norm: float | None = Field(default=None, gt=0)
    """Gradient norm to which gradients are clipped; null: they are not clipped."""
    loss_reduction: Literal["token", "example"] = "token"
    """Loss of the global batch: the mean over its trained tokens, or over the means of its examples."""
    max_tokens_per_microbatch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Maximum tokens per micro-batch, padding included. `auto`: 3,072 on a CPU; on a GPU what fits, found by trial."""
    gradient_checkpointing: bool = False
    """Compute activations again instead of keeping them: slower, less memory."""
    shard: Annotated[Literal["auto"] | bool, LATER] = "auto"
    """With several processes, split weights, gradients and moments over them (FSDP2), for models that do not fit on one
    GPU. `auto`: where `accelerate launch` asks for FSDP2. With one process, nothing is split."""
    offload_optimizer: Annotated[bool, LATER] = False
    """On a GPU, keep fp32 weights, moments and averages in the memory of the host and update them there: 8 bytes a
    parameter on the GPU instead of 20, 16 on the host, and slower steps. Needs `model.precision: mixed`; without a GPU
    it changes nothing."""
    light: Annotated[Literal["auto"] | bool, LATER] = "auto"
    """Replace layers of the model by versions that do less work for the same results, up to rounding: norms, gated
    MLPs, the last MLP, the head and the embedding; in fp32 on a CPU also attention and whole layers. `auto`: those for
    which a trial at the start succeeds, listed in the run's notes; true: the same, but no such layer is an error;
    false: none."""
    cuda_graphs: Annotated[Literal["auto", "plain"] | bool, LATER] = "auto"
    """On a GPU, capture forward and backward pass of a few sizes of micro-batches, which start in one go. `auto`: with
    compiled layers, where they give the same results; `plain`: with the model's own layers; false: neither."""
    deterministic: Annotated[Literal["auto"] | bool, LATER] = "auto"
    """Whether the same run gives the same bits again on the same GPU, which a CPU always does; `auto`: yes. false is a
    few percent faster on a GPU, writes every snapshot to disk before its record, and needs `snapshots.max: null`."""
    torch_compile: bool = False
    """Compile the model's layers, which takes a minute or more at the start and, on a CPU, needs a C++ compiler."""
    report_to: Annotated[tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...], Field(strict=False)] = ()
    """Trackers to which the run reports its progress, through Accelerate."""
