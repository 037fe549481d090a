"""One entry on its way into the store, step by step: whoever takes the steps waits in his own way, see `fill`, `asynchronous`.

Who holds incoming/<key>.lock unpacks; the others wait for that lock and then look again. A holder that dies loses the lock
by the kernel's hand, and the next one removes its leftovers and starts anew. An entry appears by one rename, whole.
"""

from __future__ import annotations

import fcntl
import marshal
import os

from guntainer import errors, interrupts
from guntainer.archive import worker
from guntainer.idmap import COUNT, RANGE, Ids
from guntainer.store.lookup import IMAGE, ROOTFS, VERSION, Lease, index_name, key_of, mismatch, read_meta
from guntainer.store.prune import remove_entry
from guntainer.store.remove import remove_tree
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.store.lookup import Store

    LimitPair = tuple[int, int]


class Wanted(Value):
    """An entry that is to be in the store."""

    name: str
    """Of its archive, for messages."""
    source: tuple[Any, ...]
    """Where the bytes are, as `worker.Task` takes it."""
    size_bytes: int = 0
    """Of the source; 0: not known."""
    key: str
    """Of its folder in incoming/: who asks for the same thing must ask with the same one."""
    kind: str = ROOTFS
    """ROOTFS or LAYER."""
    sha256: str | None = None
    """What the bytes must have: of a layer always known."""
    diff_id: str = ""
    """The sha256 that a layer must have when it is decompressed; "" unknown."""
    limits: LimitPair | None = None
    """The most (bytes, entries) that it may unpack to."""
    link: tuple[str, str] | None = None
    """(`index` or `refs`, the name) of the link that is to lead to it; None: it is found by its digest."""
    again: bool = False
    """Whatever that link leads to now is not good enough."""
    selection: str = ""
    """What is chosen where it turns out to be that of images: the one that was chosen by others is not good enough."""

    def __repr__(self) -> str:
        return f"Wanted({self.name!r}, {self.kind!r})"  # without the source, whose request may hold a password


def wanted_archive(archive: str, sha256: str | None = None, limits: LimitPair | None = None) -> Wanted:
    """A plain archive of this machine.

    Raises:
        RootfsError: it is missing.
    """
    try:
        status = os.stat(archive)
    except OSError as error:
        raise errors.RootfsError(errors.describe_oserror(error)) from None
    key = key_of(status)
    source = ("file", archive, 0, status.st_size)
    return Wanted(
        name=archive,
        source=source,
        size_bytes=status.st_size,
        key=key,
        sha256=sha256,
        limits=limits,
        link=("index", key),
    )


class ImageInside(Exception):
    """An archive turned out to be that of a container image: its files lie unpacked in `folder`.

    Whoever catches this closes the filling, with which the folder goes.
    """

    def __init__(self, filling: Filling, folder: str) -> None:
        super().__init__(folder)
        self.filling = filling
        self.folder = folder


def task_of(wanted: Wanted, folder: str, ids: Ids, *, hash_it: bool) -> worker.Task:
    """For a worker that keeps owners where a range of ids is mapped."""
    return worker.Task(
        wanted.source,
        wanted.name,
        folder,
        hash_it=hash_it,
        limits=wanted.limits,
        ids=COUNT if ids.kind == RANGE else 0,
        namespace=-1 if ids.inside else ids.namespace,
        layer=wanted.kind != ROOTFS,
        diff_id=wanted.diff_id,
    )


def failed(store: Store, error: OSError) -> errors.StoreError:
    return errors.StoreError(f"store {store.path}: {errors.describe_oserror(error)}", probe="store")


class Incoming:
    """A folder in incoming/ under its lock; `close` removes it, unless it was moved into place."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self.folder = f"{store.path}/incoming/{key}{store.suffix}"
        self._lock = -1

    def __repr__(self) -> str:
        return f"Incoming({self.folder!r}, {'locked' if self._lock >= 0 else 'not locked'})"

    def lock(self, *, wait: bool) -> bool:
        """Take its lock; False where another holds it and `wait` is False."""
        while True:
            with interrupts.held():
                lock = self._opened()
                if self._taken(lock):
                    return True
            try:
                if not wait:
                    return False
                fcntl.flock(lock, fcntl.LOCK_EX)  # and again from the start: its holder may have removed it
            finally:
                os.close(lock)

    def _opened(self) -> int:
        try:
            return os.open(f"{self.folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise failed(self._store, error) from None

    def _taken(self, lock: int) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        if os.fstat(lock).st_nlink:
            self._lock = lock
        return self._lock == lock

    def make(self) -> str:
        """With the lock held: the folder, new and empty."""
        try:
            remove_tree(self.folder)  # of a holder that died
            os.mkdir(self.folder, 0o700)
        except OSError as error:
            raise failed(self._store, error) from None
        return self.folder

    def close(self) -> None:
        """Remove what is not in place, and give the lock up."""
        with interrupts.held():
            if self._lock < 0:
                return
            try:
                remove_tree(self.folder)
                os.unlink(f"{self.folder}.lock")
            except OSError:
                pass  # who asks next, or prune, removes it
            os.close(self._lock)
            self._lock = -1


class Filling:
    """One entry on its way into a store, step by step; `close` ends it at any point and leaves nothing half done."""

    def __init__(self, store: Store, wanted: Wanted) -> None:
        self._store = store
        self.wanted = wanted
        self._incoming = Incoming(store, wanted.key)
        self.lock = self._incoming.lock
        self.close = self._incoming.close

    def __repr__(self) -> str:
        return f"Filling({self.wanted.name!r}, {self._incoming!r})"

    def find(self) -> Lease | None:
        """The lease of the entry, where it is in the store already."""
        wanted = self.wanted
        found = None
        if wanted.link is not None and not wanted.again:
            asked = wanted.sha256 if wanted.link[0] == "index" else None  # the name of one in refs has it in it
            found = self._store.follow(*wanted.link, sha256=asked, archive=wanted.name)
            if found is not None and found.kind == IMAGE and wanted.selection and wanted.link[0] == "index":
                found.release()
                found = self._store.follow("index", index_name(wanted.link[1], wanted.selection))
        if found is None and wanted.sha256 is not None:
            found = self._store.lease(wanted.sha256, wanted.kind)
            if found is not None and wanted.link is not None and wanted.link[0] == "index":
                # an entry with the digest that is demanded says nothing of what the archive's is
                found.release()
                return None
            if found is not None and self.wanted.diff_id:
                self._check_contents(found)
        return found

    def _check_contents(self, found: Lease) -> None:
        """A layer that is there is the one that its image says: its blob's name may be a lie, and its diff_id another's.

        Raises:
            RootfsError: it is not; the lease is given back.
        """
        meta = read_meta(self._store.entry(found.digest, found.kind)) or {}
        if meta.get("diff_id", self.wanted.diff_id) != self.wanted.diff_id:
            found.release()
            raise errors.RootfsError(
                f"{self.wanted.name}: its contents have the sha256 {meta['diff_id']}, but its image's config names"
                f" {self.wanted.diff_id}",
                hint="the image is damaged",
            )

    def begin(self) -> Lease | worker.Task:
        """With the lock held: the lease, where another was quicker, or the task for a worker."""
        lease = self.find()
        if lease is not None:
            return lease
        return task_of(self.wanted, self._incoming.make(), self._store.ids, hash_it=True)

    def finish(self, facts: dict[str, Any]) -> Lease:
        """Put the unpacked tree into place and lease it.

        Raises:
            RootfsError: its digest is not the one demanded.
            ImageInside: it is the archive of an image.
        """
        digest = facts["digest"]
        if self.wanted.sha256 is not None and digest != self.wanted.sha256:
            raise mismatch(self.wanted.name, self.wanted.sha256, digest)
        if facts.get("image") is not None:
            raise ImageInside(self, f"{self._incoming.folder}/{facts['image']}")
        try:
            lease = self._store.lease(digest, self.wanted.kind) or self._place(digest, facts)
            if self.wanted.link is not None:
                folder, name = self.wanted.link
                # it may have been replaced since it was asked for: the one that was read counts
                self._store.remember(folder, _key_text(facts) if folder == "index" else name, digest)
        except OSError as error:
            raise failed(self._store, error) from None
        lease.facts = facts
        return lease

    def _place(self, digest: str, facts: dict[str, Any]) -> Lease:
        meta = {
            **facts,
            "layout": VERSION,
            "ids": self._store.ids.describe(),
            "sources": [self.wanted.name],
            **({"diff_id": self.wanted.diff_id} if self.wanted.diff_id else {}),
            "key": list(facts.get("key", ())),
        }
        return place(self._store, self.wanted.kind, digest, self._incoming.folder, meta)


def _key_text(facts: dict[str, Any]) -> str:
    return index_name("-".join(f"{part:x}" for part in facts["key"]))


def place(store: Store, kind: str, digest: str, folder: str, meta: dict[str, Any]) -> Lease:
    """Make a folder of incoming/ the entry of that digest, by one rename, and lease it.

    Raises:
        OSError: of the disk.
        StoreError: the entry is damaged and can not be replaced.
    """
    # held until it is leased: nobody can prune it between the rename and that
    lock = os.open(f"{folder}/lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        with open(f"{folder}/meta", "wb") as file:
            file.write(marshal.dumps(meta))
        return _renamed(store, kind, digest, folder)
    finally:
        os.close(lock)


def _renamed(store: Store, kind: str, digest: str, folder: str) -> Lease:
    entry = store.entry(digest, kind)
    # Another archive with the same content may arrive at the same moment: the entry that is there wins.
    for _ in range(3):
        try:
            os.rename(folder, entry)
        except OSError:
            lease = store.lease(digest, kind)
            if lease is not None:
                return lease
            remove_entry(entry)  # damaged: without its meta
            continue
        lease = store.lease(digest, kind)
        if lease is not None:
            return lease
        raise errors.StoreError(f"store {store.path}: {digest[:12]} was pruned at once", hint="run it again")
    raise errors.StoreError(
        f"store {store.path}: {digest[:12]} is damaged and can not be removed", hint=f"remove {entry}"
    )


def failure(message: tuple[Any, ...]) -> errors.GuntainerError:
    """The error that a worker has told."""
    _, kind, text, hint, probe = message
    cls = getattr(errors, kind, errors.ArchiveError)
    error: errors.GuntainerError = cls(text, hint=hint, probe=probe)
    return error


def crashed(archive: str, status: int) -> errors.ArchiveError:
    """A worker that ended without a word: libarchive crashed, or somebody killed it."""
    how = f"by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"with {os.WEXITSTATUS(status)}"
    return errors.ArchiveError(f"{archive}: its unpacker ended {how}", hint="nothing of it was kept; run it again")
