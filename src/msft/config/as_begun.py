"""What a configuration leaves open is as it was when the run or study began."""

from __future__ import annotations

from dataclasses import replace

from msft.config.schema import Config


def as_begun(config: Config, when: str) -> Config:
    """The configuration with `auto` replaced by what a run or study that is continued has recorded."""
    if config.method.score_excluded != "auto" or when == "auto":
        return config
    method = replace(config.method, score_excluded="tick" if when == "tick" else "rollout")
    return config.model_copy(update={"method": method})
