"""What came of a probe. Pure."""

from __future__ import annotations

from guntainer.value import Value

OK, DEGRADED, MISSING = "ok", "degraded", "missing"
"""Works; works less well, or something else takes its place; can not be had."""


class Finding(Value):
    """What came of one probe."""

    status: str
    found: str
    """One line."""
    remedy: tuple[str, ...] = ()
    """Lines for a shell, comments among them."""
    because: str = ""
    """The probe whose fault this is as well: mend that one."""


def ok(found: str) -> Finding:
    return Finding(status=OK, found=found)


def degraded(found: str, *remedy: str, because: str = "") -> Finding:
    return Finding(status=DEGRADED, found=found, remedy=remedy, because=because)


def missing(found: str, *remedy: str, because: str = "") -> Finding:
    return Finding(status=MISSING, found=found, remedy=remedy, because=because)
