"""What a scorer section may say, and what it becomes."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter

from msft.config.reader import dump, load
from msft.config.scorer import RegexConfig, ScorerConfig
from msft.core.errors import ConfigError

TEXT = """\
model: {{name_or_path: x}}
datasets:
  - id: a
    path: owner/name
    scorer: {scorer}
output: runs/first
"""


@pytest.fixture
def read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def read(scorer):
        (tmp_path / "c.yaml").write_text(TEXT.format(scorer=scorer))
        config = load("c.yaml")
        (tmp_path / "again.yaml").write_text(dump(config))
        assert load("again.yaml") == config, "what is written must read back equal"
        return config.datasets[0].scorer

    return read


def test_defaults_of_a_generating_scorer(read):
    scorer = read("{name: generate}")
    assert (scorer.extract, scorer.stop, scorer.max_new_tokens, scorer.control) == ("text", (), 256, "control")
    few = read("{name: generate, extract: '####', shots: {k: 3, from: train, seed: 1}, max_new_tokens: 9}")
    assert (few.shots.k, few.shots.source, few.shots.seed) == (3, "train", 1)
    assert (few.extract, few.stop, few.max_new_tokens) == ("####", None, 9), "the rows' format decides"
    assert read("{name: generate, shots: {}, stop: ['Q:', ';']}").stop == ("Q:", ";")
    assert read("{name: generate, shots: {}, stop: []}").stop == ()
    assert read(r"{name: generate, extract: {regex: '(\d+)'}}").extract == RegexConfig(regex=r"(\d+)")


def test_a_text_is_the_name_of_a_scorer(read):
    assert read("loss") == read("{name: loss}")
    assert read("my.pack:judge") == read("{name: 'my.pack:judge'}")


def test_your_own_scorer_is_acted_on_unless_told_otherwise(read):
    assert read("{name: 'my.pack:judge'}").control == "report"
    assert read("{name: 'my.pack:judge', control: control}").control == "control"


@pytest.mark.parametrize(
    ("scorer", "found"),
    [
        ("generat", "scorer: found 'generat'. Fix: did you mean 'generate'?"),
        ("3", "scorer: found 3"),
        ("{name: generat}", "scorer.name: found 'generat'. Fix: did you mean 'generate'?"),
        ("{name: 'my-pack:judge'}", "scorer.name: found 'my-pack:judge'"),
        ("{name: 'os;system:x'}", "scorer.name: found"),
        ("{name: generate, extract: letters}", "scorer.extract: found 'letters'. Fix: use one of: ####, letter"),
        ("{name: generate, extract: {regex: '('}}", "scorer.extract.regex: not a regular expression"),
        ("{name: generate, extract: {regexx: a}}", "scorer.extract: found {'regexx': 'a'}"),
        ("{name: generate, stop: ['']}", "scorer.stop: found an empty stop sequence"),
        ("{name: generate, max_new_tokens: 0}", "scorer.max_new_tokens: found 0"),
        ("{name: loss, extract: text}", "scorer.extract: only the generate scorer has this key"),
        ("{name: choice, stop: [a]}", "scorer.stop: only the generate and your own scorers have this key"),
        ("{name: loss, shots: {k: 0}}", "scorer.shots.k: found 0"),
        ("{name: loss, shots: {from: test}}", "scorer.shots.from: found 'test'. Fix: give 'train'"),
        ("{name: loss, shots: {form: train}}", "scorer.shots.form: unknown key. Fix: did you mean 'from'?"),
    ],
)
def test_what_is_refused(read, scorer, found):
    with pytest.raises(ConfigError) as caught:
        read(scorer)
    assert f"c.yaml:5 datasets.0.{found}" in str(caught.value), str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_the_json_schema_knows_the_section():
    schema = TypeAdapter(ScorerConfig).json_schema(by_alias=True)
    assert "from" in schema["$defs"]["ShotsConfig"]["properties"]
