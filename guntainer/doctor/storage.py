"""Probes of the places where things are kept: TMPDIR, the store, and overlays over them."""

from __future__ import annotations

import errno
import fcntl
import os

from guntainer import errors
from guntainer.doctor.finding import Finding, degraded, missing, ok
from guntainer.doctor.namespaces import inside
from guntainer.kernel import abi
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.doctor.examine import Circumstances

_LITTLE_IN_TMPDIR = 64 << 20
_LITTLE_IN_STORE = 1 << 30
_TRIED_BYTES = 1 << 20
_ENTRIES = 4096  # fewer free inodes than that are soon used up by an unpacked rootfs
_OTHER_TMPDIR = "export TMPDIR=/var/tmp  # or another folder of yours, on a disk with room"
_OTHER_STORE = "export GUNTAINER_STORE=/path/of/a/larger/disk  # or: guntainer run --store DIR"
_OWN_STORE = "export GUNTAINER_STORE=/path/of/a/folder/of/yours  # or: guntainer run --store DIR"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_PREFIX = ".guntainer-doctor-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PINNED = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_WRITE_TO = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC


class FileSystem(Value):
    """Where a path lies."""

    place: str = ""
    """Where it is mounted."""
    kind: str = ""
    options: frozenset[str] = frozenset()
    free_bytes: int = 0
    free_entries: int = -1
    """Inodes; -1 where the file system does not count them."""

    def describe(self) -> str:
        """`ext4, 12.3 GiB free, noexec`: for people."""
        odd = [option for option in ("ro", "noexec", "nosuid") if option in self.options]
        return ", ".join([self.kind or "unknown file system", f"{size(self.free_bytes)} free", *odd])


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def file_system(path: str, mountinfo: str) -> FileSystem:
    """The file system of a path that exists.

    Args:
        mountinfo: the text of /proc/self/mountinfo, proc(5).
    """
    real = os.path.realpath(path)
    status = os.statvfs(real)
    place, kind, options = "", "", frozenset[str]()
    for line in mountinfo.splitlines():
        words, _, rest = line.partition(" - ")
        fields = words.split()
        if len(fields) < 6:
            continue
        point = _unescaped(fields[4])
        if len(point) >= len(place) and (real == point or f"{real}/".startswith(point.rstrip("/") + "/")):
            place, kind, options = point, rest.split(" ", 1)[0], frozenset(fields[5].split(","))
    entries = status.f_favail if status.f_files else -1
    return FileSystem(
        place=place, kind=kind, options=options, free_bytes=status.f_bavail * status.f_frsize, free_entries=entries
    )


def _unescaped(text: str) -> str:
    """Blanks and backslashes are octal in a mount table: proc(5)."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


def store_path(given: str | None) -> str:
    """The folder of the store, whether or not it is there."""
    from guntainer.store.lookup import default_path

    return os.path.abspath(given) if given else default_path()


def make_beside(path: str) -> str:
    """A new folder of our own on the file system on which a store at this path lies, or would lie.

    Raises:
        OSError: none can be made there.
    """
    while not os.path.isdir(path):
        if os.path.lexists(path):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        path = os.path.dirname(path)
    _remove_stale(path)
    while True:
        made = f"{path}/{_PREFIX}{os.urandom(4).hex()}"
        os.mkdir(made, 0o700)
        os.chmod(made, 0o700)  # whatever the umask is
        lock = os.open(made, _FOLDER)
        fcntl.flock(lock, fcntl.LOCK_EX)  # as long as this process lives
        if os.fstat(lock).st_nlink:
            return made
        os.close(lock)  # another one took it for a dead one's, in the moment without a lock


def _remove_stale(folder: str) -> None:
    """What an examination that was killed has left: nobody holds its lock."""
    from guntainer.runfolder import remove_layer

    for name in os.listdir(folder):
        if name.startswith(_PREFIX):
            try:
                lock = _opened(f"{folder}/{name}")
            except OSError:
                continue
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_layer(f"{folder}/{name}")
            except OSError:
                pass  # it lives, or is not ours
            finally:
                os.close(lock)


def _opened(path: str) -> int:
    """A descriptor of a folder, also of one of ours that we may not read; no link is followed, whoever has made it."""
    try:
        return os.open(path, _FOLDER)
    except PermissionError:
        pin = os.open(path, _PINNED)
        try:
            os.chmod(f"/proc/self/fd/{pin}", 0o700)
            return os.open(path, _FOLDER)
        finally:
            os.close(pin)


def tmpdir(around: Circumstances) -> Finding:
    if not around.run:
        return missing(around.run_fault, _OTHER_TMPDIR)
    base = os.path.dirname(os.path.dirname(around.run))
    where = file_system(around.run, around.host.text("/proc/self/mountinfo"))
    return _room(f"{base}: {where.describe()}", where, around.run, _LITTLE_IN_TMPDIR, lambda _errno: _OTHER_TMPDIR)


def store(around: Circumstances) -> Finding:
    if not around.beside_store:
        return missing(": ".join(filter(None, (around.store, around.store_fault))), _store_remedy(around.store_errno))
    if os.path.isdir(around.store):
        from guntainer.store.lookup import open_store

        try:
            open_store(around.store)
        except errors.StoreError as error:
            return missing(error.message, f"# {error.hint}")
    where = file_system(around.beside_store, around.host.text("/proc/self/mountinfo"))
    return _room(f"{around.store}: {where.describe()}", where, around.beside_store, _LITTLE_IN_STORE, _store_remedy)


def _store_remedy(number: int) -> str:
    """What helps where nothing can be made in the store's folder; number: the errno."""
    return _OTHER_STORE if number in _FULL else _OWN_STORE


def _room(found: str, where: FileSystem, folder: str, little: int, remedy: Callable[[int], str]) -> Finding:
    try:
        with open(f"{folder}/tried", "wb") as file:
            file.write(bytes(_TRIED_BYTES))
    except OSError as error:
        return missing(f"{found}: {error.strerror}", remedy(error.errno or 0))
    finally:
        if os.path.exists(f"{folder}/tried"):
            os.unlink(f"{folder}/tried")
    if where.free_bytes < little:
        return degraded(f"{found}: that is little", remedy(errno.ENOSPC))
    if 0 <= where.free_entries < _ENTRIES:
        return degraded(f"{found}, but room for {where.free_entries} files more", remedy(errno.ENOSPC))
    return ok(found)


def overlay_disk(around: Circumstances) -> Finding:
    lower = _lower(around)
    layer = f"{around.run}/layer"
    for name in ("", "/upper", "/work", "/merged"):
        os.mkdir(layer + name)
    trial = inside(abi.CLONE_NEWNS)
    trial.operation("private_mounts")
    trial.operation("overlay", (lower,), "", f"{layer}/upper", f"{layer}/work", f"{layer}/merged")
    trial.call("openat", abi.AT_FDCWD, f"{layer}/merged/file", _WRITE_TO, 0, step="copy up")
    failed = trial.run()
    if failed is None:
        return ok("a writable layer in TMPDIR over the store")
    where = file_system(around.run, around.host.text("/proc/self/mountinfo"))
    code = errno.errorcode.get(failed[1], str(failed[1]))
    if "noexec" in where.options:
        return missing(
            f"refused ({failed[0]}, {code}) with TMPDIR on {where.kind}, and nothing can be executed of a copy: noexec",
            _OTHER_TMPDIR,
        )
    return degraded(
        f"refused ({failed[0]}, {code}) with TMPDIR on {where.kind}; containers run on a {_copies(around)} of the rootfs",
        "# TMPDIR on ext4, xfs, btrfs or tmpfs, not on NFS or another overlay:",
        _OTHER_TMPDIR,
        "# or keep what is written in memory: guntainer run --scratch memory",
    )


def overlay_memory(around: Circumstances) -> Finding:
    lower = _lower(around)
    base = f"{around.beside_store}/point"
    os.mkdir(base)
    trial = inside(abi.CLONE_NEWNS)
    trial.operation("private_mounts")
    trial.operation("scratch_memory", base, "")
    trial.operation("overlay", (lower,), "", f"{base}/upper", f"{base}/work", f"{base}/merged")
    trial.call("openat", abi.AT_FDCWD, f"{base}/merged/file", _WRITE_TO, 0, step="copy up")
    failed = trial.run()
    if failed is None:
        return ok("a writable layer in memory over the store")
    code = errno.errorcode.get(failed[1], str(failed[1]))
    where = file_system(around.beside_store, around.host.text("/proc/self/mountinfo"))
    return degraded(
        f"refused ({failed[0]}, {code}) with the store on {where.kind}; containers run on a {_copies(around)}",
        _OTHER_STORE,
    )


def _copies(around: Circumstances) -> str:
    """What a copy of a file of the store in TMPDIR is: a reflink needs a file system that has them, and one for both."""
    from guntainer.store import filedata

    if not around.run:
        return filedata.COPY
    copy = f"{around.run}/copy"
    try:
        with open(f"{_lower(around)}/file", "rb") as source, open(copy, "wb") as made:
            filedata.clone(source.fileno(), made.fileno())
    except OSError:
        return filedata.COPY
    finally:
        if os.path.exists(copy):
            os.unlink(copy)
    return filedata.REFLINK


def _lower(around: Circumstances) -> str:
    """A lower folder with a file in it, on the store's file system."""
    lower = f"{around.beside_store}/lower"
    os.makedirs(lower, exist_ok=True)
    with open(f"{lower}/file", "w", encoding="ascii") as file:
        file.write("of the lower layer\n")
    return lower
