"""Limits in the words of the OCI runtime spec (`linux.resources`, `process.rlimits`), and those words as files of cgroup v2.

Pure. The files and what they take: Documentation/admin-guide/cgroup-v2.rst of the kernel.
"""

from __future__ import annotations

from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from guntainer.jobs.model import Limits

    Resources = dict[str, dict[str, Any]]

_PERIOD_US = 100_000  # the kernel's default, and docker's
_LEAST_QUOTA_US = 1000
_INFINITY = (1 << 64) - 1  # RLIM_INFINITY
_LISTS = {
    "rbps": "throttleReadBpsDevice",
    "wbps": "throttleWriteBpsDevice",
    "riops": "throttleReadIOPSDevice",
    "wiops": "throttleWriteIOPSDevice",
}
_RATES = {
    "rbps": "device-read-bps",
    "wbps": "device-write-bps",
    "riops": "device-read-iops",
    "wiops": "device-write-iops",
}
_OPTIONS = {"memory": "memory", "cpu": "cpus", "cpuset": "cpuset-cpus", "pids": "pids-limit", "io": "blkio-weight"}
CONTROLLERS = tuple(_OPTIONS)


def of(limits: Limits, devices: Mapping[str, tuple[int, int]]) -> Resources:
    """`linux.resources` for these limits.

    Args:
        devices: path → (major, minor) of the disk, for each path in `limits.io_max`.
    """
    found: Resources = {}
    if limits.memory_bytes is not None:
        found["memory"] = {"limit": limits.memory_bytes}
        if limits.memory_swap_bytes is not None:
            found["memory"]["swap"] = limits.memory_swap_bytes
    if limits.cpus is not None:
        quota = max(_LEAST_QUOTA_US, round(limits.cpus * _PERIOD_US))
        found["cpu"] = {"quota": quota, "period": _PERIOD_US}
    if limits.cpuset:
        found.setdefault("cpu", {})["cpus"] = limits.cpuset
    if limits.pids is not None:
        found["pids"] = {"limit": limits.pids}
    if limits.io_weight is not None:
        found["blockIO"] = {"weight": limits.io_weight}
    for kind, path, rate in limits.io_max:
        major, minor = devices[path]
        items = found.setdefault("blockIO", {}).setdefault(_LISTS[kind], [])
        items.append({"major": major, "minor": minor, "rate": rate})
    return found


def rlimits(limits: Limits) -> list[dict[str, Any]]:
    """`process.rlimits`: setrlimit(2)."""
    return [
        {"type": f"RLIMIT_{name.upper()}", "soft": soft % (1 << 64), "hard": hard % (1 << 64)}  # -1: RLIM_INFINITY
        for name, soft, hard in limits.ulimits
    ]


def controllers(limits: Limits) -> frozenset[str]:
    """The controllers that these limits need."""
    wanted = {
        "memory": limits.memory_bytes is not None,
        "cpu": limits.cpus is not None,
        "cpuset": bool(limits.cpuset),
        "pids": limits.pids is not None,
        "io": limits.io_weight is not None or bool(limits.io_max),
    }
    return frozenset(name for name, needed in wanted.items() if needed)


def options(limits: Limits, controller: str) -> str:
    """The options that need a controller, for a message: `memory`, `blkio-weight`, …"""
    if controller != "io":
        return _OPTIONS[controller]
    names = ["blkio-weight"] if limits.io_weight is not None else []
    names += sorted({rate_option(kind) for kind, _, _ in limits.io_max})
    return ", ".join(names)


def rate_option(word: str) -> str:
    """The option of a word of io.max: `rbps` → `device-read-bps`."""
    return _RATES[word]


def without(limits: Limits, controller: str) -> Limits:
    """The same limits but those that need this controller."""
    nothing: dict[str, dict[str, Any]] = {
        "memory": {"memory_bytes": None, "memory_swap_bytes": None},
        "cpu": {"cpus": None},
        "cpuset": {"cpuset": ""},
        "pids": {"pids": None},
        "io": {"io_weight": None, "io_max": ()},
    }
    return limits.replace(**nothing[controller])


class Setting(Value):
    """One write to a file of a control group."""

    files: tuple[str, ...]
    """Those of these that are there; one is enough. Which of `io.weight` and `io.bfq.weight` counts is for a disk's scheduler."""
    texts: tuple[str, ...]
    """What each of them takes."""
    option: str
    """Whose limit it is, for a message."""
    required: bool = True
    """Whether it is an error when no such file is there."""


def settings(resources: Resources) -> tuple[Setting, ...]:
    """What to write into a new control group."""
    found: list[Setting] = []

    def add(name: str, value: object, option: str, *, required: bool = True) -> None:
        found.append(Setting(files=(name,), texts=(str(value),), option=option, required=required))

    memory = resources.get("memory", {})
    if "limit" in memory:
        add("memory.max", memory["limit"], "memory")
        # all or nothing: half a job that goes on after one of its processes was killed is no use to anybody
        add("memory.oom.group", 1, "memory", required=False)
        # docker: as much swap as memory, unless it is said otherwise
        total = memory.get("swap", 2 * memory["limit"])
        add(
            "memory.swap.max", "max" if total < 0 else total - memory["limit"], "memory-swap", required="swap" in memory
        )
    cpu = resources.get("cpu", {})
    if "quota" in cpu:
        add("cpu.max", f"{cpu['quota']} {cpu['period']}", "cpus")
    if "cpus" in cpu:
        add("cpuset.cpus", cpu["cpus"], "cpuset-cpus")
    if "pids" in resources:
        add("pids.max", resources["pids"]["limit"], "pids-limit")
    return (*found, *_io(resources.get("blockIO", {})))


def _io(block: dict[str, Any]) -> list[Setting]:
    found: list[Setting] = []
    if "weight" in block:
        weight = block["weight"]
        scaled = 1 + (weight - 10) * 9999 // 990  # 10..1000 onto 1..10000, as runc and crun do it
        files = ("io.weight", "io.bfq.weight")
        found.append(Setting(files=files, texts=(f"default {scaled}", str(weight)), option="blkio-weight"))
    lines: dict[str, dict[str, int]] = {}
    for word, name in _LISTS.items():
        for item in block.get(name, ()):
            lines.setdefault(f"{item['major']}:{item['minor']}", {})[word] = item["rate"]
    for device, rates in lines.items():
        text = " ".join([device, *(f"{word}={rate}" for word, rate in rates.items())])
        found.append(Setting(files=("io.max",), texts=(text,), option=", ".join(map(rate_option, rates))))
    return found
