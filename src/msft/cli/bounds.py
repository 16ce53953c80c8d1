"""What a method may train and probe at most, in epochs and tokens, for `msft check`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from msft.core.method import Method
from msft.core.outlook import Outlook
from msft.core.vocabulary import Brief
from msft.data.examples import TaskData


def most_epochs(
    method: Method, brief: Brief, tokens: Sequence[int], whole: Sequence[int] | None = None
) -> float | None:
    """Maximum training of a method in epochs of the whole mixture; `tokens`: those that an epoch takes of each
    sub-dataset; `whole`: those that an epoch of all rows takes.

    With tokens as sizes, the outlook's bound is in tokens. None if it gives no bound.
    """
    in_tokens = replace(brief, sizes=tuple(tokens), pools=None)
    if brief.whole is not None and whole is not None:
        held = tuple(each - part for each, part in zip(whole, tokens, strict=True))
        in_tokens = replace(in_tokens, whole=tuple(whole), held=held)
    bound = method.outlook_at(in_tokens).bound
    return None if bound is None else bound.instances / sum(tokens)


def whole_tokens(data: Iterable[TaskData], taken: Sequence[int]) -> list[int]:
    """Tokens that an epoch of all rows takes of each sub-dataset, if without the held-out ones it takes `taken`."""
    counts = [(sum(map(len, part.train)), sum(map(len, part.held_out))) for part in data]
    return [round(each * (own + held) / own) for each, (own, held) in zip(taken, counts, strict=True)]


def probe_tokens(outlook: Outlook, mean_tokens: Sequence[float], tokens: int) -> float:
    """Tokens of a method's probes, as forward passes: a look-ahead costs four. Passes over the whole mixture read each
    example once.

    `mean_tokens`: of an example of each sub-dataset; `tokens`: of all examples.
    """
    lookahead = outlook.lookahead
    looked = 4 * lookahead.times * lookahead.examples * sum(mean_tokens)
    return looked + (outlook.probed_epochs * tokens if outlook.probed_epochs else 0.0)
