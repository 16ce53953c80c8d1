"""Scores from likelihoods and texts: the search score (`control`) and the test metric (`report`), design 3.11.

A measure that generates is expensive, but generates whenever it is scored, so that the test metric is measured at every
point of its curve. Its search score is as cheap as that of `loss`; limit its validation items where generation is too
slow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from msft.core.vocabulary import Task
from msft.data import own_scorer
from msft.data.examples import Item, Measure
from msft.data.extract import found_in, same
from msft.data.own_scorer import ScorerError
from msft.forward.runtime import Preparations, Runtime, SequenceScores, sequence_scores
from msft.scoring.generation import Decoding, Request, generate


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScores:
    """One sub-dataset's scores, higher is better; in [0, 1] except the items of measures other than `choice`."""

    control: float
    report: float
    items: tuple[float, ...]
    """The search score of each item: a log-probability for all measures other than `choice`."""
    reported: tuple[float, ...]
    """The test metric of each item: right (1) or wrong (0); a user's own score; for `loss` its log-probability."""
    loss: float
    """Mean over items of the mean nats per token of the reference: the completion that training would learn, and of a
    choice the right option, without the end of the text, which no option has. Every measure's own pass gives it."""


def score(
    model: nn.Module,
    tasks: Mapping[Task, tuple[Sequence[Item], Measure]],
    runtime: Runtime,
    *,
    decoding: Decoding | None = None,
    progress: Callable[[int, int], None] | None = None,
    known: Preparations | None = None,
) -> tuple[dict[Task, TaskScores], int]:
    """Returns the scores of each sub-dataset and the number of tokens that the model processed for them.

    All sub-datasets share their micro-batches. Measures that generate need `decoding`. `progress` is called with (items
    done, all items), where items with generation count twice. `known`: remembers micro-batches. Raises NotFiniteError,
    ScorerError.
    """
    groups = [item.options for items, _ in tasks.values() for item in items]
    if not groups:
        return {}, 0
    speaking = {task: asked for task, asked in tasks.items() if asked[1].generates}
    total = len(groups) + sum(len(items) for items, _ in speaking.values())

    def told(offset: int) -> Callable[[int], None] | None:
        return None if progress is None else lambda done: progress(min(offset + done, total), total)

    names = {measure.name for _, measure in tasks.values()}
    asked = {"hits": "exact_match" in names, "exact": "choice" in names}
    found = sequence_scores(model, groups, runtime, **asked, progress=told(0), known=known)
    verdicts: dict[Task, NDArray[np.float64]] = {}
    tokens = found.tokens
    if speaking:
        assert decoding is not None, "a measure that generates needs a tokenizer"
        requests = [r for task, asked in speaking.items() for r in _requests(task, *asked, decoding)]
        texts, spoken = generate(model, requests, decoding.decoder, runtime, progress=told(len(groups)))
        verdicts, tokens = _verdicts(speaking, texts, runtime), tokens + spoken
    scores = {}
    first = 0
    for task, (items, measure) in tasks.items():
        last = first + sum(len(item.options) for item in items)
        scores[task] = task_scores(items, measure, found.part(first, last), verdicts.get(task))
        first = last
    return scores, tokens


def _requests(task: Task, items: Sequence[Item], measure: Measure, decoding: Decoding) -> list[Request]:
    """One request per item. The tokens that the sub-dataset's training examples end with end the text."""
    ends = decoding.eos | decoding.taught.get(task, frozenset())
    return [
        Request(
            prompt=item.prompt,
            ends=ends,
            stop=measure.stop,
            max_new_tokens=measure.max_new_tokens,
            repeated=item.repeated,
        )
        for item in items
    ]


def _verdicts(
    tasks: Mapping[Task, tuple[Sequence[Item], Measure]], texts: Sequence[str], runtime: Runtime
) -> dict[Task, NDArray[np.float64]]:
    """[items] the score of each generated text, in [0, 1].

    Computed by the first process for all: a scorer with a time limit (mathematics) or a user's own could differ between
    processes.
    """
    verdicts = {}
    first = 0
    for task, (items, measure) in tasks.items():
        part = texts[first : first + len(items)]
        first += len(items)
        values = np.zeros(len(items) + 1)  # the last is not 0 where the scorer failed, so that all processes end
        failed: ScorerError | None = None
        if runtime.rank == 0:
            try:
                values[:-1] = _judged(items, measure, part)
            except ScorerError as error:
                failed, values[-1] = error, 1
        values = runtime.total(values)
        if values[-1]:
            raise failed or ScorerError("the scorer failed in the first process, which says why")
        verdicts[task] = values[:-1]
    return verdicts


def _judged(items: Sequence[Item], measure: Measure, texts: Sequence[str]) -> list[float]:
    if measure.own:
        answers = [{**(item.fields or {}), "generated": text} for item, text in zip(items, texts, strict=True)]
        return own_scorer.call(measure.name, answers, [item.place for item in items])
    return [
        float(same(found_in(text, measure, item.choices), item.reference, measure))
        for item, text in zip(items, texts, strict=True)
    ]


def task_scores(
    items: Sequence[Item],
    measure: Measure,
    sequences: SequenceScores,
    verdicts: NDArray[np.float64] | None = None,
) -> TaskScores:
    """The scores of one sub-dataset from those of its items' sequences, in order.

    `verdicts`: [items] the scores of the generated texts, for measures that generate.
    """
    if measure.name == "choice":
        return _choice(items, measure, sequences)
    acted_on = reported = -sequences.mean
    control = report = float(np.exp(acted_on.mean()))
    if measure.name == "exact_match":
        verdicts = sequences.all_hit.astype(np.float64)
    if verdicts is not None:
        report, reported = float(verdicts.mean()), verdicts
        if measure.control == "report":
            control, acted_on = report, reported
    return TaskScores(
        control=control,
        report=report,
        items=tuple(acted_on.tolist()),
        reported=tuple(reported.tolist()),
        loss=float(sequences.mean.mean()),
    )


def _choice(items: Sequence[Item], measure: Measure, sequences: SequenceScores) -> TaskScores:
    soft, right, losses = np.zeros(len(items)), np.zeros(len(items)), np.zeros(len(items))
    means = sequences.mean
    first = 0
    for number, item in enumerate(items):
        part = slice(first, first + len(item.options))
        # The logits of options may be equal in bf16 only.
        values = sequences.lost[part] - sequences.nll[part]
        if measure.normalize == "token":
            values = values / sequences.targets[part]
        elif measure.normalize == "byte":
            values = values / np.maximum(np.array(item.option_bytes), 1)
        weights = np.exp(values - values.max())
        soft[number] = weights[item.answer] / weights.sum()
        right[number] = int(values.argmax()) == item.answer
        losses[number] = means[first + item.answer]
        first = part.stop
    control = right if measure.control == "report" else soft
    return TaskScores(
        control=float(control.mean()),
        report=float(right.mean()),
        items=tuple(control.tolist()),
        reported=tuple(right.tolist()),
        loss=float(losses.mean()),
    )
