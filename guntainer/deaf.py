"""Signals that the kernel keeps from a command that is pid 1: Ctrl-C and Ctrl-\\ at a terminal, and SIGPIPE.

A pid namespace's init gets no signal that it has no handler for, pid_namespaces(7). Any other process would end by it, and
so does this one: it is looked at in /proc, see `processes`, and killed.
"""

from __future__ import annotations

import os
import time

from guntainer import processes
from guntainer.stopping import readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.stopping import Target

_PIPE = 13
_YOUNG_S = 1.0  # a command of this age may be about to set its handlers
_KEY_AGAIN_S = 0.1
_COUNT_S = 0.2
_JUDGE_S = 0.05
_AT_ONCE_S = 0.05


class Deaf:
    """Ends a container where the kernel keeps a signal from its init that would end any other process.

    Whoever has a mind of its own about the signal is left alone.

    Args:
        later: calls a function after so many seconds, once.
        launched: when it was cloned, of time.monotonic.
    """

    def __init__(self, target: Target, later: Callable[[Callable[[], None], float], None], launched: float) -> None:
        self._target = target
        self._pid = target.pid
        self._later = later
        self._launched = launched
        self._foreground: Callable[[], int] = int
        self._pressed = 0
        self._was_heard = False
        self._image = b""
        self.key = 0
        """The signal of the key for which it was killed."""
        self.unread = False
        """It has written to a pipe that nobody reads any more, and the kernel kept SIGPIPE from it."""
        self._left_at: float | None = None
        self._reader = -1
        self._writes = 0

    # -- keys

    def typed(self, signal: int, foreground: Callable[[], int]) -> bool:
        """A key is about to send `signal` to the process group that `foreground` tells, 0 where it is not known.

        Returns:
            whether it means something to anybody there.
        """
        self._foreground = foreground
        self._pressed = signal
        self._image = processes.command_line(self._pid)
        heard = self._heard(signal)
        # who merely forks in this moment has no mind of its own about it, but what it has started before may have
        self._was_heard = heard and (not processes.forking(self._pid) or processes.heard_below(self._pid, signal))
        if heard or self._is_young():
            self._later(self._look_again, _KEY_AGAIN_S)
        else:
            self._look_again()
        return self._was_heard

    def _heard(self, signal: int) -> bool:
        if self._foreground() not in (0, self._pid):
            return True  # not for pid 1, so nothing is kept from anybody
        return processes.has_executed(self._pid) and processes.heard_in_group(self._pid, signal)

    def _look_again(self) -> None:
        """Who has heard the key may have no handler any more, but not because it has become another program."""
        answered = self._was_heard and processes.command_line(self._pid) == self._image
        if not processes.has_executed(self._pid):
            self._later(self._look_again, _KEY_AGAIN_S)
        elif not answered and not self._heard(self._pressed):
            self.key = self._pressed
            self._target.kill()

    def _is_young(self) -> bool:
        return time.monotonic() - self._launched < _YOUNG_S or not processes.has_executed(self._pid)

    # -- the reader of its stdout

    def reader_left(self) -> int:
        """Nobody reads the container's stdout any more: read it ourselves, to see whether somebody still writes.

        Returns:
            a descriptor that is readable then, for `written`; -1 where it is not to be looked at.
        """
        self._left_at = self._left_at or time.monotonic()
        if not processes.has_executed(self._pid) or processes.decides(self._pid, _PIPE):
            return -1
        try:
            self._reader = os.open("/proc/self/fd/1", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return -1  # a socket
        self._writes = processes.writes(self._pid)
        self._later(self._count_again, _COUNT_S)
        return self._reader

    def _count_again(self) -> None:
        """What it has written elsewhere meanwhile does not count: unless it is what has just come."""
        if self._reader >= 0:
            # in this order: a write is seen in the pipe before it is counted
            count = processes.writes(self._pid)
            if not readable(self._reader):
                self._writes = count
            self._later(self._count_again, _COUNT_S)

    def written(self) -> None:
        """Something was written: in a moment it is counted as well, for whoever it was."""
        self._later(self._judge, _JUDGE_S)

    def _judge(self) -> None:
        """The init, which SIGPIPE would have ended, or another one, which it will end at its next write."""
        if processes.writes(self._pid) > self._writes and not processes.decides(self._pid, _PIPE):
            self.unread = True
            self._target.kill()
        self.close()

    # -- its end

    def ended(self) -> None:
        """The init has ended: who ends in the very moment in which the reader leaves was told so by its write."""
        if self._left_at is not None and not self.unread:
            at_once = time.monotonic() - self._left_at < _AT_ONCE_S
            self.unread = not processes.decides(self._pid, _PIPE) and at_once
        self.close()

    def close(self) -> None:
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1
