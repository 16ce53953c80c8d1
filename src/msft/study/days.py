"""One date for all runs of a study: chat templates with a clock write it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from msft.data.load import dated, on_day
from msft.model.folder import ModelSource
from msft.model.open import load_tokenizer
from msft.run.job import model_source
from msft.study.grid import Grid, StudyFolder


def on_one_day(grid: Grid, folder: StudyFolder) -> Grid:
    """The grid with the date that the folder's study has, or else today's, in each configuration whose chat template
    reads the date. Raises ModelError if a tokenizer cannot be loaded."""
    if folder.record.exists():
        was = folder.recorded_configs()
        days = {name: config.get("data.date") for name, config in was.items()}
        return replace(
            grid, variants=tuple(replace(v, config=on_day(v.config, days.get(v.name))) for v in grid.variants)
        )
    tokenizers: dict[ModelSource, Any] = {}
    made = []
    for variant in grid.variants:
        source = replace(model_source(variant.config), peft=None)
        if source not in tokenizers:
            tokenizers[source] = load_tokenizer(source)
        made.append(replace(variant, config=dated(variant.config, tokenizers[source])))
    return replace(grid, variants=tuple(made))
