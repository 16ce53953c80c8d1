"""How fast, and in how much memory, a million rows are read, checked, tokenised, and opened again from the cache.

    python benchmarks/rows.py [--rows 1000000] [--folder DIR]

Makes JSON lines of 200 bytes each, then starts twice in a fresh process: the first start fills the cache, the second
reads it. Prints seconds, rows/s and the peak resident memory of each, with what of it is the process's own: pages of
memory-mapped files count as resident, but the system takes them back when it needs them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HELD_OUT = 1000
WORDS = 4000
BYTES = 200


def write_rows(file: Path, count: int) -> None:
    """Rows of `BYTES` bytes, line feed included, no two the same."""
    draw = random.Random(20)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(WORDS)]
    with file.open("w", encoding="utf-8") as handle:
        for number in range(count):
            row = {"prompt": f"{number}: {' '.join(draw.choices(words, k=18))}", "completion": f" {draw.choice(words)}"}
            line = json.dumps(row)
            row["completion"] += "." * max(0, BYTES - 1 - len(line))
            row["prompt"] = row["prompt"][: len(row["prompt"]) - max(0, len(line) - BYTES + 1)]
            handle.write(json.dumps(row) + "\n")


def resident() -> dict[str, int]:
    """Resident memory of this process by kind, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in status if line.startswith("Rss")}


class Memory(threading.Thread):
    """The peak of resident memory, and of the part of it that is in no file, in bytes; looks every 50 ms."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.resident = self.own = 0

    def run(self) -> None:
        while True:
            sizes = resident()
            self.own = max(self.own, sizes["RssAnon"])
            self.resident = max(self.resident, sum(sizes.values()))
            time.sleep(0.05)


def start(file: Path) -> None:
    """One start, in this process."""
    from transformers import AutoTokenizer

    from msft.config.schema import Config
    from msft.data.load import load_tasks

    tokenizer = AutoTokenizer.from_pretrained(file.parent / "tokenizer")
    dataset = {"id": "rows", "path": str(file), "validation": {"max_samples": HELD_OUT}}
    config = Config.model_validate({"model": {"name_or_path": "none"}, "datasets": [dataset], "output": "none"})
    before = resident()["RssAnon"]
    memory = Memory()
    memory.start()
    began, worked = time.perf_counter(), time.process_time()
    data = load_tasks(config, tokenizer)["rows"]
    seconds, work = time.perf_counter() - began, time.process_time() - worked
    time.sleep(0.1)
    print(
        f"{seconds:8.1f} s ({work:.1f} s of CPU) {len(data.train) / seconds:10,.0f} rows/s   "
        f"peak RSS {memory.resident / 2**20:6,.0f} MiB, in no file {memory.own / 2**20:6,.0f} MiB "
        f"({before / 2**20:,.0f} before)   fingerprint {data.fingerprint[:12]}",
        flush=True,
    )


def train_tokenizer(file: Path) -> None:
    """A byte-level BPE of 8,192 tokens, learned from the first rows, in the folder beside the file."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    made = ByteLevelBPETokenizer()
    with file.open(encoding="utf-8") as handle:
        made.train_from_iterator(itertools.islice(handle, 5000), vocab_size=8192, special_tokens=["</s>"])
    PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, eos_token="</s>").save_pretrained(
        file.parent / "tokenizer"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where rows and cache go; a temporary folder by default")
    parser.add_argument("--start", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        start(arguments.start)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        file = folder / "rows.jsonl"
        write_rows(file, arguments.rows)
        train_tokenizer(file)
        print(f"{arguments.rows:,} rows, {file.stat().st_size / 2**20:,.0f} MiB", flush=True)
        environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
        for name in ("first", "second"):
            print(f"{name:8}", end="", flush=True)
            subprocess.run([sys.executable, __file__, "--start", str(file)], check=True, env=environment)


if __name__ == "__main__":
    main()
