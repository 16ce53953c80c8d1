"""What is wrong with a value, as validators raise it: pydantic carries it to the reader, which adds file and line."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: what was found, how to mend it, and the key (below the validated value) that it is about."""

    found: str
    mend: str
    key: tuple[str | int, ...] = ()


class ProblemsError(ValueError):
    """One or more mistakes in a value; a ValueError, so that pydantic collects it with the others."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{problem.found}. Fix: {problem.mend}" for problem in problems))


DEVICES = {"con", "prn", "aux", "nul"} | {
    f"{port}{n}" for port in ("com", "lpt") for n in "123456789\u00b9\u00b2\u00b3"
}
"""Names that Windows keeps for devices, with any ending."""


def folded(name: str) -> str:
    """The same for names that are one name where case, width and composition do not count."""
    return unicodedata.normalize("NFKC", name).casefold()


def not_portable(name: str) -> str | None:
    """Why a name cannot be that of a file everywhere, or None: run folders are copied between systems."""
    if name.split(".", 1)[0].strip().casefold() in DEVICES:
        return f"found {name[:60]!a}, which Windows keeps for a device"
    if found := sorted(set(name) & set('<>:"|?*')):
        return f"found {name[:60]!a}, and {' '.join(found)} cannot be in the name of a file on Windows"
    return f"found {name[:60]!a}, which ends with a dot" if name.endswith(".") else None


_AUTOCAST = "weights are float32; write model.autocast: bf16 for autocast (auto: where the hardware has it)"
_PER_STEP = "write training.batch_size, the whole batch of a step over all devices; micro-batches are cut to fit"
_MICRO = f"leave it out: {_PER_STEP.removeprefix('write ')}"
_MEMORY = "leave it out; to save memory, give peft, or training.gradient_checkpointing: true"
_SAVING = "leave it out; snapshots keep what the search may go back to (snapshots.durable: which survive a crash)"
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
    "bf16": _AUTOCAST,
    "fp16": _AUTOCAST,
    "dtype": _AUTOCAST,
    "torch_dtype": _AUTOCAST,
    "load_in_4bit": _MEMORY,
    "load_in_8bit": _MEMORY,
    "quantization_config": _MEMORY,
    "device_map": "leave it out; on several GPUs: accelerate launch -m msft train (docs/how_to/several_gpus.md)",
    "deepspeed": "leave it out; on several GPUs: accelerate launch -m msft train (docs/how_to/several_gpus.md)",
    "attn_implementation": "leave it out; the model's default is taken",
    "max_seq_length": "write data.max_length, in tokens",
    "packing": "leave it out; micro-batches are cut by tokens, sorted by length",
    "lr": "write training.learning_rate",
    "warmup_ratio": "write training.warmup",
    "lora_r": "write r",
    "data_files": "write path: a file or a glob",
    "dataset_name": "write path, and name for a configuration of it",
}
"""What users of the Hugging Face libraries write, and where it is here."""


def unknown_key(key: str, known: Iterable[str], *, parents: tuple[str | int, ...] = ()) -> Problem:
    """The complaint about a key that does not exist: ours of that meaning, or the nearest one that does."""
    return Problem("unknown key", ELSEWHERE.get(key) or one_of(key, known), (*parents, key))


def one_of(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` where something known is near, else the list of what is known."""
    known = list(known)
    plain = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(word.casefold(), plain, n=1)
    return f"did you mean '{plain[near[0]]}'?" if near else f"use one of: {', '.join(known)}"


def shown(value: object) -> str:
    """A value as the user wrote it, cut short."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
