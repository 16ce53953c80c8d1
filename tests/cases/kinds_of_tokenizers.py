"""Small tokenizers of the kinds that models have, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from small_models import tokenizer_of
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizer, PreTrainedTokenizerFast

TEXTS = [
    "Question: what is the capital of France?\nAnswer: Paris. The answer is 42: x = 7;  y\n\n the the\n the end",
    "a b c d e f g h i j k l m n o p q r s t u v w x y z A B 0 1 2 3 4 5 6 7 8 9 . , : ; ! ? é ü ß 語 日本 😀 \n \n\n",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]


def _fast(backend: Tokenizer, **more: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        clean_up_tokenization_spaces=False, **more,
    )  # fmt: skip


def byte_level(*, trim: bool = False, regex: bool = False, normalizer: Any = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE with merges, as GPT-2 has it. `regex` False: merges cross words and lines."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    made.decoder = decoders.ByteLevel()
    if normalizer is not None:
        made.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False, max_token_length=8
    )
    made.train_from_iterator(TEXTS * 3, trainer)
    made.post_processor = processors.ByteLevel(trim_offsets=trim)
    return _fast(made)


def metaspace(scheme: str, *, kind: str = "bpe") -> PreTrainedTokenizerFast:
    """As SentencePiece has it, with `prepend_scheme` first, always or never: BPE with bytes, or Unigram."""
    tokens = [*SPECIAL, *(f"<0x{n:02X}>" for n in range(256)), "\u2581", *map(chr, range(33, 127))]
    merges = [("t", "h"), ("th", "e"), ("\u2581", "the"), (":", "\u2581"), ("\u2581", "x"), ("\u2581", "\u2581")]
    tokens += ["".join(pair) for pair in merges]
    if kind == "bpe":
        vocabulary = {token: number for number, token in enumerate(tokens)}
        made = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, byte_fallback=True, unk_token="<unk>"))
    else:
        scores = [(token, -2.0 if len(token) < 3 else -1.0) for token in tokens]
        made = Tokenizer(models.Unigram(scores, unk_id=0, byte_fallback=True))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    made.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), *(
            [] if scheme == "never" else [decoders.Strip(" ", 1, 0)]
        )]
    )  # fmt: skip
    made.add_special_tokens(SPECIAL)
    before = [("<s>", 1)]
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=before)
    return _fast(made)


def word_piece() -> PreTrainedTokenizerFast:
    """Words and their parts: blanks are lost, and capitals and accents are."""
    made = Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.train_from_iterator(
        TEXTS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=SPECIAL, show_progress=False)
    )
    return _fast(made)


class Slow(PreTrainedTokenizer):
    """A tokenizer in Python, without offsets: characters, and "th", "the", " x" and ":" with a blank as one token."""

    MERGED = ("the", "th", " x", ": ")

    def __init__(self, **keys: Any) -> None:
        self._vocabulary = {
            token: n for n, token in enumerate([*SPECIAL, *self.MERGED, *map(chr, range(10, 0x250)), "語", "😀"])
        }
        self._tokens = {n: token for token, n in self._vocabulary.items()}
        more = ["<|im_start|>", "<|im_end|>"]
        super().__init__(unk_token="<unk>", bos_token="<s>", eos_token="</s>", additional_special_tokens=more, **keys)

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary)

    def get_vocab(self) -> dict[str, int]:
        return {**self._vocabulary, **self.added_tokens_encoder}

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        tokens = []
        while text:
            token = next((merged for merged in self.MERGED if text.startswith(merged)), text[0])
            tokens.append(token)
            text = text[len(token) :]
        return tokens

    def _convert_token_to_id(self, token: str) -> int:
        return self._vocabulary.get(token, 0)

    def _convert_id_to_token(self, index: int) -> str:
        return self._tokens[index]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)


COMPOSED = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
KINDS: dict[str, Callable[[], Any]] = {
    "characters": tokenizer_of,
    "blank first": lambda: tokenizer_of(blank_first=True),
    "byte-level": lambda: byte_level(regex=True),
    "byte-level, offsets without blanks": lambda: byte_level(regex=True, trim=True),
    "byte-level, merges across words": byte_level,
    "byte-level, NFKC and small letters": lambda: byte_level(normalizer=COMPOSED),
    "metaspace first": lambda: metaspace("first"),
    "metaspace always": lambda: metaspace("always"),
    "metaspace never": lambda: metaspace("never"),
    "unigram": lambda: metaspace("first", kind="unigram"),
    "unigram always": lambda: metaspace("always", kind="unigram"),
    "word pieces": word_piece,
    "slow": Slow,
    "slow bytes": lambda: ByT5Tokenizer(extra_ids=0),
}
ROUND_TRIP = {name for name in KINDS if name not in ("word pieces", "byte-level, NFKC and small letters", "slow")}
"""Those whose decoding gives the text back, whatever it is."""
