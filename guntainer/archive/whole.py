"""A file that appears under its name when it is whole, and replaces what was there by one rename: never half of it."""

from __future__ import annotations

import os

from guntainer import interrupts


class Whole:
    """`with Whole(path) as file:` write to `file.fd`, then `file.keep()`; without that nothing is left.

    It has no name until then, where the file system can do that: O_TMPFILE of open(2). Not even kill -9 leaves it.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        # what a link leads to is replaced, not the link
        self._folder, self._name = os.path.split(os.path.realpath(path))
        self.fd = self._at = -1
        self._new = ""

    def __enter__(self) -> Whole:
        with interrupts.held():
            try:
                self._at = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                self.fd = self._open()
            except OSError as error:
                self.__exit__()
                raise OSError(error.errno, error.strerror, self.path) from None
        return self

    def _open(self) -> int:
        try:
            return os.open(self._folder, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o666)
        except OSError:
            pass  # a file system that has no such files, or what the next call tells as well
        new = _new_name()
        fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666, dir_fd=self._at)
        self._new = new
        return fd

    def keep(self, path: str = "") -> None:
        """Put it into place.

        Args:
            path: another one than was told before, on the same file system.

        Raises:
            OSError: it can not be.
        """
        with interrupts.held():
            try:
                if not self._new:
                    self._new = self._link()
                os.replace(
                    self._new, os.path.abspath(path) if path else self._name, src_dir_fd=self._at, dst_dir_fd=self._at
                )
            except OSError as error:
                raise OSError(error.errno, error.strerror, path or self.path) from None
            self._new = ""

    def _link(self) -> str:
        """Name it: linkat(2) through /proc."""
        new = _new_name()
        # without a descriptor for the source, Python would call link(2), which does not follow that link
        os.link(f"/proc/self/fd/{self.fd}", new, src_dir_fd=self._at, dst_dir_fd=self._at, follow_symlinks=True)
        return new

    def __exit__(self, *_: object) -> None:
        if self._new:
            try:
                os.unlink(self._new, dir_fd=self._at)
            except OSError:
                pass
            self._new = ""
        for fd in (self.fd, self._at):
            if fd >= 0:
                os.close(fd)
        self.fd = self._at = -1


def _new_name() -> str:
    """Of the same length whatever the file's own is: that may be as long as a name can be."""
    return f".guntainer-{os.urandom(8).hex()}.new"
