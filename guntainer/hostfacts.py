"""What a batch ran on, for its reports: facts that a reader who compares two runs wants to see, and nothing private."""

from __future__ import annotations

import os
import sys

from guntainer import __version__

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_CI = (
    ("GitHub Actions", "GITHUB_ACTIONS", ("GITHUB_WORKFLOW", "GITHUB_RUN_ID", "GITHUB_SHA", "GITHUB_REF")),
    ("GitLab CI", "GITLAB_CI", ("CI_PIPELINE_ID", "CI_JOB_NAME", "CI_COMMIT_SHA", "CI_COMMIT_REF_NAME")),
    ("CI", "CI", ()),
)
"""(name, the variable that tells it, variables that say which run of it)."""
_LONGEST = 200  # characters


def host_facts(userns: str, env: Mapping[str, str] | None = None) -> tuple[tuple[str, str], ...]:
    """(name, text) of each, in the order in which people read them; only what can be had.

    Args:
        userns: which ids are mapped: "single" or "range".
        env: the environment to look for a CI system in; None: the process's.
    """
    env = os.environ if env is None else env
    system = os.uname()
    found = {
        "guntainer": __version__,
        "host": system.nodename,
        "kernel": f"{system.sysname} {system.release}",
        "distribution": _distribution(),
        "machine": system.machine,
        "processor": _from_proc("cpuinfo", "model name"),
        "processors": str(len(os.sched_getaffinity(0))),
        "memory": _memory(),
        "python": ".".join(map(str, sys.version_info[:3])),
        "ids": userns,
    }
    for name, sign, variables in _CI:
        if env.get(sign):
            found["ci"] = name
            found |= {variable.lower(): env.get(variable, "") for variable in variables}
            break
    return tuple((name, text[:_LONGEST]) for name, text in found.items() if text)


def _from_proc(name: str, key: str) -> str:
    try:
        with open(f"/proc/{name}", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(key):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return ""


def _memory() -> str:
    kib = _from_proc("meminfo", "MemTotal").partition(" ")[0]
    return f"{int(kib) / (1 << 20):.1f} GiB" if kib.isdecimal() else ""


def _distribution() -> str:
    """os-release(5)."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                for line in file:
                    if line.startswith("PRETTY_NAME="):
                        return line.partition("=")[2].strip().strip("\"'")
        except OSError:
            continue
    return ""
