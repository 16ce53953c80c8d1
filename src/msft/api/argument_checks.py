"""Values of an `MSFTConfig` that no check of the configuration sees: those that are used, or converted, before it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from transformers import TrainingArguments

from msft.api.other_trainers import INSTEAD, INSTEAD_IN_TRAINER, INSTEAD_OF_MEMBERS, OVERRIDDEN, REMOVE
from msft.config.problems import one_of
from msft.core.errors import ConfigError, complaint
from msft.core.method import Method
from msft.core.plain_words import kind_of

if TYPE_CHECKING:
    from msft.api.config import MSFTConfig


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _names(value: Any) -> bool:
    return isinstance(value, (list, tuple, set)) and all(isinstance(name, str) for name in value)


OPTIMIZERS = {
    "adamw_torch_fused": "adamw", "adamw_torch": "adamw", "adamw": "adamw", "adamw_bnb_8bit": "adamw_8bit",
    "adamw_8bit": "adamw_8bit", "adafactor": "adafactor", "muon": "muon",
}  # fmt: skip
"""Values of `optim`, TRL's names among them, and those of a configuration."""
COUNT = "give a whole number from 1"
KWARGS = 'give a dict, such as {"NAME": ...}, or leave it out'
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "output_dir": (lambda value: isinstance(value, (str, os.PathLike)) and str(value) != "", "give a folder's path"),
    "method": (
        lambda value: value is None or isinstance(value, (str, Method)) or callable(value),
        "give the name of a method, a msft.core.method.Method or its generator function",
    ),
    "method_kwargs": (lambda value: value is None or _mapping(value), KWARGS),
    "dataset_kwargs": (
        lambda value: value is None or (_mapping(value) and all(map(_mapping, value.values()))),
        "give a dict of dicts by sub-dataset, or leave it out",
    ),
    "repeat": (lambda value: value is None or _mapping(value), KWARGS),
    "num_train_epochs": (lambda value: value is None or _number(value), "give a number, or None"),
    "per_device_train_batch_size": (_count, COUNT),
    "gradient_accumulation_steps": (_count, COUNT),
    "logging_steps": (_count, f"{COUNT}; not a share of all steps, as a search does not know their number"),
    "lr_scheduler_type": (
        lambda value: value in (None, "constant", "linear", "cosine"),
        'give "linear", "cosine", "constant" or None; for "constant_with_warmup", "constant" with warmup_ratio',
    ),
    "optim": (
        # Of others that are well known, the check of the configuration says why they are not here.
        lambda value: isinstance(value, str) and (value in OPTIMIZERS or value.startswith(("paged_", "schedule_free"))),
        "give one of: " + ", ".join(OPTIMIZERS),
    ),
    "max_length": (_count, f"{COUNT}, such as the longest that the model takes; None, for no limit, is not supported"),
    "bf16": (lambda value: value is None or _flag(value), "give True, False or None"),
    "disable_tqdm": (_flag, "give True or False"),
    "report_to": (
        lambda value: value is None or isinstance(value, str) or _names(value),
        'give the name of a tracker, several in a list, or "none"',
    ),
}  # fmt: skip
"""For each argument: whether a value can be used, and what to do instead."""


def _check_values(args: MSFTConfig) -> None:
    """Raises ConfigError, with a line for each argument that cannot be used."""
    lines = [
        complaint(f"found {repr(getattr(args, name))[:60]}", fix, file=type(args).__name__, field=name)
        for name, (usable, fix) in _CHECKS.items()
        if not usable(getattr(args, name))
    ]
    if lines:
        raise ConfigError("\n".join(lines))


def _check_once(args: MSFTConfig) -> None:
    """Raises ConfigError, with a line for each value that another argument gives too, and that would be lost."""
    settings = args.method_kwargs or {}
    twice: list[tuple[str, str, str]] = []
    if "name" in settings:
        twice.append(("method_kwargs['name']", "method names the method", "give method, and omit this"))
    if "max_epochs" in settings and args.num_train_epochs is not None:
        twice.append(("method_kwargs['max_epochs']", "num_train_epochs gives it too", "give one of the two"))
    for task, own in (args.dataset_kwargs or {}).items():
        twice += [
            (f"dataset_kwargs[{task!r}][{key!r}]", f"train_dataset gives the {what}", "give it there, and omit this")
            for key, what in (("id", "sub-dataset's name"), ("path", "rows"))
            if key in own
        ]
    if twice:
        name = type(args).__name__
        raise ConfigError("\n".join(complaint(found, fix, file=name, field=key) for key, found, fix in twice))


def checked(args: MSFTConfig | None, kind: type[MSFTConfig]) -> MSFTConfig:
    """The `args` of a trainer. Raises ConfigError if they are missing, another trainer's, or have unusable values."""
    if not isinstance(args, kind):
        found = "is missing" if args is None else f"found {kind_of(args)}"
        fix = 'give MSFTConfig(output_dir="runs/first", ...)'
        if isinstance(args, TrainingArguments):
            fix += "; most arguments have the same names (docs/how_to/from_trl.md)"
        raise ConfigError(complaint(found, fix, field="args"))
    _check_values(args)
    _check_once(args)
    return args


def instead_of(name: str, known: Sequence[str], instead: Mapping[str, str] = INSTEAD) -> str:
    """What to write in place of an argument that is not known."""
    if name in instead:
        return instead[name]
    return REMOVE if name in {field.name for field in fields(TrainingArguments)} else one_of(name, known)


def check_known(given: Mapping[str, Any], known: Sequence[str], config: type) -> None:
    """Raises ConfigError for arguments of a trainer that it does not have."""
    settings = [field.name for field in fields(config)]
    lines = []
    for name in given:
        if name in known:
            continue
        own = f"give it in args: MSFTConfig({name}=...)" if name in settings else None
        fix = own or instead_of(name, known, INSTEAD_IN_TRAINER)
        lines.append(complaint("unknown argument", fix, file="MSFTTrainer", field=name))
    if lines:
        raise ConfigError("\n".join(lines))


def check_overridden(trainer: type) -> None:
    """Raises ConfigError for methods of a subclass that only another trainer would call."""
    lines = [
        complaint("a run never calls this method", INSTEAD_OF_MEMBERS[name], file=trainer.__name__, field=name)
        for name in OVERRIDDEN
        if name in vars(trainer)
    ]
    if lines:
        raise ConfigError("\n".join(lines))
