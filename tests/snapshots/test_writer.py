from __future__ import annotations

import os
import sys
import threading

import pytest

from msft.snapshots.writer import Writer


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives threads a niceness of their own")
def test_the_thread_gives_way_to_training_and_training_to_nobody() -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before, found = niceness(), list[int]()
    writer = Writer()
    writer.submit(lambda: found.append(niceness()))
    writer.finish()
    writer.close()
    assert found == [19]
    assert niceness() == before


def test_after_a_failure_no_later_job_is_done() -> None:
    writer, done = Writer(), list[str]()

    def fail() -> None:
        raise OSError("full")

    writer.submit(fail)
    with pytest.raises(OSError, match="full"):
        writer.finish()
    with pytest.raises(OSError, match="full"):
        writer.submit(lambda: done.append("later"))
    writer.close()
    assert done == []
