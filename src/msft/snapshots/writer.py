"""A thread that changes the disk while training continues (design 3.8)."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor


class Writer:
    """Runs jobs one at a time, in the order of submission, in a background thread.

    After a failure no later job runs: it might delete what the failed one was to replace. The next call of a method
    raises the failure. `executor`: makes the executor of `concurrent.futures` that runs the jobs.
    """

    def __init__(self, executor: Callable[..., Executor] = ThreadPoolExecutor) -> None:
        self._executor = executor
        self._thread: Executor | None = None
        self._jobs: deque[Future[None]] = deque()
        self._failure: BaseException | None = None
        self._stopped = False

    def submit(self, job: Callable[[], None]) -> None:
        """Queues a job. Raises the failure of an earlier one."""
        self.check()
        if self._thread is None:
            self._thread = self._executor(max_workers=1, thread_name_prefix="snapshots", initializer=_give_way)
        while self._jobs and self._jobs[0].done():
            self._jobs.popleft()
        self._jobs.append(self._thread.submit(self._do, job))

    def check(self) -> None:
        """Raises the failure of a job, if there was one."""
        if self._failure is not None:
            raise self._failure

    def finish(self) -> None:
        """Waits for all jobs. Raises the failure of one."""
        while self._jobs:
            self._jobs[0].result()
            self._jobs.popleft()
        self.check()

    def stop(self) -> None:
        """Cancels all jobs after the one in progress."""
        self._stopped = True

    def close(self) -> None:
        """Waits for all jobs and ends the thread."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = None

    def _do(self, job: Callable[[], None]) -> None:
        if self._failure is not None or self._stopped:
            return
        try:
            job()
        except BaseException as failure:  # of any kind: raised later, in the thread that trains
            self._failure = failure


def _give_way() -> None:
    """Lowers this thread's priority (nice 19, Linux only), so that it does not take a core from training.

    Only Linux has a niceness per thread. A thread that waits for this one sleeps, and so leaves it a core.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
