"""RLIMIT_NOFILE: raised for this process and its helper as far as they need it, and given back to commands as it was.

The soft limit is 1024 by habit, because of select(2), which nothing here uses; the hard limit is what the host allows.
"""

from __future__ import annotations

import os

from guntainer import errors

LEAST = 256
"""A launch uses descriptors at fixed numbers below this: see `init.ops`."""

_before: tuple[int, int, int] | None = None


def allow(count: int) -> int:
    """Raise the soft limit so that `count` descriptors can be open; returns how many can be, which may be fewer.

    Raises:
        HostError: fewer than a launch needs.
    """
    global _before
    allowed = os.sysconf("SC_OPEN_MAX")  # the soft limit, without an import
    if 0 <= allowed < max(count, LEAST):
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        allowed = max(count, LEAST) if hard == resource.RLIM_INFINITY else min(max(count, LEAST), hard)
        if allowed < LEAST:
            raise errors.HostError(
                f"only {hard} open files are allowed here, a launch needs {LEAST}",
                hint="raise `ulimit -n`",
                probe="nofile",
            )
        if allowed > soft:
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
            _before = _before or (int(resource.RLIMIT_NOFILE), soft, hard)
    return count if allowed < 0 else min(allowed, count)


def for_commands() -> tuple[tuple[int, int, int], ...]:
    """(resource, soft, hard) to set in a container: what was found, where it was raised."""
    return (_before,) if _before is not None else ()
