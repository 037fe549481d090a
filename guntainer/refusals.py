"""What a host's refusal comes from, in words: the bars against user namespaces, and the probe of `guntainer doctor` for each.

Looked at after something was refused, never before: the trial decides, this explains.
"""

from __future__ import annotations

import errno
import os

from guntainer import errors, hostids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_APPARMOR_SYSCTL = "kernel.apparmor_restrict_unprivileged_userns"
_DEBIAN_SYSCTL = "kernel.unprivileged_userns_clone"
_FILTERED = "2"  # SECCOMP_MODE_FILTER, the field Seccomp of proc(5)
_FILE_LIMIT = 1 << 16
_NO_PROBE_OF_ITS_OWN = "namespaces"
_PROBES = {"pid": "pid-namespace", "network": "network-namespace"}


class Host:
    """The host's files that tell what it bars.

    Args:
        root: what stands before their paths: another folder in tests.
    """

    def __init__(self, root: str = "") -> None:
        self.root = root

    def text(self, path: str) -> str:
        """A small file's text, without blanks around it; "" where it is not there, or not for us."""
        try:
            with open(self.root + path, encoding="utf-8", errors="replace") as file:
                return file.read(_FILE_LIMIT).strip("\0 \t\n")
        except OSError:
            return ""

    def exists(self, path: str) -> bool:
        return os.path.exists(self.root + path)

    def sysctl(self, name: str) -> str:
        """The value of a kernel parameter: sysctl(8)."""
        return self.text("/proc/sys/" + name.replace(".", "/"))

    def status(self, name: str) -> str:
        """A field of this process in /proc/self/status: proc(5)."""
        for line in self.text("/proc/self/status").splitlines():
            key, _, value = line.partition(":")
            if key == name:
                return value.strip()
        return ""

    def limit(self, kind: str) -> int | None:
        """user.max_KIND_namespaces, see hostids."""
        if not self.root:
            return hostids.namespace_limit(kind)
        text = self.sysctl(hostids.limit_name(kind))
        return int(text) if text.isdecimal() else None

    # -- the bars, each as (what it is, what to do, its probe); None where it does not hold

    def debian_bar(self) -> tuple[str, str, str] | None:
        """A patch of Debian's and Arch's kernels."""
        if self.sysctl(_DEBIAN_SYSCTL) != "0":
            return None
        return f"{_DEBIAN_SYSCTL} is 0", "set it to 1", "sysctl-userns-clone"

    def apparmor_bar(self) -> tuple[str, str, str] | None:
        """Ubuntu's, since 23.10: a user namespace may be made, but nothing is allowed in it without a profile that says so.

        Others confine whole programs, as docker does its containers.
        """
        if self.sysctl(_APPARMOR_SYSCTL) == "1":
            return f"AppArmor restricts them ({_APPARMOR_SYSCTL} is 1)", "give this program a profile", "apparmor"
        profile = self.apparmor_profile()
        if profile.endswith("(enforce)"):
            return f"AppArmor's profile {profile} restricts them", "run with another profile", "apparmor"
        return None

    def apparmor_profile(self) -> str:
        """The profile that this process is under, `docker-default (enforce)` for example; "" or "unconfined" without one."""
        return self.text("/proc/self/attr/apparmor/current") or self.text("/proc/self/attr/current")

    def seccomp_bar(self) -> tuple[str, str, str] | None:
        """Of a container around us."""
        if self.status("Seccomp") != _FILTERED:
            return None
        return "a seccomp filter around us refuses it", "run the outer container with a wider profile", "seccomp-outer"

    def chroot_bar(self) -> tuple[str, str, str] | None:
        """user_namespaces(7): none in a chroot, whose root is not the root of its mount namespace."""
        mounts = [line.split() for line in self.text("/proc/self/mountinfo").splitlines()]
        if not mounts or any(words[4] == "/" for words in mounts if len(words) > 4):
            return None
        return "this process is in a chroot", "use pivot_root, or run outside of it", "user-namespace"

    def unmapped_bar(self) -> tuple[str, str, str] | None:
        """user_namespaces(7): nor for whom the one around has no id."""
        if self.text("/proc/self/uid_map") and self.text("/proc/self/gid_map"):
            return None
        return "your own ids are not mapped in the user namespace around", "map them", "user-namespace"

    def bars(self, *bars: Callable[[], tuple[str, str, str] | None]) -> tuple[str, str, str]:
        """The first that holds; ("", "", "") where none is known."""
        return next((found for bar in bars if (found := bar())), ("", "", ""))


def of_clone(number: int, kind: str, host: Host | None = None) -> errors.HostError:
    """Why clone3 was refused: clone(2), namespaces(7), user_namespaces(7).

    Args:
        kind: the namespace that the host refuses, as abi.NAMESPACES names it; "": none of them, or none any more.
    """
    host = host or Host()
    code = errno.errorcode.get(number, str(number))
    if number == errno.EAGAIN:
        return errors.Exhausted(
            "no more processes are allowed (EAGAIN)", hint="raise `ulimit -u` or pids.max", probe="nproc"
        )
    if number in (errno.EMFILE, errno.ENFILE):
        return errors.Exhausted(f"no more descriptors are allowed ({code})", hint="raise `ulimit -n`", probe="nofile")
    if number == errno.ENOMEM:
        return errors.Exhausted("no memory for one more process (ENOMEM)", hint="free some")
    if number == errno.ENOSYS:
        return _no_call(host)
    if number == errno.ENOSPC:
        return _no_room(kind, host)
    if kind == "user":
        return _no_user_namespace(number, code, host)
    if kind:
        why = f"this host refuses {kind} namespaces ({code})"
        return errors.NamespaceRefused(why, kind=kind, probe=_PROBES.get(kind, _NO_PROBE_OF_ITS_OWN))
    return errors.HostError(f"clone3: {os.strerror(number)}")


def _no_call(host: Host) -> errors.HostError:
    what, hint, probe = host.bars(host.seccomp_bar)
    if probe:
        return errors.HostError(f"clone3 is not there (ENOSYS): {what}", hint=hint, probe=probe)
    return errors.HostError(
        "clone3 is not there (ENOSYS): this kernel is too old", hint="5.12 is needed", probe="kernel"
    )


def _no_room(kind: str, host: Host) -> errors.HostError:
    if not kind:
        return errors.Exhausted(
            "no more namespaces are allowed (ENOSPC)", hint="raise user.max_*_namespaces", probe="namespace-limits"
        )
    name = hostids.limit_name(kind)
    if host.limit(kind) == 0:
        return errors.NamespaceRefused(
            f"{name} is 0: {kind} namespaces are switched off here",
            kind=kind,
            hint="raise it with sysctl",
            probe="namespace-limits",
        )
    return errors.Exhausted(
        f"no more {kind} namespaces are allowed (ENOSPC)", hint=f"raise {name} with sysctl", probe="namespace-limits"
    )


def _no_user_namespace(number: int, code: str, host: Host) -> errors.HostError:
    why = f"this host does not let you make user namespaces ({code})"
    if number == errno.EUSERS:
        return errors.NamespaceRefused(f"{why}: too many lie inside each other", kind="user", probe="user-namespace")
    if number == errno.EINVAL or not host.exists("/proc/self/ns/user"):
        return errors.NamespaceRefused(
            f"{why}: this kernel has none", kind="user", hint="CONFIG_USER_NS is needed", probe="kernel"
        )
    what, hint, probe = host.bars(
        host.debian_bar, host.apparmor_bar, host.unmapped_bar, host.chroot_bar, host.seccomp_bar
    )
    if probe:
        return errors.NamespaceRefused(f"{why}: {what}", kind="user", hint=hint, probe=probe)
    return errors.NamespaceRefused(
        why, kind="user", hint="is it SELinux, or the policy of a container around?", probe="user-namespace"
    )


def probe_of(number: int) -> str:
    """The probe of what bounds this process itself; "" where this errno comes of something else."""
    return {errno.EAGAIN: "nproc", errno.EMFILE: "nofile", errno.ENFILE: "nofile"}.get(number, "")


_STEPS = {
    "overlay": "overlay-disk",
    "scratch_memory": "overlay-memory",
    "host_view": "proc-mount",
    "terminal": "devpts",
    "loopback_up": "network-namespace",
    "offer_network": "tun",
    "hostname": "namespaces",
    "limits": "nofile",
    "seccomp": "seccomp",
    "bind_root": "namespaces",
    "pivot": "namespaces",
}
_MOUNTS = {"/proc": "proc-mount", "/dev/pts": "devpts", "/dev/mqueue": "mqueue"}
_REFUSED = (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENODEV, errno.EOPNOTSUPP, errno.ENOSPC)
_RIGHTS = (
    *(
        "id_map",
        "private_mounts",
        "scratch_memory",
        "mount",
        "hold",
        "pivot",
        "leave_host",
        "bind_root",
        "place",
        "place_tmpfs",
    ),
    *("mask", "read_only", "read_only_root", "hostname", "session_keyring"),
)
"""Steps that a root of its own user namespace is always allowed, whatever the rootfs and the command are."""


def of_setup(step: str, subject: str, number: int, host: Host | None = None) -> tuple[str, str]:
    """What a step that failed comes from: (hint, probe), "" where nothing of the host is known to be behind it."""
    host = host or Host()
    if number == errno.ENOSYS:
        _, hint, probe = host.bars(host.seccomp_bar)
        return (hint, probe) if probe else ("this kernel is too old, 5.12 is needed", "kernel")
    if number not in _REFUSED:
        return "", ""
    named = _MOUNTS.get(subject, "") if step == "mount" else _STEPS.get(step, "")
    if step == "overlay" and subject.endswith("/merged"):
        named = "overlay-memory"
    if number in (errno.EPERM, errno.EACCES) and step in _RIGHTS and (step, subject) != ("mount", "/proc"):
        # the namespace could be made, but not everything is allowed in it
        _, hint, probe = host.bars(host.apparmor_bar, host.seccomp_bar)
        if probe or step in ("id_map", "private_mounts"):
            return hint, probe or "user-namespace"
    return "", named
