"""A thread that changes the disk while training goes on (design 3.8)."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor


class Writer:
    """Does jobs in the order in which they came, one at a time, in a thread of its own.

    Once a job has failed, no later one is done: it might delete what the failed one was to replace. The failure is
    raised in whoever comes next. `executor`: makes what runs the jobs, of `concurrent.futures`.
    """

    def __init__(self, executor: Callable[..., Executor] = ThreadPoolExecutor) -> None:
        self._executor = executor
        self._thread: Executor | None = None
        self._jobs: deque[Future[None]] = deque()
        self._failure: BaseException | None = None
        self._stopped = False

    def submit(self, job: Callable[[], None]) -> None:
        """Has a job done in its turn. Raises what an earlier one failed with."""
        self.check()
        if self._thread is None:
            self._thread = self._executor(max_workers=1, thread_name_prefix="snapshots", initializer=_give_way)
        while self._jobs and self._jobs[0].done():
            self._jobs.popleft()
        self._jobs.append(self._thread.submit(self._do, job))

    def check(self) -> None:
        """Raises what a job failed with."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Waits until every job is done. Raises what one failed with."""
        while self._jobs:
            self._jobs[0].result()
            self._jobs.popleft()
        self.check()

    def stop(self) -> None:
        """Leaves all jobs behind the one that is being done."""
        self._stopped = True

    def close(self) -> None:
        """Ends the thread when every job is done."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _do(self, job: Callable[[], None]) -> None:
        if self._failure is not None or self._stopped:
            return
        try:
            job()
        except BaseException as failure:  # whatever it is, it belongs to the thread that trains
            self._failure = failure


def _give_way() -> None:
    """Has this thread run in the gaps that training leaves: where every core trains, a step waits for each one taken.

    Linux alone gives threads a niceness of their own. Who waits for this thread sleeps, and so leaves it a core.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
