"""YAML 1.2: what plain scalars mean, what is refused, and the way back."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from msft.config.yaml12 import UnreadableError, emit, parse

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=30) | st.sampled_from(
    [
        "no",
        "yes",
        "1e-5",
        "0o17",
        ".inf",
        "null",
        "~",
        "2020-01-01",
        "a: b",
        "# x",
        "- x",
        "<<",
        "=",
        "\n",
        " x ",
        "1_0",
    ]
)
SCALARS = st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | TEXT
TREES = st.recursive(
    SCALARS, lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXT, below, max_size=3), max_leaves=10
)


@given(st.dictionaries(TEXT, TREES, max_size=4))
def test_what_is_emitted_reads_back_equal(tree):
    back = parse(emit(tree)).data
    assert back == tree and repr(back) == repr(tree)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("1e-5", 1e-5),
        ("1.0e-5", 1e-5),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("'1'", "1"),
        ("true", True),
        ("~", None),
        ("", None),
        ("-.inf", float("-inf")),
        ("=", "="),
        ("'<<'", "<<"),
        ("&x 5", 5),
    ],
)
def test_plain_scalars_follow_the_core_schema(text, value):
    read = parse(f"a: {text}").data["a"]
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "found"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' appears twice (first on line 1)"),
        ("a: 1\nb: [*x]\n", 2, "undefined alias 'x'"),
        ("a: &x 1\nb: &x 2\n", 2, "&x appears twice (first on line 1)"),
        ("a: 1\nb: &x [*x]\n", 2, "&x contains itself"),
        ("a: &x\n  b: 1\n  c: {d: [*x]}\n", 1, "&x contains itself"),
        ("a: &x\n  <<: *x\n", 1, "&x contains itself"),
        ("a: &x 1\nb: {<<: *x}\n", 1, "<< cannot merge"),
        ("a: &x {c: 1}\nb: {<<: *x, <<: *x}\n", 2, "'<<' appears twice"),
        ("a: &x !!str 5\nb: *x\n", 1, "tag"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "tag"),
        ("a: !!str 5\n", 1, "tag"),
        ("!k a: 5\n", 1, "tag"),
        ("a:\n\tb: 1\n", 2, "not valid YAML"),
        ("a: [1\nb: 2\n", 2, "not valid YAML"),
        ("[a]: 1\n", 1, "plain name"),
        ("a: 1\n---\nb: 2\n", 2, "another document"),
        ("a: " + "[" * 50, 1, "levels of nesting"),
        ("a: \x00", None, "not valid YAML"),
    ],
)
def test_what_is_refused_names_the_line(text, line, found):
    with pytest.raises(UnreadableError) as caught:
        parse(text)
    assert found in caught.value.found and caught.value.line == line


def laughs(inner: str, levels: int = 40, times: int = 9) -> str:
    """Each line repeats the line before it, so that the last stands for times ** levels of the first."""
    lines = ["a0: &a0 {x: 1}"]
    for n in range(1, levels):
        lines.append(f"a{n}: &a{n} {inner.format(', '.join([f'*a{n - 1}'] * times))}")
    return "\n".join(lines)


@pytest.mark.parametrize("inner", ["[{}]", "{{<<: {}}}"])
def test_long_chains_do_not_exhaust_the_stack(inner):
    with pytest.raises(UnreadableError, match="levels of nesting"):
        parse(laughs(inner, levels=2000, times=1))


@pytest.mark.parametrize("inner", ["[{}]", "{{b: 1, <<: [{}]}}", "{{k: [{}]}}"])
def test_aliases_that_stand_for_billions_are_refused_at_once(inner):
    began = time.perf_counter()
    with pytest.raises(UnreadableError, match=r"100,000 values|levels of nesting"):
        parse(laughs(inner))
    assert time.perf_counter() - began < 5


def test_an_alias_is_written_out_and_shares_nothing():
    text = (
        "a: &x {scorer: {name: loss}, n: [1]}\nb: *x\nc:\n  <<: *x\n  n: 2\nd: [*x, *x]\ne: {<<: [{n: 3}, *x], m: 4}\n"
    )
    document = parse(text)
    whole = {"scorer": {"name": "loss"}, "n": [1]}
    assert document.data == {
        "a": whole, "b": whole, "c": {**whole, "n": 2}, "d": [whole, whole], "e": {**whole, "n": 3, "m": 4},
    }  # fmt: skip
    document.data["b"]["scorer"]["name"] = "choice"
    document.data["d"][0]["n"].append(2)
    assert document.data["a"] == whole and document.data["d"][1] == whole
    # What an alias repeats has the place where it is written.
    assert document.lines["b",] == 2 and document.lines["b", "scorer", "name"] == 1
    assert document.lines["c", "n"] == 5 and document.lines["c", "scorer"] == 1


def test_a_tab_is_explained():
    with pytest.raises(UnreadableError) as caught:
        parse("a:\n\tb: 1\n")
    assert "spaces" in caught.value.fix


def test_lines_of_keys_and_items():
    lines = parse("a:\n  b: 1\n  c:\n  - x\n  - y: 2\n").lines
    assert lines == {("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", 0): 4, ("a", "c", 1): 5, ("a", "c", 1, "y"): 5}
