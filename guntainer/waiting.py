"""The wait for a container of `run`: poll(2) on its pidfd, on signals, on its terminal, its network and its reader.

It ends with the container, which is stopped here on demand. What a terminal sends for Ctrl-C, and SIGPIPE, do not reach a
command that is pid 1 and has no handler: they end the container, see `deaf`.
"""

from __future__ import annotations

import _signal
import os
import select
import stat

from guntainer import errors, report, stopping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guntainer.deaf import Deaf
    from guntainer.interrupts import SignalPipe
    from guntainer.jobs.model import Job
    from guntainer.network.link import Link
    from guntainer.terminal import Terminal

_STOPPING = (_signal.SIGTERM, _signal.SIGHUP)
_FORWARDED = (_signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGQUIT, _signal.SIGCONT)
_READER_AGAIN_S = 0.2  # longer than the judging of a write takes, see `deaf`
SIGNALS = (_signal.SIGINT, *_STOPPING, *_FORWARDED, _signal.SIGWINCH)
"""What a SignalPipe is to take for this."""


class Wait:
    """The wait for one container, from before its launch to its end.

    Args:
        signals: where SIGNALS come.
    """

    def __init__(self, job: Job, signals: SignalPipe) -> None:
        self._job = job
        self._signals = signals
        self._target = stopping.Target()
        self._tty: Terminal | None = None
        self._link: Link | None = None
        self._launched_at = 0.0
        self._poll = select.poll()
        self._timers: dict[Callable[[], None], float] = {}
        self._steps: Iterator[float] | None = None
        self._deaf: Deaf | None = None
        self._watched = False
        self._timed_out = False
        self.asked = 0
        """The signal for which it was asked to end."""

    @property
    def stopped(self) -> bool:
        """Whether it was begun to stop it, so that it has not ended by itself."""
        return self._steps is not None

    def later(self, due: Callable[[], None], seconds: float) -> None:
        """Call `due` after so long; the time that was set for it before does not count any more."""
        self._timers[due] = _now() + seconds

    def launched(self, target: stopping.Target) -> None:
        """It has been cloned; `close` is to be called."""
        self._target = target
        self._launched_at = _now()
        if self._job.timeout_s is not None:
            self.later(self._expire, self._job.timeout_s)

    def until_end(self, tty: Terminal | None, link: Link | None) -> int:
        """Sleep until the container's init has ended; returns its wait status."""
        self._tty, self._link = tty, link
        self._begin()
        self._take()
        while True:
            if self._tty is not None:
                self._tty.register(self._poll)
            for fd, events in self._poll.poll(self._patience_ms()):
                if fd == self._target.pidfd:
                    return self._reap()
                if self._link is not None and self._link.owns(fd):
                    self._link.ready(fd)
                    break  # what it has closed must not be looked at
                self._ready(fd, events)
            self._clock()

    def _begin(self) -> None:
        poll = self._poll
        poll.register(self._target.pidfd, select.POLLIN)
        poll.register(self._signals.fd, select.POLLIN)
        self._watched = self._tty is None and self._is_first and _is_pipe(1)
        if self._watched:
            poll.register(1, 0)  # POLLERR is always told
        if self._link is not None:
            self._link.launched(self._target.pid, lambda fd: poll.register(fd, select.POLLIN), poll.unregister)
            self.later(self._expect, self._link.patience_s)

    def _ready(self, fd: int, events: int) -> None:
        if fd == self._signals.fd:
            self._take()
        elif self._tty is not None:
            self._tty.ready(fd, self._poll)
        elif fd == 1:
            self._poll.unregister(fd)  # it would be told for ever
            if _reader_left(fd, events):
                self._read_ourselves()
        else:
            self._poll.unregister(fd)
            self._ears().written()
            self.later(self._read_ourselves, _READER_AGAIN_S)

    def _reap(self) -> int:
        """The init has ended: take what it has left."""
        if self._tty is not None:
            self._tty.drain()
        elif self._watched:
            self._watched = False
            poll = select.poll()
            poll.register(1, 0)
            if any(_reader_left(fd, events) for fd, events in poll.poll(0)):
                self._ears().reader_left()
        if self._deaf is not None:
            self._deaf.ended()
        return os.waitpid(self._target.pid, 0)[1]

    def close(self) -> None:
        """Whatever happened: no process is left, and what the launch has opened is closed."""
        target, self._target = self._target, stopping.Target()
        if target.pidfd >= 0:
            try:
                target.kill()
                os.waitpid(target.pid, 0)
            except ChildProcessError:
                pass  # reaped already
            os.close(target.pidfd)
        if target.mounts >= 0:
            os.close(target.mounts)
        if self._deaf is not None:
            self._deaf.close()

    def verdict(self, result: report.Exit) -> report.Exit | None:
        """What its end is called where it was ended from here; None where it has ended by itself."""
        if self._timed_out:
            return report.timed_out(self._job.timeout_s or 0)
        asked = self.asked or (self._deaf.key if self._deaf is not None else 0)
        if asked and result.signal == stopping.KILL:
            # 128+n of what we were asked with, as sh(1)
            return report.Exit(
                reason=report.CANCELLED, code=errors.SIGNAL_BASE + asked, message=report.signal_name(asked)
            )
        if self._deaf is not None and self._deaf.unread and not result.ok:
            return report.signalled(_signal.SIGPIPE)
        return None

    @property
    def _is_first(self) -> bool:
        """Whether the command is pid 1: any other gets SIGPIPE and SIGQUIT as everybody does."""
        return not self._job.init and self._target.mounts < 0

    # -- time

    def _patience_ms(self) -> int | None:
        return max(0, int((min(self._timers.values()) - _now()) * 1000) + 1) if self._timers else None

    def _clock(self) -> None:
        for due, at in list(self._timers.items()):
            if _now() >= at:
                del self._timers[due]
                due()

    def _expire(self) -> None:
        self._timed_out = True
        self._stop(self._job.asks_with)

    def _expect(self) -> None:
        """The network's tool has had its time."""
        if self._link is not None and self._link.rising:
            self._link.late()

    # -- what stops it

    def _take(self) -> None:
        numbers = self._signals.take()
        if _signal.SIGWINCH in numbers and self._tty is not None:
            self._tty.resize()  # once, however many there were
        for number in numbers:
            if number != _signal.SIGWINCH:
                self._signal(number)

    def _signal(self, number: int) -> None:
        if number == _signal.SIGINT:
            if self.asked:
                self._target.kill()  # twice: killed
            else:
                self.asked = number
                self._stop(number)
        elif number in _STOPPING:
            self.ask(number)
        else:
            if number == _signal.SIGCONT and self._tty is not None:
                self._tty.resume()
            elif number == _signal.SIGQUIT and self._is_first:
                self._quit()
            self._target.send(number)

    def _quit(self) -> None:
        """Ctrl-\\ where there is no pseudo-terminal, which would send it to all of the foreground, and end who has no handler.

        A command that catches it gets it alone, as any other that is forwarded.
        """
        from guntainer import processes

        caught = processes.catches(self._target.pid, _signal.SIGQUIT)
        # looked at before it is sent
        if self._ears().typed(_signal.SIGQUIT, int) and not caught:
            stopping.ask_others(self._target.pid, _signal.SIGQUIT)

    def ask(self, number: int) -> None:
        """Stop for a signal: one that has come, or SIGHUP or SIGPIPE because the caller's terminal is lost."""
        if not self.asked:
            self.asked = number
            self._stop(self._job.asks_with)

    def _stop(self, number: int) -> None:
        if self._steps is None:
            self._steps = stopping.stop(self._target, number, self._job.stop_timeout_s)
            self._step()

    def _step(self) -> None:
        wait_s = next(self._steps, None) if self._steps is not None else None
        if wait_s is not None:
            self.later(self._step, wait_s)

    # -- what the kernel keeps from it

    def _ears(self) -> Deaf:
        if self._deaf is None:
            from guntainer.deaf import Deaf  # few need it

            self._deaf = Deaf(self._target, self.later, self._launched_at)
        return self._deaf

    def typed(self, number: int) -> None:
        """A key of the caller's terminal is about to send a signal inside."""
        if self._tty is not None:
            self._ears().typed(number, self._tty.foreground_group)

    def _read_ourselves(self) -> None:
        """The reader of our stdout has left: what the command still writes there decides whether it goes on."""
        fd = self._ears().reader_left()
        if fd >= 0:
            self._poll.register(fd, select.POLLIN)
        else:
            self.later(self._read_ourselves, _READER_AGAIN_S)


def _is_pipe(fd: int) -> bool:
    """Whether somebody reads at the other end: a FIFO or a socket."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _reader_left(fd: int, events: int) -> bool:
    """Whether poll(2)'s events of a FIFO or a socket say that nobody reads there any more."""
    if events & select.POLLERR:
        return True
    return bool(events & select.POLLHUP) and stat.S_ISSOCK(os.fstat(fd).st_mode)


def _now() -> float:
    import time

    return time.monotonic()
