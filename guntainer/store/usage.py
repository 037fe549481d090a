"""How much of the disk a store takes: blocks, not lengths; a file with several names once, a layer of several images once."""

from __future__ import annotations

import os
import stat

from guntainer.archive.seal import open_below
from guntainer.store.entries import all_entries, listed
from guntainer.store.lookup import IMAGE, KINDS, LAYER
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from guntainer.store.entries import Entry
    from guntainer.store.lookup import Store

_BLOCK = 512  # of st_blocks, whatever the file system has: stat(2)


class Use(Value):
    """What an entry takes."""

    entry: Entry
    own_bytes: int = 0
    """Freed when it is removed: of an image also the layers that no other one is made of."""
    shared_bytes: int = 0
    """Of an image: layers that others are made of as well."""


class Usage(Value):
    """What a store takes."""

    uses: tuple[Use, ...] = ()
    sizes: Mapping[str, int]
    """Bytes of each entry alone, by its place: of an image without its layers."""
    other: tuple[tuple[str, int], ...] = ()
    """(name in the store's folder, bytes) of all that is no entry."""
    total_bytes: int = 0
    unread: int = 0
    """Folders that could not be looked into."""


class _Measure:
    """Of several trees: a file that has a name in two of them counts in the first."""

    def __init__(self) -> None:
        self._seen: set[tuple[int, int]] = set()
        self.unread = 0

    def __call__(self, path: str) -> int:
        """Bytes of a file, or of a folder with all that is in it; never through a link."""
        try:
            status = os.lstat(path)
        except OSError:
            return 0
        if not stat.S_ISDIR(status.st_mode):
            return self._count(status)
        root = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return self._count(status) + self._below(root)
        finally:
            os.close(root)

    def _below(self, root: int) -> int:
        total = 0
        waiting = [""]
        while waiting:
            path = waiting.pop()
            try:
                fd = open_below(root, path)
            except OSError:
                self.unread += 1  # gone meanwhile, or closed to us
                continue
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        try:
                            total += self._count(entry.stat(follow_symlinks=False))
                        except FileNotFoundError:
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(f"{path}/{entry.name}" if path else entry.name)
            finally:
                os.close(fd)
        return total

    def _count(self, status: os.stat_result) -> int:
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            key = (status.st_dev, status.st_ino)
            if key in self._seen:
                return 0
            self._seen.add(key)
        return status.st_blocks * _BLOCK


def measure(store: Store) -> Usage:
    """Look at all of it: for a process that sees what sub-ids own, inside of their namespace."""
    of = _Measure()
    found = all_entries(store)
    sizes = {entry.place: of(f"{store.path}/{entry.place}") for entry in found}
    names = {entry.name: entry for entry in found if entry.kind == LAYER}
    uses = []
    for entry in found:
        layers = [names[name] for name in dict.fromkeys(entry.layers) if name in names]
        shared = sum(sizes[layer.place] for layer in layers if len(layer.images) > 1)
        whole = sizes[entry.place] + sum(sizes[layer.place] for layer in layers)
        uses.append(Use(entry=entry, own_bytes=whole - shared, shared_bytes=shared))
    other = [(name, of(f"{store.path}/{name}")) for name in listed(store.path) if name not in KINDS]
    other = [(name, size) for name, size in other if size]
    kinds = sum(os.lstat(f"{store.path}/{kind}").st_blocks * _BLOCK for kind in KINDS if kind in listed(store.path))
    total = sum(sizes.values()) + sum(size for _, size in other) + kinds
    uses.sort(key=lambda use: (use.entry.kind != IMAGE, -use.own_bytes))
    return Usage(uses=tuple(uses), sizes=sizes, other=tuple(other), total_bytes=total, unread=of.unread)
