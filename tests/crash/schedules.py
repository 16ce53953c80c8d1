"""When the thread that writes snapshots gets its turn: the two extremes, each the same every time.

They stand in for the standard library's executor. Whatever a real thread does lies between them, but for operations of
both threads that alternate; those are what `Overtaken` is for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

from stored_runs import Kill

from msft.system.files import Operation


class AtOnce(Executor):
    """Every job is done before training goes on."""

    def __init__(self, **of_the_thread: Any) -> None: ...

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(call(*arguments, **keywords))
        return done


class _Waiting(Future[Any]):
    def __init__(self, executor: AtLast) -> None:
        super().__init__()
        self.executor = executor

    def result(self, timeout: float | None = None) -> Any:
        while not self.done():
            self.executor.next()
        return super().result()


class AtLast(Executor):
    """No job is done before somebody waits for it."""

    def __init__(self, **of_the_thread: Any) -> None:
        self.waiting: deque[tuple[_Waiting, Callable[[], Any]]] = deque()

    def submit(self, call: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        future = _Waiting(self)
        self.waiting.append((future, lambda: call(*arguments, **keywords)))
        return future

    def next(self) -> None:
        future, call = self.waiting.popleft()
        future.set_result(call())

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        while self.waiting:
            self.next()


SCHEDULES: dict[str, type[Executor]] = {"at once": AtOnce, "at last": AtLast}


class Overtaken:
    """Kills the process at operation number `index` of the writing thread, when training has gone on by `ahead`.

    Training that waits for the thread cannot go on: after `patience` seconds it is killed where it stands.
    """

    def __init__(self, index: int, ahead: int, patience: float) -> None:
        self.index, self.ahead, self.patience = index, ahead, patience
        self.dead = False
        self.met = False
        """Whether the thread came to that operation."""
        self.overtaken = 0
        """Operations of training since the thread's last one before."""
        self._written = 0
        self._moved = threading.Condition()

    def __call__(self, operation: Operation) -> None:
        if operation.name == "loop.run" and not self.met:
            time.sleep(0.02)  # a model that costs nothing would be trained before the thread has begun
        with self._moved:
            if self.dead:
                raise Kill
            if threading.current_thread() is threading.main_thread():
                self.overtaken += 1
                self._moved.notify()
                return
            if self._written == self.index:
                self.met = True
                self._moved.wait_for(lambda: self.overtaken >= self.ahead, timeout=self.patience)
                self.dead = True
                raise Kill
            self._written += 1
            self.overtaken = 0
