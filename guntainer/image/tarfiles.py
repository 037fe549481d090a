"""The members of an uncompressed tar, by their headers alone: POSIX ustar and pax, GNU's long names; tar(5).

Contents are skipped, so that a tar of many gigabytes is read in as many steps as it has members. Only what can be in an image
is told: files and links by their names. Every number is checked against the size of the file.
"""

from __future__ import annotations

import os

from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 512
_MOST_EXTRA = 1 << 20  # bytes of a pax header or a long name
_END = bytes(_BLOCK)
FILE, LINK, SYMLINK, FOLDER, OTHER = "file", "link", "symlink", "folder", "other"
_KINDS = {b"0": FILE, b"\0": FILE, b"7": FILE, b"1": LINK, b"2": SYMLINK, b"5": FOLDER}


class Damaged(Exception):
    """It is no tar, or not from here on; the text says why."""


class Member(Value):
    """One entry."""

    name: str
    kind: str
    offset: int = 0
    """Of its contents in the file."""
    size: int = 0
    target: str = ""
    """Of a link."""


def looks_like_tar(head: bytes) -> bool:
    """Whether a file that begins with these 512 bytes is an uncompressed tar: its checksum, and a name."""
    return len(head) == _BLOCK and head[0] != 0 and _checksum_fits(head)


def _checksum_fits(header: bytes) -> bool:
    """The sum of all bytes with the checksum itself as blanks; old tars take them as signed."""
    told = _octal(header[148:156])
    unsigned = sum(header) - sum(header[148:156]) + 8 * 0x20
    if told == unsigned:
        return True
    negative = sum(1 for byte in header[:148] + header[156:] if byte > 127)
    return told == unsigned - 256 * negative


def _octal(digits: bytes) -> int:
    text = digits.strip(b" \0")
    if not text:
        return 0
    if not text.isdigit() or b"8" in text or b"9" in text or len(text) > 22:
        return -1
    return int(text, 8)


def _number(digits: bytes) -> int:
    """Octal, or GNU's: the first bit is set and the rest is a number, the first byte the most significant."""
    return int.from_bytes(digits[1:], "big") if digits[0] == 0x80 else _octal(digits)


def members(fd: int, end: int) -> Iterator[Member]:
    """What is in a tar, in its order.

    Args:
        end: the file's size.

    Raises:
        Damaged: a header is none, or what it tells does not fit into the file.
    """
    at = 0
    extra: dict[str, str] = {}
    while at + _BLOCK <= end:
        header = os.pread(fd, _BLOCK, at)
        if header == _END:
            return
        if len(header) < _BLOCK or not _checksum_fits(header):
            raise Damaged(f"no tar header at byte {at}")
        at += _BLOCK
        flag = header[156:157]
        size = _number(header[124:136])
        if flag in (b"L", b"K", b"x", b"g"):
            if not 0 <= size <= min(_MOST_EXTRA, end - at):
                raise Damaged(f"a header of {size} bytes at byte {at - _BLOCK}")
            content = os.pread(fd, size, at)
            at += _padded(size)
            if flag == b"x":
                extra |= _pax(content)
            elif flag != b"g":
                extra["path" if flag == b"L" else "linkpath"] = _text(content)
            continue
        member = _member(header, extra, at, size)
        extra = {}
        if not 0 <= member.size <= end - at:
            raise Damaged(f"cut off: {member.size} bytes are to follow byte {at} of {end}")
        yield member
        if member.kind in (FILE, OTHER):
            at += _padded(member.size)
    if at > end:
        raise Damaged("cut off")


def _member(header: bytes, extra: dict[str, str], at: int, size: int) -> Member:
    name = _text(header[:100])
    if header[257:263] == b"ustar\0" and header[345] != 0:
        name = f"{_text(header[345:500])}/{name}"
    kind = _KINDS.get(header[156:157], OTHER)
    if any(key.startswith("GNU.sparse.") for key in extra):
        kind = OTHER  # its contents are not what lies there
    told = extra.get("size", "")
    if told:
        size = int(told) if told.isascii() and told.isdecimal() and len(told) < 20 else -1
    return Member(
        name=extra.get("path", name),
        kind=kind,
        offset=at,
        size=size if kind in (FILE, OTHER) else 0,
        target=extra.get("linkpath", _text(header[157:257])),
    )


def _padded(size: int) -> int:
    return (size + _BLOCK - 1) // _BLOCK * _BLOCK


def _text(raw: bytes) -> str:
    return raw.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _pax(content: bytes) -> dict[str, str]:
    """Records of "LENGTH KEY=VALUE\\n": pax(1), "pax Extended Header".

    Raises:
        Damaged: one is not.
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(content):
        length, blank, _ = content[at : at + 20].partition(b" ")
        size = int(length) if length.isdigit() else 0
        record = content[at + len(length) + 1 : at + size - 1]
        if not blank or size < len(length) + 3 or content[at + size - 1 : at + size] != b"\n":
            raise Damaged("a pax header that is none")
        key, _, value = record.partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        at += size
    return found
