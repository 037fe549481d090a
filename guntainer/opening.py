"""What was given as ROOTFS, as a folder to run on: a leased tree of the store, a temporary one, or the user's own folder."""

from __future__ import annotations

import os
import stat

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.idmap import Ids
    from guntainer.jobs.model import Job
    from guntainer.store.lookup import Lease


def check_sources(job: Job) -> None:
    """A bind mount's source must be there: nothing is made on the host, as podman does it.

    Raises:
        UsageError: naming the missing path.
    """
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
    """`with open_rootfs(…) as (tree, shared)`: the lease is given back at the end.

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
        self._lease: Any = None

    def __enter__(self) -> tuple[str, str]:
        path = self._job.rootfs.location
        kind = kind_of(path, self._job.rootfs.name, self._job.rootfs.sha256)
        if not self._job.cache:
            return self._temporary(path, kind)
        from guntainer.store.lookup import open_store

        store = open_store(self._store, self._ids)
        if kind == "folder":
            return path, store.path
        store.tidy()
        self._lease = store.find(path, self._job.rootfs.sha256)
        if self._lease is None:
            from guntainer.store import fill

            self._lease = fill.lease(store, path, sha256=self._job.rootfs.sha256, **self._unpacking)
            if self._note is not None:
                for text in not_as_packed(self._job.rootfs.name, self._lease):
                    self._note(text)
        check_architecture(self._lease.architecture, self._job.rootfs.name)
        return self._lease.tree, store.path

    def _temporary(self, path: str, kind: str) -> tuple[str, str]:
        folder = self._folder().path
        if kind == "folder":
            return path, folder
        from guntainer.store import fill

        tree = fill.unpack_temporary(
            path, f"{folder}/rootfs", ids=self._ids, sha256=self._job.rootfs.sha256, **self._unpacking
        )
        return tree, folder

    def __exit__(self, *_: object) -> None:
        if self._lease is not None:
            self._lease.release()


def not_as_packed(name: str, lease: Lease) -> list[str]:
    """For the user: what of an archive is not in the rootfs as it was."""
    notes = []
    if lease.left_out:
        s = "" if lease.left_out == 1 else "s"
        notes.append(f"{name}: {lease.left_out} device{s} or sockets left out: a user can not make them")
    if lease.unmapped:
        notes.append(f"{name}: {lease.unmapped} entries of users that are not mapped are root's now")
    return notes


_ROOT_FOLDERS = ("bin", "etc", "usr", "lib", "sbin")


def kind_of(path: str, name: str, sha256: str | None = None) -> str:
    """ "folder" or "archive".

    Raises:
        RootfsError: it is not there, or neither of them, or not readable, or a folder of which a digest is demanded.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        where = "" if path.endswith(name.removeprefix("./")) else f"{path}: "
        hint = _not_an_image(name) if isinstance(error, FileNotFoundError) else ""
        raise errors.RootfsError(f"rootfs {name}: {where}{error.strerror}", hint=hint) from None
    if stat.S_ISDIR(mode):
        if sha256 is not None:
            raise errors.RootfsError(f"rootfs {name}: a folder has no sha256", hint="give an archive, or leave it out")
        if os.path.exists(f"{path}/oci-layout") and not any(os.path.lexists(f"{path}/{n}") for n in _ROOT_FOLDERS):
            raise errors.RootfsError(
                f"rootfs {name}: a container image, not a rootfs", hint="images are not supported by this version yet"
            )
        if os.path.realpath(path) == "/":
            raise errors.RootfsError(
                f"rootfs {name}: the host's own root can not be run on", hint="the kernel refuses an overlay over it"
            )
        return "folder"
    if not stat.S_ISREG(mode):
        raise errors.RootfsError(f"rootfs {name}: neither an archive nor a folder")
    if not os.access(path, os.R_OK):
        raise errors.RootfsError(f"rootfs {name}: Permission denied")
    return "archive"


def _not_an_image(name: str) -> str:
    """A hint for who means an image of a registry, or a URL, by the looks of it: `alpine:3.20`, `docker://alpine`."""
    last = name.rpartition("/")[2].partition(":")[0]
    if "://" not in name and (name.startswith(("/", ".", "~")) or "." in last):
        return ""
    return "it must be an archive or a folder of this machine: nothing is fetched by this version"


_NAMES = {"x86_64": "x86_64", "aarch64": "arm64", "arm64": "arm64"}


def _emulated() -> bool:
    """Whether the kernel starts an emulator for programs of other machines: binfmt_misc."""
    try:
        return any(name.startswith("qemu-") for name in os.listdir("/proc/sys/fs/binfmt_misc"))
    except OSError:
        return False


def check_architecture(found: str | None, name: str) -> None:
    """Refuse a rootfs of another machine before anything runs.

    Raises:
        RootfsError: "this rootfs is arm64".
    """
    machine = os.uname().machine
    own = {machine, _NAMES.get(machine, machine)}
    if machine == "x86_64":
        own |= {"i386", "i686", "x86"}
    if found and found not in own and not _emulated():
        raise errors.RootfsError(f"rootfs {name}: this rootfs is {found}, this machine is {machine}")
