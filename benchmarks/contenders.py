"""One contender at one work, in a process of its own: `python contenders.py JOB.json`, which `common.run_child` starts.

Ours is the engine as a search drives it: one segment of so many steps, with the snapshot at its end.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from common import Contender, Work, peak_memory
from prepared import TASK, batches_of, examples_of, source_of

from msft.core.vocabulary import ROOT, Mixture, Segment
from msft.data.examples import Example, Measure, TaskData
from msft.engine.progress import ScoreInfo, StepInfo
from msft.engine.settings import EngineSettings
from msft.engine.torch_engine import OnStep, TorchEngine
from msft.model.folder import ModelSource
from msft.model.memory import SNAPSHOTS, card_memory
from msft.model.open import OpenModel
from msft.snapshots.store import Store

SETTINGS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours+mixed": {"precision": "mixed"},
    "ours+compiled": {"precision": "mixed", "torch_compile": True},
}
"""What a contender of ours sets beside the work."""
ROWS = 20
"""Lines of a profile."""


def ours(
    work: Work,
    source: ModelSource,
    examples: list[Example],
    folder: Path,
    profile: Path | None = None,
    name: str = "ours",
) -> dict[str, Any]:
    """Seconds, losses and real tokens of each step; with `profile`, torch.profiler's table of the timed ones."""
    found: dict[str, list[Any]] = {"seconds": [], "losses": [], "tokens": []}
    last = time.perf_counter()
    peak = 0
    profiler = torch.profiler.profile(record_shapes=False) if profile else None

    def stepped(info: StepInfo | ScoreInfo) -> None:
        nonlocal last, peak
        if not isinstance(info, StepInfo):
            return
        if work.device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        for name, value in (("seconds", now - last), ("losses", info.loss), ("tokens", info.tokens)):
            found[name].append(value)
        peak = peak_memory()
        if profiler is not None and info.step == max(1, work.warm):
            profiler.start()
        if profiler is not None and info.step == work.steps:
            profiler.stop()
        last = time.perf_counter()

    engine = engine_of(work, source, examples, folder, stepped, SETTINGS[name])
    last = time.perf_counter()
    segment = Segment(
        parent=ROOT, rollout=1, mixture=Mixture(tasks=(TASK,)), start=0, stop=work.steps, epoch=0.0, score=()
    )
    engine.run(segment, 1)
    if profiler is not None and profile is not None:
        key = "self_cuda_time_total" if work.device == "cuda" else "self_cpu_time_total"
        profile.write_text(profiler.key_averages().table(sort_by=key, row_limit=ROWS) + "\n", encoding="utf-8")
    return {**found, "peak_steps": peak}


def engine_of(
    work: Work,
    source: ModelSource,
    examples: list[Example],
    folder: Path,
    on_step: OnStep | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> TorchEngine:
    """The engine on one sub-dataset, its snapshots on disk where they are to be kept. `more`: settings."""
    measure = Measure(name="loss")
    data = TaskData(task=TASK, train=examples, validation=[], test=[], measure=measure, fingerprint=TASK)
    settings = EngineSettings(
        seed=work.seed,
        batch_size=work.batch_size,
        horizon=math.inf,
        learning_rate=work.learning_rate,
        precision=("mixed" if work.device == "cuda" else "autocast") if work.bf16 else "fp32",
        durable="tick" if work.keep else "rollout",
    )
    on_card = int(SNAPSHOTS * card_memory(torch.device("cuda", 0))) if work.device == "cuda" else 0
    store = Store(folder / "snapshots", memory_bytes=0 if work.keep else sys.maxsize, gpu_bytes=on_card)
    return TorchEngine(OpenModel.open(source), {TASK: data}, replace(settings, **more), store, on_step=on_step)


def main() -> None:
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    work = Work(**{**job["work"], "tasks": tuple(job["work"]["tasks"])})
    contender, folder = Contender(**job["contender"]), Path(job["folder"])
    if work.threads:
        torch.set_num_threads(work.threads)
    source = source_of(work, folder)
    examples = examples_of(work, source)
    if contender.is_ours:
        profile = Path(job["profile"]) if job.get("profile") else None
        measured = ours(work, source, examples, folder, profile, contender.name)
    else:
        import trl_steps

        measured = trl_steps.train(work, contender, source, batches_of(work, examples), folder)
    measured["warm_seconds"], measured["seconds"] = measured["seconds"][: work.warm], measured["seconds"][work.warm :]
    measured["peak_memory"] = peak_memory()
    measured["peak_device"] = torch.cuda.max_memory_allocated() if work.device == "cuda" else None
    Path(job["result"]).write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main()
