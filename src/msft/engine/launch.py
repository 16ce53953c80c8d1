"""What `accelerate launch` asks for, read from its environment variables: what msft would ignore is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from msft.core.errors import ConfigError, complaint

DDP = "launch with plain data parallelism (accelerate launch --multi_gpu): each process holds the whole model"
FSDP = "launch with FSDP2 (accelerate launch --use_fsdp --fsdp_version 2), or set training.shard: true"
FLAGS = {
    "ACCELERATE_USE_DEEPSPEED": ("DeepSpeed", "--use_deepspeed"),
    "ACCELERATE_USE_MEGATRON_LM": ("Megatron-LM", "--use_megatron_lm"),
    "XLA_USE_BF16": ("a TPU", "--tpu"),
    "XLA_DOWNCAST_BF16": ("a TPU", "--tpu"),
}
SIZES = {
    "PARALLELISM_CONFIG_TP_SIZE": "tensor parallelism",
    "PARALLELISM_CONFIG_CP_SIZE": "context parallelism",
    "PARALLELISM_CONFIG_SP_SIZE": "sequence parallelism",
    "PARALLELISM_CONFIG_DP_SHARD_SIZE": "a sharded model",
}
YES = {"1", "true", "yes", "on", "y", "t"}
"""As accelerate reads a flag."""


def check_ways_of_training(environment: Mapping[str, str] = os.environ) -> None:
    """Raises ConfigError if a way of training is asked for that does not exist here. Reads no configuration."""
    for name, (what, option) in FLAGS.items():
        if environment.get(name, "").lower() in YES:
            found = f"accelerate launch asks for {what}, which msft does not support"
            instead = FSDP if what == "DeepSpeed" else DDP
            fix = f"omit {option}, also in accelerate's configuration; {instead}"
            raise ConfigError(complaint(found, fix, file=name))
    sharding_asked_for(environment)
    if environment.get("ACCELERATE_USE_PARALLELISM_CONFIG", "").lower() in YES:
        for name, what in SIZES.items():
            if (size := environment.get(name, "1")) not in {"", "1"}:
                found = f"accelerate launch asks for {what} ({size}), which msft does not support"
                raise ConfigError(complaint(found, f"set it to 1; {DDP}", file=name))
    name = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
    if (steps := environment.get(name, "1")) not in {"", "1"}:
        found = f"accelerate launch asks for {steps} accumulation steps, which msft would ignore"
        fix = "omit them: training.batch_size is the whole batch of a step, and micro-batches are cut to fit"
        raise ConfigError(complaint(found, fix, file=name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharding:
    """How the launcher asks for weights to be split over the processes (FSDP2)."""

    again: bool = True
    """Whether a layer's weights are freed after its forward pass and gathered again for the backward pass."""
    layer: str | None = None
    """The class of the layers that are gathered one at a time; None: the model's decoder layers."""


def sharding_asked_for(environment: Mapping[str, str] = os.environ) -> Sharding | None:
    """What `accelerate launch --use_fsdp` asks for; None without it. Raises ConfigError for what does not exist here.

    Of FSDP1's settings, those that FSDP2 does not have are ignored there too. Weights are always read in parts, and
    snapshots are always written in parts.
    """
    if environment.get("ACCELERATE_USE_FSDP", "").lower() not in YES:
        return None
    if (version := environment.get("FSDP_VERSION", "1")) != "2":
        found = f"accelerate launch asks for FSDP {version}, and msft splits weights with FSDP2"
        raise ConfigError(complaint(found, "add --fsdp_version 2 (fsdp_config: fsdp_version)", file="FSDP_VERSION"))
    for name, (plain, fix) in _OTHERWISE.items():
        if (value := environment.get(name, plain[0])).lower() not in {one.lower() for one in plain}:
            found = f"accelerate launch asks for {value}, which msft does not support with FSDP2"
            raise ConfigError(complaint(found, fix, file=name))
    again = environment.get("FSDP_RESHARD_AFTER_FORWARD", "true").lower()
    return Sharding(again=again not in {"false", "0", "no", "shard_grad_op"}, layer=_layer(environment))


_OTHERWISE: Mapping[str, tuple[tuple[str, ...], str]] = {
    "FSDP_OFFLOAD_PARAMS": (("false", "0", "no", ""), "omit fsdp_offload_params"),
    "FSDP_ACTIVATION_CHECKPOINTING": (
        ("false", "0", "no", ""),
        "omit fsdp_activation_checkpointing, and set training.gradient_checkpointing: true",
    ),
    "FSDP_AUTO_WRAP_POLICY": (
        ("TRANSFORMER_BASED_WRAP", "", "None"),
        "set fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP: decoder layers are gathered one at a time",
    ),
    "FSDP_IGNORED_MODULES": (("", "None"), "omit fsdp_ignored_modules"),
}
"""By environment variable: the values that ask for nothing, and what to do about others."""


def _layer(environment: Mapping[str, str]) -> str | None:
    name = environment.get("FSDP_TRANSFORMER_CLS_TO_WRAP", "")
    return None if name in {"", "None"} else name


def check_precision_and_compiler(
    *, bf16: bool, torch_compile: bool, environment: Mapping[str, str] = os.environ
) -> None:
    """Raises ConfigError unless the run trains as asked for. `bf16`: whether it autocasts to bf16, on this hardware.

    `no`, the value that accelerate sets if nothing is asked for, leaves the choice to the configuration.
    """
    name = "ACCELERATE_MIXED_PRECISION"
    precision = environment.get(name, "no").lower()
    if precision not in {"", "no"} and not (precision == "bf16" and bf16):
        found = f"accelerate launch asks for {precision}, and this run trains in {'bf16' if bf16 else 'float32'}"
        fix = "omit --mixed_precision; model.precision decides: mixed, autocast, fp32, or auto (by hardware)"
        raise ConfigError(complaint(found, fix, file=name))
    name = "ACCELERATE_DYNAMO_BACKEND"
    compiler = environment.get(name, "no").lower()
    if compiler not in {"", "no"} and not (compiler == "inductor" and torch_compile):
        found = f"accelerate launch asks for the compiler {compiler}, which this run does not use"
        fix = "omit --dynamo_backend; training.torch_compile: true compiles the model's layers, with inductor"
        raise ConfigError(complaint(found, fix, file=name))
