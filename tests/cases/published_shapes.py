"""The shapes of published models, as their config.json have them, for plans of memory: no weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers_for_tests import tokenizer
from transformers import AutoConfig

SHAPES: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-0.5B": {
        "kind": "qwen2", "hidden_size": 896, "num_hidden_layers": 24, "num_attention_heads": 14,
        "num_key_value_heads": 2, "intermediate_size": 4864, "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-1.5B": {
        "kind": "qwen2", "hidden_size": 1536, "num_hidden_layers": 28, "num_attention_heads": 12,
        "num_key_value_heads": 2, "intermediate_size": 8960, "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-3B": {
        "kind": "qwen2", "hidden_size": 2048, "num_hidden_layers": 36, "num_attention_heads": 16,
        "num_key_value_heads": 2, "intermediate_size": 11008, "vocab_size": 151936, "tie_word_embeddings": True,
    },
    "Qwen/Qwen2.5-7B": {
        "kind": "qwen2", "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28,
        "num_key_value_heads": 4, "intermediate_size": 18944, "vocab_size": 152064, "tie_word_embeddings": False,
    },
    "Qwen/Qwen3-8B": {
        "kind": "qwen3", "hidden_size": 4096, "num_hidden_layers": 36, "num_attention_heads": 32, "head_dim": 128,
        "num_key_value_heads": 8, "intermediate_size": 12288, "vocab_size": 151936, "tie_word_embeddings": False,
    },
    "allenai/OLMo-2-0425-1B": {
        "kind": "olmo2", "hidden_size": 2048, "num_hidden_layers": 16, "num_attention_heads": 16,
        "num_key_value_heads": 16, "intermediate_size": 8192, "vocab_size": 100352, "tie_word_embeddings": False,
    },
    "meta-llama/Llama-3.1-8B": {
        "kind": "llama", "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256, "tie_word_embeddings": False,
    },
}  # fmt: skip


def shaped(folder: Path, name: str) -> Path:
    """A folder with the configuration of this model, a small tokenizer, and a weight file without weights."""
    fields = dict(SHAPES[name])
    config = AutoConfig.for_model(fields.pop("kind"), max_position_embeddings=32768, **fields)
    config.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder
