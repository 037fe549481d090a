"""The host's own system as a rootfs: its /usr, /etc and friends, read-only, in a root that is thrown away.

overlayfs takes no `lowerdir=/` from a user namespace as soon as something is mounted below it, so the folders are bound one
by one over a small tree of our own, which has the links (`bin` → `usr/bin`) and the empty folders that a system has besides.
What is the user's own (/home, /root), what the system writes (/var, /run, /srv) and its devices stay outside.
"""

from __future__ import annotations

import os

from guntainer import errors, interrupts
from guntainer.jobs.model import Mount
from guntainer.rootfs import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.jobs.model import Job

_SHOWN = ("usr", "etc", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix", "gnu")
_EMPTY = {
    **dict.fromkeys(
        ("home", "media", "mnt", "run", "srv", "var", "var/cache", "var/lib", "var/log", "var/spool"), 0o755
    ),
    **dict.fromkeys(("run/lock", "tmp", "var/tmp"), 0o1777),
    "root": 0o700,
}
_LINKS = {"var/run": "/run", "var/lock": "/run/lock"}


def rootfs(shared: str) -> Rootfs:
    """The host's system as it is now.

    Args:
        shared: a folder of ours, in which the tree is kept.

    Raises:
        StoreError: the tree can not be made.
    """
    links, folders = dict(_LINKS), dict(_EMPTY)
    mounts = []
    for name in _SHOWN:
        path = f"/{name}"
        if os.path.islink(path):
            links[name] = os.readlink(path)
        elif os.path.isdir(path):
            folders[name] = 0o755
            mounts.append(Mount(source=path, target=path, read_only=True))
    return Rootfs(lowers=(_tree(shared, links, folders),), mounts=tuple(mounts), accounts="/")


def with_names(job: Job, rootfs: Rootfs, skeleton_: str) -> Job:
    """Where the host's /etc is bound over the skeleton's, its files with names are bound over that.

    The host's may be links: /etc/resolv.conf is one into /run, where systemd-resolved is. What they lead to is bound over then,
    and made, where the root is not the host's.
    """
    etc = f"{rootfs.accounts}etc"
    hosts = tuple(mount for mount in job.mounts if mount in rootfs.mounts)
    if not any(mount.source == etc for mount in hosts):
        return job
    own = []
    for name in sorted(os.listdir(f"{skeleton_}/etc")):
        target = os.path.realpath(f"{etc}/{name}")
        shown = any(target.startswith(f"{mount.target}/") for mount in hosts)
        if os.path.lexists(f"{etc}/{name}") and (os.path.isfile(target) or not shown):
            own.append(Mount(source=f"{skeleton_}/etc/{name}", target=target, read_only=True))
    users = job.mounts[len(hosts) :]
    taken = tuple(f"{mount.target.rstrip('/')}/" for mount in users)  # nothing is made in a volume of the user's
    own = [
        mount
        for mount in own
        if not f"{mount.target}/".startswith(taken) and f"/etc/{os.path.basename(mount.source)}/" not in taken
    ]
    return job.replace(mounts=(*hosts, *own, *users))


def _tree(shared: str, links: dict[str, str], folders: dict[str, int]) -> str:
    """A folder for this shape of a system, made if it is not there yet."""
    from zlib import crc32

    shape = repr((sorted(links.items()), sorted(folders.items()))).encode("utf-8", "surrogateescape")
    path = f"{shared}/host-{crc32(shape):08x}"
    if os.path.isdir(path):
        return path
    made = f"{path}.{os.getpid()}-{os.urandom(4).hex()}"
    with interrupts.held():  # it is short, and done or undone as a whole
        try:
            os.mkdir(made, 0o755)
            for name, mode in sorted(folders.items()):
                os.mkdir(f"{made}/{name}")
                os.chmod(f"{made}/{name}", mode)
            for name, target in links.items():
                os.symlink(target, f"{made}/{name}")
            os.chmod(made, 0o755)
            os.rename(made, path)
        except OSError as error:
            from guntainer.store.remove import remove_tree

            remove_tree(made)
            if not os.path.isdir(path):  # else another process was quicker
                raise errors.StoreError(
                    f"can not make the host's tree: {errors.describe_oserror(error)}", probe="store"
                ) from None
    return path
