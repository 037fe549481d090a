"""Probes of private networks: the device that they need, and the two programs, each started on a throw-away namespace."""

from __future__ import annotations

import errno
import os
import select
import time

from guntainer import errors
from guntainer.doctor.finding import MISSING, OK, Finding, missing, ok
from guntainer.doctor.namespaces import inside
from guntainer.kernel import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.doctor.examine import Circumstances
    from guntainer.network.tools import Running, Tool

_TUN = "/dev/net/tun"
_TUNSETIFF = 0x4004_54CA  # <linux/if_tun.h>
_IFF_TUN_NO_PI = 0x1001
_PATIENCE_S = 5.0
BEHIND = ("seccomp-outer", "namespaces", "nofile", "nproc")
"""Probes whose fault it may be where a tool does not work: each shuts itself in, by namespaces of its own."""
_TOOLS = ("pasta", "slirp4netns")


def tun(around: Circumstances) -> Finding:
    trial = inside(abi.CLONE_NEWNET)
    fd = trial.call("openat", abi.AT_FDCWD, _TUN, os.O_RDWR | os.O_CLOEXEC, 0, step="open")
    request = b"doctor".ljust(16, b"\0") + _IFF_TUN_NO_PI.to_bytes(2, "little") + bytes(22)
    trial.call("ioctl", fd, _TUNSETIFF, trial.data(request), step="make a device")
    failed = trial.run()
    if failed is None:
        return ok(f"{_TUN} can be used")
    step, number = failed
    why = f"{_TUN}: {os.strerror(number)}" + ("" if step == "open" else f" ({step})")
    sudo = around.system.sudo
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO):
        return missing(why, sudo("modprobe tun"), f"# where this is a container: docker run --device {_TUN} …")
    return missing(why, sudo(f"chmod 0666 {_TUN}"), f"# where this is a container: docker run --device {_TUN} …")


def pasta(around: Circumstances) -> Finding:
    return _tool("pasta", around)


def slirp4netns(around: Circumstances) -> Finding:
    return _tool("slirp4netns", around)


def either(around: Circumstances) -> Finding:
    """From what came of the two, which were tried before."""
    for name in _TOOLS:
        if around.findings[name].status == OK:
            return ok(f"{name} is used")
    found = "neither pasta nor slirp4netns can be used: no --network private"
    because = next((around.findings[name].because for name in _TOOLS if around.findings[name].because), "")
    return missing(found, *([] if because else around.findings[_TOOLS[0]].remedy), because=because)


def _tool(name: str, around: Circumstances) -> Finding:
    from guntainer.network import tools, versions

    tool = next((one for one in tools.find() if one.name == name), None)
    if tool is None:
        return missing("not in PATH", around.system.install(name))
    newer = f"# try a newer one: {around.system.install(name).removeprefix('# ')}"
    behind = next((one for one in BEHIND if around.findings[one].status == MISSING), "")
    try:
        told = versions.judge(name, tool.path, tools.options(tool))
    except OSError as error:
        return missing(f"{tool.path}: {error.strerror}", *([] if behind else [newer]), because=behind)
    if told.fault:
        return missing(f"{tool.path}: {told.fault}", newer)
    described = f"{tool.path}, {told.version}"
    if around.findings["tun"].status != OK:
        return missing(f"{described}: it can not be used without {_TUN}", because="tun")
    try:
        with _Namespaces() as holder:
            said = _start(tool, holder)
    except (errors.HostError, OSError) as error:
        said = error.message if isinstance(error, errors.HostError) else errors.describe_oserror(error)
    if said:
        return missing(f"{described}: {said}", *([] if behind else [newer]), because=behind)
    return ok(described)


def _start(tool: Tool, holder: int) -> str:
    """Start the tool on the network namespace of a process, and end it; what was wrong, "" where nothing was."""
    from guntainer.network import tools

    user = f"/proc/{holder}/ns/user"
    words = tools.pasta(tool, user, ()) if tool.name == "pasta" else tools.slirp4netns(tool, user, "")
    network = os.open(f"/proc/{holder}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        running = tools.Running(tool, words, network)
    finally:
        os.close(network)
    try:
        return _wait(running)
    finally:
        running.close()


def _wait(running: Running) -> str:
    deadline = time.monotonic() + _PATIENCE_S
    poll = select.poll()
    poll.register(running.ready, select.POLLIN)
    poll.register(running.pidfd, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        ready = [fd for fd, _ in poll.poll(left * 1000)]
        if running.is_ready():
            return ""
        if running.pidfd in ready:
            how = running.reap()
            return running.said() or how
    return f"not ready after {_PATIENCE_S:g} s"


class _Namespaces:
    """A process in a new network namespace and its user namespace, which sleeps until the end of the block."""

    def __enter__(self) -> int:
        reader, self._writer = os.pipe2(os.O_CLOEXEC)
        ready, told = os.pipe2(os.O_CLOEXEC)
        self._holder = os.fork()
        if self._holder == 0:
            try:
                os.close(self._writer)
                os.close(ready)
                hold(reader, told)
            finally:
                os._exit(0)
        os.close(reader)
        os.close(told)
        os.read(ready, 1)
        os.close(ready)
        return self._holder

    def __exit__(self, *_: object) -> None:
        os.close(self._writer)
        os.waitpid(self._holder, 0)


def hold(reader: int, told: int) -> None:
    """Enter new namespaces, map the caller to root there, say so, and sleep until the other end of a pipe is closed."""
    from guntainer import hostids
    from guntainer.kernel import syscalls

    number = syscalls.raw(abi.SYSCALLS["unshare"], abi.CLONE_NEWUSER | abi.CLONE_NEWNET)
    if number < 0:
        raise OSError(-number, os.strerror(-number))
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {hostids.UID} 1"), ("gid_map", f"0 {hostids.GID} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)
    os.write(told, b"r")
    os.read(reader, 1)
