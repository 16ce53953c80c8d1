"""Scores a finished model on the splits of a configuration, as a run does (design 3.10, 3.11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from peft import PeftModel
from transformers import PreTrainedModel

from msft.config.schema import Config
from msft.core.errors import DataError, RunError, complaint
from msft.core.vocabulary import Task
from msft.data.examples import TaskData
from msft.data.load import load_tasks, on_day
from msft.engine.decoding import decoding_of
from msft.engine.launch import check_precision_and_compiler
from msft.engine.parallel import Processes
from msft.engine.setup import budgeted, runtime_for
from msft.model.folder import ModelSource
from msft.model.limits import check_data_fits
from msft.model.open import load_model, load_tokenizer
from msft.model.precision import narrow, precision_on
from msft.model.quantised import compute_in
from msft.model.row_layout import try_narrow
from msft.model.saved_adapter import ADAPTER_CONFIG, adapter_config, with_adapter
from msft.model.token_loss import TokenLoss
from msft.record.run_folder import RunFolder
from msft.report.base_and_answer import mean
from msft.report.intervals import of_items
from msft.report.words import listed
from msft.run.hand_over import Finished
from msft.run.job import model_source, settings_of
from msft.scoring.scorers import TaskScores, score

Split: TypeAlias = Literal["validation", "test"]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A model's scores on one split."""

    model: str
    split: Split
    data: Mapping[Task, TaskData]
    scores: Mapping[Task, TaskScores]
    """Of the sub-datasets that have this split, in the order of the configuration. A group has one validation score,
    and each of its data sets a test score."""

    @property
    def macro(self) -> float | None:
        """The mean of the test metrics of the sub-datasets; an aggregate stands beside it."""
        return mean([found.report for name, found in self.scores.items() if not self._names[name].aggregate])

    @property
    def items(self) -> int:
        """How many items `macro` is made of."""
        return sum(len(found.reported) for name, found in self.scores.items() if not self._names[name].aggregate)

    @property
    def left_out(self) -> list[Task]:
        """Sub-datasets without this split."""
        return [name for name in self._names if name not in self.scores]

    @property
    def measures(self) -> dict[Task, str]:
        """The name of the measure of each."""
        return {name: part.measure.name for name, part in self._names.items()}

    @property
    def _names(self) -> dict[Task, TaskData]:
        """What this split has scores of."""
        if self.split == "validation":
            return dict(self.data)
        return {name: part for task, part in self.data.items() for name in [m.task for m in part.members] or [task]}

    def interval(self, task: Task) -> tuple[float, float] | None:
        """95 % interval of the test metric, given the items."""
        return of_items(self.scores[task].report, self.scores[task].reported)


def evaluate(
    config: Config,
    model: str,
    split: Split,
    *,
    base: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    others: Callable[[str], None] | None = None,
) -> Evaluation:
    """Scores the final model of a run (its folder), or a model (a folder or a name on the hub), on one split.

    `base`: where the base of a run's adapter lies now; None: where it was. `progress` is called with (items done, all
    items). `others` is told where the data are not those of the run; None:
    they must be. Raises RunError, ModelError or DataError before anything is scored.
    """
    processes = Processes()
    processes.check_whole("msft eval")
    precision = precision_on(processes.device, config.model.precision)
    check_precision_and_compiler(bf16=precision != "fp32", torch_compile=False)
    run = RunFolder(Path(model))
    if run.exists:
        past = run.transcript()
        if split == "validation" and past.brief.whole is not None:
            found = "the final model of this run was trained on its validation rows too (method.refit)"
            raise RunError(complaint(found, "add --split test", file=model, field="--split"))
        config = on_day(config, past.day)
    loaded, tokenizer = _loaded(config, model, base)
    data = load_tasks(config, tokenizer)
    check_data_fits(loaded, data, tokenizer)
    if run.exists:
        _compare_data(run, data, others)
    asked = {
        name: (items, part.measure)
        for task, part in data.items()
        for name, items in (part.tests if split == "test" else {task: part.validation}).items()
    }
    if not asked:
        fix = f"name one with datasets.<id>.{split}, or choose another --split"
        raise DataError(complaint(f"no sub-dataset has a {split} split", fix, field="--split"))
    loss = TokenLoss(loaded).to(processes.device)
    generates = any(measure.generates for _, measure in asked.values())
    settings = settings_of(config)
    runtime, _ = runtime_for(processes, settings, loss, generates=generates)
    compute_in(loaded, precision)
    if precision == "mixed":
        narrow(loaded)
        try_narrow(loss, runtime.layout, processes.device)
    runtime = budgeted(runtime, settings, loss, processes)
    decoding = decoding_of(loaded, tokenizer, data) if generates else None
    scores, _ = score(loss, asked, runtime, decoding=decoding, progress=progress)
    return Evaluation(model, split, data, scores)


def _compare_data(run: RunFolder, data: Mapping[Task, TaskData], others: Callable[[str], None] | None) -> None:
    """Other rows may be some that the run was trained on: a split is drawn of what is there."""
    recorded = run.transcript().header.get("fingerprints", {}).get("data", {})
    differ = [task for task, part in data.items() if recorded.get(task) != part.fingerprint]
    if not differ:
        return
    found = f"the data of {listed(differ)} are not those of the run, which may have been trained on what is scored now"
    if others is None:
        fix = "restore data, tokenizer and chat template, or say with --config FILE, or --set, what to score"
        raise RunError(complaint(found, fix, file=run.path))
    others(found)


def _loaded(config: Config, model: str, base: str | None = None) -> tuple[PreTrainedModel | PeftModel, Any]:
    """The model and its tokenizer."""
    run = RunFolder(Path(model))
    if run.exists:
        finished = Finished.read(run, base=base)
        return finished.model(), finished.tokenizer()
    source = _named(config, model)
    folder = source.folder
    if folder is None or not (folder / ADAPTER_CONFIG).is_file():
        if not _same(model, config.model.name_or_path):  # as it is stored: model.quantize is of the base
            source = replace(source, quantize=None)
        return load_model(source), load_tokenizer(source)
    adapter = adapter_config(folder)
    named = str(adapter.base_model_name_or_path)
    # The copy in a run, which holds the tokenizer of its training, stands for what it is a copy of.
    under = _named(config, config.model.name_or_path if _same(named, model_source(config).base) else named)
    if under.folder is None and adapter.revision is not None and not under.trust_remote_code:
        under = replace(under, revision=adapter.revision)  # code is run of the revision that the user read, no other
    return with_adapter(load_model(under), folder), load_tokenizer(under)


def _named(config: Config, model: str) -> ModelSource:
    """A model under the settings of the configured one. Of another one no code is run, and the revision is its own."""
    source = replace(model_source(config), name_or_path=model, gguf_file=None, peft=None)
    if _same(model, config.model.name_or_path):
        return source
    return replace(source, trust_remote_code=False, revision=None)


def _same(model: str, other: str) -> bool:
    """Whether both are the same name, or lead to the same folder."""
    folders = {ModelSource(name_or_path=name).folder for name in (model, other)}
    return model == other or (None not in folders and len({folder.resolve() for folder in folders if folder}) == 1)
