from __future__ import annotations

import io
import math
import re
import sys
from contextlib import suppress
from datetime import datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from run_folders import NAMES, engine_for

from msft.core.search import Search
from msft.core.vocabulary import Outcome, Segment
from msft.engine.progress import ScoreInfo, StepInfo
from msft.methods import METHODS
from msft.screen.display import Display
from msft.screen.view import BARS, sparkline
from msft.testing.fake import brief_of

DATED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")


def show(
    console: Console,
    names: tuple[str, ...] = NAMES,
    *,
    known: int = 0,
    again: tuple[int, ...] = (),
    segments: int = 10**6,
    seconds: float = 1.0,
    method: str = "msft",
    held: dict[str, int] | None = None,
    **fields: object,
) -> list[tuple[Segment, Outcome]]:
    """Run a search under a display as the trainer does; a step takes `seconds`.

    A resumed run knows the first so many outcomes, and may have to run some of those segments again. With `segments`,
    it is interrupted after so many.
    """
    engine = engine_for(names, held=held)
    brief = brief_of(engine, METHODS[method].Params(**fields))
    search = Search(METHODS[method], brief)
    clock = [0.0]
    run: list[tuple[Segment, Outcome]] = []
    with suppress(KeyboardInterrupt), shown_on(console, clock) as display:
        display.progress(ScoreInfo(tasks=names, done=1, total=2))
        display.begin(brief, method)
        while (segment := search.ask()) is not None:
            if len(run) == segments:
                raise KeyboardInterrupt
            number = search.number
            if number > known:
                display.segment(number, segment)
                work(display, segment, clock, seconds)
            outcome = engine.run(segment, number)
            if number > known:
                display.outcome(number, segment, outcome)
            run.append((segment, outcome))
            search.tell(outcome)
            if number == known:
                display.resumed(run, finished=search.ask() is None)
            for n in again if number == known else ():
                display.segment(n, run[n - 1][0])
                work(display, run[n - 1][0], clock, seconds)
        display.note("done")
    return run


@pytest.mark.parametrize("method", ["msft", "self_distil"])
def test_the_run_on_all_rows_shows_its_own_steps(method: str) -> None:
    console = plain()
    run = show(console, method=method, held=dict.fromkeys(NAMES, 5))
    again = [segment for segment, _ in run if segment.why == "refit" and segment.trains]
    ends = {segment.rollout: segment.stop for segment in again}
    lines = re.findall(r"roll-out (\d+) .* step (\d+)/(\d+)", text(console))[-len(again) :]
    assert [tuple(map(int, line)) for line in lines] == [(s.rollout, s.stop, ends[s.rollout]) for s in again]
    assert len(again) > len(ends), "else this tests nothing"


def shown_on(console: Console, clock: list[float], plan: str = "") -> Display:
    """A display whose clocks are `clock`, in seconds after 9 o'clock."""
    nine = datetime(2026, 5, 1, 9).timestamp()
    return Display(console, lambda: clock[0], plan=plan, clock=lambda: datetime.fromtimestamp(nine + clock[0]))


def work(display: Display, segment: Segment, clock: list[float], seconds: float = 1.0) -> None:
    for step in range(segment.start + 1, segment.stop + 1):
        info = StepInfo(
            rollout=segment.rollout, step=step, stop=segment.stop, loss=1.5, learning_rate=1e-5, tokens=9
        )  # fmt: skip
        clock[0] += seconds
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
    assert f"loss {outcome.train_loss:.3f}  search score: arc {arc}  " in rows[0], "it is the best itself"
    assert lines[-1] == "done"


def test_a_second_run_that_is_taught_says_what_taught_it() -> None:
    """Nothing was rolled back, and the first run did not know that it would teach."""
    console = plain()
    past = show(console, method="self_distil")
    (decided,) = [line for line in text(console).splitlines() if line.startswith("decision")]
    taught = next(segment for segment, _ in past if segment.teacher)
    end = max(segment.stop for segment, _ in past if segment.rollout < taught.rollout) / 26
    assert decided.endswith(f"Roll-out 1, epoch 0 to {end:g}: the first run (teacher).")


def test_a_log_file_gets_a_line_a_minute_on_what_runs() -> None:
    console = plain()
    past = show(console, names=("a", "b"), budget=2, seconds=7.0)
    dated = [line for line in text(console).splitlines() if DATED.match(line)]
    assert dated[0] == "2026-05-01 09:00:00  scoring the base model: 1/2"
    steps = sum(segment.stop - segment.start for segment, _ in past)
    # 60 s are over at the ninth step.
    assert dated[1].startswith("2026-05-01 09:01:03  roll-out 1  epoch ")
    assert re.search(
        r"epoch [\d.]+ of 10  step 9/\d+  loss 1\.500  [\w ]+ left in this roll-out"
        r"  learning rate 1e-05  1 tokens/s  at most \d+ min \d+ s left in the search$",
        dated[1],
    )
    assert len(dated) == 1 + steps // 9
    gaps = {(datetime.fromisoformat(b[:19]) - datetime.fromisoformat(a[:19])).seconds for a, b in pairwise(dated)}
    assert gaps == {63}


def test_scoring_says_how_far_it_is_and_how_long_it_takes() -> None:
    console, clock = plain(), [0.0]
    engine = engine_for(("a", "b"))
    brief = brief_of(engine, METHODS["sft"].Params())
    with shown_on(console, clock, "sft: a plan") as display:
        score(display, clock, brief.tasks, 200)
        display.begin(brief, "sft")
        segment = Search(METHODS["sft"], brief).ask()
        assert segment is not None
        display.segment(1, segment)
        score(display, clock, ("a",), 150)
        display.outcome(1, segment, engine.run(segment, 1))
        score(display, clock, ("a",), 150)
    said = [line.split("  ", 1)[1] for line in text(console).splitlines() if DATED.match(line)]
    assert said[:5] == [
        "sft: a plan; preparing data and model",
        "scoring the base model: 0/200",
        "scoring the base model: 60/200, 2 min 20 s left",
        "scoring the base model: 120/200, 1 min 20 s left",
        "scoring the base model: 180/200, 20 s left",
    ]
    assert said[5].startswith("roll-out 1  epoch 0 of ") and said[5].endswith("scoring a: 40/150, 1 min 50 s left")
    assert said[7].endswith("scoring the test split: 10/150, 2 min 20 s left")


def score(display: Display, clock: list[float], tasks: tuple[str, ...], items: int) -> None:
    """Each item takes a second."""
    for done in range(items + 1):
        display.progress(ScoreInfo(tasks=tasks, done=done, total=items))
        clock[0] += 1.0 if done < items else 0.0


def test_a_roll_out_that_excludes_nothing_says_so() -> None:
    console = plain()
    past = show(console, budget=0.5, smooth=1)
    said = [line for line in text(console).splitlines() if line.startswith("decision")]
    quiet = [line for line in said if line.endswith("no sub-dataset is past its peak; nothing was excluded.")]
    engine = engine_for(NAMES)
    steps = [(s, engine.clock.steps(s.mixture, 0.5)) for s, _ in past if s.trains and s.start]
    assert len(quiet) == sum(segment.start % period == 0 for segment, period in steps) > 0
    assert len(said) - len(quiet) == len([segment for segment, _ in past if not segment.trains])


def test_where_nothing_can_follow_the_roll_out_one_time_is_told() -> None:
    console = plain()
    show(console, names=("a", "b"), seconds=7.0, method="sft")
    moments = [line for line in text(console).splitlines() if DATED.match(line) and "step" in line]
    assert len(moments) > 5
    assert all(re.search(r"loss 1\.500  [\w ]+ s left  learning rate 1e-05  1 tokens/s$", line) for line in moments)


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
    lines, expected = ([line for line in text(c).splitlines() if not DATED.match(line)] for c in (resumed, whole))
    shown = [line for line in lines if not line.startswith("repeating training from segment 1:")]
    assert len(lines) - len(shown) == bool(again)
    # What was shown before it was interrupted is not shown again: one line says where it goes on.
    assert [shown[0], *expected[-len(shown) + 1 :]] == shown
    assert expected[0] == shown[0] and len(shown) < len(expected)
    (said,) = [DATED.sub("", line) for line in text(resumed).splitlines() if "continues" in line]
    last = next(line for line in reversed(expected[: len(expected) - len(shown) + 1]) if line.startswith("roll-out"))
    rollout, epoch = re.match(r"roll-out (\d+)  epoch ([\d.]+) ", last).groups()  # type: ignore[union-attr]
    recorded = f"{sum(bool(outcome.scores) for _, outcome in run[:cut])} recorded evaluations"
    assert said.startswith(f"continues at epoch {epoch} of roll-out {rollout}, after {recorded}; search score: ")


def test_a_finished_run_that_is_resumed_says_so() -> None:
    console = plain()
    run = show(plain(), names=("a",))
    show(console, names=("a",), known=len(run))
    count = sum(bool(outcome.scores) for _, outcome in run)
    said = [line for line in text(console).splitlines() if not DATED.match(line)][1:]
    assert said == [f"finished already, after {count} recorded evaluations; nothing new is trained", "done"]


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


@pytest.mark.parametrize(("quiet", "terminal"), [(True, True), (True, False), (False, False)])
def test_what_others_print_is_neither_lost_nor_moved(
    quiet: bool, terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    console = Console(file=io.StringIO(), force_terminal=True, quiet=quiet, width=60, color_system=None)
    with Display(console):
        print("mine")
    assert capsys.readouterr().out == "mine\n"
    assert "mine" not in text(console)


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
