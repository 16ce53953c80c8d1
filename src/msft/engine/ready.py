"""A model made ready on this machine: loaded, laid out, in its precision, with the step that trains it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peft import PeftModel
from transformers import PreTrainedModel

from msft.core.vocabulary import Task
from msft.data.examples import TaskData
from msft.engine.decoding import decoding_of
from msft.engine.masters import Held
from msft.engine.parallel import Processes
from msft.engine.settings import EngineSettings
from msft.engine.setup import budgeted, deterministic, masters_for, runtime_for, shards_for, stepper_for
from msft.engine.shards import Shards
from msft.engine.step import Stepper
from msft.model.compiled import compile_layers
from msft.model.limits import check_data_fits
from msft.model.open import OpenModel
from msft.model.precision import precision_on
from msft.model.quantised import compute_in
from msft.model.row_layout import try_narrow
from msft.model.token_loss import TokenLoss
from msft.scoring.generation import Decoding


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """A model, and what trains and reads it."""

    model: PreTrainedModel | PeftModel
    stepper: Stepper
    shards: Shards | None
    """The model's parts, if it is split over the processes."""
    decoding: Decoding | None
    """How its texts are read; None if no scorer generates."""
    light: str
    """Why rows are padded, what was made lighter in the model, and the sizes of micro-batches, in words."""
    told: Sequence[str]
    """What is to be known of the model's files."""


def made_ready(
    opened: OpenModel, data: Mapping[Task, TaskData], settings: EngineSettings, processes: Processes
) -> Ready:
    """Loads the model and probes what it and the machine can do. Raises ModelError where model and data do not fit
    together; see `msft.engine.setup` for all else."""
    shards = shards_for(opened, settings, processes)
    told: list[str] = []
    model = opened.load(told=told.append) if shards is None else shards.model
    check_data_fits(model, data, opened.tokenizer)
    generates = any(part.measure.generates for part in data.values())
    decoding = decoding_of(model, opened.tokenizer, data) if generates else None
    if settings.gradient_checkpointing and shards is None:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    device = processes.device
    loss = TokenLoss(model).to(device).train() if shards is None else shards.loss
    deterministic(device, settings)
    runtime, said = runtime_for(processes, settings, loss, generates=generates, in_parts=shards is not None)
    held: Held | None = shards
    if shards is None:
        compute_in(model, precision_on(device, settings.precision))
        held = masters_for(model, device, settings)
        if held is not None:
            try_narrow(loss, runtime.layout, device)
    runtime = budgeted(runtime, settings, loss, processes)
    if settings.torch_compile:
        compile_layers(model, device)
    stepper = stepper_for(runtime, settings, loss, processes, held, data)
    light = "; ".join(filter(None, (said, stepper.said)))
    return Ready(model=model, stepper=stepper, shards=shards, decoding=decoding, light=light, told=told)
