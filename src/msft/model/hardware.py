"""What the hardware can do."""

from __future__ import annotations

import torch


def hardware_has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 products run in hardware, rather than being emulated more slowly than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        # torch has no public function for this; its CPU dispatcher uses these.
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False
