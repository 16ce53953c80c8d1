"""What a model's tokens say, for measures that generate."""

from __future__ import annotations

from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from msft.scoring.generation import Decoding


def decoding_of(model: PreTrainedModel | PeftModel, tokenizer: Any) -> Decoding:
    """The model's tokenizer; a text ends at its end-of-sequence token, which is trained, or those of the model."""
    own = getattr(model.generation_config, "eos_token_id", None)
    listed = own if isinstance(own, list) else [own]
    ends = (token for token in (*listed, tokenizer.eos_token_id) if token is not None)
    return Decoding(decoder=tokenizer, eos=frozenset(map(int, ends)))
