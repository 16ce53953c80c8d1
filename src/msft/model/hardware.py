"""What the hardware can do, and what it needs after it could not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import torch

from msft.core.errors import RunError, complaint, first_line


def hardware_has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware, rather than being emulated more slowly than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # torch has no public function for this; its CPU dispatcher uses these.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


@contextmanager
def algorithms(*, deterministic: bool) -> Iterator[None]:
    """Context in which torch uses deterministic algorithms, and raises where there is none, or any; afterwards as
    before."""
    on, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(on, warn_only=warns)


def warmed_up(compute: Callable[[], object], times: int) -> None:
    """Computes what is to be recorded: the first times choose kernels and take memory. On a stream of its own, as torch
    asks for."""
    side = _side_stream(torch.cuda.current_device())
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(times):
            compute()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()


@cache
def _side_stream(device: int) -> Any:
    """One for all, as products keep a workspace for each stream that they have seen, until the process ends."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


@contextmanager
def recording(graph: torch.cuda.CUDAGraph, pool: Any = None) -> Iterator[None]:
    """Context that records what this thread gives to the current GPU, into a graph whose memory comes from the pool, or
    from one of its own.

    Where that fails, the device is made usable again, and the error is raised: that of what was to be recorded, after
    which ending the recording fails too.
    """
    pool = torch.cuda.graph_pool_handle() if pool is None else pool
    reason: Exception | None = None
    try:
        # The thread that writes snapshots may use the device meanwhile. The outer context gives the stream back where
        # the inner one fails to.
        stream = torch.cuda.stream(torch.cuda.current_stream())
        with stream, torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            try:
                yield
            except Exception as error:
                reason = error
                raise
    except Exception as error:
        _after_failed_recording(pool)
        raise error if reason is None else reason from None


def _after_failed_recording(pool: Any) -> None:
    """torch leaves allocator and generator as if they still recorded: nothing more could be recorded or drawn."""
    device = torch.cuda.current_device()
    torch.cuda.synchronize()
    with suppress(RuntimeError, AttributeError):  # the first where ending the recording has done it
        torch._C._cuda_endAllocateToPool(device, pool)
        torch._C._cuda_releasePool(device, pool)
    # The end of a recording frees the generator. Another generator in its place would leave dropout in the graphs that
    # exist without a seed.
    with suppress(RuntimeError), torch.cuda.stream(torch.cuda.current_stream()):
        number = torch.zeros(1, device="cuda")
        with torch.cuda.graph(torch.cuda.CUDAGraph(), capture_error_mode="thread_local"):
            number.add_(1)
    try:
        with torch.random.fork_rng(devices=[device]):
            torch.rand(1, device="cuda")
    except RuntimeError as error:
        found = f"after a failed recording, this GPU gives no random numbers ({first_line(error)})"
        raise RunError(complaint(found, "set it to false", field="training.cuda_graphs")) from error
