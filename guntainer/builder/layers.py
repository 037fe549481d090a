"""What a step has changed, as a folder to stack: an entry of the store, under the step's key.

    builds/<key>[.<ids>]/tree/      what the step has written: an overlay's lower folder
                         opaque/    a whiteout for each folder in it that hides what lies below: see `archive.tree`
                         meta, lock as of every entry of the store

A key is the sha256 of all that the step comes from: the key before it, its own words, what it copies.
"""

from __future__ import annotations

import contextlib
import os
import stat

from guntainer import errors, runfolder
from guntainer.archive import seal
from guntainer.export import saving
from guntainer.export.helper import Helper
from guntainer.export.walking import OPAQUE, Tour, is_opaque
from guntainer.store.lookup import BUILD, read_meta
from guntainer.store.remove import remove_tree
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from guntainer.idmap import Ids
    from guntainer.runfolder import RunFolder
    from guntainer.store.lookup import Lease, Store


def key_of(*words: str) -> str:
    """A key: of any texts without NUL."""
    import hashlib

    return hashlib.sha256("\0".join(words).encode("utf-8", "surrogateescape")).hexdigest()


class _Identity(Tour):
    """What tells whether a folder is as it was: of every entry all that changes when it is changed."""

    def __init__(self) -> None:
        import hashlib

        self.hash = hashlib.sha256()

    def _say(self, name: bytes, status: os.stat_result) -> None:
        numbers = (status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        self.hash.update(b"%d %s\0%r" % (len(name), name, numbers))

    def _entry(self, above: int, name: bytes, whole: bytes) -> int:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return self._enter(above, name, whole)
        self._say(whole, status)
        return -1

    def _folder(self, fd: int, whole: bytes) -> None:
        self._say(whole, os.fstat(fd))


def key_of_folder(path: str) -> str:
    """A key of a folder of the user's, who may change it at any time; "" where it can not be looked at."""
    found = _Identity()
    try:
        with _opened(path) as root:
            found.tour(root)
    except (OSError, errors.GuntainerError):
        return ""
    return found.hash.hexdigest()


class Layer(Value):
    """What a step has left."""

    folder: str
    opaque: bool = False
    entries: int = 0
    """0: nothing."""

    @property
    def lowers(self) -> tuple[str, ...]:
        """Folders to stack, uppermost first."""
        return (f"{self.folder}/tree", *((f"{self.folder}/opaque",) if self.opaque else ()))


class Making:
    """A layer on its way: the folders for overlayfs, where a container expects those of its run folder."""

    def __init__(self, folder: str, run: RunFolder) -> None:
        self.folder = folder
        self.path = run.path
        """For what else a container has beside its layer."""

    def layer(self) -> str:
        """upper/ and work/, anew where a launch is tried again."""
        remove_tree(self.folder)
        try:
            runfolder.make_layer(self.folder)
        except OSError as error:
            raise errors.StoreError(f"{self.folder}: {errors.describe_oserror(error)}") from None
        return self.folder

    def give_back(self, _folder: str) -> bool:
        """A launch that has failed; whoever removes it is told by False."""
        return False


class _Settling(Tour):
    """Takes overlayfs's marks from the folders of a tree, and remembers where they were."""

    def __init__(self) -> None:
        self.counts = {"entries": 0, "size_bytes": 0}
        self.marked: list[bytes] = []

    def _entry(self, above: int, name: bytes, whole: bytes) -> int:
        status = os.stat(name, dir_fd=above, follow_symlinks=False)
        if stat.S_ISDIR(status.st_mode):
            return self._enter(above, name, whole)
        self.counts["entries"] += 1
        self.counts["size_bytes"] += status.st_size
        return -1

    def _folder(self, fd: int, whole: bytes) -> None:
        self.counts["entries"] += bool(whole)
        if is_opaque(fd):
            os.removexattr(fd, OPAQUE)
            # what is in one hides nothing more
            if not self.marked or not whole.startswith(self.marked[-1] + b"/"):
                self.marked.append(whole)


def settle(folder: str) -> dict[str, Any]:
    """In a helper, when nobody uses it any more: make a lower folder of upper/, and of overlayfs's marks an opaque/.

    Returns:
        what its meta says of it.
    """
    os.umask(0)
    os.rename(f"{folder}/upper", f"{folder}/tree")
    remove_tree(f"{folder}/work")
    settling = _Settling()
    with _opened(f"{folder}/tree") as tree:
        settling.tour(tree)
    if settling.marked:
        os.mkdir(f"{folder}/opaque", 0o755)
        with _opened(f"{folder}/opaque") as place:
            for name in settling.marked:
                _hide(place, name)
    return {
        **settling.counts,
        "opaque": bool(settling.marked),
        "seal": seal.seal(f"{folder}/tree", f"{folder}/opaque"),
    }


def _hide(place: int, name: bytes) -> None:
    """A whiteout at a name, and the folders on the way to it: one after the other, a path may be longer than one call takes."""
    *above, last = name.split(b"/")
    fd = os.dup(place)
    try:
        for part in above:
            try:
                os.mkdir(part, 0o755, dir_fd=fd)
            except FileExistsError:
                pass
            below = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
            os.close(fd)
            fd = below
        os.mknod(last, stat.S_IFCHR | 0o600, os.makedev(0, 0), dir_fd=fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


class _Whiteouts(Tour):
    def __init__(self) -> None:
        self.names: list[bytes] = []

    def _entry(self, above: int, name: bytes, whole: bytes) -> int:
        if stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            return self._enter(above, name, whole)
        self.names.append(whole)
        return -1


def opaques(layer: Layer) -> frozenset[bytes]:
    """In a helper: the names of a layer's folders that hide what lies below them."""
    if not layer.opaque:
        return frozenset()
    found = _Whiteouts()
    with _opened(f"{layer.folder}/opaque") as place:
        found.tour(place)
    return frozenset(found.names)


def of_lease(store: Store, lease: Lease) -> Layer:
    """The layer of an entry of the store."""
    entry = store.entry(lease.digest, BUILD)
    meta = read_meta(entry) or {}
    return Layer(folder=entry, opaque=bool(meta.get("opaque")), entries=meta.get("entries", 1))


def read(layer: Layer, ids: Ids, name: str) -> Helper:
    """A helper that gives it as the tar of an image's layer."""

    def work(fd: int) -> dict[str, Any]:
        return saving.tar_of(f"{layer.folder}/tree", fd, layer=True, opaques=opaques(layer))

    return Helper(ids, work, name)
