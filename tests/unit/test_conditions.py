"""Conditions of jobs: what they mean in each case, how they look in normal form, and what is said of mistakes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from guntainer.errors import UsageError
from guntainer.jobs.conditions import Condition, parse

# (success, failure, cancelled): what can have become of the needed jobs, and of the batch
GOOD = (True, False, False)
FAILED = (False, True, False)
SKIPPED = (False, False, False)  # a needed one was skipped by its own condition
ENDED = (True, False, True)  # all went well until the batch was ended
ENDED_BADLY = (False, True, True)
CASES = (GOOD, FAILED, SKIPPED, ENDED, ENDED_BADLY)


def holds(condition: Condition, case: tuple[bool, bool, bool]) -> bool:
    success, failure, cancelled = case
    return condition.holds(success=success, failure=failure, cancelled=cancelled)


def cell(text: str, **values: str) -> Condition:
    return parse(text, references=True).filled(values, tuple(values))


def constant(text: str, values: Mapping[str, str] | None = None) -> bool:
    """Whether what asks for no status holds, where all went well."""
    condition = parse(text, references=True)
    return holds(condition.filled(values, tuple(values)) if values is not None else condition, GOOD)


def problem(text: str, *, references: bool = True) -> str:
    with pytest.raises(UsageError) as caught:
        parse(text, references=references)
    return caught.value.message


# What GitHub does in these cases, by its documentation: "Status check functions".
TABLE = {
    # condition: (GOOD, FAILED, SKIPPED, ENDED, ENDED_BADLY)
    "success()": (1, 0, 0, 0, 0),
    "always()": (1, 1, 1, 1, 1),
    "failure()": (0, 1, 0, 0, 1),
    "cancelled()": (0, 0, 0, 1, 1),
    "!cancelled()": (1, 1, 1, 0, 0),
    "!success()": (0, 1, 1, 1, 1),
    "!failure()": (1, 0, 1, 1, 0),
    "success() || failure()": (1, 1, 0, 0, 1),
    "failure() || cancelled()": (0, 1, 0, 1, 1),
    "always() && !cancelled()": (1, 1, 1, 0, 0),
    "failure() && !cancelled()": (0, 1, 0, 0, 0),
    "!(failure() || cancelled())": (1, 0, 1, 0, 0),
    # success() && is put before what asks for nothing
    "true": (1, 0, 0, 0, 0),
    "false": (0, 0, 0, 0, 0),
    "1 == 1": (1, 0, 0, 0, 0),
    "false || true": (1, 0, 0, 0, 0),
    # and not before what does, wherever that stands
    "always() || 1 == 2": (1, 1, 1, 1, 1),
    "1 == 1 || failure()": (1, 1, 1, 1, 1),
    "1 == 2 && failure()": (0, 0, 0, 0, 0),
    "(1 == 1) == failure()": (0, 1, 0, 0, 1),
}


@pytest.mark.parametrize(("text", "expected"), TABLE.items(), ids=TABLE)
def test_what_githubs_conditions_mean(text: str, expected: tuple[int, ...]) -> None:
    for written in (text, f"${{{{ {text} }}}}", f"  ${{{{{text}}}}}\n", text.upper() if text.endswith("()") else text):
        condition = parse(written)
        assert tuple(int(holds(condition, case)) for case in CASES) == expected
    again = parse(str(condition))
    assert str(again) == str(condition)
    assert again.status_words == condition.status_words
    assert tuple(int(holds(again, case)) for case in CASES) == expected


@pytest.mark.parametrize(
    ("text", "survives"),
    [
        ("success()", False),
        ("failure()", False),
        ("always()", True),
        ("cancelled()", True),
        ("!cancelled()", False),
        ("failure() || cancelled()", True),
        ("!success()", True),
        ("always() && 1 == 2", False),
        ("always() && !cancelled()", False),
        ("true", False),
    ],
)
def test_what_goes_on_while_the_batch_is_ended(text: str, survives: bool) -> None:
    assert parse(text).survives is survives


@pytest.mark.parametrize(
    ("text", "never"),
    [
        ("false", True),
        ("1 == 2", True),
        ("always() && 1 == 2", True),
        ("success() && !success()", True),
        ("1 == 2 || failure()", False),
        ("success()", False),
        ("cancelled()", False),
        ("failure() && cancelled()", False),
    ],
)
def test_what_holds_in_no_case(text: str, never: bool) -> None:
    assert parse(text).never is never


@pytest.mark.parametrize(
    ("text", "normal", "words"),
    [
        ("success()", "success()", {"success"}),
        ("Success( )", "success()", {"success"}),
        ("true", "success()", {"success"}),
        ("1 == 1 && 'a' == 'A'", "success()", {"success"}),
        ("false", "success() && false", {"success"}),
        ("1 == 2", "success() && 1 == 2", {"success"}),
        ("1 == 2 || 2 == 3", "success() && 2 == 3", {"success"}),
        ("1 == 2 || 2 == 2", "success()", {"success"}),
        ("always() && true", "always()", {"always"}),
        ("false || always() || 1 != 1", "always()", {"always"}),
        ("failure()||cancelled()", "failure() || cancelled()", {"failure", "cancelled"}),
        ("(success() || failure()) && (1==2)", "(success() || failure()) && 1 == 2", {"success", "failure"}),
        ("!(always()&&failure())", "!(always() && failure())", {"always", "failure"}),
        ("!always() == false", "!always() == false", {"always"}),
        ("!(always() == false)", "!(always() == false)", {"always"}),
        ("always() == (1 == 1)", "always() == (1 == 1)", {"always"}),
        ("always() && 'it''s' == ''", "always() && 'it''s' == ''", {"always"}),
        ("always() && null != -1.50e0", "always()", {"always"}),
        ("always() && 0x1f == 1.5", "always() && 31 == 1.5", {"always"}),
        ("always() && 1e300 == 0.25", "always() && 1e+300 == 0.25", {"always"}),
        ("contains('a', 'b') && always()", "contains('a', 'b') && always()", {"always"}),
        ("startswith('ab', 'A') && ENDSWITH('ab', 'B')", "success()", {"success"}),
    ],
)
def test_the_normal_form(text: str, normal: str, words: set[str]) -> None:
    condition = parse(text)
    assert (str(condition), condition.status_words) == (normal, words)
    assert str(parse(normal)) == normal
    assert repr(condition) == f"Condition({normal!r})"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # texts are compared without regard to case
        ("'Debian' == 'debian'", True),
        ("'a' != 'b'", True),
        ("'3.10' == '3.1'", False),
        # what is of two kinds is compared as numbers
        ("3.10 == 3.1", True),
        ("'3.10' == 3.1", True),
        ("' 0x10 ' == 16", True),
        ("'x' == 0", False),
        ("'x' != 0", True),
        ("'' == 0", True),
        ("'' == null", True),
        ("null == false", True),
        ("true == 1", True),
        ("'true' == true", False),
        ("1 == 1.0", True),
        ("-1 == '-1'", True),
        ("'1e3' == 1000", True),
        # what holds by itself
        ("'false'", True),
        ("''", False),
        ("0", False),
        ("-0", False),
        ("null", False),
        ("'x' && 'y'", True),
        ("'' || 0 || null", False),
        ("!''", True),
        ("!!'x'", True),
        # && and || have the value of what decides them
        ("('a' && 'b') == 'b'", True),
        ("('' || 'b') == 'b'", True),
        ("(0 && 'b') == 0", True),
        # what binds more tightly
        ("true || true && false", True),
        ("(true || true) && false", False),
        ("!false == true", True),
        ("1 == 1 && 2 == 2 || 1 == 2", True),
        # functions
        ("contains('ubuntu-22', 'UBUNTU')", True),
        ("startsWith('ubuntu-22', '22')", False),
        ("endsWith('ubuntu-22', 22)", True),
        ("contains('true', true)", True),
        ("contains('x', null)", True),
    ],
)
def test_values(text: str, expected: bool) -> None:
    assert constant(text) is expected
    assert constant(str(parse(text))) is expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("matrix.x == 'a'", "A", True),
        ("matrix.x != 'a'", "b", True),
        ("matrix.x == '3.10'", "3.10", True),
        ("matrix.x == '3.1'", "3.10", False),
        ("matrix.x == 3", "3", True),
        ("3 == matrix.x", "3.0", True),
        ("matrix.x == true", "true", True),
        ("matrix.x == false", "true", False),
        ("matrix.x == 'true'", "true", True),
        ("matrix.x == null", "", True),
        ("matrix.x", "true", True),
        ("matrix.x", "false", False),
        ("matrix.x", "0", False),
        ("matrix.x", "", False),
        ("matrix.x", "no", True),
        ("!matrix.x", "false", True),
        ("matrix.x == matrix.x", "it's", True),
        ("contains(matrix.x, '1')", "3.10", True),
        ("startsWith(matrix.x, '3.')", "3.10", True),
        ("endsWith(matrix.x, '10')", "3.10", True),
        ("matrix.x == 1", "9" * 399, False),
        ("matrix.x", "1e999", True),
        ("matrix.x != 1e5", "1e999", True),
    ],
)
def test_values_of_a_cell(text: str, value: str, expected: bool) -> None:
    assert constant(text, {"x": value}) is expected
    filled = cell(text, x=value)
    assert not filled.names
    assert str(parse(str(filled))) == str(filled)
    assert holds(parse(str(filled)), GOOD) is expected


def test_a_cell_s_condition_is_shown_with_its_values() -> None:
    text = "matrix.os == 'debian' || matrix.v == 3"
    assert parse(text, references=True).names == {"os", "v"}
    assert str(parse(text, references=True)) == "success() && (matrix.os == 'debian' || matrix.v == 3)"
    assert str(cell(text, os="debian", v="2")) == "success()"
    assert str(cell(text, os="x'y", v="2")) == "success() && 2 == 3"
    assert str(cell("matrix.os == 'debian' && always()", os="debian")) == "always()"


def test_a_value_that_a_cell_does_not_have_is_empty() -> None:
    condition = parse("matrix.extra == 'x' || matrix.extra", references=True).filled({"a": "1"}, ("a", "extra"))
    assert not holds(condition, GOOD)


def test_nothing_to_put_in() -> None:
    condition = parse("always()", references=True)
    assert condition.filled({"a": "1"}, ("a",)) is condition
    assert condition.filled({}, None) is condition


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (None, '"matrix.oss": this job has no matrix'),
        (("os", "v"), '"matrix.oss": the matrix has no "oss", only os, v (did you mean "os"?)'),
    ],
)
def test_a_name_that_the_matrix_does_not_have(known: tuple[str, ...] | None, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse("matrix.oss == 'x'", references=True).filled({}, known)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", 'column 1: the condition is empty: expected one such as "always()"'),
        ("${{ }}", 'column 5: the condition is empty: expected one such as "always()"'),
        ("sucess()", 'column 1: there is no function "sucess" (did you mean "success"?)'),
        ("true && alwys()", 'column 9: there is no function "alwys" (did you mean "always"?)'),
        ("hashFiles('x')", 'column 1: there is no function "hashFiles"'),
        ("success", 'column 1: "success" is a function: expected "success()"'),
        ("Always && true", 'column 1: "Always" is a function: expected "always()"'),
        ("success(1)", 'column 9: expected ")": success() takes nothing, got "1"'),
        ("success(", 'column 9: expected ")": success() takes nothing, got the end'),
        ("contains('a')", 'column 13: expected ",": contains() takes two texts, got ")"'),
        ("contains('a', 'b', 'c')", 'column 18: expected ")", got ","'),
        (
            "github.ref == 'x'",
            'column 1: "github.ref" has no meaning here: expected matrix.NAME, or a text in single quotes',
        ),
        ("debian", 'column 1: "debian" has no meaning here: expected matrix.NAME, or a text in single quotes'),
        ("matrix", 'column 1: "matrix": expected matrix.NAME'),
        ("matrix.a.b", 'column 1: "matrix.a.b": expected matrix.NAME'),
        ("matrix.*", 'column 1: "matrix.*": expected matrix.NAME'),
        ('matrix.a == "x"', 'column 13: """ has no meaning here: expected a text in single quotes: \'text\''),
        ("matrix.a = 'x'", 'column 10: "=" has no meaning here: expected "=="'),
        ("true & true", 'column 6: "&" has no meaning here: expected "&&"'),
        ("true | true", 'column 6: "|" has no meaning here: expected "||"'),
        ("1 < 2", 'column 3: "<" has no meaning here'),
        ("'abc", "column 1: \"'\" has no meaning here: expected a ' at the end of the text"),
        ("1.2.3 == 1", 'column 1: "1" has no meaning here'),
        ("1x", 'column 1: "1" has no meaning here'),
        ("1e999", 'column 1: "1e999" is too large a number'),
        ("(always()", 'column 10: expected ")", got the end'),
        ("always())", 'column 9: expected "&&", "||", "==", "!=" or the end, got ")"'),
        ("always() true", 'column 10: expected "&&", "||", "==", "!=" or the end, got "true"'),
        (
            "always() &&",
            "column 12: expected a function such as success(), matrix.NAME, a text or a number, got the end",
        ),
        ("&& true", 'column 1: expected a function such as success(), matrix.NAME, a text or a number, got "&&"'),
        ("1 == 2 == 3", "column 11: a comparison of a comparison: expected parentheses around one of them"),
        ("${{ always()", 'column 1: ${{ }} goes around the whole condition: expected "}}" at its end'),
        (
            "true && ${{ matrix.a }}",
            "column 9: ${{ }} goes around the whole condition: inside of it, write matrix.NAME alone",
        ),
        (
            "${{ matrix.a }} == ${{ matrix.b }}",
            "column 14: ${{ }} goes around the whole condition: inside of it, write matrix.NAME alone",
        ),
        ("always() \x1b", 'column 10: "\\x1b" has no meaning here'),
        ("x" * 20001, "the condition is longer than 20000 characters"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    assert problem(text) == message


def test_a_condition_without_a_matrix_around_it() -> None:
    assert problem("matrix.a == 1", references=False) == 'column 1: "matrix.a": there is no matrix here'


@pytest.mark.parametrize(("before", "after"), [("(", ")"), ("!", ""), ("!(", ")"), ("contains('a', ", ")")])
def test_depth_is_bounded(before: str, after: str) -> None:
    parse(before * 24 + "always()" + after * 24)
    for count in (60, 5000 // len(before)):
        assert "nested more than 49 levels deep" in problem(before * count + "always()" + after * count)


def test_whatever_is_deep_enough_stays_readable() -> None:
    for count, status in itertools.product(range(40, 52), ("true", "always()")):
        text = "(true || false == " * count + status + ")" * count
        try:
            condition = parse(text)
        except UsageError as error:
            assert "nested more than" in error.message
            continue
        assert str(parse(str(condition))) == str(condition)


def test_chains_are_as_long_as_the_text_may_be() -> None:
    assert holds(parse("always()" + " && 1 == 1" * 1900), FAILED)
    assert not holds(parse("1 == 2 || " * 1900 + "failure()"), GOOD)


def test_length_with_the_values_put_in() -> None:
    with pytest.raises(UsageError, match="grows too long when the values of the matrix are put in"):
        cell("matrix.a == matrix.a || failure()", a="x" * 15000)
