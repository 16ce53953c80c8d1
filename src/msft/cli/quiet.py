"""Other libraries' progress bars and notices would break into what a command prints."""

from __future__ import annotations

import warnings

import datasets
from transformers.utils import logging


def quiet() -> None:
    """Silences transformers, datasets, torch and peft, errors apart; for the commands, never for the library."""
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    datasets.disable_progress_bars()
    for category in (UserWarning, FutureWarning):
        warnings.filterwarnings("ignore", category=category, module=r"torch\.|transformers\.|peft\.")
