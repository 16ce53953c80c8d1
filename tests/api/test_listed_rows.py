"""A list of rows becomes a table in which each value is what was given; otherwise the value is named."""

from __future__ import annotations

import numpy as np
import pytest

from msft.api.listed_rows import table
from msft.core.errors import DataError


def rows(*values):
    return [{"question": f"q{n}", "answer": value} for n, value in enumerate(values)]


@pytest.mark.parametrize(
    "values",
    [
        (1, 2, None, -(2**63)),
        (0.5, 1.0, None),
        (True, False),
        ("1", "0.5", "naïve 😀"),
        (["a", "b"], [], None),
        ([{"role": "user", "content": "x"}],),
        ({"n": 1, "x": 0.5}, {"n": 2, "x": 1.5}),
    ],
)
def test_values_are_kept_with_their_types(values):
    read = table(rows(*values), "rows").to_list()
    assert read == rows(*values) and repr(read) == repr(rows(*values))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0.5, 1), r"whole numbers and fractions in the column 'answer' \(rows 1 and 2\), .*text \(str\(value\)\)"),
        (([1, 2], [3, 0.5]), r"fractions in the column 'answer\[\]' \(rows 1 and 2\)"),
        (({"n": 1}, {"m": 1}, {"n": 2.0}), r"fractions in the column 'answer.n' \(rows 1 and 3\)"),
        ((np.int64(1), np.float32(0.5)), r"whole numbers and fractions in the column 'answer'"),
        ((1, 2**63), r"row 2 has 9223372036854775808 in the column 'answer', a number beyond 64 bits.*str\("),
        (("ok", ["a", "half \ud83d"]), r"row 2 has '\\ud83d' in the column 'answer\[\]', half of a UTF-16 pair"),
        (("x", "y", 3), "the column 'answer' has values of several types: 3 in row 3 is unlike those before it"),
        ((True, 1), "the column 'answer' has values of several types: 1 in row 2"),
        (("x", object()), r"the column 'answer' has <object .*> in row 2, which no table can hold"),
    ],
)  # fmt: skip
def test_values_that_would_change_are_named(values, said):
    with pytest.raises(DataError, match=said):
        table(rows(*values), "rows")


def test_the_fixes_that_are_named_work():
    halves, lone = "\ud83d\ude00", "half \ud83d"
    fixed = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in (halves, lone)]
    assert fixed == ["😀", "half �"]
    read = table(rows(*fixed, str(2**70), str(0.5), str(1)), "rows")
    assert read["answer"][:] == [*fixed, str(2**70), "0.5", "1"]


def test_columns_are_named_with_text():
    with pytest.raises(DataError, match="row 1 has a column named 1"):
        table([{1: "a"}], "rows")
