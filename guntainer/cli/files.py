"""Small files that a command writes for the user: whole or not at all."""

from __future__ import annotations

import errno
import os

from guntainer import errors
from guntainer.reports.writing import is_no_file

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EFBIG)


def write_whole(path: str, text: str, *, replace: bool) -> None:
    """Write a file; a reader sees all of it or none, and one that is there stays what it is if that fails.

    Args:
        replace: one that is there; else it is an error.

    Raises:
        UsageError: it can not be written there, or is there already.
        GuntainerError: there is no room for it.
    """
    try:
        if os.path.isdir(path):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if is_no_file(path):
            _write(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC), text)
        elif replace:
            _replace(path, text)
        else:
            _create(path, text)
    except FileExistsError:
        raise errors.UsageError(f"{path} is there already", hint="name another file, or --force") from None
    except OSError as error:
        kind = errors.GuntainerError if error.errno in _FULL else errors.UsageError
        raise kind(f"{path}: {error.strerror}; it is not written", hint="name a file that can be written") from None


def _write(fd: int, text: str) -> None:
    with open(fd, "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))


def _create(path: str, text: str) -> None:
    new = _new(path, text)
    try:
        os.link(new, path)
    except FileExistsError:
        raise
    except OSError:
        # a file system without hard links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        os.replace(new, path)
        return
    finally:
        _remove(new)


def _replace(path: str, text: str) -> None:
    place = os.path.realpath(path)  # a symlink stays one
    new = _new(place, text)
    try:
        if os.path.exists(place):
            os.chmod(new, os.stat(place).st_mode & 0o777)
        os.replace(new, place)
    finally:
        _remove(new)


def _new(path: str, text: str) -> str:
    """The file under another name, beside the place where it shall be."""
    new = f"{path}.{os.getpid()}.new"
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _write(fd, text)
    except BaseException:
        _remove(new)
        raise
    return new


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
