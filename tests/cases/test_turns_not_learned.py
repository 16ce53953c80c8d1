"""Turns that the data say are not to be learned (`weight: 0`, `train: false`) were learned, and nothing said so."""

from __future__ import annotations

import pytest
from published_templates import FOLDER
from test_chats import CHATML, END, STRIP, A, U, load, notes, refused, say, shown, texts

from msft.data.conversations import turns_of

MARKS = (FOLDER / "qwen3_training.jinja").read_text(encoding="utf-8")
PLAIN = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}" + (
    "{% if add_generation_prompt %}assistant: {% endif %}"
)
SAYS = ({"weight": 0}, {"weight": 0.0}, {"train": False}, {"loss": 0}, {"weight": 1, "train": False})


def talk(**first):
    return [say("user", "Add {n}"), say("assistant", "wrong", **first), say("user", "No"), say("assistant", "right")]


@pytest.mark.parametrize("says", SAYS, ids=str)
def test_a_turn_of_weight_0_is_read_and_not_learned(tmp_path, says):
    made = load(tmp_path, {"messages": talk(**says)})
    expected = f"{END}{A}wrong{END}{U}No{END}{A}[right{END}]"
    assert all(text.endswith(expected) for text in texts(made)) and not notes(made)


@pytest.mark.parametrize("says", [{"weight": 1}, {"train": True}, {"loss": 1.0}, {"weight": None}, {}], ids=str)
def test_any_other_turn_is_learned(tmp_path, says):
    assert all(f"{A}[wrong{END}]" in text for text in texts(load(tmp_path, {"messages": talk(**says)})))


@pytest.mark.parametrize("template", [CHATML, STRIP, MARKS, PLAIN], ids=["chatml", "rewrites", "marks", "no end"])
@pytest.mark.parametrize("last", [False, True])
def test_under_any_template(tmp_path, template, last):
    turns = talk()
    turns[3 if last else 1]["weight"] = 0
    made = load(tmp_path, {"messages": turns}, template)
    task, words = made
    for example in [*task.train, *(item.options[0] for item in task.validation)]:
        learned = "".join(words.decode([n]) for n in example.ids[example.trained].tolist())
        assert ("wrong" in learned, "right" in learned) == (last, not last)
    assert len(task.train) == 20 and "became" not in notes(made) and "drops" not in notes(made)


def test_the_last_turn_that_is_learned_is_generated(tmp_path):
    turns = [*talk(), say("user", "Thanks"), say("assistant", "Bye", weight=0)]
    task, words = load(tmp_path, {"messages": turns}, scorer={"name": "generate", "max_new_tokens": 4})
    assert {item.reference for item in task.validation} == {f"right{END}"[: len("right")]}
    assert all(words.decode(item.prompt.tolist()).endswith(f"{U}No{END}{A}") for item in task.validation)


def test_sharegpt_and_given_turns_have_weights_too(tmp_path):
    turns = [{"from": "human", "value": "Add {n}"}, {"from": "gpt", "value": "wrong", "weight": 0}]
    turns += [{"from": "human", "value": "No"}, {"from": "gpt", "value": "right", "weight": 1}]
    assert all(text.count("[") == 1 for text in texts(load(tmp_path, {"conversations": turns})))
    rows = {"prompt": talk()[:1], "completion": talk(weight=0)[1:]}
    made = load(tmp_path, rows)
    assert all(text.endswith(f"{A}[right{END}]") and text.count("[") == 1 for text in texts(made))


def test_what_a_weight_cannot_be(tmp_path):
    for weight in (0.5, "0", [], -1):
        message = refused(tmp_path, {"messages": talk(weight=weight)})
        assert "rows.jsonl:1" in message and "weight of turn 2 of messages is" in message and "Fix:" in message
    assert "has no assistant turn to learn" in refused(tmp_path, {"messages": talk(weight=0)[:2]})
    with pytest.raises(ValueError, match="turn 1 of messages has train: true, but only assistant turns are learned"):
        turns_of([say("user", "u", train=True), say("assistant", "a")], "messages")
    assert turns_of([say("user", "u", train=False, weight=1)], "messages")


def test_shots_keep_their_turns_unlearned(tmp_path):
    scorer = {"name": "loss", "shots": {"k": 1}}
    task, words = load(tmp_path, {"messages": talk(weight=0)}, scorer=scorer, data={"max_length": 400})
    for item in task.validation:
        text = shown(item.options[0], words)
        assert text.count("[") == 1 and text.count("wrong") == 2
