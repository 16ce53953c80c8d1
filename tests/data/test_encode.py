"""Tokens and masks."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers_for_tests import CHAT, tokenizer

from msft.core.errors import ModelError
from msft.data.encode import Encoder, cut
from msft.data.formats import Sample
from msft.data.sources import Row

ROW = Row({}, "f", 1, 1)


def learned(made, example):
    """The text with what is learned in brackets."""
    text, inside = "", False
    for token, trained in zip(example.ids.tolist(), example.trained.tolist(), strict=True):
        text += {(False, True): "[", (True, False): "]"}.get((inside, trained), "") + made.decode([token])
        inside = trained
    return text + ("]" if inside else "")


def pair(prompt, completion, **keys):
    return Sample(row=ROW, prompt=prompt, completion=completion, **keys)


@pytest.mark.parametrize(("bos", "before"), [(False, ""), (True, "<s>")])
def test_completion_and_end_are_learned_and_the_start_is_the_tokenizers_own(bos, before):
    made = tokenizer(bos=bos)
    examples = Encoder(made).whole([pair("ab", " c"), pair("d", "e\n")])
    assert [learned(made, example) for example in examples] == [f"{before}ab[ c</s>]", f"{before}d[e\n</s>]"]


def test_options_have_no_end_and_share_the_prompt():
    made = tokenizer(bos=True)
    samples = [pair("p", " x", options=(" x", " yy")), pair("q", " z", options=(" z", " w", " v"))]
    options = Encoder(made).options(samples)
    assert [[learned(made, option) for option in item] for item in options] == [
        ["<s>p[ x]", "<s>p[ yy]"],
        ["<s>q[ z]", "<s>q[ w]", "<s>q[ v]"],
    ]


def test_every_assistant_turn_is_learned_with_its_end_token():
    made = tokenizer(bos=True, chat=CHAT)
    turns = [("system", "s"), ("user", "u"), ("assistant", "a1"), ("user", "v"), ("assistant", "a2"), ("user", "w")]
    messages = tuple({"role": role, "content": content} for role, content in turns)
    (example,) = Encoder(made).whole([Sample(row=ROW, messages=messages)])
    assert learned(made, example) == (
        "<|im_start|>system\ns<|im_end|>\n<|im_start|>user\nu<|im_end|>\n<|im_start|>assistant\n[a1<|im_end|>\n]"
        "<|im_start|>user\nv<|im_end|>\n<|im_start|>assistant\n[a2<|im_end|>\n]<|im_start|>user\nw<|im_end|>\n"
    )


def conversation(*roles):
    return Sample(row=ROW, messages=tuple({"role": role, "content": "xy"} for role in roles))


def test_a_template_whose_turn_begins_unlike_its_prompt_is_refused():
    rewriting = "{% for m in messages %}{{ m['content'] if loop.last else '-' }}{% endfor %}"
    with pytest.raises(ValueError, match="does not begin turn 2 as its generation prompt does"):
        Encoder(tokenizer(chat=rewriting)).whole([conversation("user", "assistant", "user")])


def test_a_template_that_refuses_turns_is_named():
    with pytest.raises(ValueError, match=r"refuses the turns .*no system"):
        Encoder(tokenizer(chat="{{ raise_exception('no system') }}")).whole([conversation("system", "assistant")])


def test_a_cut_takes_the_end_and_never_the_prompt():
    made = tokenizer()
    (example,) = Encoder(made).whole([pair("abc", "def")])
    assert learned(made, cut(example, 7)) == "abc[def</s>]"
    assert learned(made, cut(example, 5)) == "abc[de]"
    assert cut(example, 3) is None


def test_a_tokenizer_must_know_where_to_stop():
    with pytest.raises(ModelError, match="no end-of-sequence token"):
        Encoder(tokenizer(eos=False))


def test_the_tokenizer_s_threads_change_nothing(monkeypatch):
    samples = [
        Sample(row=Row({}, "f", n, n), prompt=f"{n} " * (n % 30), completion=f"answer {n}" * (n % 7))
        for n in range(2500)
    ]
    made = []
    for threads in ("false", "true"):
        monkeypatch.setenv("TOKENIZERS_PARALLELISM", threads)
        made.append(Encoder(tokenizer()).whole(samples))
    assert len(made[0]) == len(made[1]) == 2500
    for one, other in zip(*made, strict=True):
        assert np.array_equal(one.ids, other.ids) and np.array_equal(one.trained, other.trained)
