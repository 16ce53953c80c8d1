"""The cost of a job, computed before any weight is loaded: the numbers of `msft check`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msft.cli.bounds import most_epochs, probe_tokens, whole_tokens
from msft.cli.estimate import Chooser, Estimate, Kept, Memory, Part, Work
from msft.cli.estimate_warnings import about_data, about_length, about_libraries, about_rate, about_rhythm, about_space
from msft.cli.fitting import fit, precision_of
from msft.cli.machines import Machine
from msft.cli.needs import host_needs, needs_of, packed_of
from msft.config.schema import Config
from msft.core.averages import Averaging
from msft.core.clock import Clock
from msft.core.vocabulary import Mixture
from msft.data.examples import TaskData
from msft.model.limits import positions_of
from msft.model.memory import CardPlan, card_memory
from msft.model.open import non_embedding_parameters
from msft.model.precision import Precision, precision_on
from msft.run.job import UNSCORED, Job
from msft.run.open_store import SNAPSHOT_MEMORY
from msft.run.resume import least_room
from msft.run.scoring_cost import generated_tokens, scored_tokens
from msft.snapshots.state import trainable
from msft.snapshots.store import IN_PASSING
from msft.system.host import host_memory

FLOAT = 4
"""Bytes of an fp32 number."""


def estimate(job: Job, *, jobs: int = 1, gpu_bytes: int | None = None, machine: Machine | None = None) -> Estimate:
    """The estimate of a job whose data have been read and whose model exists as a skeleton only.

    `jobs`: runs at the same time that share the GPU; `gpu_bytes`: of its memory, None: of the GPU that is here.
    `machine`: what the job is to run on, in place of the machine that is here.
    """
    method, data, window = job.config.method, job.data, job.config.training.average
    each = [
        [part_of(one, job.model.tokenizer, task if found.members else None) for one in found.each]
        for task, found in data.items()
        if not found.aggregate
    ]
    parts = tuple(part for members in each for part in members)
    aggregate = next((found for found in data.values() if found.aggregate), None)
    work = _work(job, each, aggregate)
    memory = _memory(job, max(part.longest for part in parts), jobs, gpu_bytes, machine)
    made = Estimate(
        **vars(work),
        **vars(_kept(job, work)),
        **vars(memory),
        method=method.name,
        parts=parts,
        validation={task: len(found.validation) for task, found in data.items()},
        aggregate=None if aggregate is None else _chooser(aggregate),
        refit=method.refit,
        held_out=sum(len(found.held_out) for found in data.values()),
        score_excluded=method.score_excluded if job.outlook.excludes else None,
        averaging=None
        if window is None
        else Averaging(window * work.steps_per_epoch, job.config.training.average_warmup),
        warnings=(),
    )
    return replace(
        made,
        warnings=(
            *about_data(made),
            *about_length(made.parts, job.config.data.max_length, positions_of(job.skeleton)),
            *job.outlook.warnings,
            *about_libraries(job.libraries),
            *about_rate(job.config.training, adapter=job.source.peft is not None),
            *about_rhythm(made, method.eval_every),
            *about_space(made),
        ),
    )


def _work(job: Job, each: Sequence[Sequence[Part]], aggregate: TaskData | None) -> Work:
    """`each`: the data sets of each sub-dataset; `aggregate`: what is only scored."""
    parts = [part for members in each for part in members]
    brief = job.brief(UNSCORED)
    clock, mixture = Clock.of(brief), Mixture(tasks=brief.tasks)
    steps = clock.steps_per_epoch(mixture)
    ticks = len(clock.ticks(mixture, steps))
    taken = [sum(round(part.tokens * part.times) for part in members) for members in each]
    tokens = sum(taken)
    trained = [found for found in job.data.values() if not found.aggregate]
    epochs = most_epochs(job.config.method.definition, brief, taken, whole_tokens(trained, taken))
    scored, tested = sum(part.validation_tokens for part in parts), sum(part.test_tokens for part in parts)
    if aggregate is not None:
        scored += scored_tokens(aggregate.validation, aggregate.measure)
        tested += scored_tokens(aggregate.test, aggregate.measure)
    counted = non_embedding_parameters(job.skeleton)
    flops = None
    if epochs is not None:
        probed = probe_tokens(job.outlook, [part.mean_tokens for part in parts], sum(part.tokens for part in parts))
        flops = {
            "train": 6.0 * counted * epochs * tokens,
            "eval": 2.0 * counted * ((1 + epochs * ticks) * scored + 2 * tested),  # the base model is tested too
            "probe": 2.0 * counted * probed,
        }
    return Work(
        parameters=sum(parameter.numel() for parameter in job.skeleton.parameters()),
        counted_parameters=counted,
        trained_parameters=sum(parameter.numel() for parameter in trainable(job.skeleton).values()),
        epoch_tokens=tokens,
        steps_per_epoch=steps,
        ticks_per_epoch=ticks,
        epochs=epochs,
        flops=flops,
        scoring_share=scored * ticks / tokens,
    )


def _kept(job: Job, work: Work) -> Kept:
    snapshot, wanted, bound = job.snapshot_bytes, job.outlook.snapshots, job.config.snapshots.max
    # The limit holds between segments: at the end of a segment, its own snapshot is held too.
    kept = min((n for n in (wanted, None if bound is None else bound + 1) if n is not None), default=None)
    room = int(SNAPSHOT_MEMORY * host_memory().available) // snapshot
    final = FLOAT * (work.trained_parameters if job.source.peft else work.parameters)
    return Kept(
        snapshot_bytes=snapshot,
        snapshots=kept,
        unbounded_snapshots=wanted,
        snapshot_memory_bytes=((room if kept is None else min(kept, room)) + IN_PASSING) * snapshot,
        disk_bytes=None if kept is None else kept * snapshot + final,
        least_disk_bytes=least_room(snapshot, job.model_bytes),
        free_disk_bytes=_free_disk(Path(job.config.output)),
    )


def _memory(job: Job, longest: int, jobs: int, gpu_bytes: int | None, machine: Machine | None) -> Memory:
    """`longest`: tokens of the longest example."""
    precision, card_bytes = _hardware(job.config, gpu_bytes, machine)
    processes = 1 if machine is None else machine.count
    needs = needs_of(
        job.model, job.config, precision, longest=longest, on_card=card_bytes is not None, processes=processes
    )
    card = None
    if card_bytes is not None:
        on_host = needs.host > 0
        card = CardPlan(card=card_bytes, jobs=jobs, training=needs.state, snapshot=needs.snapshot, on_host=on_host)
    here = machine is None and (card is None or torch.cuda.is_available())
    return Memory(
        precision=precision,
        moment_bytes=job.moment_bytes,
        packed=packed_of(job.model),
        training_bytes=needs.state - needs.exchange,
        needs=needs,
        host=host_needs(
            needs,
            card,
            processes=jobs * processes,
            writers=jobs * (processes if job.config.training.shard is True else 1),
            memory=host_memory().total if here else None,
            targets=_target_bytes(job),
        ),
        fit=None if machine is None else fit(job.model, job.config, machine, longest, jobs=jobs),
        card=card,
    )


def _target_bytes(job: Job) -> int:
    """Of what a teacher predicts for the training examples: a token and its probability, each in four bytes."""
    if not job.outlook.soft_targets:
        return 0
    parts, whole = job.data.values(), job.config.method.refit
    trained = sum(example.targets for part in parts for example in part.examples(whole=whole))
    return 8 * job.outlook.soft_targets * trained


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
        left_out_tokens=data.left_out,
        without_chat_template=data.without_chat_template,
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


def _chooser(aggregate: TaskData) -> Chooser:
    return Chooser(
        name=aggregate.task,
        scorer=aggregate.measure.name,
        validation=len(aggregate.validation),
        test=len(aggregate.test),
        notes=aggregate.notes,
    )


def _free_disk(output: Path) -> int:
    """Free bytes on the disk of the run folder."""
    place = output.resolve()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
