"""What each process of a run needs of memory, from its configuration and the skeleton of its model."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn
from transformers import PreTrainedModel

from msft.config.schema import Config
from msft.engine.optimizers import moment_bytes
from msft.engine.parallel import TOGETHER
from msft.engine.shards import transient_bytes
from msft.model.activations import activation_bytes
from msft.model.memory import CardPlan, frozen_bytes
from msft.model.model_parts import base_of
from msft.model.open import OpenModel
from msft.model.precision import Precision
from msft.model.quantised import Packed, will_be_packed
from msft.model.token_budget import LEAST, ON_A_CPU
from msft.snapshots.state import pinned_bytes, trainable
from msft.snapshots.store import IN_PASSING


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Bytes of memory of one process, by use."""

    weights: int
    """What the model computes with: frozen weights, and those that are trained or their copies in bf16."""
    masters: int
    """The fp32 weights that are trained, where the model computes with copies of them."""
    moments: int
    gradients: int
    mean: int
    """Averaged weights."""
    exchange: int
    """Gradients that are summed over processes at a time, and weights that are gathered from them."""
    activations: int
    """At most, for the smallest micro-batch that a run may have to make."""
    tokens: int
    """Of that micro-batch."""
    snapshot: int
    """One snapshot."""
    host: int
    """Of the host: masters, moments, averages and gradients with `training.offload_optimizer`."""
    read: int
    """The model as it is read, in fp32: on the host, and then on the card, before frozen weights become bf16."""
    pinned: float = 1.0
    """By what factor the host's memory for copies from the card is larger than they are."""

    @property
    def state(self) -> int:
        """All but activations."""
        return self.weights + self.masters + self.moments + self.gradients + self.mean + self.exchange

    @property
    def total(self) -> int:
        return self.state + self.activations


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNeeds:
    """Bytes of a machine's own memory, beside that of its cards, that all processes on it take together."""

    processes: int
    read: int
    """The models as they are read."""
    kept: int
    """What is there from then on: of runs on cards `Needs.host`, of others all but activations."""
    snapshots: int
    """At most, of snapshots that wait to be written, where they do not stay on the cards."""
    memory: int | None
    """What the machine has; None: not known."""

    @property
    def least(self) -> int:
        return max(self.read, self.kept)

    @property
    def most(self) -> int:
        return max(self.read, self.kept + self.snapshots)


def host_needs(
    needs: Needs, card: CardPlan | None, *, processes: int, writers: int, memory: int | None, targets: int = 0
) -> HostNeeds:
    """What `processes` such processes take of their machine. `writers`: those of them that write snapshots; `targets`:
    bytes of what a teacher predicts, which each holds."""
    waiting = 0 if card is not None and card.snapshots else IN_PASSING * writers + processes - writers
    return HostNeeds(
        processes=processes,
        read=processes * needs.read,
        kept=processes * (needs.host + targets + (needs.state if card is None else 0)),
        snapshots=int(waiting * needs.snapshot * (1 if card is None else needs.pinned)),
        memory=memory,
    )


def packed_of(opened: OpenModel) -> Packed:
    """What a model will hold in 4 or 8 bits."""
    return will_be_packed(opened.skeleton, opened.quantized, (opened.source.peft or {}).get("modules_to_save"))


def needs_of(
    opened: OpenModel, config: Config, precision: Precision, *, longest: int, on_card: bool, processes: int = 1
) -> Needs:
    """What a process of this run needs. `longest`: tokens of its longest training example."""
    training, skeleton = config.training, opened.skeleton
    everything = sum(parameter.numel() for parameter in skeleton.parameters())
    sizes = [parameter.numel() for parameter in trainable(skeleton).values()]
    trained = sum(sizes)
    packed, mixed = packed_of(opened), precision == "mixed"
    moments = moment_bytes(training.optimizer, skeleton)
    mean = 0 if training.average is None else 4 * trained
    on_host = training.offload_optimizer and mixed
    here = 0 if on_host else 1
    tokens = _tokens(config, longest, on_card)
    pinned = sum(pinned_bytes(4 * size) for size in sizes) / (4 * trained) if on_card else 1.0
    activations = activation_bytes(skeleton, tokens, precision, checkpointing=training.gradient_checkpointing)
    found = Needs(
        weights=frozen_bytes(precision, everything, trained, packed) + (2 if mixed else 4) * trained,
        masters=4 * trained * here if mixed else 0,
        moments=moments * here,
        gradients=(6 if mixed else 4) * trained,
        mean=mean * here,
        exchange=_exchange(skeleton) if mixed and processes > 1 else 0,
        activations=activations + _unpacked(skeleton, packed, mixed),
        tokens=tokens,
        snapshot=4 * trained + moments + mean,
        host=(int(8 * trained * pinned) + moments + mean) * (1 - here),
        pinned=pinned,
        read=packed.nbytes + 4 * (everything - packed.parameters),
    )
    if training.shard is not True or processes == 1:
        return found
    return _split(found, base_of(skeleton), trained, processes, mixed=mixed)


def _split(whole: Needs, model: PreTrainedModel, trained: int, processes: int, *, mixed: bool) -> Needs:
    """The same where FSDP2 splits the model: no process has copies in bf16, or gradients, of more than a few layers."""

    def part(size: int) -> int:
        return -(-size // processes)

    return replace(
        whole,
        weights=part(whole.weights - (2 * trained if mixed else 0)),
        masters=part(whole.masters),
        moments=part(whole.moments),
        gradients=part(4 * trained),
        mean=part(whole.mean),
        exchange=transient_bytes(model, mixed=mixed),
        snapshot=part(whole.snapshot),
        read=part(whole.read),
    )


def _tokens(config: Config, longest: int, on_card: bool) -> int:
    """Of the smallest micro-batch that a run may have to make; on a card, it is tried with twice the least number."""
    given = config.training.max_tokens_per_microbatch
    least = given if given != "auto" else 2 * LEAST if on_card else ON_A_CPU
    return max(least, longest)


def _exchange(skeleton: nn.Module) -> int:
    sizes = [parameter.numel() for parameter in trainable(skeleton).values()]
    return 4 * max(sum(sizes[start : start + TOGETHER]) for start in range(0, len(sizes), TOGETHER))


def _unpacked(skeleton: nn.Module, packed: Packed, mixed: bool) -> int:
    """The largest weight that is held in few bits, unpacked twice: for a product, and the copy that it is made from."""
    largest = max(parameter.numel() for parameter in skeleton.parameters())
    return largest * 2 * (2 if mixed else 4) if packed.parameters else 0
