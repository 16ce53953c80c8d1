"""The training step: one global batch, whatever the hardware (design 3.3, 3.5, 3.6)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msft.data.examples import Example
from msft.engine.masters import Held, Masters, weights_of
from msft.engine.parallel import unsynchronised
from msft.engine.settings import EngineSettings
from msft.forward.batches import MicroBatch, collate, filler, on_device, per_sequence
from msft.forward.runtime import Runtime, undisturbed
from msft.forward.soft_targets import SoftTargets
from msft.forward.token_rows import Row, row


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLoss:
    """The loss of a global batch before the update, the same on every process."""

    loss: float
    """The mean over trained tokens, or over examples (`loss_reduction`); never weighted, so that it measures the model
    and not the weights."""
    examples: NDArray[np.float64]
    """[examples] mean nats per trained token of each."""


class Stepper:
    """Gradients and updates of one model; `model` maps a MicroBatch to TokenScores, through DDP where needed.

    `optimizer` updates the model's parameters, or what is `held` for them. Gradients of masters are summed over the
    processes here, so they need no DDP; those of shards come summed.
    """

    said = ""
    """What people should know about how steps are computed."""
    plan: Mapping[str, Any] = MappingProxyType({})
    """What decides the rounding beside configuration and data: sizes of micro-batches, which of them are recorded."""
    late = False
    """Whether a step's loss is best read after the next step has been started."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: EngineSettings,
        runtime: Runtime,
        held: Held | None = None,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.settings = settings
        self.runtime = runtime
        self.held = held
        self._cuts = runtime
        """How a step is cut into micro-batches."""

    @property
    def masters(self) -> Masters | None:
        return self.held if isinstance(self.held, Masters) else None

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """By name, what the optimizer updates."""
        return weights_of(self.model, self.held)

    def stored(self, dtype: torch.dtype) -> AbstractContextManager[None]:
        """Context in which the model can be written: with masters, it has them in `dtype`."""
        return nullcontext() if self.masters is None else self.masters.stored(dtype)

    def cast(self) -> None:
        """Makes the model compute with changed weights."""
        if self.held is not None:
            self.held.cast()

    def backward(self, examples: Sequence[Example], key: tuple[int, ...] | None) -> BatchLoss:
        """Adds the gradient of the batch's loss; `key` seeds dropout, None turns it off."""
        return self.begin(examples, key)()

    def begin(
        self,
        examples: Sequence[Example],
        key: tuple[int, ...] | None,
        weights: NDArray[np.float64] | None = None,
        soft: Sequence[SoftTargets] = (),
    ) -> Callable[[], BatchLoss]:
        """As `backward`, but returns a function that waits for the loss, so that a GPU computes meanwhile.

        `weights`: [examples] what the loss of each example is multiplied by; None: 1. The divisor, all trained tokens
        of the global batch or all its examples, stays that of the unweighted mean. So a weight of 1 for all gives the
        same bits as None, and a weight of 0 a gradient of 0.

        `soft`: the targets of each example, in place of its labels; the loss that is returned is still the labels'.
        """
        targets = np.array([example.targets for example in examples], np.int64)
        shares = self._shares(targets)
        weighted = shares if weights is None else shares * weights
        rows = [row([example]) for example in examples]
        width = 1
        if soft:
            rows, width = [each.of(one) for each, one in zip(soft, rows, strict=True)], soft[0].width
        hand = self._cuts.share_of(rows)
        pending = []
        # One autocast context for the whole step, so that weights are cast once and not for every micro-batch.
        with self._mode(key), self.runtime.autocast():
            for number, places in enumerate(hand):
                if key is not None:
                    seed_dropout(self.runtime.device, *key, number, self.runtime.rank)
                part = [rows[place] for place in places or ()]
                counts = tuple(len(one.targets) for one in part)
                share = np.repeat(weighted[places], counts) if places else np.zeros(0)
                if soft and places:
                    share *= np.concatenate([soft[place].odds.ravel() for place in places])
                with unsynchronised(self.model) if number < len(hand) - 1 else nullcontext():
                    nll = self._compute(part, share, trains=key is not None)
                if places is not None and nll is not None:
                    pending.append((places, [count // width for count in counts], nll))
        self._add_up()
        wait = self._waits()

        def read() -> BatchLoss:
            # Read at the end, to wait for a GPU once and not for every micro-batch.
            wait()
            found = np.zeros(len(examples))
            for places, counts, nll in pending:
                found[places] = per_sequence(nll.cpu().numpy()[: width * sum(counts) : width], counts)
            return self._loss(found, shares, targets)

        return read

    def _compute(self, rows: Sequence[Row], share: NDArray[np.float64], *, trains: bool) -> Tensor | None:
        """Adds the gradients of a micro-batch, and returns the nats of its targets; none of these where this process
        has no rows while others do.

        `share`: [targets] the weight of each in the loss of the global batch. `trains`: in training mode.
        """
        device, layout = self.runtime.device, self.runtime.layout
        batch = collate(rows, device, layout=layout) if rows else filler(device, layout=layout)
        if not rows:
            share = np.zeros(1)
        if self.held is None or self.held.averages:
            share = share * self.runtime.world  # gradients come as means over processes, and the batch needs the sum
        return self._pass(batch, on_device(share.astype(np.float32), device))

    def _pass(self, batch: MicroBatch, weights: Tensor) -> Tensor:
        nll: Tensor = self.model(batch).nll
        torch.autograd.backward((nll * weights).sum())
        if self.held is not None:
            self.held.collect()
        return nll.detach()

    def _waits(self) -> Callable[[], None]:
        """Waits until what has been started so far is done; reading the losses does, unless they are copied
        meanwhile."""
        return lambda: None

    def _add_up(self) -> None:
        """With masters, sums their gradients over all processes, and brings them to the masters."""
        if self.masters is not None and self.runtime.world > 1:
            self.runtime.add_up(self.masters.gradients())
        if self.masters is not None:
            self.masters.deliver()

    def _loss(self, nll: NDArray[np.float64], shares: NDArray[np.float64], targets: NDArray[np.int64]) -> BatchLoss:
        """From this process's [examples] summed nats; 0 for the examples of others."""
        nll = self.runtime.total(nll)
        return BatchLoss(loss=float((nll * shares).sum()), examples=nll / np.maximum(targets, 1))

    def update(self, learning_rate: float) -> None:
        """One optimizer step; clears the gradients."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        if self.settings.max_grad_norm is not None:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
            if self.held is not None:
                norm = self.held.norm(norm)
            torch.nn.utils.clip_grads_with_norm_(parameters, self.settings.max_grad_norm, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.cast()

    def _shares(self, targets: NDArray[np.int64]) -> NDArray[np.float64]:
        """[examples] the weight of each trained token of an example in the loss of the global batch."""
        if self.settings.loss_reduction == "token":
            return np.full(len(targets), 1 / max(targets.sum(), 1))
        return 1 / (len(targets) * np.maximum(targets, 1))

    def _mode(self, key: tuple[int, ...] | None) -> AbstractContextManager[None]:
        device = self.runtime.device
        if key is None:
            return undisturbed(self.model, device)
        return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def seed_dropout(device: torch.device, *key: int) -> None:
    """Seeds only the generators that dropout draws from."""
    digest = hashlib.sha256(json.dumps(["dropout", *key]).encode()).digest()
    seed = int.from_bytes(digest[:8], "little") >> 1
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
