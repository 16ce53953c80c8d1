"""What `msft check` says of a job, as numbers: `msft.cli.job_costs` computes them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from msft.cli.fitting import Fit
from msft.cli.needs import HostNeeds, Needs
from msft.core.averages import Averaging
from msft.model.memory import CardPlan
from msft.model.precision import Precision
from msft.model.quantised import Packed


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One data set."""

    task: str
    group: str | None
    """The group that it belongs to."""
    train: int
    """Different training examples."""
    taken: int
    """Training examples that an epoch takes."""
    tokens: int
    """Of the different training examples."""
    left_out_tokens: int
    """Of the training examples, left out by truncation."""
    without_chat_template: bool
    """Whether its prompts and completions are learned as they stand, though the model has a chat template."""
    mean_tokens: float
    p95_tokens: int
    longest: int
    trained_share: float
    """Share of the tokens that are learned."""
    scorer: str
    validation: int
    validation_tokens: int
    """Maximum tokens of one scoring: a prefix that options share counts once, and generated texts are assumed to have
    `max_new_tokens` tokens."""
    generated_tokens: int
    """The part of `validation_tokens` that is generation: the prompts again, and the new tokens."""
    test: int
    test_tokens: int
    ends: tuple[str, ...]
    """The texts of the tokens at which a generated text ends."""
    notes: tuple[str, ...]

    @property
    def times(self) -> float:
        """How often an epoch takes each training example."""
        return self.taken / self.train

    @property
    def validation_error(self) -> float:
        """The largest standard error of an accuracy over the validation items (that at an accuracy of one half)."""
        return 0.5 / math.sqrt(self.validation) if self.validation else math.nan

    @property
    def test_error(self) -> float:
        return 0.5 / math.sqrt(self.test) if self.test else math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """The aggregate: items that are only scored."""

    name: str
    scorer: str
    validation: int
    test: int
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is computed: tokens and FLOPs are upper bounds, as the end of the search is not known in advance."""

    parameters: int
    counted_parameters: int
    """Parameters outside the embeddings: P of the cost formula."""
    trained_parameters: int
    epoch_tokens: int
    """Training tokens of an epoch of the whole mixture."""
    steps_per_epoch: int
    ticks_per_epoch: int
    epochs: float | None
    """Maximum training in passes over the whole mixture, roll-backs included; None: the method's outlook gives no
    bound."""
    flops: Mapping[str, float] | None
    """train, eval, probe; None if there is no bound on epochs."""
    scoring_share: float
    """Validation tokens scored per training token while all sub-datasets are active."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Snapshots, in memory and on disk; bytes are upper bounds."""

    snapshot_bytes: int
    snapshots: int | None
    """Maximum number kept at once, with `snapshots.max` if set; None: the method's outlook gives no bound."""
    unbounded_snapshots: int | None
    """The same without `snapshots.max`."""
    snapshot_memory_bytes: int
    """Maximum memory of snapshots, including those being written; the others are on disk only."""
    disk_bytes: int | None
    """Snapshots and the final model."""
    least_disk_bytes: int
    """Without which the run does not begin: two snapshots, the model and a reserve."""
    free_disk_bytes: int


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What training takes of a device's memory, and of the machine's own."""

    precision: Precision
    moment_bytes: int
    """What the optimizer keeps of all weights."""
    packed: Packed
    """What is held in 4 or 8 bits."""
    training_bytes: int
    """Memory of weights, gradients, moments and averages of one process, without activations."""
    needs: Needs
    """The memory of one process, by use."""
    host: HostNeeds
    """What is taken of the machine's own memory."""
    fit: Fit | None
    """Whether it fits on the machine that was asked for; None: none was."""
    card: CardPlan | None
    """The memory of one process on a GPU; None without one."""


@dataclass(frozen=True, kw_only=True)
class Estimate(Work, Kept, Memory):
    """The whole job."""

    method: str
    parts: tuple[Part, ...]
    validation: Mapping[str, int]
    """Sub-dataset of the search (a data set, or a group) -> validation items."""
    aggregate: Chooser | None
    """What chooses the final model, if it is not the average over sub-datasets."""
    refit: bool
    """Whether a run on all rows follows the search; FLOPs and epochs count it."""
    held_out: int
    """Rows that are held out until then."""
    score_excluded: str | None
    """When excluded sub-datasets are scored, `auto` decided; None: the method excludes none."""
    averaging: Averaging | None
    """How the weights are averaged; None: they are not."""
    warnings: tuple[str, ...]
