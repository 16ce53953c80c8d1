"""Everything that files can have wrong: one case each, one message that says where, what, and how to fix it."""

from __future__ import annotations

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers_for_tests import CHAT, tokenizer

from msft.config.reader import load as read_config
from msft.config.schema import Config
from msft.core.errors import UserError
from msft.data.load import load_tasks

PAIR = {"prompt": "secret p", "completion": "secret c"}


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def line(number):
    return json.dumps({"prompt": f"question {number}?", "completion": f"answer {number}"}).encode() + b"\n"


GOOD = b"".join(map(line, range(60)))
TURNS = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}]


def talk(*turns):
    keys = ("role", "content")
    return json.dumps({"messages": [dict(zip(keys, turn, strict=True)) for turn in turns]}).encode()


def load(*datasets, chat=None, **data):
    config = {"model": {"name_or_path": "m"}, "datasets": list(datasets), "output": "o", "data": data}
    return load_tasks(Config.model_validate(config), tokenizer(chat=chat))


def refusal(*datasets, **keys):
    with pytest.raises(UserError) as caught:
        load(*datasets, **keys)
    message = str(caught.value)
    assert "secret" not in message and "Fix: " in message
    assert all(len(line) < 800 for line in message.splitlines())
    return message


LINES = {  # a bad line behind 60 good ones -> what is said of line 61
    "truncated object": (b'{"prompt": "secret', "invalid JSON: Unterminated string"),
    "invalid UTF-8": (b'{"prompt": "\xff", "completion": "c"}', "byte 13 is not valid UTF-8. Fix: save the file"),
    "number as prompt": (b'{"prompt": 3, "completion": "c"}', "prompt is an int, not text"),
    "list as completion": (b'{"prompt": "p", "completion": ["c"]}', "completion is a list, not text"),
    "missing completion": (b'{"prompt": "p"}', "completion is missing or null"),
    "null completion": (b'{"prompt": "p", "completion": null}', "completion is missing or null"),
    "empty completion": (b'{"prompt": "p", "completion": ""}', "the completion is empty"),
    "whitespace completion": (b'{"prompt": "p", "completion": " \\n\\t"}', "the completion is empty"),
    "empty prompt": (b'{"prompt": " ", "completion": "c"}', "the prompt is empty"),
    "duplicate key": (b'{"prompt": "secret", "prompt": "p", "completion": "c"}', "the key 'prompt' appears twice"),
    "NaN": (b'{"prompt": NaN, "completion": "c"}', "NaN is not a JSON value"),
    "Infinity": (b'{"prompt": "p", "completion": "c", "x": -Infinity}', "-Infinity is not a JSON value"),
    "number beyond double": (b'{"prompt": "p", "completion": "c", "x": 1e999}', "is too large"),
    "lone surrogate": (b'{"prompt": "\\ud800", "completion": "c"}', "a lone surrogate"),
    "top-level array": (b'[{"prompt": "secret"}]', "found a list, not an object"),
    "scalar line": (b'"secret"', "found a str, not an object"),
    "null line": (b"null", "found null, not an object"),
    "raw NUL byte": (b'{"prompt": "a\0b", "completion": "c"}', "there is a NUL byte"),
    "two objects on a line": (line(70).strip() + b" " + line(71).strip(), "more than one JSON value on the line"),
    "depth 3,000": (b'{"x": ' + b"[" * 3000 + b"]" * 3000 + b"}", "nested too deeply"),
    "digits without end": (b'{"x": ' + b"9" * 5000 + b"}", "a number has too many digits"),
    "text behind the object": (line(70).strip() + b" x", "more than one JSON value on the line"),
    "comma behind the object": (line(70).strip() + b" , ", "there is a comma after the object. Fix: remove it"),
    "single quotes": (b"{'prompt': 'secret'}", "invalid JSON: Expecting property name"),
    "another format": (json.dumps({"messages": TURNS}).encode(), "messages, but the data set is prompt + completion"),
    "question and answer": (b'{"question": "secret", "answer": "c"}', "the row is question + answer, but"),
}  # fmt: skip


@pytest.mark.parametrize(("bad", "found"), LINES.values(), ids=list(LINES))
def test_a_bad_line(tmp_path, bad, found):
    file = tmp_path / "a.jsonl"
    file.write_bytes(GOOD + bad + b"\n")
    message = refusal({"id": "d", "path": str(file)})
    assert message.startswith(f"{file}:61 datasets.d: ") and found in message and message.count("\n") == 0


TALKS = {
    "unknown role": (talk(("boss", "secret"), ("assistant", "a")), "turn 1 of messages has the unknown role 'boss'"),
    "no assistant turn": (talk(("user", "secret")), "messages has no assistant turn to learn"),
    "empty messages": (b'{"messages": []}', "messages is empty"),
    "messages as text": (b'{"messages": "secret"}', "messages is text, not a list of turns"),
    "messages as JSON": (b'{"messages": "[{\\"role\\": \\"user\\"}]"}', "messages is JSON written as text, not a list"),
    "empty assistant turn": (talk(("user", "u"), ("assistant", " ")), "turn 2 of messages is an empty assistant turn"),
    "late system turn": (talk(("user", "u"), ("system", "s"), ("assistant", "a")), "a system turn that is not the"),
    "turn without content": (b'{"messages": [{"role": "assistant"}]}', "turn 1 of messages has no content"),
    "turn that is text": (b'{"messages": ["secret"]}', "turn 1 of messages is a str, not an object"),
}  # fmt: skip


@pytest.mark.parametrize(("bad", "found"), TALKS.values(), ids=list(TALKS))
def test_a_bad_conversation(tmp_path, bad, found):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"".join(talk(("user", f"u {n}"), ("assistant", "a")) + b"\n" for n in range(40)) + bad)
    message = refusal({"id": "d", "path": str(file)}, chat=CHAT)
    assert message.startswith(f"{file}:41 datasets.d: ") and found in message


FILES = {  # name, content, what is said
    "empty file": ("a.jsonl", b"", "the file is empty"),
    "blanks only": ("a.jsonl", b" \n\n\t\n", "the file is empty"),
    "byte-order mark only": ("a.jsonl", b"\xef\xbb\xbf\n", "the file is empty"),
    "UTF-16 with mark": ("a.jsonl", GOOD.decode().encode("utf-16"), "the file is in UTF-16. Fix: save the file as"),
    "UTF-16 without": ("a.jsonl", GOOD.decode().encode("utf-16-le"), "the file is in UTF-16"),
    "HTML page": ("a.jsonl", b"\n<!DOCTYPE html><p>secret", "the file is an HTML or XML page. Fix: download the data"),
    "Git-LFS pointer": ("a.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
    "gzip": ("a.jsonl", gzip.compress(GOOD), "compressed with gzip. Fix: unpack it first"),
    "Parquet as JSON": ("a.jsonl", b"PAR1....", "the file is a Parquet file. Fix: give it the ending .parquet"),
    "unknown ending": ("a.txt", GOOD, "has no known ending. Fix: use one of: .jsonl"),
    "array without end": ("a.json", b'[{"prompt": "p"},\n{"prompt": "p"}', ":2 datasets.d: invalid JSON"),
    "array of scalars": ("a.json", b'[\n\n"secret"]', ":3 datasets.d: found a str, not an object"),
    "array with a comma at its end": ("a.json", b'[\n{"prompt": "p"},\n]',
        ":2 datasets.d: invalid JSON: there is a comma after the last object of the array. Fix: remove it"),
    "array with half an object": ("a.json", b'[{"prompt": "p"},\n{"prompt": }]', "Fix: give an array of JSON objects"),
    "array with more behind": ("a.json", b'[{"prompt": "p"}] []', "there is more text after the array"),
    "array with NaN": ("a.json", b'[\n{"prompt": NaN}]', ":2 datasets.d: NaN is not a JSON value"),
    "empty array": ("a.json", b"[]", "has no rows"),
    "ragged CSV": ("a.csv", b"prompt,completion\np,c\np,c,secret\n", ":3 datasets.d: the record has 3 fields"),
    "open quote in CSV": ("a.csv", b'prompt,completion\n"secret,c\n', "invalid CSV: unexpected end of data"),
    "repeated CSV column": ("a.csv", b"prompt,prompt\np,c\n", ":1 datasets.d: the column 'prompt' appears twice"),
    "CSV in Latin-1": ("a.csv", b"prompt,completion\n\xe9,c\n", ":2 datasets.d: byte 1 is not valid UTF-8"),
    "empty CSV": ("a.csv", b"", "the file is empty"),
    "CSV header only": ("a.csv", b"prompt,completion\n", "has no rows"),
    "Parquet bad magic": ("a.parquet", b"not parquet at all", "the file is not a Parquet file"),
    "Parquet empty": ("a.parquet", b"", "the file is empty"),
    "Parquet LFS pointer": ("a.parquet", b"version https://git-lfs.github.com/spec/v1\n", "a Git-LFS pointer"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "found"), FILES.values(), ids=list(FILES))
def test_a_bad_file(tmp_path, name, content, found):
    file = tmp_path / name
    file.write_bytes(content)
    message = refusal({"id": "d", "path": str(file)})
    assert str(file) in message and "datasets.d" in message and found in message


def test_a_byte_order_mark_is_no_problem(tmp_path):
    for name in ("a.jsonl", "a.json"):
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + GOOD)
        assert len(load({"id": "d", "path": str(tmp_path / name)})["d"].validation) == 30


def test_a_line_of_100_megabytes(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(GOOD + b'{"prompt": "' + b"secret" * (100 * 2**20 // 6) + b'"}\n' + b"oops\n")
    message = refusal({"id": "d", "path": str(file)}).splitlines()
    assert f"{file}:61 datasets.d: the line has 104,857,6" in message[0] and f"{file}:62 " in message[1]


def test_all_problems_of_all_files_come_at_once(tmp_path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_bytes(b"oops\n" * 15)
    lines = refusal({"id": "d", "path": f"{tmp_path}/*.jsonl"}).splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"{tmp_path}/a.jsonl:1", f"{tmp_path}/b.jsonl:1"]
    assert all("(also in lines 2, 3, 4, 5, 6 and 9 more)" in line for line in lines)


def table(rows=60, **columns):
    made = {"prompt": [f"q {n}" for n in range(rows)], "completion": [f"a {n}" for n in range(rows)]}
    return pa.table({**made, **columns})


def test_parquet_with_a_cut_footer(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(table(), file)
    file.write_bytes(file.read_bytes()[:-20])
    assert f"{file} datasets.d: the footer cannot be read" in refusal({"id": "d", "path": str(file)})


def test_parquet_with_a_damaged_column_name(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(table(), file)
    content = file.read_bytes()
    schema = content.index(b"prompt", content.index(b"schema"))
    file.write_bytes(content[:schema] + b"\x80" + content[schema + 1 :])
    assert f"{file} datasets.d: the footer cannot be read" in refusal({"id": "d", "path": str(file)})


def test_parquet_without_rows(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(table(0), file)
    assert f"{file} datasets.d: the file has no rows" in refusal({"id": "d", "path": str(file)})


def test_parquet_types_that_differ_between_files(tmp_path):
    pq.write_table(table(), tmp_path / "a.parquet")
    pq.write_table(table(completion=list(range(60))), tmp_path / "b.parquet")
    found = f"{tmp_path}/b.parquet datasets.d: column 'completion' is int64 here, but string in a.parquet"
    assert found in refusal({"id": "d", "path": f"{tmp_path}/*.parquet"})


def test_parquet_with_a_column_of_nulls(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(table(completion=pa.array([None] * 60, pa.string())), file)
    assert "(null in every row: completion)" in refusal({"id": "d", "path": str(file)})
    columns = {"prompt": "prompt", "completion": "completion"}
    message = refusal({"id": "d", "path": str(file), "columns": columns})
    assert "datasets.d.columns.completion: the column 'completion' is null in all of the 30 rows" in message


def test_parquet_with_a_corrupt_page(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(table(), file, write_page_checksum=True, row_group_size=20)
    content = bytearray(file.read_bytes())
    content[60:90] = bytes(30)
    file.write_bytes(content)
    assert f"{file} datasets.d: row group 1 of 3 cannot be decoded" in refusal({"id": "d", "path": str(file)})


def test_parquet_with_a_changed_letter_that_only_the_checksum_tells(tmp_path):
    file = tmp_path / "a.parquet"
    pq.write_table(table(), file, write_page_checksum=True, compression="none", use_dictionary=False)
    content = file.read_bytes()
    assert content.count(b"q 57") == 1
    file.write_bytes(content.replace(b"q 57", b"q 5x", 1))
    assert f"{file} datasets.d: row group 1 of 1 cannot be decoded" in refusal({"id": "d", "path": str(file)})


def test_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    message = refusal({"id": "d", "path": str(tmp_path / "pipe.jsonl")})
    assert "datasets.d: " in message and "is a named pipe (FIFO), which can be read only once. Fix: write" in message


def test_a_loop_of_links(tmp_path):
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "b.jsonl")
    (tmp_path / "b.jsonl").symlink_to(tmp_path / "a.jsonl")
    message = refusal({"id": "d", "path": str(tmp_path / "a.jsonl")})
    assert "a.jsonl is a symbolic link that leads back to itself. Fix: remove the loop" in message


def test_links_to_nothing_and_endless_names(tmp_path):
    (tmp_path / "dangling.jsonl").symlink_to(tmp_path / "gone.jsonl")
    assert "is a symbolic link to nothing" in refusal({"id": "d", "path": str(tmp_path / "dangling.jsonl")})
    assert "is too long for a file name" in refusal({"id": "d", "path": "/" + "x" * 300})


def test_the_same_file_for_training_and_validation(tmp_path):
    file, link = tmp_path / "a.jsonl", tmp_path / "link.jsonl"
    file.write_bytes(GOOD)
    link.symlink_to(file)
    for other in (link, f"{tmp_path}/../{tmp_path.name}/a.jsonl"):
        message = refusal({"id": "d", "path": str(file), "validation": {"path": str(other)}})
        assert "datasets.d.validation: the validation split is the training rows themselves" in message


def test_a_validation_split_that_is_a_copy(tmp_path):
    file, copy = tmp_path / "a.jsonl", tmp_path / "copy.jsonl"
    file.write_bytes(GOOD)
    copy.write_bytes(GOOD)
    message = refusal({"id": "d", "path": str(file), "validation": {"path": str(copy)}})
    assert f"60 of 60 training examples are also in a validation or test split: {file}:1 is {copy}:1" in message


def test_a_validation_example_that_is_trained_on(tmp_path):
    file, held = tmp_path / "a.jsonl", tmp_path / "held.jsonl"
    file.write_bytes(GOOD + line(100))
    held.write_bytes(b"".join(map(line, range(100, 130))))
    keys = {"id": "d", "path": str(file), "validation": {"path": str(held)}}
    message = refusal(keys, leaks="error")
    assert f"datasets.d: {file}:61 is {held}:1 (d, validation). Fix: remove one of the two" in message
    assert len(load(keys)["d"].train) == 60


def test_an_empty_validation_split(tmp_path):
    (tmp_path / "one.jsonl").write_bytes(line(0))
    (tmp_path / "a.jsonl").write_bytes(GOOD)
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert "there is no validation example" in refusal({"id": "d", "path": str(tmp_path / "one.jsonl")})
    empty = {"path": str(tmp_path / "empty.jsonl")}
    assert "empty.jsonl datasets.d.validation: the file is empty" in refusal(
        {"id": "d", "path": str(tmp_path / "a.jsonl"), "validation": empty}
    )


def test_prompts_that_fill_max_length(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(
        b"".join(json.dumps({"prompt": f"{n}" * 40, "completion": "c"}).encode() + b"\n" for n in range(99))
    )
    message = refusal({"id": "d", "path": str(file)}, max_length=32)
    assert "training examples are left out: no learned token of them is left within 32 tokens" in message


def test_messages_without_a_chat_template(tmp_path):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"".join(talk(("user", f"u {n}"), ("assistant", "a")) + b"\n" for n in range(40)))
    assert "has no chat template. Fix: give model.chat_template" in refusal({"id": "d", "path": str(file)})


def test_a_home_of_nobody(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("model: {name_or_path: m}\ndatasets: [{id: d, path: ~nobody-at-all/a.jsonl}]\noutput: o\n")
    config = read_config(file)
    assert config.datasets[0].path == "~nobody-at-all/a.jsonl"
    assert "datasets.d: there is no file ~nobody-at-all/a.jsonl. Fix: " in refusal(
        {"id": "d", "path": "~nobody-at-all/a.jsonl"}
    )
