"""`msft export`: writes the final model of a finished run as a Hugging Face folder, and uploads it to the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from msft.cli.quiet import quiet
from msft.record.run_folder import RunFolder
from msft.run.hand_over import Dtype, check_hub_id, export, push
from msft.run.moved import moved_base
from msft.screen.console import new_console


def run(
    folder: Path,
    output: Path | None,
    overrides: Sequence[str] = (),
    *,
    merge: bool,
    dtype: Dtype | None,
    hub_id: str | None,
    private: bool,
) -> None:
    """Writes the folder, by default `export` in the run folder, and uploads it if `hub_id` is given. `overrides`: may
    say where the base of an adapter lies now."""
    quiet()
    if hub_id is not None:
        check_hub_id(hub_id)
    output = output or folder / "export"
    base = moved_base(RunFolder(folder), overrides, only=True)
    said = export(RunFolder(folder), output, merge=merge, dtype=dtype, hub_id=hub_id, base=base)
    console = new_console(highlight=False)
    console.print(Text(f"The model: {output}"), soft_wrap=True)
    if said:
        console.print(Text(said), soft_wrap=True)
    if hub_id is not None:
        console.print(Text(f"On the hub: {push(output, hub_id, private=private)}"), soft_wrap=True)
