"""Validation items choose the final model: test items among them are an error or are counted in a note."""

from __future__ import annotations

import pytest
from test_load_tasks import load, pairs, write  # noqa: F401

from msft.core.errors import DataError

SAID = "are also validation items, by which the final model is chosen, so its test score is optimistic: "


def repeats(task):
    return [note for note in task.notes if SAID in note]


@pytest.fixture
def dataset(write):  # noqa: F811
    return {"id": "d", "path": write("a", pairs(30)), "validation": {"path": write("v", pairs(20, start=100))}}


def test_the_validation_rows_are_no_test_split(dataset, tmp_path):
    held = dataset["validation"]
    link = tmp_path / "link.jsonl"
    link.symlink_to(held["path"])
    for test in (held, {"path": str(link)}, held | {"max_samples": 5}):
        with pytest.raises(DataError) as caught:
            load(dataset | {"test": test})
        assert str(caught.value) == (
            "datasets.d.test: the test split is the validation rows themselves, which choose the final model. Fix: "
            "name another path, split or where, or carve validation from the training rows with fraction or "
            "max_samples alone"
        )
    carved = load(dataset | {"validation": {"max_samples": 5}, "test": held})["d"]
    assert not carved.notes and len(carved.test) == 20


def test_rows_of_one_file_may_be_in_both_by_where(write):  # noqa: F811
    rows = [row | {"part": "abc"[n % 3]} for n, row in enumerate(pairs(60))]
    given = {"id": "d", "path": write("a", rows), "where": {"part": "a"}, "validation": {"where": {"part": "b"}}}
    task = load(given | {"test": {"where": {"part": "c"}}})["d"]
    assert not task.notes and len(task.validation) == len(task.test) == 20
    (note,) = repeats(load(given | {"test": {"where": {"part": ["b", "c"]}}})["d"])
    assert note.startswith(f"20 of 40 test items {SAID}") and note.endswith("or give other splits")


def test_a_copy_is_noted_with_its_places(dataset, write):  # noqa: F811
    first, other = pairs(1, start=110)[0], pairs(1, start=119)[0]
    test = write("t", [*pairs(3, start=200), first | {"prompt": " SAY  110"}, other])
    held = dataset["validation"]["path"]
    task = load(dataset | {"test": {"path": test}})["d"]
    assert task.notes == (
        f"2 of 5 test items {SAID}{test}:4 is {held}:11 (d, validation); {test}:5 is {held}:20 (d, validation). Fix: "
        "remove repeated rows, or give other splits",
    )
    assert len(task.test) == 5


def test_carved_splits_of_rows_that_stand_twice(write):  # noqa: F811
    path = write("a", [row for row in pairs(100) for _ in range(2)])
    task = load({"id": "d", "path": path, "validation": {"max_samples": 40}, "test": {"max_samples": 40}})["d"]
    prompts = [{tuple(item.prompt) for item in items} for items in (task.validation, task.test)]
    (note,) = repeats(task)
    assert len(prompts[0] & prompts[1]) > 2 and note.startswith(f"{len(prompts[0] & prompts[1])} of 40 test items")


def test_validation_items_of_others_and_of_the_aggregate_count(dataset, write):  # noqa: F811
    test = write("t", [*pairs(4, start=300), *pairs(2, start=400), *pairs(1, start=500)])
    chooser = {"path": write("c", pairs(5, start=303))}
    other = {
        "id": "e",
        "path": write("e", pairs(9, start=600)),
        "validation": {"path": write("w", pairs(9, start=401))},
    }
    tasks = load(dataset | {"test": {"path": test}}, other, aggregate=chooser)
    (note,) = repeats(tasks["d"])
    assert note.startswith("2 of 7 test items") and "(aggregate, validation)" in note and "(e, validation)" in note
    assert not repeats(tasks["e"]) and not repeats(tasks["aggregate"])
    with pytest.raises(DataError, match="the test split is the validation rows themselves"):
        load(dataset, aggregate=chooser | {"test": {"path": f"{chooser['path'].removesuffix('c.jsonl')}./c.jsonl"}})


def test_an_instruction_that_all_rows_share_repeats_nothing(write):  # noqa: F811
    rows = [{"prompt": "Write a line of verse.", "completion": f"the {n}th wave breaks"} for n in range(100)]
    path = write("a", rows)
    splits = {"validation": {"max_samples": 30}, "test": {"max_samples": 30}}
    assert not load({"id": "d", "path": path, **splits})["d"].notes


def test_a_run_on_all_rows_says_it_once(dataset, write):  # noqa: F811
    test = {"path": write("t", pairs(9, start=118))}
    task = load(
        dataset | {"test": test},
        dataset | {"id": "e", "path": write("b", pairs(40, start=500)), "validation": None},
        method={"name": "sft", "refit": True},
    )["d"]
    assert len(repeats(task)) == 1
