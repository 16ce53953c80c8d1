"""`MSFTConfig`: the arguments of an `MSFTTrainer`, under the names that transformers' trainers give them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from peft import LoraConfig

from msft.config.method_section import MethodConfig, resolve
from msft.config.problems import ProblemsError
from msft.config.reader import from_mapping
from msft.config.schema import Config
from msft.core.errors import ConfigError, complaint
from msft.core.method import Method
from msft.core.vocabulary import Brief, Plan
from msft.methods import METHODS

ADAPTER = ("r", "lora_alpha", "lora_dropout", "target_modules")
"""What is taken from a LoraConfig."""
NEUTRAL = {"task_type", "peft_type", "inference_mode", "base_model_name_or_path", "revision", "peft_version"}
"""What in a LoraConfig says nothing about the adapter."""


@dataclass(frozen=True)
class NoParams:
    """The parameters of a method that has none."""


@dataclass(kw_only=True)
class MSFTConfig:
    """How to train. Where transformers and TRL have an argument of the same name, it means the same.

    The defaults are those of `msft train`. Values are checked when an `MSFTTrainer` is made with them.
    """

    output_dir: str
    """The run folder."""
    method: str | Method | Callable[[Brief], Plan] = "msft"
    """A method's name, or one of your own: a `msft.core.method.Method`, or just its generator function."""
    method_kwargs: Mapping[str, Any] = field(default_factory=dict)
    """All else that the `method` section of a configuration file takes: `preset`, `budget`, `eval_every`, ..."""
    num_train_epochs: float | None = None
    """Where the surviving trajectory ends at the latest (the method's `max_epochs`); None: the preset's."""
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 8
    """With the batch size and the number of processes, it makes the global batch. What fits into memory is found by
    the trainer; these two decide nothing else."""
    learning_rate: float = 1e-5
    lr_scheduler_type: Literal["constant", "linear", "cosine"] = "constant"
    warmup_ratio: float = 0.0
    """Share of `num_train_epochs` over which the learning rate rises."""
    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    """None: gradients are not clipped."""
    loss_reduction: Literal["token", "example"] = "token"
    max_length: int = 1024
    """Tokens of an example; longer ones lose their end."""
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    """Compiles the model's layers."""
    bf16: bool | None = None
    """Autocast over fp32 weights; None: where the hardware really has it."""
    seed: int = 20
    """Decides the order of instances, dropout, and an adapter's first weights."""
    data_seed: int | None = None
    """Decides samples and carved splits; None: `seed`."""
    leaks: Literal["error", "drop", "warn"] = "drop"
    """What becomes of training examples that an evaluation split holds too."""
    scorer: str | Mapping[str, Any] | None = None
    """How every sub-dataset is scored, such as `"exact_match"` or `{"name": "generate", "extract": "####"}`; None:
    choices by likelihood, all else by loss."""
    dataset_kwargs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By sub-dataset, more of what an entry of `datasets` in a configuration file takes: `scorer`, `template`, ..."""
    report_to: Sequence[str] = ()
    """Trackers, such as `["tensorboard"]`."""
    logging_steps: int = 10
    """Steps between two log entries."""

    def resolve(
        self, *, model: Mapping[str, Any], datasets: Sequence[Mapping[str, Any]], peft: LoraConfig | None, world: int
    ) -> Config:
        """The configuration of the run. `world`: number of processes. Raises ConfigError."""
        batch = self.per_device_train_batch_size * self.gradient_accumulation_steps * world
        autocast = "auto" if self.bf16 is None else "bf16" if self.bf16 else "no"
        data = {
            "model": {**model, "autocast": autocast},
            "method": self._method(),
            "datasets": [self._dataset(dataset) for dataset in datasets],
            "data": {
                "seed": self.seed if self.data_seed is None else self.data_seed,
                "leaks": self.leaks,
                "max_length": self.max_length,
            },
            "training": {
                "seed": self.seed,
                "batch_size": batch,
                "learning_rate": self.learning_rate,
                "schedule": self.lr_scheduler_type,
                "warmup": self.warmup_ratio,
                "weight_decay": self.weight_decay,
                "max_grad_norm": self.max_grad_norm,
                "loss_reduction": self.loss_reduction,
                "gradient_checkpointing": self.gradient_checkpointing,
                "torch_compile": self.torch_compile,
                "report_to": list(self.report_to),
            },
            "peft": None if peft is None else adapter(peft),
            "output": self.output_dir,
        }
        return from_mapping(data, type(self).__name__)

    def _method(self) -> MethodConfig:
        name, methods = _named(self.method)
        section = {"name": name, **self.method_kwargs}
        if self.num_train_epochs is not None:
            section["max_epochs"] = float(self.num_train_epochs)
        try:
            return resolve(section, methods)
        except ProblemsError as error:
            lines = [
                complaint(p.found, p.mend, file=type(self).__name__, field=".".join(map(str, ("method", *p.key))))
                for p in error.problems
            ]
            raise ConfigError("\n".join(lines)) from None

    def _dataset(self, dataset: Mapping[str, Any]) -> dict[str, Any]:
        section = {"scorer": self.scorer, **dataset, **self.dataset_kwargs.get(dataset["id"], {})}
        if isinstance(section["scorer"], str):
            section["scorer"] = {"name": section["scorer"]}
        return section


def _named(method: str | Method | Callable[[Brief], Plan]) -> tuple[str, Mapping[str, Method]]:
    """The name under which a method is journaled, and the table that knows it."""
    if isinstance(method, str):
        return method, METHODS
    own = method if isinstance(method, Method) else Method(plan=method, Params=NoParams)
    name = f"{own.plan.__module__}:{own.plan.__qualname__}"
    return name, {name: own}


def adapter(config: LoraConfig) -> dict[str, Any]:
    """The `peft` section for a LoraConfig. Raises ConfigError where it asks for what no section can say."""
    if not isinstance(config, LoraConfig):
        found = f"found {type(config).__name__}"
        raise ConfigError(complaint(found, "give a peft.LoraConfig, the only kind of adapter here", file="peft_config"))
    plain = LoraConfig()
    for known in fields(config):
        value = getattr(config, known.name)
        if known.name not in NEUTRAL and known.name not in ADAPTER and value != getattr(plain, known.name, None):
            mend = f"leave it out; an adapter here is made of {', '.join(ADAPTER)}"
            raise ConfigError(complaint(f"found {value!r}", mend, file="peft_config", field=known.name))
    targets = config.target_modules or "all-linear"
    return {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": targets if isinstance(targets, str) else sorted(targets),
    }
