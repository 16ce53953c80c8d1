"""`MSFTTrainer`: a search from Python, on models and data sets in memory."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback, TrainerState
from transformers.trainer_utils import TrainOutput

from msft.api.config import MSFTConfig
from msft.api.events import Events
from msft.api.inputs import Inputs, Split
from msft.config.schema import Config
from msft.core.errors import RunError, Stopped, complaint
from msft.engine.parallel import Processes
from msft.record.run_folder import RunFolder
from msft.report.summary import summarise
from msft.run.hand_over import OURS
from msft.run.session import train


class MSFTTrainer:
    """Fine-tunes one model on a mixture of data sets, each until its own peak (arXiv 2603.21606).

    `model`: a causal language model of transformers, or its hub id or folder. `args`: how to train.
    `train_dataset`: sub-datasets by name, each a `datasets.Dataset`, a list of rows, or a path; their formats are
    found as `msft train` finds them (prompt/completion, messages, choices, ...). `eval_dataset`: their validation
    splits; what it lacks is carved from the training rows. `test_dataset`: scored once, at the end. `processing_class`:
    the tokenizer; for a model given by name, None takes the model's own. `peft_config`: trains a LoRA adapter.
    `callbacks`: transformers' own interface; see `msft.api.events.Events`.

    Objects are put down as files in `output_dir`/inputs, so that a run can be resumed whatever happens to the process.
    Raises a UserError, whose message says what to mend, where something cannot be used.
    """

    def __init__(
        self,
        model: PreTrainedModel | str,
        args: MSFTConfig,
        train_dataset: Split,
        eval_dataset: Split = None,
        test_dataset: Split = None,
        processing_class: Any | None = None,
        peft_config: LoraConfig | None = None,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] = (),
    ) -> None:
        self.args, self.peft_config = args, peft_config
        self.folder = RunFolder(Path(args.output_dir))
        splits = {"train": train_dataset, "validation": eval_dataset, "test": test_dataset}
        self._inputs = Inputs(self.folder.inputs.absolute(), model, processing_class, splits)
        self._inputs.check()
        self._processes = Processes()
        self.config: Config = args.resolve(
            model=self._inputs.model_section(),
            datasets=self._inputs.dataset_sections(),
            peft=peft_config,
            world=self._processes.world,
        )
        self._events = Events(args, callbacks)
        self._events.call("on_init_end")
        self.summary: dict[str, Any] = {}
        """What `summary.json` says, once trained."""

    @property
    def state(self) -> TrainerState:
        """Steps, epoch and log so far; see `msft.api.events.Events`."""
        return self._events.state

    def train(self, resume_from_checkpoint: bool = False) -> TrainOutput:
        """Runs the search to its end. `resume_from_checkpoint`: go on with the run in `output_dir`.

        Returns all steps taken, the mean loss over them, and what was measured on the test (or else the validation)
        split of each sub-dataset: before (`base_<name>`) and after (`<name>`); nothing where a callback stopped it.
        """
        if self._processes.is_main:
            if resume_from_checkpoint:
                self.folder.check_resumable()
                self._inputs.check_unchanged()
            else:
                self.folder.check_free()
                self._inputs.write()
        self._processes.barrier()
        try:
            self.summary = train(self.config, self._events, resume=resume_from_checkpoint)
        except Stopped:
            if not self._events.control.should_training_stop:
                raise
            return TrainOutput(self.state.global_step, self._events.mean_loss, {})
        self._events.call("on_train_end")
        return TrainOutput(self.state.global_step, self._events.mean_loss, self.evaluate())

    def evaluate(self) -> dict[str, float]:
        """The reports of the trained model and, as `base_<name>`, of the base model: on the test split, where a
        sub-dataset has one, or else on the validation split that the search decided on."""
        self._need_trained()
        summary = self.summary or summarise(self.folder)
        before = {**summary["base"], **summary["test"]["base"]}
        after = {**summary["validation"], **summary["test"]["answer"]}
        return {**{f"base_{task}": before[task] for task in after}, **after}

    @property
    def model(self) -> PreTrainedModel | PeftModel:
        """The trained model, loaded from the run folder."""
        self._need_trained()
        model = AutoModelForCausalLM.from_pretrained(self.folder.final)
        assert isinstance(model, (PreTrainedModel, PeftModel))
        return model

    @property
    def processing_class(self) -> Any:
        """The trained model's tokenizer."""
        self._need_trained()
        return AutoTokenizer.from_pretrained(self.folder.final)

    def save_model(self, output_dir: str | Path) -> None:
        """Copies the trained model, a plain Hugging Face folder (of an adapter, the adapter), to `output_dir`."""
        self._need_trained()
        if self._processes.is_main:
            shutil.copytree(self.folder.final, output_dir, ignore=OURS, dirs_exist_ok=True)
        self._processes.barrier()

    def _need_trained(self) -> None:
        if not self.folder.final.is_dir():
            raise RunError(complaint("there is no trained model yet", "call train() first", file=self.folder.path))
