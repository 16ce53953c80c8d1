"""Whether a run was begun, for `msft train`; loads none of the large libraries."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msft.config.reader import output_of
from msft.record.run_folder import RunFolder


def begun(path: Path, overrides: Sequence[str]) -> bool:
    """Whether the output folder of a configuration holds a run that can be resumed. Raises ConfigError."""
    output = path if path.is_dir() else output_of(path, overrides)
    return output is not None and RunFolder(output).exists
