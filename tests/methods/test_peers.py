"""What the peers do that the conformance suite cannot know: each against its paper's formula, by hand."""

from __future__ import annotations

import pytest

from msft.core.search import Search
from msft.core.vocabulary import Anneal, Outcome, Segment, Snapshot
from msft.methods import METHODS
from msft.run.loop import drive
from msft.testing.fake import Curve, FakeEngine, brief_of

APART = {"a": Curve(peak=1.0), "b": Curve(peak=3.0), "c": Curve(peak=6.0)}
SIZES = {"a": 16, "b": 16, "c": 32}
Journal = list[tuple[Segment, Outcome]]


def play(name: str, engine: FakeEngine | None = None, /, **changes: object) -> tuple[FakeEngine, Journal, Snapshot]:
    engine = engine or FakeEngine(APART, SIZES)
    method = METHODS[name]
    brief = brief_of(engine, changes.pop("params", method.Params()), **changes)
    journal: Journal = []
    answer = drive(Search(method, brief), engine, engine.store, lambda _, s, o: journal.append((s, o)))
    return engine, journal, answer


@pytest.mark.parametrize(("cooldown", "start"), [(0.2, 128), (1.0, 0), (0.001, 159)])
def test_wsd_is_sft_until_the_rate_falls_to_zero_at_the_end(cooldown: float, start: int) -> None:
    """10 epochs of 16 steps: the last fifth are 32 steps; a cooldown has at least one."""
    _, plain, _ = play("sft")
    _, journal, answer = play("wsd", params=METHODS["wsd"].Params(cooldown=cooldown))
    falls = [segment.anneal for segment, _ in journal]
    first = next(i for i, fall in enumerate(falls) if fall is not None)
    assert set(falls[first:]) == {Anneal(start=start, stop=160, to=0.0, shape="sqrt")}
    assert journal[first][0].stop > start >= journal[first][0].start
    assert journal[:first] == plain[:first]
    assert [s.stop for s, _ in journal] == [s.stop for s, _ in plain]
    macro = [sum(o.scores.values()) for _, o in journal]
    assert answer == 1 + macro.index(max(macro))
    for step in (start, (start + 160) // 2, 159):
        by_hand = 1 - ((step - start) / (160 - start)) ** 0.5
        assert falls[-1] is not None and falls[-1].factor(step) == pytest.approx(by_hand)


@pytest.mark.parametrize("cooldown", [0.0, -0.1, 1.5])
def test_a_cooldown_is_a_share(cooldown: float) -> None:
    with pytest.raises(ValueError, match="cooldown must be a share above 0, at most 1"):
        METHODS["wsd"].Params(cooldown=cooldown)
