"""What a model can do at most: the tokens that it has an embedding for, the longest row, and what it recomputes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from msft.core.errors import ModelError, complaint
from msft.core.vocabulary import Task
from msft.data.examples import Example, TaskData
from msft.model.model_parts import base_of

POSITIONS = ("max_position_embeddings", "max_seq_len", "max_target_positions")
"""Where configurations say how many positions there are."""


def positions_of(model: PreTrainedModel | PeftModel) -> int | None:
    """The most tokens that the model takes; None if its configuration does not say."""
    base: Any = base_of(model)
    config = base.config.get_text_config(decoder=True)
    given = (getattr(config, name, None) for name in POSITIONS)
    found = next((value for value in given if isinstance(value, int) and value > 0), None)
    tables = (table for name, table in base.named_modules() if "position" in name and isinstance(table, nn.Embedding))
    padding = next((table.padding_idx for table in tables if table.num_embeddings == found), None)
    # RoBERTa's positions begin after that of padding.
    return found if found is None or padding is None else found - padding - 1


def check_data_fits(model: PreTrainedModel | PeftModel, data: Mapping[Task, TaskData], tokenizer: Any = None) -> None:
    """Raises ModelError if a sequence has a token or a position that the model does not have.

    `tokenizer`: for the text of such a token.
    """
    rows, positions = _embeddings(model), positions_of(model)
    for part in (each for found in data.values() for each in found.each):
        field = "aggregate" if part.aggregate else f"datasets.{part.dataset or part.task}"
        for example in _sequences(part):
            if rows is not None and len(example) and (token := int(example.ids.max())) >= rows:
                text = "" if tokenizer is None else f" ({tokenizer.convert_ids_to_tokens(token)!a})"
                found = f"token {token}{text} is beyond the model's {rows} embeddings"
                fix = "use the tokenizer that belongs to the model, or save the model with a resized embedding"
                raise ModelError(complaint(found, fix, field=field))
            if positions is not None and len(example) > positions:
                found = f"a sequence has {len(example)} tokens, the model has {positions} positions"
                raise ModelError(complaint(found, f"set data.max_length to at most {positions}", field=field))
        most = max((len(item.prompt) for items in (part.validation, part.test) for item in items), default=0)
        if positions is not None and part.measure.generates and most + part.measure.max_new_tokens > positions:
            found = f"a prompt of {most} tokens and max_new_tokens: {part.measure.max_new_tokens} are more"
            fits = positions - most
            fix = f"give at most {fits}" if fits > 0 else f"give prompts of fewer than {positions} tokens"
            field = f"{field}.scorer.max_new_tokens"
            raise ModelError(complaint(f"{found} than the model's {positions} positions", fix, field=field))


def check_checkpointing(model: PreTrainedModel | PeftModel) -> None:
    """Raises ModelError if the model cannot compute activations again in the backward pass."""
    base: Any = base_of(model)
    layers = any(hasattr(module, "gradient_checkpointing") for module in base.modules())
    if not (base.supports_gradient_checkpointing and layers):
        found = f"found true, but {type(base).__name__} of transformers has no gradient checkpointing"
        raise ModelError(complaint(found, "set it to false", field="training.gradient_checkpointing"))


def _embeddings(model: PreTrainedModel | PeftModel) -> int | None:
    """How many tokens have an embedding; None: it is no table, so all have. An adapter may lie around it."""
    table: Any = model.get_input_embeddings()
    for wrapped in ("original_module", "base_layer"):
        table = getattr(table, wrapped, table)
    return table.weight.shape[0] if isinstance(table, nn.Embedding) else None


def _sequences(part: TaskData) -> Iterator[Example]:
    yield from part.train
    yield from part.held_out
    for items in (part.validation, part.test):
        for item in items:
            yield from item.options
