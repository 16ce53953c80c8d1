"""How forward passes run on this machine, probed at the start: what the model supports, and what fits in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from msft.core.errors import ModelError, complaint
from msft.engine.batched_decoding import fitting_decoding
from msft.engine.parallel import Processes
from msft.engine.settings import EngineSettings
from msft.forward.packed_weights import can_pack
from msft.forward.runtime import Runtime
from msft.model.hardware import hardware_has_bf16
from msft.model.lighten import lighten
from msft.model.row_layout import fitting_layout
from msft.model.token_budget import ON_A_CPU, token_budget
from msft.model.token_loss import TokenLoss


def runtime_for(
    processes: Processes, settings: EngineSettings, loss: TokenLoss, *, generates: bool
) -> tuple[Runtime, str]:
    """The runtime on this machine, and in words why rows are padded and what was made lighter in the model (empty if
    neither is so).

    Probes the row layout that the model supports, the work that it can skip and, on a GPU, how many tokens fit. Raises
    ModelError if no layout fits, if `training.light` is true and nothing can be made lighter, or if the model
    `generates` and cannot.
    """
    has_bf16 = hardware_has_bf16(processes.device)
    bf16 = trains_in_bf16(settings.autocast, processes.device)
    # Before the layout, which may give the model another attention than the one that says what it computes.
    decoding = fitting_decoding(loss.model, settings.longest, processes.device) if generates else "dropped"
    layout = fitting_layout(loss, processes.device, settings.longest)
    found = Runtime(
        device=processes.device,
        max_tokens=layout.budget(settings.max_tokens_per_microbatch or ON_A_CPU),
        bf16=bf16,
        layout=layout.rows,
        border=layout.border,
        decoding=decoding,
        # Compiled layers do not run the forward that uses packed weights.
        packs=bf16 and has_bf16 and processes.device.type == "cpu" and not settings.torch_compile and can_pack(),
        rank=processes.rank,
        world=processes.world,
        total=processes.total,
    )
    said = ""
    if settings.light and not settings.torch_compile:  # which replaces the layers itself
        direct = processes.world == 1
        said = lighten(loss, layout.rows, processes.device, bf16=bf16, direct=direct, longest=settings.longest)
    if settings.light is True and not said:
        reason = (
            "torch_compile replaces the layers itself"
            if settings.torch_compile
            else "no layer of this model can be made lighter"
        )
        raise ModelError(complaint(reason, "leave it out, or set it to auto", field="training.light"))
    if layout.why:
        said = "; ".join(filter(None, (f"a micro-batch has {layout}, because rows would touch ({layout.why})", said)))
    if settings.max_tokens_per_microbatch is not None or layout.alone:
        return found, said
    budgets = np.zeros(processes.world)
    budgets[processes.rank] = token_budget(loss, found.layout, processes.device, found.autocast)
    # The minimum over all: every process must make the same number of micro-batches of a global batch.
    return replace(found, max_tokens=int(processes.total(budgets).min())), said


def trains_in_bf16(autocast: Literal["auto", "bf16", "no"], device: torch.device) -> bool:
    """Whether forward passes autocast to bf16 on this device."""
    return autocast == "bf16" or (autocast == "auto" and hardware_has_bf16(device))
