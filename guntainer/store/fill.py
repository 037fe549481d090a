"""Unpack an archive into the store, once, however many ask: the steps, and the way to go them without an event loop.

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
from guntainer.store.lookup import VERSION, key_of, mismatch
from guntainer.store.prune import remove_entry
from guntainer.store.remove import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.store.lookup import Lease, Store

    Progress = Callable[[int, int], None]
    Meanwhile = Callable[[], None]
    LimitPair = tuple[int, int]

_KILL = 9


def _task(archive: str, folder: str, ids: Ids, *, hash_it: bool, limits: LimitPair | None) -> worker.Task:
    """For a worker that keeps owners where a range of ids is mapped."""
    count = COUNT if ids.kind == RANGE else 0
    namespace = -1 if ids.inside else ids.namespace
    return worker.Task(archive, archive, folder, hash_it=hash_it, limits=limits, ids=count, namespace=namespace)


def _failed(store: Store, error: OSError) -> errors.StoreError:
    return errors.StoreError(f"store {store.path}: {errors.describe_oserror(error)}", probe="store")


class Filling:
    """One unpack into a store, step by step; `close` ends it at any point and leaves nothing half done."""

    def __init__(self, store: Store, archive: str, sha256: str | None, limits: LimitPair | None = None) -> None:
        self._store = store
        self._archive = archive
        self._sha256 = sha256
        self._limits = limits
        try:
            self._key = key_of(os.stat(archive))
        except OSError as error:
            raise errors.RootfsError(errors.describe_oserror(error)) from None
        self._folder = f"{store.path}/incoming/{self._key}{store.suffix}"
        self._lock = -1

    def lock(self, *, wait: bool) -> bool:
        """Take the lock of this archive; False where another holds it and `wait` is False."""
        while True:
            try:
                lock = os.open(f"{self._folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise _failed(self._store, error) from None
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                os.close(lock)
                return False
            except BaseException:
                os.close(lock)
                raise
            if os.fstat(lock).st_nlink:
                self._lock = lock
                return True
            os.close(lock)  # its holder has finished and removed it

    def begin(self) -> Lease | worker.Task:
        """With the lock held: the lease, where another was quicker, or the task for a worker."""
        lease = self._store.find(self._archive, self._sha256)
        if lease is not None:
            return lease
        try:
            remove_tree(self._folder)  # of a holder that died
            os.mkdir(self._folder, 0o700)
        except OSError as error:
            raise _failed(self._store, error) from None
        return _task(self._archive, self._folder, self._store.ids, hash_it=True, limits=self._limits)

    def finish(self, facts: dict[str, Any]) -> Lease:
        """Put the unpacked tree into place and lease it.

        Raises:
            RootfsError: its digest is not the one demanded.
        """
        digest = facts["digest"]
        if self._sha256 is not None and digest != self._sha256:
            raise mismatch(self._archive, self._sha256, digest)
        try:
            lease = self._store.lease(digest) or self._place(digest, facts)
            self._remember(digest, facts)
        except OSError as error:
            raise _failed(self._store, error) from None
        lease.left_out = facts["devices"] + facts["sockets"]
        lease.unmapped = facts["unmapped"]
        return lease

    def _place(self, digest: str, facts: dict[str, Any]) -> Lease:
        meta = {
            **facts,
            "layout": VERSION,
            "ids": self._store.ids.describe(),
            "sources": [self._archive],
            "key": list(facts["key"]),
        }
        os.close(os.open(f"{self._folder}/lock", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o600))
        with open(f"{self._folder}/meta", "wb") as file:
            file.write(marshal.dumps(meta))
        entry = self._store.entry(digest)
        # Another archive with the same content may arrive at the same moment: the entry that is there wins.
        for _ in range(3):
            try:
                os.rename(self._folder, entry)
            except OSError:
                lease = self._store.lease(digest)
                if lease is not None:
                    return lease
                remove_entry(entry)  # damaged: without its meta
                continue
            lease = self._store.lease(digest)
            if lease is not None:
                return lease
            raise errors.StoreError(f"store {self._store.path}: {digest[:12]} was pruned at once", hint="run it again")
        raise errors.StoreError(
            f"store {self._store.path}: {digest[:12]} is damaged and can not be removed", hint=f"remove {entry}"
        )

    def _remember(self, digest: str, facts: dict[str, Any]) -> None:
        link = f"{self._store.path}/index/{'-'.join(f'{part:x}' for part in facts['key'])}"
        made = f"{link}.{os.getpid()}-{os.urandom(3).hex()}"
        os.symlink(digest, made)
        os.rename(made, link)

    def close(self) -> None:
        """Remove what is not in place, and give the lock up."""
        if self._lock < 0:
            return
        try:
            remove_tree(self._folder)
            os.unlink(f"{self._folder}.lock")
        except OSError:
            pass  # who asks next, or prune, removes it
        os.close(self._lock)
        self._lock = -1


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


def _work(task: worker.Task, progress: Progress | None, meanwhile: Meanwhile | None = None) -> dict[str, Any]:
    """Fork a worker and wait for it; whatever interrupts this, it is dead and waited for afterwards."""
    pid = read = -1
    status = None
    try:
        with interrupts.held():
            try:
                pid, read = worker.fork(task)
            except BlockingIOError:
                why, hint = worker.no_process(task.name)
                raise errors.Exhausted(why, hint=hint, probe="nproc") from None
        if meanwhile is not None:
            meanwhile()
        pipe = worker.Pipe()
        last: tuple[Any, ...] | None = None
        while data := os.read(read, 1 << 16):
            for message in pipe.feed(data):
                if message[0] == "progress":
                    if progress is not None:
                        progress(message[1], message[2])
                else:
                    last = message
        status = os.waitpid(pid, 0)[1]
        if last is None:
            raise crashed(task.name, status)
        if last[0] == "failed":
            raise failure(last)
        facts: dict[str, Any] = last[1]
        return facts
    finally:
        if pid > 0:
            os.close(read)
            if status is None:
                os.kill(pid, _KILL)
                os.waitpid(pid, 0)
        if progress is not None:
            progress(1, 1)


def lease(
    store: Store,
    archive: str,
    *,
    sha256: str | None = None,
    progress: Progress | None = None,
    meanwhile: Meanwhile | None = None,
    limits: LimitPair | None = None,
) -> Lease:
    """The lease of an archive, unpacked if need be. For a process with one thread.

    Args:
        sha256: 64 hex digits that the archive must have.
        progress: called with (bytes read, size) at most ten times a second, and at the end.
        meanwhile: called once the unpacking goes on in its process.
        limits: the most (bytes, entries) that it may unpack to.

    Raises:
        RootfsError: the archive is missing, damaged, refused, or has another digest.
        StoreError: the store can not be written.
    """
    filling = Filling(store, archive, sha256, limits)
    try:
        filling.lock(wait=True)
        begun = filling.begin()
        return filling.finish(_work(begun, progress, meanwhile)) if isinstance(begun, worker.Task) else begun
    finally:
        filling.close()


def temporary_task(archive: str, into: str, ids: Ids, sha256: str | None, limits: LimitPair | None) -> worker.Task:
    os.makedirs(into, 0o700)
    return _task(archive, into, ids, hash_it=sha256 is not None, limits=limits)


def temporary_tree(task: worker.Task, facts: dict[str, Any], sha256: str | None) -> str:
    if sha256 is not None and facts["digest"] != sha256:
        raise mismatch(task.archive, sha256, facts["digest"])
    return f"{task.folder}/{facts['tree']}"


def unpack_temporary(
    archive: str,
    into: str,
    *,
    ids: Ids = Ids(),
    sha256: str | None = None,
    progress: Progress | None = None,
    meanwhile: Meanwhile | None = None,
    limits: LimitPair | None = None,
) -> str:
    """Unpack into a new folder `into`, which is the caller's to remove, and return the rootfs's path."""
    task = temporary_task(archive, into, ids, sha256, limits)
    return temporary_tree(task, _work(task, progress, meanwhile), sha256)
