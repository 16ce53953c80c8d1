"""Items of generating measures, and few-shot prompts before every item."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from tokenizers_for_tests import CHAT, tokenizer

from msft.config.schema import Config
from msft.core.errors import DataError
from msft.data.load import load_tasks
from msft.data.own_scorer import ScorerError

MADE = tokenizer(chat=CHAT)


@pytest.fixture
def load(tmp_path):
    def load(rows, scorer, *, split="validation", **keys):
        for name, part in (("a", rows), ("v", rows[-2:])):
            (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
        dataset = {"id": "d", "path": str(tmp_path / "a.jsonl"), "validation": {"path": str(tmp_path / "v.jsonl")}}
        data = {"leaks": "warn"}  # the held-out rows are the last of the training rows
        config = {"model": {"name_or_path": "m"}, "data": data, "output": "o"}
        config["datasets"] = [dataset | {"scorer": scorer} | keys]
        return load_tasks(Config.model_validate(config), MADE)["d"]

    return load


def pairs(count):
    return [{"prompt": f"say {n}:", "completion": f" well\n#### {n}", "target": n} for n in range(count)]


def prompt(item):
    return MADE.decode(item.prompt)


def scored(item):
    example = item.options[0]
    return MADE.decode(example.ids[example.trained])


def test_a_generating_item_has_its_prompt_its_reference_and_its_place(load, tmp_path):
    task = load(pairs(9), {"name": "generate", "extract": "####", "max_new_tokens": 5})
    assert [prompt(item) for item in task.validation] == ["say 7:", "say 8:"]
    assert [item.reference for item in task.validation] == ["7", "8"]
    assert [item.place for item in task.validation] == [f"{tmp_path}/v.jsonl:1", f"{tmp_path}/v.jsonl:2"]
    assert scored(task.validation[0]) == " well\n#### 7</s>"
    assert (task.measure.extract, task.measure.max_new_tokens) == ("####", 5)
    assert all(item.fields is None for item in task.validation)


def test_a_named_answer_column_is_the_reference(load):
    task = load(pairs(9), {"name": "generate", "extract": "number"}, columns={"answer": "target"})
    assert [item.reference for item in task.validation] == ["7", "8"]
    rows = [{"question": f"{n}?", "choices": ["no", "yes"], "answer": n % 2} for n in range(9)]
    columns = {"answer": "answer"}
    letters = load(
        rows,
        {"name": "generate", "extract": "letter"},
        columns=columns,
        template={"prompt": "{question}\n{choices_text}", "completion": "{answer_letter}"},
    )
    assert [item.reference for item in letters.validation] == ["B", "A"]
    texts = load(rows, {"name": "generate"}, columns=columns)
    assert [item.reference for item in texts.validation] == ["yes", "no"]


def test_the_letters_are_those_of_the_choices(load):
    """A list of ten is that of MMLU-Pro."""
    rows = [{"question": f"{n}?", "choices": list("zyxwvutsrqpo"[: 10 + n % 3]), "answer": 9 + n % 3} for n in range(9)]
    template = {"prompt": "{question}\n{choices_text}", "completion": "The answer is ({answer_letter})."}
    task = load(rows, {"name": "generate", "extract": "letter"}, template=template)
    assert [(item.reference, item.choices) for item in task.validation] == [("K", 11), ("L", 12)]
    free = [{"prompt": row["question"], "completion": "The answer is (J)."} for row in rows]
    task = load(free, {"name": "generate", "extract": "letter"})
    assert [(item.reference, item.choices) for item in task.validation] == [("J", 0)] * 2
    with pytest.raises(DataError, match=r"no answer that extract: letter \(A to J\) finds"):
        load([row | {"completion": "(K)"} for row in free], {"name": "generate", "extract": "letter"})


def test_rows_without_an_answer_are_named_not_echoed(load, tmp_path):
    rows = [*pairs(8), {"prompt": "p", "completion": "secret words"}]
    with pytest.raises(DataError) as caught:
        load(rows, {"name": "generate", "extract": "####"})
    message = str(caught.value)
    assert message.startswith(f"{tmp_path}/v.jsonl:2 datasets.d: the completion has no answer that extract: #### finds")
    assert "secret" not in message and "columns.answer" in message


def test_the_last_assistant_turn_is_what_is_to_be_said(load):
    turns = [
        ("system", "s"),
        ("user", "u"),
        ("assistant", "first"),
        ("user", "v"),
        ("assistant", "last"),
        ("user", "w"),
    ]
    rows = [{"messages": [{"role": role, "content": text} for role, text in turns]}] * 4
    item = load(rows, {"name": "generate"}).validation[0]
    assert prompt(item).endswith("first<|im_end|>\n<|im_start|>user\nv<|im_end|>\n<|im_start|>assistant\n")
    assert scored(item) == "last<|im_end|>\n" and item.reference == "last"


def test_own_scorers_get_the_row_and_are_found_before_anything_else(load, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_items_scorer.py").write_text("def f(answers):\n    return [0.0] * len(answers)\n")
    task = load(pairs(9), {"name": "my_items_scorer:f"})
    assert task.validation[0].fields == {"prompt": "say 7:", "completion": " well\n#### 7", "row": pairs(9)[7]}
    sys.modules.pop("my_items_scorer")
    (tmp_path / "my_items_scorer.py").write_text("def f(answers):\n    return [1.0] * len(answers)\n")
    assert load(pairs(9), {"name": "my_items_scorer:f"}).fingerprint != task.fingerprint
    with pytest.raises(ScorerError, match="no module my_other_scorer"):
        load(pairs(9), {"name": "my_other_scorer:f"})


SHOTS = {"k": 2, "from": "train", "seed": 3}


def shown_shots(item):
    """The numbers in the shots of a prompt, and what follows them."""
    *shots, own = prompt(item).split("\n\n")
    assert all(shot == f"say {(n := shot.split('#### ')[1])}: well\n#### {n}" for shot in shots)
    return [int(shot.split("#### ")[1]) for shot in shots], own


@pytest.mark.parametrize("name", ["loss", "exact_match", "generate"])
def test_shots_come_before_every_item_and_are_not_scored(load, name):
    task = load(pairs(9), {"name": name, "shots": SHOTS})
    (first, own), (second, other) = map(shown_shots, task.validation)
    assert first == second and len(set(first)) == 2, "drawn once per sub-dataset"
    assert (own, other) == ("say 7:", "say 8:") and scored(task.validation[0]) == " well\n#### 7</s>"
    assert all(len(example) < 30 for example in task.train), "training has no shots"
    three, _ = shown_shots(load(pairs(9), {"name": name, "shots": SHOTS | {"k": 3}}).validation[0])
    assert three[:2] == first, "fewer are the first of more"
    others = [
        shown_shots(load(pairs(9), {"name": name, "shots": SHOTS | {"seed": s}}).validation[0])[0] for s in range(4)
    ]
    assert any(other != first for other in others)


def test_the_options_of_a_choice_share_the_shots(load):
    rows = [{"question": f"number {n}?", "choices": ["odd", "even"], "answer": (n + 1) % 2} for n in range(9)]
    item = load(rows, {"name": "choice", "shots": SHOTS}).validation[0]
    assert [MADE.decode(option.ids[option.trained]) for option in item.options] == [" odd", " even"]
    assert len({MADE.decode(option.ids[~option.trained]) for option in item.options}) == 1
    first, second, own = prompt(item).split("\n\n")
    assert own == "Question: number 7?\nAnswer:" and first != second
    assert all(shot.endswith((" odd", " even")) for shot in (first, second))


def test_shots_of_conversations_are_earlier_turns(load):
    rows = [
        {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": f"u{n}"},
                      {"role": "assistant", "content": f"a{n}"}]}
        for n in range(9)
    ]  # fmt: skip
    for name in ("loss", "generate"):
        item = load(rows, {"name": name, "shots": SHOTS}).validation[0]
        text = prompt(item)
        assert text.count("<|im_start|>system") == 1 and text.startswith("<|im_start|>system\ns<|im_end|>")
        assert text.count("<|im_start|>assistant") == 3 and text.endswith("u7<|im_end|>\n<|im_start|>assistant\n")
        assert scored(item) == "a7<|im_end|>\n"


def test_blank_lines_end_a_text_only_where_they_separate_shots(load):
    talks = [
        {"messages": [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"well\n\n#### {n}"}]}
        for n in range(9)
    ]
    few = {"name": "generate", "extract": "####", "shots": SHOTS}
    assert load(pairs(9), few).measure.stop == ("\n\n",) and load(talks, few).measure.stop == ()
    assert load(talks, few).validation[0].reference, "the whole turn is read"
    assert load(pairs(9), {**few, "stop": ["Q:"]}).measure.stop == ("Q:",)
    assert load(pairs(9), {**few, "shots": None}).measure.stop == load(pairs(9), {**few, "stop": []}).measure.stop == ()


def test_completions_that_cannot_be_generated_whole_are_counted(load):
    def notes(most, name="generate"):
        task = load(pairs(9), {"name": name, "max_new_tokens": most} if name == "generate" else {"name": name})
        return [note for note in task.notes if "max_new_tokens" in note]

    longest = max(int(item.options[0].trained.sum()) - 1 for item in load(pairs(9), {"name": "loss"}).validation)
    (note,) = notes(longest - 1)
    assert "validation items the completion is longer than max_new_tokens: " in note
    assert note.endswith(f"Fix: set scorer.max_new_tokens to {longest}, the longest one's tokens")
    assert notes(longest) == notes(1, "loss") == [], "the token that ends it is not needed"


def test_more_shots_than_examples(load):
    with pytest.raises(DataError, match=r"datasets\.d\.scorer\.shots\.k: found 99, to be drawn from 9"):
        load(pairs(9), {"name": "loss", "shots": {"k": 99}})


def test_shots_and_references_are_part_of_the_fingerprint(load):
    scorers = [
        {"name": "loss"},
        {"name": "loss", "shots": SHOTS},
        {"name": "generate"},
        {"name": "generate", "extract": "####"},
    ]
    assert len({load(pairs(9), scorer).fingerprint for scorer in scorers}) == 4
    rows = [{"prompt": f"say {n}:", "completion": " x", "target": n} for n in range(9)]
    keys = {"scorer": {"name": "generate", "extract": "number"}, "columns": {"answer": "target"}}
    changed = [*rows[:8], rows[8] | {"target": 99}]
    assert load(rows, **keys).fingerprint != load(changed, **keys).fingerprint


def test_prompts_hold_what_the_reference_is_scored_after(load):
    item = load(pairs(9), {"name": "generate"}).validation[0]
    assert np.array_equal(item.prompt, item.options[0].ids[: len(item.prompt)])
    assert not item.options[0].trained[: len(item.prompt)].any()
