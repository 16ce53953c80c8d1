"""Adapters (PEFT) that lie in folders: checked, and put on their base."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, PeftType
from safetensors import SafetensorError

from msft.core.errors import ModelError, complaint, in_a_line
from msft.model.folder import ModelSource, complaining, safetensors_header

ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
_OTHER_BASE = "use the base model that the adapter was trained on"


def adapter_config(folder: Path) -> PeftConfig:
    """What the folder's `adapter_config.json` says. Raises ModelError if it cannot be read."""
    with complaining(ModelSource(name_or_path=str(folder)), "the adapter's settings cannot be read"):
        found: PeftConfig = PeftConfig.from_pretrained(str(folder))
        return found


def with_adapter(base: Any, folder: Path) -> PeftModel:
    """The base model with the adapter in `folder`. Raises ModelError for weights that are not a whole safetensors file,
    and for an adapter that does not fit the base in every tensor."""
    _check_weights(folder)
    kind = adapter_config(folder)
    if kind.peft_type == PeftType.XLORA:  # PEFT would read the weights of others, pickled ones too
        fix = "give one of those adapters"
        raise ModelError(complaint("it is made of adapters in other places (X-LoRA)", fix, file=folder))
    loaded: list[Any] = []
    hook = base.register_load_state_dict_post_hook(lambda _, keys: loaded.append(keys))
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            made: PeftModel = PeftModel.from_pretrained(base, str(folder))
    except UserWarning as error:
        lacking = re.findall("'([^']+)'", str(error))
        found = f"the adapter lacks weights that it needs on this base ({_listed(lacking)})"
        raise ModelError(complaint(found, _OTHER_BASE, file=folder / ADAPTER)) from error
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        found = f"the adapter does not fit its base ({in_a_line(error)})"
        raise ModelError(complaint(found, _OTHER_BASE, file=folder)) from error
    finally:
        hook.remove()
    unused = sorted({key for keys in loaded for key in keys.unexpected_keys})
    if unused and not kind.is_prompt_learning:  # whose weights PEFT puts beside the model
        found = f"the adapter has weights that have no place in this base ({_listed(unused)})"
        raise ModelError(complaint(found, _OTHER_BASE, file=folder / ADAPTER))
    return made


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _check_weights(folder: Path) -> None:
    """Raises ModelError unless the adapter's weights are a whole safetensors file: PEFT would read pickled ones."""
    pickled = folder / "adapter_model.bin"
    if pickled.is_file() and not (folder / ADAPTER).is_file():
        found = "the adapter's weights are pickled, which can run any code when read, and there is no safetensors file"
        fix = "save the adapter with save_pretrained of a current PEFT, which writes safetensors"
        raise ModelError(complaint(found, fix, file=pickled))
    safetensors_header(folder / ADAPTER)
