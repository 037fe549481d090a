"""Whether a service is ready: somebody listens on its port, or a command in its container succeeds."""

from __future__ import annotations

import _socket
import asyncio
import errno
import os

import anyio

from guntainer import errors, faults, planner, processes, report
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.container import Container
    from guntainer.jobs.model import Service
    from guntainer.launcher.client import Child, Launcher
    from guntainer.masking import Patterns
    from guntainer.services.pod import Pod

FIRST_WAIT_S, FIRST_PORT_WAIT_S, LONGEST_WAIT_S = 0.2, 0.05, 1.0
"""Between two looks: each time half as long again."""
TRY_S = 5.0
"""The longest that one look may take."""
_STARTING_S = 0.01
_STDIO = planner.Stdio(stdin=0, stdout=1, stderr=1)
_LOOPBACK = {_socket.AF_INET: "127.0.0.1", _socket.AF_INET6: "::1"}
_SECRET_BYTES = 64 << 10  # the most that one may have: it may begin before the tail
_TAIL_BYTES = 4096
_SHOWN = 300


class Look(Value):
    """What one look has found."""

    ready: bool
    why: str = ""
    """Why it is not ready yet: `exit 1 of pg_isready: no response`."""


class Readiness:
    """Looks at one service.

    Args:
        said: the path of a file for what the command prints.
        secret: what is masked in that; None: nothing.
    """

    def __init__(self, service: Service, pod: Pod, said: Callable[[], str], secret: Patterns | None = None) -> None:
        self._secret = secret
        self._service = service
        self._pod = pod
        self._make_said = said
        self._said = ""
        self.last = "its command has not been executed"
        """Why it was not ready at the last look."""

    async def wait(self, container: Container) -> None:
        """Look until it is ready."""
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
        try:
            self._open(container, child, fds)
            made = planner.inside(plan, command, _STDIO, target=2, cgroup=3 if len(fds) > 3 else -1)
            exit_ = await _ended(self._pod.launcher, made, fds)
        except OSError as error:
            return Look(ready=False, why=errors.describe_oserror(error))
        except errors.Exhausted as error:
            return Look(ready=False, why=error.message)
        finally:
            for fd in fds:
                os.close(fd)
        if exit_ is not None and exit_.ok:
            return Look(ready=True)
        if exit_ is not None and exit_.error is not None:
            return Look(ready=False, why=exit_.error.message)
        how = f"no answer in {TRY_S:g} s" if exit_ is None else exit_.describe()
        last = tail(self._said, 1, self._secret)
        return Look(ready=False, why=f"{how} of {_shown(command)}" + (f": {last}" if last else ""))

    def _open(self, container: Container, child: Child, fds: list[int]) -> None:
        """Its streams, then copies of what leads to the container, which may end meanwhile."""
        self._said = self._said or self._make_said()
        fds.append(os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC))
        fds.append(os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600))
        pid = self._executed(container)
        fds.append(os.dup(child.pidfd) if pid == child.pid else os.pidfd_open(pid))
        if pid != child.pid and pid not in processes.descendants(child.pid):
            raise ProcessLookupError(errno.ESRCH, "its command has ended")  # the number may be another's by now
        if child.target.cgroup is not None:
            fds.append(os.dup(child.target.cgroup.fd))


async def _ended(launcher: Launcher, plan: planner.Plan, fds: list[int]) -> report.Exit | None:
    """Launch, and how it has ended; None: not in time. Whatever happens, it has been waited for."""
    child = await launcher.launch(plan, fds)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[int] = loop.create_future()
    loop.add_reader(child.pidfd, _reap, child, ended)
    try:
        with anyio.move_on_after(TRY_S):
            await asyncio.shield(ended)
    finally:
        with anyio.CancelScope(shield=True):
            late = not ended.done()
            if late:
                child.target.send(9)
                await asyncio.wait({ended})
            launcher.forget(child)
    return None if late else faults.exit_of(ended.result(), child.zygote.faults, child.launch_id, child.operations)


def _reap(child: Child, ended: asyncio.Future[int]) -> None:
    asyncio.get_running_loop().remove_reader(child.pidfd)
    try:
        ended.set_result(os.waitpid(child.pid, 0)[1])
    except ChildProcessError:
        ended.set_result(9)  # somebody else of this process has waited for it


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


def tail(path: str, lines: int, secret: Patterns | None = None) -> str:
    """The last lines of a file as one: `listening; ready`; "" where there are none. Nothing in it can act on a terminal.

    Args:
        secret: what is masked, before anything is cut off.
    """
    most = _TAIL_BYTES + (_SECRET_BYTES if secret is not None else 0)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        data = os.pread(fd, most, max(0, os.fstat(fd).st_size - most))
    except OSError:
        return ""
    finally:
        os.close(fd)
    text = data.decode(errors="surrogateescape" if secret is not None else "replace")
    if secret is not None:
        text = secret.mask(text)[-_TAIL_BYTES:]
    found = [" ".join(line.split()) for line in text.splitlines()]
    shown = "; ".join([line for line in found if line][-lines:])
    return "".join(sign if sign.isprintable() else "?" for sign in shown)[-_SHOWN:]
