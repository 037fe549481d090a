"""How a text may be written where programs show it: what is looked for of a secret. Pure.

itself, its lines   as a job prints it; of a key each line, without what stands around it
base64              wherever it begins in what was encoded
URLs, JSON, Python  with what these escape, and as our own messages escape control characters
shells              as `set -x`, `export -p`, printf(1) %q and the messages of coreutils quote it
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse

from guntainer.jobs.values import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ESCAPES = dict(zip(b"\a\b\x1b\f\n\r\t\v", (rf"\{sign}".encode() for sign in "abEfnrtv"), strict=True))
"""Of control characters in $'…': bash(1), QUOTING."""
_CONTROL = re.compile(rb"[\0-\x1f\x7f]")
_NOT_ASCII = re.compile(rb"[\0-\x1f\x7f-\xff]")
_CONTROLS = re.compile(rb"[\0-\x1f\x7f]+")
_META = re.compile(rb"""[\s!"$&'()*,;<>?\[\\\]^`{|}]|(?<=[:=])~""")
_IN_DOUBLE_QUOTES = re.compile(rb'[$"\\`]')


def forms(secret: bytes, least: int) -> set[bytes]:
    """Everything that is looked for of one secret.

    Args:
        least: bytes; what is shorter is looked for by nobody.
    """
    lines = [found for line in secret.splitlines() for found in (line, line.strip())]
    found = {secret, *lines, *_base64(secret), *_urls(secret), *_literals(secret)}
    for text in {secret, *lines}:
        found |= set(_shells(text))
    return {form for form in found if len(form) >= least}


def _base64(secret: bytes) -> Iterator[bytes]:
    """What of its base64 does not depend on what stands before and after it, for each place in a group of three bytes."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        yield encode(secret)
        for before in range(3):
            whole = bytes(before) + secret
            yield encode(whole)[-(-before * 8 // 6) : len(whole) * 8 // 6]


def _urls(secret: bytes) -> Iterator[bytes]:
    for encode in (urllib.parse.quote, urllib.parse.quote_plus):
        quoted = encode(secret, safe="")
        yield quoted.encode()
        yield re.sub("%..", lambda m: m[0].lower(), quoted).encode()
    yield urllib.parse.quote(secret).encode()


def _literals(secret: bytes) -> Iterator[bytes]:
    """Between the quotes of JSON and Python; and as our own messages have it, see `printable`."""
    text = secret.decode("utf-8", "surrogateescape")
    yield repr(secret)[2:-1].encode()
    yield repr(text)[1:-1].encode()
    yield printable(text).encode()
    try:
        yield json.dumps(secret.decode())[1:-1].encode()
        yield json.dumps(secret.decode(), ensure_ascii=False)[1:-1].encode()
    except UnicodeDecodeError:
        pass  # JSON can not hold it


def _shells(text: bytes) -> Iterator[bytes]:
    """Inside of '', "" and $'', and with backslashes; nothing where all of these are the text itself."""
    if not _META.search(text) and not _NOT_ASCII.search(text):
        return
    single = text.replace(b"'", rb"'\''")
    yield single
    yield re.sub(b"'+", lambda m: b"'\"" + m[0] + b"\"'", text)  # dash, busybox
    yield text.replace(b"'", b"'\"'\"'")  # Python's shlex.quote()
    yield _IN_DOUBLE_QUOTES.sub(rb"\\\g<0>", text)
    yield _META.sub(rb"\\\g<0>", text)
    escaped = text.replace(b"\\", rb"\\").replace(b"'", rb"\'")
    yield _CONTROL.sub(_escaped, escaped)
    yield _NOT_ASCII.sub(_escaped, escaped)  # in the C locale
    mixed = _CONTROLS.sub(lambda m: b"'$'" + _CONTROL.sub(_octal, m[0]) + b"''", single)  # coreutils: 'a'$'\t''b'
    yield mixed.removesuffix(b"''") if _CONTROL.match(text[-1:]) else mixed


def _escaped(found: re.Match[bytes]) -> bytes:
    return _ESCAPES.get(found[0][0]) or b"\\%03o" % found[0][0]


def _octal(found: re.Match[bytes]) -> bytes:
    return b"\\033" if found[0] == b"\x1b" else _escaped(found)
