"""An entry of `datasets`: where its rows come from, how they become text, and how they are split and scored."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator

from msft.config.columns import AnswerIs, Columns, FormatName, no_jinja, not_empty
from msft.config.plain_text import PathText, Text
from msft.config.problems import SAFE, Problem, ProblemsError, unsafe_name
from msft.config.scorer import ScorerConfig
from msft.config.section import Section
from msft.config.temperature import MOST_REPEATS

Scalar: TypeAlias = str | int | float | bool | None
# Strict tuples refuse lists, and YAML has only lists.
Values: TypeAlias = Annotated[tuple[Scalar, ...], Field(strict=False), AfterValidator(not_empty)]
TemplateText: TypeAlias = Annotated[Text, AfterValidator(no_jinja)]
Where: TypeAlias = dict[str, Scalar | Values]


class TemplateConfig(Section):
    """How a row becomes text: `{column}` is replaced by the row's value, `{{` and `}}` by literal braces."""

    prompt: TemplateText
    """The text that the model is given."""
    completion: TemplateText | None = None
    """The text that the model learns; null: the `completion` column, or the correct choice."""


class SplitConfig(Section):
    """A validation or test split. With `path`, `split` or `where` it is read; otherwise carved from the train rows."""

    path: PathText | None = None
    """Hub id, folder, file or glob; null: the data set's own path."""
    split: Text | None = None
    """Name of the split on the hub (a file has only `train`); null: the data set's own split."""
    where: Where | None = None
    """Rows to use, as for the data set, whose own `where` is not inherited; null: all rows."""
    max_samples: int | None = Field(default=None, ge=1)
    """Maximum number of examples (a seeded sample)."""
    fraction: float | None = Field(default=None, gt=0, lt=1)
    """Share of the training rows to carve."""

    @property
    def given(self) -> bool:
        """Whether the split is read from other rows, not carved from the training rows."""
        return self.path is not None or self.split is not None or self.where is not None

    @model_validator(mode="after")
    def _carve_or_read(self) -> SplitConfig:
        if self.given and self.fraction is not None:
            found = "fraction carves from the training rows, but path, split or where name other rows"
            raise ProblemsError([Problem(found, "use max_samples instead", ("fraction",))])
        return self


class DatasetConfig(Section):
    """One sub-dataset of the mixture."""

    own_rows: ClassVar[str] = "training"
    """What its rows are that no split takes, for messages."""

    id: str
    """Unique name of the sub-dataset, used in file names, tables and messages."""
    path: PathText
    """Hub id, folder, .jsonl/.ndjson/.json/.parquet/.csv/.tsv file or glob, address such as `s3://bucket/a.jsonl`, or
    `reasoning_gym:<task>`. Required, here or in `dataset_defaults`."""
    name: Text | None = None
    """Name of the data set's configuration on the hub."""
    revision: Text | None = None
    """Branch, tag or commit on the hub."""
    split: Text = "train"
    """Name of the split to train on."""
    where: Where | None = None
    """Rows to use: column -> the value, or a list of values, that a row must have there; null: all rows. The values of
    .csv and .tsv files are texts; a number here means its text."""
    max_samples: int | None = Field(default=None, ge=1)
    """Maximum number of training examples (a seeded sample), counted after validation and test are carved."""
    format: FormatName | None = None
    """Format of the rows; null: detected from the columns."""
    columns: Columns | None = None
    """Role -> column. Choices may be spread over several columns: with `choices: [opa, opb, opc, opd]`, the answer is a
    position from 0, a letter from A or the text of the correct choice; with `choices: {"1": option1, "2": option2}`,
    the answer is one of these names. If the answer column is itself one of the choices (`choices: [distractor1,
    distractor2, correct_answer], answer: correct_answer`), it holds the correct choice, and the choices are shuffled,
    in the same way in every run."""
    answer_is: AnswerIs | None = None
    """What the answer is, where choices have no labels: `position` (from 0), `position_from_1`, `letter` (from A), or
    `text` of the correct choice; null: whichever it can be read as, and an error if readings differ."""
    template: TemplateConfig | None = None
    """How a row becomes text, in place of a format."""
    validation: SplitConfig | None = None
    """The validation split; null: 10 % of the training rows, at least 50 but at most half of them."""
    test: SplitConfig | None = None
    """The test split, on which the base model and the final model are scored once, at the end; null: no test."""
    scorer: ScorerConfig | None = None
    """How the sub-dataset is scored; null: `choice` of text if the rows have choices and an answer, else `loss`."""
    group: Text | None = None
    """Name of a group: entries that name the same one share their validation sets, have one score curve and are
    excluded together. Each keeps its own files, columns, template and `repeat`, and its own test score. An entry of a
    group without `validation` gives no validation items; where no entry has one, each gives the same share of its rows,
    10 % or what makes 50 items."""
    split_by: Text | None = None
    """A column: the rows of each of its values become a separate sub-dataset `<id>.<value>`."""
    license: Text | None = None
    """The data's licence, such as `cc-by-4.0`; written to the model card only."""
    repeat: float | None = Field(default=None, gt=0, le=MOST_REPEATS)
    """How often an epoch takes each training example (0.5: half of them in each epoch); null: once. It counts before
    `data.mixing`, which changes it unless that is `size`."""
    config: dict[str, Any] | None = None
    """Keyword arguments of a reasoning-gym task, including `seed` and `size`."""

    @field_validator("id")
    @classmethod
    def _a_safe_name(cls, name: str) -> str:
        if reason := unsafe_name(name):
            raise ProblemsError([Problem(reason, SAFE)])
        return name

    @property
    def field(self) -> str:
        """Where it stands in the configuration, for messages."""
        return f"datasets.{self.id}"

    @model_validator(mode="after")
    def _consistent(self) -> DatasetConfig:
        problems = [
            Problem(
                f"the {kind} split would be the {self.own_rows} rows themselves",
                "name another path, split or where, or carve with fraction or max_samples",
                (kind,),
            )
            for kind, split in (("validation", self.validation), ("test", self.test))
            if split is not None and split.given and self._same_rows(split)
        ]
        if self.format is not None and self.template is not None:
            problems.append(Problem("format and template exclude each other", "remove one of them", ("format",)))
        if self.config is not None and not self.path.startswith("reasoning_gym:"):
            problems.append(Problem("only reasoning_gym data sets take a config", "remove it", ("config",)))
        if problems:
            raise ProblemsError(problems)
        return self

    def _same_rows(self, split: SplitConfig) -> bool:
        path, part = split.path or self.path, split.split or self.split
        return path == self.path and part == self.split and (split.where or None) == (self.where or None)
