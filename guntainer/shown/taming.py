"""Bytes of jobs, so that they can not command the terminal or the CI system which shows them. Pure, but for `read_tail`.

Of escape sequences only colours stay; the workflow commands that are known within a line are broken up. Those that begin a
line are kept from its beginning by a prefix, or switched off by whoever shows a whole block.
"""

from __future__ import annotations

import errno
import os
import re
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_TAIL_BYTES = 64 << 10
_TAIL_LINES = 200
_LINE_LIMIT = 64 << 10
"""Bytes of a line that are kept until it ends."""
# an escape that does not begin a colour, the other control characters that move the cursor or ring, and C1 in UTF-8: of a \xc2
# nothing but what is printable may follow, or what is taken out would make another one, again and again
_CONTROLS = re.compile(rb"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\xc2(?![\xa0-\xbf])[\x80-\x9f]*")
# what stands in a line before carriage returns, but for those that end it; and these
_WRITTEN_OVER = re.compile(rb"(?m)^[^\n]*\r(?!\n)")
_ENDS = re.compile(rb"(?<!\r)\r++\n")
_BEFORE = "… ".encode()
_RETURNS = re.compile(rb"(?<!\r)\r++(?!\n)")
# the older notation of GitHub's commands, which viewers know as well; Azure's and TeamCity's
_COMMANDS = re.compile(rb"##(?=(?:vso|teamcity)?\[)")
# what only the next bytes decide about
_UNDECIDED = re.compile(rb"(?:\x1b(?:\[[0-9;]{0,32})?|\r|\xc2|##?|##(?:vs?|vso|te?|tea|team|teamci?|teamcity?))\Z")
_UNDECIDED_BYTES = 40
# whole escape sequences, ECMA-48: CSI, the strings that ST or BEL end, the rest
_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|[\]PX^_][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])")


class Tamer:
    """Takes out of a stream what would command the terminal or the CI system that shows it; colours stay.

    Of a line that is written over again and again, as progress is, only the last state is left, behind a mark: what a line
    would begin with does not come to begin one.
    """

    def __init__(self) -> None:
        self._held = b""
        self._line = b""
        """The beginning of a line, which may be written over; no more than 64 KiB."""
        self._is_out = False
        """More of it was given already."""

    def feed(self, data: bytes) -> bytes:
        data, held = _undecided(self._held + data)
        # once more: what is taken out may leave such an end behind
        data, more = _undecided(_tame(data))
        self._held = more + held
        return self._lasting(data)

    def end(self) -> bytes:
        """What was held back, at the end of the stream."""
        held, self._held = self._held, b""
        data = self._lasting(_tame(held).removesuffix(b"\xc2"))
        line, self._line = self._line, b""
        return data + line.removesuffix(b"\r")

    def _lasting(self, data: bytes) -> bytes:
        """`data` without what is written over; the last line is kept until it has ended."""
        data = self._line + data
        if b"\r" in data:
            whole = data.rstrip(b"\r")  # what comes next may be a line break
            if self._is_out and (found := _RETURNS.search(whole)) and b"\n" not in whole[: found.start()]:
                # what is shown can not be taken back
                whole = whole[: found.start()] + b"\n" + _BEFORE + whole[found.end() :]
            last = b"\r" if data.endswith(b"\r") else b""
            data = _WRITTEN_OVER.sub(_BEFORE, _ENDS.sub(b"\r\n", whole)) + last
        end = data.rfind(b"\n") + 1
        self._is_out = self._is_out and not end
        if len(data) - end > _LINE_LIMIT:
            self._line, self._is_out = b"", True
            return data
        self._line = data[end:]
        return data[:end]


def _undecided(data: bytes) -> tuple[bytes, bytes]:
    """`data` without an end that only the next bytes decide about, and that end."""
    found = _UNDECIDED.search(data, max(0, len(data) - _UNDECIDED_BYTES))
    return (data[: found.start()], found.group()) if found else (data, b"")


def _tame(data: bytes) -> bytes:
    while _CONTROLS.search(data):  # again and again: what stood around one may make another
        data = _CONTROLS.sub(b"", data)
    return switched_off(data)


def switched_off(data: bytes) -> bytes:
    """`data` without the commands that a CI system looks for within a line."""
    return _COMMANDS.sub(b"## ", data) if b"##" in data else data


class Prefixer:
    """Puts a prefix before each line of a stream that comes in chunks; a line may span several.

    Args:
        tame: see Tamer.
        whole: a line is given when it has ended, so that nothing comes between; one of more than 64 KiB is broken.
    """

    def __init__(self, prefix: bytes, *, tame: bool, whole: bool = False) -> None:
        self._prefix = prefix
        self._break = b"\n" + prefix
        self._tamer = Tamer() if tame else None
        self._whole = whole
        self._begun = b""
        self._at_start = True

    def feed(self, data: bytes) -> bytes:
        if self._tamer is not None:
            data = self._tamer.feed(data)
        return self._lines(self._ended(data) if self._whole else data)

    def _ended(self, data: bytes) -> bytes:
        """The lines that have ended; the rest is kept."""
        end = data.rfind(b"\n") + 1
        text, rest = (self._begun + data[:end], data[end:]) if end else (b"", self._begun + data)
        if len(rest) > _LINE_LIMIT:
            text, rest = text + rest + b"\n", b""
        self._begun = rest
        return text

    def _lines(self, data: bytes) -> bytes:
        if not data:
            return b""
        body, ended = (data[:-1], b"\n") if data.endswith(b"\n") else (data, b"")
        text = (self._prefix if self._at_start else b"") + body.replace(b"\n", self._break) + ended
        self._at_start = bool(ended)
        return text

    def end(self) -> bytes:
        """What is still held back, and the line break that the stream did not end with."""
        rest, self._begun = self._begun, b""
        if self._tamer is not None:
            rest += self._tamer.end()
        text = self._lines(rest)
        if self._at_start:
            return text
        self._at_start = True
        return text + b"\n"


def plain(data: bytes) -> str:
    """A job's bytes as text without any escape sequence or control character but tabs and line breaks."""
    text = _SEQUENCES.sub("", data.decode("utf-8", "replace").replace("\r\n", "\n"))
    return "".join(c for c in text if c in "\t\n" or c.isprintable())


def last_line(tail: bytes) -> str:
    """The last line with anything on it, of the end of a job's output; of one that is written over, the newest state."""
    for line in reversed(re.split(rb"[\r\n]+", tail)):
        text = " ".join(plain(line).split())
        if text:
            return text
    return ""


def chunks(fd: int, size: int, most: int) -> Iterator[bytes]:
    """What can be read from `fd`, `size` bytes at a time, `most` together."""
    while most > 0:
        try:
            data = os.read(fd, min(size, most))
        except OSError:
            return  # whoever shows it has something to say afterwards
        if not data:
            return
        most -= len(data)
        yield data


def open_log(path: str, _flags: int = 0) -> int:
    """Open a log to be read: an opener for open(). Whatever a job has put in its place is not followed, nor waited for.

    Raises:
        OSError: it is gone, or something else.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a plain file", path)
    return fd


def read_tail(path: str) -> bytes:
    """The last lines of a log: 200 of them, 64 KiB at most; b"" where it is gone."""
    try:
        with open(path, "rb", opener=open_log) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            data = file.read(_TAIL_BYTES)
    except OSError:
        return b""
    if size > _TAIL_BYTES:
        data = data.partition(b"\n")[2] or data
    lines = data.split(b"\n")
    return b"\n".join(lines[-_TAIL_LINES - (not lines[-1]) :])
