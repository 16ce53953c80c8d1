"""How a model's tokens become text, for measures that generate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from peft import PeftModel
from transformers import PreTrainedModel

from msft.core.vocabulary import Task
from msft.data.examples import TaskData
from msft.scoring.generation import Decoding


def decoding_of(model: PreTrainedModel | PeftModel, tokenizer: Any, data: Mapping[Task, TaskData]) -> Decoding:
    """The model's tokenizer and the tokens that end a text: the tokenizer's, the model's own, and those that the
    examples of a sub-dataset teach."""
    own = getattr(model.generation_config, "eos_token_id", None)
    listed = own if isinstance(own, list) else [own]
    ends = (token for token in (*listed, tokenizer.eos_token_id) if token is not None)
    taught = {name: frozenset(part.ends) for task, part in data.items() for name in (task, *part.tests)}
    return Decoding(decoder=tokenizer, eos=frozenset(map(int, ends)), taught=taught)
