"""`MSFTTrainer`: a search from Python, on models and data sets in memory."""

from __future__ import annotations

import inspect
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from peft import LoraConfig, PeftModel
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, TrainerCallback, TrainerState
from transformers.trainer_utils import TrainOutput

from msft.api.argument_checks import check_known, check_overridden, checked
from msft.api.config import MSFTConfig
from msft.api.defaults import by_name, tokenizer_for, with_targets
from msft.api.events import Events
from msft.api.given_scorers import check_own
from msft.api.inputs import SPLITS, Inputs, Split
from msft.api.other_trainers import INSTEAD_OF_MEMBERS
from msft.config.reader import flatten
from msft.config.schema import Config
from msft.core.errors import Diverged, RunError, Stopped, complaint
from msft.core.paths import expanded
from msft.engine.parallel import Processes
from msft.record.run_folder import RunFolder
from msft.report.summary import summarise
from msft.report.table import render_text
from msft.run.hand_over import Finished, check_final
from msft.run.new_folder import copied
from msft.run.session import train
from msft.run.trackers import Several, check_trackers
from msft.screen.console import new_console
from msft.screen.display import Display, plan_of


class MSFTTrainer:
    """Fine-tunes a model on a mixture of sub-datasets; by default each is excluded at its own peak (arXiv 2603.21606).

    Objects are written to files in `output_dir`/inputs, so that a run can be resumed after its process has ended.

    Args:
        model: A causal language model of transformers, or its hub id or folder.
        args: How to train.
        train_dataset: Sub-datasets by name, each a `datasets.Dataset`, a list of rows, or a path or hub id. Their
            formats are detected as by `msft train` (prompt/completion, messages, choices, ...). A single
            `datasets.Dataset` is one sub-dataset, named `train`.
        eval_dataset: Validation splits by name of the sub-dataset. Missing ones are carved from the training rows. With
            one sub-dataset, a single `datasets.Dataset` too.
        test_dataset: Test splits, as `eval_dataset`, scored once, at the end.
        processing_class: The tokenizer. None: that of the hub id or folder, of an object that which it was loaded from.
        peft_config: Trains a LoRA adapter; None: all weights.
        callbacks: Callbacks of transformers, as instances or classes; see `msft.api.events.Events` for further events.

    Raises:
        ConfigError: If a value of `args` or `peft_config` is invalid or not supported, or a tracker is not installed.
        ScorerError: If a scorer of your own cannot be imported.
        DataError: If `train_dataset` is missing, or a data set is not passed by name or in a form listed above.
        ModelError: If the model is an object that would not be the same after it was saved and loaded: it has an
            adapter, frozen parameters or code of its own; or if it is an object whose tokenizer is not known.

    Examples:
        >>> from msft import MSFTConfig, MSFTTrainer
        >>> trainer = MSFTTrainer(
        ...     model="HuggingFaceTB/SmolLM2-135M-Instruct",
        ...     args=MSFTConfig(output_dir="runs/first", num_train_epochs=3),
        ...     train_dataset={"arithmetic": "arithmetic.jsonl", "spelling": "spelling.jsonl"},
        ... )
        >>> metrics = trainer.train().metrics  # doctest: +SKIP
        >>> trainer.save_model("runs/first/model")  # doctest: +SKIP
    """

    def __new__(cls, *args: Any, **given: Any) -> MSFTTrainer:
        """Raises ConfigError for arguments that are not here, with those of the same meaning."""
        parameters = inspect.signature(cls.__init__).parameters
        if all(each.kind is not each.VAR_KEYWORD for each in parameters.values()):
            check_known(given, list(parameters)[1:], MSFTConfig)
        return super().__new__(cls)

    def __init__(
        self,
        model: PreTrainedModel | str | os.PathLike[str],
        args: MSFTConfig | None = None,
        train_dataset: datasets.Dataset | Split = None,
        eval_dataset: datasets.Dataset | Split = None,
        test_dataset: datasets.Dataset | Split = None,
        processing_class: Any | None = None,
        peft_config: LoraConfig | None = None,
        callbacks: Sequence[TrainerCallback | type[TrainerCallback]] | None = None,
    ) -> None:
        args = checked(args, MSFTConfig)
        self.args, self.peft_config = args, peft_config
        self.folder = RunFolder(expanded(args.output_dir))
        model = os.fspath(model) if isinstance(model, os.PathLike) else model
        given = {"train_dataset": train_dataset, "eval_dataset": eval_dataset, "test_dataset": test_dataset}
        splits = dict(zip(SPLITS, by_name(given).values(), strict=True))
        if processing_class is None:
            processing_class = tokenizer_for(model)
        adapter = peft_config is not None
        self._inputs = Inputs(self.folder.inputs.absolute(), model, processing_class, splits, adapter)
        self._inputs.check()
        self._processes = Processes()
        self.config: Config = args.resolve(
            model=self._inputs.model_section(),
            datasets=self._inputs.dataset_sections(),
            peft=with_targets(peft_config, model),
            world=self._processes.world,
        )
        check_own(self.config)
        if self._processes.is_main:
            check_trackers(self.config.training.report_to)
        self._events = Events(args, callbacks, is_main=self._processes.is_main)
        self._events.call("on_init_end")
        self.summary: dict[str, Any] = {}
        """The content of `summary.json`, after training."""

    def __init_subclass__(cls, **given: Any) -> None:
        """Raises ConfigError if a subclass has methods that another trainer would call."""
        super().__init_subclass__(**given)
        check_overridden(cls)

    def __getattr__(self, name: str) -> Any:
        """Answers members of other trainers, which scripts use after the training, with what to do instead."""
        if hasattr(type(self), name):  # a property that raised an AttributeError
            return object.__getattribute__(self, name)
        found = f"{type(self).__name__!r} object has no attribute {name!r}"
        fix = INSTEAD_OF_MEMBERS.get(name)
        raise AttributeError(found if fix is None else complaint(found, fix), name=name, obj=self)

    @property
    def state(self) -> TrainerState:
        """Steps, epoch and log so far; see `msft.api.events.Events`."""
        return self._events.state

    def train(self, resume_from_checkpoint: bool | str | Path | None = None) -> TrainOutput:
        """Runs the search to its end.

        Shows on standard error what `msft train` shows, unless `args.disable_tqdm` is set: the progress, notes on the
        data, at the end the result and where the model and the page are. Of several processes, only the first shows.

        Args:
            resume_from_checkpoint: True continues the run in `output_dir`, as its path does; there is no other place
                that a run can continue from.

        Returns:
            The number of steps, the mean loss over them (both with discarded steps, and of the whole run if it was
                resumed), and the metrics of `evaluate`, which are empty if a callback stopped the run. Steps after the
                last evaluation that a stop has lost are trained again, and counted once.

        Raises:
            UserError: If the run folder, the model or the data cannot be used; the message says how to fix it.
            Stopped: If a signal ended the run, which can then be resumed.
        """
        resume = self._resumes(resume_from_checkpoint)
        if self._processes.is_main:
            if resume:
                self.folder.check_resumable()
                self._inputs.check_unchanged(self.folder.transcript().current["config"])
            else:
                self.folder.check_free()
                self._inputs.write()
        self._processes.barrier()
        self._events.expect(self.folder.transcript().segments if resume else None)
        console = new_console(stderr=True, quiet=self.args.disable_tqdm or not self._processes.is_main)
        try:
            with Display(console, plan=plan_of(self.config)) as display:
                watchers = Several(display, self._events)
                for note in self._inputs.notes:
                    watchers.note(note)
                self.summary = train(self.config, watchers, resume=resume)
        except Diverged as error:
            raise self._on_the_command_line(error) from None
        except Stopped:
            if not self._events.control.should_training_stop:
                raise
            console.print("Stopped by a callback. Continue with train(resume_from_checkpoint=True).", highlight=False)
            self._events.call("on_train_end")
            return TrainOutput(self.state.global_step, self._events.mean_loss, {})
        self._show_result(console)
        if self.summary:  # only the main process has it
            self.state.best_metric = self.summary["macro"]["validation"]["answer"]
        self.state.best_model_checkpoint = str(self.folder.final)
        self._events.call("on_train_end")
        return TrainOutput(self.state.global_step, self._events.mean_loss, self.evaluate())

    def _resumes(self, asked: bool | str | Path | None) -> bool:
        """Raises RunError if the run cannot begin, or continue, from what was asked for; in the words of this API."""
        field, here = "resume_from_checkpoint", self.folder.path
        if not isinstance(asked, bool) and asked is not None and expanded(asked).resolve() != here.resolve():
            fix = f"give True to continue the run in output_dir, or output_dir={str(asked)!r} if a run is there"
            raise RunError(complaint(f"found {str(asked)!r}, not output_dir ({here})", fix, field=field))
        resume = asked is not None and asked is not False
        if resume != self.folder.exists:
            found = "this folder holds no run to resume" if resume else "this folder already holds a run"
            fix = "call train()" if resume else "call train(resume_from_checkpoint=True)"
            raise RunError(complaint(found, f"{fix}, or give another output_dir", file=here, field="output_dir"))
        return resume

    def _on_the_command_line(self, error: Diverged) -> Diverged:
        """The error that the run differs from what it began with, with the command that allows what may change."""
        if not error.may_change:
            return error
        values = flatten(self.config)
        command = ["msft", "train", str(self.folder.path), "--resume"]
        for field in error.may_change:
            command += ["--set", f"{field}={values[field]}"] if field in values else []
            command += ["--allow-changed", field]
        fix = f"undo the change, or continue with it on the command line: {shlex.join(command)}"
        return Diverged(str(self.folder.path), error.differences, fix)

    def _show_result(self, console: Console) -> None:
        if console.quiet:
            return
        render_text(self.folder, console, with_notes=False)  # the display has shown them
        for what, path in (("The model", self.folder.final), ("The page", self.folder.page)):
            console.print(f"{what}: {path}", markup=False, highlight=False, soft_wrap=True)

    def evaluate(self) -> dict[str, float]:
        """The test metrics of the trained model: `test_<name>` on the test split if a sub-dataset has one, otherwise
        `eval_<name>` on the validation split, on which the search based its decisions. Those of the base model are
        `base_test_<name>` and `base_eval_<name>`. Nothing is scored again."""
        self._need_trained()
        summary = self.summary or summarise(self.folder)
        tested = summary["test"]["answer"]
        seen = {task: metric for task, metric in summary["validation"].items() if task not in tested}
        found = {f"eval_{task}": metric for task, metric in seen.items()}
        found |= {f"test_{task}": metric for task, metric in tested.items()}
        found |= {f"base_eval_{task}": summary["base"][task] for task in seen}
        return found | {f"base_test_{task}": metric for task, metric in summary["test"]["base"].items()}

    @property
    def model(self) -> PreTrainedModel | PeftModel:
        """The trained model, loaded from the run folder; an adapter on the base that the run began with, in fp32, to
        which `merge_and_unload` applies."""
        self._need_trained()
        if self.peft_config is not None:
            return Finished.read(self.folder).model()
        check_final(self.folder, self.folder.transcript().header)
        model = AutoModelForCausalLM.from_pretrained(self.folder.final)
        assert isinstance(model, (PreTrainedModel, PeftModel))
        return model

    @property
    def processing_class(self) -> Any:
        """The trained model's tokenizer."""
        self._need_trained()
        return AutoTokenizer.from_pretrained(self.folder.final)

    def save_model(self, output_dir: str | os.PathLike[str] | None = None) -> None:
        """Copies the trained model, a plain Hugging Face folder (of an adapter, the adapter), to `output_dir`; None:
        to that of the run, as in transformers. It is in `final` there without this."""
        self._need_trained()
        target = self.folder.path if output_dir is None else expanded(output_dir)
        if self._processes.is_main and target.resolve() != self.folder.final.resolve():
            check_final(self.folder, self.folder.transcript().header)
            copied(self.folder.final, target)
        self._processes.barrier()

    def _need_trained(self) -> None:
        if not self.folder.final.is_dir():
            again = "(resume_from_checkpoint=True), which continues the run" if self.folder.exists else "() first"
            raise RunError(complaint("there is no trained model yet", f"call train{again}", file=self.folder.path))
