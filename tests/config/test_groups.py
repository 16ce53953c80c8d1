"""`group` in entries of `datasets`: what cannot be a group is refused by file, line and field."""

from __future__ import annotations

import pytest

from msft.config.reader import load
from msft.core.errors import ConfigError

HEAD = "model: {name_or_path: m}\noutput: o\ndatasets:\n"


def said(tmp_path, entries):
    file = tmp_path / "c.yaml"
    file.write_text(HEAD + "".join(f"  - {entry}\n" for entry in entries))
    with pytest.raises(ConfigError) as caught:
        load(file)
    return str(caught.value).replace(str(file), "c.yaml")


def test_a_group_of_one_is_a_slip_of_the_pen(tmp_path):
    message = said(
        tmp_path, ["{id: a, path: a, group: math}", "{id: b, path: b, group: math}", "{id: c, path: c, group: mat}"]
    )
    assert message == (
        "c.yaml:6 datasets.2.group: no other data set is in the group 'mat'. "
        "Fix: did you mean 'math'?; or remove it: a group needs two data sets"
    )
    one = said(tmp_path, ["{id: a, path: a, group: math}", "{id: b, path: b}"])
    assert "write the same group in other entries" in one


def test_split_by_alone_makes_a_group(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text(HEAD + "  - {id: a, path: a, group: math, split_by: topic}\n")
    assert load(file).datasets[0].group == "math"


def test_one_scorer_per_group_and_shots_may_differ(tmp_path):
    exact = "scorer: {name: exact_match"
    message = said(
        tmp_path, [f"{{id: a, path: a, group: g, {exact}}}}}", "{id: b, path: b, group: g, scorer: {name: loss}}"]
    )
    assert message.startswith("c.yaml:5 datasets.1.scorer: the group 'g' has one curve, so its entries have one scorer")
    assert "Fix: write the scorer of a here too, or take this entry out of the group" in message
    file = tmp_path / "c.yaml"
    shots = f"{exact}, shots: {{k: 2}}}}}}"
    file.write_text(
        f"{HEAD}  - {{id: a, path: a, group: g, {shots}\n  - {{id: b, path: b, group: g, {exact}, shots: {{k: 1}}}}}}\n"
    )
    assert len(load(file).datasets) == 2


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("A", "the name is taken: 'a' is the id of a data set"),
        ("x/y", "found 'x/y', which cannot name files and table rows"),
        ("nul", "found 'nul', which Windows reserves for a device"),
    ],
)
def test_the_name_of_a_group_is_a_name_of_its_own(tmp_path, name, found):
    message = said(tmp_path, [f"{{id: a, path: a, group: {name}}}", f"{{id: b, path: b, group: {name}}}"])
    assert message.startswith(f"c.yaml:4 datasets.0.group: {found}. Fix: ")


def test_two_spellings_of_a_group_are_one_mistake(tmp_path):
    entries = [
        f"{{id: {name}, path: p, group: {group}}}" for name, group in zip("abcd", ["g", "G", "g", "G"], strict=True)
    ]
    assert "the groups 'g' and 'G' have the same name" in said(tmp_path, entries)
