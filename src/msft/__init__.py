"""msft: fine-tune one model on a mixture of data sets, each until its own peak (arXiv 2603.21606)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from msft.core.version import __version__

if TYPE_CHECKING:
    from msft.api.config import MSFTConfig as MSFTConfig
    from msft.api.trainer import MSFTTrainer as MSFTTrainer

__all__ = ["MSFTConfig", "MSFTTrainer", "__version__"]

_HOMES = {"MSFTConfig": "msft.api.config", "MSFTTrainer": "msft.api.trainer"}


def __getattr__(name: str) -> object:
    # Imported when they are asked for: torch alone costs seconds, and `msft --help` needs none.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
