"""A file that is written whole or not at all, in a folder that is open already.

Until it is whole it is called `<name>.new`. Whatever lies under either name, no link is followed and no FIFO is waited for.
"""

from __future__ import annotations

import os
import stat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


def write(folder: int, name: str, pieces: Iterable[bytes], *, mode: int = 0o666, keep_links: bool = False) -> None:
    """Write it.

    Args:
        folder: a descriptor.
        mode: before the umask.
        keep_links: as `try_to_write`.

    Raises:
        OSError: it can not be written; what was there stays, and nothing else.
    """
    new = f"{name}.new"
    fd = _opened(folder, new, mode, keep_links=keep_links)
    try:
        write_and_close(fd, pieces)
        os.replace(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        try:
            os.unlink(new, dir_fd=folder)
        except OSError:
            pass
        raise


def try_to_write(folder: int, name: str, *, mode: int = 0o666, keep_links: bool = False) -> None:
    """Make the file under its other name, and remove it again.

    Args:
        keep_links: a link under that name may be anybody's: it stays, and is a reason not to write.

    Raises:
        OSError: that fails.
    """
    os.close(_opened(folder, f"{name}.new", mode, keep_links=keep_links))
    os.unlink(f"{name}.new", dir_fd=folder)


def _opened(folder: int, name: str, mode: int, *, keep_links: bool) -> int:
    """A new file in place of one that was left by who was killed, or of what somebody else has put there."""
    try:
        return os.open(name, _FLAGS, mode, dir_fd=folder)
    except FileExistsError:
        if keep_links and stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise
        os.unlink(name, dir_fd=folder)
    return os.open(name, _FLAGS, mode, dir_fd=folder)


def write_and_close(fd: int, pieces: Iterable[bytes]) -> None:
    """Write all of them to an open file."""
    try:
        for piece in pieces:
            rest = memoryview(piece)
            while rest:
                rest = rest[os.write(fd, rest) :]
    finally:
        os.close(fd)
