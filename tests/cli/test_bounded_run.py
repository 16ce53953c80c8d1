"""`snapshots.max` on a real model: same record, same weights, resumed as well; what it cost is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from job import make_job

from msft.cli.main import main
from msft.record.run_folder import RunFolder
from msft.system import files
from msft.system.files import Operation


class Died(BaseException):
    """The process is gone."""


def bodies(folder: Path) -> list[Any]:
    """What the journal says but for its header, which names the bound."""
    records = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    return [record["body"] for record in records if record["kind"] in ("segment", "final")]


def same_weights(one: Path, other: Path) -> bool:
    a, b = (safetensors.torch.load_file(folder / "final" / "model.safetensors") for folder in (one, other))
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("average", ["null", "0.5"])
def test_a_bound_changes_neither_record_nor_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, average: str
) -> None:
    monkeypatch.chdir(tmp_path)
    more = ", max_epochs: 4, budget: 2, smooth: 1, leave_within: 0, roll_back: earliest"
    # Everything overfits, so that the search goes back.
    fast = ["--set", "training.learning_rate=0.2", "--set", f"training.average={average}"]
    plain = make_job(tmp_path, "msft", more, output="plain")
    assert main(["train", str(plain), *fast]) == 0
    bounded = make_job(tmp_path, "msft", more, output="bounded")
    assert main(["train", str(bounded), "--set", "snapshots.max=1", *fast]) == 0
    free, held = (json.loads((tmp_path / name / "summary.json").read_text()) for name in ("plain", "bounded"))
    assert bodies(tmp_path / "bounded") == bodies(tmp_path / "plain")
    assert same_weights(tmp_path / "bounded", tmp_path / "plain")
    assert held["disk"]["mean_bytes"] <= 0.5 * held["disk"]["sft_bytes"] < free["disk"]["mean_bytes"]
    assert held["disk"]["peak_bytes"] <= held["disk"]["sft_bytes"]

    # The timings saw what the journal says was trained again.
    timings = RunFolder(tmp_path / "bounded").read_timings()
    again = [entry["number"] for entry in timings if entry["kind"] == "recompute"]
    outcomes = [body["outcome"] for body in bodies(tmp_path / "bounded") if "outcome" in body]
    tokens = sum(outcomes[number - 1]["tokens"]["train"] for number in again)
    assert held["flops"]["recompute"] * held["flops"]["train"] > 0 == free["flops"]["recompute"]
    everything = sum(outcome["tokens"]["train"] for outcome in outcomes)
    assert held["flops"]["recompute"] * everything == held["flops"]["train"] * tokens
    assert held["seconds"]["recompute"] > 0 == free["seconds"]["recompute"]

    # It dies while it trains one again, and goes on with a wider bound, which the journal notes.
    stages = [0]

    def dies(operation: Operation) -> None:
        stages[0] += operation.name == "recover.run"
        if stages[0] == 1:
            raise Died

    third = make_job(tmp_path, "msft", more, output="third")
    monkeypatch.setattr(files, "observer", dies)
    with pytest.raises(Died):
        main(["train", str(third), "--set", "snapshots.max=1", *fast])
    monkeypatch.setattr(files, "observer", None)
    assert main(["train", str(third), "--resume", "--set", "snapshots.max=2", *fast]) == 2
    assert (
        main(["train", str(third), "--resume", "--set", "snapshots.max=2", "--allow-changed", "snapshots.max", *fast])
        == 0
    )
    assert bodies(tmp_path / "third") == bodies(tmp_path / "plain")
    assert same_weights(tmp_path / "third", tmp_path / "plain")
