"""Rows of preference data whose label marks bad answers are not learned unasked."""

from __future__ import annotations

import json

import pytest
from tokenizers_for_tests import tokenizer

from msft.config.schema import Config
from msft.core.errors import DataError
from msft.data.load import load_tasks

FIX = r"Fix: take the good ones with where: \{label: true\}"


@pytest.fixture
def load(tmp_path):
    def load(rows, suffix=".jsonl", aggregate=None, **keys):
        file = tmp_path / f"rows{suffix}"
        if suffix == ".csv":
            file.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))
        else:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        made = {"model": {"name_or_path": "m"}, "method": {"name": "sro", "max_epochs": 1}, "output": "o"}
        made |= {"aggregate": aggregate, "data": {"leaks": "warn"}} if aggregate else {}
        config = Config.model_validate(made | {"datasets": [{"id": "kto", "path": str(file), **keys}]})
        return load_tasks(config, tokenizer())["kto"]

    return load


def rows(count=40, label=lambda n: n % 4 > 0, answer="completion"):
    return [{"prompt": f"What is word{n}?", answer: f" reply{n}", "label": label(n)} for n in range(count)]


def test_bad_answers_are_an_error_and_where_takes_the_good_ones(load):
    with pytest.raises(DataError, match=r"datasets\.kto\.where: .*false in 5 of 20 training rows\. .*" + FIX):
        load(rows())
    assert len(load(rows(), where={"label": True}).train) == 15
    assert len(load(rows(), where={"label": [True, False]}).train) == 20
    assert len(load(rows(label=lambda n: True)).train) == 20


def test_truth_values_of_csv_are_texts(load):
    with pytest.raises(DataError, match=FIX):
        load(rows(), ".csv")
    assert len(load(rows(), ".csv", where={"label": True}).train) == 15


@pytest.mark.parametrize(("empty", "suffix"), [(None, ".jsonl"), ("", ".csv")])
def test_rows_without_a_label_hide_no_bad_ones(load, empty, suffix):
    with pytest.raises(DataError, match=r"false in \d+ of 20 training rows\. In data for KTO, that marks a bad"):
        load(rows(label=lambda n: empty if n % 5 == 0 else n % 2 > 0), suffix)
    load(rows(label=lambda n: empty), suffix)


def test_an_aggregate_is_only_scored(load, tmp_path):
    exam = {"path": str(tmp_path / "exam.jsonl")}
    (tmp_path / "exam.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(16)))
    good = rows(label=lambda n: True)
    with pytest.raises(DataError, match=r"aggregate\.where: .*in 4 of 16 validation rows.*scored as a good.*" + FIX):
        load(good, aggregate=exam)
    load(good, aggregate=exam | {"where": {"label": True}})


def test_a_split_that_is_read_is_checked_by_its_own_where(load):
    splits = [row | {"part": "b" if n % 2 else "a"} for n, row in enumerate(rows(40, lambda n: n % 4 > 1))]
    keys = {"where": {"part": "a", "label": True}, "validation": {"where": {"part": "b"}}}
    with pytest.raises(DataError, match=r"kto\.validation\.where: .*false in 10 of 20 validation rows.*" + FIX):
        load(splits, **keys)
    keys["validation"]["where"]["label"] = True
    assert len(load(splits, **keys).validation) == 10


def test_a_label_that_is_read_or_no_truth_value_is_none_of_preference_data(load):
    load(rows(), template={"prompt": "{prompt}", "completion": " {label}"})
    load(rows(label=lambda n: n % 2))
    load(rows(label=lambda n: ["good", "bad"][n % 2]))
    load([{"text": f"word{n} is here", "label": n % 2 > 0} for n in range(40)], format="text")
    with pytest.raises(DataError, match=FIX):
        load(rows(answer="answer"), columns={"question": "prompt"})
