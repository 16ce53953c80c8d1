"""What is learned of conversations under chat templates as published."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from published_templates import CHATS, DAY, GOLDEN, NAMES, sample, shown, template, turn, words_of

from msft.data.chat_template import ChatTemplate
from msft.data.chats import renderings
from msft.data.conversations import conversation, tools_of, turns_of
from msft.data.formats import Sample
from msft.data.remarks import Remarks
from msft.data.rows import Row


def test_sixteen_templates_are_tried():
    assert len(NAMES) == 16


@pytest.mark.parametrize("name", NAMES)
def test_what_is_learned_was_read_by_eye(name):
    parts = GOLDEN.read_text(encoding="utf-8").split("==== ")
    golden = "".join(f"==== {part}" for part in parts if part.startswith(f"{name}: "))
    assert shown(name) == golden


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("title", CHATS)
def test_the_text_is_that_of_transformers(name, title):
    """Each example is what the tokenizer renders of the conversation up to the last turn that is learned."""
    made = template(name, datetime.date.today())
    turns, tools = CHATS[title]
    try:
        found = renderings(made, sample(turns, tools))
    except ValueError:
        pytest.skip("refused")
    plain: list[dict[str, Any]] = [{**one, "content": one["content"] or made._no_content} for one in turns]
    if made._arguments_are_text:
        for one in plain:
            for call in one.get("tool_calls", ()):
                one["tool_calls"] = [{**call, "function": {**call["function"], "arguments": '{"town": "Oslo"}'}}]
    for rendering in found:
        beginning = plain[: max(rendering.turns) + 1]
        text = made.tokenizer.apply_chat_template(beginning, tools=list(tools) or None, tokenize=False)
        assert rendering.text == text


@pytest.mark.parametrize("name", ["llama3_2", "gptoss"])
def test_a_clock_shows_the_day_of_the_run(name):
    made = template(name)
    (first, *_) = renderings(made, sample(CHATS["one turn"][0]))
    assert made.has_clock and DAY.strftime("%d %b %Y" if name == "llama3_2" else "%Y-%m-%d") in first.text


def test_the_clock_writes_what_strftime_writes():
    words = words_of("qwen2_5")
    text = "%d|%-d|%B|%b|%Y|%y|%H:%M|%A|%%|%j|%Z"
    words.chat_template = "  {{ strftime_now('" + text + "') }}{% if 1 %}\n x{% endif %}"
    clock = ChatTemplate(words, "t", DAY)
    now = datetime.datetime.combine(DAY, datetime.time())
    assert clock.render([turn("user", "a")]) == f"  {now.strftime(text)} x"


ROLES = ["system", "user", "human", "assistant", "gpt", "model", "tool", "observation", "environment", "developer", "x"]
TEXTS = st.one_of(st.none(), st.sampled_from(["", " ", "a", "<think>b</think>c", "{{ d }}", "</think>", "é\u200b\n"]))
PARTS = st.lists(st.fixed_dictionaries({"type": st.sampled_from(["text", "image"]), "text": TEXTS}), max_size=2)
VALUES = st.one_of(st.none(), st.integers(0, 9), st.text(max_size=3), st.lists(st.none(), max_size=2))
ARGUMENTS = st.one_of(st.dictionaries(st.sampled_from("ab"), VALUES), st.sampled_from(['{"a": 1}', "no JSON", "[1]"]))
CALLS = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"function": st.fixed_dictionaries({"name": st.sampled_from(["f", None]), "arguments": ARGUMENTS})}
        ),
        st.fixed_dictionaries({"id": st.just("123456789"), "name": st.just("g"), "arguments": ARGUMENTS}),
        st.none(),
    ),
    max_size=2,
)
ANY_TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(ROLES), "content": st.one_of(TEXTS, PARTS, st.integers())},
    optional={"tool_calls": st.one_of(st.none(), CALLS), "reasoning_content": TEXTS, "name": st.sampled_from(["f", 1])},
)
CALL = st.fixed_dictionaries({"function": st.fixed_dictionaries({"name": st.just("f"), "arguments": ARGUMENTS})})
ANSWER = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": st.sampled_from(["a", "b\n", "<think>c</think>d", ""])},
    optional={"tool_calls": st.lists(CALL, max_size=2), "reasoning_content": TEXTS},
)
QUESTION = st.fixed_dictionaries({"role": st.just("user"), "content": st.sampled_from(["q", "r s", ""])})
RESULT = st.fixed_dictionaries({"role": st.just("tool"), "content": st.sampled_from(["t", '{"a": 1}'])})
ROUND = st.one_of(st.tuples(QUESTION, ANSWER), st.tuples(QUESTION, ANSWER, RESULT, ANSWER), st.tuples(ANSWER))
LIKELY = st.lists(ROUND, min_size=1, max_size=3).map(lambda rounds: [turn for one in rounds for turn in one])
TURNS = st.one_of(st.lists(ANY_TURN, max_size=5), LIKELY)
SCHEMAS = st.one_of(
    st.none(),
    st.sampled_from(["[]", "{", '[{"name": "f", "parameters": {}}]']),
    st.lists(
        st.one_of(st.none(), st.just({"name": "f"}), st.just({"type": "function", "function": {"name": "g"}})),
        max_size=2,
    ),
)


def tried(name: str, turns: Any, tools: Any) -> None:
    """Renders a conversation, or refuses it by a ValueError; any other error fails."""
    try:
        messages = conversation(turns_of(turns, "messages"), "messages")
        made = Sample(row=Row({}, "f", 1, 1), messages=messages, tools=tools_of(tools))
        chat = TEMPLATES.setdefault(name, template(name))
        found = renderings(chat, made)
    except ValueError:
        return
    for rendering in found:
        assert rendering.learned and rendering.text
    remarks = Remarks(chat)
    remarks.add(made, found)
    remarks.notes()


TEMPLATES: dict[str, ChatTemplate] = {}


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(NAMES), TURNS, SCHEMAS)
def test_no_conversation_ends_in_another_error(name, turns, tools):
    tried(name, turns, tools)


@pytest.mark.campaign
@settings(max_examples=4000, deadline=None)
@given(st.sampled_from(NAMES), TURNS, SCHEMAS)
def test_no_conversation_ends_in_another_error_for_long(name, turns, tools):
    tried(name, turns, tools)
