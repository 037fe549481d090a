"""Hard links of an archive: both names are looked up without following anything, and a target may come after its link."""

from __future__ import annotations

import errno
import os

from guntainer import errors
from guntainer.archive.names import parts_of, show
from guntainer.archive.tree import RECORD_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.archive.tree import Tree

_PASSES = 4  # over hard links to hard links that all came before their targets


class Links:
    """The hard links of a tree.

    Args:
        layer: what is wrong with one is said of a layer.
    """

    def __init__(self, tree: Tree, *, layer: bool) -> None:
        self._tree = tree
        self._layer = layer
        self._pending: list[tuple[bytes, bytes]] = []

    def add(self, name: bytes, target: bytes) -> bool:
        """A hard link; both names are looked up without following anything.

        Returns:
            whether it is there: where its target is not yet, it is made by `make_late`.
        """
        self._tree.flush()
        goal = parts_of(target, f"hard link {show(name)} to")
        if not goal:
            raise errors.ArchiveRefused(f"hard link {show(name)} to {show(target)} is a link to a folder")
        folder, last, parts = self._tree.place(name)
        if self._link(name, target, goal):
            return True
        # a name of its own from here on, as if it were there: a later entry replaces it
        self._tree.clear(folder, last, parts)
        self._tree.charge(len(target) + RECORD_BYTES)
        self._pending.append((name, target))
        return False

    def _link(self, name: bytes, target: bytes, goal: tuple[bytes, ...]) -> bool:
        folder, last, parts = self._tree.place(name)
        try:
            above = self._above(goal, name, target)
        except FileNotFoundError:
            return False
        try:
            kind = os.stat(goal[-1], dir_fd=above, follow_symlinks=False).st_mode & 0o170000
            if goal == parts:
                return True
            if kind == 0o040000:
                raise errors.ArchiveRefused(f"hard link {show(name)} to {show(target)} is a link to a folder")
            try:
                os.link(goal[-1], last, src_dir_fd=above, dst_dir_fd=folder, follow_symlinks=False)
            except FileExistsError:
                self._tree.clear(folder, last, parts)
                os.link(goal[-1], last, src_dir_fd=above, dst_dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return False
        finally:
            os.close(above)
        return True

    def _above(self, goal: tuple[bytes, ...], name: bytes, target: bytes) -> int:
        try:
            return self._tree.existing(b"/".join(goal[:-1]))
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.ENOTDIR):
                raise
            why = "goes through a symbolic link" if error.errno == errno.ELOOP else "goes through a file"
            raise errors.ArchiveRefused(f"hard link {show(name)} to {show(target)}, which {why}") from None

    def make_late(self) -> None:
        """Make those that came before their targets, the last first: the usual chain needs one pass, a loop never ends.

        Raises:
            ArchiveRefused: one of them leads to nothing.
        """
        self._tree.flush()
        left = self._pending[::-1]
        for _ in range(_PASSES):
            left = [(name, target) for name, target in left if not self._link_late(name, target)]
        if left:
            name, target = left[-1]
            where = "this layer" if self._layer else "the archive"
            raise errors.ArchiveRefused(f"hard link {show(name)} to {show(target)}, which is not in {where}")

    def _link_late(self, name: bytes, target: bytes) -> bool:
        folder, last, _ = self._tree.place(name)
        try:
            os.stat(last, dir_fd=folder, follow_symlinks=False)
        except FileNotFoundError:
            return self._link(name, target, parts_of(target))
        return True  # a later entry has taken the name
