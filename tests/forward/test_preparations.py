"""The micro-batches of sequences that are scored again and again are made once."""

from __future__ import annotations

import numpy as np
import pytest
from device import DEVICE
from tiny_engine import VOCABULARY, tiny_model

from msft.data.examples import Example
from msft.forward import runtime as module
from msft.forward.runtime import Preparations, Runtime, sequence_scores
from msft.model.row_layout import fitting_layout
from msft.model.token_loss import TokenLoss


def groups(count: int, first: int = 1) -> list[tuple[Example, ...]]:
    """Two options each, which begin alike."""
    made = []
    for place in range(count):
        ids = (np.arange(5 + place % 4) * 7 + place + first) % VOCABULARY
        trained = np.arange(len(ids)) >= 3
        other = np.append(ids[:-1], (ids[-1] + 1) % VOCABULARY)
        made.append(tuple(Example(ids=each.astype(np.int32), trained=trained) for each in (ids, other)))
    return made


def runtime() -> Runtime:
    return Runtime(device=DEVICE, max_tokens=32, layout="flat")


def test_the_same_sequences_get_the_same_micro_batches_and_scores() -> None:
    loss = TokenLoss(tiny_model().to(DEVICE))
    fitting_layout(loss, DEVICE)
    items, known = groups(9), Preparations(runtime())
    plain = sequence_scores(loss, items, runtime(), hits=True)
    scores = [sequence_scores(loss, items, runtime(), hits=True, known=known) for _ in range(3)]
    for found in scores:
        assert np.array_equal(found.nll, plain.nll) and np.array_equal(found.all_hit, plain.all_hit)
        assert found.tokens == plain.tokens
    once, again = (list(known.of(items, hits=True).batches) for _ in range(2))
    assert len(once) > 1 and all(one[0] is other[0] for one, other in zip(once, again, strict=True))
    assert not any(span.kept for batch, _, _ in once if batch is not None for span in batch.spans), "masks are let go"


def test_other_sequences_or_an_unfinished_scoring_are_not_taken_for_them() -> None:
    items, known = groups(9), Preparations(runtime())
    first = [batch for batch, _, _ in known.of(items, hits=False).batches]
    for others in (groups(9), items[:-1], items[::-1]):
        made = [batch for batch, _, _ in known.of(others, hits=False).batches]
        assert not any(one is other for one in made for other in first)
    hits = [batch for batch, _, _ in known.of(items, hits=True).batches]
    assert all(batch is not None and batch.hits for batch in hits)
    next(iter(known.of(items[:-1], hits=True).batches))  # a scoring that failed at its first micro-batch
    assert len(list(known.of(items[:-1], hits=True).batches)) == len(
        [*module.prepare(items[:-1], runtime(), hits=True).batches]
    )


def test_what_takes_much_memory_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 100)
    items, known = groups(9), Preparations(runtime())
    once, again = (list(known.of(items, hits=False).batches) for _ in range(2))
    assert len(once) == len(again) and not any(one[0] is other[0] for one, other in zip(once, again, strict=True))
