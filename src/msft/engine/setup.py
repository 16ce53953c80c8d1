"""How forward passes run on this machine, probed at the start: what the model supports, and what fits in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice

import numpy as np
import torch
import torch._inductor.config
from numpy.typing import NDArray
from torch import nn

from msft.core.errors import ConfigError, ModelError, RunError, complaint
from msft.core.vocabulary import Task
from msft.data.examples import TaskData
from msft.engine.batched_decoding import fitting_decoding, fixed_decoding
from msft.engine.masters import Held, Masters, weights_of
from msft.engine.optimizers import make_optimizer, moment_bytes
from msft.engine.parallel import Processes
from msft.engine.settings import EngineSettings
from msft.engine.shards import Shards, transient_bytes
from msft.engine.static_step import StaticStepper
from msft.engine.step import Stepper
from msft.forward.packed_weights import can_pack
from msft.forward.runtime import Runtime
from msft.forward.shapes import Shape, added, choose
from msft.forward.token_rows import row, row_size
from msft.model.fixed_decoding import fixed_steps
from msft.model.hardware import hardware_has_bf16
from msft.model.hollow import WHOLE
from msft.model.lighten import EVERYTHING, HEAD, lighten
from msft.model.memory import card_memory, share_of_training, training_bytes
from msft.model.model_parts import base_of, check_same_layers, reads_more_than_text
from msft.model.open import OpenModel
from msft.model.precision import precision_on
from msft.model.quantised import packed
from msft.model.returned import router_note
from msft.model.row_layout import fitting_layout
from msft.model.token_budget import ON_A_CPU, token_budget
from msft.model.token_loss import TokenLoss


def shards_for(opened: OpenModel, settings: EngineSettings, processes: Processes) -> Shards | None:
    """The model split over the processes, where that is asked for. Raises ConfigError for what needs whole tensors,
    ModelError for a model that several processes cannot train."""
    asked = processes.sharding(settings.shard)
    if processes.world > 1:
        check_same_layers(opened.skeleton)
    if asked is None:
        return None
    whole = f"or {WHOLE}"
    if settings.optimizer not in {"adamw", "adamw_8bit"}:
        found = f"{settings.optimizer} reads whole matrices, and each process has some rows of them"
        raise ConfigError(complaint(found, f"set it to adamw, {whole}", field="training.optimizer"))
    if opened.quantized is not None:
        found = "a base in 4 or 8 bits is not split over processes"
        raise ConfigError(complaint(found, f"leave it out, {whole}", field="model.quantize"))
    if settings.offload_optimizer:
        found = "the optimizer's state of a model that is split over processes stays on the GPUs"
        raise ConfigError(complaint(found, f"leave it out, {whole}", field="training.offload_optimizer"))
    if settings.torch_compile:
        found = "layers of a model that is split over processes are not compiled"
        raise ConfigError(complaint(found, f"leave it out, {whole}", field="training.torch_compile"))
    precision = precision_on(processes.device, settings.precision)
    return Shards(opened, processes, precision, asked, checkpoints=settings.gradient_checkpointing)


def runtime_for(
    processes: Processes, settings: EngineSettings, loss: TokenLoss, *, generates: bool, in_parts: bool = False
) -> tuple[Runtime, str]:
    """The runtime on this machine, with the token budget of a CPU, and in words why rows are padded and what was made
    lighter in the model (empty if neither is so). `in_parts`: the model is split over the processes, and no layer is
    replaced.

    Probes the row layout that the model supports and the work that it can skip. Raises ModelError if no layout fits, if
    `training.light` is true and nothing can be made lighter, or if the model `generates` and cannot.
    """
    device = processes.device
    has_bf16, precision = hardware_has_bf16(device), precision_on(device, settings.precision)
    bf16 = precision == "autocast"
    # Before the layout, which may give the model another attention than the one that says what it computes.
    decoding = fitting_decoding(loss.model, settings.longest, processes.device) if generates else "dropped"
    on_gpu = device.type == "cuda"
    # A GPU's attention over lengths is of bf16; in fp32, its stand-in would hold all weights of each layer. Not tried
    # on an AMD GPU.
    by_lengths = settings.lengths or (on_gpu and precision == "mixed" and torch.version.hip is None)
    fixed = generates and (on_gpu or settings.lengths) and not in_parts and settings.cuda_graphs is not False
    # A base in few bits is not recorded: what its layers compute then is not proven.
    fixed = fixed and not packed(loss).parameters and fixed_decoding(base_of(loss.model), settings.longest, device)
    rounds = in_parts and precision == "mixed"  # of other models, the bf16 copies are made later
    layout = fitting_layout(loss, device, settings.longest, lengths=by_lengths, rounds=rounds)
    found = Runtime(
        device=device,
        max_tokens=layout.budget(settings.max_tokens_per_microbatch or ON_A_CPU),
        bf16=bf16,
        layout=layout.rows,
        border=layout.border,
        decoding=decoding,
        steps=fixed_steps if fixed else None,
        # Compiled layers do not run the forward that uses packed weights.
        packs=bf16 and has_bf16 and not on_gpu and not (settings.torch_compile or in_parts) and can_pack(),
        in_parts=in_parts,
        rank=processes.rank,
        world=processes.world,
        total=processes.total,
        add_up=processes.add_up,
    )
    said = ""
    if settings.light and not in_parts:
        parts = HEAD if settings.torch_compile else EVERYTHING  # the compiler makes the layers lighter itself
        direct = processes.world == 1
        said = lighten(
            loss, layout.rows, device, precision=precision, direct=direct, longest=settings.longest, parts=parts
        )
    if settings.light is True and not said:
        kept = "a model that is split over processes keeps its layers"
        reason = kept if in_parts else "no layer of this model can be made lighter"
        raise ModelError(complaint(reason, "leave it out, or set it to auto", field="training.light"))
    touching = f"a micro-batch has {layout}, because rows would touch ({layout.why})" if layout.why else ""
    return found, "; ".join(filter(None, (router_note(base_of(loss.model)), touching, said)))


def deterministic(device: torch.device, settings: EngineSettings) -> None:
    """Makes a GPU repeat its results bit for bit, unless the settings do without; a CPU does by itself.

    It applies to the whole process. `auto` warns where an operation of the model has no such version, true raises.
    """
    if device.type != "cuda":
        return
    wanted = settings.deterministic is not False
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first product
    torch.use_deterministic_algorithms(wanted, warn_only=settings.deterministic == "auto")
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    if hasattr(torch._inductor.config, "deterministic"):
        torch._inductor.config.deterministic = wanted


def masters_for(model: nn.Module, device: torch.device, settings: EngineSettings) -> Masters | None:
    """The fp32 weights of a model that is to compute with bf16 copies of them; None if it computes otherwise.

    Raises RunError where they are to be on the host and there are none; on a CPU they are in any case.
    """
    if precision_on(device, settings.precision) == "mixed":
        return Masters(model, on_host=settings.offload_optimizer)
    if settings.offload_optimizer and device.type != "cpu":
        found = "it needs fp32 masters, and the model computes with its fp32 weights"
        fix = "set model.precision: mixed, on a GPU with bf16, or leave it out"
        raise RunError(complaint(found, fix, field="training.offload_optimizer"))
    return None


def budgeted(runtime: Runtime, settings: EngineSettings, loss: TokenLoss, processes: Processes) -> Runtime:
    """The runtime with a token budget that fits on this device, where the settings leave it open."""
    alone = runtime.max_tokens == 1
    if settings.max_tokens_per_microbatch is not None or alone:
        return runtime
    precision = precision_on(processes.device, settings.precision)
    parts = processes.world if runtime.in_parts else 1
    sizes = [(p.numel(), p.requires_grad) for p in loss.parameters() if p.is_floating_point()]
    quantised = packed(loss)
    trained = sum(size for size, trained in sizes if trained)
    averaged, moments = settings.average is not None, moment_bytes(settings.optimizer, loss.model)
    on_host = settings.offload_optimizer and precision == "mixed"
    gathered = transient_bytes(base_of(loss.model), mixed=precision == "mixed") if runtime.in_parts else 0
    fixed = gathered + training_bytes(
        precision,
        (sum(size for size, _ in sizes) + quantised.parameters) // parts,
        trained // parts,
        averaged=averaged,
        moments=moments // parts,
        packed=quantised,
        on_host=on_host,
    )
    card = 0 if processes.device.type != "cuda" else card_memory(processes.device)
    share = share_of_training(card, ((8 if averaged else 4) * trained + moments) // parts, on_host=on_host)
    # What is recorded keeps its memory, which what is not, such as a look-ahead, cannot use.
    times = 2 if settings.beside and settings.cuda_graphs and runtime.layout == "lengths" else 1
    budget = token_budget(loss, runtime.layout, processes.device, runtime.autocast, fixed, share, times=times)
    # The minimum over all: every process must make the same number of micro-batches of a global batch.
    return replace(runtime, max_tokens=min(processes.of_all(budget)))


def stepper_for(
    runtime: Runtime,
    settings: EngineSettings,
    loss: TokenLoss,
    processes: Processes,
    held: Held | None,
    data: Mapping[Task, TaskData],
) -> Stepper:
    """The training step of this model on this machine: with fixed sizes of micro-batches where rows are laid out by
    their lengths, recorded as CUDA graphs on a GPU."""
    weights = weights_of(loss.model, held)
    model = loss if held is not None else processes.distributed(loss, idle=reads_more_than_text(loss.model))
    optimizer = make_optimizer(weights, settings, loss.model)
    masters = held if isinstance(held, Masters) else None
    whole = masters is not None or processes.world == 1
    fixed = settings.cuda_graphs and runtime.layout == "lengths" and whole
    if not fixed or packed(loss).parameters:  # graphs of bitsandbytes' layers are not proven to compute the same
        return Stepper(model, optimizer, settings, runtime, held)
    parts = [part for part in data.values() if not part.aggregate]
    lengths = [np.array([row_size(one) for one in chain(part.train, part.held_out)], np.int64) for part in parts]
    shapes = choose(lengths, settings.batch_size, runtime.max_tokens, world=processes.world)
    taught = [shape.soft(settings.soft_targets) for shape in shapes if settings.soft_targets]
    graphs = processes.device.type == "cuda" and masters is not None
    compiles = settings.cuda_graphs != "plain" and not settings.torch_compile
    rows = [row([one]) for one in chain.from_iterable(islice(part.train, settings.batch_size) for part in parts)]
    found = StaticStepper(
        model, optimizer, settings, runtime, masters, [*taught, *shapes], rows, graphs=graphs, compiles=compiles
    )
    found.said = "; ".join(filter(None, (_in_words(shapes, lengths, settings, processes.world), found.said)))
    return found


def _in_words(
    shapes: Sequence[Shape], lengths: Sequence[NDArray[np.int64]], settings: EngineSettings, world: int
) -> str:
    more = added(shapes, lengths, settings.batch_size, shapes[-1].tokens, world)
    sizes = ", ".join(f"{shape.tokens:,}" for shape in shapes)
    return f"micro-batches are filled up to {sizes} tokens, by {more:.1%} on average"
