"""What an image says of how it is run, and a job as it is run on that: OCI image-spec, "config.md".

The warm `run` reads a Config from the store and applies it, so this imports next to nothing; who reads it from an image's own
document is `manifest`.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from guntainer.jobs.model import Job, Port

MACHINES = {"amd64": "x86_64", "386": "i386"}
"""The names that images have for machines, where `archive.inspection` has others."""


class Config(Value):
    """What of a job an image knows by itself."""

    entrypoint: tuple[str, ...] = ()
    """What every command goes to, unless the user replaces it."""
    cmd: tuple[str, ...] = ()
    """The command where the user has none."""
    env: tuple[tuple[str, str], ...] = ()
    workdir: str = ""
    """Absolute; "" the root."""
    user: str = ""
    """As `Job.user`; "" root."""
    stop_signal: str = ""
    """As it is written there: a name or a number."""
    ports: tuple[str, ...] = ()
    """What the image listens on: `80/tcp`."""
    volumes: tuple[str, ...] = ()
    """Where it keeps what is to last. Here that is in the writable layer, unless the user mounts something."""
    labels: tuple[tuple[str, str], ...] = ()
    architecture: str = ""
    """GOARCH of the machine: amd64, arm64, …"""
    os: str = ""
    variant: str = ""

    @property
    def machine(self) -> str:
        """The machine as `archive.inspection` has it: x86_64."""
        return MACHINES.get(self.architecture, self.architecture)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Config:
        """The other way from `as_dict`; what another version has kept besides is left out."""
        return cls(**{name: values[name] for name in cls.fields() if name in values})


NO_CONFIG = Config()


def applied(job: Job, config: Config = NO_CONFIG) -> Job:
    """A job as it is run on an image, as docker has it: what the user says comes before what the image says.

    A plain rootfs is an image that says nothing. The command is the entrypoint with what it is given; another entrypoint than
    the image's gets nothing of the image's command.

    Raises:
        RootfsError: the image has a stop signal or a port that there is not, or no command for a job that names none.
    """
    own = job.entrypoint is None
    command = config.entrypoint + (job.command or config.cmd) if own else (job.entrypoint or ()) + job.command
    if not command and job.key:
        raise errors.RootfsError(
            f"rootfs {job.rootfs.name}: it has no command of its own", hint="give the job one: command or run"
        )
    changes: dict[str, Any] = {"command": command, "entrypoint": ()}
    if config.env:
        changes["env"] = tuple({**dict(config.env), **dict(job.env)}.items())
    if config.workdir and job.workdir is None:
        changes.update(workdir=config.workdir, make_workdir=True)
    if config.user and job.user is None:
        changes["user"] = config.user
    if config.stop_signal and job.stop_signal is None:
        changes["stop_signal"] = _signal(config.stop_signal)
    if job.publish_all:
        changes.update(publish_all=False, ports=job.ports + tuple(_published(config.ports, job.ports)))
    return job.replace(**changes)


def _signal(text: str) -> int:
    from guntainer.jobs import values

    try:
        return values.parse_signal(text)
    except errors.UsageError as error:
        raise errors.RootfsError(
            f"the image's StopSignal: {error.message}", hint="set another: --stop-signal"
        ) from None


def _published(exposed: Iterable[str], given: Iterable[Port]) -> Iterable[Port]:
    """Every port that the image listens on and that is not published already, on a free one of the host."""
    from guntainer.jobs import network

    taken = {(port.container, port.protocol) for port in given}
    for text in exposed:
        if text.endswith("/sctp"):
            continue  # no tool for private networks can publish it
        if ":" in text:  # config.md: `port/tcp`, `port/udp` or `port`; where of the host is not for an image to say
            raise errors.RootfsError(f"the image's ExposedPorts: {text!r} is no port", hint="leave -P out")
        try:
            ports = network.parse_ports(text)
        except errors.UsageError as error:
            raise errors.RootfsError(f"the image's ExposedPorts: {error.message}", hint="leave -P out") from None
        for port in ports:
            if (port.container, port.protocol) not in taken:
                taken.add((port.container, port.protocol))
                yield port.replace(host=0)
