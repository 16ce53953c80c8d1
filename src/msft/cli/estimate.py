"""The cost of a job, computed before any weight is loaded: the numbers of `msft check`."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from msft.cli.bounds import most_epochs, probe_tokens, whole_tokens
from msft.cli.estimate_warnings import about_data, about_libraries, about_rhythm, about_space
from msft.cli.fitting import Fit, fit, precision_of
from msft.cli.machines import Machine
from msft.cli.needs import HostNeeds, Needs, host_needs, needs_of, packed_of
from msft.config.schema import Config
from msft.core.averages import Averaging
from msft.core.clock import Clock
from msft.core.vocabulary import Mixture
from msft.data.examples import TaskData
from msft.model.memory import CardPlan, card_memory, training_bytes
from msft.model.open import non_embedding_parameters
from msft.model.precision import Precision, precision_on
from msft.model.quantised import Packed
from msft.run.job import UNSCORED, Job
from msft.run.open_store import SNAPSHOT_MEMORY
from msft.run.scoring_cost import generated_tokens, scored_tokens
from msft.snapshots.state import trainable
from msft.snapshots.store import IN_PASSING

FLOAT = 4
"""Bytes of an fp32 number."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """The whole job. Tokens, FLOPs and bytes are upper bounds: the end of the search is not known in advance."""

    method: str
    parts: tuple[Part, ...]
    validation: Mapping[str, int]
    """Sub-dataset of the search (a data set, or a group) -> validation items."""
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
    aggregate: Chooser | None
    """What chooses the final model, if it is not the average over sub-datasets."""
    refit: bool
    """Whether a run on all rows follows the search; FLOPs and epochs count it."""
    held_out: int
    """Rows that are held out until then."""
    score_excluded: str | None
    """When excluded sub-datasets are scored, `auto` decided; None: the method excludes none."""
    snapshot_bytes: int
    snapshots: int | None
    """Maximum number kept at once, with `snapshots.max` if set; None: the method's outlook gives no bound."""
    unbounded_snapshots: int | None
    """The same without `snapshots.max`."""
    disk_bytes: int | None
    """Snapshots and the final model."""
    free_disk_bytes: int
    precision: Precision
    moment_bytes: int
    """What the optimizer keeps of all weights."""
    packed: Packed
    """What is held in 4 or 8 bits."""
    training_bytes: int
    """Memory of weights, gradients, moments and averages, without activations."""
    needs: Needs
    """The memory of one process, by use."""
    host: HostNeeds
    """What is taken of the machine's own memory."""
    fit: Fit | None
    """Whether it fits on the machine that was asked for; None: none was."""
    card: CardPlan | None
    """The memory of one process on a GPU; None without one."""
    averaging: Averaging | None
    """How the weights are averaged; None: they are not."""
    snapshot_memory_bytes: int
    """Maximum memory of snapshots, including those being written; the others are on disk only."""
    warnings: tuple[str, ...]


def estimate(job: Job, *, jobs: int = 1, gpu_bytes: int | None = None, machine: Machine | None = None) -> Estimate:
    """The estimate of a job whose data have been read and whose model exists as a skeleton only.

    `jobs`: runs at the same time that share the GPU; `gpu_bytes`: of its memory, None: of the GPU that is here.
    `machine`: what the job is to run on, in place of the machine that is here.
    """
    method, data = job.config.method, job.data
    each = {
        task: [part_of(one, job.model.tokenizer, task if found.members else None) for one in found.each]
        for task, found in data.items()
        if not found.aggregate
    }
    parts = tuple(part for members in each.values() for part in members)
    brief = job.brief(UNSCORED)
    mixture = Mixture(tasks=brief.tasks)
    clock = Clock.of(brief)
    steps = clock.steps_per_epoch(mixture)
    ticks = len(clock.ticks(mixture, steps))
    taken = [sum(round(part.tokens * part.times) for part in members) for members in each.values()]
    tokens = sum(taken)
    outlook = job.outlook
    epochs = most_epochs(
        method.definition, brief, taken, whole_tokens([found for found in data.values() if not found.aggregate], taken)
    )
    aggregate = next((found for found in data.values() if found.aggregate), None)
    chooses = 0 if aggregate is None else scored_tokens(aggregate.validation, aggregate.measure)
    scored = sum(part.validation_tokens for part in parts) + chooses
    counted = non_embedding_parameters(job.skeleton)
    all_parameters = sum(parameter.numel() for parameter in job.skeleton.parameters())
    trained = sum(parameter.numel() for parameter in trainable(job.skeleton).values())
    wanted, bound = outlook.snapshots, job.config.snapshots.max
    # The limit holds between segments: at the end of a segment, its own snapshot is held too.
    kept = min((n for n in (wanted, None if bound is None else bound + 1) if n is not None), default=None)
    snapshot = job.snapshot_bytes
    window = job.config.training.average
    precision, card_bytes = _hardware(job.config, gpu_bytes, machine)
    longest = max(part.longest for part in parts)
    processes = 1 if machine is None else machine.count
    needs = needs_of(
        job.model, job.config, precision, longest=longest, on_card=card_bytes is not None, processes=processes
    )
    training = training_bytes(
        precision,
        all_parameters,
        trained,
        averaged=window is not None,
        moments=job.moment_bytes,
        packed=(packed := packed_of(job.model)),
        on_host=needs.host > 0,
    )
    card = None
    if card_bytes is not None:
        card = CardPlan(
            card=card_bytes, jobs=jobs, training=needs.state, snapshot=needs.snapshot, on_host=needs.host > 0
        )
    room = int(SNAPSHOT_MEMORY * psutil.virtual_memory().available)
    in_memory = room // snapshot if kept is None else min(kept, room // snapshot)
    final = FLOAT * (trained if job.source.peft else all_parameters)
    tested = 2 * (
        sum(part.test_tokens for part in parts)
        + (0 if aggregate is None else scored_tokens(aggregate.test, aggregate.measure))
    )
    made = Estimate(
        method=method.name,
        parts=parts,
        validation={task: len(found.validation) for task, found in data.items()},
        parameters=all_parameters,
        counted_parameters=counted,
        trained_parameters=trained,
        epoch_tokens=tokens,
        steps_per_epoch=steps,
        ticks_per_epoch=ticks,
        epochs=epochs,
        flops=None
        if epochs is None
        else {
            "train": 6.0 * counted * epochs * tokens,
            "eval": 2.0 * counted * ((1 + epochs * ticks) * scored + tested),
            "probe": 2.0
            * counted
            * probe_tokens(outlook, [part.mean_tokens for part in parts], sum(part.tokens for part in parts)),
        },
        scoring_share=scored * ticks / tokens,
        refit=method.refit,
        aggregate=None
        if aggregate is None
        else Chooser(
            name=aggregate.task,
            scorer=aggregate.measure.name,
            validation=len(aggregate.validation),
            test=len(aggregate.test),
            notes=aggregate.notes,
        ),
        held_out=sum(len(found.held_out) for found in data.values()),
        score_excluded=method.score_excluded if outlook.excludes else None,
        snapshot_bytes=snapshot,
        snapshots=kept,
        unbounded_snapshots=wanted,
        disk_bytes=None if kept is None else kept * snapshot + final,
        free_disk_bytes=_free_disk(Path(job.config.output)),
        precision=precision,
        moment_bytes=job.moment_bytes,
        packed=packed,
        training_bytes=training,
        needs=needs,
        host=host_needs(
            needs,
            card,
            processes=jobs * processes,
            writers=jobs * (processes if job.config.training.shard is True else 1),
            memory=psutil.virtual_memory().total
            if machine is None and (card is None or torch.cuda.is_available())
            else None,
        ),
        fit=None if machine is None else fit(job.model, job.config, machine, longest, jobs=jobs),
        card=card,
        averaging=None if window is None else Averaging(window * steps, job.config.training.average_warmup),
        snapshot_memory_bytes=(in_memory + IN_PASSING) * snapshot,
        warnings=(),
    )
    return replace(
        made,
        warnings=(
            *about_data(made),
            *outlook.warnings,
            *about_libraries(job.libraries),
            *about_rhythm(made, method.eval_every),
            *about_space(made),
        ),
    )


def _hardware(config: Config, gpu_bytes: int | None, machine: Machine | None) -> tuple[Precision, int | None]:
    """The precision of the run, and the GPU's memory in bytes; None without one."""
    if machine is not None:
        return precision_of(config, machine), machine.card
    here = torch.cuda.is_available()
    if here and gpu_bytes is None:
        gpu_bytes = card_memory(torch.device("cuda"))
    asked = config.model.precision
    if gpu_bytes is not None and not here:  # a GPU that is planned for: today's have bf16
        return "mixed" if asked == "auto" else asked, gpu_bytes
    return precision_on(torch.device("cuda" if here else "cpu"), asked), gpu_bytes


def part_of(data: TaskData, tokenizer: Any, group: str | None = None) -> Part:
    """The numbers of one data set."""
    lengths = np.array([len(example) for example in data.train])
    measure = data.measure
    return Part(
        task=data.task,
        group=group,
        train=len(lengths),
        taken=data.size,
        tokens=int(lengths.sum()),
        mean_tokens=float(lengths.mean()),
        p95_tokens=int(np.percentile(lengths, 95, method="higher")),
        longest=int(lengths.max()),
        trained_share=sum(example.targets for example in data.train) / int(lengths.sum()),
        scorer=measure.name if measure.normalize == "none" else f"{measure.name}/{measure.normalize}",
        validation=len(data.validation),
        validation_tokens=scored_tokens(data.validation, measure),
        generated_tokens=generated_tokens(data.validation, measure),
        test=len(data.test),
        test_tokens=scored_tokens(data.test, measure),
        ends=tuple(map(str, tokenizer.convert_ids_to_tokens(list(data.ends)))),
        notes=data.notes,
    )


def _free_disk(output: Path) -> int:
    """Free bytes on the disk of the run folder."""
    place = output.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
