"""What scoring costs beside training, in tokens; and whether every evaluation scores everything (design 3.10)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msft.config.as_begun import as_begun
from msft.config.schema import Config
from msft.core.vocabulary import Task
from msft.data.examples import Item, Measure, TaskData
from msft.forward.token_rows import row

CHEAP = 0.25
"""Where scoring everything costs at most this share of the training between two evaluations, every evaluation scores
everything. Active sub-datasets are scored in any case: this adds nothing before the first exclusion, and at most a
quarter to the cost of training while half of the mixture is active."""
TRAINED = 3
"""Cost of a token in training, in forward passes: one forward, and a backward that costs two."""


def scored_tokens(items: Sequence[Item], measure: Measure) -> int:
    """Tokens of one scoring of these items; a prefix that options share counts once."""
    return sum(len(row(item.options)) for item in items) + generated_tokens(items, measure)


def generated_tokens(items: Sequence[Item], measure: Measure) -> int:
    """Tokens processed if every text reaches `max_new_tokens`; the last token is not fed to the model again."""
    if not measure.generates:
        return 0
    return sum(len(item.prompt) + measure.max_new_tokens - 1 for item in items)


def scoring_share(data: Iterable[TaskData], eval_every: float) -> float:
    """Cost of scoring every sub-dataset once, as a share of training the whole mixture until the next evaluation."""
    parts = list(data)
    scored = sum(scored_tokens(part.validation, part.measure) for part in parts)
    # An epoch may take examples of a sub-dataset more or less than once.
    trained = sum(sum(map(len, part.train)) * part.size / len(part.train) for part in parts if not part.aggregate)
    return scored / (TRAINED * eval_every * trained)


def decided(config: Config, data: Mapping[Task, TaskData], *, excludes: bool) -> Config:
    """The configuration with `method.score_excluded: auto` decided: from counted tokens, never from a clock.

    `excludes`: whether the method excludes sub-datasets. One that does not gains nothing by scoring more often.
    """
    if config.method.score_excluded != "auto":
        return config
    cheap = excludes and scoring_share(data.values(), config.method.eval_every) <= CHEAP
    return as_begun(config, "tick" if cheap else "rollout")
