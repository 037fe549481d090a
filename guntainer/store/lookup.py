"""Find an unpacked rootfs and lease it: the warm path, so it imports next to nothing.

    $XDG_CACHE_HOME/guntainer/      0700 (or --store DIR, GUNTAINER_STORE)
        VERSION                     of this layout, see below
        rootfs/<entry>/tree/        an unpacked archive, never written again: an overlay's lower folder
        rootfs/<entry>/meta         marshal: what is known of it; written last, its presence makes the entry exist
        rootfs/<entry>/lock         shared by those who run on it, exclusive for who removes it; its mtime is the last use
        layers/<entry>/{tree,opaque}/, meta, lock        a layer of images: named after its blob's sha256, see `archive.tree`
        builds/<entry>/{tree,opaque}/, meta, lock        what a step of a build has written, see `builder.layers`: after its key
        images/<entry>/lowers/0,1,…, meta, lock          links to its layers' folders, uppermost first: after its manifest's sha256
        folders/<entry>/data/, meta, lock                what jobs keep between runs, see `folders`: after its key's sha256
        index/<dev>-<ino>-<size>-<mtime_ns>-<ctime_ns>   a link whose text is the sha256: a warm run does not hash the archive again
        refs/<quoted>               the same for what is elsewhere: a URL, an image of a registry
        incoming/<name>/            an unpack under way; <name>.lock is held meanwhile
        skeleton/, mount/, empty/   see `skeleton`, `assembly`
        seccomp/                    see `seccomp.cache`

An entry's name is its archive's sha256, and, where it was unpacked with a range of ids, a dot and what stands for that map:
the same archive with other owners is another tree. A layer stays as long as an image names it.

    lock                       taken by            kind         how long
    {rootfs,images}/…/lock     a run, a batch      shared       its lease
    layers/…/lock              who makes an image  shared       until the image is in place
    …/lock                     who puts it there   shared       until it is leased
    …/lock                     prune, rm           exclusive    while the entry is removed
    incoming/<name>.lock       an unpack           exclusive    until the entry is in place

One small link per archive, rather than one index file, needs no lock and no rewriting: each is made by one rename. Its text is
a sha256, that of an image with `image:` before it.

VERSION is raised when an older program would misread or spoil what is there; it then refuses the store. What is merely new, a
folder or a key of a meta that an older one does not look at, raises nothing. Whoever raises it tells `migration` how an older
store becomes a newer one, in place and without harm to who reads there at that moment.
"""

from __future__ import annotations

import errno
import fcntl
import marshal
import os

from guntainer import errors, hostids
from guntainer.idmap import Ids
from guntainer.rootfs import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERSION = 2
_DIGEST_DIGITS = 64
_META_BYTES = 1 << 26  # a layer remembers the folders that it has no entries for
ROOTFS, LAYER, IMAGE, BUILD, CACHE = KINDS = ("rootfs", "layers", "images", "builds", "folders")
"""Kinds of entries: the folders that they are in."""
FOLDERS = (*KINDS, "index", "refs", "incoming")
_IMAGE_LINK = "image:"


class Lease:
    """The right to use an entry's tree; it stays until `release`."""

    __slots__ = ("_lock", "architecture", "digest", "facts", "kind", "rootfs")

    def __init__(self, kind: str, rootfs: Rootfs, digest: str, architecture: str | None, lock: int) -> None:
        self.facts: dict[str, Any] = {}
        """Of an unpack just now: what it has counted."""
        self.kind = kind
        self.rootfs = rootfs
        self.digest = digest
        self.architecture = architecture
        self._lock = lock

    @property
    def tree(self) -> str:
        """The uppermost folder: the only one of an archive."""
        return self.rootfs.folders[0]

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

    def entry(self, digest: str, kind: str = ROOTFS) -> str:
        """The folder of an entry."""
        return f"{self.path}/{kind}/{digest}{self.suffix}"

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

    def find(self, archive: str, sha256: str | None = None, selection: str = "") -> Lease | None:
        """The lease of an archive that is unpacked already, else None.

        Args:
            selection: what is chosen of it, where it holds several images.

        Raises:
            RootfsError: it is known, and has another digest than `sha256`.
        """
        try:
            key = key_of(os.stat(identified_by(archive)))
        except OSError:
            return None
        found = self.follow("index", index_name(key, selection), sha256, archive)
        if found is None and sha256 is not None:
            found = self.follow("index", index_name(key, demanding(selection, sha256)))
        return found

    def follow(self, folder: str, name: str, sha256: str | None = None, archive: str = "") -> Lease | None:
        """The lease of what a link of `index` or `refs` leads to, else None; arguments as of `find`."""
        try:
            text = os.readlink(f"{self.path}/{folder}/{name}")
        except OSError:
            return None
        kind = IMAGE if text.startswith(_IMAGE_LINK) else ROOTFS
        digest = text.removeprefix(_IMAGE_LINK)
        if len(digest) != _DIGEST_DIGITS or not digest.isalnum():
            return None
        if sha256 is not None and kind == IMAGE:
            return None  # its own digest is not that of the file that it came in
        if sha256 is not None and sha256 != digest:
            raise mismatch(archive, sha256, digest)
        return self.lease(digest, kind)

    def remember(self, folder: str, name: str, digest: str, kind: str = ROOTFS) -> None:
        """Make, or replace, a link of `index` or `refs`: symlink(2) and rename(2)."""
        link = f"{self.path}/{folder}/{name}"
        made = f"{self.path}/{folder}/.{os.getpid()}-{os.urandom(6).hex()}"
        os.symlink((_IMAGE_LINK if kind == IMAGE else "") + digest, made)
        os.rename(made, link)

    def has(self, archive: str) -> bool:
        """Whether an archive is known to be here: a look without a lease, so it may be gone at once."""
        try:
            text = os.readlink(f"{self.path}/index/{key_of(os.stat(archive))}")
            kind = IMAGE if text.startswith(_IMAGE_LINK) else ROOTFS
            return os.path.exists(f"{self.entry(text.removeprefix(_IMAGE_LINK), kind)}/meta")
        except OSError:
            return False

    def lease(self, digest: str, kind: str = ROOTFS) -> Lease | None:
        """The lease of an entry by its digest, else None."""
        entry = self.entry(digest, kind)
        try:
            lock = os.open(f"{entry}/lock", os.O_RDONLY | os.O_CLOEXEC)  # a store may be on a read-only disk
        except OSError:
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)
            # who removes an entry unlinks its lock while holding it: a lock without a name is a dead entry's
            if os.fstat(lock).st_nlink:
                meta = read_meta(entry)
                if meta is not None:
                    _touch(lock)
                    return Lease(kind, _rootfs(kind, entry, meta), digest, meta.get("architecture"), lock)
        except OSError:
            pass
        os.close(lock)
        return None


def _rootfs(kind: str, entry: str, meta: dict[str, Any]) -> Rootfs:
    """What an entry is run on."""
    if kind == ROOTFS:
        return Rootfs(lowers=(f"{entry}/{meta.get('tree', 'tree')}",))
    if kind in (LAYER, BUILD):
        return Rootfs(lowers=("tree", "opaque") if meta.get("opaque") else ("tree",), base=entry)
    from guntainer.image.config import Config

    count = int(meta["lowers"])
    return Rootfs(lowers=tuple(map(str, range(count))), base=f"{entry}/lowers", config=Config.from_dict(meta["config"]))


def demanding(selection: str, sha256: str | None) -> str:
    """The selection of an image whose file was found to have the digest that was demanded."""
    return f"{selection}\0{sha256}" if sha256 is not None else selection


def identified_by(path: str) -> str:
    """The file whose identity stands for what `path` holds: of an OCI layout's folder its index, else itself."""
    for name in ("index.json", "manifest.json"):
        if os.path.exists(f"{path}/{name}"):
            return f"{path}/{name}"
    return path


def index_name(key: str, selection: str = "") -> str:
    """The name of a link in `index`: an archive's key, and what is chosen of it."""
    if not selection:
        return key
    # a digest that is demanded is in it: nobody may be able to make another selection of the same name
    from _hashlib import openssl_sha256

    data = selection.encode("utf-8", "surrogateescape")
    return f"{key}-{openssl_sha256(data, usedforsecurity=False).hexdigest()[:32]}"


def _touch(fd: int) -> None:
    try:
        os.utime(fd)
    except OSError:
        pass  # a store on a read-only disk still serves


def read_meta(entry: str) -> dict[str, Any] | None:
    """What is known of an entry; None where it is not whole."""
    try:
        with open(f"{entry}/meta", "rb") as file:
            meta = marshal.loads(file.read(_META_BYTES))
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
    if int(found) < VERSION:
        from guntainer.store import migration

        try:
            migration.migrate(where, VERSION, FOLDERS)
        except OSError as error:
            raise _unusable(where, error) from None
    return Store(where, ids)


def _make(where: str) -> None:
    try:
        os.makedirs(where, 0o700, exist_ok=True)
        if os.stat(where).st_uid == os.geteuid() and not os.listdir(where):
            os.chmod(where, 0o700)  # an empty folder that was made for it
        for name in FOLDERS:
            os.makedirs(f"{where}/{name}", 0o700, exist_ok=True)
        from guntainer.store import migration

        migration.write_version(where, VERSION)
    except OSError as error:
        raise _unusable(where, error) from None


def _unusable(where: str, error: OSError) -> errors.StoreError:
    hint = "use --store DIR or GUNTAINER_STORE to put it elsewhere"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = f"free some space there, or {hint}"
    return errors.StoreError(f"store {where}: {errors.describe_oserror(error)}", hint=hint, probe="store")
