"""What is learned from a data file, as text: for the tests of reported faults about data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_models import tokenizer_of

from msft.config.schema import Config
from msft.core.errors import UserError
from msft.data.examples import Example, TaskData
from msft.data.load import load_tasks

WORDS = tokenizer_of()


def loaded(path: Path | str, data: dict[str, Any] | None = None, **keys: Any) -> TaskData:
    """The sub-dataset `d` of one file, without the search for leaks. `data`: keys of that section."""
    return all_loaded(path, data, **keys)["d"]


def all_loaded(path: Path | str, data: dict[str, Any] | None = None, **keys: Any) -> dict[str, TaskData]:
    dataset = {"id": "d", "path": str(path), "validation": {"max_samples": 1}, **keys}
    config = {"model": {"name_or_path": "m"}, "datasets": [dataset], "output": "o"}
    return load_tasks(Config.model_validate(config | {"data": {"leaks": "warn"} | (data or {})}), WORDS)


def learned(example: Example) -> str:
    """The text of the learned tokens, without the end of the sequence."""
    return str(WORDS.decode(example.ids[example.trained])).removesuffix("</s>")


def completions(data: TaskData) -> list[str]:
    """What all examples, those of validation last, have to learn."""
    return [learned(e) for e in [*data.train, *(item.options[item.answer] for item in data.validation)]]


def refusal(path: Path | str, data: dict[str, Any] | None = None, **keys: Any) -> str:
    with pytest.raises(UserError) as caught:
        loaded(path, data, **keys)
    assert "Fix: " in str(caught.value)
    return str(caught.value)
