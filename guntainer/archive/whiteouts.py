"""What a layer removes from those below it, as overlayfs is told: image-spec layer.md "Whiteouts"; overlayfs.rst.

    in the archive      in the tree
    d/.wh.NAME          a character device 0:0 at d/NAME; where the layer has a NAME itself, nothing, or, for a folder, as below
    d/.wh..wh..opq      nothing; but below the tree a second one, `opaque`, is stacked, with a character device 0:0 at d
    d/.wh..wh.*         nothing: aufs's own

A whiteout right below a folder ends its merging there, as an opaque folder is defined, and needs no extended attribute: a
tmpfs has them for users since Linux 6.6 only. A whiteout in a folder that no layer below has would be listed, as a
name behind which there is nothing: overlayfs looks for them only where it merges. So the second tree has all folders that
hold one.

All of it is made when the layer was read to its end, since what it says counts for the layers below alone, wherever it stands.
"""

from __future__ import annotations

import errno
import os

from guntainer import errors
from guntainer.archive.names import parts_of, show

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.archive.tree import Tree

_PREFIX = b".wh."
_OWN = b".wh..wh."
_OPAQUE = b".wh..wh..opq"
_RECORD_BYTES = 200  # of memory that a path takes, beside its bytes
_DEVICE = 0o020000
_MOST_IMPLIED = 4096
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Whiteouts:
    """The whiteouts of one layer, as they are read."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._gone: set[bytes] = set()
        self._opaque: set[bytes] = set()
        self._below: list[bytes] = []  # whiteouts of the second tree
        self._beside: set[bytes] = set()  # folders of the second tree, for whiteouts in the first
        self.count = 0
        """How many the tree and the second one have."""
        self.cut = False
        """Nothing of the layers below is to be seen."""

    @property
    def implied(self) -> list[bytes]:
        """Folders for which the layer has no entry: theirs are the attributes of the folders in the layers below."""
        return sorted(self._tree.implied_names)[:_MOST_IMPLIED]

    def take(self, name: bytes) -> bool:
        """Remember an entry that is a whiteout; False: it is none.

        Raises:
            ArchiveRefused: what it removes is no name, or it goes through a link, or lies in a whiteout.
        """
        parts = parts_of(name)
        if any(part.startswith(_OWN) for part in parts[:-1]):
            return True
        if any(part.startswith(_PREFIX) for part in parts[:-1]):
            raise errors.ArchiveRefused(f"entry {show(name)} lies in a whiteout")
        if not parts or not parts[-1].startswith(_PREFIX):
            return False
        last = parts[-1]
        if last == _OPAQUE:
            self._tree.parent(parts, name)
            self._add(self._opaque, parts[:-1])
        elif not last.startswith(_OWN):
            last = last.removeprefix(_PREFIX)
            if last in (b"", b".", b".."):
                raise errors.ArchiveRefused(f"whiteout {show(name)} is of nothing")
            self._tree.parent(parts, name)
            self._add(self._gone, (*parts[:-1], last))
        return True

    def cover(self, name: bytes) -> None:
        """A folder that came in the place of something else: what the layers below have there is gone."""
        self._add(self._opaque, parts_of(name))

    def _add(self, paths: set[bytes], parts: tuple[bytes, ...]) -> None:
        path = b"/".join(parts)
        if path not in paths:
            self._tree.charge(len(path) + _RECORD_BYTES)
            paths.add(path)

    def write(self) -> None:
        """Make the whiteouts of the tree.

        Raises:
            HostError: the file system, or the kernel, takes none.
        """
        for path in sorted(self._gone):
            kind = self._kind(path)
            if kind == 0o040000:
                self._opaque.add(path)
            elif kind is not None:
                self._gone.discard(path)
        self.cut = b"" in self._opaque
        if self.cut:
            return
        for path in sorted(self._gone - self._opaque):
            if not self._is_covered(path):
                self._make(path)
        self._below = [
            path for path in sorted(self._opaque) if not self._is_covered(path) and self._kind(path) == 0o040000
        ]
        self.count += len(self._below)

    def _kind(self, path: bytes) -> int | None:
        """The kind of what the tree has there; None: nothing, or there can be nothing."""
        above, _, last = path.rpartition(b"/")
        try:
            folder = self._tree.existing(above)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return None
            raise
        try:
            return os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode & 0o170000
        except FileNotFoundError:
            return None
        finally:
            os.close(folder)

    def _is_covered(self, path: bytes) -> bool:
        """Whether it lies in an opaque folder."""
        at = path.rfind(b"/")
        while at > 0:
            if path[:at] in self._opaque:
                return True
            at = path.rfind(b"/", 0, at)
        return False

    def _make(self, path: bytes) -> None:
        above, _, last = path.rpartition(b"/")
        try:
            folder = self._tree.existing(above)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                return  # the folder was replaced after it: so nothing of those below is left there anyway
            raise
        try:
            _mknod(last, folder, path)
        finally:
            os.close(folder)
        self.count += 1
        if above:
            self._beside.add(above)

    def write_opaque(self, folder: str) -> bool:
        """Make the second tree, to be stacked below the first, as `folder`/opaque; returns whether there is one.

        Raises:
            HostError: as `write`.
        """
        if self.cut or not (self._below or self._beside):
            return False
        os.mkdir(f"{folder}/opaque", 0o755)
        root = os.open(f"{folder}/opaque", _FOLDER)
        try:
            for path in sorted(self._beside):
                os.close(_folders(root, path))
            for path in self._below:
                above, _, last = path.rpartition(b"/")
                fd = _folders(root, above)
                try:
                    _mknod(last, fd, path)
                finally:
                    os.close(fd)
        finally:
            os.close(root)
        return True


def _folders(root: int, path: bytes) -> int:
    """The folder of that path below an open one, made with all on the way; for the caller to close."""
    fd = os.dup(root)
    for part in path.split(b"/") if path else ():
        above = fd
        try:
            try:
                os.mkdir(part, 0o755, dir_fd=above)
            except FileExistsError:
                pass
            fd = os.open(part, _FOLDER, dir_fd=above)
        finally:
            os.close(above)
    return fd


def _mknod(name: bytes, folder: int, path: bytes) -> None:
    """A whiteout: mknod(2) of 0:0 needs no privilege since Linux 5.8."""
    try:
        os.mknod(name, _DEVICE, 0, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise errors.HostError(
            f"a whiteout of {show(path)} can not be made: {error.strerror}",
            hint="give a store on another file system: --store DIR",
            probe="store",
        ) from None
