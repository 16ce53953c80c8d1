"""Tiny random language models with a tokenizer of single characters, made on the spot: what the tests of faults that
people reported are tried on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from torch.nn import functional
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from msft.data.examples import Example

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|endoftext|>"]


def tokenizer_of(
    *,
    eos: str = "</s>",
    template: str | None = None,
    blank_first: bool = False,
    listed: tuple[str, ...] = ("<|im_start|>", "<|im_end|>"),
    more_special: tuple[str, ...] = (),
    letters: str = "",
) -> PreTrainedTokenizerFast:
    """`blank_first`: as SentencePiece has it, a blank is put before every text. `listed`: the special tokens that
    `all_special_ids` knows beside the usual ones; `more_special`: further special tokens of the vocabulary.
    `letters`: the only characters that it knows (by default all), for models with few tokens."""
    made = PreTrainedTokenizerFast(
        tokenizer_object=_characters(blank_first, [*SPECIAL, *more_special], letters),
        bos_token="<s>",
        eos_token=eos,
        additional_special_tokens=list(listed),
        clean_up_tokenization_spaces=False,
    )
    if template is not None:
        made.chat_template = template
    return made


def make_model(
    folder: Path, kind: str = "llama", words: PreTrainedTokenizerFast | None = None, **more: Any
) -> PreTrainedTokenizerFast:
    """Saves a model and its tokenizer (the plain one by default) in `folder`; `more`: values of its configuration."""
    words = words or tokenizer_of()
    shape = {
        "vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0,
        "bos_token_id": words.bos_token_id, "eos_token_id": words.eos_token_id,
    }  # fmt: skip
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **(shape | more)))
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(3)  # so that likelihoods differ from token to token
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return words


def plainly(model: Any, rows: Sequence[Example]) -> list[float]:
    """The nats of each row's targets, from its fourth token on, by the plain model and row by row."""
    found = []
    with torch.no_grad():
        for example in rows:
            ids = torch.from_numpy(example.ids.astype(np.int64))[None]
            logits = model(input_ids=ids[:, :-1], use_cache=False).logits[0, 2:]
            found.append(float(functional.cross_entropy(logits, ids[0, 3:], reduction="sum")))
    return found


def _characters(blank_first: bool, special: list[str], letters: str = "") -> Tokenizer:
    """One byte, one token."""
    if blank_first:
        tokens = [*special, *(f"<0x{n:02X}>" for n in range(256)), "\u2581", *(chr(n) for n in range(33, 127))]
        vocabulary = {token: number for number, token in enumerate(tokens)}
        made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
        made.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        made.decoder = decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        before = [("<s>", vocabulary["<s>"])]
        made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=before)
    else:
        alphabet = sorted(letters.replace(" ", "\u0120") or pre_tokenizers.ByteLevel.alphabet())
        vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
        made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.decoder = decoders.ByteLevel()
    made.add_special_tokens(special)
    return made
