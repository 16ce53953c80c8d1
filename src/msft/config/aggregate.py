"""The `aggregate` section: one validation set for the whole mixture, whose score chooses the final model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import model_validator

from msft.config.dataset_section import DatasetConfig
from msft.config.method_section import MethodConfig
from msft.config.problems import Problem, ProblemsError, folded, not_portable, shown

NOT_OF_ITEMS = {
    "validation": "all of its rows are validation items, and those of test if it is given",
    "split_by": "it has one score",
    "group": "it is no part of the mixture",
    "repeat": "nothing of it is trained on",
}
"""Keys of a data set that an aggregate does not have, and why."""


class AggregateConfig(DatasetConfig):
    """Rows that are only scored, never trained on: their score alone chooses the final model. `max_samples` is the
    maximum number of validation items, and a `test` that is carved is a part of these rows."""

    own_rows: ClassVar[str] = "validation"

    id: str = "aggregate"
    """Its name in tables and messages."""

    @property
    def field(self) -> str:
        return "aggregate"

    @model_validator(mode="after")
    def _only_items(self) -> AggregateConfig:
        problems = [
            Problem(f"an aggregate has no {key}: {why}", "remove it", (key,))
            for key, why in NOT_OF_ITEMS.items()
            if getattr(self, key) is not None
        ]
        if self.scorer is not None and self.scorer.shots is not None:
            found = "shots are training examples, and an aggregate has none"
            problems.append(Problem(found, "remove it", ("scorer", "shots")))
        if problems:
            raise ProblemsError(problems)
        return self


def check_aggregate(aggregate: AggregateConfig, datasets: Sequence[DatasetConfig], method: MethodConfig) -> None:
    """Raises ProblemsError if the name is taken, or if the method does not choose by it."""
    problems = []
    taken = {folded(name): name for dataset in datasets for name in (dataset.id, dataset.group) if name is not None}
    if (known := taken.get(folded(aggregate.id))) is not None:
        found = f"the name is taken: {shown(known)} is a data set or a group"
        problems.append(Problem(found, "give aggregate.id", ("aggregate", "id")))
    if reason := not_portable(aggregate.id):
        problems.append(Problem(reason, "give it another id", ("aggregate", "id")))
    if method.select == "last":
        found = "the aggregate chooses the final model, and select: last takes the last point"
        problems.append(Problem(found, "write method.select: best, or remove aggregate", ("aggregate",)))
    if problems:
        raise ProblemsError(problems)
