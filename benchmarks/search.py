"""A whole mSFT search, evaluations and roll-backs included, against TRL's plain training of as many optimizer steps.

    python benchmarks/search.py --data DATA --out search
    python benchmarks/search.py --data DATA --out search --minutes 9      # in pieces: the same command goes on
    python benchmarks/search.py --data DATA --out search --skip trl       # the search and where its time went

DATA holds JSON lines files (prompt, completion, split; choices where there are some). The search is `msft train` in a
process of its own, once, from its start to its exported model: its folder, OUT/run, is an ordinary run and is resumed.
TRL's `SFTTrainer` takes the first steps of the search, the same global batches, in its settings of trl_steps.py, in
turn; its time is the median seconds of a step, times the optimizer steps of the search, nothing added for start-up,
scoring or saving. OUT/search.json holds all of it; a run that it holds is not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import Contender, Results, Work, contenders, has_trl, machine, model_named, table, take_turns

from msft.core.vocabulary import Segment
from msft.record.run_folder import RunFolder
from msft.report.seconds import seconds_of
from msft.report.story import Story, read_story

SETS = "arc_easy,boolq,commonsense_qa,gsm8k,openbookqa,sciq"
CONTENDERS = "padded:8,rebalanced:8,grouped:8,packed:1"
TARGET = 0.5
"""The search's seconds, at most, as a multiple of TRL's."""
SHARES = {"eval": 0.20, "else": 0.05}
"""Of the search's seconds, at most."""


def configuration(given: argparse.Namespace, work: Work, file: Path) -> None:
    """Writes the search's configuration. JSON is YAML."""
    datasets = []
    for name in work.tasks:
        path = Path(work.data).resolve() / f"{name}.jsonl"
        with path.open(encoding="utf-8") as lines:
            choices = json.loads(next(lines)).get("choices") is not None
        datasets.append(
            {
                "id": name,
                "path": str(path),
                "where": {"split": "train"},
                "max_samples": work.per_task,
                "columns": {"prompt": "prompt", "completion": "completion"}
                | ({"choices": "choices", "answer": "answer"} if choices else {}),
                "template": {"prompt": "{prompt}", "completion": "{completion}"},
                "validation": {"where": {"split": "validation"}, "max_samples": given.validation},
                "scorer": {"name": "choice", "of": "letter"} if choices else {"name": "loss"},
            }
        )
    content = {
        "model": {"name_or_path": str(Path(work.model).resolve()), "precision": "auto" if work.bf16 else "fp32"},
        "method": {
            "name": "msft", "max_epochs": given.horizon, "budget": given.budget, "eval_every": given.eval_every,
            "smooth": given.smooth,
        },
        "datasets": datasets,
        "data": {"max_length": work.max_length, "leaks": "warn", "seed": work.seed},
        "training": {"batch_size": work.batch_size, "learning_rate": work.learning_rate},
        "output": str((file.parent / "run").resolve()),
    }  # fmt: skip
    file.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def search(config: Path, work: Work, minutes: float | None) -> bool:
    """Runs the search, or goes on with it; whether it came to its end. Stopped between two steps when time is up."""
    run = RunFolder(config.parent / "run")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    if work.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    if work.threads:
        environment["OMP_NUM_THREADS"] = str(work.threads)
    command = [sys.executable, "-m", "msft", "train", str(config), *(["--resume"] if run.exists else [])]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        process.wait(60 * minutes if minutes else None)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.send_signal(signal.SIGTERM)
        process.wait()
        return False
    if process.returncode:
        raise SystemExit(f"the search failed ({process.returncode}); its command: {' '.join(command)}")
    return True


def measured(story: Story) -> dict[str, Any]:
    """What the search took, and what of its time went where."""
    spent = seconds_of(story)
    trained: list[Segment] = [segment for segment, _ in story.segments if segment.trains]
    excluding = [rollout for rollout in story.rollouts if rollout.excluded]
    return {
        "seconds": spent.as_json(),
        "rows": spent.rows(),
        "sittings": sum(entry.get("kind") == "start" for entry in story.timings),
        "steps": sum(segment.stop - segment.start for segment in trained),
        "train_tokens": story.tokens.train,
        "eval_tokens": story.tokens.eval,
        "ticks": len(trained),
        "rollouts": len(story.rollouts),
        "rollbacks": sum(rollout.rolled_back > 0 for rollout in excluding),
        "left": {task: rollout.went_on.epoch for rollout in excluding for task in rollout.excluded},
    }


def compared(found: dict[str, Any], results: Results) -> dict[str, dict[str, float]]:
    """Each of TRL's settings: its median seconds per step, what the search's steps would take it, and the ratio."""
    lines = {}
    for label, runs in results.content["runs"].items():
        step = statistics.median(second for run in runs for second in run["seconds"])
        total = step * found["steps"]
        lines[label] = {"runs": len(runs), "step": step, "total": total, "ratio": found["seconds"]["total"] / total}
    return lines


def show(found: dict[str, Any], peers: dict[str, dict[str, float]]) -> None:
    seconds = found["seconds"]
    sittings = f", in {found['sittings']} sittings, each of which loads the model anew" if found["sittings"] > 1 else ""
    print(
        f"\nThe search: {seconds['total']:,.1f} s{sittings}; {found['steps']} optimizer steps, {found['ticks']} ticks, "
        f"{found['rollouts']} roll-outs, {found['rollbacks']} roll-backs"
    )
    print("\n" + table(("where it went", "of which", "time", "share"), found["rows"]))
    if peers:
        lines = [(label, one["runs"], one["step"], one["total"], one["ratio"]) for label, one in peers.items()]
        head = ("TRL", "runs", "s/step", f"{found['steps']} steps, s", "the search takes ... of that")
        print("\n" + table(head, lines))
    print()
    for line in judged(found, peers):
        print(f"{line['what']}: {line['measured']:.3g} (target {line['target']}): {'met' if line['met'] else 'MISSED'}")


def judged(found: dict[str, Any], peers: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """Each target with what was measured, against the fastest of TRL's settings."""
    lines = [
        {"what": f"share of the search: {name}", "measured": found["seconds"]["shares"][name], "target": target}
        for name, target in SHARES.items()
    ]
    if peers:
        label, best = max(peers.items(), key=lambda peer: peer[1]["ratio"])
        lines.append({"what": f"the search / {label}'s steps alone", "measured": best["ratio"], "target": TARGET})
    return [line | {"met": line["measured"] <= line["target"]} for line in lines]


def options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="a folder of JSON lines files (prompt, completion, split)")
    parser.add_argument("--out", type=Path, required=True, help="a folder; an unfinished one is gone on with")
    parser.add_argument("--sets", default=SETS, help="names of the files (default: %(default)s)")
    parser.add_argument("--model", help="a folder (default: the quickstart's model)")
    parser.add_argument("--train", type=int, default=200, help="training rows of each file (default: %(default)s)")
    parser.add_argument("--validation", type=int, default=40, help="validation items of each (default: %(default)s)")
    parser.add_argument("--horizon", type=float, default=3, help="epochs (default: %(default)s)")
    parser.add_argument("--budget", type=float, default=2, help="epochs of a roll-out (default: %(default)s)")
    parser.add_argument("--eval-every", type=float, default=0.25, help="epochs (default: %(default)s)")
    parser.add_argument("--smooth", type=int, default=1, help="ticks under which a peak is read (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64, help="examples of a step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="constant (default: %(default)s)")
    parser.add_argument("--max-length", type=int, default=1024, help="tokens of an example (default: %(default)s)")
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="(default: %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: %(default)s)")
    parser.add_argument("--threads", type=int, help="of torch on the CPU (default: its own choice)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps of a run of TRL (default: %(default)s)")
    parser.add_argument("--warm", type=int, default=1, help="steps before them (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each of its settings (default: %(default)s)")
    parser.add_argument("--only", default=CONTENDERS, help="its settings (default: %(default)s)")
    parser.add_argument("--packed-length", type=int, default=512, help="tokens of a packed row (default: %(default)s)")
    parser.add_argument("--skip", choices=("trl", "search"), help="measure the other part only")
    parser.add_argument("--minutes", type=float, help="stop after so many; the same command goes on")
    return parser


def work_of(given: argparse.Namespace) -> Work:
    return Work(
        model=model_named(given.model),
        data=given.data,
        tasks=tuple(given.sets.split(",")),
        per_task=given.train,
        steps=given.warm + given.steps,
        warm=given.warm,
        batch_size=given.batch_size,
        learning_rate=given.learning_rate,
        max_length=given.max_length,
        device=given.device,
        threads=given.threads,
        bf16=given.precision == "bf16",
        keep=False,
    )


def main() -> None:
    given = options().parse_args()
    ends = time.perf_counter() + 60 * (given.minutes or math.inf)
    work = work_of(given)
    given.out.mkdir(parents=True, exist_ok=True)
    apart = {"data", "out", "only", "skip", "minutes", "repeats", "model"}
    setup = {name: value for name, value in vars(given).items() if name not in apart}
    setup |= {"model": Path(work.model).name, "data": Path(work.data).name}
    results = Results(given.out / "search.json", setup, machine(work))
    config = given.out / "search.yaml"
    configuration(given, work, config)
    if given.skip != "search" and "search" not in results.content and search(config, work, given.minutes):
        results.write(search=measured(read_story(RunFolder(given.out / "run"))))
    done = "search" in results.content or given.skip == "search"
    if done and given.skip != "trl":
        if has_trl():
            chosen: list[Contender] = contenders(given.only, given.packed_length)
            until = ends if given.minutes else None
            job = {"config": str(config)}
            done = take_turns(results, chosen, work, given.repeats, ends=until, script="search_steps.py", **job)
        else:
            print("TRL is skipped: trl and datasets are not installed here")
    if (found := results.content.get("search")) is not None:
        peers = compared(found, results)
        results.write(peers=peers, targets=judged(found, peers))
        show(found, peers)
    if not done:
        print("\nNot all of it was measured: the same command goes on")


if __name__ == "__main__":
    main()
