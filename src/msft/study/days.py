"""What all runs of a study take from its beginning: the date, which chat templates with a clock write, and what
`method.score_excluded: auto` means, which was `rollout` before there was `auto`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from msft.data.load import dated, on_day
from msft.model.open import ModelSource, load_tokenizer
from msft.run.job import model_source
from msft.run.scoring_cost import as_begun
from msft.study.grid import Grid, StudyFolder, Variant


def on_one_day(grid: Grid, folder: StudyFolder) -> Grid:
    """The grid with the date that the folder's study has, or else today's, in each configuration whose chat template
    reads the date; of a study that was begun, also with its `score_excluded`. Raises ModelError if a tokenizer cannot
    be loaded."""
    if folder.record.exists():
        return replace(grid, variants=tuple(map(partial(_as_recorded, folder.recorded_configs()), grid.variants)))
    tokenizers: dict[ModelSource, Any] = {}
    made = []
    for variant in grid.variants:
        source = replace(model_source(variant.config), peft=None)
        if source not in tokenizers:
            tokenizers[source] = load_tokenizer(source)
        made.append(replace(variant, config=dated(variant.config, tokenizers[source])))
    return replace(grid, variants=tuple(made))


def _as_recorded(recorded: Mapping[str, Mapping[str, Any]], variant: Variant) -> Variant:
    was = recorded.get(variant.name)
    if was is None:
        return variant
    config = on_day(variant.config, was.get("data.date"))
    return replace(variant, config=as_begun(config, was.get("method.score_excluded", "rollout")))
