"""Every recipe is what its script makes, loads, and keeps to the JSON Schema."""

from __future__ import annotations

import json
import random
import runpy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
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


LETTERED = {"text": ["w", "x", "y", "z"], "label": ["A", "B", "C", "D"]}
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "arc_easy": ({"question": "QQ", "choices": LETTERED, "answerKey": "C"}, "Question: QQ\nAnswer:| y"),
    "openbookqa": ({"question_stem": "QQ", "choices": LETTERED, "answerKey": "C"}, "QQ\nAnswer:| y"),
    "sciq": (
        {"question": "QQ", "distractor1": "w", "distractor2": "x", "distractor3": "y", "correct_answer": "z"},
        "Question: QQ\nAnswer:| z",
    ),
    "winogrande": ({"sentence": "QQ", "option1": "w", "option2": "x", "answer": "2"}, "QQ\nAnswer:| x"),
    "aqua_rat": (
        {"question": "QQ", "options": ["A)1", "B)2", "C)3"], "rationale": "r", "correct": "B"},
        "Question: QQ\nA. 1\nB. 2\nC. 3\nAnswer:| r\n#### B",
    ),
    "boolq": ({"question": "QQ", "answer": True, "passage": "P"}, "P\nQuestion: QQ?\nAnswer:| true"),
    "gsm8k": ({"question": "QQ", "answer": "so 3\n#### 3"}, "Question: QQ\nAnswer:| so 3\n#### 3"),
    "medmcqa": (
        {"question": "QQ", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 3, "subject_name": "Anatomy"},
        "Question: QQ\nAnswer:| z",
    ),
    "hellaswag": ({"ctx": "QQ", "endings": ["w", "x", "y", "z"], "label": "3"}, "QQ| z"),
    "race": ({"article": "P", "question": "QQ", "options": ["w", "x"], "answer": "B"}, "P\nQuestion: QQ\nAnswer:| x"),
    "sst2": ({"idx": 1, "sentence": "QQ", "label": 1}, "QQ\n0. negative\n1. positive\nAnswer:| 1"),
    "ag_news": (
        {"text": "QQ", "label": 2},
        "QQ\n0. world\n1. sports\n2. business\n3. science and technology\nAnswer:| 2",
    ),
}  # fmt: skip


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
    """What becomes of rows.jsonl by one data set's entry of a recipe, with these changes."""
    job = parse((RECIPES / recipe).read_text(encoding="utf-8")).data
    (entry,) = (entry for entry in job["datasets"] if entry["id"] == task)
    changed = {key: value for key, value in (entry | changes).items() if value is not None}
    job["datasets"] = [changed | {"path": "rows.jsonl"}]
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


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_hub_become_what_was_meant(name: str, tmp_path: Path) -> None:
    """On rows with the columns that the data set has, as far as is known."""
    row, expected = ROWS[name]
    text, questions = written(row, name)
    (tmp_path / "rows.jsonl").write_text(text)
    recipe = "hub/n15-olmo-2-1b.yaml"
    data = prepared(recipe, name, tmp_path, name=None, test=None, validation={"max_samples": 5})[name]
    assert len(data.train) == 25
    check_texts(data, expected, questions)
    if data.measure.name == "choice":
        completions = {tokenizer().decode(i.options[i.answer].ids[len(i.prompt) :].tolist()) for i in data.validation}
        assert completions == {expected.split("|")[1]}
    if name in SPOKEN:
        assert {item.reference for item in data.validation} == {SPOKEN[name]}
        first = tokenizer().decode(data.validation[0].prompt.tolist())
        prompt = expected.split("|")[0].partition("QQ")[2]
        assert first.count(prompt) == 6, "five examples and the question"
        assert data.measure.stop == ("\n\nQuestion:",)


def test_the_subjects_of_medmcqa_are_sub_datasets(tmp_path: Path) -> None:
    row, expected = ROWS["medmcqa"]
    text, questions = written(row, "medmcqa", subject_name=["Anatomy", "Social & Preventive Medicine", "ENT"])
    (tmp_path / "rows.jsonl").write_text(text)
    recipe = "hub/medmcqa-subjects.yaml"
    tasks = prepared(recipe, "medmcqa", tmp_path, test=None, validation={"max_samples": 3})
    assert list(tasks) == ["medmcqa.Anatomy", "medmcqa.ENT", "medmcqa.Social & Preventive Medicine"]
    for data in tasks.values():
        assert (len(data.train), len(data.validation), data.measure.name) == (7, 3, "choice")
        check_texts(data, expected, questions)


@pytest.mark.parametrize("name", LOCAL_ROWS)
def test_rows_of_local_files_become_what_was_meant(name: str, tmp_path: Path) -> None:
    row, expected = LOCAL_ROWS[name]
    text, questions = written(row, name, split=["train", "validation", "test"])
    (tmp_path / "rows.jsonl").write_text(text)
    data = prepared("local/n12.yaml", name, tmp_path)[name]
    assert (len(data.train), len(data.validation), len(data.test)) == (10, 10, 10)
    check_texts(data, expected, questions)
    if name in ("aqua_rat", "gsm8k", "mawps"):
        assert data.measure.name == "generate"
        assert {item.reference for item in data.validation} == {"B" if name == "aqua_rat" else "3"}
    else:
        assert {item.answer for item in data.validation} == {1}
