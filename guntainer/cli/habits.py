"""Options that people bring along from docker, podman, bwrap and chroot, and what they are called here.

Loaded when an option is unknown, never before: a guess by spelling alone would send `--net host` to `--name`.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_OWN = "a container has one of its own here, always"
_IMAGE = "ROOTFS itself may be an image: docker://HOST/NAME:TAG, oci:DIR:TAG, docker-archive:FILE:TAG"
_FOREGROUND = "a run stays in the foreground; guntainer batch runs many jobs at a time"
OF_RUN = {
    "--net": "here it is --network",
    "--mem": "here it is --memory",
    "--mem-limit": "here it is --memory",
    "--memory-limit": "here it is --memory",
    "--cpu": "here it is --cpus",
    "--cpu-quota": "here it is --cpus N",
    "--cpu-period": "here it is --cpus N",
    "--cpuset": "here it is --cpuset-cpus",
    "--cap": "here it is --cap-add or --cap-drop",
    "--bind": "here it is -v SRC:DST",
    "--ro-bind": "here it is -v SRC:DST:ro",
    "--volumes-from": "name each volume with -v SRC:DST",
    "--setenv": "here it is -e K=V",
    "--cwd": "here it is --workdir",
    "--chdir": "here it is --workdir",
    "--uid": "here it is --user UID[:GID]",
    "--gid": "here it is --user UID:GID",
    "--uidmap": "here it is --userns",
    "--gidmap": "here it is --userns",
    "--hosts": "here it is --add-host",
    "--ro": "here it is --read-only",
    "--shm-size": "here it is --tmpfs /dev/shm:size=…",
    "--storage-opt": "here it is --scratch memory:SIZE",
    "--seccomp": "here it is --security-opt seccomp=FILE",
    "--no-new-privileges": "here it is --security-opt no-new-privileges",
    "--expose": "here it is -p, with --network private",
    "--device": "a device that you may open yourself can be bound: -v /dev/X:/dev/X",
    "--pid": _OWN,
    "--ipc": _OWN,
    "--uts": _OWN,
    "--cgroupns": _OWN,
    "--image": _IMAGE,
    "-d": _FOREGROUND,
    "--detach": _FOREGROUND,
    "--restart": _FOREGROUND,
}
_SECOND = "the Gunfile is the second word: guntainer build IMAGE GUNFILE"
_FIRST = "what is made is the first word: NAME.tar.gz or oci:DIR:TAG"
OF_BUILD = {
    "-f": _SECOND,
    "--file": _SECOND,
    "-t": _FIRST,
    "--tag": _FIRST,
    "-o": _FIRST,
    "--output": _FIRST,
    "--build-arg": "here it is -e K=V",
    "-v": "Copy takes files along",
    "--volume": "Copy takes files along",
}
WITHOUT = frozenset(
    (
        *("-a", "-l", "--annotation", "--attach", "--blkio-weight-device", "--cgroup-parent", "--cgroups", "--cidfile"),
        *("--conmon-pidfile", "--cpu-rt-period", "--cpu-rt-runtime", "--cpu-shares", "--cpuset-mems", "--detach-keys"),
        *("--device-cgroup-rule", "--disable-content-trust", "--dns-option", "--dns-search", "--domainname", "--gpus"),
        *("--group-add", "--health-cmd", "--health-interval", "--health-retries", "--health-timeout", "--ip", "--ip6"),
        *("--isolation", "--kernel-memory", "--label", "--label-file", "--link", "--log-driver", "--log-opt"),
        *("--mac-address", "--memory-reservation", "--memory-swappiness", "--network-alias", "--no-healthcheck"),
        *("--oom-kill-disable", "--oom-score-adj", "--pod", "--replace", "--rmi", "--runtime", "--sig-proxy"),
        *("--sysctl", "--systemd", "--tls-verify", "--use-api-socket", "--volume-driver"),
    )
)


def instead(prog: str, name: str, run_options: Iterable[str]) -> str:
    """What to say of an option that `prog` does not know; "" where nothing is known of it but its spelling.

    Args:
        prog: `guntainer run`.
        run_options: the options of `run`, which a job file has as keys.
    """
    if prog == "guntainer run":
        return OF_RUN.get(name, "") or ("it has no counterpart here" if name in WITHOUT else "")
    if prog == "guntainer build":
        return OF_BUILD.get(name, "")
    if prog == "guntainer batch" and name in run_options:
        return "an option of run; a job file has most of them as keys of a job"
    return ""
