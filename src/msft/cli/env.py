"""`msft env`: versions, hardware and settings, as a bug report needs them."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from msft.cli.quiet import quiet
from msft.methods import METHODS

SETTINGS = ("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "HF_HUB_OFFLINE", "PYTORCH_CUDA_ALLOC_CONF", "WORLD_SIZE")
"""Environment variables that change how a run behaves. No others are printed: they may hold secrets."""


def run() -> None:
    """Prints JSON."""
    quiet()
    sys.stdout.write(json.dumps(collected(), indent=2) + "\n")


def collected() -> dict[str, Any]:
    """What `environment.json` of a run holds, the devices, the methods that are known, and some settings."""
    import torch

    from msft.model.hardware import hardware_has_bf16
    from msft.run.job import made_with
    from msft.system.host import host_memory

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return {
        **made_with(),
        "memory_bytes": host_memory().total,
        "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "cuda": torch.version.cuda,
        "bf16_in_hardware": hardware_has_bf16(device),
        "methods": list(METHODS),
        "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
    }
