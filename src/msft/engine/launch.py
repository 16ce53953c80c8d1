"""What `accelerate launch` asks for, read from its environment variables: what msft would ignore is refused."""

from __future__ import annotations

import os
from collections.abc import Mapping

from msft.core.errors import ConfigError, complaint

DDP = "launch with plain data parallelism (accelerate launch --multi_gpu): each process holds the whole model"
FLAGS = {
    "ACCELERATE_USE_FSDP": ("FSDP", "--use_fsdp"),
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
            raise ConfigError(complaint(found, f"omit {option}, also in accelerate's configuration; {DDP}", file=name))
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
