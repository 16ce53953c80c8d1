"""How many examples an epoch takes of each sub-dataset (design 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Context, Decimal
from fractions import Fraction
from typing import Literal, TypeAlias

from msft.core.clock import exact

Mixing: TypeAlias = Literal["size", "equal"] | float
"""How an epoch draws from sub-datasets: in proportion to their sizes, equally, or at this temperature, from 1."""

DIGITS = Context(prec=50)
"""A float's power may differ between machines in its last bit, and with it a rounded number of examples."""


def taken(sizes: Sequence[int], repeats: Sequence[float], mixing: Mixing) -> tuple[int, ...]:
    """The number of examples that an epoch takes of each sub-dataset, at least 1.

    `sizes`: numbers of different examples. `repeats`: how often an epoch takes each of them. `size`: their products,
    rounded. A temperature T keeps the sum of the products and shares it in proportion to their 1/T-th powers; `equal`,
    the limit of high temperatures, gives every sub-dataset the mean.
    """
    wanted = [size * exact(repeat) for size, repeat in zip(sizes, repeats, strict=True)]
    if mixing == "size":
        return tuple(max(1, round(count)) for count in wanted)
    if mixing == "equal":
        return (max(1, round(sum(wanted) / len(wanted))),) * len(wanted)
    power = DIGITS.divide(Decimal(1), Decimal(repr(mixing)))
    odds = [
        Fraction(DIGITS.power(DIGITS.divide(Decimal(count.numerator), Decimal(count.denominator)), power))
        for count in wanted
    ]
    return apportioned(round(sum(wanted)), odds)


def apportioned(total: int, odds: Sequence[Fraction]) -> tuple[int, ...]:
    """`total` in whole parts, in proportion to `odds`, by the largest remainder; each part is at least 1.

    A part whose proportion is below 1 becomes 1, and the others share what is left. Of equal remainders, the first
    gains. A total that is below the number of parts is exceeded.
    """
    parts = dict.fromkeys(range(len(odds)), 1)
    proportions: dict[int, Fraction] = {}
    larger = set(parts)
    while larger:
        left, all_odds = total - len(parts) + len(larger), sum(odds[i] for i in larger)
        proportions = {i: left * odds[i] / all_odds for i in sorted(larger)}
        below = {i for i, part in proportions.items() if part < 1}
        if not below:
            break
        larger -= below
    parts |= {i: int(part) for i, part in proportions.items() if i in larger}
    gaining = sorted(larger, key=lambda i: (int(proportions[i]) - proportions[i], i))
    for i in gaining[: total - sum(parts.values())]:
        parts[i] += 1
    return tuple(parts.values())
