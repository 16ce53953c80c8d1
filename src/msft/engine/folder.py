"""Whether a model folder can be used, told before anything of it is loaded. No torch."""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msft.core.errors import ModelError, complaint

_CONVERT = "save the model with save_pretrained of a current transformers, which writes safetensors"
_COPY_AGAIN = "download or copy the file again"
_IDENTITY = {".safetensors", ".json", ".txt", ".model", ".jinja", ".py"}
"""The files that decide what a model folder computes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a model comes from."""

    name_or_path: str
    """A folder, or the name of a model on the Hugging Face hub."""
    revision: str | None = None
    gguf_file: str | None = None
    """A GGUF file in it: weights and tokenizer are read from there and dequantised."""
    trust_remote_code: bool = False
    peft: dict[str, Any] | None = None
    """Arguments of peft.LoraConfig; None trains all weights."""
    seed: int = 0
    """Decides the initial weights of an adapter."""

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a name on the hub."""
        path = Path(self.name_or_path).expanduser()
        names_folder = self.name_or_path.startswith((".", "/", "~")) or self.name_or_path.count("/") > 1
        return path if names_folder or path.is_dir() else None


def check_model_folder(source: ModelSource) -> None:
    """Raises ModelError if a local model folder cannot be used; costs milliseconds. Names on the hub pass."""
    folder = source.folder
    if folder is None:
        return
    if not folder.is_dir():
        mend = "give an existing folder, or a name on the Hugging Face hub"
        raise ModelError(complaint("there is no such folder", mend, file=folder, field="model.name_or_path"))
    if source.gguf_file is not None:
        _check_gguf(folder / source.gguf_file)
        return
    config = folder / "config.json"
    if not config.is_file():
        adapter = (folder / "adapter_config.json").is_file()
        found = "the folder holds only an adapter" if adapter else "the file is missing"
        mend = "merge the adapter into its base model first" if adapter else "give a folder made by save_pretrained"
        raise ModelError(complaint(found, mend, file=config))
    _read_json(config)
    for path in _weight_files(folder):
        _check_safetensors(path)


def fingerprint(source: ModelSource) -> str:
    """SHA-256 over the model's weights, configuration and tokenizer; of a name on the hub, over its commit."""
    folder = source.folder
    if folder is None:
        # Imported here: it pulls in torch, and a folder's check needs none.
        from msft.engine.model import hub_commit

        return hashlib.sha256(f"{source.name_or_path}@{hub_commit(source)}:{source.gguf_file}".encode()).hexdigest()
    total = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.is_file() and (path.suffix in _IDENTITY or path.name == source.gguf_file):
            with path.open("rb") as file:
                total.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return total.hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict):
            raise ModelError(complaint("it has no weight_map", _COPY_AGAIN, file=index))
        return [folder / name for name in sorted(set(shards.values()))]
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt*"))
    if pickled:
        found = "the weights are pickled, which can run any code when read, and there is no safetensors file"
        raise ModelError(complaint(found, _CONVERT, file=pickled[0]))
    raise ModelError(complaint("the folder has no safetensors file", _CONVERT, file=folder))


def _check_safetensors(path: Path) -> None:
    """The header must be whole and the file as long as it says: a broken download is told here."""
    if not path.is_file():
        raise ModelError(complaint("the file is missing", _COPY_AGAIN, file=path))
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if 8 + length > size:
            raise ModelError(complaint(f"the file is cut off: it has {size} bytes", _COPY_AGAIN, file=path))
        try:
            header = json.loads(file.read(length))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise ModelError(complaint("its header is no safetensors header", _COPY_AGAIN, file=path)) from error
    if 8 + length + max(ends, default=0) != size:
        found = f"the file has {size} bytes where its header says {8 + length + max(ends, default=0)}"
        raise ModelError(complaint(found, _COPY_AGAIN, file=path))


def _check_gguf(path: Path) -> None:
    if not path.is_file():
        raise ModelError(complaint("there is no such file", "name a GGUF file", file=path, field="model.gguf_file"))
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(complaint("the file is not in the GGUF format", _COPY_AGAIN, file=path))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(complaint(f"the file is not valid JSON ({error})", _COPY_AGAIN, file=path)) from error
    if not isinstance(fields, dict):
        raise ModelError(complaint("the file does not hold a JSON object", _COPY_AGAIN, file=path))
    return fields
