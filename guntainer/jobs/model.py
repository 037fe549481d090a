"""A job: one container to run, with everything that is known before it starts.

Pure values. `guntainer run` makes one from its options, a job file makes many; both mean the same by them.
"""

from __future__ import annotations

import _signal

from guntainer.value import Value

DEFAULT_HOSTNAME = "guntainer"
DEFAULT_STOP_TIMEOUT_S = 10.0  # docker's and podman's
USERNS = ("auto", "single", "range")
EMULATIONS = ("auto", "on", "off")
NETWORKS = ("host", "none", "private")


PULLS = ("missing", "always", "never")
MAX_UNPACKED_BYTES, MAX_ENTRIES = 64 << 30, 4_000_000
"""What a rootfs may unpack to where nothing else is said."""


class Source(Value):
    """Where a rootfs comes from."""

    location: str
    """A path: absolute, resolved against the working directory (`run`) or the job file's folder (`batch`). Else a URL, or a
    registry's reference."""
    name: str = ""
    """What the user called it: the argument of `run`, a key of [rootfs.NAME], or a path."""
    sha256: str | None = None
    """64 lower-case hex digits that the archive must have, or None; of an image's folder, and of a registry's: its manifest."""
    kind: str = "path"
    """"path": an archive, a folder or an image, as its content is. "oci", "docker-archive": an image. "url", "registry": fetched.
    "host": the host's own folders."""
    reference: str = ""
    """Which image of a place that holds several: a tag, or `@sha256:…`."""
    platform: str = ""
    """`os/arch[/variant]`; "": this machine's."""
    pull: str = "missing"
    """One of PULLS: when to fetch what is elsewhere."""
    limits: tuple[int, int] | None = None
    """The most (bytes, entries) that it may unpack to."""

    def __repr__(self) -> str:
        return (
            f"Source({self.name!r}, {self.kind!r})" if self.kind == "url" else super().__repr__()
        )  # it may hold a password

    @classmethod
    def of(cls, text: str, base: str = "") -> Source:
        """What `text` means as ROOTFS: `docker://alpine`, `oci:layout:1`, `host`, a path.

        Args:
            base: the folder that relative paths are seen from; "": the working directory.

        Raises:
            UsageError: it means nothing.
        """
        import os

        from guntainer.jobs import sources

        return sources.parse(text, base or os.getcwd())

    @property
    def plain(self) -> bool:
        """Whether nothing is said of it but its path, and perhaps its digest."""
        return self.kind == "path" and not (self.reference or self.platform) and self.limits is None

    @property
    def selection(self) -> str:
        """What is chosen of the images at one place; "" where nothing is, and it need not be an image."""
        chosen = self.reference or self.platform or self.kind in ("oci", "docker-archive")
        return f"{self.reference}\0{self.platform}" if chosen else ""

    @property
    def remote(self) -> bool:
        return self.kind in ("url", "registry")


class Mount(Value):
    """A host path (bind) or an empty memory file system (tmpfs) that appears in the container."""

    target: str
    """Absolute path inside the rootfs; resolved there, never outside."""
    kind: str = "bind"
    """"bind", "tmpfs" or, of a workspace, "overlay"."""
    source: str = ""
    """Absolute host path; empty for tmpfs."""
    layer: str = ""
    """overlay only: the folder of the writable layer over `source`."""
    read_only: bool = False
    size_bytes: int | None = None
    """tmpfs only; None: the kernel's default, half of the memory."""


class Port(Value):
    """A port of a private network that the host publishes."""

    container: int
    host: int = 0
    """0: a free one is chosen."""
    address: str = "0.0.0.0"  # noqa: S104 - docker's and podman's
    """The host's IPv4 address that it is bound to; 0.0.0.0: all of them."""
    protocol: str = "tcp"
    """"tcp" or "udp"."""


class Scratch(Value):
    """Where a run's writable layer lies."""

    kind: str = "disk"
    """"disk": a folder below $TMPDIR. "memory": a tmpfs of the container's own, gone with it."""
    size_bytes: int | None = None


class Limits(Value):
    """What a container may use; None and empty: as much as there is."""

    memory_bytes: int | None = None
    memory_swap_bytes: int | None = None
    """Memory and swap together; -1: as much swap as there is. None: as much swap as memory, as docker has it."""
    cpus: float | None = None
    """Processors' worth of time."""
    cpuset: str = ""
    """`0-3,6`."""
    pids: int | None = None
    """Processes and threads."""
    io_weight: int | None = None
    """10..1000, docker's scale."""
    io_max: tuple[tuple[str, str, int], ...] = ()
    """(`rbps`, `wbps`, `riops` or `wiops`; absolute path of a device or of something on it; bytes or operations a second)."""
    ulimits: tuple[tuple[str, int, int], ...] = ()
    """(name without RLIMIT_, soft, hard); -1 is no limit."""
    best_effort: bool = False
    """Go on without what the host does not let us limit."""

    @property
    def wanted(self) -> bool:
        """Whether a control group is needed."""
        one = (self.memory_bytes, self.cpus, self.pids, self.io_weight)
        return any(limit is not None for limit in one) or bool(self.cpuset or self.io_max)


NO_LIMITS = Limits()


RETRY_ON = ("setup", "timeout", "oom", "signal", "exit")
"""How a job may end that is worth another try: `signal` and `exit` by itself, `setup` before its command ran."""
STAGES = ("", "setup", "teardown")
NO_FILES = ("warn", "error", "ignore")
WORKSPACES = ("copy", "mount", "read-only")


class Retry(Value):
    """When a job that failed is run again."""

    attempts: int = 1
    """How often in all, the first time included."""
    backoff_s: float = 0.0
    """Before the second attempt; twice as long before each one after it."""
    on: tuple[str, ...] = RETRY_ON


class Artifacts(Value):
    """Files of a container that outlive it."""

    paths: tuple[str, ...]
    """Patterns: seen from the working directory where they are not absolute; `**` is any number of folders."""
    if_none: str = "warn"
    """One of NO_FILES: what a job is that has none of them."""
    most_bytes: int = 1 << 30
    """Of all of them together; what does not fit is left out, and named."""


class Workspace(Value):
    """A folder of the host's for a job to work in."""

    source: str
    """Absolute host path."""
    target: str = "/workspace"
    mode: str = "copy"
    """One of WORKSPACES. "copy": the job's own, gone with it. "mount": the host's own folder."""


class CacheFolder(Value):
    """A folder that is kept between runs, and shared by all jobs that name its key."""

    key: str
    target: str
    """Absolute path inside the rootfs."""


class Secret(Value):
    """A text that no output shows."""

    name: str
    """Of the variable that the job gets it as."""
    variable: str = ""
    """The caller's variable that holds it; else it is in `file`."""
    file: str = ""
    """Absolute host path; one line break at its end is not part of it."""


class Service(Value):
    """A container that lives as long as the jobs that need it, in the network of each of them."""

    name: str
    job: Job
    """What it runs; it ends when it is stopped."""
    ready: tuple[str, ...] = ()
    """A command in the service's container that succeeds when it is ready; () with `ready_port` None: when it runs."""
    ready_port: int | None = None
    """A TCP port that it listens on when it is ready."""
    ready_timeout_s: float = 60.0


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
    """argv, of an image what its entrypoint is given; empty: the image's own, else /bin/sh."""
    entrypoint: tuple[str, ...] | None = None
    """What the command is given to; None: the image's own. Any other takes the image's own command away as well."""
    env: tuple[tuple[str, str], ...] = ()
    mounts: tuple[Mount, ...] = ()
    workdir: str | None = None
    """None: the image's, else the root."""
    make_workdir: bool = False
    """Make it where it is missing: that of an image."""
    user: str | None = None
    """`UID[:GID]` or `name[:group]`, looked up in the rootfs; None: the image's, else root of the container."""
    hostname: str = DEFAULT_HOSTNAME
    network: str = "host"
    """"host": the caller's. "none": nothing but lo. "private": its own, by pasta or slirp4netns. "auto", of a job with services:
    private where that can be had, else none."""
    ports: tuple[Port, ...] = ()
    """Of a private network alone."""
    publish_all: bool = False
    """Publish what the image listens on as well, on free ports of the host."""
    dns: tuple[str, ...] = ()
    """Name servers; (): those of the host; ("none",): the rootfs's own /etc/resolv.conf stays."""
    add_hosts: tuple[tuple[str, str], ...] = ()
    """(name, address) for /etc/hosts; the address "host-gateway" is the host's, of a private network alone."""
    cap_add: tuple[str, ...] = ()
    """`CAP_NET_ADMIN`, …, or `ALL`."""
    cap_drop: tuple[str, ...] = ()
    no_new_privileges: bool = False
    seccomp: str = "default"
    """"default", "unconfined", or the absolute host path of a profile."""
    unmask: tuple[str, ...] = ()
    """Of the paths that are hidden or read-only by default, those that are neither: or `ALL`."""
    privileged: bool = False
    """Everything that the user namespace has; nothing of the host's."""
    root_emulation: str = "auto"
    """"on": what only a root with many ids can do does nothing and succeeds. "auto": with one id, in a distribution."""
    stdin: str | None = None
    """Absolute host path of a file to read from; None: /dev/null."""
    limits: Limits = NO_LIMITS
    init: bool = False
    read_only: bool = False
    scratch: Scratch = Scratch()
    cache: bool = True
    timeout_s: float | None = None
    stop_signal: int | None = None
    """None: the image's, else SIGTERM."""
    stop_timeout_s: float = DEFAULT_STOP_TIMEOUT_S
    fail_fast: bool = False
    """A failure of this job cancels the other jobs with the same key."""
    max_parallel: int | None = None
    """At most so many jobs with the same key at once."""
    needs: tuple[str, ...] = ()
    """Ids of the jobs that have to end first."""
    condition: str = "success()"
    """Whether it runs then: see `jobs.conditions`."""
    stage: str = ""
    """One of STAGES. "setup": before all others. "teardown": after all others, however those ended."""
    allow_failure: bool = False
    """Its failure is shown, and counts for nothing."""
    retry: Retry = Retry()
    priority: int = 0
    """Of those that are ready, the job with the highest one runs first."""
    services: tuple[Service, ...] = ()
    workspace: Workspace | None = None
    artifacts: Artifacts | None = None
    cache_folders: tuple[CacheFolder, ...] = ()
    secrets: tuple[Secret, ...] = ()

    @property
    def has_belongings(self) -> bool:
        """Whether it is given anything besides its rootfs, or anything is taken from it: see `belongings`."""
        return bool(self.workspace or self.cache_folders or self.secrets or self.artifacts)

    @property
    def asks_with(self) -> int:
        """The signal that a stop begins with."""
        return int(_signal.SIGTERM) if self.stop_signal is None else self.stop_signal
