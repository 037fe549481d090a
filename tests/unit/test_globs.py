"""Patterns of artifacts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guntainer.globs import Pattern


@pytest.mark.parametrize(
    ("text", "yes", "no"),
    [
        (
            "dist/*.whl",
            ["w/dist/a.whl", "w/dist/.whl", "w/dist/d.whl/in/it"],
            ["w/dist/sub/a.whl", "dist/a.whl", "w/dist"],
        ),
        ("/var/log/**", ["var/log/a", "var/log/a/b"], ["var/log", "var/logs/a"]),
        ("/**/x", ["x", "a/x", "a/b/x", "a/x/y"], ["xx", "a/xx"]),
        ("**/**/x", ["w/x", "w/a/b/x"], ["x"]),
        ("/a/**/b/c?", ["a/b/c1", "a/z/b/cx", "a/b/b/cx"], ["a/b/c", "a/c1", "a/b/c/x"]),
        ("dist", ["w/dist", "w/dist/any/thing"], ["w/distro"]),
        ("./dist//x/", ["w/dist/x", "w/dist/x/y"], ["w/dist/xy"]),
        (".", ["w/a", "w", "w/a/b"], ["x", "wa"]),
        ("/", ["a", "a/b"], []),
        ("[a-c][!d]", ["w/ax", "w/ba"], ["w/ad", "w/dx", "w/a/"]),
        ("[]x]", ["w/]", "w/x"], ["w/y"]),
        ("[!]]", ["w/x"], ["w/]"]),
        ("[z-a]", ["w/b"], ["w/-"]),
        ("[abc", ["w/[abc"], ["w/a"]),
        ("a[\\^b", ["w/a[\\^b"], []),
        ("[\\d]", ["w/d", "w/\\"], ["w/1"]),
        ("a.b+(c)|d", ["w/a.b+(c)|d"], ["w/axb+(c)|d", "w/d"]),
        ("*", ["w/new\nline", "w/\udcff"], ["x"]),
    ],
)
def test_what_it_matches(text: str, yes: list[str], no: list[str]) -> None:
    pattern = Pattern(text, "/w")
    assert [path for path in yes if not pattern.matches(path)] == []
    assert [path for path in no if pattern.matches(path)] == []


@pytest.mark.parametrize(
    ("text", "base"),
    [("dist/*.whl", "w/dist"), ("/var/log/**", "var/log"), ("**/x", "w"), ("/*", ""), ("/a/b", "a/b"), ("!/a/*", "a")],
)
def test_where_it_begins(text: str, base: str) -> None:
    assert Pattern(text, "/w").base == base
    assert Pattern(text, "/w").excludes == text.startswith("!")


def test_where_there_is_no_use_in_looking() -> None:
    pattern = Pattern("/a/*.d/x", "/")
    assert pattern.may_match_below("a") and pattern.may_match_below("a/b.d")
    assert pattern.may_match_below("a/b.d/x") and pattern.may_match_below("a/b.d/x/y")
    assert not pattern.may_match_below("a/b.d/c")
    assert Pattern("/a/**/x", "/").may_match_below("a/b/c/d")


@given(st.text("ab*?[]!/-^.\\", min_size=1, max_size=12), st.text("ab/*]^-", min_size=1, max_size=10))
def test_any_text_is_a_pattern(text: str, path: str) -> None:
    pattern = Pattern(text, "/w")
    if pattern.matches(path):
        folders = path.split("/")[:-1]
        assert all(pattern.may_match_below("/".join(folders[:n])) for n in range(1, len(folders) + 1))


@given(st.text("ab.+(){}|$^ \n", min_size=1, max_size=12))
def test_a_name_means_itself(text: str) -> None:
    assert Pattern(f"/{text}", "/").matches(text) or text == "."
