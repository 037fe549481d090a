"""The Gunfile: what is read from it, and every mistake with its line."""

from __future__ import annotations

import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guntainer import errors
from guntainer.builder import gunfile
from guntainer.builder.gunfile import Step

USING = 'Using "alpine.tar.gz"\n'


def read(text: str | bytes) -> gunfile.Gunfile:
    return gunfile.load(text if isinstance(text, bytes) else text.encode(), "Gunfile", "/base")


def steps(text: str) -> list[tuple[str, ...]]:
    return [(step.kind, *step.words) for step in read(USING + text).steps]


def problems(text: str | bytes) -> list[str]:
    with pytest.raises(errors.JobFileError) as caught:
        read(text)
    assert caught.value.exit_code == errors.USAGE
    return [line.removeprefix("Gunfile:") for line in caught.value.problems]


def test_the_example_of_the_readme() -> None:
    text = (Path(__file__).resolve().parent.parent.parent / "README.md").read_text()
    block = next(part for part in text.split("```") if part.lstrip().startswith("Using "))
    assert [step.kind for step in read(block).steps] == ["Env", "Copy", "Workdir", "Exec", "Cmd"]


def test_the_format_of_old() -> None:
    found = read('Using "../alpine.tar.gz"\nExec "apk add curl"\nExec "curl --version"\n')
    assert found.using.location == "/base/../alpine.tar.gz"
    assert [str(step) for step in found.steps] == ['Exec "apk add curl"', 'Exec "curl --version"']
    assert [step.line for step in found.steps] == [2, 3]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Exec "echo \\"a b\\" \\\\ \\n\\t\\x41\\u00e9 \\$x"', [("Exec", 'echo "a b" \\ \n\tAé $x')]),
        ("Exec 'grep \"\\.\" f'", [("Exec", 'grep "\\." f')]),
        ('Exec "one \\\n  two"', [("Exec", "one   two")]),
        ('Exec \\\n  "one"', [("Exec", "one")]),
        ('  Exec\t"one"  \r\n', [("Exec", "one")]),
        ('Copy "a b" "/x/"', [("Copy", "a b", "/x/")]),
        ("Copy src/./../a relative", [("Copy", "src/./../a", "relative")]),
        ("Env A=b", [("Env", "A", "b")]),
        ('Env "A=b c=d"', [("Env", "A", "b c=d")]),
        ('Env "A="', [("Env", "A", "")]),
        ("Workdir /src", [("Workdir", "/src")]),
        ('Cmd ["a", \'b c\',"\\"d"]', [("Cmd", "a", "b c", '"d')]),
        ('Cmd ["a", \\\n "b"]', [("Cmd", "a", "b")]),
        ('Cmd "make test"', [("Cmd", "/bin/sh", "-c", "make test")]),
        ('\n# "a comment\n   # another\nExec "x#y"\n', [("Exec", "x#y")]),
        ('Exec "x"   # what it does: "this"\nEnv A=b#c # it\n', [("Exec", "x"), ("Env", "A", "b#c")]),
        ('Exec "#x" #y', [("Exec", "#x")]),
        ("", []),
    ],
)
def test_what_is_read(text: str, expected: list[tuple[str, ...]]) -> None:
    assert steps(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ['1: it is empty: expected Using "rootfs.tar.gz" first']),
        ("# nothing\n", ['1: it is empty: expected Using "rootfs.tar.gz" first']),
        ('Exec "x"\n', ['1: Using "rootfs.tar.gz" must come first, before Exec']),
        (USING + USING, ["2: Using: Using comes once, as the first instruction"]),
        ('Using ""\n', ['1: Using: an empty text; expected one text: Using "alpine.tar.gz"']),
        ("Using\n", ['1: Using: expected one text: Using "alpine.tar.gz"']),
        (USING + "exec x", ['2: unknown instruction "exec" (did you mean Exec?)']),
        (USING + 'RUN "x"', ['2: unknown instruction "RUN" (did you mean Exec?)']),
        (USING + 'Worqdir "x"', ['2: unknown instruction "Worqdir" (did you mean "Workdir"?)']),
        (USING + "Exec apk add curl", ['2: Exec: expected one text in quotes: Exec "apk add make"']),
        (USING + 'Exec "x', ['2: a text is not closed: " is missing at the end of the line']),
        (USING + "Exec 'x\\'y'", ['2: expected a blank after "x\\"']),
        (USING + 'Exec "\\."', ["2: unknown escape \\.: a backslash is written \\\\, or the text in '…'"]),
        (USING + 'Exec "\\ud800"', ["2: Exec: holds half of a surrogate pair, which is no character"]),
        (USING + 'Exec "\\x00"', ["2: unknown escape \\x: a backslash is written \\\\, or the text in '…'"]),
        (USING + 'Copy "a"', ['2: Copy: expected two texts: Copy "from" "/to"']),
        (USING + 'Copy "/etc" "/a"', ['2: Copy: "/etc": expected a path seen from the Gunfile\'s folder']),
        (USING + 'Copy "a/../../b" "/a"', ['2: Copy: "a/../../b" leads out of the Gunfile\'s folder']),
        (USING + "Env A", ['2: Env: "A": expected NAME=value']),
        (USING + 'Env "A B=c"', ['2: Env: "A B" can not name a variable: expected letters, digits and _']),
        (USING + "Workdir src", ['2: Workdir: "src": expected an absolute path']),
        (USING + 'Cmd ["a" "b"]', ["2: a list is not closed: ] or , is missing"]),
        (
            USING + 'Cmd ["a",\n"b"]',
            ['2: expected texts in quotes between the brackets: ["make", "test"]', "3: unexpected ]"],
        ),
        (USING + "Cmd []", ['2: Cmd: expected a list or one text: Cmd ["make", "test"]']),
        (USING + "Cmd [a]", ['2: expected texts in quotes between the brackets: ["make", "test"]']),
        (b"Using \xff\n", ["1: not UTF-8"]),
        (USING + "Exec '\0'", ["2: a NUL character"]),
        (b"#" * (gunfile.LIMIT_BYTES + 1), ["1: larger than 1 MiB"]),
    ],
)
def test_a_mistake_is_told_with_its_line(text: str | bytes, expected: list[str]) -> None:
    told = problems(text)
    assert told == expected


def test_all_mistakes_at_once() -> None:
    told = problems('Using "ftp://x"\nExec\n\n# fine\nExec \\\n  "a\\q"\nFrom "x"\nWorkdir "/x"\n')
    assert [line.partition(":")[0] for line in told] == ["1", "2", "6", "7"]


TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=20)


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_what_is_written_is_read(words: list[str]) -> None:
    """Any text at all, between the quotes that stand for it."""

    def written(text: str) -> str:
        made = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r")
        return f'"{made}"'

    assert read(USING + f"Cmd [{', '.join(map(written, words))}]").steps == (
        Step(line=2, kind="Cmd", words=tuple(words)),
    )


@given(st.text(string.ascii_letters + "\\\"'[], \n#=/.", max_size=60))
def test_whatever_it_holds(text: str) -> None:
    """It is read, or its mistakes are told with lines that it has."""
    try:
        read(USING + text)
    except errors.JobFileError as error:
        assert all(1 <= int(line.split(":")[1]) <= text.count("\n") + 2 for line in error.problems)
