"""The schema of a configuration file (design 4). Every value is validated here, where it is defined."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    field_validator,
    model_validator,
)

from msft.config.columns import Columns, FormatName, Names, no_jinja, not_empty
from msft.config.method_section import LATER, STRICT, MethodConfig, resolve
from msft.config.problems import Problem, ProblemsError, folded, not_portable
from msft.config.scorer import ScorerConfig

Scalar: TypeAlias = str | int | float | bool | None
# Strict tuples refuse lists, and YAML has nothing else.
Values: TypeAlias = Annotated[tuple[Scalar, ...], Field(strict=False), AfterValidator(not_empty)]


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ProblemsError([Problem("found an empty text", "give a value")])
    return text


Text: TypeAlias = Annotated[str, AfterValidator(_not_blank)]
TemplateText: TypeAlias = Annotated[Text, AfterValidator(no_jinja)]
Where: TypeAlias = dict[str, Scalar | Values]
MethodSection: TypeAlias = Annotated[
    InstanceOf[MethodConfig], BeforeValidator(resolve), PlainSerializer(MethodConfig.as_dict)
]


class Section(BaseModel):
    """A frozen part of the configuration that refuses unknown keys and converts nothing but int to float."""

    model_config = STRICT


class ModelConfig(Section):
    """The base model."""

    name_or_path: Text
    """Hub id, or a folder that `AutoModelForCausalLM.from_pretrained` reads."""
    revision: Text | None = None
    """Branch, tag or commit of the hub."""
    gguf_file: Text | None = None
    """Name of the GGUF file in the folder, where the weights are in one."""
    tokenizer: Text | None = None
    """Hub id or folder of another tokenizer than the model's own."""
    trust_remote_code: bool = False
    """Run code that comes with the model; needs `revision`, the commit whose code was read."""
    autocast: Literal["auto", "bf16", "no"] = "auto"
    """bf16 autocast over fp32 weights; `auto`: where the hardware really has it (design 3.5)."""
    chat_template: Text | None = None
    """Jinja text, or a file that holds it, in place of the tokenizer's own chat template."""
    license: Text | None = None
    """The base model's licence, such as `apache-2.0`; only the model card says it."""


class TemplateConfig(Section):
    """How a row becomes text: `{column}` is replaced by the row's value, `{{` and `}}` are braces."""

    prompt: TemplateText
    """What is read."""
    completion: TemplateText | None = None
    """None: the `completion` column, or the right choice."""


class SplitConfig(Section):
    """A validation or test split. With `path`, `split` or `where` it is read; otherwise carved from the train rows."""

    path: Text | None = None
    """None: the data set's own."""
    split: Text | None = None
    """The hub's name of the split; of a file, `train`."""
    where: Where | None = None
    """The rows to take; the data set's own `where` is not inherited."""
    max_samples: int | None = Field(default=None, ge=1)
    """Examples, a seeded sample."""
    fraction: float | None = Field(default=None, gt=0, lt=1)
    """Share of the training rows to carve."""

    @property
    def given(self) -> bool:
        """Whether the split is read from somewhere, rather than carved."""
        return self.path is not None or self.split is not None or self.where is not None

    @model_validator(mode="after")
    def _carve_or_read(self) -> SplitConfig:
        if self.given and self.fraction is not None:
            found = "fraction carves from the training rows, but path, split or where name other rows"
            raise ProblemsError([Problem(found, "use max_samples instead", ("fraction",))])
        return self


class DatasetConfig(Section):
    """One sub-dataset of the mixture."""

    id: str
    """The name that it has everywhere."""
    path: Text
    """Hub id, folder, .jsonl/.json/.parquet/.csv file or glob, or `reasoning_gym:<task>`."""
    name: Text | None = None
    """The hub's configuration name."""
    revision: Text | None = None
    """Branch, tag or commit of the hub."""
    split: Text = "train"
    """The hub's name of the split to train on."""
    where: Where | None = None
    """Column to the value, or list of values, that the rows to take have."""
    max_samples: int | None = Field(default=None, ge=1)
    """Training examples at most (a seeded sample), after validation and test are carved."""
    format: FormatName | None = None
    """None: known by the columns."""
    columns: Columns | None = None
    """Role to the column that plays it. Choices may lie in several: `choices: [opa, opb, opc, opd]`, where the answer
    is a position from 0, a letter from A or the text of the right one; `choices: {"1": option1, "2": option2}`, where
    the answer is one of the names before the columns. An answer column that is one of the choices' own holds the right
    one (`choices: [distractor1, distractor2, correct_answer], answer: correct_answer`): such choices are shuffled, the
    same way in every run."""
    template: TemplateConfig | None = None
    """In place of a format: how a row becomes text."""
    validation: SplitConfig | None = None
    """None: 10 % of the training rows, at least 50 but never more than half of them."""
    test: SplitConfig | None = None
    """None: nothing is tested. Scored once, at the end: base model and answer."""
    scorer: ScorerConfig | None = None
    """None: `choice` of text where the rows have choices and an answer, else `loss`."""
    split_by: Text | None = None
    """A column: each of its values makes a sub-dataset `<id>.<value>` of its own."""
    license: Text | None = None
    """The data's licence, such as `cc-by-4.0`; only the model card says it."""
    config: dict[str, Any] | None = None
    """Keyword arguments of a reasoning-gym task, `seed` and `size` among them."""

    @field_validator("id")
    @classmethod
    def _a_safe_name(cls, name: str) -> str:
        mend = "use at most 100 bytes of printable characters without / and \\"
        if not name.strip() or name != name.strip():
            raise ProblemsError([Problem("the id is empty or has blanks around it", mend)])
        if name in {".", ".."} or len(name.encode()) > 100 or not name.isprintable() or set(name) & set("/\\"):
            raise ProblemsError([Problem(f"found {name[:60]!a}, which cannot name files and table rows", mend)])
        return name

    @model_validator(mode="after")
    def _consistent(self) -> DatasetConfig:
        problems = [
            Problem(
                f"the {kind} split would be the training rows themselves",
                "name another path, split or where, or carve with fraction or max_samples",
                (kind,),
            )
            for kind, split in (("validation", self.validation), ("test", self.test))
            if split is not None and split.given and self._same_rows(split)
        ]
        if self.format is not None and self.template is not None:
            problems.append(Problem("a template says already what a row becomes", "remove one of them", ("format",)))
        if self.config is not None and not self.path.startswith("reasoning_gym:"):
            problems.append(Problem("only reasoning_gym data sets take a config", "remove it", ("config",)))
        if problems:
            raise ProblemsError(problems)
        return self

    def _same_rows(self, split: SplitConfig) -> bool:
        path, part = split.path or self.path, split.split or self.split
        return path == self.path and part == self.split and (split.where or None) == (self.where or None)


class DataConfig(Section):
    """What holds for all sub-datasets."""

    seed: int = Field(default=20, ge=0, lt=2**32)
    """Decides samples and carved splits; also what `training.seed` does, where that is not given."""
    leaks: Literal["error", "drop", "warn"] = "drop"
    """Training examples that a validation or test split of any sub-dataset holds too, exactly or nearly: refused, left
    out of training, or named only."""
    max_length: int = Field(default=1024, ge=2)
    """Tokens per example; longer ones lose their end."""


class TrainingConfig(Section):
    """The optimizer's steps."""

    seed: int | None = Field(default=None, ge=0, lt=2**32)
    """Decides the order of instances, dropout, an adapter's first weights and the placebo's deal; None: `data.seed`.
    Runs that differ in it alone have the same splits."""
    batch_size: int = Field(default=64, ge=1)
    """Examples per optimizer step, whatever the hardware (design 3.3)."""
    learning_rate: float = Field(default=1e-5, gt=0)
    """Its highest value."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """A function of position / horizon (design 3.12)."""
    warmup: float = Field(default=0.0, ge=0, lt=1)
    """Share of the horizon over which the learning rate rises linearly."""
    optimizer: Literal["adamw"] = "adamw"
    """With betas 0.9 and 0.999, as torch has it."""
    weight_decay: float = Field(default=0.0, ge=0)
    """On matrices only, never on norms and biases."""
    max_grad_norm: float | None = Field(default=None, gt=0)
    """None: gradients are not clipped."""
    loss_reduction: Literal["token", "example"] = "token"
    """Mean over the global batch's trained tokens, or over its examples' means."""
    max_tokens_per_microbatch: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Tokens, any padding included. `auto`: 3,072 on a CPU; on a GPU what fits, found by trial."""
    gradient_checkpointing: bool = False
    """Computes activations again instead of keeping them: slower, less memory."""
    light: Annotated[Literal["auto"] | bool, LATER] = "auto"
    """Layers of the model do less work for the same results, up to rounding: norms, gated MLPs, the last MLP, the head
    and the embedding. `auto`: where a trial at the start shows that they can, and the run's notes say which; false: the
    model computes as transformers wrote it; true: refuse a model of which no layer can."""
    torch_compile: bool = False
    """Compiles the model's layers, which takes a minute or more at the start. On a CPU that needs a C++ compiler."""
    report_to: Annotated[tuple[Literal["tensorboard", "wandb", "trackio", "mlflow"], ...], Field(strict=False)] = ()
    """Where the run is told as it goes on, through Accelerate's trackers."""


class PeftConfig(Section):
    """A LoRA adapter in place of full fine-tuning."""

    r: int = Field(default=16, ge=1)
    """Rank."""
    lora_alpha: float = Field(default=32, gt=0)
    """The adapter's output is scaled by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs that is dropped in training."""
    target_modules: Text | Names = "all-linear"
    """Names of the modules that get an adapter; `all-linear`: all but the output head."""


class SnapshotsConfig(Section):
    """How snapshots are kept (design 3.8)."""

    durable: Literal["auto", "tick", "rollout"] = "auto"
    """Which survive a crash: all, those at the ends of roll-outs, or all while writing one costs little."""
    max: int | None = Field(default=None, ge=1)
    """Held at most between segments; one more while the next is made. null: all that the method may still ask for.
    One that was let go of is trained again, bit for bit, when it is asked for. With 3 they take at most twice, and on
    average up to 1.5 times, what plain fine-tuning that keeps its tip and its best takes; with fewer, much is trained
    again (docs/performance.md)."""


class Config(Section):
    """A whole job."""

    model: ModelConfig
    method: MethodSection = Field(default_factory=lambda: resolve({"name": "msft"}))
    datasets: Annotated[tuple[DatasetConfig, ...], Field(strict=False), AfterValidator(not_empty)]
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    peft: PeftConfig | None = None
    snapshots: SnapshotsConfig = SnapshotsConfig()
    output: Text
    """The run folder, relative to the working directory."""

    @property
    def training_seed(self) -> int:
        """`training.seed`, or where it is not given `data.seed`."""
        return self.data.seed if self.training.seed is None else self.training.seed

    @field_validator("datasets")
    @classmethod
    def _distinct(cls, datasets: tuple[DatasetConfig, ...]) -> tuple[DatasetConfig, ...]:
        seen: dict[str, str] = {}
        problems = []
        for position, dataset in enumerate(datasets):
            name = folded(dataset.id)
            if name in seen:
                found = f"the id {dataset.id!r} is taken: {seen[name]!r} is the same name where case does not count"
                problems.append(Problem(found, "give each data set its own id", (position, "id")))
            seen.setdefault(name, dataset.id)
            if reason := not_portable(dataset.id):
                problems.append(Problem(reason, "give it another id", (position, "id")))
        if problems:
            raise ProblemsError(problems)
        return datasets

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
                    "it is a function of position / max_epochs, and the method sets no max_epochs",
                    "give method.max_epochs",
                    ("training", key),
                )
                for key in needs
            ]
            raise ProblemsError(problems)
        return self
