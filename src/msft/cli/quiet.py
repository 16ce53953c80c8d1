"""Other libraries' progress bars and notices would break into what a command prints."""

from __future__ import annotations

import os
import sys
import warnings

from transformers.utils import logging


def quiet() -> None:
    """Silences transformers, datasets, torch and peft, errors apart; for the commands, never for the library."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    # It takes 0.4 s to import, and only data of the hub need it: told by its own variable, it is silent once it comes.
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    if "datasets" in sys.modules:
        sys.modules["datasets"].disable_progress_bars()
    for category in (UserWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=r"torch\.|transformers\.|peft\.")
