"""Contenders at one work, one after another in one process: `python gpu_steps.py JOB.json`, which gpu_parts.py starts.

Starting a process takes longer than the steps do. A line of JSON is written as each contender ends; the first one that
fails ends the process, and gpu_parts.py starts another for the rest.

Ours is measured without a look at single steps, since a GPU runs behind: two segments of different lengths, and the
difference of their seconds over the difference of their steps. What both pay alike, above all the snapshot at their
end, is left out, and told as `segment_end_seconds`.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import products
import torch
from common import Contender, Work, peak_memory
from contenders import engine_of
from prepared import TASK, batches_of, examples_of, source_of, told_every

from msft.core.vocabulary import ROOT, Mixture, Segment
from msft.data.examples import Example
from msft.engine.progress import ScoreInfo, StepInfo
from msft.model.open import ModelSource


def ours(work: Work, source: ModelSource, examples: list[Example], folder: Path) -> dict[str, Any]:
    """Seconds of a step; the losses that the engine told, and the mean of as many of the last as TRL logs together."""
    losses: dict[int, float] = {}

    def stepped(info: StepInfo | ScoreInfo) -> None:
        if isinstance(info, StepInfo):
            losses[info.step] = info.loss

    began = time.perf_counter()
    engine = engine_of(work, source, examples, folder, stepped)
    start_up = time.perf_counter() - began
    short = max(1, (work.steps - work.warm) // 8)
    seconds, parent, start = [], ROOT, 0
    for number, stop in enumerate((work.warm, work.warm + short, work.steps), 1):
        segment = Segment(
            parent=parent, rollout=1, mixture=Mixture(tasks=(TASK,)), start=start, stop=stop, epoch=0.0, score=()
        )
        wait(work)
        began = time.perf_counter()
        engine.run(segment, number)
        wait(work)
        seconds.append(time.perf_counter() - began)
        parent, start = number, stop
    _, few, many = seconds
    longer = work.steps - work.warm - 2 * short
    step = (many - few) / longer if longer > 0 else 0.0
    if step <= 0:  # a dry run of a step or two, lost in noise
        step = (few + many) / (work.steps - work.warm)
    told, every = [losses[number] for number in sorted(losses)], told_every(work)
    return {
        "seconds_per_step": step,
        "tokens_per_second": tokens_of(work, examples) / step,
        "segment_end_seconds": max(0.0, few - short * step),
        "start_seconds": start_up,
        "warm_seconds": seconds[0],
        "losses": told,
        "last_loss": sum(told[-every:]) / every if len(told) >= every else None,
    }


def theirs(
    work: Work, contender: Contender, source: ModelSource, examples: list[Example], folder: Path
) -> dict[str, Any]:
    """Seconds of a step, real tokens among them, and the losses that TRL logs."""
    import trl_steps

    began = time.perf_counter()
    found = trl_steps.train(work, contender, source, batches_of(work, examples), folder)
    timed = found["seconds"][work.warm :]
    every = work.steps // len(found["tokens"])
    if contender.name.startswith("packed"):
        tokens = sum(found["tokens"]) / (every * len(found["tokens"]))
    else:
        tokens = tokens_of(work, examples)
    return {
        "seconds_per_step": sum(timed) / len(timed),
        "tokens_per_second": tokens / (sum(timed) / len(timed)),
        "start_seconds": time.perf_counter() - began - sum(found["seconds"]),
        "warm_seconds": sum(found["seconds"][: work.warm]),
        "losses": found["losses"],
        "last_loss": found["losses"][-1],
        "steps_of_a_loss": every,
    }


def tokens_of(work: Work, examples: list[Example]) -> float:
    """Real tokens of a timed step, in the mean."""
    timed = batches_of(work, examples)[work.warm :]
    return sum(len(example) for batch in timed for example in batch) / len(timed)


def wait(work: Work) -> None:
    if work.device == "cuda":
        torch.cuda.synchronize()


def measure(work: Work, contender: Contender, models: Path, folder: Path) -> dict[str, Any]:
    source = source_of(work, models)
    examples = examples_of(work, source)
    gc.collect()
    if work.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    if contender.name == "products":
        return products.measure(work, source)
    one = ours(work, source, examples, folder) if contender.name == "ours" else theirs(
        work, contender, source, examples, folder
    )  # fmt: skip
    one["peak_memory"] = peak_memory()
    if work.device == "cuda":
        one["max_memory_allocated"] = torch.cuda.max_memory_allocated()
        one["max_memory_reserved"] = torch.cuda.max_memory_reserved()
    return one


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    work = Work(**{**job["work"], "tasks": tuple(job["work"]["tasks"])})
    if work.threads:
        torch.set_num_threads(work.threads)
    with Path(job["result"]).open("a", encoding="utf-8") as lines:
        for number, content in enumerate(job["contenders"]):
            contender, folder = Contender(**content), Path(job["folder"]) / f"contender{number}"
            folder.mkdir(parents=True)
            began = time.perf_counter()
            failed = False
            try:
                told = measure(work, contender, Path(job["models"]), folder)
            except Exception as error:
                failed, told = True, {"failed": f"{type(error).__name__}: {str(error).strip()[:400]}"}
            told |= {"label": contender.label, "wall_seconds": time.perf_counter() - began}
            print(json.dumps(told), file=lines, flush=True)
            if failed:
                sys.exit(1)


if __name__ == "__main__":
    main()
