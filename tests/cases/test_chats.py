"""Conversations and chat templates from the configuration to the learned text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from published_templates import FOLDER
from small_models import tokenizer_of

from msft.config.schema import Config
from msft.core.errors import DataError
from msft.data.encode import CLOSED
from msft.data.load import chat_template, load_tasks

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
STRIP = (  # as Qwen3's: an empty <think> in the last turn, none in earlier ones
    "{%- set ns = namespace(last=-1) %}{%- for m in messages %}{%- if m.role == 'user' %}"
    "{%- set ns.last = loop.index0 %}{%- endif %}{%- endfor %}{%- for m in messages %}"
    "{{- '<|im_start|>' + m.role + '\\n' }}{%- if m.role == 'assistant' and loop.index0 > ns.last %}"
    "{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}{{- m.content + '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
OPEN = CHATML.replace("assistant\\n' }}{% endif %}", "assistant\\n<think>\\n' }}{% endif %}")
DROP = CHATML.replace("m['content']", "m['content'].split('</think>')[-1]")
TOOLS = (
    "{% if tools %}{{ '<|im_start|>system\\nTools: ' + tools | tojson + '<|im_end|>\\n' }}{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['content'] %}{{ m['content'] }}{% endif %}"
    "{% if m['tool_calls'] %}{% for c in m['tool_calls'] %}{{ '<tool_call>' + c['function']['name'] + ' ' + "
    "c['function']['arguments'] | tojson + '</tool_call>' }}{% endfor %}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
AS_TEXT = TOOLS.replace("c['function']['arguments'] | tojson", "c['function']['arguments']")
ROWS = 30


def load(folder, rows, chat_template=CHATML, *, data=None, **keys):
    """The sub-dataset of rows with its tokenizer. `{n}` in a row is its number; a table is read from Parquet."""
    file = Path(folder) / "rows.jsonl"
    if isinstance(rows, dict):
        file.write_text("".join(json.dumps(rows).replace("{n}", str(n)) + "\n" for n in range(ROWS)))
    else:
        file = file.with_suffix(".parquet")
        pq.write_table(rows, file)
    dataset = {"id": "d", "path": str(file), "scorer": {"name": "loss"}, "validation": {"max_samples": 10}, **keys}
    config = {"model": {"name_or_path": "m"}, "datasets": [dataset], "output": "o", "data": {"leaks": "warn"}}
    config["data"] |= data or {}
    words = tokenizer_of(template=chat_template)
    return load_tasks(Config.model_validate(config), words)["d"], words


def refused(*given, **keys):
    with pytest.raises(DataError) as caught:
        load(*given, **keys)
    return str(caught.value)


def shown(example, words):
    """The text with what is learned in brackets."""
    text = ""
    for number, learned in zip(example.ids.tolist(), example.trained.tolist(), strict=True):
        text += f"[{words.decode([number])}]" if learned else words.decode([number])
    return text.replace("][", "")


def texts(made):
    task, words = made
    return {shown(example, words) for example in task.train}


def notes(made):
    usual = ("are also in a validation or test split",)
    return "\n".join(note for note in made[0].notes if not any(text in note for text in usual))


def say(role, content, **more):
    return {"role": role, "content": content, **more}


U, A, END = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>\n"
TALK = [say("user", "Add {n}"), say("assistant", "It is 2."), say("user", "More?"), say("assistant", "3")]


# Templates that write earlier turns differently


def test_each_turn_is_learned_as_when_it_is_the_last(tmp_path):
    made = load(tmp_path, {"messages": TALK}, STRIP)
    think = "<think>\n\n</think>\n\n"
    one = f"{U}Add 7{END}{A}[{think}It is 2.{END}]"
    two = f"{U}Add 7{END}{A}It is 2.{END}{U}More?{END}{A}[{think}3{END}]"
    found = [re.sub("Add [0-9]+", "Add 7", shown(example, made[1])) for example in made[0].train]
    assert found == [one, two] * (ROWS - 10)
    assert "20 conversations became 40 training examples: the chat template" in notes(made)


@pytest.mark.parametrize("ending", ["", "!", "</turn>\\n"])
def test_what_is_said_of_examples_counts_examples(tmp_path, ending):
    """Not conversations, of which one gives several."""
    template = STRIP.replace("<|im_end|>", ending)
    assert f"40 of 40 training examples: {CLOSED}" in notes(load(tmp_path, {"messages": TALK}, template))


def test_the_last_turn_is_scored_where_turns_do_not_fit_in_one_text(tmp_path):
    task, words = load(tmp_path, {"messages": TALK}, STRIP)
    assert len(task.validation) == 10
    assert {shown(item.options[0], words).rpartition(A)[2] for item in task.validation} == {
        f"[<think>\n\n</think>\n\n3{END}]"
    }


def test_what_does_not_fit_is_counted_in_examples(tmp_path):
    message = refused(tmp_path, {"messages": TALK}, STRIP, data={"max_length": 50})
    assert "20 of 40 training examples are left out: no learned token of them is left within 50 tokens" in message


def test_given_turns_of_a_prompt_stay_given_behind_shots(tmp_path):
    rows = {"prompt": TALK[:3], "completion": TALK[3:], "system": "S"}
    scorer = {"name": "loss", "shots": {"k": 1}}
    task, words = load(tmp_path, rows, scorer=scorer, data={"max_length": 400})
    for item in task.validation:
        text = shown(item.options[0], words)
        assert text.count("[") == 1 and text.count("More?") == 2 and text.endswith(f"{A}[3{END}]")


def test_a_stable_template_gives_one_example(tmp_path):
    made = load(tmp_path, {"messages": TALK})
    assert len(made[0].train) == 20 and not notes(made)
    assert all(text.endswith(f"{A}[It is 2.{END}]{U}More?{END}{A}[3{END}]") for text in texts(made))


def test_a_user_turn_at_the_end_is_read_and_not_learned(tmp_path):
    made = load(tmp_path, {"messages": [*TALK, say("user", "Bye")]})
    assert all(text.endswith(f"[3{END}]{U}Bye{END}") for text in texts(made))


def test_turns_after_one_question_share_an_example(tmp_path):
    """Qwen3.5 writes tool calls and answers after the last question alike, whichever is last."""
    call = {"function": {"name": "weather", "arguments": {"town": "{n}"}}}
    turns = [
        say("user", "Rain?"),
        say("assistant", "", tool_calls=[call]),
        say("tool", "wet"),
        say("assistant", "Yes."),
    ]
    made = load(tmp_path, {"messages": turns}, (FOLDER / "qwen3_5_think.jinja").read_text())
    assert len(made[0].train) == 20 and not notes(made)


# Generation prompts that the turn does not begin with


def test_a_turn_is_learned_from_its_header_where_the_prompt_has_more(tmp_path):
    made = load(tmp_path, {"messages": [say("user", "Say {n}"), say("assistant", "red")]}, OPEN)
    assert all(text.endswith(f"{END}{A}[red{END}]") for text in texts(made))
    assert "ends with '<think>\\n', but in 30 of 30 conversations an assistant turn begins without it" in notes(made)
    assert "model.chat_template" in notes(made)


def test_the_shared_beginning_never_reaches_into_the_answer(tmp_path):
    """An answer that begins as the rest of the prompt does is learned from its first character."""
    made = load(tmp_path, {"messages": [say("user", "Say {n}"), say("assistant", "<thing>")]}, OPEN)
    assert all(text.endswith(f"{A}[<thing>{END}]") for text in texts(made))


def test_reasoning_in_the_turn_begins_as_the_prompt_does(tmp_path):
    made = load(tmp_path, {"messages": [say("user", "{n}"), say("assistant", "<think>\nhm\n</think>\nred")]}, OPEN)
    assert all(text.endswith(f"{A}<think>\n[hm\n</think>\nred{END}]") for text in texts(made)) and not notes(made)


def test_generation_starts_from_the_prompt_that_training_shows(tmp_path):
    scorer = {"name": "generate", "max_new_tokens": 4}
    task, words = load(tmp_path, {"messages": [say("user", "{n}"), say("assistant", "red")]}, OPEN, scorer=scorer)
    assert all(words.decode(item.prompt).endswith(A) for item in task.validation)


def test_a_prompt_of_another_kind_is_refused_and_the_row_is_not_blamed(tmp_path):
    other = "{% if add_generation_prompt %}ask{% else %}" + CHATML + "{% endif %}"
    message = refused(tmp_path, {"messages": TALK}, other)
    assert "does not begin turn 2 as its generation prompt" in message and "rows.jsonl:1 " in message
    assert "Fix: give a model.chat_template" in message and "row" not in message.split("Fix:")[1].split("\n")[0]


# Conversations that begin with the assistant


@pytest.mark.parametrize(
    ("template", "before"),
    [
        (CHATML, ""),
        ("{{ '<|im_start|>system\\nBe kind<|im_end|>\\n' }}" + CHATML, "<|im_start|>system\nBe kind<|im_end|>\n"),
        (OPEN, ""),
    ],
    ids=["plain", "injected system prompt", "open"],
)
def test_header_and_system_prompt_of_a_first_turn_are_not_learned(tmp_path, template, before):
    made = load(
        tmp_path, {"messages": [say("assistant", "Hi {n}"), say("user", "Ho"), say("assistant", "He")]}, template
    )
    assert all(text.startswith(f"{before}{A}[Hi ") for text in texts(made))
    assert all(text.endswith(f"{END}]{U}Ho{END}{A}[He{END}]") for text in texts(made))


def test_only_an_assistant_turn_behind_a_system_turn(tmp_path):
    made = load(tmp_path, {"messages": [say("system", "S"), say("assistant", "Hi {n}")]})
    assert all(text.startswith(f"<|im_start|>system\nS{END}{A}[Hi ") for text in texts(made))


# What a template drops


def test_dropped_reasoning_is_counted(tmp_path):
    turns = [say("user", "Add {n}"), say("assistant", "<think>\n{n} and two\n</think>\n\nIt is 2.")]
    made = load(tmp_path, {"messages": turns}, DROP)
    assert "the chat template drops the reasoning of 30 of 30 conversations" in notes(made)
    assert not notes(load(tmp_path, {"messages": turns}))


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_dropped_reasoning_keys_are_counted(tmp_path, key):
    turns = [say("user", "Add {n}"), say("assistant", "It is 2.", **{key: "two and {n}"})]
    assert "drops the reasoning of 30 of 30" in notes(load(tmp_path, {"messages": turns}))
    made = load(tmp_path, {"messages": turns}, (FOLDER / "qwen3.jinja").read_text())
    assert not notes(made) and all("[<think>\ntwo and " in text for text in texts(made))


@pytest.mark.parametrize(
    ("turns", "what"),
    [
        ([say("system", "Be short."), say("user", "{n}"), say("assistant", "a")], "system text"),
        ([say("user", "{n}"), say("tool", "wet"), say("assistant", "a")], "content of tool turns"),
        ([say("user", "{n}"), say("assistant", "a", tool_calls=[{"name": "f", "arguments": {}}])], "tool calls"),
    ],
)
def test_whatever_a_template_drops_is_counted(tmp_path, turns, what):
    only = CHATML.replace("messages %}", "messages if m['role'] in ('user', 'assistant') %}")
    assert f"drops the {what} of 30 of 30 conversations" in notes(load(tmp_path, {"messages": turns}, only))


def test_a_turn_of_which_nothing_is_written_is_not_learned(tmp_path):
    call = say("assistant", None, tool_calls=[{"name": "weather", "arguments": {}}])
    made = load(tmp_path, {"messages": [say("user", "{n}"), call, say("tool", "wet"), say("assistant", "Rain.")]})
    assert all(text.count("[") == 1 and text.endswith(f"[Rain.{END}]") for text in texts(made))
    dropped = "drops the tool calls of 30 of 30 conversations: the model never sees them. Fix: give a model.chat_"
    assert "is not learned" in notes(made) and f"{dropped}template that writes them" in notes(made)


def test_tools_and_system_columns_reach_the_template(tmp_path):
    tool = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    shared = [{"from": "human", "value": "Add {n}"}, {"from": "gpt", "value": "0"}]
    made = load(tmp_path, {"conversations": shared, "system": "Be short."})
    assert all(text.startswith(f"<|im_start|>system\nBe short.{END}{U}Add ") for text in texts(made)) and not notes(
        made
    )
    rows = {"messages": [say("user", "Weather {n}?"), say("assistant", "Rain.")]}
    expected = f"<|im_start|>system\nTools: {json.dumps([tool])}{END}{U}Weather "
    for column in ([tool], json.dumps([tool]), [tool["function"]]):
        made = load(tmp_path, {**rows, "tools": column}, TOOLS)
        assert all(text.startswith(expected) for text in texts(made)) and not notes(made)
    assert "drops the tools of 30 of 30" in notes(load(tmp_path, {**rows, "tools": [tool]}))
    named = load(tmp_path, {**rows, "functions": [tool]}, TOOLS, columns={"tools": "functions"})
    assert all(text.startswith(expected) for text in texts(named))


def test_a_template_that_needs_tools_and_one_of_its_own_for_them(tmp_path):
    """Some tokenizers have a template beside the default one, for conversations with tools."""
    rows = {
        "messages": [say("user", "{n}"), say("assistant", "a")],
        "tools": [{"name": "f", "parameters": {"a": None}}],
    }
    both = {"default": CHATML, "tool_use": "{% if not tools %}{{ raise_exception('no') }}{% endif %}" + TOOLS}
    made = load(tmp_path, rows, both)
    assert all(text.startswith("<|im_start|>system\nTools: ") for text in texts(made)) and not notes(made)
    assert all(text.startswith(U) for text in texts(load(tmp_path, {"messages": rows["messages"]}, both)))
    as_text = {**rows, "tools": json.dumps(rows["tools"])}
    assert all('"a": null' in text for text in texts(load(tmp_path, as_text, both)))


def test_columns_that_no_text_format_reads_are_noted(tmp_path):
    rows = {"instruction": "Add {n}", "output": "two", "system": "Be short.", "history": [["a", "b"]]}
    said = "the columns history (in 30 rows) and system (in 30 rows) are filled and not used: the model never sees them"
    assert said in notes(load(tmp_path, rows))
    made = load(tmp_path, rows, template={"prompt": "{system} {instruction} ", "completion": "{output}"})
    assert "column history" in notes(made) and "column system" not in notes(made)
    message = refused(tmp_path, rows, columns={"system": "system"})
    assert "datasets.d.columns.system: only conversations have it" in message


def test_tools_that_only_held_out_rows_have(tmp_path):
    rows = {"messages": [say("user", "{n}"), say("assistant", "a")], "part": "{n}"}
    (tmp_path / "held.jsonl").write_text(json.dumps({**rows, "tools": [{"name": "f"}], "system": "S"}) + "\n")
    task, words = load(tmp_path, rows, TOOLS, validation={"path": str(tmp_path / "held.jsonl")})
    text = shown(task.validation[0].options[0], words)
    assert text.startswith("<|im_start|>system\nTools: ") and "<|im_start|>system\nS<|im_end|>" in text


def test_two_system_texts_are_refused(tmp_path):
    rows = {"messages": [say("system", "A"), say("user", "{n}"), say("assistant", "a")], "system": "B"}
    assert "the column system and a system turn of messages differ" in refused(tmp_path, rows)
    assert len(load(tmp_path, {**rows, "system": "A"})[0].train) == 20


def test_variables_of_a_row_reach_the_template(tmp_path):
    switch = "{% if enable_thinking is false %}{{ 'No thoughts.' }}{% endif %}" + CHATML
    rows = {"messages": [say("user", "{n}"), say("assistant", "a")]}
    for column in ({"enable_thinking": False}, {"chat_template_kwargs": {"enable_thinking": False}}):
        made = load(tmp_path, {**rows, **column}, switch)
        assert all(text.startswith("No thoughts.") for text in texts(made)) and not notes(made)
    assert "drops the column or variable enable_thinking" in notes(load(tmp_path, {**rows, "enable_thinking": True}))
    message = refused(tmp_path, {**rows, "chat_template_kwargs": {"tools": []}})
    assert "the column chat_template_kwargs sets tools" in message


# Tool calls


def calling(content, arguments):
    call = {"type": "function", "id": "c{n}", "function": {"name": "weather", "arguments": arguments}}
    answer = say("assistant", content, tool_calls=[call])
    return {"messages": [say("user", "Rain?"), answer, say("tool", "rain"), say("assistant", "Rain in {n}.")]}


@pytest.mark.parametrize("content", [None, ""], ids=["null", "empty"])
@pytest.mark.parametrize("arguments", [{"town": "{n}"}, '{"town": "{n}"}'], ids=["object", "text"])
@pytest.mark.parametrize("template", [TOOLS, AS_TEXT], ids=["object", "text"])
def test_a_turn_that_only_calls(tmp_path, content, arguments, template):
    made = load(tmp_path, calling(content, arguments), template)
    assert not notes(made)
    for text in texts(made):
        number = text.split("Rain in ")[1].split(".")[0]
        assert f'{A}[<tool_call>weather {{"town": "{number}"}}</tool_call>{END}]<|im_start|>tool\nrain{END}' in text


def test_nulls_that_arrow_adds_are_removed_at_every_depth(tmp_path):
    rows = []
    for n in range(ROWS):
        place = {"town": str(n)} if n % 2 else {"zip": str(n)}
        call = {"function": {"name": "weather", "arguments": {"at": place}}}
        rows.append([say("user", f"Weather {n}?"), say("assistant", "Look.", tool_calls=[call])])
    tools = [[{"name": "f", "parameters": {"a": 1} if n % 2 else {"b": 1}}] for n in range(ROWS)]
    made = load(tmp_path, pa.table({"messages": rows, "tools": tools}), TOOLS)
    for text in texts(made):
        number = int(text.split("Weather ")[1].split("?")[0])
        assert f'{{"at": {{"{"town" if number % 2 else "zip"}": "{number}"}}}}</tool_call>' in text
        assert "null" not in text and f'"parameters": {{"{"a" if number % 2 else "b"}": 1}}' in text


WITHOUT = CHATML.replace("m['content']", "(m['content'] if m['content'] is defined else m['tool_calls'] | string)")
CONCATENATED = CHATML.replace("m['content']", "m['content'] + (m['tool_calls'] or '') | string")


@pytest.mark.parametrize("content", [None, ""], ids=["null", "empty"])
@pytest.mark.parametrize("template", [WITHOUT, CONCATENATED], ids=["template wants null", "template wants text"])
def test_a_turn_that_only_calls_has_the_content_that_the_template_takes(tmp_path, content, template):
    made = load(tmp_path, calling(content, {"town": "{n}"}), template)
    assert not notes(made) and all("'weather'" in text.split("tool\n")[0] for text in texts(made))


def test_a_null_in_arguments_as_text_stays(tmp_path):
    made = load(tmp_path, calling(None, '{"town": null}'), TOOLS)
    assert all('<tool_call>weather {"town": null}</tool_call>' in text for text in texts(made))


def test_calls_of_sharegpt(tmp_path):
    turns = [
        {"from": "human", "value": "Rain?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"town": "{n}"}}'},
        {"from": "observation", "value": "rain"},
        {"from": "gpt", "value": "Yes."},
    ]
    made = load(tmp_path, {"conversations": turns}, TOOLS)
    assert all('[<tool_call>weather {"town": "' in text for text in texts(made)) and not notes(made)
    bad = [turns[0], {"from": "function_call", "value": "weather"}, *turns[2:]]
    assert "does not hold a function's name and arguments as JSON" in refused(tmp_path, {"conversations": bad}, TOOLS)


@pytest.mark.parametrize(
    ("turn", "found"),
    [
        (say("assistant", None), "turn 2 of messages has no content, or it is not text"),
        (say("assistant", ""), "turn 2 of messages is an empty assistant turn"),
        (say("assistant", None, tool_calls=[]), "turn 2 of messages has no content"),
        (say("assistant", None, tool_calls=[{"function": {"arguments": {}}}]), "without the name of a function"),
        (say("assistant", None, tool_calls="weather"), "tool_calls that are not a list"),
        (say("user", None), "turn 2 of messages has no content"),
    ],
)
def test_turns_that_say_nothing_are_refused(tmp_path, turn, found):
    assert found in refused(tmp_path, {"messages": [say("user", "{n}"), turn, say("assistant", "a")]}, TOOLS)


# Roles and parts


@pytest.mark.parametrize("role", ["observation", "environment", "tool"])
def test_results_of_tools(tmp_path, role):
    made = load(tmp_path, {"messages": [say("user", "{n}"), say(role, "wet"), say("model", "Rain.")]})
    assert all(f"<|im_start|>tool\nwet{END}{A}[Rain.{END}]" in text for text in texts(made))


def test_developers_are_passed_on_or_are_the_system(tmp_path):
    rows = {"messages": [say("developer", "Be short."), say("user", "{n}"), say("assistant", "a")]}
    assert all(text.startswith("<|im_start|>developer\nBe short.") for text in texts(load(tmp_path, rows)))
    qwen = load(tmp_path, rows, (FOLDER / "qwen2_5.jinja").read_text())
    assert all(text.startswith("<|im_start|>system\nBe short.") for text in texts(qwen)) and not notes(qwen)


def test_parts_of_type_text_are_joined(tmp_path):
    parts = [{"type": "text", "text": "Add "}, {"type": "text", "text": "{n}"}]
    made = load(tmp_path, {"messages": [say("user", parts), say("assistant", [{"type": "text", "text": "two"}])]})
    assert all(text.startswith(f"{U}Add ") and text.endswith(f"{A}[two{END}]") for text in texts(made))
    image = [{"type": "image", "image": "a.png"}, *parts]
    message = refused(tmp_path, {"messages": [say("user", image), say("assistant", "a")]})
    assert "it has a part of type 'image', and only text can be learned" in message


def test_a_template_that_wants_parts_gets_them(tmp_path):
    parts = CHATML.replace("m['content']", "m['content'][0]['text']")
    assert texts(load(tmp_path, {"messages": TALK}, parts)) == texts(load(tmp_path, {"messages": TALK}))


# Prompt and completion that are turns


def test_conversational_prompts_and_completions(tmp_path):
    rows = {"prompt": [say("user", "Say {n}")], "completion": [say("assistant", "0")]}
    made = load(tmp_path, rows)
    assert len(made[0].train) == 20 and all(text.endswith(f"{A}[0{END}]") for text in texts(made))
    both = {"prompt": TALK[:3], "completion": [*TALK[3:], say("user", "And?"), say("assistant", "4")], "system": "S"}
    made = load(tmp_path, both)
    assert all(
        text.endswith(f"{A}It is 2.{END}{U}More?{END}{A}[3{END}]{U}And?{END}{A}[4{END}]") for text in texts(made)
    )
    assert all(text.startswith(f"<|im_start|>system\nS{END}{U}") for text in texts(made))
    made = load(tmp_path, {"prompt": TALK[:3], "completion": TALK[3:]}, STRIP)
    assert len(made[0].train) == 20
    assert all(f"{A}It is 2.{END}{U}More?{END}{A}[<think>" in text for text in texts(made))


def test_a_completion_without_an_answer(tmp_path):
    rows = {"prompt": TALK[:2], "completion": [say("user", "{n}")]}
    assert "completion has no assistant turn to learn" in refused(tmp_path, rows)
    assert "completion is text, not a list of turns" in refused(tmp_path, {"prompt": TALK[:1], "completion": "0"})


# Generation marks


MARKED = CHATML.replace(
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}",
    "{{ '<|im_start|>' + m['role'] + '\\n' }}{% if m['role'] == 'assistant' and not m['skip'] %}{% generation %}"
    "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}{% endif %}"
    "{{ '\\n' }}",
)


def test_marks_decide_what_is_learned(tmp_path):
    made = load(tmp_path, {"messages": TALK}, MARKED)
    assert all(text.endswith(f"[It is 2.<|im_end|>]\n{U}More?{END}{A}[3<|im_end|>]\n") for text in texts(made))
    assert not notes(made)
    made = load(tmp_path, {"prompt": TALK[:3], "completion": TALK[3:]}, MARKED)
    assert all(text.count("[") == 1 and text.endswith(f"{A}[3<|im_end|>]\n") for text in texts(made))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("{% macro all(messages) %}", "{% endmacro %}{{ '!' }}{{ all(messages) }}"),
        ("{%- set text -%}", "{%- endset -%}{{ '!' }}{{ text }}"),
        ("{% filter upper %}", "{% endfilter %}"),
        ("{% macro other() %}{% endmacro %}{% set text %}", "{% endset %}{{ text }}"),
    ],
)
def test_marks_whose_place_cannot_be_told_are_refused(tmp_path, before, after):
    message = refused(tmp_path, {"messages": TALK}, before + MARKED + after)
    assert "within a macro or a block that is kept" in message and "Fix: move the marks out of it" in message
    beside = "{% macro other() %}{% endmacro %}{% set a %}b{% endset %}{% set c = 1 %}" + MARKED
    assert texts(load(tmp_path, {"messages": TALK}, beside)) == texts(load(tmp_path, {"messages": TALK}, MARKED))


def test_turns_without_marks_are_counted(tmp_path):
    turns = [TALK[0], {**TALK[1], "skip": True}, *TALK[2:]]
    made = load(tmp_path, {"messages": turns}, MARKED)
    assert all(text.count("[") == 1 for text in texts(made))
    assert "leave out assistant turns of 30 of 30 conversations" in notes(made)
    message = refused(tmp_path, {"messages": turns[:2]}, MARKED)
    assert "marks nothing as generated in the assistant turns (also in lines 2, 3, " in message


# Errors of templates


@pytest.mark.parametrize(
    "broken",
    [
        "{{ 1 / 0 }}", "{{ 'a' + 1 }}", "{{ messages[99].x.y }}", "{{ raise_exception('no') }}", "{% if %}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ messages | tojson(b=1) }}", "{{ ''.format_map() }}",
    ],
)  # fmt: skip
def test_any_error_of_a_template_is_a_message(tmp_path, broken):
    line = refused(tmp_path, {"messages": TALK}, CHATML + broken).splitlines()[0]
    assert "rows.jsonl:1 datasets.d: the chat template of" in line
    assert "Fix: give another model.chat_template" in line and "remove" not in line


def test_an_error_on_some_turns_does_not_blame_the_row(tmp_path):
    picky = "{% if messages | length > 2 %}{{ 1 / 0 }}{% endif %}" + CHATML
    line = refused(tmp_path, {"messages": TALK}, picky).splitlines()[0]
    assert "ZeroDivisionError" in line and "model.chat_template" in line and "remove" not in line


# Dates


CLOCK = "{{ '<|im_start|>system\\nToday: ' + strftime_now('%d %b %Y') + '<|im_end|>\\n' }}" + CHATML


def test_the_date_of_the_configuration_is_written(tmp_path):
    made = load(tmp_path, {"messages": TALK}, CLOCK, data={"date": "2026-02-03"})
    assert all(text.startswith(f"<|im_start|>system\nToday: 03 Feb 2026{END}{U}") for text in texts(made))
    assert "the chat template reads the date, which is 2026-02-03 throughout (data.date)" in notes(made)
    other = load(tmp_path, {"messages": TALK}, CLOCK, data={"date": "2026-02-04"})
    assert made[0].fingerprint != other[0].fingerprint


@pytest.mark.parametrize("content", ["\ufeff" + CHATML, CHATML.replace("\n", "\r\n"), CHATML + "\n"])
def test_a_template_file_is_its_text(tmp_path, content):
    """A byte order mark at its beginning was read by the model in every conversation."""
    (tmp_path / "t.jinja").write_bytes(content.encode())
    assert texts(load(tmp_path, {"messages": TALK}, chat_template(str(tmp_path / "t.jinja")))) == texts(
        load(tmp_path, {"messages": TALK})
    )
