"""Where an archive is to go, as the user has named it; what is wrong with that is told before anything runs."""

from __future__ import annotations

import os
import stat

from guntainer import errors
from guntainer.archive.formats import TARS, filter_of
from guntainer.value import Value

STDOUT = "-"


class Output(Value):
    """An archive to be written."""

    path: str
    """STDOUT, or a path."""
    filter: str = ""
    """What it is compressed with, as libarchive names it; "": nothing."""


def parse(text: str) -> Output:
    """OUT.tar[.gz|.bz2|.xz|.zst|.lz4], or `-`: a tar to stdout.

    Raises:
        UsageError: it can not be written there.
    """
    if text == STDOUT:
        if os.isatty(1):
            raise errors.UsageError(
                "-: an archive is not written to a terminal", hint="pass it on: … | gzip > out.tar.gz"
            )
        return Output(path=STDOUT)
    chosen = filter_of(text)
    if chosen is None:
        known = ", ".join(TARS)
        raise errors.UsageError(f"{text or 'nothing'}: unknown kind of archive; known are {known}")
    check_place(text)
    return Output(path=text, filter=chosen)


def check_place(path: str) -> None:
    """Whether a file can be put there.

    Raises:
        UsageError: it can not.
    """
    real = os.path.realpath(path)
    folder = os.path.dirname(real)
    if not os.path.isdir(folder):
        raise errors.UsageError(f"{path}: the folder {folder} does not exist", hint="make it first")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise errors.UsageError(f"{path}: the folder {folder} can not be written")
    try:
        mode = os.stat(real).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise errors.UsageError(f"{path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        what = "is a folder" if stat.S_ISDIR(mode) else "is there, and is no file"
        raise errors.UsageError(f"{path} {what}: it is not replaced")
