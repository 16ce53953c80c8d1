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

from msft.cli.schema import json_schema
from msft.config.reader import load
from msft.config.schema import DatasetConfig
from msft.config.yaml12 import emit, parse
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
    if "split_by" in text and "split_by" not in DatasetConfig.model_fields:
        pytest.skip("split_by does not exist yet")
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
    "winogrande": ({"sentence": "QQ", "option1": "w", "option2": "x", "answer": "2"}, "QQ\n1. w\n2. x\nAnswer:| 2"),
    "aqua_rat": (
        {"question": "QQ", "options": ["A)1", "B)2", "C)3"], "rationale": "r", "correct": "B"},
        "Question: QQ\nAnswer:| B)2",
    ),
    "boolq": ({"question": "QQ", "answer": True, "passage": "P"}, "P\nQuestion: QQ?\nAnswer:| true"),
    "gsm8k": ({"question": "QQ", "answer": "so 3\n#### 3"}, "Question: QQ\nAnswer:| so 3\n#### 3"),
    "medmcqa": (
        {"question": "QQ", "opa": "w", "opb": "x", "opc": "y", "opd": "z", "cop": 3, "subject_name": "Anatomy"},
        "Question: QQ\n0. w\n1. x\n2. y\n3. z\nAnswer:| 3",
    ),
    "hellaswag": ({"ctx": "QQ", "endings": ["w", "x", "y", "z"], "label": "3"}, "QQ| z"),
    "race": ({"article": "P", "question": "QQ", "options": ["w", "x"], "answer": "B"}, "P\nQuestion: QQ\nAnswer:| x"),
    "sst2": ({"idx": 1, "sentence": "QQ", "label": 1}, "QQ\n0. negative\n1. positive\nAnswer:| 1"),
    "ag_news": (
        {"text": "QQ", "label": 2},
        "QQ\n0. world\n1. sports\n2. business\n3. science and technology\nAnswer:| 2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_rows_of_the_hub_become_what_was_meant(name: str, tmp_path: Path) -> None:
    """On rows with the columns that the data set has, as far as is known; the question is different in each."""
    row, expected = ROWS[name]
    draw = random.Random(name)
    questions = [" ".join("".join(draw.choices("abcdefgh", k=5)) for _ in range(8)) for _ in range(30)]
    (key,) = (key for key, value in row.items() if value == "QQ")
    rows = [json.dumps(row | {key: question}) for question in questions]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    job = parse((RECIPES / "hub" / "n15-olmo-2-1b.yaml").read_text(encoding="utf-8")).data
    (entry,) = (entry for entry in job["datasets"] if entry["id"] == name)
    for unwanted in ("name", "test"):
        entry.pop(unwanted, None)
    job["datasets"] = [entry | {"path": "rows.jsonl", "validation": {"max_samples": 5}}]
    (tmp_path / "c.yaml").write_text(emit(job))
    made = tokenizer()
    data = load_tasks(load(tmp_path / "c.yaml"), made)[name]
    prompt, completion = expected.split("|")
    wanted = {prompt.replace("QQ", question) for question in questions}
    assert len(data.train) == 25
    for example in data.train:
        given, learned = (made.decode(example.ids[mask].tolist()) for mask in (~example.trained, example.trained))
        assert given in wanted
        assert learned == f"{completion}</s>"
