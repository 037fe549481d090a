"""A folder → entries of a tar: the tree as it is, or a writable layer of overlayfs as a layer of an OCI image.

The walk holds one folder open, goes up by `..` and looks whether that is where it came from: trees may be deeper than
descriptors are many. What changes meanwhile is an error, not a half.
"""

from __future__ import annotations

import os
import stat

from guntainer import errors
from guntainer.archive.names import show
from guntainer.store import filedata

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from guntainer.archive.writing import Writer

    Identity = tuple[int, int]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_BLOCK = 1 << 20
OPAQUE = "user.overlay.opaque"
_MARK = b".wh."
_MARK_OPAQUE = b".wh..wh..opq"
_KEPT = ("user.", "security.capability")
_OVERLAYS = "user.overlay."
_DEEPEST_POINT = 200


class Tour:
    """A walk through a tree, a folder before what is in it, and names in their order."""

    def tour(self, root: int) -> None:
        """Walk it all.

        Args:
            root: an open folder.

        Raises:
            GuntainerError: it changed meanwhile.
            OSError: it can not be read.
        """
        fd = os.open(".", _FOLDER, dir_fd=root)
        try:
            self._folder(fd, b"")
            # (its name, what is left in it, its identity) of each folder on the way
            ways = [(b"", _listed(fd), _identity(fd))]
            while ways:
                above, names, _ = ways[-1]
                if not names:
                    ways.pop()
                    if ways:
                        fd = _up(fd, ways[-1][2], above)
                    continue
                name = names.pop()
                whole = above + b"/" + name if above else name
                below = self._entry(fd, name, whole)
                if below >= 0:
                    os.close(fd)
                    fd = below
                    ways.append((whole, _listed(fd), _identity(fd)))
        except FileNotFoundError as error:
            raise _changed(os.fsencode(error.filename or b"it")) from None
        finally:
            os.close(fd)

    def _entry(self, above: int, name: bytes, whole: bytes) -> int:
        """Look at what is called `name` in the open folder `above`; returns a descriptor of a folder to go into, else -1."""
        raise NotImplementedError

    def _enter(self, above: int, name: bytes, whole: bytes) -> int:
        fd = os.open(name, _FOLDER, dir_fd=above)
        try:
            self._folder(fd, whole)
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _folder(self, fd: int, whole: bytes) -> None:
        """Look at a folder, before what is in it."""


class Walk(Tour):
    """A walk that writes what it sees.

    Args:
        layer: whiteouts and opaque folders are what overlayfs means by them: image-spec, layer.md, "Whiteouts".
        opaques: names of folders that are opaque without a mark of overlayfs's.
        points: names of mount points that the launch has made: left out where they are still empty.
    """

    def __init__(
        self,
        writer: Writer,
        *,
        layer: bool = False,
        opaques: frozenset[bytes] = frozenset(),
        points: frozenset[bytes] = frozenset(),
    ) -> None:
        self._writer = writer
        self._layer = layer
        self._opaques = opaques
        self._points = points
        self._names: dict[Identity, bytes] = {}
        self._counts = dict.fromkeys(("entries", "size_bytes", "devices", "sockets", "marks"), 0)

    def run(self, path: str) -> dict[str, int]:
        """Walk it all; returns what was written, and what was not: devices, sockets, names that a layer can not have.

        Raises:
            GuntainerError: it changed meanwhile.
            OSError: it can not be read, or the archive not written.
        """
        root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self.tour(root)
        finally:
            os.close(root)
        return self._counts

    def _entry(self, above: int, name: bytes, whole: bytes) -> int:
        """Write one entry; returns a descriptor of it where it is a folder, else -1."""
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        mode = status.st_mode
        if whole in self._points and self._is_bare(above, name, whole, status, 0):
            return -1
        if self._layer and name.startswith(_MARK):
            self._counts["marks"] += 1
            return -1
        if stat.S_ISDIR(mode):
            return self._enter(above, name, whole)
        if stat.S_ISCHR(mode) and self._layer and status.st_rdev == 0:
            head, _, last = whole.rpartition(b"/")
            self._whole(head + b"/" + _MARK + last if head else _MARK + last, status, stat.S_IFREG)
        elif stat.S_ISSOCK(mode):
            self._counts["sockets"] += 1
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            self._counts["devices"] += 1
        elif self._is_linked(status, whole):
            self._whole(whole, status, 0, link=self._names[(status.st_dev, status.st_ino)])
        elif stat.S_ISREG(mode):
            self._file(above, name, whole)
        elif stat.S_ISLNK(mode):
            self._whole(whole, status, stat.S_IFLNK, link=os.fsencode(os.readlink(name, dir_fd=above)))
        else:
            self._whole(whole, status, stat.S_IFIFO)
        return -1

    def _is_linked(self, status: os.stat_result, whole: bytes) -> bool:
        """Whether another name of the same file was written before."""
        if status.st_nlink < 2:
            return False
        return self._names.setdefault((status.st_dev, status.st_ino), whole) != whole

    def _is_bare(self, above: int, name: bytes, whole: bytes, status: os.stat_result, depth: int) -> bool:
        """Whether a mount point holds nothing but mount points that hold nothing."""
        if not stat.S_ISDIR(status.st_mode):
            return stat.S_ISREG(status.st_mode) and status.st_size == 0
        fd = os.open(name, _FOLDER, dir_fd=above)
        try:
            for one in map(os.fsencode, os.listdir(fd)):
                below = whole + b"/" + one
                if below not in self._points or depth > _DEEPEST_POINT:
                    return False
                if not self._is_bare(fd, one, below, os.stat(one, dir_fd=fd, follow_symlinks=False), depth + 1):
                    return False
        finally:
            os.close(fd)
        return True

    # -- entries

    def _whole(self, name: bytes, status: os.stat_result, kind: int, link: bytes = b"") -> None:
        """An entry without bytes."""
        self._begin(name, status, kind, link=link)
        self._writer.end()

    def _begin(self, name: bytes, status: os.stat_result, kind: int, **more: Any) -> None:
        self._counts["entries"] += 1
        self._writer.begin(
            name,
            kind,
            stat.S_IMODE(status.st_mode),
            mtime_ns=status.st_mtime_ns,
            owner=(status.st_uid, status.st_gid),
            **more,
        )

    def _folder(self, fd: int, whole: bytes) -> None:
        status = os.fstat(fd)
        self._begin(whole + b"/" if whole else b"./", status, stat.S_IFDIR, xattrs=_xattrs(fd))
        self._writer.end()
        if self._layer and (whole in self._opaques or is_opaque(fd)):
            self._whole(whole + b"/" + _MARK_OPAQUE if whole else _MARK_OPAQUE, status, stat.S_IFREG)

    def _file(self, above: int, name: bytes, whole: bytes) -> None:
        fd = os.open(name, _FILE, dir_fd=above)
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode):
                raise _changed(whole)
            size = status.st_size
            # fewer blocks than bytes: there are holes, or its file system compresses
            extents = list(_extents(fd, size)) if status.st_blocks * 512 < size else [(0, size)]
            sparse = extents if extents != [(0, size)] else None
            self._begin(whole, status, stat.S_IFREG, size=size, extents=sparse, xattrs=_xattrs(fd))
            at = 0
            for start, length in extents:
                self._writer.hole(start - at)
                self._bytes(fd, start, length, whole)
                at = start + length
            self._writer.hole(size - at)
            self._writer.end()
            after = os.fstat(fd)
            if (after.st_size, after.st_mtime_ns) != (size, status.st_mtime_ns):
                raise _changed(whole)
            self._counts["size_bytes"] += size
        finally:
            os.close(fd)

    def _bytes(self, fd: int, at: int, length: int, whole: bytes) -> None:
        while length:
            data = os.pread(fd, min(length, _BLOCK), at)
            if not data:
                raise _changed(whole)
            self._writer.data(data)
            at += len(data)
            length -= len(data)


def _listed(fd: int) -> list[bytes]:
    """Its names, the last of them first: the same tree gives the same archive."""
    return sorted(map(os.fsencode, os.listdir(fd)), reverse=True)


def _identity(fd: int) -> Identity:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _up(fd: int, expected: Identity, name: bytes) -> int:
    """The folder above; `fd` is closed then."""
    above = os.open("..", _FOLDER, dir_fd=fd)
    if _identity(above) != expected:
        os.close(above)
        raise _changed(name)
    os.close(fd)
    return above


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has bytes, as (start, length). At least one, which may be empty."""
    end = 0
    for start, end in filedata.extents(fd, size):
        yield start, end - start
    if end < size:
        yield size, 0  # libarchive is told of a last hole so, and of a file that is nothing else


def _xattrs(fd: int) -> list[tuple[bytes, bytes]]:
    """Those that are the rootfs's own: not overlayfs's, not what a security module of the host has put on it."""
    try:
        names = os.listxattr(fd)
    except OSError:
        return []  # a file system without any
    kept = sorted(name for name in names if name.startswith(_KEPT) and not name.startswith(_OVERLAYS))
    return [(os.fsencode(name), os.getxattr(fd, name)) for name in kept]


def is_opaque(fd: int) -> bool:
    """Whether overlayfs has marked a folder so that nothing below it is seen."""
    try:
        return os.getxattr(fd, OPAQUE) == b"y"
    except OSError:
        return False


def _changed(name: bytes) -> errors.GuntainerError:
    return errors.GuntainerError(f"{show(name)} changed while it was written", hint="nothing was kept; run it again")
