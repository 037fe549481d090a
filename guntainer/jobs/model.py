"""A job: one container to run, with everything that is known before it starts.

Pure values. `guntainer run` makes one from its options, a job file makes many; both mean the same by them.
"""

from __future__ import annotations

import _signal

from guntainer.value import Value

DEFAULT_HOSTNAME = "guntainer"
DEFAULT_STOP_TIMEOUT_S = 10.0  # docker's and podman's
NETWORKS = ("host", "none")


class Source(Value):
    """Where a rootfs comes from: a path of an archive or a folder."""

    location: str
    """Absolute path, resolved against the working directory (`run`) or the job file's folder (`batch`)."""
    name: str = ""
    """What the user called it: the argument of `run`, a key of [rootfs.NAME], or a path."""
    sha256: str | None = None
    """64 lower-case hex digits that the archive must have, or None."""


class Mount(Value):
    """A host path (bind) or an empty memory file system (tmpfs) that appears in the container."""

    target: str
    """Absolute path inside the rootfs; resolved there, never outside."""
    kind: str = "bind"
    """"bind" or "tmpfs"."""
    source: str = ""
    """Absolute host path; empty for tmpfs."""
    read_only: bool = False
    size_bytes: int | None = None
    """tmpfs only; None: the kernel's default, half of the memory."""


class Scratch(Value):
    """Where a run's writable layer lies."""

    kind: str = "disk"
    """"disk": a folder below $TMPDIR. "memory": a tmpfs of the container's own, gone with it."""
    size_bytes: int | None = None


class Job(Value):
    """One container to run."""

    id: str
    """Unique in its batch and shown to the user: `smoke (alpine-320, 1) #2`."""
    rootfs: Source
    key: str = ""
    """The job's key in the file; several jobs of one matrix share it. Empty: the id."""
    matrix: tuple[tuple[str, str], ...] = ()
    """The cell's (axis, value) pairs, in written order."""
    command: tuple[str, ...] = ()
    """argv; empty: /bin/sh."""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    workdir: str | None = None
    user: str | None = None
    """`UID[:GID]` or `name[:group]`, looked up in the rootfs; None: root of the container."""
    hostname: str = DEFAULT_HOSTNAME
    network: str = "host"
    stdin: str | None = None
    """Absolute host path of a file to read from; None: /dev/null."""
    init: bool = False
    read_only: bool = False
    scratch: Scratch = Scratch()
    cache: bool = True
    timeout_s: float | None = None
    stop_signal: int = int(_signal.SIGTERM)
    stop_timeout_s: float = DEFAULT_STOP_TIMEOUT_S
    fail_fast: bool = False
    """A failure of this job cancels the other jobs with the same key."""
    max_parallel: int | None = None
    """At most so many jobs with the same key at once."""
