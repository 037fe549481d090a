"""Who runs us, as the host knows it: read once, before this process can enter a user namespace in which it is root."""

from __future__ import annotations

import os

UID = os.geteuid()
GID = os.getegid()


def login() -> str:
    """Our name; the number of who has none in passwd."""
    import pwd

    try:
        return pwd.getpwuid(UID).pw_name
    except KeyError:
        return str(UID)


HERE, SINGLE = -1, -2
"""Which user namespace to enter, where that is no descriptor: none; a new one, in which the caller's id is root's."""


def enter(namespace: int) -> None:
    """Become the root of the ids, who may look into folders that are closed to their owner; for a process with one thread.

    Args:
        namespace: a descriptor, HERE or SINGLE.
    """
    from guntainer.kernel import abi, syscalls

    if namespace >= 0:
        syscalls.setns(namespace, abi.CLONE_NEWUSER)
    elif namespace == SINGLE and os.geteuid() != 0:
        syscalls.unshare(abi.CLONE_NEWUSER)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {UID} 1"), ("gid_map", f"0 {GID} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)


_NAMES = {"mount": "mnt", "network": "net"}
_limits: dict[str, int | None] = {}


def limit_name(kind: str) -> str:
    """The sysctl that bounds how many namespaces of a kind a user may have: namespaces(7)."""
    return f"user.max_{_NAMES.get(kind, kind)}_namespaces"


def namespace_limit(kind: str) -> int | None:
    """What that sysctl says in the user namespace in which it was first asked for; None where there is no such limit.

    Each user namespace has limits of its own, and those around it hold as well.
    """
    if kind not in _limits:
        try:
            with open("/proc/sys/" + limit_name(kind).replace(".", "/"), "rb") as file:
                _limits[kind] = int(file.read())
        except (OSError, ValueError):
            _limits[kind] = None
    return _limits[kind]
