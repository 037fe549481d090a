"""One container's private network, from before its launch to after its end: the same for `run` and `batch`.

    OFFERED     launched; the container is about to hand out its network namespace
    STARTING    a tool was started on it, and is setting it up
    PUBLISHING  slirp4netns is being told of the ports
    GRANTED     the container was told to go on, and is to answer
    UP          the command runs, or is about to
    ENDED       the tool has ended by itself, or the container was gone before it had one

Nothing here waits: whoever owns a link is told which descriptors to watch, and calls `ready` for each that is readable. The
tool lives as long as the container; its owner ends it by `close`, whatever has happened.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct

from guntainer import errors, naming, skeleton
from guntainer.network import publishing, tools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guntainer.jobs.model import Job
    from guntainer.network.tools import Running

    Watch = Callable[[int], object]

OFFERED, STARTING, PUBLISHING, GRANTED, UP, ENDED = "offered", "starting", "publishing", "granted", "up", "ended"
_PATIENCE_S = 20.0
_GO = b"g"
_STEP_S = 0.002
_STEPS = 100
_RESTS = 3  # so often in a row, for a busy kernel may take a while to wake it
_unfit: set[str] = set()
"""Tools that have failed here, or are too old, where the other one did well: they are not tried again, and it is said once."""


class Link:
    """The private network of one container.

    Args:
        job: whose it is: its ports, its name servers.
        folder: gives a folder of this process's own, where one is needed.
        note: told once, in a sentence, of what goes otherwise than asked for.

    Raises:
        HostError: there can be none here, or a port can not be had.
    """

    patience_s = _PATIENCE_S
    """How long after its launch the container may wait for a tool: usually it takes 3 to 30 ms."""

    def __init__(self, job: Job, folder: Callable[[], str], note: Callable[[str], None]) -> None:
        found, passed_over = tools.require()
        self._tools = [tool for tool in found if tool.name not in _unfit] or list(found)
        self._folder = folder
        self._note = note
        self._reasons = list(passed_over)
        self._running: Running | None = None
        self._requests: publishing.Requests | None = None
        self._api = ""
        self._folder_fd = -1
        self._watch: Watch = _nobody
        self._unwatch: Watch = _nobody
        self._watched: set[int] = set()
        self._spaces: list[int] = []
        self._pid = 0
        self.state = OFFERED
        self._wanted = job.ports
        self._forward = naming.uses_forwarder(job.dns, skeleton.host_text("/etc/resolv.conf"))
        self.ports = publishing.reserve(job.ports)
        try:
            ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        except OSError as error:
            publishing.release(self.ports)
            raise errors.Exhausted(
                f"no more descriptors are allowed ({error.strerror})", hint="raise `ulimit -n`"
            ) from None
        ours.setblocking(False)
        self._channel: _socket.socket | None = ours
        self._theirs: _socket.socket | None = theirs

    def __repr__(self) -> str:
        tool = self._running.tool.name if self._running is not None else None
        return f"Link({self.state}, {tool}, {self.ports})"

    @property
    def theirs(self) -> int:
        """The descriptor that goes with the launch."""
        assert self._theirs is not None
        return self._theirs.fileno()

    @property
    def pidfd(self) -> int:
        """Readable when the tool has ended; -1 where none runs."""
        return self._running.pidfd if self._running is not None and self._running.pid else -1

    @property
    def rising(self) -> bool:
        """Whether a tool is being waited for."""
        return self.state in (STARTING, PUBLISHING)

    def published(self) -> tuple[str, ...]:
        """What the user can not know, of ports that were chosen: `80/tcp is published on 0.0.0.0:49153`."""
        chosen = (port for port, wanted in zip(self.ports, self._wanted, strict=True) if not wanted.host)
        return tuple(f"{p.container}/{p.protocol} is published on {p.address}:{p.host}" for p in chosen)

    def launched(self, pid: int, watch: Watch, unwatch: Watch) -> None:
        """The container has been cloned.

        Args:
            pid: of its init.
            watch, unwatch: called with a descriptor, from when on and until when it is to be watched.
        """
        self._close_theirs()
        self._pid = pid
        self._watch, self._unwatch = watch, unwatch
        assert self._channel is not None
        self._look_at(self._channel.fileno())

    def owns(self, fd: int) -> bool:
        """Whether `ready` is to be called for this descriptor."""
        return fd in self._watched

    def _look_at(self, fd: int) -> None:
        self._watched.add(fd)
        self._watch(fd)

    def _look_away(self, fd: int) -> None:
        if fd in self._watched:
            self._watched.discard(fd)
            self._unwatch(fd)

    def ready(self, fd: int) -> None:
        """Go on, for a watched descriptor that is readable.

        Raises:
            HostError: there will be no network: the container is to be killed.
            Exhausted: no process or descriptor is left for a tool.
        """
        try:
            self._ready(fd)
        except OSError as error:
            raise tools.refused("no private network", error) from None

    def _ready(self, fd: int) -> None:
        if self._channel is not None and fd == self._channel.fileno():
            self._heard()
            return
        running = self._running
        assert running is not None
        if self._requests is not None and fd == self._requests.fd:
            self._answered(self._requests)
        elif fd == running.ready:
            self._set_up(running)
        elif fd == running.pidfd:
            self._tool_ended(running)

    def late(self) -> None:
        """The tool has had its time.

        Raises:
            HostError: always.
        """
        assert self._running is not None
        self._failed(f"not ready after {self.patience_s:g} s")
        raise self._error()

    # -- the container's side

    def _heard(self) -> None:
        """Its namespaces, later its answer; the end of file when it has ended before."""
        assert self._channel is not None
        try:
            data, rights, _, _ = self._channel.recvmsg(8, _socket.CMSG_SPACE(8), _socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            data, rights = b"", []
        for _level, _kind, payload in rights:
            self._spaces += struct.unpack_from(f"{len(payload) // 4}i", payload)
        if self.state == OFFERED and data:
            if len(self._spaces) < 2:
                raise OSError(
                    errno.EMFILE, os.strerror(errno.EMFILE)
                )  # the kernel leaves out what there is no room for
            self._start()
            return
        if not data or self.state == GRANTED:
            self._look_away(self._channel.fileno())
            self._channel.close()
            self._channel = None
            self.state = UP if self.state == GRANTED and data else ENDED

    def _grant(self) -> None:
        self.state = GRANTED
        try:
            if self._channel is not None:
                self._channel.send(_GO)
        except OSError:
            pass  # it has ended

    # -- the tool's side

    def _start(self) -> None:
        """Start the next tool there is, unless it is too old.

        Raises:
            HostError: there is none left.
            Exhausted: no process or descriptor is left for it.
        """
        while self._tools and (why := tools.unfit(self._tools[0])):
            self._reasons.append(why)
            self._tools.pop(0)
        if not self._tools:
            raise self._error()
        tool = self._tools.pop(0)
        network, user = self._spaces
        if tool.name == "pasta":
            words = tools.pasta(tool, self._user_path(user), self.ports, forward=self._forward)
        else:
            self._api = self._socket_path() if self.ports else ""
            words = tools.slirp4netns(tool, self._user_path(user), self._api)
        self.state = STARTING
        self._running = running = tools.Running(tool, words, network)
        self._look_at(running.ready)
        self._look_at(running.pidfd)

    def _user_path(self, user: int) -> str:
        """The user namespace as a path that a tool may open: ptrace(2) has the rules. "" of our own: setns(2) refuses that."""
        if os.path.samestat(os.fstat(user), os.stat("/proc/self/ns/user")):
            return ""
        # Who has capabilities is closed to a tool that has fewer, and a container of a range may be closed for a moment by
        # what shares its memory until it executes.
        return f"/proc/{self._pid}/ns/user" if os.geteuid() == 0 else f"/proc/{os.getpid()}/fd/{user}"

    def _socket_path(self) -> str:
        """By way of a descriptor, for the folder's own path may be longer than a socket's can be: unix(7)."""
        self._folder_fd = os.open(self._folder(), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/{os.getpid()}/fd/{self._folder_fd}/{publishing.socket_name()}"

    def _set_up(self, running: Running) -> None:
        arrived = self.state == STARTING and running.is_ready()
        if arrived or running.silent or self.state != STARTING:
            self._look_away(running.ready)
        if not arrived:
            return
        if running.tool.name != "slirp4netns" or not self.ports:
            self._arrived()
            return
        self.state = PUBLISHING
        try:
            self._requests = publishing.Requests(self._api, self.ports)
        except OSError as error:
            self._failed(f"can not be told of ports: {error.strerror}")
            self._start()
            return
        self._look_at(self._requests.fd)

    def _answered(self, requests: publishing.Requests) -> None:
        self._look_away(requests.fd)
        try:
            requests.ready()
        except BlockingIOError:
            pass
        except OSError:
            return  # it is ending
        if requests.fd >= 0:
            self._look_at(requests.fd)
        else:
            self._arrived()

    def _arrived(self) -> None:
        assert self._running is not None
        self._running.forget()
        failed = {reason.partition(":")[0] for reason in self._reasons}
        if failed - _unfit:
            _unfit.update(failed)
            self._note(f"{'; '.join(self._reasons)}: {self._running.tool.name} is used instead")
        self._grant()

    def _tool_ended(self, running: Running) -> None:
        self._look_away(running.pidfd)
        how = running.reap()
        said = running.said()
        if self.rising:
            self._failed(said or how)
            self._start()
            return
        if self.state == ENDED:
            return
        self.state = ENDED
        self._note(f"the network is gone: {running.tool.name} ended with {how}" + (f" ({said})" if said else ""))

    def _failed(self, why: str) -> None:
        assert self._running is not None
        self._reasons.append(f"{self._running.tool.name}: {why}")
        self._end_tool()

    def _error(self) -> errors.HostError:
        return errors.HostError(f"no private network: {'; '.join(self._reasons)}", probe="network-tool")

    # -- the end

    def passing_on(self) -> Iterator[float]:
        """After the container's end: what it has sent last may be in the tool's hands. Yields how long to wait before the
        next look, until the tool rests, or has had its time."""
        resting = 0
        for _ in range(_STEPS):
            if self.state != UP or self._running is None:
                return
            resting = resting + 1 if self._running.rests() else 0
            if resting == _RESTS:
                return
            yield _STEP_S

    def kill(self) -> None:
        """End the tool; `pidfd` is readable when it has ended, and `close` does not wait then."""
        self.state = ENDED
        if self._running is not None:
            self._running.kill()

    def close(self) -> None:
        """End the tool where there is one, wait for that, give the ports back. Again: nothing."""
        self.state = ENDED
        self._end_tool()
        for fd in tuple(self._watched):
            self._look_away(fd)
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._close_theirs()
        for fd in self._spaces:
            os.close(fd)
        self._spaces.clear()
        publishing.release(self.ports)
        self.ports = ()

    def _close_theirs(self) -> None:
        if self._theirs is not None:
            self._theirs.close()
            self._theirs = None

    def _end_tool(self) -> None:
        if self._requests is not None:
            self._look_away(self._requests.fd)
            self._requests.close()
            self._requests = None
        running, self._running = self._running, None
        if running is not None:
            self._look_away(running.ready)
            self._look_away(running.pidfd)
            running.close()
        if self._api:
            try:
                os.unlink(self._api)
            except OSError:
                pass
            os.close(self._folder_fd)
            self._api = ""


def _nobody(_fd: int) -> None:
    """Before the launch, nothing is watched."""
