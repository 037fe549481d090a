"""The process that unpacks one archive: it reads, hashes and writes, tells its progress, and ends.

libarchive lives here alone: it may crash or be killed, and nothing but this unpack is lost. Two ways lead here: `fork`
from a process with one thread (`guntainer run`: no second interpreter to start), `spawn` from one with more.

Messages on the pipe are a length (4 bytes) and marshal:
    ("progress", bytes read, size)   ("done", facts)   ("failed", class, message, hint, probe)
"""

from __future__ import annotations

import errno
import marshal
import os
import sys

from guntainer import errors, interrupts
from guntainer.archive.feeder import Feeder, Limits, close_all_but

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CODE = "import sys; sys.dont_write_bytecode = True; sys.path[:0] = {path!r}; from guntainer.archive.worker import main; main({task!r})"
_INTERVAL_S = 0.1
_NAMESPACE = 3  # a spawned worker's descriptor of it


class Task:
    """What a worker is to do.

    Args:
        ids: how many ids are mapped: see `reading.Reader`.
        namespace: a descriptor of the user namespace to enter first, or -1.
    """

    __slots__ = ("archive", "folder", "hash", "ids", "limits", "name", "namespace")

    def __init__(
        self,
        archive: str,
        name: str,
        folder: str,
        *,
        hash_it: bool,
        limits: tuple[int, int] | None,
        ids: int = 0,
        namespace: int = -1,
    ) -> None:
        self.archive = archive
        self.name = name
        self.folder = folder
        self.hash = hash_it
        self.limits = limits
        self.ids = ids
        self.namespace = namespace

    def as_tuple(self) -> tuple[Any, ...]:
        return (self.archive, self.name, self.folder, self.hash, self.limits, self.ids)


def _die_with_parent(parent: int) -> None:
    from guntainer.kernel import abi, syscalls

    syscalls.prctl(abi.PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)


def no_process(name: str) -> tuple[str, str]:
    """EAGAIN of fork(2), in words: a message and what to do."""
    return f"{name}: no more processes are allowed, so it is not unpacked (EAGAIN)", "raise `ulimit -u` or pids.max"


def fork(task: Task) -> tuple[int, int]:
    """Start a worker by fork(2), from a process with one thread; returns (pid, the pipe to read)."""
    read, write = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        try:
            import _signal

            interrupts.ignore()  # the parent decides, and kills
            _signal.set_wakeup_fd(-1)
            _enter(task.namespace)
            close_all_but(0, 1, 2, write)
            run(task, write, parent)
        finally:
            os._exit(0)
    os.close(write)
    return pid, read


def spawn(task: Task) -> tuple[int, int]:
    """Start a worker in an interpreter of its own; returns (pid, the pipe to read)."""
    read, write = os.pipe2(os.O_CLOEXEC)
    namespace = _NAMESPACE if task.namespace >= 0 else -1
    code = _CODE.format(path=[path for path in sys.path if path], task=(os.getpid(), namespace, *task.as_tuple()))
    enter = [(os.POSIX_SPAWN_DUP2, task.namespace, _NAMESPACE)] if task.namespace >= 0 else []
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", code],
            {"LANG": "C.UTF-8", "PATH": os.environ.get("PATH", "/usr/bin:/bin")},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, write, 1),
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                *enter,
            ],
            setsigmask=(),
        )
    finally:
        os.close(write)
    return pid, read


def main(task: tuple[Any, ...]) -> None:
    """In the spawned interpreter."""
    interrupts.ignore()
    parent, namespace, archive, name, folder, hash_it, limits, ids = task
    _enter(namespace)
    run(Task(archive, name, folder, hash_it=hash_it, limits=limits, ids=ids), 1, parent)


def _enter(namespace: int) -> None:
    """The user namespace in which the archive's owners are mapped: setns(2)."""
    if namespace >= 0:
        from guntainer.kernel import abi, syscalls

        syscalls.setns(namespace, abi.CLONE_NEWUSER)
        os.close(namespace)


class Pipe:
    """Messages of a worker, as their bytes come in."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[tuple[Any, ...]]:
        self._rest += data
        messages = []
        while len(self._rest) >= 4:
            size = int.from_bytes(self._rest[:4], "big")
            if len(self._rest) < 4 + size:
                break
            messages.append(marshal.loads(self._rest[4 : 4 + size]))
            self._rest = self._rest[4 + size :]
        return messages


def _send(fd: int, message: tuple[Any, ...]) -> None:
    data = marshal.dumps(message)
    data = len(data).to_bytes(4, "big") + data
    while data:
        data = data[os.write(fd, data) :]


def run(task: Task, write: int, parent: int) -> None:
    """Do the task and tell what came of it; never raises. For a process that does nothing else afterwards."""
    try:
        _send(write, ("done", _unpack(task, write, parent)))
    except errors.GuntainerError as error:
        _send(write, ("failed", type(error).__name__, error.message, error.hint, error.probe))
    except OSError as error:
        if error.errno == errno.EAGAIN:
            _send(write, ("failed", "Exhausted", *no_process(task.name), "nproc"))
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            from guntainer.archive.reading import no_space

            full = no_space(error, task.folder)
            _send(write, ("failed", "StoreError", full.message, full.hint, full.probe))
        else:
            _send(write, ("failed", "ArchiveError", f"{task.name}: {errors.describe_oserror(error)}", "", ""))
    except BaseException as error:
        _send(write, ("failed", "ArchiveError", f"{task.name}: {type(error).__name__}: {error}", "", ""))


def _unpack(task: Task, write: int, parent: int) -> dict[str, Any]:
    os.umask(0)
    fd = os.open(task.archive, os.O_RDONLY | os.O_CLOEXEC)
    before = os.fstat(fd)
    limits = Limits() if task.limits is None else Limits(size_bytes=task.limits[0], entries=task.limits[1])
    # first of all: it works while the rest is loaded here
    feeder = Feeder(fd, task.name, hash_it=task.hash, limits=limits)
    try:
        _die_with_parent(parent)
        from guntainer.archive.library import prepare_process

        prepare_process()
        return _into_tree(task, fd, before, feeder, limits, write)
    finally:
        feeder.close()


def _into_tree(
    task: Task, fd: int, before: os.stat_result, feeder: Feeder, limits: Limits, write: int
) -> dict[str, Any]:
    import time

    from guntainer.archive import inspection
    from guntainer.archive.reading import Reader

    tree = f"{task.folder}/tree"
    os.mkdir(tree, 0o755)
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    last = [0.0]

    def progress(done: int) -> None:
        now = time.monotonic()
        if now - last[0] >= _INTERVAL_S:
            last[0] = now
            _send(write, ("progress", done, before.st_size))

    counts, digest = Reader(fd, task.name, feeder, root, limits, progress, task.ids).unpack()
    top = inspection.rootfs_of(tree, task.name)
    rootfs = f"tree/{top}" if top else "tree"
    after = os.fstat(fd)
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise errors.ArchiveError(f"{task.name}: changed while it was unpacked", hint="run it again")
    return {
        "digest": digest,
        "tree": rootfs,
        "architecture": inspection.architecture(f"{task.folder}/{rootfs}"),
        "key": (before.st_dev, before.st_ino, before.st_size, before.st_mtime_ns, before.st_ctime_ns),
        **counts.as_dict(),
    }
