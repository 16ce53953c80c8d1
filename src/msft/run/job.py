"""A configuration whose model and data were found and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from msft.config.reader import flatten
from msft.config.schema import Config
from msft.core.errors import ConfigError
from msft.core.outlook import Outlook
from msft.core.version import __version__
from msft.core.vocabulary import ROOT, Brief, Outcome, Task
from msft.core.wire import brief_to_json
from msft.data.examples import TaskData
from msft.data.load import chat_template, dated, load_tasks, on_day
from msft.engine.batched_decoding import fitting_decoding
from msft.engine.optimizers import moment_bytes
from msft.engine.settings import EngineSettings, two_schedules
from msft.model.folder import ModelSource
from msft.model.limits import check_checkpointing, check_data_fits, positions_of
from msft.model.open import OpenModel
from msft.model.row_layout import check_rows
from msft.record.run_folder import environment
from msft.run.scoring_cost import decided
from msft.system.stopwatch import spent

UNKNOWN = Outlook()


class Described(Protocol):
    """What a journal's header records of the engine's model."""

    fingerprint: str
    """Of the base model."""
    parameters: int
    """Number of parameters outside the embeddings, for the cost law."""
    model_bytes: int
    gpu: Mapping[str, Any]
    """What decides the rounding on a GPU; empty on a CPU."""


UNSCORED = Outcome(snapshot=ROOT, scores={}, reports={})
"""Stands for the base model's scores before anything is scored."""


@dataclass(frozen=True)
class Job:
    """A configuration whose model and data were found and checked; nothing has been written yet."""

    config: Config
    model: OpenModel
    data: Mapping[Task, TaskData]

    def __post_init__(self) -> None:
        schedule = self.config.training.schedule
        if schedule != "constant" and self.outlook.anneals:
            raise ConfigError(two_schedules(schedule))
        if self.config.training.gradient_checkpointing:
            check_checkpointing(self.skeleton)

    @property
    def source(self) -> ModelSource:
        return self.model.source

    @property
    def skeleton(self) -> PreTrainedModel | PeftModel:
        """The model without its weights."""
        return self.model.skeleton

    @classmethod
    def prepare(cls, config: Config) -> Job:
        """Finds and checks model and data. Raises ModelError, DataError or ConfigError before any weight is loaded."""
        with spent("start.model"):
            model = OpenModel.open(model_source(config))
            config = dated(config, model.tokenizer)
        with spent("start.data"):
            data = load_tasks(config, model.tokenizer, positions_of(model.skeleton))
        check_data_fits(model.skeleton, data, model.tokenizer)
        with spent("start.proof"):
            longest = longest_row(config)
            check_rows(model.skeleton, longest)
            if any(part.measure.generates for part in data.values()):
                fitting_decoding(model.skeleton, longest, torch.device("cpu"))
        return cls(config, model, data)._decided()

    def of(self, config: Config) -> Job:
        """The same model and data under another configuration, which differs in method, training or output only."""
        config = on_day(config, self.config.data.date)
        return replace(self, config=config, model=self.model.of(model_source(config)))._decided()

    def _decided(self) -> Job:
        """With `method.score_excluded: auto` decided."""
        return replace(self, config=decided(self.config, self.data, excludes=self.outlook.excludes))

    @property
    def settings(self) -> EngineSettings:
        return settings_of(self.config, self.outlook)

    @property
    def tested(self) -> bool:
        """Whether any sub-dataset has a test split."""
        return any(part.test for part in self.data.values())

    @property
    def outlook(self) -> Outlook:
        """What the method may do at most."""
        return self.config.method.definition.outlook_at(self.brief(UNSCORED))

    def brief(self, base: Outcome) -> Brief:
        """The brief. It keeps the base model's scores item by item in runs with averaged weights only: headroom is
        read from averaged curves (`msft.core.headroom`)."""
        method = self.config.method
        if self.config.training.average is None:
            base = replace(base, items=None, metrics=None)
        trained = [part for part in self.data.values() if not part.aggregate]
        sizes = tuple(part.size for part in trained)
        distinct = tuple(len(part.train) for part in trained)
        return Brief(
            tasks=tuple(part.task for part in trained),
            sizes=sizes,
            validation_sizes=tuple(len(part.validation) for part in trained),
            batch_size=self.config.training.batch_size,
            seed=self.config.training_seed,
            base=base,
            horizon=method.horizon,
            eval_every=method.eval_every,
            select=method.select,
            average=method.average,
            score_excluded="tick" if method.score_excluded == "tick" else "rollout",
            candidates="ticks" if method.score_excluded == "tick" else "decisions",
            pools=None if distinct == sizes else distinct,
            whole=tuple(part.whole_size for part in trained) if method.refit else None,
            held=tuple(len(part.held_out) for part in trained) if method.refit else None,
            aggregate=next((part.task for part in self.data.values() if part.aggregate), None),
            params=method.params,
        )

    @property
    def notes(self) -> list[str]:
        """Remarks on the data, for people."""
        return [f"{task}: {note}" for task, part in self.data.items() for note in part.notes]

    @property
    def snapshot_bytes(self) -> int:
        """Size of the largest snapshot: the trainable weights, the optimizer's moments and the average, in fp32."""
        each = 4 if self.config.training.average is None else 8
        trained = sum(p.numel() for p in self.skeleton.parameters() if p.requires_grad)
        return each * trained + self.moment_bytes

    @property
    def moment_bytes(self) -> int:
        """What the optimizer keeps of all weights."""
        return moment_bytes(self.config.training.optimizer, self.skeleton)

    @property
    def libraries(self) -> list[str]:
        """The optional libraries that the result depends on."""
        few = self.model.quantized is not None or self.config.training.optimizer == "adamw_8bit"
        return ["bitsandbytes"] if few else []

    @property
    def model_bytes(self) -> int:
        return 4 * sum(p.numel() for p in self.skeleton.parameters())

    def fingerprints(self, engine: Described) -> dict[str, Any]:
        """Fingerprints of model and data, which do not depend on names and paths."""
        return {
            "model": engine.fingerprint,
            "data": {task: part.fingerprint for task, part in self.data.items()},
        }

    @property
    def _groups(self) -> dict[str, Any]:
        """Group -> data set -> numbers of its examples and items."""
        counted = ("train", "taken", "validation", "test")
        return {
            task: {member.task: {name: getattr(member, name) for name in counted} for member in part.members}
            for task, part in self.data.items()
            if part.members
        }

    def header(self, brief: Brief, engine: Described) -> dict[str, Any]:
        """The journal's first record: everything that determines the run."""
        config = flatten(self.config)
        config.pop("output")
        config.pop("training.report_to", None)  # trackers do not affect the result
        return {
            "msft": __version__,
            "method": self.config.method.name,
            "brief": brief_to_json(brief),
            "model": {
                "name": self.config.model.name_or_path,
                "parameters": engine.parameters,
                "bytes": engine.model_bytes,
            },
            "fingerprints": self.fingerprints(engine),
            "measures": {
                name: {"name": m.name, "normalize": m.normalize, "control": m.control}
                for name, m in (
                    (name, part.measure)
                    for task, part in self.data.items()
                    for name in (task, *(member.task for member in part.members))
                )
            },
            **({} if brief.aggregate is None else {"aggregate": len(self.data[brief.aggregate].validation)}),
            **({"groups": groups} if (groups := self._groups) else {}),
            "config": config,
            "environment": made_with(self.libraries) | ({"gpu": dict(engine.gpu)} if engine.gpu else {}),
        }


def made_with(also: Sequence[str] = ()) -> dict[str, Any]:
    """The environment: what a result may depend on beside configuration, data and model; `also`: further libraries."""
    return {**environment(also), "threads": torch.get_num_threads()}


def longest_row(config: Config) -> int:
    """The most tokens that a row of the run can have; a generated text goes on after `data.max_length`."""
    spoken = (dataset.scorer.max_new_tokens or 0 for dataset in config.scored if dataset.scorer is not None)
    return config.data.max_length + max(spoken, default=0)


def settings_of(config: Config, outlook: Outlook = UNKNOWN) -> EngineSettings:
    """The engine's settings from a configuration. `outlook`: the method's."""
    t, lookahead = config.training, outlook.lookahead
    tokens = t.max_tokens_per_microbatch
    return EngineSettings(
        seed=config.training_seed,
        batch_size=t.batch_size,
        horizon=config.method.horizon,
        learning_rate=t.learning_rate,
        schedule=t.schedule,
        warmup=t.warmup,
        optimizer=t.optimizer,
        weight_decay=t.weight_decay,
        max_grad_norm=t.max_grad_norm,
        loss_reduction=t.loss_reduction,
        max_tokens_per_microbatch=None if tokens == "auto" else tokens,
        longest=longest_row(config),
        offload_optimizer=t.offload_optimizer,
        gradient_checkpointing=t.gradient_checkpointing,
        torch_compile=t.torch_compile,
        light=t.light,
        average=t.average,
        average_warmup=t.average_warmup,
        precision=config.model.precision,
        shard=t.shard,
        cuda_graphs=t.cuda_graphs,
        deterministic=t.deterministic,
        beside=lookahead.times > 0,
        soft_targets=outlook.soft_targets,
        lookahead_batch=lookahead.examples,
        virtual=lookahead.optimizer,
        # What a crash loses would be trained again with other bits.
        durable="tick" if t.deterministic is False else config.snapshots.durable,
    )


def model_source(config: Config) -> ModelSource:
    model = config.model
    return ModelSource(
        name_or_path=model.name_or_path,
        revision=model.revision,
        gguf_file=model.gguf_file,
        tokenizer=model.tokenizer,
        trust_remote_code=model.trust_remote_code,
        peft=None if config.peft is None else config.peft.model_dump(),
        quantize=model.quantize,
        seed=config.training_seed,
        chat_template=chat_template(model.chat_template),
    )
