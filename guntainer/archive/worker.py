"""The process that unpacks one archive: it reads, hashes and writes, tells its progress, and ends.

libarchive lives here alone: it may crash or be killed, and nothing but this unpack is lost. Two ways lead here: `fork`
from a process with one thread (`guntainer run`: no second interpreter to start), `spawn` from one with more.

Messages on the pipe are a length (4 bytes) and marshal:
    ("progress", bytes read, size or 0)   ("done", facts)   ("failed", class, message, hint, probe)
"""

from __future__ import annotations

import errno
import gc
import marshal
import os
import sys

from guntainer import errors, interrupts
from guntainer.archive.feeder import Feeder, Limits, close_all_but, die_with_parent
from guntainer.archive.source import open_source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.archive.source import Download, FilePart

_CODE = "import sys; sys.dont_write_bytecode = True; sys.path[:0] = {path!r}; from guntainer.archive.worker import main; main()"
_INTERVAL_S = 0.1
_SEALED = 20_000  # entries: a larger tree is sealed by its first `store verify`, not while somebody waits for it
_NAMESPACE = 3  # a spawned worker's descriptor of it
_TASK_BYTES = 1 << 24


class Task:
    """What a worker is to do.

    Args:
        source: where the archive's bytes are: see `source`.
        ids: how many ids are mapped: see `reading.Reader`.
        namespace: a descriptor of the user namespace to enter first, or -1.
        layer: it is one of an image: what it removes from those below becomes whiteouts.
        expect: the sha256 that the source's bytes must have; "": any.
        diff_id: the sha256 that they must have without their compression; "": any.
    """

    __slots__ = ("diff_id", "expect", "folder", "hash", "ids", "layer", "limits", "name", "namespace", "source")

    def __init__(
        self,
        source: tuple[Any, ...],
        name: str,
        folder: str,
        *,
        hash_it: bool,
        limits: tuple[int, int] | None,
        ids: int = 0,
        namespace: int = -1,
        layer: bool = False,
        expect: str = "",
        diff_id: str = "",
    ) -> None:
        self.source = source
        self.name = name
        self.folder = folder
        self.hash = hash_it
        self.limits = limits
        self.ids = ids
        self.namespace = namespace
        self.layer = layer
        self.expect = expect
        self.diff_id = diff_id

    def as_dict(self) -> dict[str, Any]:
        """What a spawned worker is given: plain values."""
        return {
            "source": self.source,
            "name": self.name,
            "folder": self.folder,
            "hash_it": self.hash,
            "limits": self.limits,
            "ids": self.ids,
            "layer": self.layer,
            "expect": self.expect,
            "diff_id": self.diff_id,
        }


def no_process(name: str) -> tuple[str, str]:
    """EAGAIN of fork(2), in words: a message and what to do."""
    return f"{name}: no more processes are allowed, so it is not unpacked (EAGAIN)", "raise `ulimit -u` or pids.max"


def fork(task: Task) -> tuple[int, int]:
    """Start a worker by fork(2), from a process with one thread; returns (pid, the pipe to read)."""
    parent = os.getpid()
    return forked(lambda write: run(task, write, parent), task.namespace)


def forked(work: Callable[[int], None], namespace: int = -1) -> tuple[int, int]:
    """Do `work` in a process of its own, given the pipe to write to; returns (pid, the pipe to read). From a process with one
    thread."""
    read, write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            import _signal

            interrupts.ignore()  # the parent decides, and kills
            _signal.set_wakeup_fd(-1)
            _enter(namespace)
            close_all_but(0, 1, 2, write)
            work(write)
        finally:
            os._exit(0)
    os.close(write)
    return pid, read


def spawn(task: Task) -> tuple[int, int]:
    """Start a worker in an interpreter of its own; returns (pid, the pipe to read)."""
    read, write = os.pipe2(os.O_CLOEXEC)
    told = -1
    try:
        namespace = _NAMESPACE if task.namespace >= 0 else -1
        # not on the command line, which everybody can read: a download may need a password
        told = _told((os.getpid(), namespace, task.as_dict()))
        enter = [(os.POSIX_SPAWN_DUP2, task.namespace, _NAMESPACE)] if namespace >= 0 else []
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", _CODE.format(path=[path for path in sys.path if path])],
            {"LANG": "C.UTF-8", "PATH": os.environ.get("PATH", "/usr/bin:/bin")},
            file_actions=[(os.POSIX_SPAWN_DUP2, write, 1), (os.POSIX_SPAWN_DUP2, told, 0), *enter],
            setsigmask=(),
        )
    except BaseException:
        os.close(read)
        raise
    finally:
        os.close(write)
        if told >= 0:
            os.close(told)
    return pid, read


def _told(message: tuple[Any, ...]) -> int:
    """A file without a name that holds a message: nobody waits for it to be read, however long it is."""
    fd = os.memfd_create("task", os.MFD_CLOEXEC)
    with open(fd, "wb", closefd=False) as file:
        file.write(marshal.dumps(message))
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def main() -> None:
    """In the spawned interpreter: its task is what it reads."""
    interrupts.ignore()
    with open(0, "rb") as file:
        parent, namespace, task = marshal.loads(file.read(_TASK_BYTES))
    os.open("/dev/null", os.O_RDONLY)  # the lowest number that is free: 0
    _enter(namespace)
    run(Task(**task), 1, parent)


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
            full = _no_space(error, task.folder)
            _send(write, ("failed", "StoreError", full.message, full.hint, full.probe))
        else:
            _send(write, ("failed", "ArchiveError", f"{task.name}: {errors.describe_oserror(error)}", "", ""))
    except MemoryError:
        from guntainer.archive.library import TOO_MUCH_MEMORY

        _send(write, ("failed", "ArchiveError", f"{task.name}: {TOO_MUCH_MEMORY}", "", ""))
    except BaseException as error:
        _send(write, ("failed", "ArchiveError", f"{task.name}: {type(error).__name__}: {error}", "", ""))


def bound_memory() -> None:
    """What an archive demands of its reader's memory ends at a GiB: it may name a dictionary of four.

    RLIMIT_DATA of setrlimit(2): what is private and writable, not what a library's file takes.
    """
    import resource

    from guntainer.archive.library import MEMORY_BYTES

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = min(one for one in (MEMORY_BYTES, soft, hard) if one != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))


def _no_space(error: OSError, folder: str) -> errors.StoreError:
    """ENOSPC and EDQUOT with the file system and what is free on it."""
    what = "disk quota exceeded" if error.errno == errno.EDQUOT else "no space left"
    try:
        stat = os.statvfs(folder)
        free = f" ({stat.f_bavail * stat.f_frsize >> 20} MiB and {stat.f_favail} files free)"
    except OSError:
        free = ""
    return errors.StoreError(
        f"unpacking into {folder}: {what}{free}", hint="free some, or use --store DIR or TMPDIR", probe="store"
    )


def _unpack(task: Task, write: int, parent: int) -> dict[str, Any]:
    os.umask(0)
    gc.disable()  # nothing here refers to itself
    bound_memory()
    source = open_source(task.source)
    # who says how much may come has no need of the guess that the ratio is
    limits = Limits() if task.limits is None else Limits(size_bytes=task.limits[0], entries=task.limits[1], ratio=0)
    # first of all: it works while the rest is loaded here
    feeder = Feeder(source, task.name, hash_it=task.hash or bool(task.expect), limits=limits, diff_id=task.diff_id)
    try:
        die_with_parent(parent)
        from guntainer.archive.library import prepare_process

        prepare_process()
        return _into_tree(task, source, feeder, limits, write)
    finally:
        feeder.close()


def _into_tree(task: Task, source: FilePart | Download, feeder: Feeder, limits: Limits, write: int) -> dict[str, Any]:
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
            _send(write, ("progress", done, source.size))

    reader = Reader(source.kept, task.name, feeder, root, limits, progress, task.ids, layer=task.layer)
    counts, digest = reader.unpack()
    if task.expect not in ("", digest):
        raise errors.RootfsError(
            f"{task.name}: its sha256 is {digest}, but {task.expect} was demanded", hint="nothing was run or kept"
        )
    layered: dict[str, Any] = {}
    top = ""
    if reader.whiteouts is None:
        image = inspection.image_of(tree)
        if image is not None:
            layered = {"image": f"tree/{image}".rstrip("/")}
        top = inspection.rootfs_of(tree)
    else:
        whiteouts = reader.whiteouts
        opaque = whiteouts.write_opaque(task.folder)
        layered = {
            "opaque": opaque,
            "cut": whiteouts.cut,
            "whiteouts": whiteouts.count,
            "implied": whiteouts.implied,
        }
    rootfs = f"tree/{top}" if top else "tree"
    if source.changed():
        raise errors.ArchiveError(f"{task.name}: changed while it was unpacked", hint="run it again")
    from guntainer.archive.seal import seal

    sealed = task.hash and "image" not in layered and counts.entries <= _SEALED  # without a digest nothing is kept
    return {
        "seal": seal(tree, f"{task.folder}/opaque") if sealed else "",
        "digest": digest,
        "tree": rootfs,
        "architecture": inspection.architecture(f"{task.folder}/{rootfs}"),
        "key": source.key,
        **layered,
        **counts.as_dict(),
    }
