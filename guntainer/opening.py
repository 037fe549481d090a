"""What was given as ROOTFS, as a Rootfs to run on: a leased entry of the store, of a temporary one, or the user's own folder."""

from __future__ import annotations

import os
import stat

from guntainer import errors
from guntainer.rootfs import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.idmap import Ids
    from guntainer.jobs.model import Job, Source
    from guntainer.store.lookup import Lease, Store


def check_sources(job: Job) -> None:
    """A bind mount's source must be there: nothing is made on the host, as podman does it.

    Raises:
        UsageError: naming the missing path.
    """
    if job.workspace is not None:
        from guntainer import workspace

        workspace.check(job.workspace)
    for mount in job.mounts:
        if mount.kind != "bind":
            continue
        try:
            os.stat(mount.source)
        except FileNotFoundError:
            raise errors.UsageError(
                f"volume {mount.source}:{mount.target}: {mount.source} does not exist on the host"
            ) from None
        except OSError as error:
            raise errors.UsageError(f"volume {mount.source}:{mount.target}: {mount.source}: {error.strerror}") from None


class open_rootfs:  # noqa: N801 - used as a function; contextlib would cost the warm path its import
    """`with open_rootfs(…) as (rootfs, shared)`: the lease is given back at the end.

    `shared` is a folder of ours for skeleton layers and the mount point.
    """

    def __init__(
        self,
        job: Job,
        store: str | None,
        ids: Ids,
        folder: Callable[[], Any],
        progress: Callable[[int, int], None] | None = None,
        meanwhile: Callable[[], None] | None = None,
        note: Callable[[str], None] | None = None,
    ) -> None:
        self._job = job
        self._note = note
        self._store = store
        self._ids = ids
        self._folder = folder
        self._unpacking: dict[str, Any] = {"progress": progress, "meanwhile": meanwhile}
        self._lease: Lease | None = None

    def __enter__(self) -> tuple[Rootfs, str]:
        from guntainer.store.lookup import open_store

        source = self._job.rootfs
        check(source)
        # one in the run folder is gone with the run
        store = open_store(self._store if self._job.cache else f"{self._folder().path}/store", self._ids)
        own = folder_of(source, store.path)
        if own is not None:
            return own, store.path
        if self._job.cache:
            store.tidy()
        self._lease = self._find(store)
        check_architecture(self._lease.architecture, source.name)
        return self._lease.rootfs, store.path

    @property
    def lease(self) -> Lease | None:
        """Of what was opened; None: a folder, which nobody holds."""
        return self._lease

    def _find(self, store: Store) -> Lease:
        """The usual case, an archive that is there already, without what all others need."""
        source = self._job.rootfs
        if not source.remote and source.limits is None:
            found = store.find(source.location, source.sha256, source.selection)
            if found is not None:
                return found
        from guntainer.store import acquire

        lease = acquire.acquire(store, source, **self._unpacking)
        if self._note is not None:
            for text in not_as_packed(source.name, lease):
                self._note(text)
        return lease

    def __exit__(self, *_: object) -> None:
        if self._lease is not None:
            self._lease.release()


def not_as_packed(name: str, lease: Lease) -> list[str]:
    """For the user: what of an archive, unpacked just now, is not in the rootfs as it was."""
    notes = []
    left_out = lease.facts.get("devices", 0) + lease.facts.get("sockets", 0)
    if left_out:
        s = "" if left_out == 1 else "s"
        notes.append(f"{name}: {left_out} device{s} or sockets left out: a user can not make them")
    if lease.facts.get("unmapped"):
        notes.append(f"{name}: {lease.facts['unmapped']} entries of users that are not mapped are root's now")
    lost = lease.facts.get("xattrs", 0) + lease.facts.get("acls", 0)
    if lost:
        s = "" if lost == 1 else "s"
        notes.append(f"{name}: {lost} extended attribute{s} or ACLs left out, which can not be set here")
    return notes


_ROOT_FOLDERS = ("bin", "etc", "usr", "lib", "sbin")


def check(source: Source) -> None:
    """Whether something is there that can be opened: of what is elsewhere nobody knows yet.

    Raises:
        RootfsError: it is not there, or neither a file nor a folder, or not readable, or a folder of which a digest is demanded.
    """
    if source.remote:
        return
    if source.kind == "host":
        _check_digest(source)
        return
    path, name = source.location, source.name
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        where = "" if path.endswith(name.removeprefix("./")) else f"{path}: "
        missing = isinstance(error, FileNotFoundError) and source.kind == "path"
        hint = _not_an_image(name) if missing else ""
        raise errors.RootfsError(f"rootfs {name}: {where}{error.strerror}", hint=hint) from None
    if stat.S_ISDIR(mode):
        if source.kind == "path" and not is_layout(path):
            _check_folder(source)
        return
    if not stat.S_ISREG(mode):
        raise errors.RootfsError(f"rootfs {name}: neither an archive nor a folder")
    if not os.access(path, os.R_OK):
        raise errors.RootfsError(f"rootfs {name}: Permission denied")


def _check_digest(source: Source) -> None:
    if source.sha256 is not None:
        raise errors.RootfsError(
            f"rootfs {source.name}: a folder has no sha256", hint="give an archive, or leave it out"
        )


def _check_folder(source: Source) -> None:
    _check_digest(source)
    if os.path.realpath(source.location) == "/":
        raise errors.RootfsError(
            f"rootfs {source.name}: the host's own root can not be run on: the kernel refuses an overlay over it",
            hint="`host` is its /usr, /etc and friends, read-only",
        )


def is_layout(path: str) -> bool:
    """Whether a folder holds a container image, not a rootfs."""
    if any(os.path.lexists(f"{path}/{name}") for name in _ROOT_FOLDERS):
        return False
    if os.path.exists(f"{path}/oci-layout"):
        return True
    if not os.path.exists(f"{path}/manifest.json"):
        return False
    from guntainer.image import sniffing  # other programs have files of that name as well

    return sniffing.detect(path) is not None


def folder_of(source: Source, shared: str) -> Rootfs | None:
    """The rootfs of a source that needs no unpacking: the user's own folder, the host; None: it needs some.

    Args:
        shared: a folder of ours, for the host's.
    """
    if source.kind == "host":
        from guntainer import hosttree

        return hosttree.rootfs(shared)
    if source.kind == "path" and os.path.isdir(source.location) and not is_layout(source.location):
        return Rootfs(lowers=(source.location,))
    return None


def _not_an_image(name: str) -> str:
    """A hint for who means an image of a registry, by the looks of it: `alpine:3.20`."""
    last = name.rpartition("/")[2].partition(":")[0]
    if "://" not in name and (name.startswith(("/", ".", "~")) or "." in last):
        return ""
    return f"an image of a registry is docker://{name}"


_NAMES = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


def check_architecture(found: str | None, name: str) -> None:
    """Refuse a rootfs of another machine before anything runs.

    Raises:
        RootfsError: "this rootfs is arm64".
    """
    machine = os.uname().machine
    own = {machine, _NAMES.get(machine, machine)}
    if machine == "x86_64":
        own |= {"i386", "i686", "x86"}
    if not found or found in own:
        return
    from guntainer.archive.inspection import emulated

    if not emulated():
        raise errors.RootfsError(f"rootfs {name}: this rootfs is {found}, this machine is {machine}")
