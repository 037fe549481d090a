"""The options of `guntainer run` that bound what a container may use: docker's names and notations."""

from __future__ import annotations

from guntainer.cli.options import LIST, Option, Options
from guntainer.jobs.model import Limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_MODES = "required|best-effort"
OPTIONS = (
    Option("-m", "--memory", metavar="SIZE", help="the most memory (512m, 2g)"),
    Option(
        "--memory-swap", metavar="SIZE", help="memory and swap together; -1: all the swap (default: twice --memory)"
    ),
    Option("--cpus", metavar="N", help="processors' worth of time (0.5, 2)"),
    Option("--cpuset-cpus", metavar="LIST", help="run on these processors alone (0-3,6)"),
    Option("--pids-limit", metavar="N", help="the most processes and threads"),
    Option("--ulimit", kind=LIST, metavar="NAME=SOFT[:HARD]", help="a limit of getrlimit(2): nofile=1024:2048"),
    Option("--blkio-weight", metavar="N", help="share of the disks' time, 10 to 1000"),
    Option("--device-read-bps", kind=LIST, metavar="DEV:RATE", help="bytes a second; DEV: a disk, or a path on it"),
    Option("--device-write-bps", kind=LIST, metavar="DEV:RATE", help="the same for writing"),
    Option("--device-read-iops", kind=LIST, metavar="DEV:RATE", help="operations a second"),
    Option("--device-write-iops", kind=LIST, metavar="DEV:RATE", help="the same for writing"),
    Option(
        "--limits", default="required", metavar=_MODES, help="refuse to run without the limits, or go on and say so"
    ),
)
_FIELDS = {
    "memory": ("memory_bytes", "memory"),
    "memory_swap": ("memory_swap_bytes", "memory_swap"),
    "cpus": ("cpus", "cpus"),
    "cpuset_cpus": ("cpuset", "cpuset"),
    "pids_limit": ("pids", "pids"),
    "blkio_weight": ("io_weight", "weight"),
}
"""Option → field of Limits, and its reader in jobs.limits."""


def limits_of(args: Options, read: Callable[..., Any], here: Callable[[], str]) -> Limits:
    """The limits that these options give.

    Args:
        read: calls a parser, and names the option in its complaint.
        here: the folder that relative paths start at.

    Raises:
        UsageError: naming the option.
    """
    given = args.__dict__
    names = [option.name for option in OPTIONS if given[option.name]]
    if names == ["limits"] and args.limits == "required":
        return Limits()
    from guntainer.jobs import limits as notation

    found: dict[str, Any] = {"best_effort": read("--limits", notation.mode, args.limits)}
    for name, (field, reader) in _FIELDS.items():
        if given[name] is not None:
            found[field] = read(f"--{name.replace('_', '-')}", getattr(notation, reader), given[name])
    for option in notation.IO_KINDS:
        for text in given[option.replace("-", "_")]:
            rate = read(f"--{option}", notation.device_rate, option, text, here())
            found["io_max"] = (*found.get("io_max", ()), rate)
    found["ulimits"] = tuple(read("--ulimit", notation.ulimit, text) for text in args.ulimit)
    return read("--memory-swap", lambda: notation.gather(**found))  # type: ignore[no-any-return]
