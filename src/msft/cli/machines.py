"""Machines that `msft check --on` plans for: well-known cards and their memory. Standard library only."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Cards of one kind, with one process of a run on each."""

    name: str
    count: int
    card: int
    """Bytes of a card's memory that programs can take."""
    has_bf16: bool = True

    def __str__(self) -> str:
        return self.name if self.count == 1 else f"{self.count}x{self.name}"


CARDS = {
    "B200": 178.0,
    "H200": 139.0,
    "H100": 79.0,
    "A100-80": 79.0,
    "A100-40": 39.0,
    "L40S": 44.0,
    "RTX5090": 31.0,
    "RTX4090": 23.5,
    "RTX3090": 23.5,
    "L4": 22.0,
    "A10G": 22.0,
    "T4": 14.5,
}
"""Name to GiB that CUDA gives to programs, rounded down: a little less than the number in the name."""
WITHOUT_BF16 = {"T4"}
MOST = 1024


def machine(text: str) -> Machine:
    """`8xH100`, `L4`, `2x24GiB`. Raises ValueError, with what to write, for anything else."""
    found = re.fullmatch(r"(?:(\d+)\s*[x×*]\s*)?(.+)", text.strip(), re.IGNORECASE)
    count, what = (int(found[1] or 1), found[2]) if found else (1, text)
    if not 0 < count <= MOST:
        raise ValueError(f"{text}: {count} cards; give from 1 to {MOST}")
    if size := re.fullmatch(r"(\d+(?:\.\d+)?)\s*gib", what, re.IGNORECASE):
        if not 0 < float(size[1]) < 1e6:
            raise ValueError(f"{text}: a card has more than 0 and less than a million GiB")
        return Machine(name=f"{float(size[1]):g}GiB", count=count, card=int(float(size[1]) * GIB))
    known = {_plain(name): name for name in CARDS}
    forms = (what, re.sub(r"[\s_-]\d+\s*gb.*$", "", what, flags=re.I), re.sub(r"gb.*$", "", what, flags=re.I))
    name = next((known[_plain(form)] for form in forms if _plain(form) in known), None)
    if name is None:
        near = difflib.get_close_matches(_plain(what), known, n=2) or list(known)
        fix = f"write one of {', '.join(known[each] for each in near)}, or its memory: 24GiB"
        raise ValueError(f"{what} is not a card that is known here; {fix}; before it, how many: 8xH100")
    return Machine(name=name, count=count, card=int(CARDS[name] * GIB), has_bf16=name not in WITHOUT_BF16)


def _plain(name: str) -> str:
    """`NVIDIA H100` is `h100`, and `GeForce RTX 4090` is `4090`."""
    return re.sub(r"nvidia|geforce|rtx|sxm\d?|pcie|[\s_-]", "", name.casefold())
