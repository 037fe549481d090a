"""Probes of the kernel and of the bars that a host puts before user namespaces."""

from __future__ import annotations

import errno
import marshal
import os
import sys

from guntainer.doctor.finding import Finding, degraded, missing, ok
from guntainer.doctor.namespaces import user_trial
from guntainer.kernel import abi, machine_code, program, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.doctor.examine import Circumstances

_NEEDED = (5, 12)
_NOWHERE = 1 << 40  # a pointer that no process has mapped
_CALLS = {
    "clone3": (_NOWHERE, 0),
    "openat2": (-1, _NOWHERE, _NOWHERE, 0),
    "close_range": (2, 1, 0),
    "pidfd_open": (-1, 0),
    "pidfd_send_signal": (-1, 0, 0, 0),
    "open_tree": (-1, _NOWHERE, 0),
    "move_mount": (-1, _NOWHERE, -1, _NOWHERE, 0),
    "mount_setattr": (-1, _NOWHERE, 0, _NOWHERE, 0),
}
"""Calls with arguments that make no sense: who answers EPERM or ENOSYS to these has not looked at them."""
_CALLS_INSIDE = {
    "mount": (_NOWHERE, _NOWHERE, _NOWHERE, 0, 0),
    "move_mount": _CALLS["move_mount"],
    "umount2": (_NOWHERE, 0),
    "pivot_root": (_NOWHERE, _NOWHERE),
    "sethostname": (_NOWHERE, -1),
    "setns": (-1, 0),
    "keyctl": (-1, 0, 0, 0, 0),
    "seccomp": (-1, 0, 0),
    "mknodat": (-1, _NOWHERE, 0o100000, 0),
}
"""The same for those that ask for rights first: for root of a user namespace."""
_PROFILE = "/etc/apparmor.d/guntainer"


def _refused(calls: dict[str, tuple[int, ...]]) -> dict[str, int]:
    answers = {name: -syscalls.raw(abi.SYSCALLS[name], *arguments) for name, arguments in calls.items()}
    return {name: number for name, number in answers.items() if number in (errno.EPERM, errno.EACCES, errno.ENOSYS)}


def version(around: Circumstances) -> Finding:
    host = os.uname()
    name = f"Linux {host.release} on {host.machine}"
    absent = [call for call, number in _refused(_CALLS).items() if number == errno.ENOSYS]
    if absent and not around.host.seccomp_bar():
        return missing(
            f"{name} has no {', '.join(absent)}: {_NEEDED[0]}.{_NEEDED[1]} is needed", "# install a newer kernel"
        )
    if not around.host.exists("/proc/self/ns/user"):
        return missing(f"{name} has no user namespaces: CONFIG_USER_NS is needed")
    if host.machine in machine_code.MACHINE_CODE and not program.has_machine_code():
        return degraded(f"{name}; a policy forbids machine code of ours, so launches take longer")
    return ok(name)


def outer_filter(around: Circumstances) -> Finding:
    if not around.host.seccomp_bar():
        return ok("no filter")
    refused = _refused({name: arguments for name, arguments in _CALLS.items() if name not in _CALLS_INSIDE})
    if not refused:
        refused = _refused_inside(around)
    if refused:
        calls = ", ".join(f"{name} ({errno.errorcode[number]})" for name, number in refused.items())
        return missing(f"a filter around us refuses {calls}", *_WIDER)
    return ok("a filter, but of nothing that is needed")


_WIDER = (
    "# where this is a container: start it with a wider profile",
    "docker run --security-opt seccomp=unconfined …",
    "podman run --security-opt seccomp=unconfined …",
)


def _refused_inside(around: Circumstances) -> dict[str, int]:
    """What is refused to root of a user namespace; that itself, where nothing else explains it."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid, _ = syscalls.clone3(abi.CLONE_NEWUSER | abi.CLONE_NEWNS | abi.CLONE_NEWUTS, exit_signal=17)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS) or around.host.bars(*other_bars(around))[2]:
            return {}
        return {"a new user namespace": error.errno}
    if pid == 0:
        os.write(writer, marshal.dumps(_refused(_CALLS_INSIDE)))
        os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    answer: dict[str, int] = marshal.loads(os.read(reader, 1 << 16))
    return answer


def other_bars(around: Circumstances) -> tuple[Callable[[], tuple[str, str, str] | None], ...]:
    host = around.host
    return (host.debian_bar, host.apparmor_bar, host.unmapped_bar, host.chroot_bar)


def debian_bar(around: Circumstances) -> Finding:
    name = "kernel.unprivileged_userns_clone"
    value = around.host.sysctl(name)
    if value != "0":
        return ok(f"{name} is {value}" if value else "this kernel has none")
    if user_trial() is None:
        return ok(f"{name} is 0, which does not hold for you")
    return missing(f"{name} is 0: only root may make user namespaces", *around.system.sysctl(name, 1))


def apparmor(around: Circumstances) -> Finding:
    host = around.host
    if host.text("/sys/module/apparmor/parameters/enabled")[:1] != "Y":
        return ok("not active")
    bar = host.apparmor_bar()
    profile = host.apparmor_profile() or "unconfined"
    if bar is None:
        return ok(f"active, this program is {profile}")
    if user_trial() is None:
        return ok(f"active, and does not restrict this program, which is {profile}")
    if "(enforce)" in profile:
        return missing(f"the profile {profile} restricts this program", *_UNCONFINED)
    return missing(bar[0], *_profile(around))


_UNCONFINED = (
    "# where this is a container: start it without a profile",
    "docker run --security-opt apparmor=unconfined …",
    "podman run --security-opt apparmor=unconfined …",
)


def _profile(around: Circumstances) -> tuple[str, ...]:
    """A profile that lets this interpreter make user namespaces: apparmor.d(5)."""
    sudo = around.system.sudo
    return (
        f"# lets everything that {os.path.realpath(sys.executable)} runs make user namespaces",
        f"{sudo('tee ' + _PROFILE)} <<'EOF'",
        "abi <abi/4.0>,",
        "include <tunables/global>",
        f"profile guntainer {os.path.realpath(sys.executable)} flags=(unconfined) {{",
        "  userns,",
        "}",
        "EOF",
        sudo(f"apparmor_parser -r {_PROFILE}"),
    )
