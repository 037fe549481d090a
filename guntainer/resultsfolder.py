"""The results folder of a batch as an open thing, for whoever writes there.

    DIR/.lock               held (flock) by the batch that writes there
    DIR/batch.json          see `reports.batchfile`
    DIR/<job's folder>/…    see `results`, `collecting`

A job may have been given a folder of the host's in which this one lies, and move, replace or link whatever it finds there. So
the folder is opened once, before any container lives, and everything is named from there: no link is followed.
"""

from __future__ import annotations

import errno
import os

from guntainer.kernel import abi, syscalls

_HERE = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_SYMLINKS
_NEW = os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK | os.O_NOCTTY  # a FIFO is not waited for


def below(folder: int, name: str, *, shown: str = "") -> int:
    """An O_PATH descriptor of a folder in an open one, made where it is missing.

    Args:
        name: may have several parts, of which only the last one may be missing.
        shown: how messages name it.

    Raises:
        OSError: something else is there, as a link is.
    """
    flags = os.O_PATH | os.O_DIRECTORY
    try:
        try:
            return syscalls.openat2(folder, name, flags, resolve=_HERE)
        except FileNotFoundError:
            pass
        try:
            os.mkdir(name, dir_fd=folder)
        except FileExistsError:
            pass  # somebody else made it
        return syscalls.openat2(folder, name, flags, resolve=_HERE)
    except OSError as error:
        raise _named(error, shown or name) from None


def _named(error: OSError, path: str) -> OSError:
    if error.errno == errno.ELOOP:
        return NotADirectoryError(errno.ENOTDIR, "is a link", path)
    return OSError(error.errno, error.strerror, path)


class ResultsFolder:
    """One of them.

    Raises:
        OSError: it can neither be opened nor made.
    """

    def __init__(self, path: str) -> None:
        os.makedirs(path, exist_ok=True)
        self.path = path
        self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self.lock = -1
        mode = os.fstat(self.fd).st_mode
        self._mode = mode & 0o777 & ~(_umask() | (0o022 if mode & 0o1002 else 0))

    def __repr__(self) -> str:
        return f"ResultsFolder({self.path!r}, fd={self.fd})"

    def close(self) -> None:
        """Let go of it, and of its lock; does nothing the second time."""
        for fd in (self.fd, self.lock):
            if fd >= 0:
                os.close(fd)
        self.fd = self.lock = -1

    def below(self, name: str) -> int:
        """As `below`."""
        return below(self.fd, name, shown=f"{self.path}/{name}")

    def begin(self, name: str) -> None:
        """Make a job's folder where it is missing. Until `end` nobody else looks into it.

        A job's log is its container's stdout, whose mode it can change: to that of a program which runs as the caller.

        Raises:
            OSError: something else is there.
        """
        try:
            os.mkdir(name, 0o700, dir_fd=self.fd)
            return  # most are new
        except FileExistsError:
            pass
        fd = self.below(name)
        try:
            _set_mode(fd, 0o700)
        finally:
            os.close(fd)

    def end(self, fd: int) -> None:
        """Whoever may look into the results folder may look into a job's as well. Nobody else writes there, whoever may to the first.

        Args:
            fd: of the job's folder.
        """
        _set_mode(fd, self._mode)

    def open(self, name: str, flags: int) -> int:
        """Open a file to be written, made where it is missing. It may be a FIFO or a device: that is the caller's to look at.

        Raises:
            OSError: it can not be opened, or a link is on the way.
        """
        try:
            return syscalls.openat2(self.fd, name, _NEW | flags, resolve=_HERE, mode=0o644)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{self.path}/{name}") from None

    def find(self, name: str) -> int:
        """An O_PATH descriptor of whatever is there, no link on the way."""
        try:
            return syscalls.openat2(self.fd, name, os.O_PATH | os.O_NOFOLLOW, resolve=_HERE)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{self.path}/{name}") from None

    def moved(self) -> str:
        """Where the folder is now, where something else, or nothing, has its name; "" where it is in its place."""
        try:
            here = os.stat(self.path)
        except OSError:
            here = None
        ours = os.fstat(self.fd)
        if here is not None and (here.st_dev, here.st_ino) == (ours.st_dev, ours.st_ino):
            return ""
        return os.readlink(f"/proc/self/fd/{self.fd}")


def _umask() -> int:
    """That of this process: proc(5), Linux 4.7. umask(2) would change it, for other threads too."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as file:
        return next((int(line[6:], 8) for line in file if line.startswith("Umask:")), 0o022)


def _set_mode(fd: int, mode: int) -> None:
    """Of a folder; where it is another user's, that is for that user to say."""
    is_mode = os.fstat(fd).st_mode & 0o7777
    if is_mode & 0o777 != mode:
        try:
            os.chmod(f"/proc/self/fd/{fd}", (is_mode & 0o2000) | mode)
        except PermissionError:
            pass
