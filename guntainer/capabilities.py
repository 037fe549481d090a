"""Capabilities by name, and the set that a container has: capabilities(7). Pure.

The default is the set that docker leaves, so that an image finds here what it finds there.
"""

from __future__ import annotations

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

KNOWN = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST"),
    *("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"),
    *("CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE"),
    *("CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE"),
    *("CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM"),
    *("CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
)
"""In the kernel's order: a capability's number is its place."""

DEFAULT = frozenset(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "SETFCAP"),
        *("NET_BIND_SERVICE", "NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE"),
    )
)


def parse(text: str) -> str:
    """`NET_ADMIN`, `cap_net_admin` or `ALL` as `CAP_NET_ADMIN` or `ALL`.

    Raises:
        UsageError: there is no such capability.
    """
    name = text.upper()
    if name == "ALL":
        return name
    name = name if name.startswith("CAP_") else f"CAP_{name}"
    if name not in KNOWN:
        from guntainer.jobs.values import near, quoted

        hint = near(name.removeprefix("CAP_"), (one.removeprefix("CAP_") for one in KNOWN))
        raise errors.UsageError(f"unknown capability {quoted(text)}{hint}")
    return name


def chosen(add: Iterable[str], drop: Iterable[str], *, privileged: bool = False) -> frozenset[str]:
    """What is left of the default set, as docker reckons: what is dropped by name is dropped, whatever else is said.

    Args:
        privileged: start with all of them; who drops ALL of them all the same gets what he adds by name.
    """
    add, drop = frozenset(add), frozenset(drop)
    if "ALL" in add or (privileged and "ALL" not in drop):
        base = frozenset(KNOWN)
    elif "ALL" in drop:
        base = frozenset()
    else:
        base = DEFAULT
    return (base | (add - {"ALL"})) - drop
