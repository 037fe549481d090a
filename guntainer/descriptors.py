"""RLIMIT_NOFILE: raised for this process and its helper as far as they need it, and given back to commands as it was.

The soft limit is 1024 by habit, because of select(2), which nothing here uses; the hard limit is what the host allows.
"""

from __future__ import annotations

import os

from guntainer import errors

LEAST = 256
"""A launch uses descriptors at fixed numbers below this: see `init`."""

_MANY = 64
_AWAY = 100

_before: tuple[int, int, int] | None = None


def make_room(words: list[str]) -> None:
    """Close what a caller has left open for us, where that is so much that our own would get numbers which a launch uses.

    No container gets any of them anyway. What the command line names stays: `--env-file <(…)` is /dev/fd/63.
    """
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return
    if len(numbers) < _MANY:
        return
    text = "\0".join(words)
    for number in numbers:
        if number > 2 and f"/fd/{number}" not in text:
            try:
                os.close(number)
            except OSError:
                pass  # the listing's own


def to_places(places: dict[int, int], *, clear: int = -1) -> list[tuple[int, ...]]:
    """File actions of posix_spawn(3) that put descriptors to their numbers: {number: descriptor}.

    They are moved out of the way first: one of them may be another's place.

    Args:
        clear: one more descriptor that must still be there at the end.
    """
    above = max(_AWAY, clear, *places, *places.values()) + 1
    away = [(os.POSIX_SPAWN_DUP2, fd, above + at) for at, fd in enumerate(places.values())]
    home = [(os.POSIX_SPAWN_DUP2, above + at, number) for at, number in enumerate(places)]
    tidy = [(os.POSIX_SPAWN_CLOSE, above + at) for at in range(len(places))]
    return [*away, *home, *tidy]


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


def share(pid: int) -> None:
    """Allow a process of ours, that was started before the limit was raised, as many: prlimit(2)."""
    if _before is not None:
        import resource

        try:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE))
        except OSError:
            pass  # it has ended, or goes on with fewer


def for_commands() -> tuple[tuple[int, int, int], ...]:
    """(resource, soft, hard) to set in a container: what was found, where it was raised."""
    return (_before,) if _before is not None else ()
