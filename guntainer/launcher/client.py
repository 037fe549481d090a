"""Ask the fork helper to launch: one message out, one back, and a new helper where one has died.

Messages are answered in the order in which they were sent. A helper that dies takes down nothing but its launches that
were under way: they fail with LauncherLost, whom it may have cloned for the first of them is killed, and the next launch
starts another. What other helpers of this process are at is left alone.
"""

from __future__ import annotations

import _socket
import array
import asyncio
import marshal
import os

import anyio

from guntainer import descriptors, errors, faults, processes, stopping
from guntainer.launcher.spawn import Zygote, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.planner import Plan

_MESSAGE_LIMIT = 60_000  # larger plans travel as a memfd
_UNDER_WAY_LIMIT = 32


class Child:
    """A launched container's init: our own child process."""

    __slots__ = ("launch_id", "operations", "pid", "pidfd", "target", "zygote")

    def __init__(self, launch_id: int, target: stopping.Target, zygote: Zygote, plan: Plan) -> None:
        self.operations = plan[1:4]
        self.launch_id = launch_id
        self.target = target
        self.pid = target.pid
        self.pidfd = target.pidfd
        self.zygote = zygote

    def __repr__(self) -> str:
        return f"Child(launch_id={self.launch_id}, pid={self.pid}, pidfd={self.pidfd})"


_known: set[int] = set()
"""Pids of the containers of every launcher of this process that were not waited for yet."""


class Launcher:
    """One fork helper at a time. `async with Launcher() as launcher: child = await launcher.launch(plan, fds)`.

    Args:
        zygote: a helper that was started before.
        namespace: a descriptor of the user namespace that helpers enter, or -1.
    """

    def __init__(self, zygote: Zygote | None = None, *, namespace: int = -1) -> None:
        self._zygote = zygote
        self._namespace = namespace
        self._waiting: dict[int, asyncio.Future[tuple[int, Any, list[int]]]] = {}
        self._retired: list[Zygote] = []
        self._next_id = 0
        self._slots = asyncio.Semaphore(_UNDER_WAY_LIMIT)
        self._watching = False

    async def __aenter__(self) -> Launcher:
        self._start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._unwatch()
        for zygote in [*self._retired, *([self._zygote] if self._zygote else [])]:
            zygote.close()
        self._zygote = None
        self._retired.clear()

    @property
    def pid(self) -> int:
        """The fork helper's process id; 0 while there is none."""
        return self._zygote.pid if self._zygote else 0

    def statistics(self) -> dict[str, int]:
        return {"launches": self._next_id, "under_way": len(self._waiting), "alive": len(_known)}

    def _start(self) -> Zygote:
        if self._zygote is None:
            self._zygote = spawn(self._namespace)
        if not self._watching:
            descriptors.share(self._zygote.pid)  # it keeps one for each container that lives
            asyncio.get_running_loop().add_reader(self._zygote.sock.fileno(), self._answers)
            self._watching = True
        return self._zygote

    def _unwatch(self) -> None:
        if self._watching and self._zygote is not None:
            asyncio.get_running_loop().remove_reader(self._zygote.sock.fileno())
        self._watching = False

    async def launch(self, plan: Plan, fds: list[int], *, data: bytes = b"") -> Child:
        """Launch a plan with its descriptors, which stay the caller's.

        Args:
            data: the plan's marshalled form, where the caller has it.

        Raises:
            LauncherLost: the helper died meanwhile.
            HostError: clone3 was refused.
        """
        async with self._slots:
            zygote = self._start()
            self._next_id += 1
            launch_id = self._next_id
            # A cancelled caller must not lose a container that is being cloned: the answer is waited for.
            with anyio.CancelScope(shield=True):
                pid, refusal, handed = await self._asked(zygote, launch_id, data or marshal.dumps(plan), fds)
        if pid == 0:
            raise faults.clone_error(*refusal)
        return Child(launch_id, stopping.Target(pid, *handed), zygote, plan)

    async def _asked(self, zygote: Zygote, launch_id: int, data: bytes, fds: list[int]) -> tuple[int, Any, list[int]]:
        """Send a message and wait for its answer: (pid, (errno, kind of namespace), descriptors)."""
        future = self._expect(launch_id)
        try:
            await self._send(zygote, launch_id, data, fds)
            return await future
        finally:
            self._waiting.pop(launch_id, None)

    def _expect(self, launch_id: int) -> asyncio.Future[tuple[int, Any, list[int]]]:
        """What becomes the answer to the message with this number."""
        future: asyncio.Future[tuple[int, Any, list[int]]] = asyncio.get_running_loop().create_future()
        self._waiting[launch_id] = future
        return future

    async def _send(self, zygote: Zygote, launch_id: int, plan: bytes, fds: list[int]) -> None:
        data = marshal.dumps((launch_id, plan))
        large = -1
        if len(data) > _MESSAGE_LIMIT:
            large = os.memfd_create("plan")
            os.write(large, plan)
            os.lseek(large, 0, os.SEEK_SET)
            data = marshal.dumps((launch_id, None))
            fds = [large, *fds]
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            while True:
                try:
                    zygote.sock.sendmsg([data], rights)
                    return
                except BlockingIOError:
                    await asyncio.sleep(0.001)
        except OSError:
            self._lost(zygote)
        finally:
            if large >= 0:
                os.close(large)

    def _answers(self) -> None:
        zygote = self._zygote
        if zygote is not None and not self._take(zygote):
            self._lost(zygote)

    def _take(self, zygote: Zygote) -> bool:
        """Take the answers that are there; returns whether more may come."""
        while True:
            try:
                data, ancillary, _, _ = zygote.sock.recvmsg(4096, _socket.CMSG_SPACE(8), _socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return True
            except ConnectionResetError:
                continue  # said once, and before its answers, by one that has died with messages unread: unix(7)
            except OSError:
                return False
            if not data:
                return False
            launch_id, pid, *refusal = marshal.loads(data)
            handed: list[int] = []
            for _level, _kind, payload in ancillary:
                handed += array.array("i", payload[: len(payload) // 4 * 4])
            if pid:
                _known.add(pid)
            future = self._waiting.get(launch_id)
            if future is not None and not future.done():
                future.set_result((pid, refusal, handed))

    def _lost(self, zygote: Zygote) -> None:
        """The helper is gone: fail what was under way, kill what nobody got to know of."""
        if zygote is not self._zygote:
            return
        self._unwatch()
        self._zygote = None
        # Its fault pipe is still needed by the children that it has launched before.
        self._retired.append(zygote)
        zygote.end()
        self._take(zygote)  # what it has answered is launched, and lives on
        self._kill_stranger(zygote)
        for future in [one for one in self._waiting.values() if not one.done()]:
            future.set_exception(
                errors.LauncherLost("the fork helper died while this launch was under way", hint="the batch goes on")
            )

    def _kill_stranger(self, zygote: Zygote) -> None:
        """Kill whom a helper has cloned without having said so: it launches one at a time."""
        launch_id, pid = zygote.last_clone()
        future = self._waiting.get(launch_id)
        if not pid or future is None or future.done():
            return  # that launch is known, and by now the process id may be another's
        try:
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # a child of ours, and nobody else
            for below in processes.descendants(pid):
                os.kill(below, stopping.KILL)
            os.kill(pid, stopping.KILL)
            os.waitpid(pid, 0)
        except OSError:
            pass

    def forget(self, child: Child) -> None:
        """This child has been waited for."""
        _known.discard(child.pid)
        os.close(child.pidfd)
        if child.target.mounts >= 0:
            os.close(child.target.mounts)
