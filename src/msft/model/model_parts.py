"""What a third-party model consists of: the model under an adapter, its layers, and its vocabulary."""

from __future__ import annotations

import re
from typing import Any, cast

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint

LAYERS = re.compile(r"num_hidden_layers|n_layers?|num_layers|decoder_layers|num_decoder_layers|num_blocks")
"""Names of configurations for the number of layers."""


def base_of(model: Any) -> PreTrainedModel:
    """The model without its adapter."""
    return cast(PreTrainedModel, model.get_base_model() if isinstance(model, PeftModel) else model)


def decoder_layers(model: nn.Module, count: int | None = None) -> list[nn.Module]:
    """The model's decoder layers: the first list of `count` modules, by default as many as its configuration says.
    Empty where there is none."""
    if count is None:
        config: Any = model.config
        count = depth(config.get_text_config(decoder=True))
    lists = (found for found in model.modules() if isinstance(found, nn.ModuleList) and len(found) == count)
    return list(next(lists, []))


def depth(config: Any) -> int | None:
    """The number of layers that the configuration gives its decoder."""
    return next((v for n, v in vars(config).items() if LAYERS.fullmatch(n) and isinstance(v, int)), None)


def vocabulary_of(model: Any) -> int:
    """The number of tokens that the model knows."""
    return int(model.config.get_text_config(decoder=True).vocab_size)


def reads_more_than_text(model: Any) -> bool:
    """Whether it has parts for more than text, such as for images, which get no gradient here."""
    config = base_of(model).config
    return config.get_text_config(decoder=True) is not config


def check_same_layers(model: Any) -> None:
    """Raises ModelError for a model that drops whole layers at random: each of several processes would drop others, and
    wait for the gradients of theirs."""
    config = base_of(model).config.get_text_config(decoder=True)
    for name in ("layerdrop", "decoder_layerdrop"):
        if share := getattr(config, name, 0):
            found = f"the model drops layers at random ({name}: {share:g}), which differ between processes"
            raise ModelError(complaint(found, f"set {name}: 0 in its config.json", field="model.name_or_path"))
