"""The files that reports are written to: whole, or not there. What can not be written is found out before any job starts."""

from __future__ import annotations

import errno
import os

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_OPEN_ALREADY = ("/dev/fd/", "/dev/std", "/proc/")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW  # `.new` may be anybody's link


def try_to_write(path: str, *, option: str) -> None:
    """Make the file that a report is written to before it gets its name, and remove it again.

    Args:
        option: what the user called it by, for the message.

    Raises:
        UsageError: that fails.
    """
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if is_no_file(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        new = f"{os.path.realpath(path)}.new"
        os.close(os.open(new, _NEW, 0o666))
        os.unlink(new)
    except FileNotFoundError:
        folder = os.path.dirname(path) or "."
        raise errors.UsageError(f"{option} {path}: {folder}: No such file or directory", hint="make it first") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in it
        why = getattr(error, "strerror", None) or str(error)
        raise errors.UsageError(f"{option} {path!a}: {why}", hint="name a file that can be written") from None


def is_no_file(path: str) -> bool:
    """A pipe, a terminal, /dev/null, /dev/fd/3: written to as it is, since nothing else can take its name."""
    return os.path.exists(path) and (not os.path.isfile(path) or os.path.abspath(path).startswith(_OPEN_ALREADY))


def write(path: str, pieces: Iterable[bytes], *, option: str) -> None:
    """Write a report, so that a reader sees the whole of it or none. A pipe is waited for.

    Raises:
        GuntainerError: it can not be written; nothing of it stays.
    """
    try:
        if is_no_file(path):
            # standard output may be a socket, which can not be opened
            fd = os.dup(1) if path == "/dev/stdout" else os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            _write_and_close(fd, pieces)
            return
        place = os.path.realpath(path)  # a symlink stays one
        new = f"{place}.new"
        try:
            _write_and_close(os.open(new, _NEW, 0o666), pieces)
            os.replace(new, place)
        except BaseException:
            _remove(new)
            raise
    except BrokenPipeError:
        raise
    except OSError as error:
        raise errors.GuntainerError(f"{option} {path}: {error.strerror}; the report is not written") from None


def _write_and_close(fd: int, pieces: Iterable[bytes]) -> None:
    try:
        for piece in pieces:
            _write_all(fd, piece)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass
