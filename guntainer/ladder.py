"""The isolation ladder: what to try where a host refuses something, one rung after the other, never silently.

    full        everything that the container's own namespaces give
    host-proc   the host's /proc is shown, read-only, where a new one is refused
    no-pid      and no pid namespace, where that is refused as well: the command sees the host's processes, and can signal the
                caller's; what it leaves behind is found in /proc and killed
    (refuse)    no user namespace, no mount namespace: nothing is run

Beside it stands another choice: a copy of the rootfs where overlayfs is refused.
"""

from __future__ import annotations

import errno
import os

from guntainer import errors, planner
from guntainer.value import Value

_REFUSED = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP)
_SHOWN = "the command sees the host's processes, and can signal yours"


class Rung(Value):
    """What to try next."""

    isolation: str
    copy: bool
    """Whether the rootfs is copied, for want of an overlay."""
    note: str
    """What the user is told."""
    probe: str = ""
    """Of `guntainer doctor`."""


def next_rung(error: errors.GuntainerError, isolation: str, *, copy: bool) -> Rung | None:
    """What to try after a refusal on this rung; None where there is nothing lower, or another fault was behind it."""
    if isinstance(error, errors.NamespaceRefused):
        if error.kind == "pid" and isolation != planner.NO_PID:
            return _rung(planner.NO_PID, copy, f"{error.message}; {_SHOWN}", error.probe)
        return None
    if not isinstance(error, errors.SetupError) or error.errno not in _REFUSED:
        return None
    if error.step == "mount" and error.subject == "/proc" and isolation == planner.FULL:
        return _rung(
            planner.HOST_PROC, copy, "a new /proc is refused here; the host's is shown, read-only", "proc-mount"
        )
    if error.step == "host_view" and error.subject == "/proc" and isolation == planner.HOST_PROC:
        return _rung(planner.NO_PID, copy, f"the host's /proc is refused in a pid namespace; {_SHOWN}", "proc-mount")
    if error.step == "overlay" and not copy:
        note = f"overlayfs is refused here ({os.strerror(error.errno)}): running on a copy"
        return Rung(isolation=isolation, copy=True, note=note, probe=error.probe)
    return None


def _rung(isolation: str, copy: bool, why: str, probe: str) -> Rung:
    return Rung(isolation=isolation, copy=copy, note=f"isolation: {isolation} ({why})", probe=probe)


def refuse(rung: Rung) -> None:
    """For who demands full isolation.

    Raises:
        HostError: a lower rung is all there is.
    """
    if rung.isolation != planner.FULL:
        raise errors.HostError(
            f"full isolation was demanded, but {rung.note}", hint="nothing was run", probe=rung.probe
        )
