"""Conditions of a GitHub workflow's step as tests of a shell, where they are about the matrix or the runner's system. Pure.

`a && b`, or `a || b`, of comparisons, startsWith(), endsWith(), contains() and names of the matrix. Otherwise than on GitHub
texts are compared with regard to case.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = r"matrix\.([A-Za-z_][A-Za-z0-9_-]*)"
_TEXT = r"'([^'\"`$\\\n]*)'"  # nothing that a shell would look into
_COMPARED = re.compile(rf"(?:{_NAME}|(runner\.os))\s*(==|!=)\s*(?:{_TEXT}|(true|false|[0-9.]+))")
_CALLED = re.compile(rf"(!?)\s*(startsWith|endsWith|contains)\(\s*{_NAME}\s*,\s*{_TEXT}\s*\)")
_BARE = re.compile(rf"(!?)\s*{_NAME}")
_PATTERNS = {"startsWith": '"{}"*', "endsWith": '*"{}"', "contains": '*"{}"*'}
_STATUS = ("success()", "always()", "!cancelled()")
TRUE, FALSE = "true", "false"


def test_of(condition: str, variables: Mapping[str, str]) -> str | None:
    """A command that succeeds where the condition holds, TRUE or FALSE where that is known already; None: it can not be said.

    Args:
        condition: without `${{ }}`.
        variables: name of the job's matrix → the variable that holds the value.
    """
    for sign, idle, decisive in (("&&", TRUE, FALSE), ("||", FALSE, TRUE)):
        parts = [part.strip() for part in condition.split(sign)]
        if len(parts) == 1 and sign == "&&":
            continue
        tests = [_one(part, variables) for part in parts]
        if None in tests:
            continue
        if decisive in tests:
            return decisive
        left = [test for test in tests if test is not None and test != idle]
        return f" {sign} ".join(left) or idle
    return None


def _one(part: str, variables: Mapping[str, str]) -> str | None:
    if part in _STATUS:
        return TRUE  # a script ends at the first failure
    if part in (TRUE, FALSE):
        return part
    compared, called, bare = _COMPARED.fullmatch(part), _CALLED.fullmatch(part), _BARE.fullmatch(part)
    if compared:
        name, system, sign, text, word = compared.groups()
        wanted = word if text is None else text
        if system:
            return TRUE if (wanted.lower() == "linux") == (sign == "==") else FALSE
        return f'[ "${variables[name]}" {"=" if sign == "==" else "!="} "{wanted}" ]' if name in variables else None
    if called:
        negated, word, name, text = called.groups()
        yes, no = ("false", "") if negated else ("", "false")
        pattern = _PATTERNS[word].format(text)
        return f'case "${variables[name]}" in {pattern}) {yes};; *) {no};; esac' if name in variables else None
    if bare and bare[2] in variables:
        yes, no = ("", "false") if bare[1] else ("false", "")
        return f'case "${variables[bare[2]]}" in ""|false|0|null) {yes};; *) {no};; esac'
    return None
