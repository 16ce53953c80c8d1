"""How a model's tokens become text, for measures that generate."""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from msft.scoring.generation import Decoding


def decoding_of(model: PreTrainedModel | PeftModel, tokenizer: Any) -> Decoding:
    """The model's tokenizer and the tokens that end a text: the tokenizer's, which is trained, and the model's own."""
    own = getattr(model.generation_config, "eos_token_id", None)
    listed = own if isinstance(own, list) else [own]
    ends = (token for token in (*listed, tokenizer.eos_token_id) if token is not None)
    return Decoding(decoder=tokenizer, eos=frozenset(map(int, ends)))
