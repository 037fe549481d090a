"""What is handed over to a container besides its streams: its init, its private network's socket, its control group.

The same for `run` and `batch`: here it is opened and put to its place in the launch's descriptors. How a network and a
control group are waited for at the end, and closed, is their owner's: one may sleep meanwhile, the other may not.
"""

from __future__ import annotations

import os

from guntainer import assembly
from guntainer.init import AS_INIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer import planner
    from guntainer.cgroups.cgroup import Cgroup
    from guntainer.jobs.model import Job
    from guntainer.network.link import Link
    from guntainer.rootfs import Rootfs


class Handover:
    """The descriptors of one launch.

    Args:
        streams: the first of them, which stay the caller's.
        note: told of what goes otherwise than asked for in its network.
        joined: whoever launches it is in its network already.
    """

    def __init__(
        self,
        job: Job,
        ground: assembly.Ground,
        streams: list[int],
        note: Callable[[str], None],
        *,
        joined: bool = False,
    ) -> None:
        self._job = job
        self._ground = ground
        self._note = note
        self._joined = joined
        self.fds = list(streams)
        self.link: Link | None = None
        """The owner closes it."""
        self.cgroup: Cgroup | None = None
        """The owner removes it."""
        self._init = ""
        self._init_fd = -1
        self._network_at = self._cgroup_at = self._kept_at = -1
        self._kept_mount = ""

    def open(self) -> None:
        """Open what the job asks for; whatever this raises, what was opened before is here, to be closed.

        Raises:
            HostError: no private network, or a port that is taken.
            Exhausted: no more control groups or descriptors are allowed.
        """
        if self._job.init:
            self._open_init()
        if self._job.network == "private" and not self._joined:
            from guntainer.network.link import Link

            self.link = Link(self._job, lambda: self._ground.run().path, self._note)
            self._network_at = self._add(self.link.theirs)
        self.cgroup = self._ground.new_cgroup(self._job.limits)
        if self.cgroup is not None:
            self._cgroup_at = self._add(self.cgroup.fd)

    def keep(self, channel: int, mount: str) -> None:
        """Have the root handed out through a socket, and what is mounted at a path; "": that alone."""
        self._kept_at, self._kept_mount = self._add(channel), mount

    def _open_init(self) -> None:
        """As `planner.plan` takes it: the place of the host's, or ours."""
        path = assembly.find_init()
        if path is None:
            self._init = AS_INIT
        else:
            self._init_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._init = str(self._add(self._init_fd))

    def _add(self, fd: int) -> int:
        self.fds.append(fd)
        return len(self.fds) - 1

    def assemble(
        self,
        rootfs: Rootfs,
        stdio: planner.Stdio,
        *,
        isolation: str,
        copied: assembly.Copied | None,
        terminal: bool = False,
        term: str = "xterm",
    ) -> assembly.Assembly:
        """Everything for the launch, see `assembly.assemble`."""
        return assembly.assemble(
            self._job,
            rootfs,
            self._ground,
            stdio,
            terminal=terminal,
            term=term,
            init=self._init,
            isolation=isolation,
            copied=copied,
            network=self._network_at,
            cgroup=self._cgroup_at,
            joined=self._joined,
            kept=(self._kept_at, self._kept_mount),
        )

    def limit(self, made: assembly.Assembly) -> None:
        """Give the control group its limits, before the launch.

        Raises:
            HostError: one of them can not be set.
        """
        if self.cgroup is not None:
            self.cgroup.limit(made.spec["linux"]["resources"], best_effort=self._job.limits.best_effort)

    def close(self) -> None:
        """After the launch, or where there was none: what was opened for nothing but that."""
        if self._init_fd >= 0:
            os.close(self._init_fd)
            self._init_fd = -1
