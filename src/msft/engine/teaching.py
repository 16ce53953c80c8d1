"""The soft targets that teachers give the training examples: computed where their roll-out begins (design 3.3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager

from msft.core.vocabulary import Segment, Task, Teacher
from msft.data.examples import Example, TaskData
from msft.engine.live_state import LiveState
from msft.engine.progress import ScoreInfo
from msft.engine.step import Stepper
from msft.forward.soft_targets import SoftTargets, soft_targets
from msft.system.stopwatch import spent

READS = "the training examples with the teacher"


class Teaching:
    """What the last teachers predict, by sub-dataset and example. No snapshot holds it, as the teachers are some."""

    def __init__(self, data: Mapping[Task, TaskData]) -> None:
        self._data = data
        self._asked: tuple[Teacher, bool] | None = None
        """Whose predictions are known, for the sub-datasets of the roll-out, and whether of the held-out rows too."""
        self._known: dict[Task, list[SoftTargets]] = {}

    def ask(
        self,
        segment: Segment,
        live: LiveState,
        stepper: Stepper,
        evaluated: Callable[[], AbstractContextManager[None]],
        tell: Callable[[ScoreInfo], None],
    ) -> int:
        """Computes the targets of a segment with a teacher, which becomes the live state, where a roll-out begins or
        they are not known because the run was resumed.

        Returns the tokens to count: those of all examples where a roll-out begins, else 0, as they were counted there.
        `evaluated`: context in which the model has the weights that are evaluated.
        """
        teacher, tasks, whole = segment.teacher, segment.mixture.tasks, segment.mixture.whole
        begins = segment.start == 0
        if teacher is None or (self._asked == (teacher, whole) and not begins):
            return 0
        self._asked = None
        self._known.clear()
        examples = {task: self._data[task].examples(whole=whole) for task in tasks}
        of = teacher.of(tasks)
        for snapshot in sorted(set(of.values())):
            live.become(snapshot)
            with spent("probe"), evaluated():
                for task in (task for task in tasks if of[task] == snapshot):
                    self._known[task] = self._read(teacher, task, examples, stepper, tell)
        self._asked = teacher, whole
        return sum(len(example) for of_task in examples.values() for example in of_task) if begins else 0

    def _read(
        self,
        teacher: Teacher,
        task: Task,
        examples: Mapping[Task, Sequence[Example]],
        stepper: Stepper,
        tell: Callable[[ScoreInfo], None],
    ) -> list[SoftTargets]:
        """The targets of one of these sub-datasets, by the model as it is."""
        before, total = sum(map(len, self._known.values())), sum(map(len, examples.values()))

        def progress(done: int) -> None:
            tell(ScoreInfo(tasks=tuple(examples), done=before + done, total=total, what=READS))

        return soft_targets(
            stepper.model, examples[task], stepper.runtime, share=teacher.share, top=teacher.top, progress=progress
        )

    def of(self, segment: Segment, batch: Sequence[tuple[Task, int]]) -> Sequence[SoftTargets]:
        """The targets of these examples (sub-dataset, index); empty without a teacher."""
        return () if segment.teacher is None else [self._known[task][index] for task, index in batch]
