"""Silences other libraries' progress bars and notices, which would mix with a command's output."""

from __future__ import annotations

import os
import sys
import warnings

from transformers.utils import logging


def quiet() -> None:
    """Silences transformers, datasets, torch and peft, except errors; used by the commands only, not by the API."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # Importing datasets takes 0.4 s and only hub data need it, so use its environment variable instead.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    for category in (UserWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=r"torch\.|transformers\.|peft\.")
