"""`data.bad_rows: drop` leaves out the rows that cannot be used, counts and lists them, and changes no other row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from texts_of_data import all_loaded, completions, loaded, refusal

from msft.config.reader import flatten
from msft.config.schema import Config

DROP = {"bad_rows": "drop"}
GOOD = [{"prompt": f"p{n}", "completion": f"c{n}"} for n in range(60)]


def lines(path: Path, rows: list[Any], at: int = 30, bad: tuple[str, ...] = ()) -> Path:
    texts = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{text}\n" for text in [*texts[:at], *bad, *texts[at:]]))
    return path


BAD = {
    "cut off": '{"prompt": "p',
    "not UTF-8": '{"prompt": "\udcff", "completion": "c"}',
    "an array": '["p", "c"]',
    "a key twice": '{"prompt": "p", "prompt": "p", "completion": "c"}',
    "null": '{"prompt": "p", "completion": null}',
    "missing": '{"prompt": "p"}',
    "a number": '{"prompt": "p", "completion": 3}',
    "empty": '{"prompt": "p", "completion": " "}',
    "another format": '{"question": "p", "answer": "c"}',
}


@pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))
def test_a_bad_row_is_listed_and_the_others_are_as_without_it(tmp_path: Path, bad: str) -> None:
    clean = loaded(lines(tmp_path / "a.jsonl", GOOD), DROP)
    file = lines(tmp_path / "b.jsonl", GOOD)
    text = "".join(file.read_text().splitlines(keepends=True)[:30]) + bad + "\n"
    text += "".join(file.read_text().splitlines(keepends=True)[30:])
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert f"{file}:31 datasets.d" in refusal(file)
    data = loaded(file, DROP)
    assert data.fingerprint == clean.fingerprint  # the same splits, too
    (note,) = [note for note in data.notes if "dropped" in note]
    assert note.startswith(f"1 of 61 rows were dropped: {file}:31 (")


def test_one_bad_row_does_not_hide_the_format(tmp_path: Path) -> None:
    rows = [{"question": f"{n}?", "choices": ["no", "yes"], "answer": n % 2} for n in range(40)]
    bad = ('{"question": "x?", "choices": null, "answer": 1}', '{"question": "y?", "choices": ["a", "b"], "answer": 2}')
    clean, data = loaded(lines(tmp_path / "a.jsonl", rows)), loaded(lines(tmp_path / "b.jsonl", rows, 3, bad), DROP)
    assert data.measure.name == "choice" and data.fingerprint == clean.fingerprint
    assert any("2 of 42 rows were dropped" in note for note in data.notes)


def test_five_are_listed_and_more_than_a_tenth_are_an_error(tmp_path: Path) -> None:
    data = loaded(lines(tmp_path / "a.jsonl", GOOD, bad=("{",) * 6), DROP)
    (note,) = [note for note in data.notes if "dropped" in note]
    assert note.startswith("6 of 66 rows") and note.count("a.jsonl:") == 5 and note.endswith("; and 1 more")
    message = refusal(lines(tmp_path / "b.jsonl", GOOD, bad=("{",) * 7), DROP)
    assert "datasets.d: 7 of 67 rows are bad, and bad_rows: drop leaves out at most 10%: " in message


def test_files_that_cannot_be_read_are_errors_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('prompt,completion\n"open,b\n')
    (tmp_path / "a.json").write_text('[{"prompt": "a"},')
    (tmp_path / "a.jsonl").write_text("")
    for name, found in (("a.csv", "invalid CSV"), ("a.json", "invalid JSON"), ("a.jsonl", "the file is empty")):
        assert found in refusal(tmp_path / name, DROP)


def test_records_of_csv_and_rows_of_parquet(tmp_path: Path) -> None:
    header, *records = ["prompt,completion", *(f"p{n},c{n}" for n in range(30)), "p,c,more", "only", "p,"]
    (tmp_path / "a.csv").write_text("\n".join([header, *records]))
    data = loaded(tmp_path / "a.csv", DROP)
    assert len(completions(data)) == 30
    assert any(f"3 of 33 rows were dropped: {tmp_path / 'a.csv'}:32 (the record has 3" in note for note in data.notes)
    table = pa.table({"prompt": [f"p{n}" for n in range(30)], "completion": [*(["c"] * 29), None]})
    pq.write_table(table, tmp_path / "a.parquet")
    data = loaded(tmp_path / "a.parquet", DROP)
    assert any("1 of 30 rows were dropped: " in note and "a.parquet row 30 (compl" in note for note in data.notes)


def test_validation_rows_and_answers_that_cannot_be_extracted(tmp_path: Path) -> None:
    train, held = lines(tmp_path / "t.jsonl", GOOD), lines(tmp_path / "v.jsonl", GOOD[:20], 5, ('{"prompt": "p"}',))
    data = loaded(train, DROP, validation={"path": str(held)})
    assert len(data.validation) == 20 and any("1 of 81 rows were dropped: " in note for note in data.notes)
    sums = [{"prompt": f"{n}+1", "completion": f"#### {n + 1}" if n != 7 else "?"} for n in range(20)]
    scorer = {"name": "generate", "extract": "####", "max_new_tokens": 4}
    held = lines(tmp_path / "s.jsonl", sums)
    assert f"{held}:8 datasets.d" in refusal(train, validation={"path": str(held)}, scorer=scorer)
    data = loaded(train, DROP, validation={"path": str(held)}, scorer=scorer)
    assert len(data.validation) == 19
    assert any(note.startswith(f"1 of 20 validation rows were dropped: {held}:8 (") for note in data.notes)


def test_split_by_counts_bad_lines_once(tmp_path: Path) -> None:
    rows = [row | {"part": "ab"[n % 2]} for n, row in enumerate(GOOD)]
    bad = ("{", "{", json.dumps({"prompt": "p", "completion": "", "part": "b"}))
    tasks = all_loaded(lines(tmp_path / "a.jsonl", rows, bad=bad), DROP, split_by="part")
    notes = {name: [note for note in task.notes if "dropped" in note] for name, task in tasks.items()}
    assert [note[:27] for note in notes["d.a"]] == ["2 of 63 lines were dropped:"]
    assert [note[:26] for note in notes["d.b"]] == ["1 of 31 rows were dropped:"]


def test_the_default_is_an_error_that_no_journal_names() -> None:
    config = {"model": {"name_or_path": "m"}, "datasets": [{"id": "d", "path": "p"}], "output": "o"}
    assert Config.model_validate(config).data.bad_rows == "error"
    assert "data.bad_rows" not in flatten(Config.model_validate(config))
    assert flatten(Config.model_validate(config | {"data": DROP}))["data.bad_rows"] == "drop"
