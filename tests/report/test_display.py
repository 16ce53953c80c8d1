from __future__ import annotations

import io
import math
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from run_folders import NAMES, engine_for

from msft.cli.display import Display
from msft.cli.view import BARS, sparkline
from msft.core.search import Search
from msft.core.vocabulary import Outcome, Segment
from msft.engine.progress import ScoreInfo, StepInfo
from msft.methods import METHODS
from msft.testing.fake import brief_of


def show(
    console: Console,
    names: tuple[str, ...] = NAMES,
    *,
    known: int = 0,
    again: tuple[int, ...] = (),
    segments: int = 10**6,
    **fields: object,
) -> list[tuple[Segment, Outcome]]:
    """Run a search under a display as the trainer does; a step takes a second.

    A resumed run knows the first so many outcomes, and may have to run some of those segments again. With `segments`,
    it is interrupted after so many.
    """
    engine = engine_for(names)
    brief = brief_of(engine, METHODS["msft"].Params(**fields))
    search = Search(METHODS["msft"], brief)
    clock = [0.0]
    run: list[tuple[Segment, Outcome]] = []
    with suppress(KeyboardInterrupt), Display(console, now=lambda: clock[0]) as display:
        display.progress(ScoreInfo(tasks=names, done=1, total=2))
        display.begin(brief, "msft")
        while (segment := search.ask()) is not None:
            if len(run) == segments:
                raise KeyboardInterrupt
            number = search.number
            display.segment(number, segment)
            if number > known:
                work(display, segment, clock)
            outcome = engine.run(segment, number)
            display.outcome(number, segment, outcome)
            run.append((segment, outcome))
            search.tell(outcome)
            for n in again if number == known else ():
                display.segment(n, run[n - 1][0])
                work(display, run[n - 1][0], clock)
        display.note("done")
    return run


def work(display: Display, segment: Segment, clock: list[float]) -> None:
    for step in range(segment.start + 1, segment.stop + 1):
        info = StepInfo(
            rollout=segment.rollout, step=step, stop=segment.stop, loss=1.5, learning_rate=1e-5, tokens=9
        )  # fmt: skip
        clock[0] += 1.0
        display.progress(info)
    if segment.score:
        display.progress(ScoreInfo(tasks=segment.score, done=1, total=2))


def plain() -> Console:
    return Console(file=io.StringIO(), force_terminal=False, width=60)


def text(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_file_gets_one_plain_line_per_outcome_and_decision() -> None:
    console = plain()
    past = show(console)
    lines = text(console).splitlines()
    assert "\x1b" not in text(console)
    trained = [(segment, outcome) for segment, outcome in past if segment.trains]
    rows = [line for line in lines if line.startswith("roll-out")]
    assert len(rows) == len(trained)
    turns = [segment for segment, _ in past if not segment.trains]
    assert len([line for line in lines if line.startswith("decision")]) == len(turns)
    segment, outcome = trained[0]
    arc = f"{100 * outcome.scores['arc']:.1f}"
    assert rows[0].startswith(f"roll-out 1  epoch 0.27  step {segment.stop}/")
    assert f"loss {outcome.train_loss:.3f}  arc {arc} (best {arc})" in rows[0]
    assert lines[-1] == "done"


def test_a_roll_out_that_excludes_nothing_says_so() -> None:
    console = plain()
    past = show(console, budget=0.5, smooth=1)
    said = [line for line in text(console).splitlines() if line.startswith("decision")]
    quiet = [line for line in said if line.endswith("no sub-dataset is past its peak; nothing was excluded.")]
    engine = engine_for(NAMES)
    steps = [(s, engine.clock.steps(s.mixture, 0.5)) for s, _ in past if s.trains and s.start]
    assert len(quiet) == sum(segment.start % period == 0 for segment, period in steps) > 0
    assert len(said) - len(quiet) == len([segment for segment, _ in past if not segment.trains])


def test_the_best_score_is_that_of_the_path_that_survived() -> None:
    console = plain()
    past = show(console, names=("a",), smooth=1)
    rows = [line for line in text(console).splitlines() if line.startswith("roll-out")]
    curve = [outcome.scores["a"] for segment, outcome in past if segment.trains]
    assert rows[-1].endswith(f"a {100 * curve[-1]:.1f} (best {100 * max(curve):.1f})")


@pytest.mark.parametrize("again", [(), (1, 2)])
def test_a_resumed_run_shows_what_an_uninterrupted_one_shows(again: tuple[int, ...]) -> None:
    whole, resumed = plain(), plain()
    run = show(whole)
    cut = next(number for number, (segment, _) in enumerate(run, start=1) if segment.rollout == 2 and segment.trains)
    show(resumed, known=cut, again=again)
    lines = text(resumed).splitlines()
    assert [line for line in lines if not line.startswith("repeating training from segment 1:")] == text(
        whole
    ).splitlines()
    assert len(lines) - len(text(whole).splitlines()) == bool(again)


@pytest.mark.parametrize("known", [0, 9])
def test_the_pace_is_that_of_the_steps_taken_since_the_run_was_resumed(known: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30, color_system=None)
    show(console, names=("a",), known=known, segments=11)
    # The replayed segments took no time; they must not make the rest look quick.
    assert "step 14/20  loss 1.500  6.0 s left in this roll-out" in text(console)


@pytest.mark.parametrize("width", [40, 100])
def test_on_a_terminal_the_table_says_what_is_active_and_how_long_it_takes(width: int) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=30, color_system=None)
    past = show(console, segments=19)
    assert [segment.trains for segment, _ in past].count(False) == 1
    shown = " ".join(text(console).split())
    last = shown[shown.rindex("msft roll-out") :]
    for needed in ("replayed 10%", "active", "left in this roll-out", "msft roll-out 2 epoch 1.8 of 10", "step 9/68"):
        assert needed in last
    assert ("▁" in shown) == (width == 100)


def test_what_is_left_to_do_is_not_said_of_a_search_that_is_over() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100, height=30, color_system=None)
    show(console)
    shown = text(console)
    last = shown[shown.rindex("msft  roll-out") :]
    assert "arc" in last
    assert not any(words in last for words in ("left in this", "at most", "step "))


def test_names_cannot_steer_the_terminal() -> None:
    for terminal in (True, False):
        console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)
        show(console, names=("evil\x1b]0;owned\x07\n[bold]x", "b"), segments=3)
        assert "evil]0;owned[bold]x" in text(console)
        assert "\x07" not in text(console)


def test_a_display_may_end_before_the_search_begins() -> None:
    console = plain()
    with Display(console) as display:
        display.note("nothing to do")
    assert text(console) == "nothing to do\n"


@given(st.lists(st.floats(-1e3, 1e3) | st.sampled_from([math.nan, math.inf, -math.inf]), max_size=30))
def test_a_sparkline_has_one_bar_per_score_and_keeps_their_order(curve: list[float]) -> None:
    line = sparkline(curve)
    assert len(line) == len(curve)
    bars = [(score, BARS.index(bar)) for score, bar in zip(curve, line, strict=True) if math.isfinite(score)]
    for score, bar in bars:
        assert all(bar <= other for value, other in bars if score <= value)
