"""`msft schema`: takes what the reader takes, refuses what is plainly wrong, and says what a key means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from job import make_job
from jsonschema import Draft202012Validator

from msft.cli.json_schema import json_schema
from msft.cli.main import main
from msft.config.method_section import resolve
from msft.config.reader import dump, load
from msft.config.yaml12 import parse
from msft.methods import METHODS

VALIDATOR = Draft202012Validator(json_schema())


def test_the_command_prints_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    printed = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(printed)
    assert printed == json.loads(json.dumps(json_schema()))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_taken_as_written_and_as_dumped(tmp_path: Path, method: str) -> None:
    for preset in METHODS[method].presets:
        config = make_job(tmp_path, method, f", preset: {preset}")
        VALIDATOR.validate(parse(config.read_text()).data)
        VALIDATOR.validate(parse(dump(load(config))).data)
    bare = {**parse(config.read_text()).data, "method": method}
    VALIDATOR.validate(bare)
    assert not VALIDATOR.is_valid(bare | {"method": f"{method}x"})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("batch_size: 8", "batchsize: 8"),
        ("batch_size: 8", "batch_size: 0"),
        ("name: msft", "name: sft, budget: 3"),
        ("name: msft", "name: mfst"),
        ("eval_every: 0.5", "eval_every: often"),
        ("name: exact_match", "name: excat_match"),
    ],
)
def test_mistakes_are_seen(tmp_path: Path, old: str, new: str) -> None:
    text = make_job(tmp_path).read_text()
    assert old in text
    VALIDATOR.validate(parse(text).data)
    assert not VALIDATOR.is_valid(parse(text.replace(old, new)).data)


def test_keys_are_explained() -> None:
    schema = json_schema()
    training = schema["$defs"]["TrainingConfig"]["properties"]
    assert training["batch_size"]["description"].startswith("Examples per optimizer step")
    placebo = next(one for one in schema["properties"]["method"]["oneOf"] if one["title"] == "placebo")
    assert placebo["properties"]["budget"]["description"] == "Maximum epochs per roll-out (the paper's C)."  # inherited
    assert placebo["properties"]["times"]["description"].startswith("Epoch at which mSFT's run")


def test_the_defaults_of_a_method_are_those_that_the_reader_gives() -> None:
    for one in json_schema()["properties"]["method"]["oneOf"]:
        resolved = resolve({"name": one["title"]}).as_dict() if "properties" in one else {}
        said = {key: value["default"] for key, value in one.get("properties", {}).items() if "default" in value}
        assert said == {
            key: list(value) if isinstance(value, tuple) else value for key, value in resolved.items() if key in said
        }
