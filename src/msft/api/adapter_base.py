"""What an adapter on a model that was passed as an object may name as its base.

The run trains on a copy of the model in its own folder, which others do not have. Where the object is still what it was
loaded from, the adapter names that instead. Only equality of all weights and of the configuration proves it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from msft.core.errors import ModelError
from msft.model.folder import COPY_OF, ModelSource, complaining, hub_commit

OF_THE_OBJECT = {"_name_or_path", "dtype", "transformers_version", "architectures", "use_cache", "pad_token_id"}
"""Settings that scripts change on an object, or saving does, and that no likelihood depends on; types of weights are
compared with the weights."""


def name_base(model: PreTrainedModel, copy: Path) -> str | None:
    """Writes into the copy of the model what it is a copy of, if that is proven; returns why it is not, or None."""
    (copy / COPY_OF).unlink(missing_ok=True)  # of a run that ended before its first record
    name = model.config._name_or_path
    if not name:
        return "the model was not loaded from a folder or the hub"
    source = ModelSource(name_or_path=name)
    try:
        with complaining(source, "it cannot be loaded again"):
            why = _difference(model, source)
    except ModelError:
        return f"{name}, which the model was loaded from, cannot be loaded again"
    if why is not None:
        return why
    if source.folder is None:
        original = {"name_or_path": name, "revision": hub_commit(source, cached=True)}
    else:
        original = {"name_or_path": str(source.folder.absolute())}
    (copy / COPY_OF).write_text(json.dumps(original) + "\n", encoding="utf-8")
    return None


def _difference(model: PreTrainedModel, source: ModelSource) -> str | None:
    """What the model differs in from what its source holds now; None: in nothing."""
    name, place = source.name_or_path, str(source.folder or source.name_or_path)
    # A name on the hub is read from the hub's cache: an object of another revision must not download the default one.
    ours, theirs = _settings(model.config), _settings(AutoConfig.from_pretrained(place, local_files_only=True))
    changed = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if changed:
        return f"the model's configuration differs from that of {name} ({', '.join(changed[:3])})"
    with torch.random.fork_rng(devices=[]):  # weights that the source lacks would be drawn
        loaded = AutoModelForCausalLM.from_pretrained(place, use_safetensors=True, dtype="auto", local_files_only=True)
    tensor = _changed(model.state_dict(), loaded.state_dict())
    return None if tensor is None else f"the model's weights differ from those of {name} ({tensor})"


def _settings(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.to_dict().items() if key not in OF_THE_OBJECT}


def _changed(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> str | None:
    """The name of a tensor that is not on both sides with the same values."""
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours or name not in theirs or ours[name].is_meta:
            return name
        one, other = ours[name].detach().cpu(), theirs[name]
        wide = torch.promote_types(one.dtype, other.dtype)
        if one.shape != other.shape or not torch.equal(one.to(wide), other.to(wide)):
            return name
    return None
