"""A fork helper with a network of its own, in which all containers are that it launches: see `init.pod`.

It has one life: where it ends, its network is not made again. What it has launched by then goes on.
"""

from __future__ import annotations

import _socket
import array
import marshal

import anyio

from guntainer import errors, faults
from guntainer.launcher.client import Launcher
from guntainer.launcher.spawn import Zygote, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Operations = tuple[tuple[Any, ...], ...]

_FIRST = 0  # the number of a message; launches count from 1


class PodLauncher(Launcher):
    """`async with PodLauncher(namespace=…) as launcher: await launcher.enter(…)`, then it launches as any other.

    Args:
        namespace: a descriptor of the user namespace that the helper enters first, or -1.

    Raises:
        HostError: no process or no descriptor is left.
    """

    def __init__(self, *, namespace: int) -> None:
        super().__init__(spawn(namespace, pod=True))

    async def enter(
        self,
        flags: int,
        operations: Operations,
        ping_groups: tuple[int, int],
        fds: list[int],
        sent: Callable[[int], None] = lambda _pid: None,
    ) -> None:
        """Let the helper make its namespaces.

        Args:
            flags: of unshare(2).
            operations: of a plan; they go through them in these namespaces.
            ping_groups: as `init.private_network.offer` takes them.
            fds: what the operations' indexes stand for.
            sent: called with the helper's process id when it has got `fds`.

        Raises:
            HostError: a namespace is refused.
            SetupError: one of the operations is.
            LauncherLost: it has ended meanwhile.
        """
        zygote = self._start()
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        answer = self._expect(_FIRST)
        try:
            zygote.sock.sendmsg([marshal.dumps((flags, operations, ping_groups))], rights)
            sent(zygote.pid)
            _, refusal, _ = await answer
        except (errors.LauncherLost, OSError):
            raise zygote.faults.take(_FIRST, (operations, (), {})) or _lost() from None
        finally:
            self._waiting.pop(_FIRST, None)
        if refusal[0]:
            raise faults.clone_error(*refusal)

    async def sockets(self) -> list[_socket.socket]:
        """New sockets of this network, which the caller closes: of IPv4 and IPv6, where it has them.

        Raises:
            LauncherLost: the helper has ended.
        """
        self._next_id += 1
        with anyio.CancelScope(shield=True):  # else nobody would close them
            _, _, handed = await self._asked(self._start(), self._next_id, b"", [])
        return [_socket.socket(fileno=fd) for fd in handed]

    def _start(self) -> Zygote:
        if self._zygote is None:
            raise _lost()
        return super()._start()

    def kill(self) -> None:
        """End the helper: whoever waits for its answer is told."""
        if self._zygote is not None:
            self._lost(self._zygote)


def _lost() -> errors.LauncherLost:
    return errors.LauncherLost("the fork helper of this job's network died", hint="nothing else is touched by that")
