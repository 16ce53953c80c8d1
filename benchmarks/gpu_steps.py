"""Contenders at one work, one after another in one process: `python gpu_steps.py JOB.json`, which gpu_parts.py starts.

Starting a process takes longer than the steps do. A line of JSON is written as each contender ends; the first one that
fails ends the process, and gpu_parts.py starts another for the rest.

Ours is measured by the moments at which the losses of the last warm step and of the last step are told, each once the
device has come to it. The snapshot at the segment's end comes after them, and is told as `segment_end_seconds`.
`replay_seconds` are those of each recorded pass by itself, run over and over: what a step takes beyond it are the
update and the host.
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
from msft.engine.static_step import StaticStepper
from msft.engine.torch_engine import TorchEngine
from msft.model.folder import ModelSource

REPLAYS = 10


def ours(work: Work, source: ModelSource, examples: list[Example], folder: Path) -> dict[str, Any]:
    """Seconds of a step; the losses that the engine told, and the mean of as many of the last as TRL logs together."""
    losses: dict[int, float] = {}
    moments: dict[int, float] = {}

    def stepped(info: StepInfo | ScoreInfo) -> None:
        if isinstance(info, StepInfo):
            losses[info.step], moments[info.step] = info.loss, time.perf_counter()

    began = time.perf_counter()
    engine = engine_of(work, source, examples, folder, stepped)
    start_up = time.perf_counter() - began
    segment = Segment(
        parent=ROOT, rollout=1, mixture=Mixture(tasks=(TASK,)), start=0, stop=work.steps, epoch=0.0, score=()
    )
    began = time.perf_counter()
    engine.run(segment, 1)
    wait(work)
    ended = time.perf_counter()
    timed = max(work.steps - work.warm, 1)
    step = (moments[work.steps] - moments.get(work.warm, began)) / timed
    told, every = [losses[number] for number in sorted(losses)], told_every(work)
    return {
        "seconds_per_step": step,
        "tokens_per_second": tokens_of(work, examples) / step,
        "segment_end_seconds": ended - moments[work.steps],
        "start_seconds": start_up,
        "warm_seconds": moments.get(work.warm, began) - began,
        "losses": told,
        "last_loss": sum(told[-every:]) / every if len(told) >= every else None,
        "said": engine.light,
        "replay_seconds": replayed(engine),
    }


def replayed(engine: TorchEngine) -> dict[str, float]:
    """Seconds of each recorded pass, by its size in tokens; none without graphs."""
    stepper, found = engine._stepper, {}
    if isinstance(stepper, StaticStepper):
        for place, graph in stepper._graphs.items():
            if graph is None or stepper.masters is None:
                continue
            torch.cuda.synchronize()
            began = time.perf_counter()
            for _ in range(REPLAYS):
                stepper.masters.detach()  # the pass of a step's first micro-batch
                graph()
            torch.cuda.synchronize()
            found[str(stepper._filled[place].shape.tokens)] = (time.perf_counter() - began) / REPLAYS
    return found


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
