"""What a store holds, looked at without leasing anything: so all of it may be gone, or in use, a moment later."""

from __future__ import annotations

import errno
import fcntl
import os

from guntainer.store.lookup import BUILD, CACHE, IMAGE, KINDS, LAYER, ROOTFS, read_meta
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.store.lookup import Store

USED = (ROOTFS, IMAGE, BUILD, CACHE)
"""Kinds that are leased by who runs on them; layers come and go with images."""
LINKS = ("index", "refs")
_IMAGE_LINK = "image:"


class Entry(Value):
    """One unpacked archive, image, layer of images, step of a build, or cache folder."""

    kind: str = ROOTFS
    name: str
    """Of its folder: the digest, and what stands for the map of ids."""
    digest: str
    ids: str = ""
    """Under which map of ids it was unpacked."""
    size_bytes: int = 0
    """Of the files, as unpacked; of an image those of all its layers; of a cache folder nothing, since it grows."""
    used_at: float = 0.0
    """Seconds since the epoch of the last lease; of a layer also of its images'."""
    sources: tuple[str, ...] = ()
    """What it was unpacked from, in the words of who did; of a cache folder its key."""
    references: tuple[str, ...] = ()
    """The links that lead to it: index/…, refs/…"""
    layers: tuple[str, ...] = ()
    """Names of an image's layers, lowest first."""
    images: tuple[str, ...] = ()
    """Names of the images that a layer is one of."""
    in_use: bool = False
    whole: bool = True
    seal: str = ""
    """See `archive.seal`; "" unknown."""

    @property
    def suffix(self) -> str:
        """What stands for the map of ids: `idmap.Ids.key`."""
        return self.name.partition(".")[2]

    @property
    def place(self) -> str:
        """Its folder, seen from the store."""
        return f"{self.kind}/{self.name}"


def entries(store: Store, kinds: tuple[str, ...] = USED) -> list[Entry]:
    """All entries of these kinds, the last used first."""
    wanted = (*kinds, IMAGE) if LAYER in kinds and IMAGE not in kinds else kinds
    links = _links(store)
    found = [_entry(store, kind, name, links) for kind in wanted for name in listed(f"{store.path}/{kind}")]
    named: dict[str, list[Entry]] = {}
    for image in found:
        for name in image.layers:
            named.setdefault(name, []).append(image)
    found = [_with_images(entry, named.get(entry.name, [])) if entry.kind == LAYER else entry for entry in found]
    return sorted((entry for entry in found if entry.kind in kinds), key=lambda entry: -entry.used_at)


def all_entries(store: Store) -> list[Entry]:
    """Entries of all kinds, the last used first."""
    return entries(store, KINDS)


def listed(folder: str) -> list[str]:
    """The names in a folder, in order; none where it is missing."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _links(store: Store) -> dict[tuple[str, str], list[str]]:
    """(kind, digest) → the links that lead there."""
    found: dict[tuple[str, str], list[str]] = {}
    for folder in LINKS:
        for name in listed(f"{store.path}/{folder}"):
            try:
                goal = goal_of(os.readlink(f"{store.path}/{folder}/{name}"))
            except OSError:
                continue
            found.setdefault(goal, []).append(f"{folder}/{name}")
    return found


def goal_of(text: str) -> tuple[str, str]:
    """(kind, digest) that a link of `index` or `refs` leads to."""
    return (IMAGE if text.startswith(_IMAGE_LINK) else ROOTFS, text.removeprefix(_IMAGE_LINK))


def _entry(store: Store, kind: str, name: str, links: dict[tuple[str, str], list[str]]) -> Entry:
    path = f"{store.path}/{kind}/{name}"
    meta = read_meta(path) or {}
    used_at, in_use = use_of(f"{path}/lock")
    digest = name.partition(".")[0]
    return Entry(
        kind=kind,
        name=name,
        digest=digest,
        ids=meta.get("ids", "") or "single",
        size_bytes=meta.get("size_bytes", 0),
        used_at=used_at,
        sources=tuple(meta.get("sources", ())),
        references=tuple(links.get((kind, digest), ())),
        layers=tuple(meta.get("layers", ())),
        in_use=in_use,
        whole=bool(meta),
        seal=meta.get("seal", ""),
    )


def use_of(path: str) -> tuple[float, bool]:
    """(when an entry's lock was taken last, whether somebody has it)."""
    try:
        lock = _opened(path)
    except OSError:
        return 0.0, False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        in_use = False
    except OSError:
        in_use = True
    try:
        return os.fstat(lock).st_mtime, in_use
    finally:
        os.close(lock)


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)  # NFS gives no exclusive lock to who only reads: flock(2)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _with_images(layer: Entry, images: list[Entry]) -> Entry:
    return layer.replace(
        images=tuple(image.name for image in images),
        used_at=max([layer.used_at, *(image.used_at for image in images)]),
        in_use=layer.in_use or any(image.in_use for image in images),
    )


def named_layers(store: Store) -> set[str]:
    """The names of all layers that an image in the store is made of."""
    metas = (read_meta(f"{store.path}/{IMAGE}/{name}") or {} for name in listed(f"{store.path}/{IMAGE}"))
    return {name for meta in metas for name in meta.get("layers", ())}


def total(found: Iterable[Entry]) -> int:
    """Bytes of entries of all kinds: an image is but its layers, and each of those counts once."""
    return sum(entry.size_bytes for entry in found if entry.kind != IMAGE)
