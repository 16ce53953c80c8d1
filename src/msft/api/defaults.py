"""What stands for arguments that scripts leave out or simplify, as TRL's trainer reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import datasets
from transformers import AutoTokenizer, PreTrainedModel

from msft.core.errors import DataError, complaint

ONLY = "train"
"""The name of the sub-dataset of a single data set."""


def tokenizer_for(model: Any) -> Any | None:
    """The tokenizer of the folder or hub name that a model object was loaded from; None: it has none."""
    name = model.config._name_or_path if isinstance(model, PreTrainedModel) else None
    if not name:
        return None
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception:  # of any of the loading libraries; the trainer says that the tokenizer is missing
        return None
    # Where a folder holds no tokenizer, transformers makes one of special tokens only.
    return tokenizer if len(tokenizer) > len(set(tokenizer.all_special_ids)) else None


def by_name(given: Mapping[str, Any]) -> dict[str, Any]:
    """Argument -> its data sets by name of the sub-dataset, where it may also be a single `datasets.Dataset`. The first
    argument has the training rows. Raises DataError where the name is not clear."""
    train = next(iter(given.values()))
    names = [ONLY] if isinstance(train, datasets.Dataset) else list(train) if isinstance(train, Mapping) else []
    made = {}
    for argument, value in given.items():
        single = isinstance(value, datasets.Dataset)
        if single and len(names) != 1:
            found = "found a single data set, for several sub-datasets" if names else "found a single data set"
            mend = f"give a dict by name of the sub-dataset{': ' if names else ''}{', '.join(map(str, names))}"
            raise DataError(complaint(found, mend, field=argument))
        made[argument] = {names[0]: value} if single else value
    return made
