"""`msft check`: The estimate of a job, for people and for scripts."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from msft.cli.estimate import Chooser, Estimate, Part
from msft.cli.estimate_warnings import about_start
from msft.cli.fit_words import fit_lines, of_host, of_process
from msft.cli.job_costs import estimate
from msft.cli.machines import Machine
from msft.cli.quiet import quiet
from msft.config.schema import Config
from msft.core.averages import Averaging
from msft.core.plain_words import many
from msft.model.memory import CardPlan, each_trained
from msft.report.table import plain_table
from msft.report.words import NOT_KNOWN, clean, listed, scaled
from msft.run.job import Job
from msft.screen.console import new_console

TAKEN = "training examples that an epoch takes, and how often that is each of them (data.mixing, datasets[].repeat)"
PIPED = 160
"""Width of the output if it is not a terminal."""


def run(
    config: Config,
    *,
    jobs: int = 1,
    gpu_bytes: int | None = None,
    machine: Machine | None = None,
    as_json: bool = False,
) -> None:
    """Prints the estimate (see `estimate`). Raises a UserError if configuration, data or model cannot be used."""
    quiet()
    made = estimate(Job.prepare(config), jobs=jobs, gpu_bytes=gpu_bytes, machine=machine)
    made = replace(made, warnings=(*made.warnings, *about_start(Path(config.output), config.training.report_to)))
    if as_json:
        sys.stdout.write(json.dumps(as_dict(made), indent=2, allow_nan=False) + "\n")
    else:
        console = new_console(highlight=False)
        show(made, console if console.is_terminal else new_console(width=PIPED, highlight=False))


def as_dict(made: Estimate) -> dict[str, object]:
    """The estimate as a dictionary, with the standard errors computed from it."""
    plain = asdict(made)
    for part, entry in zip(made.parts, plain["parts"], strict=True):
        entry["validation_error"] = part.validation_error if part.validation else None
        entry["test_error"] = part.test_error if part.test else None
    if made.fit is not None:
        plain["fit"]["fits"] = made.fit.plan.fits
    return plain


def show(made: Estimate, console: Console) -> None:
    """The estimate as tables and sentences; names are printed literally, never as mark-up."""
    console.print(_parts(made))
    for part in made.parts:
        for note in part.notes:
            console.print(Text(f"- {clean(part.task)}: {clean(note)}"), soft_wrap=True)
    for note in made.aggregate.notes if made.aggregate is not None else ():
        console.print(Text(f"- {clean(made.aggregate.name if made.aggregate else '')}: {clean(note)}"), soft_wrap=True)
    console.print()
    for name, value in lines(made):
        console.print(Text.assemble((f"{name:<10}", "bold"), value), soft_wrap=True)
    for warning in made.warnings:
        console.print(Text(f"warning: {clean(warning)}", style="yellow"), soft_wrap=True)


def _parts(made: Estimate) -> Table:
    table = plain_table()
    table.add_column("sub-dataset", overflow="fold")
    taken = ["taken"] if (mixed := _mixed(made)) else []
    for heading in ("train", *taken, "tokens", "mean", "p95", "max", "trained", "scorer", "validation", "test"):
        table.add_column(heading, justify="left" if heading == "scorer" else "right", no_wrap=True)
    for part in made.parts:
        table.add_row(*map(Text, _cells(part, mixed)))
    return table


def _mixed(made: Estimate) -> bool:
    """Whether an epoch does not take each training example once."""
    return any(part.taken != part.train for part in made.parts)


def _cells(part: Part, mixed: bool) -> list[str]:
    rated = part.scorer != "loss"  # whose items have no accuracy
    return [
        clean(part.task),
        f"{part.train:,}",
        *([f"{part.taken:,} ({part.times:.3g}×)"] if mixed else []),
        f"{part.tokens:,}",
        f"{part.mean_tokens:.0f}",
        str(part.p95_tokens),
        str(part.longest),
        f"{part.trained_share:.0%}",
        part.scorer,
        _items(part.validation, part.validation_error if part.group is None and rated else None),
        _items(part.test, part.test_error if rated else None),
    ]


def _items(count: int, error: float | None) -> str:
    """The number of items, with the standard error where they have an accuracy of their own."""
    return f"{count:,}{'' if error is None else f' (±{100 * error:.1f})'}" if count else NOT_KNOWN


def lines(made: Estimate) -> list[tuple[str, str]]:
    """The requirements of the whole job: (name, sentence)."""
    return [
        (
            "model",
            f"{_count(made.parameters)} parameters, {_count(made.counted_parameters)} outside the embeddings, "
            f"{_count(made.trained_parameters)} trained",
        ),
        (
            "epoch",
            f"{many(sum(part.taken for part in made.parts), 'example')}, {made.epoch_tokens:,} tokens, "
            f"{many(made.steps_per_epoch, 'step')}, {many(made.ticks_per_epoch, 'evaluation')}; scoring processes "
            f"{_most(made)}{made.scoring_share:.0%} as many tokens as training",
        ),
        *(("group", _group(made, name)) for name in dict.fromkeys(p.group for p in made.parts) if name is not None),
        *([("aggregate", _aggregate(made.aggregate))] if made.aggregate is not None else []),
        *([("chat", _plain(plain))] if (plain := [p.task for p in made.parts if p.without_chat_template]) else []),
        *([("taken", TAKEN)] if _mixed(made) else []),
        *([("final", _candidates(made.score_excluded))] if made.score_excluded is not None else []),
        *([("refit", _refit(made))] if made.refit else []),
        ("at most", _training(made)),
        ("snapshots", _snapshots(made)),
        ("memory", _memory(made)),
        ("process", of_process(made.needs)),
        ("host", of_host(made.host)),
        *(fit_lines(made.fit) if made.fit is not None else []),
        *([("GPU", _card(made.card, made.snapshots))] if made.card is not None else []),
        *([("average", _average(made.averaging, made.steps_per_epoch))] if made.averaging is not None else []),
        ("ends", _ends(made)),
        ("errors", "± is the largest standard error of an accuracy over this number of items, in percentage points"),
    ]


def _plain(tasks: Sequence[str]) -> str:
    """Sub-datasets that do not use the chat template."""
    return (
        f"{listed(tasks)}: prompts and completions are learned as they stand, without the chat template that the model "
        "has. If the final model is to be asked through it, give the rows as `messages`, or a `template` with its "
        "marks (docs/how_to/conversations.md)"
    )


def _group(made: Estimate, name: str) -> str:
    """What the data sets of a group have in common."""
    members, items = [clean(part.task) for part in made.parts if part.group == name], made.validation[name]
    return (
        f"{clean(name)}: {listed(members)} are one sub-dataset of the search, with one score over {items:,} validation "
        f"items (±{50 / math.sqrt(items):.1f}) and one exclusion; each keeps its own test score"
    )


def _aggregate(found: Chooser) -> str:
    """What chooses the final model."""
    tested = f"; {found.test:,} test items" if found.test else ""
    return (
        f"{clean(found.name)} alone chooses the final model: {found.validation:,} items "
        f"(±{50 / math.sqrt(found.validation):.1f}), scored by {found.scorer} wherever a point may become it, never "
        f"trained on{tested}; each sub-dataset is excluded by its own score"
    )


def _candidates(score_excluded: str) -> str:
    """Which points may become the final model."""
    if score_excluded == "tick":
        return "every evaluation scores all sub-datasets, and may become the final model (score_excluded: tick)"
    return (
        "only roll-back points and ends of roll-outs may become the final model, because other evaluations score the "
        "active sub-datasets only (score_excluded: rollout)"
    )


def _refit(made: Estimate) -> str:
    """What follows the search."""
    return (
        f"{made.held_out:,} rows are held out during the search; then the model is trained again, from the base model, "
        "on all rows and with the exclusions that were found, which the next line counts; the final model has no "
        "validation score of a sub-dataset"
    )


def _memory(made: Estimate) -> str:
    averaged = made.averaging is not None
    what = "weights, gradients, moments and averages" if averaged else "weights, gradients and moments"
    moments = made.moment_bytes / max(made.trained_parameters, 1)
    parts = each_trained(made.precision, averaged=averaged, moments=moments, on_host=made.needs.host > 0)
    each = " + ".join(f"{size:.2g} {name}" for name, size in parts.items())
    if made.packed.parameters:
        few = made.packed.nbytes / made.packed.parameters
        each += f"; {few:.2g} of each of the {_count(made.packed.parameters)} that are quantised"
    return (
        f"{scaled(made.training_bytes, 'B')} for {what}, plus activations ({made.precision}; bytes of each parameter "
        f"that is trained: {each})"
    )


def _card(card: CardPlan, snapshots: int | None) -> str:
    """What each process takes of a GPU. `snapshots`: how many the run holds at most; None: unknown."""
    stay = f"snapshots stay on it up to {card.snapshots}, the others in the memory of the host"
    if snapshots is not None and snapshots <= card.snapshots:
        stay = "all snapshots stay on it"
    shared = "" if card.jobs == 1 else f", shared by {card.jobs} processes: {scaled(card.part, 'B')} each"
    left = scaled(max(card.activations, 0), "B")
    return f"{scaled(card.card, 'B')}{shared}: {left} are left for activations, and {stay}"


def _average(averaging: Averaging, epoch: int) -> str:
    """Over how many steps the weights are averaged, and how old the average is."""
    ages = [f"{averaging.age(epochs * epoch) / epoch:.2g} epochs old after {epochs}" for epochs in (1, 5)]
    return (
        f"evaluations and the final model use weights averaged over {many(round(averaging.window), 'step')}, "
        f"on average {', '.join(ages)}"
    )


def _ends(made: Estimate) -> str:
    """At which tokens a generated text ends; where the sub-datasets differ, for each of them."""
    by_tokens: dict[tuple[str, ...], list[str]] = {}
    for part in made.parts:
        by_tokens.setdefault(part.ends, []).append(clean(part.task))
    listed = {" or ".join(map(clean, ends)): ", ".join(tasks) for ends, tasks in by_tokens.items()}
    which = [tokens if len(listed) == 1 else f"{tokens} ({tasks})" for tokens, tasks in listed.items()]
    return f"a generated text ends at {'; '.join(which)}, as the training examples do"


def _training(made: Estimate) -> str:
    if made.epochs is None or made.flops is None:
        return f"unknown: the method {made.method} gives no bound on its training"
    total = scaled(sum(made.flops.values()), "FLOP")
    kinds = ", ".join(f"{kind} {scaled(count, 'FLOP')}" for kind, count in made.flops.items() if count)
    passes = f"{made.epochs:.4g} {'epoch' if made.epochs == 1 else 'epochs'}"
    return f"training equal to {passes} of the whole mixture ({made.method}), {total} ({kinds})"


def _snapshots(made: Estimate) -> str:
    each, free = scaled(made.snapshot_bytes, "B"), scaled(made.free_disk_bytes, "B")
    if made.snapshots is None or made.disk_bytes is None:
        return f"{each} each; number unknown: the method {made.method} gives no bound on it ({free} of disk free)"
    return (
        f"at most {made.snapshots} of {each}: {scaled(made.disk_bytes, 'B')} of disk with the final model "
        f"({free} free), {scaled(made.snapshot_memory_bytes, 'B')} of memory{_bounded(made)}"
    )


def _most(made: Estimate) -> str:
    """Only generation may end early."""
    return "at most " if any(part.generated_tokens for part in made.parts) else ""


def _bounded(made: Estimate) -> str:
    """The effect of `snapshots.max`."""
    if made.snapshots == made.unbounded_snapshots:
        return ""
    found = "; limited by snapshots.max (a dropped snapshot that is needed is trained again)"
    if made.unbounded_snapshots is None:
        return found
    whole = scaled(made.unbounded_snapshots * made.snapshot_bytes, "B")
    return f"{found}: without it {made.unbounded_snapshots}, {whole}"


def _count(number: int) -> str:
    return scaled(number, "").strip()
