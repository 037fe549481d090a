"""What a store holds, and making room: what is leased stays, whatever is asked."""

from __future__ import annotations

import fcntl
import os
import time

from guntainer.store.lookup import read_meta
from guntainer.store.remove import remove_tree
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from guntainer.store.lookup import Store


class Entry(Value):
    """One unpacked archive."""

    name: str
    """Of its folder: the digest, and what stands for the map of ids."""
    digest: str
    ids: str = ""
    """Under which map of ids it was unpacked."""
    size_bytes: int = 0
    """Of the archive's files, as unpacked."""
    used_at: float = 0.0
    """Seconds since the epoch of the last lease."""
    sources: tuple[str, ...] = ()
    in_use: bool = False
    whole: bool = True


def entries(store: Store) -> list[Entry]:
    """All entries, the last used first."""
    found = [_entry(store, name) for name in _names(f"{store.path}/rootfs")]
    return sorted(found, key=lambda entry: -entry.used_at)


def _names(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _entry(store: Store, name: str) -> Entry:
    path = f"{store.path}/rootfs/{name}"
    meta = read_meta(path)
    used_at = 0.0
    in_use = False
    try:
        lock = os.open(f"{path}/lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        pass
    else:
        used_at = os.fstat(lock).st_mtime
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            in_use = True
        os.close(lock)
    meta = meta or {}
    return Entry(
        name=name,
        digest=name.partition(".")[0],
        ids=meta.get("ids", "") or "single",
        size_bytes=meta.get("size_bytes", 0),
        used_at=used_at,
        sources=tuple(meta.get("sources", ())),
        in_use=in_use,
        whole=bool(meta),
    )


def prune(store: Store, *, older_than_s: float | None = None, everything: bool = False) -> list[Entry]:
    """Remove entries that are not whole, and those not used for `older_than_s` seconds, or all; returns what went.

    An entry that is leased stays. What dead unpackers have left behind, and links to entries that are gone, go always.
    """
    removed = []
    for entry in entries(store):
        old = older_than_s is not None and time.time() - entry.used_at >= older_than_s
        if (everything or old or not entry.whole) and remove_entry(f"{store.path}/rootfs/{entry.name}"):
            removed.append(entry)
    _tidy(store)
    return removed


def remove_entry(path: str) -> bool:
    """Remove an entry unless it is leased: its meta first, so that a crash leaves no entry, then its lock, then the rest.

    Returns:
        False where it is leased, or another one's already, or can not be removed.
    """
    try:
        lock = os.open(f"{path}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(lock).st_nlink:
            return False  # a lock without a name is that of an entry which another process has just removed
        for name in ("meta", "lock"):
            try:
                os.unlink(f"{path}/{name}")
            except FileNotFoundError:
                pass
        remove_tree(path)
    except OSError:
        return False
    finally:
        os.close(lock)
    return True


def _tidy(store: Store) -> None:
    kept = {name.partition(".")[0] for name in _names(f"{store.path}/rootfs")}
    for name in _names(f"{store.path}/index"):
        link = f"{store.path}/index/{name}"
        try:
            if os.readlink(link) not in kept:
                os.unlink(link)
        except OSError:
            continue
    remove_dead_unpacks(store)


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
    for name in {name.removesuffix(".lock") for name in _names(folder)}:
        lock = os.open(f"{folder}/{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            continue
        if not os.fstat(lock).st_nlink:
            os.close(lock)  # its holder has just finished; the name may be another one's already
            continue
        yield f"{folder}/{name}", lock
