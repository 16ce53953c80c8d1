"""Splits are disjoint, seeded by (seed, id), and hold what was asked for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msft.config.dataset_section import DatasetConfig
from msft.core.errors import DataError
from msft.data.sources import Source
from msft.data.splits import sampled, split


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    file = tmp_path_factory.mktemp("rows") / "a.jsonl"
    file.write_text(
        "".join(json.dumps({"n": n, "split": "val" if n % 4 == 0 else "train"}) + "\n" for n in range(1000))
    )
    return file


def parts(path, seed=20, name="d", **keys):
    dataset = DatasetConfig.model_validate({"id": name, "path": str(path), **keys})
    made = split(dataset, Source(dataset, seed), seed)
    return tuple([row.values["n"] for row in rows] for rows in (made.train, made.validation, made.test))


@pytest.mark.parametrize(
    ("keys", "sizes"),
    [
        ({}, (900, 100, 0)),
        ({"max_samples": 300}, (300, 50, 0)),
        ({"max_samples": 600}, (600, 60, 0)),
        ({"max_samples": 60}, (60, 30, 0)),
        ({"validation": {"fraction": 0.2}, "test": {"max_samples": 70}}, (730, 200, 70)),
        ({"validation": {"fraction": 0.2, "max_samples": 90}, "test": {}}, (810, 90, 100)),
        ({"where": {"split": "train"}, "validation": {"where": {"split": "val"}}}, (750, 250, 0)),
        ({"where": {"split": "train"}, "validation": {"where": {"split": "val"}, "max_samples": 9}}, (750, 9, 0)),
        ({"test": {"where": {"split": "val"}}, "where": {"split": "train"}}, (675, 75, 250)),
    ],
)
def test_sizes_and_disjointness(path, keys, sizes):
    train, validation, test = parts(path, **keys)
    assert tuple(map(len, (train, validation, test))) == sizes
    assert len({*train, *validation, *test}) == sum(sizes)
    assert train == sorted(train) and validation == sorted(validation)


def test_seed_and_id_decide(path):
    assert parts(path) == parts(path)
    assert parts(path) != parts(path, seed=21) and parts(path) != parts(path, name="e")


def test_max_samples_does_not_move_the_validation_split(path):
    given_size = {"validation": {"max_samples": 80}}
    few, many = parts(path, max_samples=50, **given_size), parts(path, max_samples=400, **given_size)
    assert few[1] == many[1] and set(few[0]) < set(many[0])


def test_too_few_rows_to_train_on(path):
    with pytest.raises(DataError, match="1,000 rows would all be held out"):
        parts(path, validation={"max_samples": 500}, test={"fraction": 0.5})


@given(st.integers(0, 60), st.integers(1, 60), st.integers(1, 60))
def test_larger_samples_hold_smaller_ones(rows, some, more):
    small, large = (sampled(rows, count, 5, "x").tolist() for count in sorted((some, more)))
    assert set(small) <= set(large) and len(large) == min(rows, max(some, more)) and large == sorted(large)
