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


@pytest.mark.parametrize("cwd", ["/x[1]", "/a*/?", "/**", "/!x/**/[!a]", "/[", "/a/./b"])
def test_where_it_is_seen_from_is_no_pattern(cwd: str) -> None:
    place = cwd.strip("/").replace("/./", "/")
    pattern = Pattern("*.txt", cwd)
    assert pattern.base == place and pattern.matches(f"{place}/a.txt") and not pattern.matches(f"{place}/b/a.txt")
    assert not any(pattern.matches(f"{other}/a.txt") for other in ("x1", "ab/c", "a", "x", "a/b/c"))
    deep = Pattern("**/a.txt", cwd)
    assert deep.base == place and deep.matches(f"{place}/b/c/a.txt") and not deep.matches("x1/a.txt")
    assert Pattern("!*", cwd).matches(f"{place}/a") and Pattern(".", cwd).matches(f"{place}/a/b")


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


def name_fits(pattern: str, name: str) -> bool:
    """`*` and `?`, as slowly as it is said."""
    if pattern.startswith("*"):
        return any(name_fits(pattern[1:], name[n:]) for n in range(len(name) + 1))
    if not pattern or not name:
        return pattern == name
    return pattern[0] in ("?", name[0]) and name_fits(pattern[1:], name[1:])


def fits(parts: list[str], names: list[str]) -> bool:
    if not parts:
        return True
    if parts == ["**"]:
        return bool(names)
    if parts[0] == "**":
        return any(fits(parts[1:], names[n:]) for n in range(len(names) + 1))
    return bool(names) and name_fits(parts[0], names[0]) and fits(parts[1:], names[1:])


NAMES = st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=6)
PARTS = st.lists(st.one_of(st.just("**"), st.text("ab*?", min_size=1, max_size=5)), min_size=1, max_size=5)


@given(PARTS, NAMES)
def test_it_matches_what_is_said(parts: list[str], names: list[str]) -> None:
    assert Pattern("/" + "/".join(parts), "/").matches("/".join(names)) == fits(parts, names)


@given(PARTS)
def test_all_of_a_container_as_a_folder(parts: list[str]) -> None:
    """The path of its root is empty: what needs two names does not mean it."""
    assert not Pattern("/" + "/".join([*parts, "**", "*", "x"]), "/").matches("")
    assert not Pattern("/*/**/*", "/").matches("")


LONG = "a" * 255


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/**/a**/**b**", "/".join([LONG] * 16)),
        ("/" + "*a" * 100 + "*b", LONG),
        ("/**/" + "*a" * 100 + "*b", "/".join([LONG] * 16)),
        ("/**/" + "/".join(["*a*a*a*b", "**"] * 20), "/".join([LONG] * 16)),
        ("/" + "**/a/" * 100 + "b", "/".join("a" * 2047)),
        ("/**/" + "a/" * 100 + "b", "/".join("a" * 2047)),
        ("/" + "**/a*/" * 10 + "x", "/".join([f"{LONG[:-1]}b"] * 16)),
        ("/" + "*" * 4000 + "b", LONG),
        ("/**/" + "[ab]*[a]*?*" * 100 + "c", "/".join([LONG] * 16)),
    ],
)
def test_no_name_takes_long(text: str, path: str) -> None:
    """Most of these would not end in a day, were each place tried for each `*`: the suite's time-out tells."""
    pattern = Pattern(text, "/")
    assert not pattern.matches(path)
    assert pattern.matches(f"{path}/x") == text.endswith("x")
