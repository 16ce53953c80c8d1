from __future__ import annotations

import math
import threading
import time

import pytest

from msft.system.stopwatch import Stopwatch, spent


class Clock:
    """Goes as far as it is told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@spent("snapshot.durable")
def save(clock: Clock) -> None:
    clock.now += 7.0


def test_every_moment_belongs_to_the_innermost_kind_and_to_no_other() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    with stopwatch.running():
        clock.now += 1.0
        with spent("eval.ticks"):
            clock.now += 2.0
            with spent("record"):
                clock.now += 4.0
            clock.now += 8.0
        save(clock)
    assert stopwatch.drain() == {"other": 1.0, "eval.ticks": 10.0, "record": 4.0, "snapshot.durable": 7.0}


def test_a_kind_that_is_open_when_the_watch_is_read_goes_on_after_it() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    with stopwatch.running(), spent("probe"):
        clock.now += 1.0
        assert stopwatch.drain() == {"other": 0.0, "probe": 1.0}
        clock.now += 2.0
    assert stopwatch.drain() == {"probe": 2.0, "other": 0.0}


def test_an_error_closes_the_kind_that_it_left() -> None:
    clock = Clock()
    stopwatch = Stopwatch(clock)
    with stopwatch.running():
        with pytest.raises(KeyError), spent("probe"):
            clock.now += 1.0
            raise KeyError
        clock.now += 2.0
    assert stopwatch.drain() == {"other": 2.0, "probe": 1.0}


def test_the_sum_is_the_time_that_passed() -> None:
    began = time.perf_counter()
    stopwatch = Stopwatch()
    with stopwatch.running():
        for _ in range(100):
            with spent("train.compute"), spent("train.input"):
                pass
    total, passed = math.fsum(stopwatch.drain().values()), time.perf_counter() - began
    assert 0 <= passed - total < 0.05


def test_what_another_thread_does_is_not_counted_and_an_inner_watch_takes_over() -> None:
    clock = Clock()
    stopwatch, inner = Stopwatch(clock), Stopwatch(clock)
    with stopwatch.running():
        thread = threading.Thread(target=save, args=(clock,))
        thread.start()
        thread.join()
        assert stopwatch.drain() == {"other": 7.0}
        with inner.running():
            save(clock)
        assert inner.drain() == {"other": 7.0, "snapshot.durable": 7.0}
        save(clock)
    assert stopwatch.drain() == {"other": 7.0, "snapshot.durable": 7.0}


def test_without_a_watch_nothing_is_measured() -> None:
    with spent("probe"):
        save(Clock())
