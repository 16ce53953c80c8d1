"""The `aggregate` section: what it cannot have is refused by file, line and field."""

from __future__ import annotations

import pytest

from msft.config.reader import load
from msft.core.errors import ConfigError

HEAD = "model: {name_or_path: m}\noutput: o\ndatasets: [{id: a, path: a, group: g}, {id: b, path: b, group: g}]\n"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            "aggregate: {path: x, validation: {fraction: 0.1}}",
            "4 aggregate.validation: an aggregate has no validation: ",
        ),
        (
            "aggregate: {path: x, repeat: 2}",
            "4 aggregate.repeat: an aggregate has no repeat: nothing of it is trained on",
        ),
        (
            "aggregate: {path: x, group: h}",
            "4 aggregate.group: an aggregate has no group: it is no part of the mixture",
        ),
        ("aggregate: {path: x, split_by: t}", "4 aggregate.split_by: an aggregate has no split_by: it has one score"),
        ("aggregate: {id: A, path: x}", "4 aggregate.id: the name is taken: 'a' is a data set or a group"),
        ("aggregate: {id: g, path: x}", "4 aggregate.id: the name is taken: 'g' is a data set or a group"),
        ("aggregate: {id: a/b, path: x}", "4 aggregate.id: found 'a/b', which cannot name files and table rows"),
        ("aggregate: {scorer: {name: loss}}", "4 aggregate.path: is missing"),
        ("aggregate: {path: x, scorer: {name: loss, shots: {k: 1}}}", "4 aggregate.scorer.shots: shots are training"),
        ("aggregate: {path: x, test: {path: x}}", "4 aggregate.test: the test split would be the validation rows"),
        ("aggregate: {path: x, trian: 1}", "4 aggregate.trian: unknown key"),
        (
            "aggregate: {path: x}\nmethod: {name: msft, select: last}",
            "4 aggregate: the aggregate chooses the final model, and select: last takes the last point. Fix: write ",
        ),
    ],
)
def test_what_an_aggregate_cannot_have(tmp_path, lines, said):
    file = tmp_path / "c.yaml"
    file.write_text(f"{HEAD}{lines}\n")
    with pytest.raises(ConfigError) as caught:
        load(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:{said}") and "Fix: " in message


def test_its_files_are_found_beside_the_configuration(tmp_path):
    (tmp_path / "exam.jsonl").write_text("{}")
    (tmp_path / "c.yaml").write_text(f"{HEAD}aggregate: {{path: exam.jsonl}}\ndataset_defaults: {{repeat: 2}}\n")
    aggregate = load(tmp_path / "c.yaml").aggregate
    assert (aggregate.id, aggregate.path, aggregate.repeat) == ("aggregate", str(tmp_path / "exam.jsonl"), None)
