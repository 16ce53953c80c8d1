"""`dataset_defaults`: what an entry inherits, what it does not, and where mistakes are shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from msft.cli.json_schema import json_schema
from msft.config.reader import dump, flatten, load
from msft.config.yaml12 import parse
from msft.core.errors import ConfigError

SHORT = """\
model: {name_or_path: some/model}
dataset_defaults:
  path: owner/name
  scorer: {name: choice, normalize: byte}
  where: {split: train}
  validation: {max_samples: 30}
datasets:
  - {id: a, where: {kind: x}}
  - {id: b, scorer: {name: loss}, validation: null}
  - {id: c, max_samples: 5}
output: runs/first
"""
WRITTEN_OUT = """\
model: {name_or_path: some/model}
datasets:
  - {id: a, path: owner/name, scorer: {name: choice, normalize: byte}, where: {kind: x}, validation: {max_samples: 30}}
  - {id: b, path: owner/name, scorer: {name: loss}, where: {split: train}}
  - {id: c, path: owner/name, scorer: {name: choice, normalize: byte}, where: {split: train},
     validation: {max_samples: 30}, max_samples: 5}
output: runs/first
"""


def read(folder: Path, text: str, *overrides: str) -> str:
    """The resolved configuration, or what was refused, without the file's name."""
    file = folder / "c.yaml"
    file.write_text(text, encoding="utf-8")
    try:
        return dump(load(file, overrides))
    except ConfigError as error:
        return str(error).replace(str(file), "")


def test_the_resolved_configuration_is_the_one_written_out(tmp_path: Path) -> None:
    short = read(tmp_path, SHORT)
    config = load(tmp_path / "c.yaml")
    assert short == read(tmp_path, WRITTEN_OUT) and "dataset_defaults" not in short
    assert flatten(config) == flatten(load(tmp_path / "c.yaml"))  # so journals and fingerprints are the same


@pytest.mark.parametrize(
    ("override", "written"),
    [
        ("dataset_defaults.scorer.normalize=none", ("normalize: byte", "normalize: none")),
        ("dataset_defaults.path=owner/other", ("path: owner/name", "path: owner/other")),
        # A part of an inherited value: the rest of it stays.
        (
            "datasets.c.scorer.normalize=token",
            ("normalize: byte}, where: {split: train}", "normalize: token}, where: {split: train}"),
        ),
        ("datasets=[{id: z, scorer: {name: loss}}]", None),
    ],
)
def test_overrides_see_the_defaults(tmp_path: Path, override: str, written: tuple[str, str] | None) -> None:
    expected = WRITTEN_OUT.replace(*written) if written else ""
    if written is None:
        entry = "{id: z, path: owner/name, scorer: {name: loss}, where: {split: train}, validation: {max_samples: 30}}"
        expected = f"model: {{name_or_path: some/model}}\ndatasets: [{entry}]\noutput: runs/first\n"
    assert read(tmp_path, SHORT, override) == read(tmp_path, expected)


@pytest.mark.parametrize(
    ("old", "new", "messages"),
    [
        ("name: choice,", "name: choyce,", [":4 dataset_defaults.scorer.name: found 'choyce'."]),
        ("  where: {", "  wher: {", [":5 dataset_defaults.wher: unknown key. Fix: did you mean 'where'?"]),
        ("  where: {split: train}", "  id: x", [":5 dataset_defaults.id: an id is the name of one sub-dataset."]),
        ("max_samples: 30", "max_samples: 0", [":6 dataset_defaults.validation.max_samples: found 0."]),
        ("dataset_defaults:", "dataset_default:", [":2 dataset_default: unknown key. Fix: did you mean 'dataset_def",
                                                   ":8 datasets.0.path: is missing", ":9 ", ":10 "]),
        # Only one entry is wrong: it is named, with the line of the value.
        ("max_samples: 5", "split: test, config: {a: 1}", [":10 datasets.2.config: only reasoning_gym data sets"]),
        ("  where: {split: train}", "  format: alpaca\n  template: {prompt: x}",
         [":5 dataset_defaults.format: format and template exclude each other"]),
        ("max_samples: 5", "template: {prompt: x}, format: alpaca", [":10 datasets.2.format: format and template"]),
    ],
)  # fmt: skip
def test_mistakes_are_shown_once_and_where_they_are(tmp_path: Path, old: str, new: str, messages: list[str]) -> None:
    assert old in SHORT
    lines = read(tmp_path, SHORT.replace(old, new)).splitlines()
    assert len(lines) == len(messages) and all(map(str.startswith, lines, messages)), lines


def test_a_default_that_one_entry_cannot_have_names_the_entry_and_the_line_of_the_value(tmp_path: Path) -> None:
    text = SHORT.replace("  where: {split: train}", "  format: alpaca").replace(
        "max_samples: 5", "template: {prompt: x}"
    )
    assert read(tmp_path, text).startswith(":5 datasets.2.format: format and template exclude each other")


@pytest.mark.parametrize("value", ["3", "[]", "x"])
def test_defaults_that_are_not_keys_and_values(tmp_path: Path, value: str) -> None:
    text = SHORT[: SHORT.index("dataset_defaults")] + f"dataset_defaults: {value}\n" + SHORT[SHORT.index("datasets:") :]
    assert read(tmp_path, text).startswith(":2 dataset_defaults: found a")


def test_the_json_schema_has_them() -> None:
    validator = Draft202012Validator(json_schema())
    validator.validate(parse(SHORT).data)
    validator.validate(parse(WRITTEN_OUT + "dataset_defaults: null\n").data)
    for old, new in (("normalize: byte", "normalize: bite"), ("  where:", "  id:"), ("  where:", "  wher:")):
        assert not validator.is_valid(parse(SHORT.replace(old, new, 1)).data)
