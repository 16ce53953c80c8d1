"""`msft init`: what it guesses from a folder, and that what it writes can be used at once."""

from __future__ import annotations

import csv
import gzip
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from datasets import Dataset as Rows
from datasets import DatasetDict as Splits
from job import make_model

from msft.cli.main import main
from msft.config.reader import load
from msft.data.examples import Measure
from msft.data.load import load_tasks
from msft.model.folder import ModelSource
from msft.model.open import load_tokenizer


def lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "my data"
    chosen = [{"question": f"{i}?", "choices": ["no", "yes"], "answer": i % 2} for i in range(60)]
    lines(folder / "chosen.jsonl", [row | {"split": "dev" if i < 10 else "train"} for i, row in enumerate(chosen)])
    lines(folder / "short_train.jsonl", [{"prompt": f"{i}+1", "completion": str(i + 1)} for i in range(40)])
    lines(folder / "short-test.jsonl", [{"prompt": f"{i}-1", "completion": str(i - 1)} for i in range(9)])
    lines(folder / "long" / "train.jsonl", [{"instruction": f"say {i}", "output": "so " * 30} for i in range(40)])
    lines(folder / "long" / "valid.jsonl", [{"instruction": f"do {i}", "output": "well " * 30} for i in range(8)])
    with (folder / "no.csv").open("w") as file:
        csv.writer(file).writerows([["question", "answer"], *([f"{i}?", f"word{i}"] for i in range(40))])
    return folder


def test_what_is_written_trains(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_model(tmp_path / "model")
    written = tmp_path / "job" / "c.yaml"
    assert main(["init", str(folder), "-o", str(written), "--model", "../model"]) == 0
    assert "msft check" in capsys.readouterr().out
    config = load(written)
    assert config.model.name_or_path == str(tmp_path / "model")
    data = load_tasks(config, load_tokenizer(ModelSource(name_or_path=config.model.name_or_path)))
    sizes = {task: (len(part.train), len(part.validation), len(part.test)) for task, part in data.items()}
    assert sizes == {"chosen": (50, 10, 0), "no": (20, 20, 0), "short": (20, 20, 9), "long": (40, 8, 0)}
    measures = {task: part.measure for task, part in data.items()}
    assert measures == {
        "chosen": Measure(name="choice", normalize="token"),
        "no": Measure(name="exact_match"),
        "short": Measure(name="exact_match"),
        "long": Measure(name="loss"),
    }
    assert (config.training.average, config.training.schedule) == (1.0, "constant")
    falling = written.with_name("falling.yaml")
    edited = written.read_text().replace("name: auto", "name: msft").replace("  average: 1 ", "  # average: 1 ")
    falling.write_text(edited.replace("# schedule: linear", "schedule: linear"))
    changed = load(falling).training
    assert (changed.average, changed.schedule) == (None, "linear")
    text = written.read_text()
    assert text.startswith("# yaml-language-server: $schema=msft.schema.json\n")
    assert 'path: "../my data/chosen.jsonl"' in text
    assert "# 60 rows; format: question + choices + answer" in text
    assert 'id: "no"' in text  # a plain no is false to other readers


def test_nothing_is_overwritten(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "c.yaml"
    mine.write_text("mine")
    assert main(["init", str(folder), "-o", str(mine)]) == 2
    assert f"{mine}: the file already exists. Fix: " in capsys.readouterr().err
    assert mine.read_text() == "mine"


def test_rows_of_no_known_format_are_left_to_the_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines(tmp_path / "data" / "odd.jsonl", [{"left": "a", "right": "b"}])
    written = tmp_path / "c.yaml"
    assert main(["init", str(tmp_path / "data"), "-o", str(written)]) == 0
    assert "no known format: assign these columns with `columns` or `template`: left, right" in written.read_text()
    load(written)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, "the folder holds no data files"),
        ({"a_test.jsonl": '{"prompt": "x", "completion": "y"}'}, "the sub-dataset a has no training file"),
        ({"a.jsonl": '{"prompt": "x"'}, "a.jsonl:1 datasets.a: invalid JSON"),
        ({"a_train.jsonl": "{}", "a.train.jsonl": "{}"}, "would both be the train split of a"),
    ],
)
def test_folders_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, str], message: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_text(content)
    assert main(["init", str(folder), "-o", str(tmp_path / "c.yaml")]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Fix: " in error
    assert not (tmp_path / "c.yaml").exists()


def test_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", str(tmp_path / "none"), "-o", str(tmp_path / "c.yaml")]) == 2
    assert "there is no such folder" in capsys.readouterr().err


def started(folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """The configuration that is written beside a folder, and what is said on the screen."""
    written = folder.parent / "c.yaml"
    assert main(["init", str(folder), "-o", str(written)]) == 0
    load(written)
    return written.read_text(), capsys.readouterr().out


UNTOLD = (".hidden.txt", ".git/notes.txt", ".checkpoints/old.jsonl", "README.md", "make.py")
"""Files that are hidden, in hidden folders, or no data by their endings."""


def test_files_that_are_not_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, pair = tmp_path / "data", {"prompt": "p", "completion": "c"}
    for name in ("upper.JSONL", "lines.ndjson", "kept.jsonl.gz", "notes.txt", "odd.jsonl", *UNTOLD):
        lines(folder / name, [{"left": "a", "right": "b"} if name.startswith("odd") else pair])
    text, said = started(folder, capsys)
    assert [line.split()[-1] for line in text.splitlines() if "- id:" in line] == ["lines", "odd", "upper"]
    assert text.count("format: prompt + completion") == 2
    assert "not read, as their endings are not known: notes.txt\n" in said
    assert f"not read, as they are compressed: kept.jsonl.gz. Fix: unpack them: gunzip -k {folder}/kept" in said
    assert "no known format has the columns of odd. Fix: " in said
    (folder / "odd.jsonl").unlink()
    (tmp_path / "c.yaml").unlink()
    assert "no known format" not in started(folder, capsys)[1]


def test_what_a_chat_template_reads_counts_as_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    turns = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]
    tools = [{"type": "function", "function": {"name": "f"}}]
    row = {"messages": turns, "tools": tools, "documents": [{"text": "d"}], "source": "web"}
    lines(tmp_path / "data" / "chats.jsonl", [row])
    assert "format: messages + tools + documents; not used: source\n" in started(tmp_path / "data", capsys)[0]


@pytest.mark.parametrize("alone", [False, True])
def test_a_saved_data_set_is_one_sub_dataset(tmp_path: Path, capsys: pytest.CaptureFixture[str], alone: bool) -> None:
    folder = tmp_path / "saved" if alone else tmp_path / "data" / "saved"
    rows = [{"prompt": f"{n}+1", "completion": str(n + 1)} for n in range(40)]
    splits = {"train": rows[:20], "validation": rows[20:30], "test": rows[30:]}
    Splits({name: Rows.from_list(part) for name, part in splits.items()}).save_to_disk(folder)
    if not alone:
        whole = Rows.from_list([{"prompt": f"{n}-1", "completion": str(n - 1)} for n in range(40)])
        whole.save_to_disk(folder.with_name("whole"))
    text, _ = started(folder if alone else folder.parent, capsys)
    config = load(tmp_path / "c.yaml")
    assert [dataset.id for dataset in config.datasets] == ["saved", *([] if alone else ["whole"])]
    assert "# 20 rows; format: prompt + completion\n" in text
    make_model(tmp_path / "model")
    data = load_tasks(config, load_tokenizer(ModelSource(name_or_path=str(tmp_path / "model"))))
    assert [len(part) for part in (data["saved"].train, data["saved"].validation, data["saved"].test)] == [20, 10, 10]


@pytest.mark.parametrize(
    ("names", "fix"),
    [
        (("test_sft", "train_sft"), "write the configuration by hand, with `split: train_sft` beside `path`"),
        (("test", "mine"), "write the configuration by hand, with `split: mine` beside `path`"),
        (("test",), "add one, or move the folder away"),
    ],
)
def test_a_saved_data_set_without_a_known_training_split_lists_its_splits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...], fix: str
) -> None:
    rows = Rows.from_list([{"prompt": f"{n}+1", "completion": str(n + 1)} for n in range(40)])
    Splits(dict.fromkeys(names, rows)).save_to_disk(tmp_path / "data" / "chat")
    for folder in (tmp_path / "data", tmp_path / "data" / "chat"):
        assert main(["init", str(folder), "-o", str(tmp_path / "c.yaml")]) == 2
        said = " ".join(capsys.readouterr().err.split())
        assert f"its splits are {', '.join(map(repr, names))}. Fix: {fix}" in said


def test_other_splits_of_a_file_in_a_saved_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"prompt": f"{n}+1", "completion": str(n + 1)} for n in range(60)]
    lines(tmp_path / "data" / "sums_train.jsonl", rows[:40])
    splits = {"validation": rows[40:50], "test": rows[50:]}
    Splits({name: Rows.from_list(part) for name, part in splits.items()}).save_to_disk(tmp_path / "data" / "sums")
    text, _ = started(tmp_path / "data", capsys)
    assert "    validation: {path: data/sums, split: validation}\n" in text
    make_model(tmp_path / "model")
    data = load_tasks(load(tmp_path / "c.yaml"), load_tokenizer(ModelSource(name_or_path=str(tmp_path / "model"))))
    assert [len(part) for part in (data["sums"].train, data["sums"].validation, data["sums"].test)] == [40, 10, 10]


@pytest.mark.parametrize(
    ("answer", "written"),
    [
        (lambda n: "ABC"[n % 3], "{choices: {A: A, B: B, C: C}, answer: answer}"),
        (lambda n: f"{'abc'[n % 3]}{n}", "{choices: [A, B, C], answer: answer}"),
        (lambda n: n % 3, "{choices: [A, B, C], answer: answer}"),
        (lambda n: "unlike any", None),
    ],
)
def test_choices_in_lettered_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: Callable[[int], object], written: str | None
) -> None:
    rows = [{"question": f"{n}?", **{x.upper(): f"{x}{n}" for x in "abc"}, "answer": answer(n)} for n in range(30)]
    lines(tmp_path / "data" / "quiz.jsonl", rows)
    text, _ = started(tmp_path / "data", capsys)
    assert ("    columns: " in text) == (written is not None)
    if written is not None:
        assert f"    columns: {written}\n" in text
        assert "format: question + A + B + C + answer\n" in text
        assert "scorer: {name: choice, of: text, normalize: token}" in text


def test_a_configuration_that_the_disk_does_not_take_is_not_left_there(folder: Path, tmp_path: Path) -> None:
    command = shlex.join([sys.executable, "-m", "msft", "init", str(folder), "-o", "c.yaml"])
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f 0; {command}"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.startswith(
        "msft: c.yaml: the file cannot be written (File too large). Fix: "
    )
    assert not (tmp_path / "c.yaml").exists()


def test_what_is_printed_can_be_copied(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "with a blank" / "c.yaml"
    assert main(["init", str(folder), "-o", str(place)]) == 0
    command = shlex.split(capsys.readouterr().out.rpartition("then: ")[2])
    assert command == ["msft", "check", str(place)]
    packed = tmp_path / "packed"
    packed.mkdir()
    (packed / "a b.jsonl.gz").write_bytes(gzip.compress(b'{"prompt": "p", "completion": "c"}\n' * 9))
    assert main(["init", str(packed), "-o", str(tmp_path / "d.yaml")]) == 2
    command = shlex.split(capsys.readouterr().err.rpartition("Fix: unpack them: ")[2])
    assert command == ["gunzip", "-k", str(packed / "a b.jsonl.gz")]
