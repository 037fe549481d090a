"""The network of one job and its services: a fork helper that is in it, and launches all of them there.

    private   a new network namespace, which pasta or slirp4netns connects
    none      a new network namespace with nothing but lo
    host      the caller's: the batch's own fork helper launches them

Who has more than one id shares the user namespace of the whole batch, to which the network then belongs. With a single id
each container has its own user namespace, for its user may have any number there; the network belongs to one around them.
"""

from __future__ import annotations

import _socket

import anyio

from guntainer import errors, hostids, idmap
from guntainer.init.pod import sockets
from guntainer.kernel import abi
from guntainer.launcher.pod import PodLauncher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.assembly import Ground
    from guntainer.jobs.model import Job
    from guntainer.launcher.client import Launcher
    from guntainer.network.attached import Attached
    from guntainer.network.link import Link

_CHANNEL = 2  # the first of a message's own descriptors, as operations count them
_LAST_ID = idmap.COUNT - 1


class Pod:
    """`async with Pod(…) as pod: Container(…, pod.launcher, joined=pod.joined)`.

    Args:
        job: whose network it is: its kind, ports and name servers.
        launcher: the batch's own.
        note: told, while it runs, of a port that was chosen.
    """

    def __init__(self, job: Job, ground: Ground, launcher: Launcher, note: Callable[[str], None]) -> None:
        self._job = job
        self._ground = ground
        self._note = note
        self._attached: Attached | None = None
        self._own: PodLauncher | None = None
        self.launcher = launcher
        self.notes: list[str] = []
        """What went otherwise than asked for in the network."""

    @property
    def joined(self) -> bool:
        """Whether the launcher is in the network already."""
        return self._own is not None

    async def __aenter__(self) -> Pod:
        """Make the network.

        Raises:
            HostError, SetupError, LauncherLost: it can not be had.
        """
        if self._job.network != "host":
            try:
                await self._open()
            except BaseException:
                await self._close()
                raise
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        try:
            if self._attached is not None and kind is None:
                await self._attached.passed_on()
        finally:
            await self._close()

    async def _open(self) -> None:
        link = self._link() if self._job.network == "private" else None
        self.launcher = self._own = own = PodLauncher(namespace=self._ground.ids.namespace)
        await own.__aenter__()
        try:
            await own.enter(*self._plan(link), self._launched)
        except errors.GuntainerError:
            if self._attached is not None and self._attached.error is not None:
                raise self._attached.error from None
            raise
        if link is not None:
            for text in link.published():
                self._note(text)

    def _link(self) -> Link:
        from guntainer.network.attached import Attached
        from guntainer.network.link import Link

        link = Link(self._job, lambda: self._ground.run().path, self.notes.append)
        self._attached = Attached(link, self._give_up)
        return link

    def _give_up(self) -> None:
        """There will be no network."""
        if self._own is not None:
            self._own.kill()

    def _launched(self, pid: int) -> None:
        if self._attached is not None:
            self._attached.launched(pid)

    def _plan(self, link: Link | None) -> tuple[int, tuple[tuple[Any, ...], ...], tuple[int, int], list[int]]:
        """As `PodLauncher.enter` takes them: flags, operations, the groups that may ping, descriptors."""
        flags, operations, last = abi.CLONE_NEWNET, [], _LAST_ID
        if self._ground.ids.kind == idmap.SINGLE:
            flags, last = flags | abi.CLONE_NEWUSER, 0
            operations.append(("id_map", f"0 {hostids.UID} 1\n", f"0 {hostids.GID} 1\n"))
        groups = (0, last)
        if link is None:
            return flags, (*operations, ("loopback_up",)), groups, []
        network = (("offer_network", _CHANNEL, groups), ("loopback_up",), ("await_network", _CHANNEL))
        return flags, (*operations, *network), groups, [link.theirs]

    async def _close(self) -> None:
        own, self._own = self._own, None
        attached, self._attached = self._attached, None
        with anyio.CancelScope(shield=True):
            if own is not None:
                await own.__aexit__()
            if attached is not None:
                await attached.close()

    async def sockets(self) -> list[_socket.socket]:
        """New sockets of this network, not blocking, which the caller closes.

        Raises:
            LauncherLost: the fork helper has ended.
        """
        if self._own is not None:
            return await self._own.sockets()
        return sockets()
