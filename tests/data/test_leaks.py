"""What is in training and in a held-out split is found; what only looks alike is not."""

from __future__ import annotations

import json

import pytest
from tokenizers_for_tests import tokenizer

from msft.config.schema import Config
from msft.core.errors import DataError
from msft.data.load import load_tasks
from msft.data.shingles import near

STORY = (
    "The old lighthouse keeper climbed the narrow stairs every evening with a lamp in one hand and a book in the "
    "other, since the nights were long and the ships were few, and he read aloud to the gulls that slept on the "
    "railing until the first light came over the grey water and the harbour woke below him once more. Who sleeps?"
)


@pytest.fixture
def write(tmp_path):
    def write(name, texts):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("".join(json.dumps({"prompt": text, "completion": "yes"}) + "\n" for text in texts))
        return str(path)

    return write


def load(*datasets, **data):
    config = {"model": {"name_or_path": "m"}, "datasets": list(datasets), "output": "o", "data": data}
    return load_tasks(Config.model_validate(config), tokenizer())


def fillers(count, word):
    return [f"{word} {n} of many: which {word} comes next?" for n in range(count)]


def test_exact_and_near_repeats_are_dropped_from_training_and_named(write):
    train = write("train", [*fillers(40, "ship"), "  WHO is\nthere? ", STORY])
    held = write("held", [*fillers(20, "gull"), "Who is there?", STORY.replace("grey water", "dark water")])
    task = load({"id": "d", "path": train, "validation": {"path": held}})["d"]
    assert len(task.train) == 40 and len(task.validation) == 22
    (note,) = task.notes
    assert f"{train}:41 is {held}:21 (d, validation); {train}:42 is nearly {held}:22 (d, validation)" in note


def test_leaks_across_sub_datasets_and_the_three_ways_to_handle_them(write):
    one = {"id": "one", "path": write("one", [*fillers(60, "ship"), STORY])}
    one["validation"] = {"path": write("v", fillers(20, "gull"))}
    two = {"id": "two", "path": write("two", fillers(60, "mast")), "test": {"path": write("t", [STORY])}}
    tasks = load(one, two)
    assert len(tasks["one"].train) == 60 and "(two, test)" in tasks["one"].notes[0] and not tasks["two"].notes
    kept = load(one, two, leaks="warn")["one"]
    assert len(kept.train) == 61 and "kept (data.leaks: warn)" in kept.notes[0]
    with pytest.raises(DataError) as caught:
        load(one, two, leaks="error")
    assert f"datasets.one: {one['path']}:61 is {two['test']['path']}:1 (two, test). Fix: " in str(caught.value)


def test_two_questions_about_one_passage_are_two_questions(write):
    passage = STORY.removesuffix(" Who sleeps?")
    held = write("held", [*fillers(20, "gull"), f"{passage}\nQuestion: what does he carry upstairs?"])
    train = write("train", [*fillers(40, "ship"), f"{passage}\nQuestion: when do the ships come home?"])
    assert load({"id": "d", "path": train, "validation": {"path": held}})["d"].notes == ()


def test_an_instruction_that_all_rows_share_identifies_none_of_them(tmp_path):
    path = tmp_path / "a.jsonl"
    rows = [{"prompt": "Write a line of verse.", "completion": f"the {n}th wave breaks"} for n in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = load({"id": "d", "path": str(path)})["d"]
    assert len(task.train) == 50 and not task.notes


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What is 3 + 4?", "What is 3 + 5?"),
        (
            "Please work out the following sum with care: 3 + 4 =",
            "Please work out the following sum with care: 3 - 4 =",
        ),
        ("How often is the letter e in the sentence below?", "How often is the letter r in the sentence below?"),
    ],
)
def test_texts_that_differ_in_what_decides_are_not_near(one, other):
    assert not near(one, other) and near(one, one.replace("e", "e").upper())


@pytest.mark.parametrize("task", ["chain_sum", "basic_arithmetic", "gsm_symbolic", "letter_counting", "leg_counting"])
def test_templated_tasks_lose_nothing(task):
    options = {"size": 120, "seed": 3}
    made = load({"id": "d", "path": f"reasoning_gym:{task}", "config": options, "validation": {"max_samples": 40}})
    assert not [note for note in made["d"].notes if "training examples" in note]
