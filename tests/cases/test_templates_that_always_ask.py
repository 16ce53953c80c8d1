"""Some chat templates write the beginning of a next answer after every conversation, asked to or not (the first one of
Llama 3, Command A). It was learned as if the model had said it, and could take the place of the turn's end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from published_templates import CHATS, DAY, NAMES, TOOL, sample, template
from small_models import tokenizer_of
from test_where_generation_ends import CHATML, chats, check_that_it_stops, score, trained

from msft.data.chat_template import ChatTemplate
from msft.data.chats import renderings

SPECIAL = ("<|head|>", "<|/head|>", "<|eot|>", "<|S|>", "<|E|>", "<|USER|>", "<|BOT|>", "<|sep|>")
LLAMA = (
    "{% for m in messages %}{{ '<|head|>' + m['role'] + '<|/head|>\n\n' + m['content'] + '<|eot|>' }}{% endfor %}"
    "{{ '<|head|>assistant<|/head|>\n\n' }}"
)
COMMAND = (
    "{{ bos_token }}{% for m in messages %}{{ '<|S|>' + ('<|BOT|>' if m['role'] == 'assistant' else '<|USER|>') + "
    "m['content'] + '<|E|>' }}{% endfor %}{{ '<|S|><|BOT|>' }}"
)
PLAIN = (
    "{% for m in messages %}{{ '### ' + m['role'] + ': ' + m['content'] + '\n\n' }}{% endfor %}{{ '### assistant: ' }}"
)
EOS = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + (eos_token if m['role'] == 'assistant' else '') + "
    "'\n' }}{% endfor %}{{ 'assistant: ' }}"
)
PARTS = LLAMA.replace("m['content']", "m['content'][0]['text']")
MARKED = LLAMA.replace(
    "m['content'] + '<|eot|>' }}",
    "'' }}{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] + '<|eot|>' }}{% endgeneration %}"
    "{% else %}{{ m['content'] + '<|eot|>' }}{% endif %}",
)
CASES = {
    "llama 3": (LLAMA, "<|head|>assistant<|/head|>\n\n", "Say 1<|eot|>", "Say 2<|eot|>"),
    "command": (COMMAND, "<|S|><|BOT|>", "Say 1<|E|>", "Say 2<|E|>"),
    "no special token": (PLAIN, "\n\n### assistant: ", "Say 1", "Say 2"),
    "eos": (EOS, "\nassistant: ", "Say 1</s>", "Say 2</s>"),
    "parts": (PARTS, "<|head|>assistant<|/head|>\n\n", "Say 1<|eot|>", "Say 2<|eot|>"),
    "marks": (MARKED, "<|head|>assistant<|/head|>\n\n", "Say 1<|eot|>", "Say 2<|eot|>"),
}


def made(text: str) -> ChatTemplate:
    return ChatTemplate(tokenizer_of(template=text, more_special=SPECIAL), "t", DAY)


@pytest.mark.parametrize("case", CASES)
def test_what_it_writes_after_the_end_is_not_learned(case: str) -> None:
    text, header, *answers = CASES[case]
    chat = made(text)
    assert chat.always_asks == header
    turns, _ = CHATS["several turns"]
    found = renderings(chat, sample(turns))
    assert [piece for one in found for piece, learned in one.pieces if learned] == answers
    for one in found:  # up to the header, it is what transformers renders
        whole = chat.tokenizer.apply_chat_template(
            [turn if case != "parts" else turn | {"content": [{"text": turn["content"]}]} for turn in turns],
            tokenize=False,
        )
        assert whole.startswith(one.text)


@pytest.mark.parametrize("thinks", [True, False, None])
def test_what_it_writes_may_depend_on_variables_and_tools(thinks: bool | None) -> None:
    text = LLAMA + "{{ '' if enable_thinking else '<think></think>' }}{{ tools | length if tools else '' }}"
    variables = {} if thinks is None else {"enable_thinking": thinks}
    turns, _ = CHATS["several turns"]
    for tools in ((), (TOOL,), (TOOL, TOOL)):
        one = replace(sample(turns, tools), variables=variables)
        learned = [piece for each in renderings(made(text), one) for piece, is_learned in each.pieces if is_learned]
        assert learned[-1] == "Say 2<|eot|>"


NOT = {
    "chatml": CHATML,
    "no generation prompt": CHATML.partition("{% if")[0],
    "the same end after every turn": "{% for m in messages %}{{ m['content'] + '<|sep|>' }}{% endfor %}",
    "as Mistral's": "{% for m in messages %}{{ '[INST]' + m['content'] + '[/INST]' if m['role'] == 'user' else "
    "m['content'] + eos_token }}{% endfor %}",
    "fails": "{{ raise_exception('no') }}",
    "writes nothing": "",
    "counts": "{{ messages | length }}" + CHATML,
}


@pytest.mark.parametrize("case", NOT)
def test_other_templates_are_left_alone(case: str) -> None:
    assert made(NOT[case] or " ").always_asks == ""


@pytest.mark.parametrize("name", NAMES)
def test_published_templates_are_left_alone(name: str) -> None:
    assert template(name).always_asks == ""


def test_the_final_model_stops_at_the_end_of_the_turn(tmp_path: Path) -> None:
    words = tokenizer_of(eos="<|endoftext|>", template=LLAMA, more_special=SPECIAL)
    run = trained(tmp_path, chats(), words)
    # What is compared with is the same template, which asks only where it is asked to.
    asks = LLAMA.replace("{{ '<|head|>assistant", "{% if add_generation_prompt %}{{ '<|head|>assistant") + "{% endif %}"
    check_that_it_stops(run, asks, words, chats())
    assert score(run) == 1
