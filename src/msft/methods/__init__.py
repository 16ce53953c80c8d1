"""The methods: one small file each, and this table. A new method is a file and a line here."""

from __future__ import annotations

from msft.core.method import Method
from msft.methods import continual, dynamix, ies, msft, one_pass, placebo, sft, sro

METHODS: dict[str, Method] = {
    "msft": msft.METHOD,
    "sft": sft.METHOD,
    "continual": continual.METHOD,
    "sro": sro.SRO,
    "soft_sro": sro.SOFT_SRO,
    "one_pass": one_pass.METHOD,
    "dynamix": dynamix.METHOD,
    "ies": ies.METHOD,
    "placebo": placebo.METHOD,
}
