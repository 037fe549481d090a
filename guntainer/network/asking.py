"""What a program of the host's says of itself: a few of its own options, all asked at once, bounded in time and in length.

Nothing that it starts outlives the answer, nor us: it gets a process group of its own, which is killed at the end, or by the
kernel when we end before (F_SETOWN of fcntl(2) takes a group as well).
"""

from __future__ import annotations

import _signal
import fcntl
import os
import select
import time

from guntainer import descriptors, interrupts
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

BOUND_S = 5.0
"""A few milliseconds are usual, on an idle machine."""
_GONE_S = 2.0
_LOOK_AGAIN_S = 0.001
_BYTES = 1 << 16
SIGNALS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGQUIT, _signal.SIGPIPE)
"""Which a tool does not ignore because we do."""


class Answer(Value):
    """What came to stdout and stderr."""

    text: str
    """ASCII; whatever is not is "?"."""
    fault: str = ""
    """Why there is no more of it: no end within the bound, or too much; "" where it is whole."""


def ask(path: str, options: Iterable[str]) -> list[Answer]:
    """Run the program once with each of the options alone, all at the same time.

    Raises:
        OSError: it can not be executed, or no process or descriptor is left.
    """
    asked: list[_Asked] = []
    try:
        for option in options:
            with interrupts.held():
                asked.append(_Asked())
                asked[-1].start([path, option])
        _listen(asked)
    finally:
        for one in asked:
            one.end()
    return [Answer(text=one.said.decode("ascii", "replace").replace("\ufffd", "?"), fault=one.fault) for one in asked]


class _Asked:
    """One run of it."""

    def __init__(self) -> None:
        self.said = b""
        self.fault = ""
        self.fd = -1
        self._pid = 0
        self._open: list[int] = []

    def start(self, words: list[str]) -> None:
        self.fd, theirs = self._pipe()
        life, _ours = self._pipe()
        self._pid = os.posix_spawn(
            words[0],
            words,
            {"LC_ALL": "C.UTF-8"},
            file_actions=descriptors.to_places({0: life, 1: theirs, 2: theirs}),
            setsid=True,  # a process group of its own, and no key of a terminal reaches it
            setsigmask=(),
            setsigdef=SIGNALS,
        )
        tie(life, -self._pid)
        for fd in (theirs, life):
            self._open.remove(fd)
            os.close(fd)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._open += ends
        return ends

    def hear(self) -> bool:
        """Take what is there; whether more may come."""
        data = os.read(self.fd, _BYTES)
        self.said += data
        if len(self.said) >= _BYTES:
            self.fault = f"says more than {_BYTES} bytes"
        return bool(data) and not self.fault

    def end(self) -> None:
        """Kill it with all that it has started, and wait for it. Again: nothing."""
        pid, self._pid = self._pid, 0
        if pid:
            try:
                os.killpg(pid, _signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            os.waitpid(pid, 0)
            _wait_for_group(pid)
        for fd in self._open:
            os.close(fd)
        self._open.clear()


def _wait_for_group(group: int) -> None:
    """What a tool has started is nobody's child of ours: killed, but it has yet to end, on a busy machine."""
    deadline = time.monotonic() + _GONE_S
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except OSError:
            return  # there is nobody, or nobody of ours
        time.sleep(_LOOK_AGAIN_S)


def _listen(asked: list[_Asked]) -> None:
    deadline = time.monotonic() + BOUND_S
    speaking = {one.fd: one for one in asked}
    poll = select.poll()
    for fd in speaking:
        poll.register(fd, select.POLLIN)
    while speaking and (left := deadline - time.monotonic()) > 0:
        for fd, _ in poll.poll(left * 1000):
            if not speaking[fd].hear():
                poll.unregister(fd)
                del speaking[fd]
    for one in speaking.values():
        one.fault = f"does not end within {BOUND_S:g} s"


def tie(life: int, owner: int) -> None:
    """SIGKILL to a process when something happens at the other end of a pipe, such as that it is closed: fcntl(2), F_SETOWN.

    Args:
        life: the reading end.
        owner: a process id; negative: that of a process group.
    """
    fcntl.fcntl(life, fcntl.F_SETOWN, owner)
    fcntl.fcntl(life, fcntl.F_SETSIG, _signal.SIGKILL)
    fcntl.fcntl(life, fcntl.F_SETFL, os.O_ASYNC)
