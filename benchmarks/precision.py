"""The one place where a benchmark on a GPU says in which precision we train."""

from __future__ import annotations

from dataclasses import fields

from msft.engine.settings import EngineSettings


def precision(bf16: bool) -> dict[str, str]:
    """The key of a configuration's `model:`; with bf16 what a user gets who says nothing."""
    if "precision" in {field.name for field in fields(EngineSettings)}:
        return {"precision": "auto" if bf16 else "fp32"}
    return {"autocast": "bf16" if bf16 else "no"}
