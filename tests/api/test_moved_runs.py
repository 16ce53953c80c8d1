"""A run from Python holds its model and rows: it may be moved, and goes on where it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from test_api import config, made, objects  # noqa: F401 - made is a fixture
from transformers import TrainerCallback

from msft import MSFTTrainer
from msft.cli.main import main
from msft.record.run_folder import RunFolder


class StopAtStep5(TrainerCallback):
    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop = state.global_step >= 5


def test_a_run_that_was_moved_goes_on(made: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    stopped = MSFTTrainer(args=config(made), callbacks=[StopAtStep5()], **objects(made))
    stopped.train()
    whole = made / "whole"
    shutil.copytree(made / "run", whole)
    shutil.move(made / "run", made / "moved")

    assert main(["export", str(made / "moved")]) == 2
    fix = capsys.readouterr().err.split("Fix: let it finish: ")[1].split()
    assert fix == ["msft", "train", str(made / "moved"), "--resume"]
    assert main(fix[1:]) == 0
    story = (made / "moved" / "journal.jsonl").read_text()
    assert story.count('"kind":"segment"') > 2
    assert main(["eval", str(made / "moved"), "--split", "validation"]) == 0
    assert main(["export", str(made / "moved"), "--output", str(made / "model out")]) == 0

    shutil.move(whole, made / "again")
    MSFTTrainer(args=config(made, output_dir=str(made / "again")), **objects(made)).train(resume_from_checkpoint=True)
    ends = [RunFolder(made / name).transcript().final for name in ("moved", "again")]
    assert ends[0] == ends[1]
