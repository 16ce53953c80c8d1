"""`MSFTConfig`: the arguments of an `MSFTTrainer`, under the names that transformers' trainers give them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

import torch
from peft import LoraConfig

from msft.api.argument_checks import OPTIMIZERS, instead_of
from msft.api.given_scorers import Scorer, by_task, with_scorer
from msft.config.method_section import MethodConfig, resolve
from msft.config.problems import ProblemsError, one_of
from msft.config.reader import from_mapping
from msft.config.schema import Config
from msft.core.errors import ConfigError, complaint
from msft.core.method import Method
from msft.core.paths import in_full
from msft.core.vocabulary import Brief, Plan
from msft.methods import METHODS, PASSED

METHOD = "auto"
"""The method where none is named."""
ADAPTER = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "layers_to_transform", "modules_to_save",
    "use_dora", "use_rslora",
)  # fmt: skip
"""The fields that are taken from a LoraConfig."""
SPLITS = {"validation": "eval_dataset", "test": "test_dataset"}
"""The splits of an entry of `datasets`, and the arguments that give their rows."""
NEUTRAL = {"task_type", "peft_type", "inference_mode", "base_model_name_or_path", "revision", "peft_version"}
"""The fields of a LoraConfig that do not describe the adapter."""


@dataclass(frozen=True)
class NoParams:
    """The parameters of a method that has none."""


@dataclass(kw_only=True)
class MSFTConfig:
    """How an `MSFTTrainer` trains.

    An argument means what the argument of the same name means in transformers and TRL, and has TRL's default, except
    for `num_train_epochs`, `gradient_checkpointing` and `seed`. An argument of theirs that is not here is an error that
    says what to do instead.

    Args:
        output_dir: The run folder.
        method: The name of a method: `"auto"` is plain fine-tuning with averaged weights, and a second run where one
            can pay; `"msft"` always searches; `"sft"`, ... Or your own: a `msft.core.method.Method`, or just its
            generator function.
        method_kwargs: Further keys of a configuration file's `method` section: `preset`, `budget`, `eval_every`, ...
        num_train_epochs: Maximum epochs of the final model (`max_epochs` of the method); None: the preset's. Discarded
            training comes on top; `msft check` estimates how much.
        per_device_train_batch_size: Examples per process and accumulation step. It only determines the global batch:
            the trainer chooses micro-batches that fit into memory.
        gradient_accumulation_steps: The global batch is the product of this, `per_device_train_batch_size` and the
            number of processes.
        learning_rate: The highest learning rate.
        lr_scheduler_type: The schedule of the learning rate over `num_train_epochs`. None: linear; constant with
            `average` and with the method `auto`, where averages replace a falling rate, or with a preset that sets no
            maximum of epochs.
        warmup_ratio: Share of `num_train_epochs` over which the learning rate rises from 0.
        optim: `"adamw_torch"` or `"adamw_torch_fused"`, which is what is used where it exists; `"muon"`: for hidden
            matrices, and AdamW for the rest; `"adafactor"`; `"adamw_8bit"` (or `"adamw_bnb_8bit"`): bitsandbytes'.
        weight_decay: Weight decay, on matrices only.
        average: Epochs of the full mixture over which the weights are averaged; None: they are not, but 1 for
            the method `auto`. Evaluations, decisions and the final model use the average.
        max_grad_norm: The norm to which gradients are clipped; None or 0: no clipping.
        loss_reduction: Whether the loss is the mean over the global batch's tokens or over its examples' means.
        max_length: Maximum tokens of an example; longer ones are truncated at the end.
        gradient_checkpointing: Recomputes activations in the backward pass: slower, less memory.
        torch_compile: Compiles the model's layers.
        quantize: Holds the base's linear layers in 4 bits (`"nf4"`, `"fp4"`) or 8 (`"int8"`), under a `peft_config`.
        bf16: Computes in bf16 over fp32 weights, on a GPU with copies of them, on a CPU by autocast; None: where the
            hardware supports bf16 natively.
        seed: Determines the order of examples, dropout, and an adapter's initial weights.
        data_seed: Determines samples and carved splits; None: `seed`.
        leaks: What to do with training examples that an evaluation split also contains: stop with an error, drop
            them, or only warn.
        bad_rows: Whether rows that cannot be used are errors, or are dropped and listed.
        mixing: How many examples an epoch takes of each sub-dataset: all of them (`"size"`), as many of each
            (`"equal"`), or a number in between (`{"temperature": 2}`).
        repeat: How often an epoch takes each example of a sub-dataset, by its name; those that are not named: once.
        scorer: How every sub-dataset is scored, such as `"exact_match"` or `{"name": "generate", "extract": "####"}`;
            or a dict of such by sub-dataset. Your own: `"module:function"`, or a function that can be imported by that
            name. None: choices by likelihood, all others by loss.
        dataset_kwargs: Further keys of an entry of `datasets` in a configuration file, by sub-dataset: `scorer`,
            `template`, ...
        aggregate: The `aggregate` section of a configuration file: items that are only scored, never trained on, whose
            score alone chooses the final model, such as `{"path": "exam.jsonl", "scorer": "exact_match"}`. Its rows are
            in a file or on the hub. None: the mean over the sub-datasets chooses.
        report_to: The name of a tracker, such as `"tensorboard"`, or several; `"none"` or None: no tracker.
        logging_steps: Steps between two log entries, at least 1.
        disable_tqdm: Shows nothing while training, and no result at its end. Otherwise standard error gets what
            `msft train` shows: a live table on a terminal, elsewhere lines at evaluations and once a minute. Notes,
            such as on rows that were dropped, are always told: by the logger `msft` too, at the level of warnings.

    Raises:
        ConfigError: For an argument that is not here; for an invalid value when an `MSFTTrainer` is created.

    Examples:
        >>> from msft import MSFTConfig
        >>> args = MSFTConfig(output_dir="runs/first", num_train_epochs=3, method_kwargs={"eval_every": 0.5})
        >>> args.per_device_train_batch_size * args.gradient_accumulation_steps
        8
    """

    output_dir: str | os.PathLike[str]
    method: str | Method | Callable[[Brief], Plan] | None = METHOD
    method_kwargs: Mapping[str, Any] | None = field(default_factory=dict)
    num_train_epochs: float | None = None
    per_device_train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    learning_rate: float = 2e-5
    lr_scheduler_type: Literal["constant", "linear", "cosine"] | None = None
    warmup_ratio: float = 0.0
    optim: str = "adamw_torch_fused"
    weight_decay: float = 0.0
    average: float | None = None
    max_grad_norm: float | None = 1.0
    loss_reduction: Literal["token", "example"] = "token"
    max_length: int = 1024
    gradient_checkpointing: bool = False
    torch_compile: bool = False
    quantize: Literal["nf4", "fp4", "int8"] | None = None
    bf16: bool | None = None
    seed: int = 20
    data_seed: int | None = None
    leaks: Literal["error", "drop", "warn"] = "drop"
    bad_rows: Literal["error", "drop"] = "error"
    mixing: Literal["size", "equal"] | Mapping[str, float] = "size"
    repeat: Mapping[str, float] | None = field(default_factory=dict)
    scorer: Scorer | Mapping[str, Scorer] | None = None
    dataset_kwargs: Mapping[str, Mapping[str, Any]] | None = field(default_factory=dict)
    aggregate: Mapping[str, Any] | None = None
    report_to: str | Sequence[str] | None = ()
    logging_steps: int = 10
    disable_tqdm: bool = False

    def __new__(cls, *args: Any, **given: Any) -> MSFTConfig:
        """Raises ConfigError for arguments that are not here, with those of the same meaning."""
        known = [each.name for each in fields(cls)]
        lines = [
            complaint("unknown argument", instead_of(name, known), file=cls.__name__, field=name)
            for name in given
            if name not in known
        ]
        if lines:
            raise ConfigError("\n".join(lines))
        return super().__new__(cls)

    def resolve(
        self, *, model: Mapping[str, Any], datasets: Sequence[Mapping[str, Any]], peft: LoraConfig | None, world: int
    ) -> Config:
        """The configuration of the run. `world`: number of processes. Raises ConfigError."""
        method = self._method()
        tasks = [dataset["id"] for dataset in datasets]
        self._check_names(tasks)
        scorers = by_task(self.scorer, tasks, type(self).__name__)
        batch = self.per_device_train_batch_size * self.gradient_accumulation_steps * world
        precision = "auto"
        if self.bf16 is not None:
            precision = ("mixed" if torch.cuda.is_available() else "autocast") if self.bf16 else "fp32"
        data = {
            "model": {**model, "precision": precision, "quantize": self.quantize},
            "method": method,
            "datasets": [self._dataset(dataset, scorers) for dataset in datasets],
            "aggregate": with_scorer(self.aggregate, f"{type(self).__name__} aggregate"),
            "data": {
                "seed": self.seed if self.data_seed is None else self.data_seed,
                "leaks": self.leaks,
                "max_length": self.max_length,
                "bad_rows": self.bad_rows,
                "mixing": self.mixing,
            },
            "training": {
                "seed": self.seed,
                "batch_size": batch,
                "learning_rate": self.learning_rate,
                "schedule": self.lr_scheduler_type or self._schedule(method),
                "warmup": self.warmup_ratio,
                "optimizer": OPTIMIZERS.get(self.optim, self.optim),
                "weight_decay": self.weight_decay,
                **({} if self.average is None else {"average": self.average}),
                "max_grad_norm": self.max_grad_norm or None,
                "loss_reduction": self.loss_reduction,
                "gradient_checkpointing": self.gradient_checkpointing,
                "torch_compile": self.torch_compile,
                "report_to": _trackers(self.report_to),
            },
            "peft": None if peft is None else adapter(peft),
            "output": in_full(self.output_dir),
        }
        return from_mapping(data, type(self).__name__)

    def _schedule(self, method: MethodConfig) -> str:
        averaged = self.average is not None or method.definition.averaged
        return "constant" if averaged or method.max_epochs is None else "linear"

    def _method(self) -> MethodConfig:
        name, methods = _named(self.method or METHOD)
        section = {"name": name, **(self.method_kwargs or {})}
        if self.num_train_epochs is not None:
            section["max_epochs"] = float(self.num_train_epochs)
        try:
            return resolve(section, methods)
        except ProblemsError as error:
            lines = [
                complaint(p.found, p.fix, file=type(self).__name__, field=".".join(map(str, ("method", *p.key))))
                for p in error.problems
            ]
            raise ConfigError("\n".join(lines)) from None

    def _check_names(self, tasks: Sequence[str]) -> None:
        """Raises ConfigError if a setting names a sub-dataset that is none of `tasks`."""
        named = (("repeat", self.repeat or {}), ("dataset_kwargs", self.dataset_kwargs or {}))
        lines = [
            complaint(
                f"there is no sub-dataset {task!r}", one_of(str(task), tasks), file=type(self).__name__, field=key
            )
            for key, given in named
            for task in given
            if task not in tasks
        ]
        if lines:
            raise ConfigError("\n".join(lines))

    def _dataset(self, dataset: Mapping[str, Any], scorers: Mapping[str, Any]) -> Any:
        name = dataset["id"]
        field = f"dataset_kwargs[{name!r}]"
        own = with_scorer((self.dataset_kwargs or {}).get(name, {}), f"{type(self).__name__} {field}")
        splits = {
            part: self._split(part, dataset[part], own[part], field)
            for part in SPLITS
            if {part} <= dataset.keys() & own.keys()
        }
        return {"scorer": scorers.get(name), "repeat": (self.repeat or {}).get(name), **dataset, **own, **splits}

    def _split(self, part: str, given: Mapping[str, Any], own: Any, field: str) -> Any:
        """A split whose rows an argument gives, or a column `split`, with its further keys. Raises ConfigError."""
        own = {} if own is None else own
        passed = "path" in given
        # Further keys may name other rows than those that a column `split` names, but not than those of an argument.
        if not isinstance(own, Mapping) or not (passed or own.keys() <= {"max_samples"}):
            return own
        if passed and "path" in own:
            found = f"{SPLITS[part]} gives the rows of this split"
            field = f"{field}[{part!r}]['path']"
            raise ConfigError(complaint(found, "give one of the two", file=type(self).__name__, field=field))
        return {**given, **own}


def _trackers(named: str | Sequence[str] | None) -> list[str]:
    names = [named] if isinstance(named, str) else list(named or ())
    return [] if names == ["none"] else names


def _named(method: str | Method | Callable[[Brief], Plan]) -> tuple[str, Mapping[str, Method]]:
    """The name that is journaled for a method, and a table that contains it."""
    if isinstance(method, str):
        return method, METHODS
    own = method if isinstance(method, Method) else Method(plan=method, Params=NoParams)
    name = f"{own.plan.__module__}:{own.plan.__qualname__}"
    PASSED[name] = own  # the page and the summary ask for its outlook by this name
    return name, {name: own}


def adapter(config: LoraConfig) -> dict[str, Any]:
    """The `peft` section for a LoraConfig with target modules. Raises ConfigError for settings that the section does
    not have."""
    if not isinstance(config, LoraConfig):
        found = f"found {type(config).__name__}"
        raise ConfigError(complaint(found, "give a peft.LoraConfig, the only kind of adapter here", file="peft_config"))
    plain = LoraConfig()
    for known in fields(config):
        value = getattr(config, known.name)
        if known.name not in NEUTRAL and known.name not in ADAPTER and value != getattr(plain, known.name, None):
            fix = f"leave it out; an adapter here is made of {', '.join(ADAPTER)}"
            raise ConfigError(complaint(f"found {value!r}", fix, file="peft_config", field=known.name))
    layers = config.layers_to_transform
    given = {
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "target_modules": _names(config.target_modules),
        "exclude_modules": config.exclude_modules and _names(config.exclude_modules),
        "layers_to_transform": [layers] if isinstance(layers, int) else layers,
        "modules_to_save": config.modules_to_save,
        "use_dora": config.use_dora,
        "use_rslora": config.use_rslora,
    }
    return {name: value for name, value in given.items() if value is not None}


def _names(given: Any) -> Any:
    return given if isinstance(given, str) else sorted(given)
