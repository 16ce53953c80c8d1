"""Problems that validators raise: pydantic passes them on to the reader, which adds file and line."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: what was found, how to fix it, and the key that it concerns, relative to the validated value."""

    found: str
    fix: str
    key: tuple[str | int, ...] = ()


class ProblemsError(ValueError):
    """One or more mistakes in a value; a ValueError, so that pydantic collects it with the others."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{problem.found}. Fix: {problem.fix}" for problem in problems))


SAFE = "use at most 100 bytes of printable characters without / and \\"


def unsafe_name(name: str, what: str = "id") -> str | None:
    """Why a name cannot name files and rows of tables, or None."""
    if not name.strip() or name != name.strip():
        return f"the {what} is empty, or begins or ends with a blank"
    if name in {".", ".."} or len(name.encode()) > 100 or not name.isprintable() or set(name) & set("/\\"):
        return f"found {name[:60]!a}, which cannot name files and table rows"
    return None


DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in "123456789\u00b9\u00b2\u00b3"
}
"""File names that Windows reserves for devices, with any extension."""


def folded(name: str) -> str:
    """A form that is equal for names which differ only in case, character width or Unicode composition."""
    return unicodedata.normalize("NFKC", name).casefold()


def not_portable(name: str) -> str | None:
    """Why a name cannot be a file name on every system, or None. Run folders are copied between systems."""
    if name.split(".", 1)[0].strip().casefold() in DEVICES:
        return f"found {name[:60]!a}, which Windows reserves for a device"
    if found := sorted(set(name) & set('<>:"|?*')):
        return f"found {name[:60]!a}, but Windows does not allow {' '.join(found)} in file names"
    return f"found {name[:60]!a}, which ends with a dot" if name.endswith(".") else None


_PRECISION = "weights that are trained are float32; write model.precision: mixed, autocast or fp32 (auto: by hardware)"
_PER_STEP = "write training.batch_size, the whole batch of a step over all devices; micro-batches are cut to fit"
_MICRO = f"remove it: {_PER_STEP.removeprefix('write ')}"
_QUANTIZE = "write model.quantize: nf4, fp4 or int8, with peft"
_SAVING = "remove it; msft keeps each snapshot that it may roll back to (snapshots.durable: which survive a crash)"
ELSEWHERE = {
    "num_train_epochs": "write method.max_epochs, in epochs",
    "epochs": "write method.max_epochs, in epochs",
    "num_epochs": "write method.max_epochs, in epochs",
    "max_steps": "write method.max_epochs, in epochs",
    "eval_steps": "write method.eval_every, in epochs",
    "save_steps": _SAVING,
    "save_strategy": _SAVING,
    "save_total_limit": _SAVING,
    "per_device_train_batch_size": _PER_STEP,
    "per_device_eval_batch_size": _MICRO,
    "gradient_accumulation_steps": _MICRO,
    "autocast": "write model.precision: mixed, autocast (was bf16), fp32 (was no) or auto",
    "bf16": _PRECISION,
    "fp16": _PRECISION,
    "dtype": _PRECISION,
    "torch_dtype": _PRECISION,
    "load_in_4bit": "write model.quantize: nf4 (or fp4), with peft",
    "load_in_8bit": "write model.quantize: int8, with peft",
    "quantization": _QUANTIZE,
    "quantization_config": _QUANTIZE,
    "bnb_4bit_quant_type": _QUANTIZE,
    "bnb_4bit_compute_dtype": "remove it; weights in 4 bits compute in the type of model.precision",
    "bnb_4bit_use_double_quant": "remove it; model.quantize: nf4 and fp4 quantise the scales too",
    "device_map": "remove it; on several GPUs: accelerate launch -m msft train (docs/how_to/several_gpus.md)",
    "deepspeed": "remove it; on several GPUs: accelerate launch -m msft train (docs/how_to/several_gpus.md)",
    "attn_implementation": "remove it; the model's default is used",
    "max_seq_length": "write data.max_length, in tokens",
    "packing": "remove it; micro-batches are cut by tokens, sorted by length",
    "lr": "write training.learning_rate",
    "warmup_ratio": "write training.warmup",
    "lora_r": "write r",
    "data_files": "write path: a file or a glob",
    "mixing": "write data.mixing",
    "repeat": "write it in the entries of datasets, or in dataset_defaults",
    "probabilities": "write data.mixing: size, equal or {temperature: T}, or repeat in the entries of datasets",
    "weight": "write repeat: how often an epoch takes each example",
    "dataset_name": "write path, and name for a configuration of it",
}
"""Keys of the Hugging Face libraries, and what to write here instead."""


def unknown_key(key: str, known: Iterable[str], *, parents: tuple[str | int, ...] = ()) -> Problem:
    """The problem of an unknown key; its fix names the key of the same meaning, or else the most similar one."""
    return Problem("unknown key", ELSEWHERE.get(key) or one_of(key, known), (*parents, key))


def one_of(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` if a known word is similar, else the list of known words."""
    known = list(known)
    plain = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), plain, n=1)
    return f"did you mean '{plain[near[0]]}'?" if near else f"use one of: {', '.join(known)}"


def shown(value: object) -> str:
    """A value as the user wrote it, shortened to 60 characters."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
