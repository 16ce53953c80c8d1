"""What the hardware can do, and what it needs after it could not."""

from __future__ import annotations

from contextlib import suppress

import torch


def hardware_has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware, rather than being emulated more slowly than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # torch has no public function for this; its CPU dispatcher uses these.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def after_failed_recording(device: torch.device) -> None:
    """Makes the device usable after a CUDA graph could not be recorded: the generator is left as if it still were."""
    torch.cuda.synchronize()
    with suppress(RuntimeError):
        fresh = torch.Generator(device).graphsafe_get_state()
        torch.cuda.default_generators[torch.cuda.current_device()].graphsafe_set_state(fresh)
