"""Whether a service is ready: somebody listens on its port, or a command in its container succeeds."""

from __future__ import annotations

import _socket
import asyncio
import errno
import os

import anyio

from guntainer import errors, planner, processes
from guntainer.services.tried import KEPT_BYTES, Said, ended
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.container import Container
    from guntainer.jobs.model import Service
    from guntainer.launcher.client import Child
    from guntainer.masking import Patterns
    from guntainer.services.pod import Pod

FIRST_WAIT_S, FIRST_PORT_WAIT_S, LONGEST_WAIT_S = 0.2, 0.05, 1.0
"""Between two looks: each time half as long again."""
TRY_S = 5.0
"""The longest that one look may take."""
_STARTING_S = 0.01
_STDIO = planner.Stdio(stdin=0, stdout=1, stderr=1)
_LOOPBACK = {_socket.AF_INET: "127.0.0.1", _socket.AF_INET6: "::1"}
_SHOWN = 300


class Look(Value):
    """What one look has found."""

    ready: bool
    why: str = ""
    """Why it is not ready yet: `exit 1 of pg_isready: no response`."""


class Readiness:
    """Looks at one service.

    Args:
        secret: what is masked in what its command prints; None: nothing.
    """

    def __init__(self, service: Service, pod: Pod, secret: Patterns | None = None) -> None:
        self._secret = secret
        self._service = service
        self._pod = pod
        self.last = "its command has not been executed"
        """Why it was not ready at the last look."""

    async def wait(self, container: Container) -> None:
        """Look until it is ready; where nobody has said what that means, it is when its command has been executed."""
        while not self._executed(container):
            await anyio.sleep(_STARTING_S)
        self.last = f"no answer of {_shown(self._service.ready)}" if self._service.ready else "no answer"
        wait_s = FIRST_WAIT_S if self._service.ready else FIRST_PORT_WAIT_S
        while True:
            found = await self._look(container)
            if found.ready:
                return
            self.last = found.why
            await anyio.sleep(wait_s)
            wait_s = min(1.5 * wait_s, LONGEST_WAIT_S)

    def _executed(self, container: Container) -> int:
        """A process of it whose set-up is over: until then the namespaces show the host. 0: there is none yet."""
        if container.running is None:
            return 0
        init = container.running[0].pid
        unlike = processes.command_line(self._pod.launcher.pid)
        # An init of ours is a clone of the fork helper, and stays one: it forks the command when all is set up, and keeps
        # everybody out of its own memory, which is a copy of the helper's.
        for pid in (init, *processes.descendants(init)):
            if processes.command_line(pid) not in (b"", unlike):
                return pid
        return 0

    async def _look(self, container: Container) -> Look:
        if self._service.ready_port is not None:
            return await self._port(self._service.ready_port)
        if self._service.ready:
            return await self._command(container)
        return Look(ready=True)

    # -- a port

    async def _port(self, port: int) -> Look:
        found = Look(ready=False, why=f"nobody listens on port {port}")
        sockets = await self._pod.sockets()
        try:
            for sock in sockets:
                with anyio.move_on_after(TRY_S):
                    if await _connects(sock, (_LOOPBACK[sock.family], port)):
                        return Look(ready=True)
        finally:
            for sock in sockets:
                sock.close()
        return found

    # -- a command

    async def _command(self, container: Container) -> Look:
        if container.running is None:
            return Look(ready=False, why="it is not running")
        child, plan = container.running
        command = self._service.ready
        fds: list[int] = []
        said: Said | None = None
        try:
            said = Said(self._secret)
            self._open(container, child, said, fds)
            made = planner.inside(plan, command, _STDIO, target=2, cgroup=3 if len(fds) > 3 else -1)
            exit_ = await ended(self._pod.launcher, made, fds, TRY_S, child.target)
            last = last_lines(said.end(), 1)
        except OSError as error:
            return Look(ready=False, why=errors.describe_oserror(error))
        except errors.Exhausted as error:
            return Look(ready=False, why=error.message)
        finally:
            for fd in fds:
                os.close(fd)
            if said is not None:
                said.close()
        if exit_ is not None and exit_.ok:
            return Look(ready=True)
        if exit_ is not None and exit_.error is not None:
            return Look(ready=False, why=exit_.error.message)
        how = f"no answer in {TRY_S:g} s" if exit_ is None else exit_.describe()
        return Look(ready=False, why=f"{how} of {_shown(command)}" + (f": {last}" if last else ""))

    def _open(self, container: Container, child: Child, said: Said, fds: list[int]) -> None:
        """Its streams, then copies of what leads to the container, which may end meanwhile."""
        fds.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        fds.append(said.handed_over())
        pid = self._executed(container)
        fds.append(os.dup(child.pidfd) if pid == child.pid else os.pidfd_open(pid))
        if pid != child.pid and pid not in processes.descendants(child.pid):
            raise ProcessLookupError(errno.ESRCH, "its command has ended")  # the number may be another's by now
        if child.target.cgroup is not None:
            fds.append(os.dup(child.target.cgroup.fd))


async def _connects(sock: _socket.socket, address: tuple[str, int]) -> bool:
    """Whether somebody accepts: connect(2) of a socket that does not block."""
    number = sock.connect_ex(address)
    if number == errno.EINPROGRESS:
        loop = asyncio.get_running_loop()
        writable = asyncio.Event()
        loop.add_writer(sock.fileno(), writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(sock.fileno())
        number = sock.getsockopt(_socket.SOL_SOCKET, _socket.SO_ERROR)
    return number == 0


def _shown(command: tuple[str, ...]) -> str:
    words = command[3:] if command[:2] == ("/bin/sh", "-e") and len(command) > 3 else command
    text = " ".join(" ".join(words).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def tail(path: str, lines: int) -> str:
    """The last lines of a file as one; "" where there are none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        data = os.pread(fd, KEPT_BYTES, max(0, os.fstat(fd).st_size - KEPT_BYTES))
    except OSError:
        return ""
    finally:
        os.close(fd)
    return last_lines(data, lines)


def last_lines(data: bytes, lines: int) -> str:
    """`listening; ready`: nothing in it can act on a terminal."""
    found = [" ".join(line.split()) for line in data.decode(errors="replace").splitlines()]
    shown = "; ".join([line for line in found if line][-lines:])
    return "".join(sign if sign.isprintable() else "?" for sign in shown)[-_SHOWN:]
