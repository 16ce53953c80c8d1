"""`msft train` end to end on a tiny model: every method, resume after a kill, `--set`, and what is handed over."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from job import make_job
from transformers import AutoModelForCausalLM, AutoTokenizer

from msft.cli.main import main
from msft.methods import METHODS
from msft.record.journal import Transcript
from msft.record.run_folder import RunFolder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("job")
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


def hashes(run: Path) -> dict[str, str]:
    """Everything that must be the same whenever the run is: journal, weights, sidecars."""
    files = [run / "journal.jsonl", run / "final" / "model.safetensors", *sorted((run / "sidecars").glob("*"))]
    return {str(f.relative_to(run)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files if f.exists()}


def without_clocks(run: Path) -> dict[str, object]:
    summary = json.loads((run / "summary.json").read_text())
    return {key: value for key, value in summary.items() if key != "seconds"}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_end_to_end(place: Path, method: str, capsys: pytest.CaptureFixture[str]) -> None:
    horizon = ", max_epochs: 7" if method == "ies" else ", max_epochs: 3"
    config = make_job(place, method, horizon, output=f"all-{method}")
    assert main(["train", str(config)]) == 0
    run = place / f"all-{method}"
    summary = json.loads((run / "summary.json").read_text())
    assert summary["method"] == method
    assert set(summary["base"]) == {"copy", "yes no", "double"}
    assert set(summary["test"]["answer"]) == {"copy", "yes no"}  # "double" has no test split
    assert summary["flops"]["train"] > 0
    assert (summary["flops"]["probe"] > 0) == (method in ("dynamix", "self_distil"))
    AutoModelForCausalLM.from_pretrained(run / "final")
    AutoTokenizer.from_pretrained(run / "final")
    assert "<html" in (run / "report.html").read_text()
    out = capsys.readouterr()
    assert "yes no" in out.out
    assert "\x1b" not in out.out + out.err
    assert main(["report", str(run)]) == 0


def test_all_of_the_time_is_accounted_for_by_kind(place: Path) -> None:
    config = make_job(place, "msft", ", preset: release, budget: 1, max_rollouts: 3", output="clock")
    began = time.perf_counter()
    assert main(["train", str(config)]) == 0
    passed = time.perf_counter() - began
    seconds = json.loads((place / "clock" / "summary.json").read_text())["seconds"]
    # The summary is written before the page and the table on the terminal.
    assert 0.5 * passed < seconds["total"] < passed
    assert set(seconds["parts"]["start"]) == {"imports", "data", "model", "proof", "folder"}
    assert set(seconds["parts"]["train"]) == {"compute", "optimizer", "input"}
    assert {"base", "ticks", "test"} <= set(seconds["parts"]["eval"])
    assert set(seconds["parts"]["snapshot"]) == {"capture", "durable"}
    assert seconds["export"] > 0 and seconds["restore"] > 0
    assert sum(seconds["shares"].values()) == pytest.approx(1)


def test_the_release_preset_runs(place: Path) -> None:
    config = make_job(place, "msft", ", preset: release, budget: 1, max_rollouts: 3", output="release")
    assert main(["train", str(config)]) == 0
    transcript = RunFolder(place / "release").transcript()
    assert transcript.brief.horizon == float("inf")
    assert transcript.header["config"]["method.ties"] == "first"
    stages = sum(s.trains and s.epoch == int(s.epoch) for s, _ in transcript.segments)
    assert stages == 3  # one epoch each, and nothing else ends it


def test_a_killed_run_resumes_bit_for_bit(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_job(place, "msft", ", max_epochs: 3, budget: 1, smooth: 1", output="whole")
    assert main(["train", str(config)]) == 0
    killed = make_job(place, "msft", ", max_epochs: 3, budget: 1, smooth: 1", output="killed")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, "-m", "msft", "train", str(killed)], env=environment, cwd=place)
    journal = place / "killed" / "journal.jsonl"
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        if journal.exists() and journal.read_bytes().count(b"\n") >= 4:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    process.wait()
    assert process.returncode == -signal.SIGKILL, "the run ended before it could be killed"
    assert not (place / "killed" / "final").exists()
    capsys.readouterr()
    assert main(["train", str(killed), "--resume"]) == 0
    assert "  continues at " in capsys.readouterr().err
    assert hashes(place / "killed") == hashes(place / "whole")
    assert without_clocks(place / "killed") == without_clocks(place / "whole")
    # A finished run, resumed, changes nothing, and says so above its summary.
    before, seconds = hashes(place / "killed"), (place / "killed" / "timings.jsonl").read_bytes()
    for again in ("--resume", "--resume-if-begun"):
        assert main(["train", str(killed), again]) == 0
        out, err = capsys.readouterr()
        assert "finished already, after " in err and "; nothing new is trained\n" in err and "roll-out" not in err
        assert "The final model" in out
    assert hashes(place / "killed") == before
    assert (place / "killed" / "timings.jsonl").read_bytes() == seconds, "its time is that of what was done"


def test_a_moved_folder_is_told_from_a_changed_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", str(make_job(place, "sft", ", max_epochs: 1", output="here"))]) == 0
    there = (place / "here").rename(place / "there")
    moved = "config.yaml: it named another place, as the folder was moved or copied, and it is written again"
    changed = "config.yaml: its content had changed, and it is written again"
    for said in ({moved}, set()):
        capsys.readouterr()
        assert main(["train", str(there), "--resume"]) == 0
        err = capsys.readouterr().err
        assert {note for note in (moved, changed) if note in err} == said
    (there / "config.yaml").write_text((there / "config.yaml").read_text() + "# by hand\n")
    assert main(["train", str(there), "--resume"]) == 0
    err = capsys.readouterr().err
    assert changed in err and moved not in err
    config = (there / "config.yaml").rename(place / "kept.yaml")
    assert main(["train", str(config), "--set", f"output={there}", "--resume"]) == 0
    assert "config.yaml: it was missing, and it is written again" in capsys.readouterr().err


def test_a_changed_configuration_or_file_is_not_resumed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = make_job(place, "sft", ", max_epochs: 1", output="changed")
    assert main(["train", str(config)]) == 0
    before = hashes(place / "changed")
    for override, named in (
        ("training.learning_rate=0.02", "config.training.learning_rate was 0.01, is now 0.02"),
        ("method.max_epochs=2", "method.max_epochs was 1.0, is now 2.0"),
        ("datasets.copy.max_samples=9", "datasets.copy had 24 training examples in an epoch, has 9"),
    ):
        assert main(["train", str(config), "--resume", "--set", override]) == 2
        assert named in capsys.readouterr().err
    assert hashes(place / "changed") == before


def test_lora_trains_and_hands_over_the_adapter_alone(place: Path) -> None:
    config = make_job(place, "msft", ", max_epochs: 1", output="lora")
    assert main(["train", str(config), "--set", "peft={r: 2}", "--set", "snapshots.durable=tick"]) == 0
    final = place / "lora" / "final"
    assert (final / "adapter_model.safetensors").exists()
    assert not (final / "model.safetensors").exists()
    AutoModelForCausalLM.from_pretrained(final)


SEARCH = ", max_epochs: 4, budget: 2, smooth: 1"
EXACT = ["--set", "model.precision=fp32", "--set", "training.learning_rate=0.03"]


def launched(place: Path, name: str, *more: str) -> Transcript:
    """A run of two processes."""
    two = place / f"{name}.yaml"
    if not two.exists():
        make_job(place, "msft", SEARCH, output=name)
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "msft", "train", str(two)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *launch, *EXACT, *more],
        env=environment,
        cwd=place,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return RunFolder(place / name).transcript()


def same_decisions(one: Transcript, other: Transcript, near: float) -> None:
    assert any(not segment.trains for segment, _ in one.segments), "nothing was decided"
    assert [s for s, _ in other.segments] == [s for s, _ in one.segments]
    for (_, mine), (_, theirs) in zip(other.segments, one.segments, strict=True):
        assert mine.tokens == theirs.tokens
        assert mine.scores == pytest.approx(theirs.scores, rel=near)
    assert other.final is not None
    assert one.final is not None
    assert other.final["answer"] == one.final["answer"]


@pytest.mark.cpu("two processes need two cards: these are on the CPU")
def test_two_processes_decide_as_one(place: Path) -> None:
    """gloo, fp32, each with the whole model or with its part: the same segments, with exclusions; scores equal up to
    rounding, which training amplifies."""
    assert main(["train", str(make_job(place, "msft", SEARCH, output="one")), *EXACT]) == 0
    alone = RunFolder(place / "one").transcript()
    same_decisions(alone, launched(place, "two"), 1e-2)
    split = launched(place, "split", "--set", "training.shard=true")
    same_decisions(alone, split, 1e-2)
    assert split.header["environment"]["sharded_over"] == 2
    loaded = AutoModelForCausalLM.from_pretrained(place / "split" / "final")
    assert sum(p.numel() for p in loaded.parameters()) > 0


@pytest.mark.campaign
@pytest.mark.cpu("two processes need two cards: these are on the CPU")
@pytest.mark.parametrize("first", [1, 2])
def test_another_number_of_processes_goes_on(place: Path, first: int, capsys: pytest.CaptureFixture[str]) -> None:
    """From a run whose last records and snapshots are taken away, as a crash would."""
    name = f"from {first}"
    split = ["--set", "training.shard=true", "--set", "snapshots.durable=tick"]
    if first == 2:
        whole = launched(place, name, *split)
    else:
        assert main(["train", str(make_job(place, "msft", SEARCH, output=name)), *EXACT, *split]) == 0
        whole = RunFolder(place / name).transcript()
    run = place / name
    kept = (run / "journal.jsonl").read_text().splitlines(keepends=True)
    trained = max(
        n for n, (segment, _) in enumerate(whole.segments, 1) if segment.trains and n < len(whole.segments) - 1
    )
    (run / "journal.jsonl").write_text("".join(kept[: trained + 1]))
    shutil.rmtree(run / "final")
    for file in ("summary.json", "report.html", "samples.json"):
        (run / file).unlink(missing_ok=True)
    parts = list((run / "snapshots").glob("part-*")) if first == 2 else [run / "snapshots"]
    for part in parts:  # those of later records are gone; what the run stands at is not
        for snapshot in part.iterdir():
            if snapshot.name.isdecimal() and int(snapshot.name) > trained:
                shutil.rmtree(snapshot)
    command = ["train", str(place / f"{name}.yaml"), "--resume", *EXACT, *split]
    allowed = ["--allow-changed", "environment.sharded_over"]
    if first == 2:
        assert main(command) == 2
        assert "environment.sharded_over was 2, is now None" in capsys.readouterr().err
        assert main([*command, *allowed]) == 0
        resumed = RunFolder(run).transcript()
    else:
        resumed = launched(place, name, "--resume", *split, *allowed)
    same_decisions(whole, resumed, 1e-2)
    assert [tuple(change["path"]) for change in resumed.changes] == [("environment", "sharded_over")]
    found = sorted(path.name for path in (run / "snapshots").iterdir())
    assert found == (["part-1-of-2", "part-2-of-2"] if first == 1 else [n for n in found if n.isdecimal()])
