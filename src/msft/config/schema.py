"""The schema of a configuration file (design 4). It validates every value."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    field_validator,
    model_validator,
)

from msft.config.aggregate import AggregateConfig, check_aggregate
from msft.config.columns import not_empty
from msft.config.dataset_section import DatasetConfig
from msft.config.groups import check_groups
from msft.config.method_section import MethodConfig, resolve
from msft.config.peft_section import PeftConfig, check_quantised
from msft.config.plain_text import Day, PathText, Text
from msft.config.problems import Problem, ProblemsError, folded, not_portable
from msft.config.section import Section
from msft.config.temperature import MixingConfig, check_repeats
from msft.config.training_section import AVERAGE, TrainingConfig
from msft.core.vocabulary import LATER

MethodSection: TypeAlias = Annotated[
    InstanceOf[MethodConfig], BeforeValidator(resolve), PlainSerializer(MethodConfig.as_dict)
]


class ModelConfig(Section):
    """The base model."""

    name_or_path: PathText
    """Hub id, or a folder that `AutoModelForCausalLM.from_pretrained` can read."""
    revision: Text | None = None
    """Branch, tag or commit on the hub."""
    gguf_file: Text | None = None
    """Name of the GGUF file in the folder, if the weights are in one."""
    tokenizer: Text | None = None
    """Hub id or folder of a tokenizer that replaces the model's own."""
    trust_remote_code: bool = False
    """Run code that comes with the model; requires `revision`, the commit whose code you have read."""
    precision: Literal["auto", "mixed", "autocast", "fp32"] = "auto"
    """Precision of training and evaluation (design 3.5). `mixed`: the model computes with bf16 copies of fp32 weights;
    `autocast`: with fp32 weights, which matrix products convert to bf16; `fp32`: in fp32. `auto`: `mixed` on a GPU,
    `autocast` on a CPU, and `fp32` where the hardware has no native bf16."""
    quantize: Annotated[Literal["nf4", "fp4", "int8"] | None, LATER] = None
    """Hold the base's linear layers in 4 bits (`nf4`, as QLoRA, or `fp4`) or 8 bits (`int8`), by bitsandbytes; needs
    `peft`, as only an adapter can be trained on them. Output head and embeddings stay as they are; in 4 bits the scales
    are quantised too. They compute in the type of `precision`."""
    chat_template: Text | None = None
    """Jinja text, or a file that contains it, that replaces the tokenizer's own chat template."""
    license: Text | None = None
    """The base model's licence, such as `apache-2.0`; written to the model card only."""


class DataConfig(Section):
    """Settings of all sub-datasets."""

    seed: int = Field(default=20, ge=0, lt=2**32)
    """Seed of samples and carved splits; also of training, if `training.seed` is not given."""
    leaks: Literal["error", "drop", "warn"] = "drop"
    """What to do with training examples that are also, exactly or nearly, in a validation or test split of any
    sub-dataset: raise an error, drop them from training, or only warn."""
    max_length: int = Field(default=1024, ge=2)
    """Maximum tokens per example; longer examples are truncated at the end."""
    bad_rows: Annotated[Literal["error", "drop"], LATER] = "error"
    """What to do with rows that cannot be used, such as lines that are not JSON, or rows without an answer: raise an
    error that lists them, or leave them out before the splits are made and list them in the notes. More than 10 % of a
    sub-dataset's rows are always an error, as is a file that cannot be read. `drop` also leaves out more than 10 % of
    the examples where `max_length` leaves no learned token of them."""
    mixing: Annotated[MixingConfig, LATER] = "size"
    """How many examples an epoch takes of each sub-dataset: all (`size`), as many of each (`equal`), or numbers between
    these (`{temperature: 2}`). The total stays: small ones are repeated, and of large ones it takes the next part."""
    date: Annotated[Day | None, LATER] = None
    """The day that a chat template with a clock (`strftime_now`) writes, as YYYY-MM-DD; null: the day on which the run
    began, which the run keeps."""


class SnapshotsConfig(Section):
    """How snapshots are kept (design 3.8)."""

    durable: Literal["auto", "tick", "rollout"] = "auto"
    """Which snapshots survive a crash: all (`tick`), those at the ends of roll-outs (`rollout`), or these
    and others, so often that writing takes at most 1 % of the training (`auto`)."""
    max: int | None = Field(default=None, ge=1)
    """Maximum number of snapshots kept (plus one while the next is made); null: keep all that the method may still
    need. A dropped snapshot is trained again, bit for bit, if it is needed. With 3, snapshots take at most 2 times, and
    on average up to 1.5 times, the space of plain fine-tuning that keeps its latest and its best snapshot; with fewer,
    much is trained again (docs/performance.md)."""


class Config(Section):
    """The configuration of a job."""

    model: ModelConfig
    method: MethodSection = Field(default_factory=lambda: resolve({"name": "msft"}))
    datasets: Annotated[tuple[DatasetConfig, ...], Field(strict=False), AfterValidator(not_empty)]
    aggregate: AggregateConfig | None = None
    """Validation items of the whole mixture, whose score alone chooses the final model; null: the average over the
    sub-datasets does. `dataset_defaults` do not apply to it."""
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    peft: PeftConfig | None = None
    snapshots: SnapshotsConfig = SnapshotsConfig()
    output: PathText
    """The run folder, relative to the working directory."""

    @property
    def scored(self) -> tuple[DatasetConfig, ...]:
        """What has validation items: the data sets, and the aggregate last."""
        return self.datasets if self.aggregate is None else (*self.datasets, self.aggregate)

    @property
    def training_seed(self) -> int:
        """`training.seed`, or `data.seed` if it is not given."""
        return self.data.seed if self.training.seed is None else self.training.seed

    @field_validator("datasets")
    @classmethod
    def _distinct(cls, datasets: tuple[DatasetConfig, ...]) -> tuple[DatasetConfig, ...]:
        seen: dict[str, str] = {}
        problems = []
        for position, dataset in enumerate(datasets):
            name = folded(dataset.id)
            if name in seen:
                found = f"the id {dataset.id!r} is taken: {seen[name]!r} is the same name if case and width are ignored"
                problems.append(Problem(found, "give each data set its own id", (position, "id")))
            seen.setdefault(name, dataset.id)
            if reason := not_portable(dataset.id):
                problems.append(Problem(reason, "give it another id", (position, "id")))
        if problems:
            raise ProblemsError(problems)
        return datasets

    @model_validator(mode="after")
    def _averages_what_is_read(self) -> Config:
        """A method that reads averaged weights gets them, unless the configuration says null."""
        if not self.method.definition.averaged or self.training.average is not None:
            return self
        if "average" in self.training.model_fields_set:
            found = f"the method {self.method.name} reads averaged weights, and training.average is null"
            raise ProblemsError([Problem(found, "give a number of epochs, such as 1", ("training", "average"))])
        averaged = self.training.model_copy(update={"average": AVERAGE})
        object.__setattr__(self, "training", averaged)  # the model is frozen once it is validated
        return self

    @model_validator(mode="after")
    def _quantised_as_is_possible(self) -> Config:
        if self.model.quantize is not None:
            check_quantised(adapter=self.peft is not None, compiled=self.training.torch_compile)
        return self

    @model_validator(mode="after")
    def _aggregate_chooses(self) -> Config:
        if self.aggregate is not None:
            check_aggregate(self.aggregate, self.datasets, self.method)
        return self

    @model_validator(mode="after")
    def _groups_can_be_formed(self) -> Config:
        check_groups(self.datasets)
        return self

    @model_validator(mode="after")
    def _repeat_has_an_effect(self) -> Config:
        check_repeats(self.data.mixing, [dataset.repeat for dataset in self.datasets])
        return self

    @model_validator(mode="after")
    def _trains_again_the_same(self) -> Config:
        if self.training.deterministic is False and self.snapshots.max is not None:
            found = "a dropped snapshot is trained again, which gives the same bits only with deterministic training"
            fix = "leave out training.deterministic, or set snapshots.max: null"
            raise ProblemsError([Problem(found, fix, ("snapshots", "max"))])
        return self

    @model_validator(mode="after")
    def _refit_has_rows(self) -> Config:
        read = [dataset.validation is not None and dataset.validation.given for dataset in self.datasets]
        shared = {dataset.group for dataset in self.datasets if dataset.group and dataset.validation is not None}
        none = [dataset.validation is None and dataset.group in shared for dataset in self.datasets]
        if self.method.refit and all(a or b for a, b in zip(read, none, strict=True)):
            found = "no row is held out: every validation split is read from elsewhere"
            fix = "remove refit; training already takes all rows"
            raise ProblemsError([Problem(found, fix, ("method", "refit"))])
        return self

    @model_validator(mode="after")
    def _schedule_has_an_end(self) -> Config:
        needs = [
            key
            for key, on in (("schedule", self.training.schedule != "constant"), ("warmup", self.training.warmup))
            if on
        ]
        if needs and self.method.max_epochs is None:
            problems = [
                Problem(
                    "it is a function of position / max_epochs, but the method sets no max_epochs",
                    "give method.max_epochs",
                    ("training", key),
                )
                for key in needs
            ]
            raise ProblemsError(problems)
        return self
