"""`make bench-gpu` on a CPU, with a tiny model: what it measures is right; what fails is named and stops nothing."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import gpu  # noqa: E402
import gpu_order  # noqa: E402
import gpu_parts  # noqa: E402
import gpu_runs  # noqa: E402
import gpu_steps  # noqa: E402
import gpu_table  # noqa: E402
import varlen_attention  # noqa: E402
from common import Contender, Work, contenders  # noqa: E402

from msft.config.reader import load  # noqa: E402
from msft.run.job import Job  # noqa: E402

WORK = Work(
    model="random:1m", data="synthetic", steps=9, warm=1, batch_size=4, threads=1, bf16=False, keep=False
)  # fmt: skip
TINY = (
    "--device", "cpu", "--small", "random:1m", "--larger", "random:1m", "--batch-size", "4", "--warm", "1", "--steps",
    "4", "--precision", "fp32", "--threads", "1", "--search", "4,16,6,1,1", "--twice", "2,24,4,2,1", "--jobs", "1",
)  # fmt: skip


def given(out: Path, *more: str) -> argparse.Namespace:
    return gpu.options().parse_args([*TINY, "--out", str(out), *more])


def bench(folder: Path, **content: Any) -> gpu_parts.Bench:
    return gpu_parts.Bench(
        file=folder / "gpu.json", work=WORK, scratch=folder / "scratch", ends=time.perf_counter() + 60,
        content={"parts": {}, "settings": {"search": [4, 12, 5, 1, 1]}} | content, larger="random:1m", jobs=1,
    )  # fmt: skip


def test_our_step_is_measured_apart_from_the_end_of_its_segment(tmp_path: Path) -> None:
    found = gpu_steps.measure(WORK, Contender(name="ours"), tmp_path / "models", tmp_path)
    assert len(found["losses"]) == WORK.steps and found["last_loss"] == found["losses"][-1]
    assert found["seconds_per_step"] > 0 and found["segment_end_seconds"] >= 0
    tokens = found["tokens_per_second"] * found["seconds_per_step"]
    assert 4 * 20 < tokens < 4 * 300, "real tokens of a step of 4 rows"


def test_attention_over_lengths_is_that_of_each_row_alone_and_is_refused_without_them() -> None:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "vocab_size": 40}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2)).eval()
    ids, lengths = torch.randint(40, (1, 12)), [3, 1, 8]
    with torch.no_grad():
        alone = torch.cat([model(input_ids=row).logits for row in ids.split(lengths, 1)], 1)
        varlen_attention.use(model)
        ends = torch.tensor([0, 3, 4, 12], dtype=torch.int32)
        positions = torch.cat([torch.arange(length) for length in lengths])[None]
        together = model(input_ids=ids, position_ids=positions, cu_seq_lens_q=ends, max_length_q=8).logits
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
        with pytest.raises(ValueError, match="cu_seq_lens_q"):
            model(input_ids=ids)


def test_trl_has_the_same_losses_with_attention_over_lengths(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    ours, theirs = (
        gpu_steps.measure(WORK, Contender(name=name, micro=4), tmp_path / "models", tmp_path / name[:4])
        for name in ("ours", "padding_free+varlen")
    )
    assert theirs["losses"] == pytest.approx(ours["losses"], abs=2e-5)
    assert theirs["tokens_per_second"] * theirs["seconds_per_step"] == pytest.approx(
        ours["tokens_per_second"] * ours["seconds_per_step"]
    )


def test_a_made_up_job_is_one_that_msft_takes(tmp_path: Path) -> None:
    config = gpu_runs.make_job(bench(tmp_path), "search")
    job = Job.prepare(load(config))
    assert [part.size for part in job.data.values()] == [12] * 4
    assert [len(part.validation) for part in job.data.values()] == [5] * 4
    assert [part.measure.name for part in job.data.values()] == ["loss", "choice"] * 2
    assert gpu_runs.make_job(bench(tmp_path), "search", "again").read_text() != config.read_text()


def test_what_changes_a_process_for_others_has_one_of_its_own() -> None:
    chosen = contenders("ours,products,packed+varlen+liger:4,padded+liger:8,padded:8,packed", 1024)
    kinds = [gpu_parts.process_of(one) for one in chosen]
    assert kinds == ["ours", "ours", "liger", "liger", "trl", "trl"]
    on_cpu, _ = gpu_parts.runnable(chosen, WORK)
    assert not any("liger" in one.name for one in on_cpu)
    assert len(on_cpu) == len({one.label for one in on_cpu}), "without Liger two of them are the same"


def test_a_part_that_fails_is_named_and_the_next_one_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(one: gpu_parts.Bench) -> None:
        one.tell(kills=1, resumed=0, finished=0, same=0, refusals=[])
        raise torch.OutOfMemoryError("CUDA out of memory | tried to allocate")

    def steps(one: gpu_parts.Bench) -> None:
        one.tell(contenders={"ours": {"failed": "RuntimeError: of a step"}, "padded:4": SAMPLE}, products=PRODUCTS)

    parts = {"small": steps, "kills": fails, "study": lambda one: one.tell(ended=2, runs=4, wall_seconds=9.0, jobs=2,
                                                                           runs_an_hour=800.0)}  # fmt: skip
    monkeypatch.setattr(gpu_order, "PARTS", parts)
    options = given(tmp_path, "--parts", "small,kills,study", "--peak-tflops", "1")
    gpu_order.run_all(options, tmp_path / "scratch", time.perf_counter(), gpu.BUDGETS)
    content = json.loads((tmp_path / "gpu.json").read_text())
    assert {name: part["status"] for name, part in content["parts"].items()} == {
        "small": "done", "kills": "failed", "study": "done"
    }  # fmt: skip
    told = (tmp_path / "gpu.md").read_text()
    assert "NOT COMPLETE: kills: failed. OutOfMemoryError: CUDA out of memory / tried" in told
    assert "1 kills, 0 resumed, 0 REFUSED" in told and "2 of 4 runs in 9 s with --jobs 2: 800 an hour" in told
    assert re.search(r"\| small, ours \| FAILED \|.* RuntimeError: of a step \|", told)
    assert "| small, padded:4 | 20 | 5,000 |  | 30.0% | 60.0% | 2 | 3.2500 |" in told


def test_results_of_another_machine_or_other_settings_are_not_mixed(tmp_path: Path) -> None:
    made = gpu_order.content_of(given(tmp_path), WORK)
    (tmp_path / "gpu.json").write_text(json.dumps(made | {"parts": {"search": {"status": "done"}}}))
    assert "search" in gpu_order.content_of(given(tmp_path), WORK)["parts"], "parts that are not run again stay"
    with pytest.raises(SystemExit, match="other settings"):
        gpu_order.content_of(given(tmp_path, "--batch-size", "2"), WORK)


SAMPLE = {"seconds_per_step": 0.02, "tokens_per_second": 5000.0, "last_loss": 3.25, "peak_memory": 2**31}
PRODUCTS = {
    "flops_per_step": {"body": 5e9, "head": 1e9, "attention": 9e9}, "tokens_per_step": 100.0, "flops_per_second": 5e11
}  # fmt: skip


def test_utilisation_is_of_body_and_head_at_real_tokens() -> None:
    """6e9 FLOPs for 100 tokens, 5,000 tokens a second: 3e11 a second."""
    part = {"contenders": {"ours": SAMPLE | {"max_memory_allocated": 2**30}}, "products": PRODUCTS}
    row = gpu_table.step_rows("small", part, 1e12)[0]
    assert row == ("small, ours", 20.0, 5000.0, None, "30.0%", "60.0%", 1.0, "3.2500")


def test_what_a_process_started_ends_with_its_time(tmp_path: Path) -> None:
    began = time.perf_counter()
    child = "import subprocess, sys, time; subprocess.Popen(['sleep', '7']); print('begun', flush=True); time.sleep(7)"
    code, said = gpu_parts.run([sys.executable, "-c", child], WORK, 0.8)
    assert code == -9 and said == "begun\n" and time.perf_counter() - began < 3


@pytest.mark.campaign
def test_the_command_ends_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *TINY, "--out", str(tmp_path), "--minutes", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parts = json.loads((tmp_path / "gpu.json").read_text())["parts"]
    assert list(parts) == list(gpu.BUDGETS)
    assert {name: part["status"] for name, part in parts.items()} == dict.fromkeys(parts, "done")
    for name in gpu_table.STEPS:
        assert not any("failed" in one for one in parts[name]["contenders"].values())
        assert parts[name]["contenders"]["ours"]["seconds_per_step"] > 0
    assert parts["determinism"]["same"] and parts["kills"]["kills"] and not parts["kills"]["refusals"]
    assert parts["kills"]["same"] == parts["kills"]["finished"]
    assert parts["study"]["ended"] == 2 and parts["search"]["evaluation"]["eval"] > 0
    assert "MFU" in done.stdout and "NOT COMPLETE" not in done.stdout
