"""What a configuration has a model return beside its logits: switched off in a run, and written back with the model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel
from transformers.utils import CONFIG_NAME

PLAIN = {"output_attentions": False, "output_hidden_states": False, "output_router_logits": False, "return_dict": True}
"""Only the logits are used. Attention weights exist in some attentions only, hidden states take memory, and router
logits make a loss of each micro-batch that is not used and for which rows may not be laid end to end."""
ROUTER = "no auxiliary loss of a router is added (output_router_logits in the model's configuration)"


def return_logits_only(model: PreTrainedModel) -> None:
    """Has the model return its logits only; `as_configured` writes what its configuration asks for."""
    asked: dict[tuple[str, ...], Any] = {}
    for place, config in _parts(model.config):
        for key, value in PLAIN.items():
            if (was := getattr(config, key, None)) is not None and was != value:
                asked[*place, key] = was
                setattr(config, key, value)
    if asked:
        model.asked_to_return = asked  # type: ignore[assignment]


def router_note(model: PreTrainedModel) -> str:
    """That a model's router is trained without the loss that its configuration asks for; empty if it asks for none."""
    return ROUTER if any(place[-1] == "output_router_logits" for place in _asked(model)) else ""


def as_configured(model: PreTrainedModel, folder: Path) -> None:
    """Writes what the model's configuration asked for into a folder that holds it."""
    file = folder / CONFIG_NAME
    if not (asked := _asked(model)) or not file.is_file():
        return
    content = json.loads(file.read_text(encoding="utf-8"))
    for (*place, key), value in asked.items():
        part = content
        for name in place:
            part = part.setdefault(name, {})
        part[key] = value
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _asked(model: PreTrainedModel) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = getattr(model, "asked_to_return", {})
    return found


def _parts(config: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The configuration, and that of its text model where it is another: the keys that lead to it, and itself."""
    yield (), config
    text = config.get_text_config(decoder=True)
    if text is not config:
        yield next((name,) for name, value in vars(config).items() if value is text), text
