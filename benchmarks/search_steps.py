"""One of TRL's settings at the first steps of a search: `python search_steps.py JOB.json`, for search.py.

The global batches are those that the search trains on: the same examples, tokenised once, in the same order.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
import trl_steps
from common import Contender, Work, peak_memory

from msft.config.reader import load
from msft.core.vocabulary import Mixture
from msft.data.examples import Example
from msft.data.order import Cursor, Order
from msft.run.job import Job


def batches_of(job: Job, steps: int) -> list[list[Example]]:
    """The first global batches of the search's first roll-out."""
    sizes = {task: part.size for task, part in job.data.items()}
    pools = {task: len(part.train) for task, part in job.data.items()}
    order, cursor = Order(job.config.training_seed, sizes, job.config.training.batch_size, pools), Cursor()
    batches = []
    for _ in range(steps):
        batch, cursor = order.batch(1, Mixture(tasks=tuple(sizes)), cursor)
        batches.append([job.data[task].train[index] for task, index in batch])
    return batches


def main() -> None:
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    work = Work(**{**given["work"], "tasks": tuple(given["work"]["tasks"])})
    contender, folder = Contender(**given["contender"]), Path(given["folder"])
    if work.threads:
        torch.set_num_threads(work.threads)
    job = Job.prepare(load(Path(given["config"])))
    measured = trl_steps.train(work, contender, job.source, batches_of(job, work.steps), folder)
    measured["warm_seconds"], measured["seconds"] = measured["seconds"][: work.warm], measured["seconds"][work.warm :]
    measured["peak_memory"] = peak_memory()
    Path(given["result"]).write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
