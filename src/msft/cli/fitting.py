"""Whether a job fits on a machine, and the cheapest change of its configuration with which it does (`check --on`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from msft.cli.machines import Machine
from msft.cli.needs import Needs, needs_of
from msft.config.peft_section import PeftConfig
from msft.config.schema import Config
from msft.core.errors import ModelError
from msft.model.folder import ModelSource
from msft.model.limits import check_checkpointing
from msft.model.memory import USABLE, part_of_card, share_of_training
from msft.model.open import OpenModel
from msft.model.precision import Precision, precision_of_gpu
from msft.run.job import model_source


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A configuration on a machine."""

    changes: tuple[str, ...]
    """What is changed, as `--set` takes it; empty: nothing."""
    needs: Needs
    part: int
    """Bytes of a card for a process."""

    @property
    def room(self) -> int:
        """What training may take of them."""
        return int(share_of_training(self.part, self.needs.snapshot, on_host=self.needs.host > 0) * self.part)

    @property
    def starts(self) -> bool:
        """Whether there is room for the model as it is read, and for its masters, before anything else."""
        return self.needs.read + self.needs.masters <= USABLE * self.part

    @property
    def fits(self) -> bool:
        return self.starts and self.needs.total <= self.room


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Whether a job fits on a machine."""

    machine: Machine
    precision: Precision
    plan: Plan
    """As configured."""
    proposal: Plan | None
    """The cheapest change that fits; None: none is needed, or none is known."""


def precision_of(config: Config, machine: Machine) -> Precision:
    """The precision of a run on this machine. Raises ConfigError for `mixed` where it has no bf16."""
    return precision_of_gpu(config.model.precision, has_bf16=machine.has_bf16)


def plan(
    opened: OpenModel,
    config: Config,
    machine: Machine,
    longest: int,
    *,
    jobs: int = 1,
    changes: tuple[str, ...] = (),
) -> Plan:
    """The plan of a run on a machine, one process on each card.

    `longest`: tokens of its longest training example; `jobs`: runs that share the cards.
    """
    precision = precision_of(config, machine)
    needs = needs_of(opened, config, precision, longest=longest, on_card=True, processes=machine.count)
    return Plan(changes=changes, needs=needs, part=part_of_card(machine.card, jobs))


def fit(opened: OpenModel, config: Config, machine: Machine, longest: int, *, jobs: int = 1) -> Fit:
    """Whether a run fits on a machine, and the cheapest change with which it does; see `plan`."""
    here = plan(opened, config, machine, longest, jobs=jobs)
    found = Fit(machine=machine, precision=precision_of(config, machine), plan=here, proposal=None)
    known = [opened]
    for changed, changes in () if here.fits else _changed(config, machine):
        try:
            known.append(model := opened_for(model_source(changed), known))
            if changed.training.gradient_checkpointing:
                check_checkpointing(model.skeleton)
            proposal = plan(model, changed, machine, longest, jobs=jobs, changes=changes)
        except ModelError:  # an adapter that does not fit, weights that are in few bits already, no recomputation
            continue
        if proposal.fits:
            return replace(found, proposal=proposal)
    return found


def opened_for(source: ModelSource, known: Sequence[OpenModel]) -> OpenModel:
    """The model; opened only where none that is known has the same skeleton, which does not depend on `quantize`."""
    plain = replace(source, quantize=None)
    model = next((each for each in known if replace(each.source, quantize=None) == plain), None)
    return OpenModel.open(source) if model is None else model.of(source)


def _changed(config: Config, machine: Machine) -> Iterator[tuple[Config, tuple[str, ...]]]:
    """Configurations that need less memory, and what is changed, the cheapest change first. To split the model over
    several cards comes before what changes the result by more than rounding."""
    again: dict[str, Any] = {"gradient_checkpointing": True}
    few, none, host = {"optimizer": "adamw_8bit"}, {"optimizer": "adafactor"}, {"offload_optimizer": True}
    adapter, bits, shard = {"peft": PeftConfig()}, {"quantize": "nf4"}, {"shard": True}
    ways: list[tuple[dict[str, Any], ...]] = [(again,), (shard,), (shard, again), (few,), (few, again), (host, again)]
    ways += [(none, again), (adapter,), (adapter, again), (adapter, bits), (adapter, bits, again)]
    training = config.training
    splits = machine.count > 1 and training.optimizer in {"adamw", "adamw_8bit"} and config.model.quantize is None
    splits = splits and not (training.offload_optimizer or training.torch_compile)
    seen: set[tuple[str, ...]] = {()}
    for way in ways:
        if shard in way and not splits:
            continue
        changed, changes = _with(config, {key: value for part in way for key, value in part.items()})
        if changes not in seen:
            seen.add(changes)
            yield changed, changes


def _with(config: Config, wanted: dict[str, Any]) -> tuple[Config, tuple[str, ...]]:
    """The configuration with these values, and which of them are new. An adapter that is there stays as it is."""
    changes = []
    for key, value in wanted.items():
        if key == "peft":
            if config.peft is None:
                config = config.model_copy(update={"peft": value})
                changes.append(f"peft={{r: {value.r}}}")
        elif key == "quantize":
            if config.model.quantize is None and config.model.gguf_file is None:
                config = config.model_copy(update={"model": config.model.model_copy(update={key: value})})
                changes.append(f"model.quantize={value}")
        elif getattr(config.training, key) in (value, "adafactor"):
            continue
        else:
            config = config.model_copy(update={"training": config.training.model_copy(update={key: value})})
            changes.append(f"training.{key}={str(value).lower() if isinstance(value, bool) else value}")
    return config, tuple(changes)
