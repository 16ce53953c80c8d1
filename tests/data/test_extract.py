"""Finding answers in text, and telling whether two are the same."""

from __future__ import annotations

import threading

import pytest

from msft.core.errors import ConfigError
from msft.data.examples import Measure
from msft.data.extract import check_installed, found_in, reference_of, same, until


def measure(extract, pattern="", stop=()):
    return Measure(name="generate", extract=extract, pattern=pattern, stop=stop, max_new_tokens=8)


@pytest.mark.parametrize(
    ("extract", "text", "found"),
    [
        ("####", "so 3 + 4 = 7\n#### 7\n\nQuestion: more\n#### 9", "7"),
        ("####", "#### $1,200.", "$1,200."),
        ("####", "the answer is 7", None),
        ("####", "####\n7", None),
        ("letter", " B", "B"),
        ("letter", "C. because A is wrong", "C"),
        ("letter", "(D) of course", "D"),
        ("letter", "**E**", "E"),
        ("letter", "A dog has (B) no wings", "B"),
        ("letter", "A dog barks", None),
        ("letter", "I think that the answer is C, not (B).", "C"),
        ("letter", "Answer: (H)", "H"),
        ("letter", "Answer: Both", None),
        ("letter", "J", "J"),
        ("letter", "The answer is (I).", "I"),
        ("letter", "Answer: I", "I"),
        ("letter", " I. A dog", "I"),
        ("letter", "I think that it is (B)", "B"),
        ("letter", "I think so, too", None),
        ("letter", "Answer: I think that it is [D]", "D"),
        ("letter", "the answer is I'm not sure", None),
        ("letter", "K", None),
        ("letter", "**Answer:** B", "B"),
        ("letter", "ANSWER: B", "B"),
        ("letter", "The answer is option B", "B"),
        ("letter", r"The answer is $\boxed{B}$.", "B"),
        ("letter", r"(A) and (B) differ, so \[\boxed{\text{(C)}}\]", "C"),
        ("letter", "(A) is too small, (C) too large. The right option is (D).", "D"),
        ("letter", "Between (A) and (B), the correct choice is **B**.", "B"),
        ("letter", "The best option isolates A", None),
        ("number", "45-7=38 noodles", "38"),
        ("number", "10-7", "7"),
        ("number", "it falls to -3.5 degrees.", "-3.5"),
        ("number", "x = -.5", "-.5"),
        ("number", "It costs $1,234,567.89!", "$1,234,567.89"),
        ("number", "items 1,2,3", "3"),
        ("number", "none", None),
        ("number", "a rate of 1.5e3.", "1.5e3"),
        ("number", "about 5e-05", "5e-05"),
        ("number", "in room 3e", "3"),
        ("number", "it falls to \u22123", "-3"),
        ("number", "5\u22123", "3"),
        ("number", r"$1{,}000$", "$1,000"),
        ("number", r"so 12,\!345\,678 of them", "12,345,678"),
        ("number", r"the pair (1,\ 234)", "234"),
        ("text", "  a b \n", "a b"),
        ("text", " \n", None),
    ],
)
def test_extractors(extract, text, found):
    assert found_in(text, measure(extract)) == found


def test_as_many_letters_as_there_are_choices():
    letter = measure("letter")
    assert found_in("Z", letter, 26) == "Z" and found_in("The answer is (K)", letter, 11) == "K"
    assert found_in("C", letter, 2) is None and found_in("I, for one, say (B)", letter, 4) == "B"
    assert reference_of("Answer: K", None, letter, 12) == "K" and reference_of("work", "L", letter, 12) == "L"
    with pytest.raises(ValueError, match=r"no answer that extract: letter \(A to L\) finds$"):
        reference_of("Answer: M", None, letter, 12)
    with pytest.raises(ValueError, match=r"the answer is not one that extract: letter \(A to J\) finds$"):
        reference_of("work", "K", letter)


def test_a_pattern_gives_the_first_group_of_the_last_match():
    text = "x=1 y=2 x=3"
    assert found_in(text, measure("regex", r"x=(\d)")) == "3"
    assert found_in(text, measure("regex", r"[xy]=\d")) == "x=3"
    assert found_in(text, measure("regex", r"z")) is None
    assert found_in(text, measure("regex", r"x=(9)?")) is None


@pytest.mark.parametrize(
    ("extract", "found", "reference", "right"),
    [
        ("####", "$1,200", "1200", True),
        ("####", "7.0", "7", True),
        ("####", "7.", "7", True),
        ("####", "-7", "7", False),
        ("####", "70", "7", False),
        ("####", "1,2", "12", False),
        ("####", "seven", "seven", True),
        ("####", "7 apples", "7", False),
        ("####", "nan", "nan", True),
        ("number", "0.50", ".5", True),
        ("number", "0.00005", "5e-05", True),
        ("number", "5", "5e-05", False),
        ("####", "\u22125", "-5", True),
        ("####", r"1{,}000", "1000", True),
        ("regex", "3/4", "0.75", False),
        ("text", "7.0", "7", False),
        ("text", "Yes", "yes", False),
        ("letter", "B", "B", True),
        ("text", None, "7", False),
    ],
)
def test_the_same_answer(extract, found, reference, right):
    assert same(found, reference, measure(extract)) is right


def test_references_come_from_the_stated_answer_or_the_completion():
    assert reference_of("work\n#### 42", None, measure("####")) == "42"
    assert reference_of("work", "42", measure("####")) == "42"
    assert reference_of("work", "more work #### 41", measure("####")) == "41"
    assert reference_of(" B", None, measure("letter")) == "B"
    with pytest.raises(ValueError, match=r"extract: #### finds$"):
        reference_of("work", None, measure("####"))
    with pytest.raises(ValueError, match="finds before the first stop sequence"):
        reference_of("work\n\n#### 42", None, measure("####", stop=("\n\n",)))
    with pytest.raises(ValueError, match="the answer is not one"):
        reference_of(" B", "1", measure("letter"))
    with pytest.raises(ValueError, match=r"regex: x=\(\.\)"):
        reference_of("y", None, measure("regex", "x=(.)"))


def test_until_the_first_of_the_stops():
    assert until("a;b.c", (".", ";")) == "a"
    assert until("abc", (".",)) == "abc"


def test_mathematics_is_compared_by_value():
    pytest.importorskip("math_verify")
    math = measure("math")
    assert same(found_in(r"so it is $\frac{1}{2}$", math), reference_of("0.5", None, math), math)
    assert same(found_in(r"$x^2 + 2x + 1$", math), reference_of("$(x+1)^2$", None, math), math)
    assert not same(found_in("$3$", math), "$4$", math)
    assert found_in("no idea", math) is None


@pytest.mark.parametrize(
    ("stated", "text", "right"),
    [
        (r"3\sqrt{5}", r"so $\boxed{3\sqrt{5}}$", True), (r"3\sqrt{5}", "$3$", False), (r"2\pi", r"\boxed{2}", False),
        ("x^2+1", "$1+x^2$", True), ("(1,2)", "$(1,2)$", True), (r"1\frac{4}{5}", r"$\frac{9}{5}$", True),
        (r"120,\!000", "$120000$", True), (r"\$18.90", "$18.9$", True), (r"50\%", r"$\frac{1}{2}$", True),
        ("5 dollars", "$5$", True), ("The answer is 5", "$5$", True),
        (r"\text{Evelyn}", r"\boxed{\text{Evelyn}}", True),
        ("x=5", "$5$", True), (r"$\frac{1}{2}$", "$0.5$", True),
    ],
)  # fmt: skip
def test_a_stated_answer_may_be_latex_without_delimiters(stated, text, right):
    pytest.importorskip("math_verify")
    math = measure("math")
    assert same(found_in(text, math), reference_of("work", stated, math), math) is right


def test_mathematics_that_takes_too_long_is_wrong_and_other_threads_may_ask(monkeypatch):
    pytest.importorskip("math_verify")
    monkeypatch.setattr("msft.data.extract.MATH_SECONDS", 1)
    math = measure("math")
    assert same("$9^{9^{9^{9^9}}}$", "$9^{9^{9^{9^8}}}$", math) is False
    told = []
    thread = threading.Thread(target=lambda: told.append(same("$1/2$", "$0.5$", math)))
    thread.start()
    thread.join()
    assert told == [True]


def test_a_missing_library_is_told_with_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "math_verify", None)
    with pytest.raises(ConfigError, match=r"datasets\.a\.scorer\.extract: .*pip install 'msft\[math\]'"):
        check_installed(measure("math"), "datasets.a.scorer.extract")
    check_installed(measure("number"), "datasets.a.scorer.extract")
