"""CSV has texts: what a field looks like, and what other rows hold, changes no value."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from texts_of_data import completions, loaded, refusal

from msft.config.dataset_section import DatasetConfig
from msft.data import csv_files, sources
from msft.data.sources import Source


def asked(path: Path, answers: list[str], separator: str = ",") -> Path:
    rows = [f"Question {n}?{separator}{answer}\n" for n, answer in enumerate(answers)]
    path.write_text(f"question{separator}answer\n" + "".join(rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "answers",
    [
        ["00501", "00502", "00500"], ["1.50", "2.50", "0.50"], ["True", "False", "True"], ["1E5", "2E5", "3E5"],
        ["NA", "null", "None"], ["nan", "inf", "-0"], ["1,000", "2,000", "3,000"], ["2024-01-02", "1/2", " 7"],
        ["+7", "0x1F", "1_000"], ["yes", "12", "1e400"],
    ],
    ids=lambda answers: answers[0],
)  # fmt: skip
def test_a_value_is_learned_as_it_is_written(tmp_path: Path, answers: list[str]) -> None:
    written = [f'"{answer}"' if "," in answer else answer for answer in answers]
    assert sorted(completions(loaded(asked(tmp_path / "a.csv", written)))) == sorted(answers)


def test_blanks_of_other_rows_change_no_number(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("question,answer,part\n" + "".join(f"{n}?,{n},train\n" for n in range(8)) + "x?,,later\n" * 4)
    assert sorted(completions(loaded(file, where={"part": "train"}))) == [str(n) for n in range(8)]
    assert f"{file}:10 datasets.d: answer is missing or null" in refusal(file, where={"part": ["train", "later"]})
    assert len(Source(DatasetConfig(id="d", path=str(file)), 0).rows(where={"answer": None})) == 4


def test_a_prompt_of_digits_and_a_column_that_changes_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "IN_MEMORY", 100)  # the file is read from disk, row by row
    file = tmp_path / "a.csv"
    rows = [f"{n:05},{n if n < 1900 else f'number {n}'}\n" for n in range(2000)]
    file.write_text("question,answer\n" + "".join(rows))
    data = loaded(file, validation={"max_samples": 2})
    assert {"7", "number 1999"} <= set(completions(data)) and len(data.train) == 1998
    assert isinstance(Source(DatasetConfig(id="d", path=str(file)), 0).rows(), csv_files.CsvRows)


def test_where_compares_with_the_text(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("k,question,answer\n2,q,a\n2,r,b\n02,s,c\nTrue,t,d\nx,u,e\n1.50,v,f\n")
    source = Source(DatasetConfig(id="d", path=str(file)), 0)

    def lines(value: object) -> list[int | None]:
        return [row.line for row in source.rows(where={"k": value})]  # type: ignore[dict-item]

    assert lines("2") == [2, 3] and lines(("x", "02")) == [4, 6] and lines(True) == [5]
    assert lines((2, "02")) == [2, 3, 4]
    for number in (2, 1.5):
        with pytest.raises(Exception, match=r"is also written as the text '(02|1\.50)'\. Fix: give the texts"):
            lines(number)
    (tmp_path / "b.csv").write_text("k,question,answer\n2,q,a\n3,r,b\n")
    assert len(Source(DatasetConfig(id="d", path=str(tmp_path / "b.csv")), 0).rows(where={"k": 2})) == 1


@pytest.mark.parametrize(("name", "separator"), [("a.tsv", "\t"), ("a.csv", ";"), ("a.csv", "\t"), ("a.csv", "|")])
def test_other_separators(tmp_path: Path, name: str, separator: str) -> None:
    file = tmp_path / name
    lines = [f'"What, {n}{separator}?"{separator}007\n' for n in range(5)]
    file.write_text(f"question{separator}answer\n" + "".join(lines))
    data = loaded(file)
    assert completions(data) == ["007"] * 5
    assert any("the header has no commas, so" in note for note in data.notes) == (name == "a.csv")


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("a.csv", "question;answer|x\na;b|c\n", ":1 datasets.d: the header has no commas, but semicolons and vertical"),
        ("a.tsv", "question,answer\na,b\n", ":1 datasets.d: the header has no tabs, but commas. Fix: name the"),
        ("a.tsv", "question;answer\na;b\n", ":1 datasets.d: the header has no tabs, but semicolons. Fix: save"),
        ("a.csv", "question;answer\na;b\nc;d;e\n", ":3 datasets.d: the record has 3 fields, the header 2. Fix: put"),
        ("a.csv", 'q,a\n"two\nlines",b\nx\n', ":4 datasets.d: the record has 1 fields"),
        ("a.csv", 'q,a\nx,y\n"open,b\nmore,c\n', ":3 datasets.d: invalid CSV: unexpected end of data"),
        ("a.csv", "q,q\nx,y\n", ":1 datasets.d: the column 'q' appears twice"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, name: str, content: str, found: str) -> None:
    (tmp_path / name).write_text(content)
    assert f"{tmp_path / name}{found}" in refusal(tmp_path / name)


def test_marks_line_ends_quotes_and_columns_without_a_name(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes('\ufeff,question,answer,\r\n0,"say ""é""\r\nnow?", b ,\r\n\r\n1,q,"a\u2028b",x\r\n'.encode())
    rows = list(Source(DatasetConfig(id="d", path=str(file)), 0).rows())
    assert [(row.line, row.values["question"], row.values["answer"]) for row in rows] == [
        (2, 'say "é"\r\nnow?', " b "), (5, "q", "a\u2028b"),
    ]  # fmt: skip
    assert rows[0].values["Unnamed: 0"] == "0" and rows[1].values["Unnamed: 3"] == "x"
    file.write_bytes(b"question,answer\rone,1\rtwo,2\r")
    assert [row.values["answer"] for row in Source(DatasetConfig(id="d", path=str(file)), 0).rows()] == ["1", "2"]


def test_a_field_may_be_long_and_files_of_a_pattern_have_the_same_columns(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"question,answer\n{'x' * 200_000},1\n")
    (tmp_path / "b.csv").write_text("answer,question\n02,q\n")
    rows = Source(DatasetConfig(id="d", path=str(tmp_path / "*.csv")), 0).rows()
    assert [len(row.values["question"]) for row in rows] == [200_000, 1] and rows[1].values["answer"] == "02"
    (tmp_path / "c.csv").write_text("question,reply\nq,a\n")
    assert "c.csv:1 datasets.d: the column 'answer' is only in one of a.csv and this" in refusal(tmp_path / "*.csv")


@pytest.mark.parametrize("declared", [False, True])
def test_a_folder_that_the_library_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: bool) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "train.csv").write_text("question,answer\na,00501\nb,02\nc,3\n")
    types = "dataset_info:\n  features:\n  - {name: question, dtype: string}\n  - {name: answer, dtype: int64}\n"
    (tmp_path / "d" / "README.md").write_text(f"---\nlicense: mit\n{types if declared else ''}---\n")
    answers = ["2", "3", "501"] if declared else ["00501", "02", "3"]
    assert sorted(completions(loaded(tmp_path / "d"))) == answers
    source = Source(DatasetConfig(id="d", path=str(tmp_path / "d")), 0)
    assert len(source.rows(where={"answer": 3})) == 1
