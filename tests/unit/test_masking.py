"""Secrets in streams of bytes: wherever the stream is cut."""

from __future__ import annotations

import base64
import json
import os
import urllib.parse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guntainer import errors, masking, report, spellings
from guntainer.masking import STARS, Masker, Patterns


def masked(secrets: list[bytes], *chunks: bytes) -> bytes:
    masker = Masker(Patterns(secrets))
    return b"".join([*(masker.feed(chunk) for chunk in chunks), masker.end()])


def by_the_book(secrets: list[bytes], data: bytes) -> bytes:
    """Byte by byte: what belongs to any occurrence of any form; overlapping occurrences are one."""
    runs: list[list[int]] = []
    words = {form for secret in secrets for form in spellings.forms(secret, masking.LEAST_BYTES)}
    for at in range(len(data)):
        ends = [at + len(word) for word in words if data.startswith(word, at)]
        if not ends:
            continue
        if runs and at < runs[-1][1]:
            runs[-1][1] = max(runs[-1][1], *ends)
        else:
            runs.append([at, max(ends)])
    shown, end = b"", 0
    for start, stop in runs:
        shown += data[end:start] + STARS
        end = stop
    return shown + data[end:]


def test_it_is_hidden_and_the_rest_is_not() -> None:
    assert masked([b"hunter2!"], b"the password is hunter2!\n") == b"the password is ***\n"
    assert masked([b"hunter2!"], bytes(range(256)) * 3) == bytes(range(256)) * 3


def test_split_over_chunks() -> None:
    text = b"a hunter2! b hunter2"
    for cut in range(len(text) + 1):
        assert masked([b"hunter2!"], text[:cut], text[cut:]) == b"a *** b hunter2"
    assert masked([b"hunter2!"], *(text[at : at + 1] for at in range(len(text)))) == b"a *** b hunter2"


def test_nothing_is_held_back_but_what_may_be_the_beginning_of_one() -> None:
    masker = Masker(Patterns([b"hunter2!"]))
    assert masker.feed(b"Continue? [y/n] ") == b"Continue? [y/n] "
    assert masker.feed(b"hunt") == b""
    assert masker.feed(b"ing") == b"hunting"
    assert masker.end() == b""


def test_several_that_overlap() -> None:
    assert masked([b"abcdef", b"defghi"], b"x abcdefghi y abcdef") == b"x *** y ***"
    assert masked([b"abcd", b"abcdefgh"], b"abcdefgh abcdefg abcd") == b"*** ***efg ***"
    assert masked([b"abab"], b"ababab", b"abab.") == b"***."
    assert masked([b"aaaa"], *[b"a" * 3] * 50, b"b") == b"***b"


def test_lines_of_one_with_several() -> None:
    key = b"-----BEGIN KEY-----\nAbCdEf1234\nxy\nGhIjKl5678\n-----END KEY-----"
    assert masked([key], b"  AbCdEf1234\nxy\nGhIjKl5678 ") == b"  ***\nxy\n*** "
    assert masked([key], b"<" + key + b">") == b"<***>"
    assert masked([b"first\r\nsecond"], b"first\nsecond") == b"***\n***"


SECRET = b's3cret/with+odd "chars" & \xc3\xa4'


@pytest.mark.parametrize("before", [b"", b"u", b"us", b"user:", b"a longer prefix:"])
@pytest.mark.parametrize("after", [b"", b"x", b"xy", b"\n"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_wherever_it_begins(before: bytes, after: bytes, encode: object) -> None:
    encoded = encode(before + SECRET + after)  # type: ignore[operator]
    shown = masked([SECRET], encoded)
    assert STARS in shown and len(shown) <= len(encode(before)) + len(STARS) + 8  # type: ignore[operator]


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: urllib.parse.quote(text, safe=""),
        urllib.parse.quote,
        urllib.parse.quote_plus,
        lambda text: urllib.parse.quote(text, safe="").replace("%C3%A4", "%c3%a4").lower().replace("s3cret", "s3cret"),
        lambda text: json.dumps(text)[1:-1],
        lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    ],
)
def test_other_ways_to_write_it(encode: object) -> None:
    assert masked([SECRET], b"<" + encode(SECRET.decode()).encode() + b">") == b"<***>"  # type: ignore[operator]


QUOTED = {
    "it's-a-$ecret": [
        r"""'it'\''s-a-$ecret'""",  # bash: set -x; coreutils
        """'it'"'"'s-a-$ecret'""",  # dash, busybox, Python's shlex
        r'''"it's-a-\$ecret"''',  # bash: export -p
        r"it\'s-a-\$ecret",  # printf %q
        r"$'it\'s-a-$ecret\n'",  # bash, with what is no character beside it
    ],
    "it''s `one` \\x": [
        r"""'it'\'''\''s `one` \x'""",
        """'it'"''"'s `one` \\x'""",
        """'it'"'"''"'"'s `one` \\x'""",
        r'''"it''s \`one\` \\x"''',
        r"it\'\'s\ \`one\`\ \\x",
        r"$'it\'\'s `one` \\x\033'",
    ],
    'tok-"ä\t\x1b-s3cr3t': [
        r"""$'tok-"ä\t\E-s3cr3t'""",
        r"""$'tok-"\303\244\t\E-s3cr3t'""",
        r"""'tok-"ä'$'\t\033''-s3cr3t'""",  # coreutils
        r"""'tok-"ä\t\x1b-s3cr3t'""",  # Python; names in notes of ours
        r"""b'tok-"\xc3\xa4\t\x1b-s3cr3t'""",
    ],
    "a=~b,c{d}!": [r"a=\~b\,c\{d\}\!"],
    "ends with\t": [r"""'ends with'$'\t'""", r"$'ends with\t'"],
    "ends with'": [r"""'ends with'\'''""", r"ends\ with\'"],
}


@pytest.mark.parametrize(("secret", "shown"), [(secret, one) for secret, those in QUOTED.items() for one in those])
def test_as_shells_and_python_quote_it(secret: str, shown: str) -> None:
    """Quotes may be left of it."""
    left = masked([secret.encode()], f"+ true {shown}\n".encode()).decode()
    assert STARS.decode() in left and set(left.removeprefix("+ true ")) <= set("*'\"$b\\n03\n"), left


def test_a_line_of_it_as_a_shell_quotes_it() -> None:
    assert masked([b"first $1\nit's the second"], rb"+ true 'it'\''s the second'") == b"+ true '***'"


@given(
    st.lists(st.text("ab\n", min_size=4, max_size=9), min_size=1, max_size=4),
    st.lists(st.text("ab\nc", max_size=12), max_size=12),
)
def test_any_cut_is_as_none(secrets: list[str], chunks: list[str]) -> None:
    values, parts = [one.encode() for one in secrets], [one.encode() for one in chunks]
    assert masked(values, *parts) == by_the_book(values, b"".join(parts))


@given(st.lists(st.binary(min_size=4, max_size=40), max_size=3), st.lists(st.binary(max_size=200), max_size=8))
def test_other_bytes_are_as_they_were(secrets: list[bytes], chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    if not any(form in whole for secret in secrets for form in spellings.forms(secret, masking.LEAST_BYTES)):
        assert masked(secrets, *chunks) == whole


@given(st.binary(min_size=8, max_size=60), st.binary(max_size=60), st.binary(max_size=60), st.integers(0, 200))
def test_it_never_comes_through(secret: bytes, before: bytes, after: bytes, cut: int) -> None:
    text = before + secret + after
    shown = masked([secret], text[:cut], text[cut:])
    assert secret not in shown.replace(STARS, b"\0\xff\0\xff\0")


def test_what_is_held_is_bounded() -> None:
    secret = b"a" * 500 + b"b"
    masker = Masker(Patterns([secret]))
    fed = shown = 0
    for _ in range(50):
        fed += 1000
        shown += len(masker.feed(b"a" * 1000))
        assert fed - shown < len(base64.b64encode(secret))
    assert shown + len(masker.end()) == fed


def test_hundreds_of_lines() -> None:
    lines = [b"line %04d of the secret" % number for number in range(1500)]
    patterns = Patterns([b"\n".join(lines)])
    masker = Masker(patterns)
    assert masker.feed(b"a line 0007 of the secret, line 9999 of the secret\n") == (b"a ***, line 9999 of the secret\n")
    nested = Patterns([b"\n".join(b"a" * length for length in range(4, 361))])
    assert Masker(nested).feed(b"x" + b"a" * 360 + b"y") == b"x***y"


@given(
    st.lists(st.text("ab\n", min_size=4, max_size=20), min_size=20, max_size=40),
    st.lists(st.text("ab\nc", max_size=30), max_size=8),
)
def test_many_are_found_as_few_are(secrets: list[str], chunks: list[str]) -> None:
    values, parts = [one.encode() for one in secrets], [one.encode() for one in chunks]
    assert masked(values, *parts) == by_the_book(values, b"".join(parts))


def test_many_are_not_looked_for_one_by_one() -> None:
    lines = b"\n".join(os.urandom(24).hex().encode() for _ in range(300))
    patterns = Patterns([lines, *(os.urandom(length) for length in (5, 9) * 30)])
    assert len(patterns._words) > 400 and len(patterns._plain) <= 3 * masking._MOST_PLAIN
    for word in patterns._words:
        for before in range(9):
            data = b"\xfe" * before + word
            assert patterns.occurrences(data)[0] == (before, len(data))


def test_a_text_and_an_exit() -> None:
    patterns = Patterns([b"hunter2!"])
    assert patterns.mask("no such file: /hunter2!/x") == "no such file: /***/x"
    assert patterns.mask("\udcff hunter2!") == "\udcff ***"
    assert patterns.mask("\ud800 hunter2!") == "\ud800 ***"
    error = errors.HostError("can not open hunter2!", hint="try hunter2! again")
    shown = masking.masked(report.setup_failed(error), patterns)
    assert "hunter2!" not in repr(shown) + str(shown.error) + shown.describe()
    assert shown.describe() == "can not open ***; try *** again"
    assert masking.masked(report.exited(3), patterns) == report.exited(3)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (b"", "is empty"),
        (b"abc", "fewer than 4 bytes"),
        (b"   a   ", "fewer than 4 bytes"),
        (b"x" * 65537, "more than 64 KiB"),
        (b"abcd\0efgh", "NUL"),
    ],
)
def test_what_can_not_be_a_secret(value: bytes, why: str) -> None:
    with pytest.raises(errors.UsageError, match=why) as caught:
        masking.check("TOKEN", value, "the variable T")
    assert "TOKEN" in caught.value.message
    assert not value.strip() or value.decode() not in caught.value.message


def test_what_can() -> None:
    assert masking.check("T", b"abcd", "it") == b"abcd"
    assert repr(Patterns([b"hunter2!"])) == f"Patterns({len(spellings.forms(b'hunter2!', masking.LEAST_BYTES))})"
