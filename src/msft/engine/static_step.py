"""The training step with micro-batches of fixed sizes and, on a GPU, CUDA graphs (design 3.5).

A step of short rows is thousands of small kernels, which a GPU computes faster than they can be started one by one. A
graph starts them in one go, on the same arrays each time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from msft.core.errors import UserError, in_a_line
from msft.engine.masters import Masters
from msft.engine.settings import EngineSettings
from msft.engine.step import Stepper
from msft.forward.batches import collate
from msft.forward.filled import Filled, arrays
from msft.forward.runtime import Runtime
from msft.forward.shapes import Shape
from msft.forward.token_rows import Row
from msft.model.compiled import CompiledLayers
from msft.model.hardware import recording, warmed_up
from msft.model.token_loss import TokenLoss

T = TypeVar("T")
WARM_UP = 2
"""Passes before one is recorded: kernels are chosen and memory is taken in them."""


class StaticStepper(Stepper):
    """As `Stepper`, with one process or several, for rows laid out by their lengths.

    A micro-batch that no size holds is computed as it is.

    `shapes`: the sizes; those of steps without a teacher last, the largest at the end. `graphs`: whether to record CUDA
    graphs, which needs masters; `compiles`: whether the graphs are of compiled layers. These are tried on `rows` of the
    data, not on made-up tokens: the embedding of a made-up token may be zero, as that of a padding token, and then
    gradients overflow in a deep model. `said` tells why some sizes have no graph.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        settings: EngineSettings,
        runtime: Runtime,
        masters: Masters | None,
        shapes: Sequence[Shape],
        rows: Sequence[Row],
        *,
        graphs: bool,
        compiles: bool = False,
    ) -> None:
        super().__init__(model, optimizer, settings, runtime, masters)
        self.late = runtime.device.type == "cuda"
        # No micro-batch of a step is larger than the largest size; scoring may take larger ones.
        self._cuts = replace(runtime, max_tokens=shapes[-1].tokens)
        self._filled = [Filled(shape, runtime.device) for shape in shapes]
        self._graphs: dict[int, Graph | None] = {}
        self._pool: Any = None
        self._layers: CompiledLayers | None = None
        self._scoring: CompiledLayers | None = None
        if graphs and compiles:
            self._layers, self._scoring = self._compiled(model, rows)  # type: ignore[arg-type]
            self.runtime = replace(runtime, layers=self._scoring.on)
            self.said = "; ".join(filter(None, (self._layers.said, self._scoring.said)))
        if graphs:
            self._record()
        self.plan = {
            "sizes": [[shape.tokens, shape.targets, shape.rows, shape.longest, shape.width] for shape in shapes],
            "graphs": [self._graphs.get(place) is not None for place in range(len(shapes))],
            "compiled": self._layers is not None and not self._layers.said,
            "compiled_scoring": self._scoring is not None and not self._scoring.said,
        }

    def _compiled(self, loss: TokenLoss, rows: Sequence[Row]) -> tuple[CompiledLayers, CompiledLayers]:
        """The layers that train, tried on the smallest size that holds some of the rows, and those that score."""
        smallest = next(filled for filled in self._filled if filled.shape.holds(rows[:1]))
        some = fitting(rows, smallest.shape)
        smallest.take(arrays(some, smallest.shape, np.ones(sum(len(one.targets) for one in some))))
        many = fitting(rows, self._filled[-1].shape)
        scored = [collate(part, self.runtime.device, layout="lengths") for part in (many, many[:1], many[:2])]
        return CompiledLayers(loss, [smallest.batch], learns=True), CompiledLayers(loss, scored, learns=False)

    def _compute(self, rows: Sequence[Row], share: NDArray[np.float64], *, trains: bool) -> Tensor | None:
        """As `Stepper`; the nats of what fills up come last."""
        if not rows:
            return None  # no other process waits for this one within the step
        place = self._place_of(rows, trains=trains)
        if place is None:
            nll = super()._compute(rows, share, trains=trains)
            assert nll is not None
            return self._to_host(nll)
        filled = self._filled[place]
        filled.take(arrays(rows, filled.shape, share))
        graph = self._graphs.get(place) if trains else None
        return self._to_host(self._pass(filled.batch, filled.weights) if graph is None else graph())

    def _place_of(self, rows: Sequence[Row], *, trains: bool) -> int | None:
        """The smallest size that holds these rows, in training one that has a graph if any has: without one, a pass
        takes memory beside that of the graphs."""
        holds = [place for place, filled in enumerate(self._filled) if filled.shape.holds(rows)]
        recorded = (place for place in holds if trains and self._graphs.get(place) is not None)
        return next(recorded, holds[0] if holds else None)

    def _record(self) -> None:
        """Records the graphs from the largest size down, so that the smaller ones find room in its memory.

        All sizes are warmed up before that: a pass that is not recorded has no room beside the memory of the graphs.
        """
        places = range(len(self._filled))[::-1]
        warm = [place for place in places if self._tried(place, self._warm)]
        self._graphs = {place: self._tried(place, self._recorded) if place in warm else None for place in places}

    def _warm(self, compute: Callable[[], Tensor], masters: Masters) -> bool:
        """Compiles, and makes the gradients of the masters."""
        warmed_up(lambda: anew(compute, masters), WARM_UP)
        return True

    def _recorded(self, compute: Callable[[], Tensor], masters: Masters) -> Graph:
        pool = torch.cuda.graph_pool_handle() if self._pool is None else self._pool
        self._pool = None  # one in which a recording has failed cannot be recorded into
        made = Graph(compute, masters, pool)
        self._pool = pool  # kept by the graphs in it
        return made

    def _tried(self, place: int, does: Callable[[Callable[[], Tensor], Masters], T]) -> T | None:
        """What it returns for the pass of this size; None where that fails, and `said` tells why."""
        assert self.masters is not None
        filled, masters = self._filled[place], self.masters
        layers = nullcontext() if self._layers is None else self._layers.on()
        try:
            with self._mode((0,)), self.runtime.autocast(), layers:
                return does(lambda: self._pass(filled.batch, filled.weights), masters)
        except UserError:
            raise
        except Exception as error:  # out of memory, what cannot be recorded, whatever the compiler raises
            taught = " and a teacher" if filled.shape.width > 1 else ""
            reason = f"no CUDA graph for {filled.shape.tokens:,} tokens{taught}: {in_a_line(error)}"
            self.said = "; ".join(filter(None, (self.said, reason)))
            return None
        finally:
            for copy in self.model.parameters():
                copy.grad = None
            masters.detach()

    def _to_host(self, nll: Tensor) -> Tensor:
        """A copy on the host, complete once the device has come to the event that follows."""
        if not nll.is_cuda:
            return nll.clone()
        return torch.empty(nll.shape, dtype=nll.dtype, pin_memory=True).copy_(nll, non_blocking=True)

    def _waits(self) -> Callable[[], None]:
        if not self.late:
            return super()._waits()
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record()
        return event.synchronize


def fitting(rows: Sequence[Row], shape: Shape) -> list[Row]:
    """As many of the first rows as this size holds, shortest first."""
    count = next((n for n in range(1, len(rows) + 1) if not shape.holds(rows[:n])), len(rows) + 1) - 1
    return sorted(rows[:count], key=len)


def anew(compute: Callable[[], Tensor], masters: Masters) -> Tensor:
    """A pass that sets the gradients of the masters."""
    masters.detach()
    return compute()


class Graph:
    """One forward and backward pass, recorded twice: for a step's first micro-batch, which sets the gradients of the
    masters, and for those that add to them. Both are recorded before training, so that what is computed with a graph
    depends on nothing that comes later. The graphs of a model share one pool of memory: what one holds is of no use
    once it has run, as the gradients are then in those of the masters. `compute` has been warmed up."""

    def __init__(self, compute: Callable[[], Tensor], masters: Masters, pool: Any) -> None:
        self._masters, self._compute, self._pool = masters, compute, pool
        self._sets = self._recorded(lambda: anew(compute, masters))
        masters.attach()
        self._adds = self._recorded(compute)

    def _recorded(self, compute: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        graph = torch.cuda.CUDAGraph()
        with recording(graph, self._pool):
            return graph, compute()

    def __call__(self) -> Tensor:
        """[targets] nats; the array is overwritten by the next graph that runs."""
        graph, nll = self._adds if self._masters.pending else self._sets
        graph.replay()
        self._masters.attach()
        return nll
