"""Every recipe is what its script makes, loads, and keeps to the JSON Schema."""

from __future__ import annotations

import json
import random
import runpy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from thousandths import HUB, publish
from tokenizers_for_tests import tokenizer

from msft.cli.json_schema import json_schema
from msft.config.reader import load
from msft.config.yaml12 import emit, parse
from msft.data.examples import TaskData
from msft.data.load import load_tasks

RECIPES = Path(__file__).parents[2] / "recipes"
FILES = sorted(path.relative_to(RECIPES).as_posix() for path in RECIPES.glob("*/*.yaml"))


def test_the_files_are_what_the_script_makes() -> None:
    made = dict(runpy.run_path(str(RECIPES / "make.py"))["recipes"]())
    assert sorted(made) == FILES
    for path, text in made.items():
        assert (RECIPES / path).read_text(encoding="utf-8") == text, f"run recipes/make.py: {path} is out of date"


@pytest.mark.parametrize("path", FILES)
def test_a_recipe_loads_and_keeps_to_the_schema(path: str) -> None:
    text = (RECIPES / path).read_text(encoding="utf-8")
    Draft202012Validator(json_schema()).validate(parse(text).data)
    config = load(RECIPES / path)
    if path.startswith("hub/n"):
        assert len(config.datasets) == int(path[5:7])
    assert (config.training.batch_size, config.training.learning_rate, config.data.seed) == (64, 1e-5, 20)
    assert {dataset.max_samples for dataset in config.datasets} == {1800}
    if path.startswith("hub/"):
        assert (config.method.preset, config.method.eval_every, config.method.params.budget) == ("release", 0.25, 10)


TEXTS = {
    "arc_easy": "Question: QQ\nAnswer:| y",
    "openbookqa": "QQ\nAnswer:| y",
    "sciq": "Question: QQ\nAnswer:| z",
    "winogrande": "QQ\nAnswer:| x",
    "aqua_rat": "Question: QQ\nA. 1\nB. 2\nC. 3\nAnswer:| r\n#### B",
    "boolq": "P\nQuestion: QQ?\nAnswer:| true",
    "gsm8k": "Question: QQ\nAnswer:| so 3\n#### 3",
    "medmcqa": "Question: QQ\nAnswer:| z",
    "hellaswag": "QQ| z",
    "commonsense_qa": "Question: QQ\nAnswer:| x",
    "arc_challenge": "Question: QQ\nAnswer:| y",
    "qasc": "Question: QQ\nAnswer:| u",
    "race": "P\nQuestion: QQ\nAnswer:| x",
    "sst2": "QQ\nQuestion: Is this negative or positive?\nAnswer:| positive",
    "ag_news": "QQ\nQuestion: Is this World, Sports, Business or Sci/Tech?\nAnswer:| Sci/Tech",
}
"""What becomes of the rows of HUB."""


SPOKEN = {"aqua_rat": "B", "gsm8k": "3"}
"""What the answer behind `####` is."""
LOCAL = {"id": "x", "choices": ["w", "x", "y"], "answer": 1, "question": "QQ", "prompt": "P", "completion": " B"}
LOCAL_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    **dict.fromkeys(
        ("arc_easy", "openbookqa", "sciq", "medmcqa", "commonsense_qa", "arc_challenge"),
        (LOCAL, "Question: QQ\nAnswer:| x"),
    ),
    "aqua_rat": (LOCAL | {"rationale": "r"}, "Question: QQ\nA. w\nB. x\nC. y\nAnswer:| r\n#### B"),
    "boolq": (LOCAL | {"context": "P"}, "Passage: P\nQuestion: QQ?\nAnswer:| x"),
    "hellaswag": (LOCAL, "QQ| x"),
    "piqa": (LOCAL, "Goal: QQ\nAnswer:| x"),
    **dict.fromkeys(
        ("gsm8k", "mawps"),
        ({"choices": None, "answer": None, "question": "q", "prompt": "QQ", "completion": " so\n#### 3"},
         "QQ| so\n#### 3"),
    ),
}  # fmt: skip


def written(row: dict[str, Any], seed: str, **more: list[Any]) -> tuple[str, list[str]]:
    """JSON lines of 30 such rows, the question different in each, and the questions; `more`: columns in turn."""
    draw = random.Random(seed)
    questions = [" ".join("".join(draw.choices("abcdefgh", k=5)) for _ in range(8)) for _ in range(30)]
    (key,) = (key for key, value in row.items() if value == "QQ")
    turns = [{column: values[n % len(values)] for column, values in more.items()} for n in range(30)]
    rows = [json.dumps(row | turn | {key: question}) for turn, question in zip(turns, questions, strict=True)]
    return "\n".join(rows), questions


def prepared(recipe: str, task: str, tmp_path: Path, **changes: Any) -> dict[str, TaskData]:
    """The data of one data set's entry of a recipe, with these changes and three validation items."""
    job = parse((RECIPES / recipe).read_text(encoding="utf-8")).data
    (entry,) = (entry for entry in job["datasets"] if entry["id"] == task)
    if "max_samples" in entry["validation"]:
        entry["validation"]["max_samples"] = 3
    job["datasets"] = [{key: value for key, value in (entry | changes).items() if value is not None}]
    (tmp_path / "c.yaml").write_text(emit(job))
    return load_tasks(load(tmp_path / "c.yaml"), tokenizer())


def check_texts(data: TaskData, expected: str, questions: list[str]) -> None:
    prompt, completion = expected.split("|")
    wanted = {prompt.replace("QQ", question) for question in questions}
    for example in data.train:
        given, learned = (
            tokenizer().decode(example.ids[mask].tolist()) for mask in (~example.trained, example.trained)
        )
        assert given in wanted
        assert learned == f"{completion}</s>"


@pytest.mark.parametrize("name", TEXTS)
def test_rows_of_the_hub_become_what_was_meant(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the recipe's entry as it is, on files with the columns and the types that the hub's have."""
    texts = publish(tmp_path, [name], {"train": 12, "validation": 3, "test": 3})[name]
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    data = prepared("hub/n15-olmo-2-1b.yaml", name, tmp_path)[name]
    carved = "test" not in texts or "validation" not in texts
    assert (len(data.train), len(data.validation), len(data.test)) == (9 if carved else 12, 3, 3)
    expected = TEXTS[name]
    check_texts(data, expected, texts["train"])
    if data.measure.name == "choice" and not HUB[name].held_out:
        completions = {tokenizer().decode(i.options[i.answer].ids[len(i.prompt) :].tolist()) for i in data.validation}
        assert completions == {expected.split("|")[1]}
    if name in SPOKEN:
        assert {item.reference for item in data.validation} == {SPOKEN[name]}
        first = tokenizer().decode(data.validation[0].prompt.tolist())
        prompt = expected.split("|")[0].partition("QQ")[2]
        assert first.count(prompt) == 6, "five examples and the question"
        assert data.measure.stop == ("\n\nQuestion:",)


def test_the_subjects_of_medmcqa_are_sub_datasets(tmp_path: Path) -> None:
    text, questions = written(
        dict(HUB["medmcqa"].row), "medmcqa", subject_name=["Anatomy", "Social & Preventive Medicine", "ENT"]
    )
    (tmp_path / "rows.jsonl").write_text(text)
    recipe = "hub/medmcqa-subjects.yaml"
    tasks = prepared(recipe, "medmcqa", tmp_path, path="rows.jsonl", test=None)
    assert list(tasks) == ["medmcqa.Anatomy", "medmcqa.ENT", "medmcqa.Social & Preventive Medicine"]
    for data in tasks.values():
        assert (len(data.train), len(data.validation), data.measure.name) == (7, 3, "choice")
        check_texts(data, TEXTS["medmcqa"], questions)


@pytest.mark.parametrize("name", LOCAL_ROWS)
def test_rows_of_local_files_become_what_was_meant(name: str, tmp_path: Path) -> None:
    row, expected = LOCAL_ROWS[name]
    text, questions = written(row, name, split=["train", "validation", "test"])
    (tmp_path / "rows.jsonl").write_text(text)
    data = prepared("local/n12.yaml", name, tmp_path, path="rows.jsonl")[name]
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 10, 10)
    check_texts(data, expected, questions)
    if name in ("aqua_rat", "gsm8k", "mawps"):
        assert data.measure.name == "generate"
        assert {item.reference for item in data.validation} == {"B" if name == "aqua_rat" else "3"}
    else:
        assert {item.answer for item in data.validation} == {1}
