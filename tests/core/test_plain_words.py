"""Numbers and types in sentences: one of a thing is no plural, and a vowel takes "an"."""

from __future__ import annotations

import pytest

from msft.core.errors import first_line, in_a_line
from msft.core.outlook import Standing
from msft.core.plain_words import kind_of, many
from msft.core.vocabulary import Mixture
from msft.methods import METHODS
from msft.testing.fake import Curve, FakeEngine, brief_of


def test_one_is_no_plural() -> None:
    assert [many(n, "epoch") for n in (0, 1, 2, 1.0, 0.5, 2.5)] == [
        "0 epochs", "1 epoch", "2 epochs", "1 epoch", "0.5 epochs", "2.5 epochs"
    ]  # fmt: skip
    assert many(12_000, "step") == "12,000 steps"


def test_a_type_has_its_article() -> None:
    assert [kind_of(value) for value in (3, 3.0, [], {}, None)] == [
        "an int",
        "a float",
        "a list",
        "a dict",
        "a NoneType",
    ]


@pytest.mark.parametrize("method", ["sft", "msft", "continual", "merge"])
def test_a_limit_of_one_epoch_is_told_in_the_singular(method: str) -> None:
    engine = FakeEngine({"a": Curve(peak=1), "b": Curve(peak=2)}, {"a": 20, "b": 20})
    brief = brief_of(engine, METHODS[method].Params(), horizon=1.0)
    at = Standing(rollout=1, epoch=0.0, mixture=Mixture(tasks=brief.tasks))
    bound = METHODS[method].outlook(brief, at).bound
    assert bound is not None and "the limit of 1 epoch" in bound.why and "1 epochs" not in bound.why


def test_what_a_library_raises_is_told_in_one_line() -> None:
    assert in_a_line(ValueError("\n  bad value\nat line 3")) == "ValueError: bad value"
    assert in_a_line(ValueError()) == "ValueError: no message"
    assert first_line(ValueError("x" * 1000)) == "x" * 200
