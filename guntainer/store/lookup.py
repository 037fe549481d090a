"""Find an unpacked rootfs and lease it: the warm path, so it imports next to nothing.

    $XDG_CACHE_HOME/guntainer/      0700 (or --store DIR, GUNTAINER_STORE)
        VERSION                     of this layout: raised when an older program would misread it
        rootfs/<entry>/tree/        an unpacked archive, never written again: an overlay's lower folder
        rootfs/<entry>/meta         marshal: what is known of it; written last, its presence makes the entry exist
        rootfs/<entry>/lock         shared by those who run on it, exclusive for who removes it; its mtime is the last use
        index/<dev>-<ino>-<size>-<mtime_ns>-<ctime_ns>   a link whose text is the sha256: a warm run does not hash the archive again
        incoming/<name>/            an unpack under way; <name>.lock is held meanwhile
        skeleton/, mount/, empty/   see `skeleton`, `assembly`
        seccomp/                    see `seccomp.cache`

An entry's name is its archive's sha256, and, where it was unpacked with a range of ids, a dot and what stands for that map:
the same archive with other owners is another tree.

    lock                       taken by            kind         how long
    rootfs/<entry>/lock        a run, a batch      shared       its lease
    rootfs/<entry>/lock        prune               exclusive    while it removes the entry
    incoming/<name>.lock       an unpack           exclusive    until the entry is in place

One small link per archive, rather than one index file, needs no lock and no rewriting: each is made by one rename.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os

from guntainer import errors, hostids
from guntainer.idmap import Ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 1
_DIGEST_DIGITS = 64


class Lease:
    """The right to use an entry's tree; it stays until `release`."""

    __slots__ = ("_lock", "architecture", "digest", "left_out", "tree", "unmapped")

    def __init__(self, tree: str, digest: str, architecture: str | None, lock: int) -> None:
        self.left_out = 0
        """Devices and sockets that unpacking it, just now, has left out."""
        self.unmapped = 0
        """Entries whose owners are not mapped, and that are root's: as well just now."""
        self.tree = tree
        self.digest = digest
        self.architecture = architecture
        self._lock = lock

    def __repr__(self) -> str:
        return f"Lease({self.digest[:12]}, {'held' if self._lock >= 0 else 'released'})"

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give it back; does nothing the second time."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


class Store:
    """A store's folder, for one map of ids: under that, archives are unpacked and found."""

    def __init__(self, path: str, ids: Ids = Ids()) -> None:
        self.path = path
        self.ids = ids
        self.suffix = f".{ids.key}" if ids.key else ""

    def entry(self, digest: str) -> str:
        """The folder of an archive's entry."""
        return f"{self.path}/rootfs/{digest}{self.suffix}"

    def __repr__(self) -> str:
        return f"Store({self.path!r})"

    def tidy(self) -> None:
        """Remove what unpackers that were killed have left behind: who starts next does it."""
        try:
            if not os.listdir(f"{self.path}/incoming"):
                return
        except OSError:
            return
        from guntainer.store.prune import remove_dead_unpacks

        remove_dead_unpacks(self)

    def find(self, archive: str, sha256: str | None = None) -> Lease | None:
        """The lease of an archive that is unpacked already, else None.

        Raises:
            StoreError: it is known, and has another digest than `sha256`.
        """
        try:
            digest = os.readlink(f"{self.path}/index/{key_of(os.stat(archive))}")
        except OSError:
            return None
        if len(digest) != _DIGEST_DIGITS:
            return None
        if sha256 is not None and sha256 != digest:
            raise mismatch(archive, sha256, digest)
        return self.lease(digest)

    def has(self, archive: str) -> bool:
        """Whether an archive is known to be here: a look without a lease, so it may be gone at once."""
        try:
            digest = os.readlink(f"{self.path}/index/{key_of(os.stat(archive))}")
            return os.path.exists(f"{self.entry(digest)}/meta")
        except OSError:
            return False

    def lease(self, digest: str) -> Lease | None:
        """The lease of an entry by its digest, else None."""
        entry = self.entry(digest)
        try:
            lock = os.open(f"{entry}/lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            # who removes an entry unlinks its lock while holding it: a lock without a name is a dead entry's
            if os.fstat(lock).st_nlink:
                meta = read_meta(entry)
                if meta is not None:
                    _touch(lock)
                    return Lease(f"{entry}/{meta.get('tree', 'tree')}", digest, meta.get("architecture"), lock)
        except OSError:
            pass
        os.close(lock)
        return None


def _touch(fd: int) -> None:
    try:
        os.utime(fd)
    except OSError:
        pass  # a store on a read-only disk still serves


def read_meta(entry: str) -> dict[str, Any] | None:
    """What is known of an entry; None where it is not whole."""
    try:
        with open(f"{entry}/meta", "rb") as file:
            meta = marshal.loads(file.read(1 << 20))
    except (OSError, ValueError, EOFError, TypeError):
        return None
    return meta if isinstance(meta, dict) else None


def key_of(status: os.stat_result) -> str:
    """What stands for an archive's content as long as nobody rewrites it."""
    return "-".join(f"{part:x}" for part in identity_of(status))


def identity_of(status: os.stat_result) -> tuple[int, ...]:
    """The change time is the one part that a tool which copies times can not set: stat(2), utimensat(2)."""
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def mismatch(archive: str, wanted: str, found: str) -> errors.RootfsError:
    return errors.RootfsError(
        f"{archive}: its sha256 is {found}, but {wanted} was demanded", hint="nothing was run or kept"
    )


def default_path() -> str:
    """$GUNTAINER_STORE, $XDG_CACHE_HOME/guntainer, ~/.cache/guntainer, or, without a home, below $TMPDIR."""
    given = os.environ.get("GUNTAINER_STORE")
    if given:
        return os.path.abspath(given)
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if cache.startswith("/"):
        return f"{cache}/guntainer"
    home = os.environ.get("HOME", "")
    if home.startswith("/") and os.access(home, os.W_OK | os.X_OK):
        return f"{home}/.cache/guntainer"
    from guntainer.runfolder import temporary_folder

    return f"{temporary_folder()}/guntainer-store-{hostids.UID}"


def open_store(path: str | None = None, ids: Ids = Ids()) -> Store:
    """The store at `path`, or the default one; made where it is missing.

    Raises:
        StoreError: it can not be made, is another user's, or of a newer layout.
    """
    where = os.path.abspath(path) if path else default_path()
    try:
        with open(f"{where}/VERSION", "rb") as file:
            found = file.read(20).strip().decode("utf-8", "replace")
    except FileNotFoundError:
        _make(where)
        found = str(VERSION)
    except OSError as error:
        raise _unusable(where, error) from None
    if not found.isdigit() or int(found) > VERSION:
        raise errors.StoreError(
            f"store {where}: layout {found!r} is newer than this guntainer's ({VERSION})",
            hint="use a newer guntainer, or another --store",
            probe="store",
        )
    status = os.stat(where)
    if status.st_uid != os.geteuid() or status.st_mode & 0o022:
        # whoever can write there could change a tree that we are about to run
        whose = "belongs to another user" if status.st_uid != os.geteuid() else "can be written by other users"
        raise errors.StoreError(
            f"store {where} {whose}", hint="use --store or GUNTAINER_STORE, or chmod 700 it", probe="store"
        )
    return Store(where, ids)


def _make(where: str) -> None:
    try:
        os.makedirs(where, 0o700, exist_ok=True)
        if os.stat(where).st_uid == os.geteuid() and not os.listdir(where):
            os.chmod(where, 0o700)  # an empty folder that was made for it
        for name in ("rootfs", "index", "incoming"):
            os.makedirs(f"{where}/{name}", 0o700, exist_ok=True)
        made = f"{where}/VERSION.{os.getpid()}"
        with open(made, "w", encoding="ascii") as file:
            file.write(f"{VERSION}\n")
        os.rename(made, f"{where}/VERSION")
    except OSError as error:
        raise _unusable(where, error) from None


def _unusable(where: str, error: OSError) -> errors.StoreError:
    hint = "use --store DIR or GUNTAINER_STORE to put it elsewhere"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = f"free some space there, or {hint}"
    return errors.StoreError(f"store {where}: {errors.describe_oserror(error)}", hint=hint, probe="store")
