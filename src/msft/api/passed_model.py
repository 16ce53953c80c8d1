"""Whether a model that was passed as an object is still the same model after it was saved and loaded again.

A run loads it from a folder, as all models: again at a roll-back to the base model, and again when it is resumed. What
a folder does not hold, such as frozen parameters or code of one's own, would be lost without a word; so it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any, NoReturn

import torch
from peft import PeftModel
from torch import nn
from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoModelForCausalLM, PreTrainedModel

from msft.core.errors import ModelError, complaint
from msft.core.plain_words import kind_of

LIBRARIES = {"accelerate", "peft", "torch", "transformers"}
"""Packages that set hooks of their own, which do not change what a model computes."""
BY_FOLDER = "save the model with its code as a folder, and run `msft train` with model.trust_remote_code"


def check_model(model: Any, *, adapter: bool) -> None:
    """Raises ModelError if a run would train another model than this one. `adapter`: it trains an adapter only."""
    if isinstance(model, PeftModel):
        _refuse("a model with an adapter", "give the model without its adapter, and the adapter as peft_config")
    if not isinstance(model, PreTrainedModel):
        fix = "give a causal language model of transformers, or its hub id or folder"
        if isinstance(model, nn.Module):
            fix += "; not one that was compiled or wrapped: msft does that (torch_compile, accelerate launch)"
        _refuse(kind_of(model), fix)
    loaded = _as_loaded(model)
    _check_modules(model, loaded)
    _check_code(model)
    if not adapter and not _quantised(model):
        _check_trainable(model, loaded)


def other_attention(model: Any) -> str | None:
    """A note if the run does not use the attention that the model was loaded with; None: there is nothing to say."""
    if not isinstance(model, PreTrainedModel):
        return None
    own, default = model.config._attn_implementation, _as_loaded(model).config._attn_implementation
    if own == default:
        return None
    return (
        f"the model was passed with attn_implementation={own!r}, which a run does not keep: it uses the model's "
        f"default ({default}), or an attention of msft where that is proven to give the same results"
    )


def _as_loaded(model: PreTrainedModel) -> PreTrainedModel:
    """What the Auto class makes of the model's configuration, without weights. Raises ModelError."""
    if type(model.config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        found = f"{kind_of(model)}, which AutoModelForCausalLM does not know"
        _refuse(found, f"give a causal language model that it loads; if the code is your own: {BY_FOLDER}")
    # As it is after saving: what was chosen for this object only, such as its attention, is not saved.
    config = type(model.config).from_dict(deepcopy(model.config.to_dict()))
    with torch.device("meta"):
        made = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    assert isinstance(made, PreTrainedModel)
    return made


def _check_modules(model: PreTrainedModel, loaded: PreTrainedModel) -> None:
    if type(model) is not type(loaded):
        found = f"a {_named(type(model))}, but a run would load a {_named(type(loaded))} for its configuration"
        _refuse(found, f"give a {type(loaded).__name__}; if the code is your own: {BY_FOLDER}")
    if _quantised(model):
        return  # its linear layers are of other types; the quantisation itself is saved
    ours, theirs = (dict(each.named_modules()) for each in (model, loaded))
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        here, there = (type(each[name]) if name in each else None for each in (ours, theirs))
        if here is not there:
            found = f"{_named(here)} as {name}, where a run would load {_named(there)}"
            fix = "give the model as from_pretrained made it; an adapter: as peft_config"
            _refuse(found, f"{fix}; if the code is your own: {BY_FOLDER}")


def _check_code(model: PreTrainedModel) -> None:
    """Raises ModelError for code that was put on this object only."""
    for name, module in model.named_modules():
        where = name or type(model).__name__
        # Accelerate wraps `forward` to move tensors between devices, and keeps the original.
        own = vars(module).get("_old_forward" if "_hf_hook" in vars(module) else "forward")
        if own is not None and getattr(own, "__func__", None) is not type(module).forward:
            _refuse(f"a replaced forward of {where}, which a run would not call", f"restore it; or {BY_FOLDER}")
        if _of_a_user([*module._forward_hooks.values(), *module._forward_pre_hooks.values()]):
            _refuse(f"a forward hook on {where}, which a run would not call", f"remove it; or {BY_FOLDER}")
    for name, parameter in model.named_parameters():
        if _of_a_user((parameter._backward_hooks or {}).values()):
            _refuse(f"a gradient hook on {name}, which a run would not call", "remove it; or train an adapter")


def _check_trainable(model: PreTrainedModel, loaded: PreTrainedModel) -> None:
    """Raises ModelError for parameters that are frozen, unless the model's own code freezes them."""
    by_itself = set(_frozen(loaded))
    frozen = [name for name in _frozen(model) if name not in by_itself]
    if frozen:
        listed = ", ".join(frozen[:3]) + (", ..." if len(frozen) > 3 else "")
        found = f"frozen parameters ({len(frozen)}: {listed}), which a run would train"
        fix = "unfreeze them (model.requires_grad_(True)), or train an adapter: peft_config=LoraConfig(...)"
        _refuse(found, f"{fix}, with layers_to_transform for some of the layers only")


def _frozen(model: PreTrainedModel) -> Iterator[str]:
    return (name for name, parameter in model.named_parameters() if not parameter.requires_grad)


def _of_a_user(hooks: Iterable[Any]) -> bool:
    return any(str(getattr(hook, "__module__", None)).partition(".")[0] not in LIBRARIES for hook in hooks)


def _quantised(model: PreTrainedModel) -> bool:
    return getattr(model, "hf_quantizer", None) is not None


def _named(kind: type | None) -> str:
    return "nothing" if kind is None else f"{kind.__name__} ({kind.__module__})"


def _refuse(found: str, fix: str) -> NoReturn:
    raise ModelError(complaint(f"found {found}", fix, field="model"))
