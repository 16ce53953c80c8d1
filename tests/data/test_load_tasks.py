"""The whole way from a configuration to sub-datasets."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers_for_tests import CHAT, tokenizer

from msft.config.schema import Config
from msft.core.errors import DataError
from msft.data.load import chat_template, load_tasks


@pytest.fixture
def write(tmp_path):
    def write(name, rows):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


def load(*datasets, made=None, positions=None, **sections):
    config = {"model": {"name_or_path": "m"}, "datasets": list(datasets), "output": "o", **sections}
    config, made = Config.model_validate(config), made or tokenizer()
    if template := chat_template(config.model.chat_template):
        made.chat_template = template  # as a model is opened with it
    return load_tasks(config, made, positions)


def questions(count, start=0):
    return [
        {"question": f"number {n}?", "choices": ["odd", "even"], "answer": (n + 1) % 2}
        for n in range(start, start + count)
    ]


def pairs(count, start=0):
    return [{"prompt": f"say {n}", "completion": f" {n}"} for n in range(start, start + count)]


def talks(count):
    return [
        {"messages": [{"role": "user", "content": f"hi {n}"}, {"role": "assistant", "content": "ho"}]}
        for n in range(count)
    ]


def test_tasks_come_in_the_order_of_the_configuration_with_items_for_their_measure(write):
    choice = {"id": "parity", "path": write("c", questions(30)), "scorer": {"name": "choice", "normalize": "byte"}}
    exact = {"id": "echo", "path": write("p", pairs(40)), "scorer": {"name": "exact_match"}, "test": {"max_samples": 5}}
    tasks = load(exact, choice)
    assert list(tasks) == ["echo", "parity"]
    parity, echo = tasks["parity"], tasks["echo"]
    assert [len(part) for part in (parity.train, parity.validation, parity.test)] == [15, 15, 0]
    assert all(len(item.options) == 2 and item.option_bytes == (3, 4) for item in parity.validation)
    assert {item.answer for item in parity.validation} == {0, 1}
    assert parity.measure.normalize == "byte" and echo.measure.name == "exact_match"
    assert [len(part) for part in (echo.train, echo.validation, echo.test)] == [15, 20, 5]
    made = tokenizer()
    for example in echo.train:
        prompt, completion = (made.decode(example.ids[mask]) for mask in (~example.trained, example.trained))
        assert prompt.removeprefix("say") + "</s>" == completion
    assert all(item.options[0].ids[-1] == made.eos_token_id for item in echo.validation)
    assert echo.notes == parity.notes == ()


def test_trained_completion_is_the_right_option(write):
    task = load({"id": "d", "path": write("c", questions(30))})["d"]
    rights = {tuple(item.options[item.answer].ids[item.options[item.answer].trained]) for item in task.validation}
    assert {tuple(example.ids[example.trained][:-1]) for example in task.train} == rights


def test_the_fingerprint_sees_tokens_answers_and_measure(write):
    path, other = write("a", questions(30)), write("b", [*questions(29), *questions(1, start=99)])

    def fingerprint(path, **keys):
        return load({"id": "d", "path": path, **keys})["d"].fingerprint

    first = fingerprint(path)
    assert first == fingerprint(path)
    flipped = write("f", [{**row, "answer": 1 - row["answer"]} for row in questions(30)])
    others = [
        fingerprint(other),
        fingerprint(flipped),
        fingerprint(path, scorer={"name": "choice", "normalize": "token"}),
    ]
    assert len({first, *others}) == 4
    same_text = {"template": {"prompt": "{question}", "completion": "odd or even"}}
    assert fingerprint(path, **same_text) != fingerprint(flipped, **same_text)


def test_long_examples_are_cut_and_counted(write):
    rows = [*pairs(100), {"prompt": "p", "completion": "c" * 100}, {"prompt": "p" * 100, "completion": "c"}]
    val = {"path": write("v", pairs(5, start=500))}
    task = load({"id": "d", "path": write("a", rows), "validation": val}, data={"max_length": 50})["d"]
    assert len(task.train) == 101 and max(map(len, task.train)) == 50
    assert task.left_out == 102 - 50 and round(100 * task.left_out / (task.left_out + sum(map(len, task.train)))) == 5
    said = "1 of 101 training examples was truncated to 50 tokens (data.max_length): 5% of the training tokens are"
    assert any(note.startswith(said) for note in task.notes)
    assert any("1 of 102 training examples are left out" in note for note in task.notes)
    with pytest.raises(DataError, match=r"datasets\.d: .* training examples are left out.*raise data\.max_length"):
        load({"id": "d", "path": write("a", rows), "validation": val}, data={"max_length": 6})


def test_the_share_that_truncation_leaves_out_is_said_of_every_split(write):
    rows = [{"text": "x" * (99 if n % 2 else 9)} for n in range(20)]  # with the end of sequence 100 or 10 tokens
    splits = {"validation": {"path": write("v", rows[:4])}, "test": {"path": write("t", [{"text": "x" * 4000}])}}
    given = {"id": "d", "path": write("a", rows), **splits}
    keys = {"data": {"max_length": 55, "leaks": "warn"}}
    task = load(given, **keys)["d"]
    assert [note for note in task.notes if "truncated" in note] == [
        "10 of 20 training examples were truncated to 55 tokens (data.max_length): 41% of the training tokens are left "
        "out",
        "2 of 4 validation examples were truncated to 55 tokens (data.max_length): 41% of the validation tokens are "
        "left out",
        "1 of 1 test example was truncated to 55 tokens (data.max_length): 99% of the test tokens are left out",
    ]
    assert task.left_out == 450
    more = "(data.max_length; the model takes 2,048): 41% of the training tokens"
    assert more in " ".join(load(given, positions=2048, **keys)["d"].notes)
    assert "the model takes" not in " ".join(load(given, positions=55, **keys)["d"].notes)
    grouped = load(given | {"group": "g"}, given | {"id": "e", "group": "g"}, **keys)["g"]
    assert grouped.left_out == 900 and [part.left_out for part in grouped.each] == [450, 450]


def test_many_examples_that_do_not_fit_are_left_out_where_that_is_asked_for(write):
    rows = [*pairs(20), *({"prompt": "p" * 100 + str(i), "completion": "c"} for i in range(10))]
    given = {"id": "d", "path": write("a", rows), "validation": {"path": write("v", pairs(5, start=500))}}
    with pytest.raises(DataError, match=r"10 of 30 .* left out.*; data\.bad_rows: drop leaves out more than 10%"):
        load(given, data={"max_length": 50})
    task = load(given, data={"max_length": 50, "bad_rows": "drop"})["d"]
    assert len(task.train) == 20
    assert any("10 of 30 training examples are left out" in note for note in task.notes)
    with pytest.raises(DataError, match=r"30 of 30 .* give shorter rows$"):
        load(given, data={"max_length": 4, "bad_rows": "drop"})


def test_items_that_do_not_fit_whole_are_left_out_never_cut(write):
    long = {"question": "long?", "choices": ["no", "y" * 100], "answer": 0}
    val = {"path": write("v", [*questions(20, start=100), long])}
    task = load({"id": "d", "path": write("a", questions(20)), "validation": val}, data={"max_length": 60})["d"]
    assert len(task.validation) == 20
    assert any("1 of 21 validation examples are left out" in note for note in task.notes)


def test_questions_in_two_splits_are_noted(write):
    leaky = write(
        "v", [*questions(3), {**questions(1, start=5)[0], "question": " NUMBER  5? "}, *questions(6, start=200)]
    )
    train = write("a", questions(20))
    task = load({"id": "d", "path": train, "validation": {"path": leaky}})["d"]
    assert len(task.train) == 16 and len(task.validation) == 10
    (note,) = (note for note in task.notes if "training examples" in note)
    assert note.startswith("4 of 20 training examples are also in a validation or test split, left out of training: ")
    assert f"{train}:1 is {leaky}:1 (d, validation); " in note and note.endswith("and 1 more")


def test_conversations(write):
    dataset = {"id": "d", "path": write("a", talks(10))}
    made = tokenizer(chat=CHAT)
    example = load(dataset, made=made)["d"].train[0]
    assert made.decode(example.ids[example.trained]) == "ho<|im_end|>\n"
    with pytest.raises(DataError, match="no chat template"):
        load(dataset)
    given = load(dataset, model={"name_or_path": "m", "chat_template": CHAT})["d"].train[0]
    assert np.array_equal(given.ids, example.ids)


def test_a_chat_template_may_lie_in_a_file(write, tmp_path):
    file = tmp_path / "chat.jinja"
    file.write_text(CHAT)
    dataset = {"id": "d", "path": write("a", talks(10))}
    assert load(dataset, model={"name_or_path": "m", "chat_template": str(file)})["d"].train


def test_the_problems_of_all_data_sets_come_together(write):
    bad = write("a", [*pairs(10), {"prompt": "secret", "completion": " "}, {"prompt": "secret", "completion": 3}])
    with pytest.raises(DataError) as caught:
        load(
            {"id": "one", "path": bad},
            {"id": "two", "path": "/no/such.jsonl"},
            {"id": "three", "path": write("b", pairs(9))},
        )
    lines = str(caught.value).splitlines()
    assert len(lines) == 3 and "secret" not in str(caught.value)
    assert lines[0].startswith(f"{bad}:11 datasets.one: the completion is empty")
    assert lines[1].startswith(f"{bad}:12 datasets.one: completion is an int")
    assert lines[2].startswith("datasets.two: there is no file /no/such.jsonl")


def test_a_sub_dataset_needs_training_and_validation_examples(write):
    with pytest.raises(DataError, match="no validation example"):
        load({"id": "d", "path": write("a", pairs(1))})


def test_rows_without_the_chat_template_that_the_model_has_are_known(write):
    """Not those with its marks, conversations, choices, plain texts and own templates."""
    rows = {
        "pairs": pairs(20),
        "alpaca": [{"instruction": f"say {n}", "output": f"{n}"} for n in range(100, 120)],
        "asked": [{"question": f"what is {n}?", "answer": n} for n in range(200, 220)],
        "marked": [{"prompt": f"<|im_start|>user\n{n}<|im_end|>\n", "completion": "ho"} for n in range(300, 320)],
        "choices": questions(20, start=400),
        "talks": talks(20),
        "own": pairs(20, start=500),
        "text": [{"text": f"plain {n}"} for n in range(600, 620)],
    }
    given = [{"id": name, "path": write(name, content)} for name, content in rows.items()]
    given[6]["template"] = {"prompt": "User: {prompt}", "completion": "{completion}"}
    keys = {"data": {"leaks": "warn"}}
    data = load(*given, made=tokenizer(chat=CHAT), **keys)
    assert [name for name, part in data.items() if part.without_chat_template] == ["pairs", "alpaca", "asked"]
    assert not any(part.without_chat_template for part in load(given[0], **keys).values())
    (group,) = load(*({**entry, "group": "g"} for entry in given[:2]), made=tokenizer(chat=CHAT), **keys).values()
    assert [part.without_chat_template for part in group.each] == [True, True]


def test_a_chat_in_plain_text_is_noted(write):
    chats = [{"text": f"<|im_start|>user\nhi {n}<|im_end|>\n<|im_start|>assistant\nho<|im_end|>\n"} for n in range(20)]
    said = "the texts hold chats (<|im_start|>, <|im_end|>), in which all turns are learned, the user's too. Fix: "
    given = {"id": "d", "path": write("d", chats)}
    data = load(given, {"id": "t", "path": write("t", talks(20))}, made=tokenizer(chat=CHAT), data={"leaks": "warn"})
    notes = data["d"].notes
    assert any(note.startswith(said) for note in notes) and not any("go on after" in note for note in notes)
    packed = {"id": "d", "path": write("p", [{"text": f"one {n}</s>two {n}"} for n in range(20)])}
    notes = load(packed, made=tokenizer(chat=CHAT))["d"].notes
    assert not any("chats" in note for note in notes) and any("go on after </s>" in note for note in notes)
