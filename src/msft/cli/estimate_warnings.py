"""What an estimate warns about: few items, rare evaluations, too little memory or disk, a start that would fail."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

from msft.cli.estimate import Estimate, Part
from msft.cli.needs import HostNeeds
from msft.config.training_section import TrainingConfig
from msft.core.errors import UserError
from msft.core.plain_words import many
from msft.model.memory import CardPlan
from msft.record.run_folder import RunFolder
from msft.report.cautions import few_items
from msft.report.words import scaled
from msft.run.resume import RESERVE
from msft.run.trackers import check_trackers

OFTEN = 4
"""Above so many times per epoch, a repeated example is warned about."""
EXPENSIVE = 0.5
"""Ratio of validation tokens to training tokens above which scoring is too expensive."""

MUCH_LEFT_OUT = 0.2
"""Share of a sub-dataset's tokens above which truncation is warned about."""
LOW_FOR_AN_ADAPTER = 5e-5
"""Below this learning rate, an adapter is warned about."""

Warnings: TypeAlias = list[str]


def about_data(made: Estimate) -> Warnings:
    often = [part for part in made.parts if part.times > OFTEN]
    return [
        *few_items(made.validation),
        *(
            f"{part.task}: an epoch takes each of its {part.train:,} training examples {part.times:.3g} times: a small "
            "sub-dataset that is repeated so often can be learned by heart before the others are learned. Fix: compare "
            "with data.mixing: size and without repeat"
            for part in often
        ),
    ]


def about_length(parts: Sequence[Part], max_length: int, positions: int | None) -> Warnings:
    """`positions`: the most tokens that the model takes."""
    more = positions is not None and positions > max_length
    fix = f"raise data.max_length (the model takes {positions:,}), or " if more else ""
    return [
        f"{part.task}: data.max_length: {max_length} leaves out {part.left_out_tokens / whole:.0%} of the training "
        f"tokens, which the model never sees. Fix: {fix}cut the texts into several rows"
        for part in parts
        if part.left_out_tokens > MUCH_LEFT_OUT * (whole := part.tokens + part.left_out_tokens)
    ]


def about_rate(training: TrainingConfig, *, adapter: bool) -> Warnings:
    if not adapter or training.learning_rate >= LOW_FOR_AN_ADAPTER:
        return []
    return [
        f"training.learning_rate: {training.learning_rate:g} is a rate for full fine-tuning; an adapter (peft) usually "
        "learns at 1e-4 to 3e-4, and at this one may learn nothing. Fix: set it to 2e-4, or compare a few"
    ]


def about_libraries(libraries: Sequence[str]) -> Warnings:
    """Optional libraries that the run needs and this machine lacks."""
    return [
        f"the run needs the library {name}, which is not installed here. Fix: pip install 'msft[quantized]'"
        for name in libraries
        if importlib.util.find_spec(name) is None
    ]


def about_start(output: Path, trackers: Sequence[str]) -> Warnings:
    """For what `msft train` would stop at its start: the output folder, and trackers that are not installed here."""
    warnings = []
    for check in (RunFolder(output).check_free, partial(check_trackers, trackers)):
        try:
            check()
        except UserError as error:
            warnings.append(str(error))
    return warnings


def about_rhythm(made: Estimate, eval_every: float) -> Warnings:
    warnings = []
    if made.ticks_per_epoch < math.floor(1 / eval_every):
        warnings.append(
            f"method.eval_every: an epoch has only {many(made.steps_per_epoch, 'step')}, so several evaluations "
            f"coincide, and an epoch has {made.ticks_per_epoch}; use a smaller batch_size or evaluate less often"
        )
    if made.scoring_share > EXPENSIVE:
        speaking = [part.task for part in made.parts if part.generated_tokens]
        generated = sum(part.generated_tokens for part in made.parts)
        share = generated / sum(part.validation_tokens for part in made.parts)
        why = f" ({share:.0%} of them for generation in {', '.join(speaking)}: lower scorer.max_new_tokens)"
        warnings.append(
            f"scoring is expensive: it processes up to {made.scoring_share:.0%} as many tokens as training"
            f"{why if speaking else ''}: limit it with validation.max_samples, or evaluate less often "
            "(method.eval_every)"
        )
    return warnings


def about_space(made: Estimate) -> Warnings:
    warnings = []
    wanted = max(made.disk_bytes or 0, made.least_disk_bytes)
    if wanted > made.free_disk_bytes:
        what = "the snapshots and the final model may need"
        if wanted == made.least_disk_bytes:
            what = f"two snapshots, the final model and a reserve of {scaled(RESERVE, 'B')} need"
        warnings.append(
            f"{what} {scaled(wanted, 'B')} of disk, but {scaled(made.free_disk_bytes, 'B')} are free: choose another "
            "output, limit the snapshots (snapshots.max: 3), or use an adapter (peft)"
        )
    return [*warnings, *(about_card(made.card) if made.card is not None else []), *about_host(made.host)]


def about_host(host: HostNeeds) -> Warnings:
    if host.memory is None or host.most <= host.memory:
        return []
    has = scaled(host.memory, "B")
    need = f"needs {scaled(host.least, 'B')}" if host.least > host.memory else f"may need {scaled(host.most, 'B')}"
    return [
        f"the run {need} of this machine's own memory (the model as it is read, what is kept there, snapshots that "
        f"wait to be written), which has {has}: use a smaller model, an adapter (peft), or fewer --jobs"
    ]


def about_card(card: CardPlan) -> Warnings:
    if card.activations > 0:
        return []
    return [
        f"weights, gradients and moments need {card.training / 1e9:.1f} GB, but a process may take "
        f"{(card.training + card.activations) / 1e9:.1f} GB of the GPU for training: use a smaller model, an adapter "
        "(peft), or fewer --jobs; msft check --on says what makes it fit"
    ]
