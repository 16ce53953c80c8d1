"""The trainer in Python hands over no model that was damaged since the run."""

from __future__ import annotations

from pathlib import Path

import pytest
from peft import LoraConfig
from test_api import config, made, objects  # noqa: F401 - made is a fixture

from msft import MSFTTrainer
from msft.core.errors import RunError


@pytest.mark.parametrize("peft", [None, LoraConfig(r=2, target_modules=["q_proj"])])
def test_the_trainer_in_python_gives_no_damaged_model(made: Path, peft: LoraConfig | None) -> None:  # noqa: F811
    trainer = MSFTTrainer(args=config(made), **objects(made), peft_config=peft)
    trainer.train()
    weights = next((made / "run" / "final").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    with pytest.raises(RunError, match="the content differs from the manifest"):
        _ = trainer.model
    with pytest.raises(RunError, match="the content differs from the manifest"):
        trainer.save_model(made / "saved")
    assert not (made / "saved").exists()
