"""Bring a store of an older layout up to this one, in place.

    1   rootfs/ index/ incoming/
    2   and layers/ images/ builds/ refs/; texts of links in index/ may begin with `image:`; entries have a seal

What was unpacked under layout 1 stays valid. It lacks the extended attributes that archives have had and the seal of
`archive.seal`, so `store verify` says that it can not be checked; `store rm` and the next use bring it in anew.
"""

from __future__ import annotations

import errno
import fcntl
import os

_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


def migrate(where: str, version: int, folders: tuple[str, ...]) -> None:
    """Raise the layout of the store at `where` to `version`; whoever is second finds it done.

    Everything new is made first, and the number last, by one rename: after a crash at any point it is begun again. Who works
    there with an older program is not disturbed: nothing that it knows is moved or changed.

    Raises:
        OSError: of the disk. A store that can only be read stays as it is, and serves.
    """
    lock = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if layout_of(where) >= version:
            return
        for name in folders:
            os.makedirs(f"{where}/{name}", 0o700, exist_ok=True)
        write_version(where, version)
    except OSError as error:
        if error.errno not in _READ_ONLY:
            raise
    finally:
        os.close(lock)


def layout_of(where: str) -> int:
    """The number in VERSION, which is known to be one."""
    with open(f"{where}/VERSION", "rb") as file:
        return int(file.read(20))


def write_version(where: str, version: int) -> None:
    """By one rename: several processes, and threads, may make a store at the same time."""
    made = f"{where}/VERSION.{os.getpid()}-{os.urandom(4).hex()}"
    with open(made, "w", encoding="ascii") as file:
        file.write(f"{version}\n")
    os.rename(made, f"{where}/VERSION")
