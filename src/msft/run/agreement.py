"""Whether the processes of a run still do the same, checked at each record."""

from __future__ import annotations

from collections.abc import Callable

from msft.core.errors import RunError, complaint
from msft.core.vocabulary import Outcome, Segment
from msft.core.wire import outcome_to_json, segment_to_json
from msft.engine.parallel import Processes
from msft.record.journal import canonical
from msft.record.run_folder import RunFolder


def check_agreement(
    processes: Processes,
    folder: RunFolder,
    number: int,
    segment: Segment,
    outcome: Outcome,
    replicated: Callable[[], int],
) -> None:
    """Raises RunError, in all processes, unless all have decided, measured and trained the same.

    `replicated`: a checksum of the weights that all must hold alike.
    """
    if processes.world == 1:
        return
    own = {
        "decided": canonical(segment_to_json(segment)),
        "measured": canonical(outcome_to_json(outcome)),
        "trained": str(replicated()),
    }
    every = processes.of_all(own)
    for rank, other in enumerate(every):
        for what, found in other.items():
            if found != every[0][what]:
                told = (
                    f"processes 0 and {rank} have {what} differently in segment {number}: {every[0][what]} and {found}"
                )
                fix = (
                    "check that all processes see the same files and run the same versions, then continue with --resume"
                )
                raise RunError(complaint(told, fix, file=folder.path))
