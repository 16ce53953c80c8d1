"""The `peft` section, and what a base in few bits needs."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from msft.config.columns import Names
from msft.config.plain_text import Text
from msft.config.problems import Problem, ProblemsError
from msft.config.section import Section
from msft.core.vocabulary import LATER


class PeftConfig(Section):
    """A LoRA adapter in place of full fine-tuning."""

    r: int = Field(default=16, ge=1)
    """Rank of the adapter."""
    lora_alpha: float = Field(default=32, gt=0)
    """The adapter's output is scaled by lora_alpha / r."""
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    """Dropout probability of the adapter's inputs in training."""
    target_modules: Text | Names = "all-linear"
    """Names of the modules that get an adapter; `all-linear`: all linear layers except the output head."""
    exclude_modules: Annotated[Names | None, LATER] = None
    """Names of modules that get none, though `target_modules` names them."""
    layers_to_transform: Annotated[Annotated[tuple[int, ...], Field(strict=False)] | None, LATER] = None
    """Numbers, from 0, of the layers whose modules get an adapter; null: all."""
    modules_to_save: Annotated[Names | None, LATER] = None
    """Names of modules that are trained whole beside the adapter, and stored with it."""
    use_dora: Annotated[bool, LATER] = False
    """DoRA: the adapter changes the direction of a weight, and a length of its own is trained (arXiv 2402.09353)."""
    use_rslora: Annotated[bool, LATER] = False
    """rsLoRA: the adapter's output is scaled by lora_alpha / sqrt(r) (arXiv 2312.03732)."""


def check_quantised(*, adapter: bool, compiled: bool) -> None:
    """Raises ProblemsError where a run with `model.quantize` has no `adapter`, or compiles its layers."""
    if not adapter:
        found = "weights in 4 or 8 bits cannot be trained, and no adapter is"
        fix = "add an adapter, such as peft: {r: 16}, or leave out model.quantize"
        raise ProblemsError([Problem(found, fix, ("model", "quantize"))])
    if compiled:
        found = "layers in 4 or 8 bits are not compiled: it is not proven that they compute the same"
        fix = "leave out training.torch_compile, or model.quantize"
        raise ProblemsError([Problem(found, fix, ("training", "torch_compile"))])
