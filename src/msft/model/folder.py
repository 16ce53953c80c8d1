"""Checks whether a model folder can be used, before anything in it is loaded. No torch."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from msft.core.errors import ModelError, complaint, in_a_line
from msft.core.paths import absent, expanded
from msft.system.files import sha256

Quantized: TypeAlias = Literal["nf4", "fp4", "int8"]
"""In which numbers of 4 or 8 bits a base is held."""

_CONVERT = "save the model with save_pretrained of a current transformers, which writes safetensors"
_COPY_AGAIN = "download or copy the file again"
_LONGEST_HEADER = 100_000_000
"""Bytes; the format's own limit."""
IDENTITY = {".safetensors", ".json", ".txt", ".model", ".jinja", ".py"}
"""The files that decide what a model folder computes."""
COPY_OF = "copy_of.json"
"""In a run's copy of a model that was passed as an object: the folder or hub name of which it was proven a copy, and
the commit of a hub name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Where a model comes from."""

    name_or_path: str
    """A folder, or the name of a model on the Hugging Face hub."""
    revision: str | None = None
    gguf_file: str | None = None
    """A GGUF file in the folder: weights and tokenizer are read from it, dequantised."""
    tokenizer: str | None = None
    """A folder or a name on the hub, if not the model's own tokenizer."""
    trust_remote_code: bool = False
    peft: dict[str, Any] | None = None
    """Arguments of peft.LoraConfig; None trains all weights."""
    quantize: Quantized | None = None
    """How the base's linear layers are held, under an adapter; None: as they are stored."""
    seed: int = 0
    """Decides the initial weights of an adapter."""
    chat_template: str | None = None
    """Jinja text that replaces the tokenizer's own."""

    @property
    def folder(self) -> Path | None:
        """The local folder; None for a name on the hub."""
        path = expanded(self.name_or_path)
        names_folder = self.name_or_path.startswith((".", "/", "~")) or self.name_or_path.count("/") > 1
        return path if names_folder or path.is_dir() else None

    @property
    def base(self) -> str:
        """What an adapter names as its base, a folder or hub name: of a copy in a run its original, if it is known."""
        original = self._original
        return str(self.folder or self.name_or_path) if original is None else str(original["name_or_path"])

    @property
    def base_revision(self) -> str | None:
        """Which commit of a hub name an adapter names as its base; None: the base is a folder, or it is not known."""
        if (original := self._original) is not None:
            found = original.get("revision")
            return found if isinstance(found, str) else None
        if self.folder is not None or self.gguf_file is not None:  # PEFT reads no GGUF
            return None
        return hub_commit(self)

    @property
    def _original(self) -> dict[str, Any] | None:
        """What a copy in a run says of its original, if it is known."""
        known = None if self.folder is None else self.folder / COPY_OF
        if known is None or not known.is_file():
            return None
        original = _read_json(known)
        if not isinstance(original.get("name_or_path"), str):
            raise ModelError(complaint("it has no name_or_path", _COPY_AGAIN, file=known))
        return original


def check_model_folder(source: ModelSource) -> None:
    """Raises ModelError if a local model folder cannot be used; takes milliseconds. Names on the hub are not
    checked."""
    folder = source.folder
    if source.trust_remote_code and source.revision is None:
        found = "code that comes with the model may change unseen: no revision is set"
        fix = "set model.revision to the commit whose code you read"
        raise ModelError(complaint(found, fix, file=source.name_or_path, field="model.trust_remote_code"))
    if folder is None:
        return
    if not folder.is_dir():
        fix = "give an existing folder, or a name on the Hugging Face hub"
        raise ModelError(complaint("there is no such folder", fix, file=folder, field="model.name_or_path"))
    if source.gguf_file is not None:
        _check_gguf(folder / source.gguf_file)
        return
    _check_no_adapter(folder / "adapter_config.json")
    config = folder / "config.json"
    if not config.is_file():
        raise ModelError(complaint("the file is missing", "give a folder made by save_pretrained", file=config))
    _check_code(config, _read_json(config), source)
    for path in weight_files(folder):
        safetensors_header(path)


def check_shapes(source: ModelSource, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raises ModelError if the shape of a tensor in a local folder differs from the configuration.

    `expected`: shape by name. Names that are only on one side are skipped: transformers renames tensors of older
    models. Quantised tensors are packed and skipped too.
    """
    folder = source.folder
    if folder is None or source.gguf_file is not None or "quantization_config" in _read_json(folder / "config.json"):
        return
    for path in weight_files(folder):
        for name, entry in safetensors_header(path)[1].items():
            wanted, shape = expected.get(name), tuple(entry["shape"])
            if wanted is not None and wanted != shape:
                found = f"{name} has the shape {list(shape)}, but config.json gives {list(wanted)}"
                fix = "use the config.json that belongs to these weights"
                raise ModelError(complaint(found, fix, file=path))


def fingerprint(source: ModelSource) -> str:
    """SHA-256 of the model's weights, configuration and tokenizer; for a name on the hub, of its commit. Raises
    ModelError if they cannot be read, such as of a folder that was removed while a run trained."""
    folder = source.folder
    if folder is None:
        return hashlib.sha256(f"{source.name_or_path}@{hub_commit(source)}:{source.gguf_file}".encode()).hexdigest()
    total = hashlib.sha256()
    try:
        for path in sorted(folder.iterdir()):
            if path.is_file() and (path.suffix in IDENTITY or path.name == source.gguf_file):
                total.update(f"{path.name} {sha256(path)}\n".encode())
    except OSError as error:
        fix = "restore the model's files; a run that had begun then continues with --resume"
        raise ModelError(complaint(f"the model cannot be read ({error.strerror})", fix, file=folder)) from error
    return total.hexdigest()


def hub_commit(source: ModelSource, *, cached: bool = False) -> str:
    """The commit that a name on the hub resolves to; with `cached`, in the hub's local cache alone."""
    # Imported here: importing transformers takes a second, and checking a folder does not need it.
    from transformers.utils.hub import cached_file

    with complaining(source, "the model cannot be found"):
        wanted = source.gguf_file or "config.json"
        found = cached_file(source.name_or_path, wanted, revision=source.revision, local_files_only=cached)
    # The hub's cache keeps each file under snapshots/<commit>/.
    return Path(str(found)).parent.name


def check_no_hub_adapter(source: ModelSource) -> None:
    """Raises ModelError where a name on the hub has an adapter at its top: transformers would put it on the model,
    pickled if it is."""
    if source.folder is not None:
        return
    # Imported here, as above.
    from transformers.utils.peft_utils import find_adapter_config_file

    with complaining(source, "the model cannot be found"):
        found = find_adapter_config_file(source.name_or_path, revision=source.revision)
    if found is not None:
        _check_no_adapter(Path(found))


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a local folder. Raises ModelError."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if single.is_file():
        return [single]
    if index.is_file():
        shards = _read_json(index).get("weight_map")
        if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
            raise ModelError(complaint("it has no weight_map from tensors to files", _COPY_AGAIN, file=index))
        for name in shards.values():
            if name in {"", ".", ".."} or set(name) & set("/\\\0"):
                found = f"weight_map names {name[:60]!r}, which is not in this folder"
                raise ModelError(complaint(found, "name files of this folder only", file=index))
        return [folder / name for name in sorted(set(shards.values()))]
    pickled = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.pt*"))
    if pickled:
        found = "the weights are pickled, which can run any code when read, and there is no safetensors file"
        raise ModelError(complaint(found, _CONVERT, file=pickled[0]))
    raise ModelError(complaint("the folder has no safetensors file", _CONVERT, file=folder))


def safetensors_header(path: Path) -> tuple[int, dict[str, dict[str, Any]]]:
    """Returns the offset of the tensors' bytes, and each tensor's dtype, shape and data_offsets by name.

    Raises ModelError if the header is malformed or does not match the file's size, as after an incomplete download.
    """
    if not path.is_file():
        raise ModelError(complaint("the file is missing", _COPY_AGAIN, file=path))
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            raise ModelError(complaint(f"the file is cut off: it has {size} bytes", _COPY_AGAIN, file=path))
        length = struct.unpack("<Q", start)[0]
        if length > _LONGEST_HEADER:
            found = f"its header claims {length} bytes, more than the safetensors format allows"
            raise ModelError(complaint(found, _COPY_AGAIN, file=path))
        if 8 + length > size:
            raise ModelError(complaint(f"the file is cut off: it has {size} bytes", _COPY_AGAIN, file=path))
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            ends = [_end(entry) for entry in header.values()]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
            raise ModelError(complaint("its header is not a safetensors header", _COPY_AGAIN, file=path)) from error
    if 8 + length + max(ends, default=0) != size:
        found = f"the file has {size} bytes, but its header says {8 + length + max(ends, default=0)}"
        raise ModelError(complaint(found, _COPY_AGAIN, file=path))
    return 8 + length, header


@contextmanager
def complaining(source: ModelSource, what: str) -> Iterator[None]:
    """Turns any error of the loading libraries into a ModelError of one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        found = f"{what} ({in_a_line(error)})"
        fix = "check the name and the files; without a network, give a local folder"
        if isinstance(error, ImportError):
            fix = "pip install 'gguf>=0.17'" if source.gguf_file is not None else "install the package that it names"
        elif not Path(source.name_or_path).exists():
            fix = f"check the name: {absent(Path(source.name_or_path))}; without a network, give a local folder"
        raise ModelError(complaint(found, fix, file=source.name_or_path)) from error


def _end(entry: Any) -> int:
    """The end offset of a tensor's bytes. Raises ValueError, KeyError or TypeError for a malformed entry."""
    start, end = map(int, entry["data_offsets"])
    if not 0 <= start <= end or not isinstance(entry["dtype"], str) or min(map(int, entry["shape"]), default=0) < 0:
        raise ValueError(entry)
    return end


def _check_no_adapter(adapter: Path) -> None:
    """Raises ModelError for an adapter: transformers would silently load its base instead of the weights in this
    folder."""
    if adapter.is_file():
        base = _read_json(adapter).get("base_model_name_or_path")
        found = f"the folder holds an adapter of {str(base)[:60]!r}, not a model of its own"
        fix = "merge the adapter into that base, save the merged model, and give its folder"
        raise ModelError(complaint(found, fix, file=adapter))


def _check_code(path: Path, config: Mapping[str, Any], source: ModelSource) -> None:
    """Raises ModelError if the model needs code of its own that the user has not allowed."""
    if not config.get("auto_map") or source.trust_remote_code:
        return
    # Imported here: importing transformers takes a second, and few models have code of their own.
    from transformers import CONFIG_MAPPING

    if config.get("model_type") not in CONFIG_MAPPING:  # otherwise transformers runs its own code
        found = "auto_map asks to run code that came with the model"
        trusted = "name this folder as model.name_or_path, with model.trust_remote_code: true and model.revision"
        fix = f"read that code; if you trust it, {trusted}"
        raise ModelError(complaint(found, fix, file=path))


def _check_gguf(path: Path) -> None:
    if not path.is_file():
        raise ModelError(complaint("there is no such file", "name a GGUF file", file=path, field="model.gguf_file"))
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(complaint("the file is not in the GGUF format", _COPY_AGAIN, file=path))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        fields = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(complaint(f"the file is not valid JSON ({error})", _COPY_AGAIN, file=path)) from error
    if not isinstance(fields, dict):
        raise ModelError(complaint("the file does not hold a JSON object", _COPY_AGAIN, file=path))
    return fields
