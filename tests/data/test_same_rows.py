"""The same rows in every format and file make the same tokens and masks."""

from __future__ import annotations

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers_for_tests import CHAT, tokenizer

from msft.config.schema import Config
from msft.core.errors import DataError
from msft.data.load import load_tasks


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as handle:
            writer = csv.DictWriter(handle, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return str(path)


def load(path, **keys):
    config = {"model": {"name_or_path": "m"}, "datasets": [{"id": "d", "path": path, **keys}], "output": "o"}
    return load_tasks(Config.model_validate(config), tokenizer(chat=CHAT))["d"]


def same(one, other):
    return one.fingerprint == other.fingerprint and all(
        np.array_equal(a.ids, b.ids) and np.array_equal(a.trained, b.trained)
        for a, b in zip(one.train, other.train, strict=True)
    )


SUMS = [(f"what is {n}, plus\n{n}?", f"None {2 * n}") for n in range(60)]


def test_instructions_in_every_format_and_file(tmp_path):
    first = load(write(tmp_path / "a.jsonl", [{"prompt": q + "\n\n", "completion": a} for q, a in SUMS]))
    alpaca = [{"instruction": q, "input": "", "output": a} for q, a in SUMS]
    asked = [{"question": q, "answer": a} for q, a in SUMS]
    assert same(first, load(write(tmp_path / "b.jsonl", alpaca)))
    assert same(first, load(write(tmp_path / "c.jsonl", asked), template={"prompt": "{question}\n\n"}))
    for name in ("d.json", "d.parquet", "d.csv"):
        assert same(first, load(write(tmp_path / name, alpaca))), name


def test_conversations_in_every_format_and_file(tmp_path):
    turns = [("system", "be brief"), ("user", "hi {}"), ("assistant", "ho"), ("user", "more"), ("assistant", "no {}")]
    names = {"user": "human", "assistant": "gpt"}
    chats = [{"messages": [{"role": r, "content": c.format(n)} for r, c in turns]} for n in range(60)]
    shared = [{"conversations": [{"from": names.get(r, r), "value": c.format(n)} for r, c in turns]} for n in range(60)]
    first = load(write(tmp_path / "a.jsonl", chats))
    made = tokenizer(chat=CHAT)
    rendered = {made.apply_chat_template(row["messages"], tokenize=False) for row in chats}
    for example in first.train:
        assert made.decode(example.ids) in rendered
        learned = made.decode(example.ids[example.trained])
        assert learned.startswith("ho<|im_end|>\nno ") and learned.endswith("<|im_end|>\n")
    for name, rows in (("b.jsonl", shared), ("c.json", shared), ("d.parquet", shared), ("e.parquet", chats)):
        assert same(first, load(write(tmp_path / name, rows))), name


def test_plain_text_learns_all_but_the_first_token(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"text": f"{n} bottles"} for n in range(60)])
    task = load(path)
    assert task.measure.name == "loss"
    for example in task.train:
        assert not example.trained[0] and example.trained[1:].all() and example.ids[-1] == 1
    labelled = write(tmp_path / "b.jsonl", [{"text": f"{n} bottles", "label": 1} for n in range(60)])
    with pytest.raises(DataError, match="there is a column label besides text"):
        load(labelled)
    assert same(task, load(labelled, format="text"))


def test_format_overrides_detection(tmp_path):
    rows = [{"prompt": f"p {n}", "completion": "c", "text": f"t {n}"} for n in range(60)]
    path = write(tmp_path / "a.jsonl", rows)
    made = tokenizer()
    assert made.decode(load(path).train[0].ids).startswith("p ")
    assert made.decode(load(path, format="text").train[0].ids).startswith("t ")
    with pytest.raises(DataError, match="format sharegpt needs conversations, but the columns are: prompt"):
        load(path, format="sharegpt")


def test_folders_globs_and_splits_by_name(tmp_path):
    rows = [{"prompt": f"p {n}", "completion": "c"} for n in range(100)]
    whole = load(write(tmp_path / "a.jsonl", rows))
    folder = tmp_path / "folder"
    (folder / "data").mkdir(parents=True)
    write(folder / "data" / "train-00000-of-00002.jsonl", rows[:30])
    write(folder / "data" / "train-00001-of-00002.jsonl", rows[30:])
    assert same(whole, load(str(folder))) and same(whole, load(f"{folder}/data/train-*.jsonl"))
    write(folder / "data" / "test-00000-of-00001.jsonl", [{"prompt": f"t {n}", "completion": "c"} for n in range(25)])
    assert len(load(str(folder), test={"split": "test"}).test) == 25
    with pytest.raises(DataError, match=r"has no split dev\. Fix: use one of: test, train"):
        load(str(folder), split="dev")
    mixed = tmp_path / "mixed"
    mixed.mkdir()
    for name in ("train_a.csv", "train_b.jsonl"):
        write(mixed / name, rows)
    with pytest.raises(DataError, match=r"has files that end in \.csv and \.jsonl"):
        load(str(mixed))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="has no data files"):
        load(str(tmp_path / "nothing"))
