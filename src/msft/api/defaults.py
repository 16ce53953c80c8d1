"""What stands for arguments that scripts leave out or simplify, as TRL's trainer reads them."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import datasets
from peft import LoraConfig
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as TARGETS
from transformers import AutoConfig, AutoTokenizer, PreTrainedModel

from msft.core.errors import ConfigError, DataError, complaint
from msft.model.folder import ModelSource, complaining

ONLY = "train"
"""The name of the sub-dataset of a single data set."""


def tokenizer_for(model: Any) -> Any | None:
    """The tokenizer of the folder or hub name that a model object was loaded from; None: it has none."""
    name = model.config._name_or_path if isinstance(model, PreTrainedModel) else None
    if not name:
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception:  # of any of the loading libraries; the trainer says that the tokenizer is missing
        return None
    # Where a folder holds no tokenizer, transformers makes one of special tokens only.
    return tokenizer if len(tokenizer) > len(set(tokenizer.all_special_ids)) else None


def with_targets(config: Any, model: Any) -> Any:
    """A LoraConfig without `target_modules` with those that PEFT takes for this type of model, by name or an object.
    Raises ConfigError where it has none, ModelError where the model is not found."""
    if not isinstance(config, LoraConfig) or config.target_modules is not None:
        return config
    if isinstance(model, str):
        with complaining(ModelSource(name_or_path=model), "the model's configuration cannot be used"):
            kind = AutoConfig.from_pretrained(model).model_type
    else:
        kind = getattr(getattr(model, "config", None), "model_type", None)
    if kind not in TARGETS:
        found = f"found None, and PEFT has no target modules of its own for {kind}"
        fix = "give their names, such as ['q_proj', 'v_proj'], or 'all-linear'"
        raise ConfigError(complaint(found, fix, file="peft_config", field="target_modules"))
    config = copy.copy(config)
    config.target_modules = TARGETS[kind]
    return config


def by_name(given: Mapping[str, Any]) -> dict[str, Any]:
    """Argument -> its data sets by name of the sub-dataset, where it may also be a single `datasets.Dataset`. The first
    argument has the training rows. Raises DataError where the name is not clear."""
    train = next(iter(given.values()))
    names = [ONLY] if isinstance(train, datasets.Dataset) else list(train) if isinstance(train, Mapping) else []
    made = {}
    for argument, value in given.items():
        single = isinstance(value, datasets.Dataset)
        if single and len(names) != 1:
            found = "found a single data set, for several sub-datasets" if names else "found a single data set"
            fix = f"give a dict by name of the sub-dataset{': ' if names else ''}{', '.join(map(str, names))}"
            raise DataError(complaint(found, fix, field=argument))
        made[argument] = {names[0]: value} if single else value
    return made
