"""Reported: pieces of an example were tokenised apart: SentencePiece's blank was learned twice, and tokens differed
from those of the whole text."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kinds_of_tokenizers import KINDS, ROUND_TRIP, Slow, byte_level, metaspace
from small_models import CHATML, PLAIN, tokenizer_of
from tokenizers import AddedToken

from msft.data.borders import PieceTokenizer
from msft.data.encode import BEGUN, CLOSED, ENDED, OPEN, STRADDLES, Encoder
from msft.data.formats import Sample
from msft.data.sources import Row

ROW = Row({}, "f", 1, 1)
INST = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}{{ '[INST] ' + m['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + m['content'] + eos_token }}{% endif %}{% endfor %}"
)


made = cache(lambda kind: KINDS[kind]())
encoder_of = cache(lambda kind: Encoder(made(kind)))


def pair(prompt: str, completion: str, **keys: Any) -> Sample:
    return Sample(row=ROW, prompt=prompt, completion=completion, **keys)


def chat(*contents: str, roles: tuple[str, ...] = ("user", "assistant")) -> Sample:
    turns = zip(roles * len(contents), contents, strict=False)
    return Sample(row=ROW, messages=tuple({"role": role, "content": content} for role, content in turns))


def shown(words: Any, example: Any) -> str:
    """The text of the tokens, that of the learned ones in brackets."""
    parts = np.split(example.ids, np.flatnonzero(np.diff(example.trained)) + 1)
    learned = bool(example.trained[0])
    text, done = "", 0
    for part in parts:
        done += len(part)
        # The tokens so far, without the text so far: a decoder may drop the first blank.
        piece = words.decode(example.ids[:done]).removeprefix(words.decode(example.ids[: done - len(part)]))
        text += f"[{piece}]" if learned else piece
        learned = not learned
    return text


@pytest.mark.parametrize(
    ("prompt", "completion", "right"),
    [
        ("France:", " Paris", "<s> France:[ Paris</s>]"),
        ("France:\n", "Paris", "<s> France:\n[Paris</s>]"),
        ("", "Paris", "<s>[ Paris</s>]"),
        ("é", "😀", "<s> é[😀</s>]"),
    ],
)
def test_sentencepiece_s_blank_is_learned_once(prompt: str, completion: str, right: str) -> None:
    words = tokenizer_of(blank_first=True)
    (example,) = Encoder(words).whole([pair(prompt, completion)])
    assert shown(words, example) == right
    assert example.ids.tolist() == [*words(prompt + completion)["input_ids"], words.eos_token_id]


@pytest.mark.parametrize("template", [INST, CHATML])
@pytest.mark.parametrize("kind", KINDS)
def test_a_chat_has_the_tokens_of_its_template(kind: str, template: str) -> None:
    words, turns = KINDS[kind](), ("Capital of France?", "Paris, the", "And \n", "é😀 x")
    words.chat_template = template
    encoder = Encoder(words)
    examples = encoder.whole([chat(*turns)])
    example = examples[-1]
    messages = list(chat(*turns).messages)
    whole = words.apply_chat_template(messages, chat_template=template, tokenize=True, return_dict=False)
    ids = example.ids.tolist()
    assert ids == whole or ("<|im_end|>" not in words.get_vocab() and ids == [*whole, words.eos_token_id])
    learned = "".join(words.decode(one.ids[one.trained]) for one in examples)
    if kind in ROUND_TRIP:
        assert "Paris, the" in learned and "é😀 x" in learned and "Capital" not in learned and "And" not in learned


LETTERS = st.text(st.sampled_from(" \n:;xthe.Aé\u0301語😀ﬁ7"), max_size=8)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=50, deadline=None)
@given(prompt=LETTERS, completion=LETTERS)
def test_any_text_has_its_own_tokens_and_its_completion_is_learned(kind: str, prompt: str, completion: str) -> None:
    words, encoder = made(kind), encoder_of(kind)
    ((example, repeated),) = encoder.encoded([pair(prompt, completion)])
    before = encoder._before
    assert example.ids.tolist() == [
        *before, *words(prompt + completion, add_special_tokens=False)["input_ids"], words.eos_token_id
    ]  # fmt: skip
    first = int(np.argmax(example.trained)) if example.targets else len(example)
    assert example.trained[first:].all(), "one completion is one run of learned tokens"
    if kind not in ROUND_TRIP:
        return
    assert prompt.endswith(repeated)
    text = words.decode(example.ids[len(before) : -1])
    assert text.lstrip(" ") == (prompt + completion).lstrip(" "), "nothing is lost or added"
    learned = words.decode(example.ids[:-1]).removeprefix(words.decode(example.ids[:first]))
    if first > 1:
        assert learned.lstrip(" ") == (repeated + completion).lstrip(" "), "what straddles, and no more"
    elif before:
        assert repeated == prompt


@pytest.mark.parametrize(
    "kind", ["characters", "blank first", "byte-level", "byte-level, merges across words", "metaspace first"]
)
@settings(max_examples=50, deadline=None)
@given(pieces=st.lists(st.tuples(LETTERS, st.booleans()), max_size=6))
def test_a_token_is_learned_if_it_holds_a_learned_character(kind: str, pieces: list[tuple[str, bool]]) -> None:
    text = "".join(piece for piece, _ in pieces)
    flags = [learned for piece, learned in pieces for _ in piece]
    spans = made(kind)(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    (tokens,) = PieceTokenizer(made(kind))([pieces])
    assert tokens.learned.tolist() == [any(flags[start:end]) for start, end in spans]
    inside = [(start, end) for start, end in spans if len(set(flags[start:end])) > 1]
    assert (tokens.straddling > 0) == bool(inside)


@pytest.mark.parametrize(
    ("words", "prompt", "completion", "right", "repeated"),
    [
        (byte_level(regex=True), "Answer: ", "x", "Answer:[ x</s>]", " "),
        (byte_level(regex=True, trim=True), "Answer: ", "x", "Answer:[ x</s>]", " "),
        (byte_level(), "a\n", "\nb", "a[\n\nb</s>]", "\n"),
        (metaspace("first"), "a:", " x", "<s> a[: x</s>]", ":"),
        (metaspace("never", kind="unigram"), "a: ", "x", "<s>a:[ x</s>]", " "),
        (Slow(), "a:", " x", "a[: x</s>]", ":"),
    ],
)
def test_a_token_on_the_border_is_the_completion_s_and_people_are_told(
    words: Any, prompt: str, completion: str, right: str, repeated: str
) -> None:
    said: Counter[str] = Counter()
    ((example, again),) = Encoder(words).encoded([pair(prompt, completion)], said)
    assert (shown(words, example), again, said[STRADDLES]) == (right, repeated, 1)


@pytest.mark.parametrize("kind", ["unigram", "blank first", "characters", "byte-level", "slow bytes"])
@pytest.mark.parametrize(("prompt", "completion"), [("é", "😀"), ("a:\n", "\nb"), ("語", "語")])
def test_bytes_of_neighbours_are_told_apart(kind: str, prompt: str, completion: str) -> None:
    """Where one character is several tokens, and the offsets of some tokenizers are those of all in a row."""
    words, said = made(kind), Counter[str]()
    (example,) = Encoder(words).whole([pair(prompt, completion)], said)
    assert said[STRADDLES] == 0
    first = int(np.argmax(example.trained))
    assert words.decode(example.ids[first:-1]) == completion


def test_blanks_that_a_special_token_takes_along_do_not_make_it_learned() -> None:
    words = tokenizer_of(template=PLAIN)
    words.add_special_tokens({"additional_special_tokens": [AddedToken("<|go|>", rstrip=True, special=True)]})
    (example,) = Encoder(words).whole([pair("a<|go|>", "  b")])
    assert shown(words, example) == "a<|go|>[b</s>]"


def test_beginning_and_end_come_once() -> None:
    words = tokenizer_of(blank_first=True)
    said: Counter[str] = Counter()
    rows = [pair("<s>a:", " b"), pair("a:", " b</s>"), pair("a:", " b")]
    texts = [shown(words, example) for example in Encoder(words).whole(rows, said)]
    assert texts == ["<s> a:[ b</s>]"] * 3
    assert (said[BEGUN], said[ENDED], said[STRADDLES]) == (1, 1, 0)


def test_a_template_without_an_end_gets_the_end_of_sequence_after_every_answer() -> None:
    """Nothing can be added in the middle of a text, so every answer is the last of an example."""
    words = tokenizer_of(template=PLAIN)
    said: Counter[str] = Counter()
    found = Encoder(words).whole([chat("u", "a", "v", "b"), chat("u", "a", "v")], said)
    first = "user: u\n\nassistant: [a\n\n</s>]"
    second = "user: u\n\nassistant: a\n\nuser: v\n\nassistant: [b\n\n</s>]"
    assert [shown(words, example) for example in found] == [first, second, first]
    assert (said[CLOSED], said[OPEN]) == (3, 0)


def test_marks_that_leave_no_place_for_an_end_are_told() -> None:
    words = tokenizer_of(
        template=PLAIN.replace(
            "m['content'] + '\n\n' }}", "' ' }}{% generation %}{{ m['content'] }}{% endgeneration %}{{ '\n\n' }}"
        )
    )
    said: Counter[str] = Counter()
    Encoder(words).whole([chat("u", "a", "v", "b")], said)
    assert (said[CLOSED], said[OPEN]) == (0, 1)
