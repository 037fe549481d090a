"""Making room, and taking things out by name: what is leased stays, whatever is asked."""

from __future__ import annotations

import errno
import fcntl
import os
import time

from guntainer.store.entries import LINKS, USED, all_entries, goal_of, listed, named_layers, use_of
from guntainer.store.lookup import CACHE, IMAGE, KINDS, LAYER
from guntainer.store.remove import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from guntainer.store.entries import Entry
    from guntainer.store.lookup import Store
    from guntainer.store.usage import Usage

_DEAD_S = 3600.0  # a link that was made this long ago and has no name yet is a dead process's


class _Pruning:
    """One pass over the entries as they were found; `gone` is what went, or would go in a dry run."""

    def __init__(self, store: Store, *, dry: bool) -> None:
        self._store = store
        self._dry = dry
        self._left = {entry.place: entry for entry in all_entries(store)}
        self.gone: list[Entry] = []

    def left(self, kinds: tuple[str, ...] = USED) -> list[Entry]:
        """What is there still, the longest unused first."""
        return sorted((entry for entry in self._left.values() if entry.kind in kinds), key=lambda entry: entry.used_at)

    def size(self, usage: Usage) -> int:
        """Bytes on the disk of all that is left of a store that was measured before."""
        return usage.total_bytes - sum(usage.sizes.get(entry.place, 0) for entry in self.gone)

    def remove(self, entry: Entry) -> None:
        """An entry, unless it is leased; of an image also the layers that no other one is made of."""
        if not self._take(entry):
            return
        for name in entry.layers:
            layer = self._left.get(f"{LAYER}/{name}")
            if layer is not None:
                self.remove_layer(layer)

    def remove_layer(self, layer: Entry) -> None:
        if not any(layer.name in image.layers for image in self.left((IMAGE,))):
            self._take(layer)

    def _take(self, entry: Entry) -> bool:
        taken = not self._is_locked(entry) if self._dry else remove(self._store, entry)
        if taken:
            del self._left[entry.place]
            self.gone.append(entry)
        return taken

    def _is_locked(self, entry: Entry) -> bool:
        """Of a layer: by itself, an image that is in use is still left."""
        return use_of(f"{self._store.path}/{entry.place}/lock")[1]


def prune(
    store: Store,
    *,
    older_than_s: float | None = None,
    everything: bool = False,
    keep_bytes: int | None = None,
    dry: bool = False,
) -> list[Entry]:
    """Remove what can not be used, and what else is asked for; returns what went.

    Entries that are not whole, layers that no image is made of, links to what is gone, and what dead unpackers have left
    behind go always. An entry that is leased stays, and with it its layers.

    Args:
        older_than_s: and what was not used for so long.
        everything: and all the rest.
        keep_bytes: and the longest unused, until the store takes no more of the disk than this, or nothing else can go.
            For a process that sees what sub-ids own, as `usage.measure`.
        dry: nothing is removed; what would be is returned.
    """
    measured = None
    if keep_bytes is not None:
        from guntainer.store import usage

        measured = usage.measure(store)
    pruning = _Pruning(store, dry=dry)
    now = time.time()
    for entry in pruning.left(KINDS):
        old = older_than_s is not None and now - entry.used_at >= older_than_s
        if entry.kind == LAYER:
            continue
        if everything or old or not entry.whole:
            pruning.remove(entry)
    for layer in pruning.left((LAYER,)):
        pruning.remove_layer(layer)
    if measured is not None and keep_bytes is not None:
        for entry in pruning.left():
            if pruning.size(measured) <= keep_bytes:
                break
            pruning.remove(entry)
    if not dry:
        tidy(store)
    return pruning.gone


def remove(store: Store, entry: Entry) -> bool:
    """Remove an entry, and nothing else; False where it is leased, or, a layer, an image is made of it."""
    needed = (lambda: entry.name in named_layers(store)) if entry.kind == LAYER else None
    return remove_entry(f"{store.path}/{entry.place}", needed)


def take_out(store: Store, chosen: Iterable[Entry]) -> list[Entry]:
    """Remove entries, with the layers of images that no other image is made of; returns those that are still there."""
    stay = []
    for entry in chosen:
        if not remove(store, entry):
            stay.append(entry)
            continue
        for name in entry.layers:
            remove(store, entry.replace(kind=LAYER, name=name))
    tidy(store)
    return stay


def remove_entry(path: str, needed: Callable[[], bool] | None = None) -> bool:
    """Remove an entry unless it is leased: its meta first, so that a crash leaves no entry, then its lock, then the rest.

    Args:
        needed: asked when nobody can lease it any more; True: it stays.

    Returns:
        False where it is leased, or needed, or another one's already, or can not be removed.
    """
    try:
        lock = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(lock).st_nlink:
            return False  # a lock without a name is that of an entry which another process has just removed
        if needed is not None and needed():
            return False
        if os.path.basename(os.path.dirname(path)) == CACHE:
            _remove_folder(path)
        else:
            _unlink(path, "meta", "lock")
            remove_tree(path)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _remove_folder(path: str) -> None:
    """Remove a folder known by a key. Whoever wants it makes it anew, so its lock tells that it goes until nothing else is left."""
    _unlink(path, "meta")
    for name in listed(path):
        if name != "lock":
            remove_tree(f"{path}/{name}")
    _unlink(path, "lock")
    try:
        os.rmdir(path)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.ENOENT):
            raise  # else somebody has it already, with a new lock


def _unlink(path: str, *names: str) -> None:
    for name in names:
        try:
            os.unlink(f"{path}/{name}")
        except FileNotFoundError:
            pass


def tidy(store: Store) -> None:
    """Links that lead nowhere, unpacks of the dead."""
    for folder in LINKS:
        for name in listed(f"{store.path}/{folder}"):
            link = f"{store.path}/{folder}/{name}"
            try:
                if _is_dead(store, link, name):
                    os.unlink(link)
            except OSError:
                continue
    remove_dead_unpacks(store)


def _is_dead(store: Store, link: str, name: str) -> bool:
    if name.startswith("."):  # on its way to its name
        return time.time() - os.lstat(link).st_mtime > _DEAD_S
    kind, digest = goal_of(os.readlink(link))
    # looked for now: what is new was linked after it was put into place
    return not any(one.partition(".")[0] == digest for one in listed(f"{store.path}/{kind}"))


def remove_dead_unpacks(store: Store) -> None:
    """Remove unpacks under way whose process is gone; one that lives holds its lock."""
    for path, lock in _dead_incoming(store):
        try:
            remove_tree(path)
            os.unlink(f"{path}.lock")
        except OSError:
            pass
        os.close(lock)


def _dead_incoming(store: Store) -> Iterator[tuple[str, int]]:
    """Unpacks whose process is gone: (folder, the lock that is now ours)."""
    folder = f"{store.path}/incoming"
    for name in {name.removesuffix(".lock") for name in listed(folder)}:
        try:
            lock = os.open(f"{folder}/{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            continue  # of a store that can only be read, or full: nobody is kept from running by what is left over
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        if not os.fstat(lock).st_nlink:
            os.close(lock)  # its holder has just finished; the name may be another one's already
            continue
        yield f"{folder}/{name}", lock
