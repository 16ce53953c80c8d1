"""The soft targets that a teacher gives the training examples: computed once, before its first segment (design 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from msft.core.vocabulary import Segment, Task, Teacher
from msft.data.examples import TaskData
from msft.engine.live_state import LiveState
from msft.engine.progress import ScoreInfo
from msft.engine.step import Stepper
from msft.forward.soft_targets import SoftTargets, soft_targets
from msft.system.stopwatch import spent

READS = "the training examples with the teacher"


class Teaching:
    """What the last teacher predicts, by sub-dataset and example. No snapshot holds it, as the teacher is one."""

    def __init__(self, data: Mapping[Task, TaskData]) -> None:
        self._data = data
        self._teacher: Teacher | None = None
        self._known: dict[Task, list[SoftTargets]] = {}

    def ask(
        self,
        segment: Segment,
        live: LiveState,
        stepper: Stepper,
        evaluated: Callable[[], AbstractContextManager[None]],
        tell: Callable[[ScoreInfo], None],
    ) -> int:
        """Lets the segment's teacher, if it has one, read the examples that it has not read; it is then the live state.

        Returns the tokens of all examples where the segment begins a roll-out, else 0: what a resumed run reads again
        is not counted again. `evaluated`: context in which the model has the weights that are evaluated.
        """
        teacher, tasks = segment.teacher, segment.mixture.tasks
        if teacher is None:
            return 0
        if teacher != self._teacher:
            self._teacher, self._known = teacher, {}
        if unknown := tuple(task for task in tasks if task not in self._known):
            live.become(teacher.snapshot)
            with spent("probe"), evaluated():
                self._read(teacher, unknown, stepper, tell)
        return 0 if segment.start else sum(len(example) for task in tasks for example in self._data[task].train)

    def _read(
        self, teacher: Teacher, tasks: tuple[Task, ...], stepper: Stepper, tell: Callable[[ScoreInfo], None]
    ) -> None:
        total, before = sum(len(self._data[task].train) for task in tasks), 0

        def progress(done: int) -> None:
            tell(ScoreInfo(tasks=tasks, done=before + done, total=total, what=READS))

        for task in tasks:  # each by itself, so that the rounding does not depend on which others are read with it
            examples = self._data[task].train
            self._known[task] = soft_targets(
                stepper.model, examples, stepper.runtime, share=teacher.share, top=teacher.top, progress=progress
            )
            before += len(examples)

    def of(self, segment: Segment, batch: Sequence[tuple[Task, int]]) -> Sequence[SoftTargets]:
        """The targets of these examples (sub-dataset, index); empty without a teacher."""
        return () if segment.teacher is None else [self._known[task][index] for task, index in batch]
