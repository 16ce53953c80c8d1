"""Reading configurations: every mistake named with its line, overrides, and the way back."""

from __future__ import annotations

import pytest

from msft.config.reader import dump, flatten, load
from msft.core.errors import ConfigError
from msft.methods import METHODS

FULL = """\
model: {name_or_path: some/model, precision: fp32}
method: {name: msft, budget: 3}
datasets:
  - id: a.b
    path: owner/name
    where: {split: train, kind: [x, 1, null]}
    template: {prompt: "Q: {q}\\n", completion: " {a}"}
    validation: {split: test, max_samples: 30}
    scorer: {name: choice, normalize: byte}
  - {id: "no", path: reasoning_gym:chain_sum, config: {size: 40, min_terms: 2}, test: {fraction: 0.2}}
training: {learning_rate: 1e-5}
peft: {target_modules: [q_proj, v_proj]}
output: runs/first
"""


@pytest.fixture
def write(tmp_path):
    def write(text):
        path = tmp_path / "c.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def refused(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load(path, overrides)
    return str(caught.value).replace(f"{path}", "c.yaml").splitlines()


def test_values_and_defaults(write):
    config = load(write(FULL))
    assert config.model.precision == "fp32" and config.training.learning_rate == 1e-5
    first, second = config.datasets
    assert first.where == {"split": "train", "kind": ("x", 1, None)}
    assert (first.scorer.of, first.scorer.normalize, first.scorer.control) == ("text", "byte", "control")
    assert (second.id, second.split, second.validation, second.scorer) == ("no", "train", None, None)
    assert (config.training.batch_size, config.data.seed, config.peft.r) == (64, 20, 16)
    assert config.method.params.budget == 3.0 and config.method.max_epochs == 10.0


@pytest.mark.parametrize("name", METHODS)
def test_dump_reads_back_equal_for_every_method_and_preset(write, tmp_path, name):
    for preset in METHODS[name].presets:
        config = load(write(FULL.replace("name: msft, budget: 3", f"name: {name}, preset: {preset}")))
        again = tmp_path / "again.yaml"
        again.write_text(dump(config), encoding="utf-8")
        assert load(again) == config


def test_a_preset_without_horizon_dumps_null(write):
    config = load(write(FULL.replace("budget: 3", "preset: release")))
    assert config.method.max_epochs is None and "max_epochs: null" in dump(config)
    assert load(write(FULL.replace("budget: 3", "preset: release, max_epochs: 4"))).method.max_epochs == 4


def test_every_mistake_is_named_with_its_line(write):
    text = """\
model: {name_or_path: x, precision: maybe}
method: {name: msft, budgt: 3}
datasets:
  - id: a
    path: x
    max_sample: 3
    scorer: {name: generat, of: text}
training:
  batch_size: "64"
  learning_rate: 0
"""
    lines = refused(write(text))
    assert [line.split(": ")[0] for line in lines] == [
        "c.yaml output",
        "c.yaml:1 model.precision",
        "c.yaml:2 method.budgt",
        "c.yaml:6 datasets.0.max_sample",
        "c.yaml:7 datasets.0.scorer.name",
        "c.yaml:9 training.batch_size",
        "c.yaml:10 training.learning_rate",
    ]
    assert all("Fix: " in line for line in lines)
    assert "did you mean 'budget'?" in lines[2] and "did you mean 'max_samples'?" in lines[3] and "'64'" in lines[5]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("budget: 3", "budget: -1", "method.budget: budget must be"),
        ("budget: 3", "budget: .nan", "method.budget: found nan"),
        ("budget: 3", "budget: yes", "method.budget: found 'yes'"),
        ("budget: 3", "smooth: 2.5", "method.smooth: found 2.5"),
        ("budget: 3", "max_epochs: .inf", "method.max_epochs: found inf"),
        ("budget: 3", "max_epochs: null", "method.max_epochs: without max_epochs nothing ends the search"),
        ("budget: 3", "preset: robst", "method.preset: found 'robst'. Fix: did you mean 'robust'?"),
        ("name: msft,", "name: msf,", "method.name: found 'msf'. Fix: did you mean 'msft'?"),
        ("budget: 3", "preset: release, unknown: 1", "method.unknown: unknown key"),
        ("budget: 3", "second: exclude", "method.second: msft has no such key. Fix: leave it out, or name a"),
        ('id: "no"', 'id: "A.B"', "datasets.1.id: the id 'A.B' is taken"),
        ('id: "no"', 'id: "a/b"', "datasets.1.id"),
        ('id: "no"', 'id: ".."', "datasets.1.id"),
        ('id: "no"', 'id: ""', "datasets.1.id"),
        ('id: "no"', 'id: "a\\u202eb"', "datasets.1.id"),
        ('id: "no"', f"id: {'é' * 51}", "datasets.1.id"),
        ('id: "no"', "id: 7", "datasets.1.id: found 7"),
        ("normalize: byte", "normalize: byte, of: word", "datasets.0.scorer.of: found 'word'"),
        ("name: choice,", "name: loss,", "datasets.0.scorer.normalize: only the choice scorer"),
        ("split: test, max_samples: 30", "split: test, fraction: 0.1", "datasets.0.validation.fraction"),
        ("validation: {split: test", "validation: {path: owner/name, where: {split: train, kind: [x, 1, null]}",
         "datasets.0.validation: the validation split would be the training rows themselves"),
        ("max_samples: 30", "max_samples: 30, max_samples: 31", "the key 'max_samples' appears twice"),
        ("learning_rate: 1e-5", "learning_rate: .inf", "training.learning_rate: found inf"),
        ("path: owner/name", "path: owner/name\n    config: {size: 1}", "datasets.0.config: only reasoning_gym"),
        ("[q_proj, v_proj]", "[]", "peft.target_modules: found"),
        ("output: runs/first", "output: ' '", "output: found an empty text"),
        ("output: runs/first", "snapshots: {max: 0}\noutput: x", "snapshots.max: found 0"),
    ],
)  # fmt: skip
def test_single_mistakes(write, old, new, found):
    assert old in FULL
    assert found in "\n".join(refused(write(FULL.replace(old, new))))


def test_a_schedule_needs_a_horizon(write):
    text = FULL.replace("budget: 3", "preset: release").replace("1e-5", "1e-5, schedule: cosine")
    assert "training.schedule: " in refused(write(text))[0]
    load(write(text.replace("release", "release, max_epochs: 3")))


@pytest.mark.parametrize("text", ["", "# nothing\n", "[1, 2]\n", "words\n", "\ufeff"])
def test_files_that_hold_no_configuration(write, text):
    assert len(refused(write(text))) == 1


def test_missing_and_undecodable_files(tmp_path):
    assert "there is no such file" in refused(tmp_path / "none.yaml")[0]
    (tmp_path / "l1.yaml").write_bytes(b"a: \xff")
    assert "not UTF-8" in refused(tmp_path / "l1.yaml")[0]


def test_more_than_twenty_problems_are_counted(write):
    keys = "".join(f"key{n}: 1\n" for n in range(30))
    lines = refused(write(FULL + keys))
    assert len(lines) == 21 and lines[-1] == "... and 10 more"


def test_overrides(write):
    overrides = ["training.learning_rate=2e-5", "datasets.a.b.max_samples=10", "datasets.1.config.size=50",
                 "method.preset=release", "data.seed=7", "datasets.no.test=null"]  # fmt: skip
    config = load(write(FULL), overrides)
    assert config.training.learning_rate == 2e-5 and config.data.seed == 7
    assert config.datasets[0].max_samples == 10 and config.datasets[1].config["size"] == 50
    assert config.method.preset == "release" and config.datasets[1].test is None
    assert load(write(FULL.replace("peft:", "peft: null\n#")), ["peft.r=8"]).peft.r == 8


def test_a_key_of_a_section_that_is_given_by_its_name(write):
    config = load(
        write(FULL),
        ["method=sft", "method.max_epochs=4", "datasets.1.scorer=generate", "datasets.1.scorer.max_new_tokens=9"],
    )
    assert (config.method.name, config.method.max_epochs) == ("sft", 4.0)
    assert (config.datasets[1].scorer.name, config.datasets[1].scorer.max_new_tokens) == ("generate", 9)
    assert refused(write(FULL), "method=sftt", "method.max_epochs=4")[0].startswith("--set method=sftt method.name")


@pytest.mark.parametrize(
    ("override", "found"),
    [
        ("training.learning_rate", "not key=value"),
        ("data.seed = 3", "'data.seed ' begins or ends with a blank. Fix: write it without: --set data.seed=3"),
        (" output=x", "Fix: write it without: --set output=x"),
        ("datasets.c.path=x", "there is no datasets.c"),
        ("output.folder=x", "single value"),
        ("training.batch_sise=3", "did you mean 'batch_size'?"),
        ("training.batch_size=0", "--set training.batch_size=0 training.batch_size: found 0"),
        ("data.seed=[1", "not valid YAML"),
        ("data.seed=*x", "undefined alias"),
    ],
)
def test_overrides_that_are_wrong(write, override, found):
    assert found in refused(write(FULL), override)[0]


def test_paths_that_exist_become_absolute_and_others_stay(write, tmp_path, monkeypatch):
    (tmp_path / "rows.jsonl").write_text("{}\n")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "val.jsonl").write_text("{}\n")
    monkeypatch.chdir(tmp_path / "elsewhere")
    text = FULL.replace("path: owner/name", "path: rows.jsonl").replace("split: test, max", "path: val.jsonl, max")
    config = load(write(text))
    assert config.datasets[0].path == str(tmp_path / "rows.jsonl")
    assert config.datasets[0].validation.path == str(tmp_path / "elsewhere" / "val.jsonl")
    assert config.model.name_or_path == "some/model" and config.datasets[1].path == "reasoning_gym:chain_sum"
    assert load(write(text.replace("rows.jsonl", "r*.jsonl"))).datasets[0].path == str(tmp_path / "r*.jsonl")


def test_flatten_names_what_changed(write):
    one, two = flatten(load(write(FULL))), flatten(load(write(FULL), ["datasets.no.max_samples=3", "method.smooth=3"]))
    changed = {key for key in one.keys() | two.keys() if one.get(key) != two.get(key)}
    assert changed == {"datasets.no.max_samples", "method.smooth"}
