"""Probes of what bounds how much can run at once: descriptors, processes."""

from __future__ import annotations

import os
import resource

from guntainer import descriptors, hostids
from guntainer.doctor.finding import Finding, degraded, missing, ok

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.doctor.examine import Circumstances

_LIMITS_FILE = "/etc/security/limits.d/90-guntainer.conf"
_ENOUGH_FILES = 4096
_MANY_FILES = 524288
_FEW_PROCESSES = 64
_FDS_PER_JOB = 8
_ALL_IDS = ["0", "0", "4294967295"]


def nofile(around: Circumstances) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        return ok("no limit")
    remedy = _pam(around, "nofile", _MANY_FILES)
    if hard < descriptors.LEAST:
        return missing(f"{hard} open files are allowed, a launch needs {descriptors.LEAST}", *remedy)
    if hard < _ENOUGH_FILES:
        return degraded(f"{hard} open files are allowed: {hard // _FDS_PER_JOB} containers at once at most", *remedy)
    return ok(f"{soft}, raised to {hard} where needed" if soft < hard else f"{hard}")


def _pam(around: Circumstances, name: str, value: int) -> tuple[str, ...]:
    """limits.conf(5), and what starts containers."""
    return (
        f"echo '{hostids.login()} - {name} {value}' | {around.system.sudo(f'tee -a {_LIMITS_FILE}')}  # then log in again",
        f"# where this is a container: docker run --ulimit {name}={value} …",
    )


def nproc(around: Circumstances) -> Finding:
    bounds = {f"ulimit -u is {most}": most - _mine() for most in _rlimit(around)}
    for path in ("/sys/fs/cgroup", *_own_cgroups(around)):
        most, now = around.host.text(f"{path}/pids.max"), around.host.text(f"{path}/pids.current")
        if most.isdecimal() and now.isdecimal():
            bounds[f"pids.max of the cgroup is {most}"] = int(most) - int(now)
    try:
        pid = os.fork()
    except OSError:
        return missing(
            f"no more processes are allowed ({'; '.join(bounds) or 'EAGAIN'})", *_pam(around, "nproc", 65536)
        )
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    tight = {what: left for what, left in bounds.items() if left < _FEW_PROCESSES}
    if tight:
        return degraded(f"{', '.join(tight)}: room for {min(tight.values())} more", *_pam(around, "nproc", 65536))
    return ok(f"room for {min(bounds.values())} more" if bounds else "no limit")


def _rlimit(around: Circumstances) -> list[int]:
    """The limit, where it holds: the host's own root is free of it, but not the root of a user namespace."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    own_root = hostids.UID == 0 and around.host.text("/proc/self/uid_map").split() == _ALL_IDS
    return [] if soft == resource.RLIM_INFINITY or own_root else [soft]


def _mine() -> int:
    """Processes and threads of the caller's: what RLIMIT_NPROC counts, getrlimit(2)."""
    found = 0
    for name in os.listdir("/proc"):
        try:
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == hostids.UID:
                found += len(os.listdir(f"/proc/{name}/task"))
        except OSError:
            continue
    return found


def _own_cgroups(around: Circumstances) -> list[str]:
    """Where the files of this process's cgroups are, of both versions: cgroups(7)."""
    found = []
    for line in around.host.text("/proc/self/cgroup").splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0":
            found += [f"/sys/fs/cgroup{path}", f"/sys/fs/cgroup/unified{path}"]
        elif "pids" in controllers.split(","):
            found.append(f"/sys/fs/cgroup/{controllers}{path}")
    return found
