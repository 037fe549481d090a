"""The files that a job file extends, read from the disk for `jobs.load`, which opens none itself."""

from __future__ import annotations

import errno
import os
import stat

_MOST_BYTES = 10 << 20


def read(path: str) -> bytes:
    """The bytes of a job file that another one extends, but no more than tell that it is too large.

    Raises:
        OSError: it can not be read, or is none: a FIFO would be waited for, a device may never end.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a file")
        with open(fd, "rb", closefd=False) as file:  # where it raises, it would not close it
            return file.read(_MOST_BYTES + 1)
    finally:
        os.close(fd)
