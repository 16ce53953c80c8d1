"""Methods that use every word of the vocabulary pass the suite, and are resumed wherever they are killed."""

from __future__ import annotations

import pytest
from methods_of_every_word import OWN

from msft.testing import conformance
from msft.testing.conformance import Case

CASES = [
    pytest.param(name, case, id=f"{name}-{case}") for name, method in OWN.items() for case in conformance.cases(method)
]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_conformance(name: str, case: Case) -> None:
    conformance.check(OWN[name], case)
