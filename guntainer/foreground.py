"""One container in the foreground: what `guntainer run` does between its options and its exit code.

One process, one thread, no event loop and no fork helper: this process clones the container itself, from the same Plan
and with the same code as the helper. It then sleeps in poll(2) on the container's pidfd, on signals, and on the terminal
where there is one.
"""

from __future__ import annotations

import _signal
import os
import select

from guntainer import assembly, errors, faults, interrupts, planner, report, stopping
from guntainer.init import child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from guntainer.jobs.model import Job

_STOPPING = (_signal.SIGTERM, _signal.SIGHUP)
_FORWARDED = (_signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGQUIT, _signal.SIGCONT)
DRAIN_S = 2.0


class Foreground:
    """The container of one `run`."""

    def __init__(self, job: Job, tree: str, ground: assembly.Ground, *, terminal: bool, note: Callable[[str], None]):
        self._job = job
        self._tree = tree
        self._ground = ground
        self._terminal = terminal
        self._note = note
        self._faults = faults.FaultPipe()
        self._life = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._launches = child.Launches(self._faults.write_fd, self._life, parent=False)
        self._operations: tuple[Any, ...] = ()
        self._pid = 0
        self._pidfd = -1
        self._steps: Iterator[float] | None = None
        self._deadline: float | None = None
        self._step_at: float | None = None
        self._asked = 0
        self._timed_out = False
        self.layer = ""

    def run(self) -> report.Exit:
        """Launch, wait, stop on demand; the terminal and the signals are as before when this returns."""
        with _Signals() as signals:
            result = self._attempt(signals, planner.FULL, copy=False)
        self._faults.close()
        for fd in self._life:
            os.close(fd)
        return result

    def _attempt(self, signals: _Signals, isolation: str, *, copy: bool) -> report.Exit:
        try:
            return self._once(signals, isolation, copy=copy)
        except errors.SetupError as error:
            lower = assembly.next_rung(error, isolation, copy=copy)
            if lower is None:
                raise
            isolation, copy, why = lower
            self._note(why)
            return self._attempt(signals, isolation, copy=copy)

    def _once(self, signals: _Signals, isolation: str, *, copy: bool) -> report.Exit:
        fds: list[int] = []
        channel = None
        stdio = planner.Stdio()
        tty = None
        try:
            if self._terminal:
                import _socket

                from guntainer import terminal

                ours, theirs = _socket.socketpair()
                channel = ours
                fds.append(theirs.detach())
                tty = terminal.Terminal()
                stdio = planner.Stdio(terminal=0, rows=tty.rows, columns=tty.columns)
            init = ""
            if self._job.init:
                path = assembly.find_init()
                if path is None:
                    init = "reaper"
                else:
                    init = str(len(fds))
                    fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
            made = assembly.assemble(
                self._job,
                self._tree,
                self._ground,
                stdio,
                terminal=self._terminal,
                term=os.environ.get("TERM") or "xterm",
                init=init,
                isolation=isolation,
                copied=self._copied(signals) if copy else "",
            )
            self.layer = made.layer
            self._launch(made, fds)
        finally:
            for fd in fds:
                os.close(fd)
        try:
            if tty is not None and channel is not None:
                with tty.attached(channel):
                    status = self._wait(signals, tty)
            else:
                status = self._wait(signals, None)
        finally:
            self._end()
        return self._exit(status)

    def _copied(self, signals: _Signals) -> str:
        """A layer with a copy of the rootfs, where overlayfs is refused; a signal that would stop the container ends it."""
        from guntainer.copying import Copying

        copying = Copying(self._job, self._tree, self._ground)
        poll = select.poll()
        poll.register(copying.pidfd, select.POLLIN)
        poll.register(signals.fd, select.POLLIN)
        while True:
            for fd, _events in poll.poll():
                if fd == copying.pidfd:
                    return copying.finish()
                for number in signals.take():
                    if number in interrupts.SIGNALS:
                        copying.stop()
                        raise interrupts.Interrupted(number)

    def _launch(self, made: assembly.Assembly, fds: list[int]) -> None:
        self._operations = made.plan[1:3]
        try:
            self._pid, self._pidfd = self._launches.launch(made.data, fds, 1)
        except OSError as error:
            raise faults.clone_error(error.errno or 0) from None
        if self._job.timeout_s is not None:
            self._deadline = _now() + self._job.timeout_s

    def _end(self) -> None:
        """Whatever happened: no process is left, and the pidfd is closed."""
        if self._pidfd >= 0:
            try:
                stopping.kill(self._pidfd)
                os.waitpid(self._pid, 0)
            except ChildProcessError:
                pass  # reaped already
            os.close(self._pidfd)
            self._pidfd = -1

    def _wait(self, signals: _Signals, tty: Any) -> int:
        """Sleep until the container's init has ended; returns its wait status."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        poll.register(signals.fd, select.POLLIN)
        while True:
            if tty is not None:
                tty.register(poll)
            for fd, _events in poll.poll(self._patience_ms()):
                if fd == self._pidfd:
                    if tty is not None:
                        tty.drain()
                    return os.waitpid(self._pid, 0)[1]
                if fd == signals.fd:
                    for number in signals.take():
                        self._signal(number, tty)
                elif tty is not None:
                    tty.ready(fd, poll)
            self._clock()

    def _patience_ms(self) -> int | None:
        times = [at for at in (self._deadline, self._step_at) if at is not None]
        return max(0, int((min(times) - _now()) * 1000) + 1) if times else None

    def _clock(self) -> None:
        now = _now()
        if self._deadline is not None and now >= self._deadline:
            self._deadline = None
            self._timed_out = True
            self._stop(self._job.stop_signal)
        if self._step_at is not None and now >= self._step_at:
            self._step()

    def _signal(self, number: int, tty: Any) -> None:
        if number == _signal.SIGWINCH:
            if tty is not None:
                tty.resize()
        elif number == _signal.SIGINT:
            if self._asked:
                stopping.kill(self._pidfd)  # twice: killed
            else:
                self._asked = number
                self._stop(number)
        elif number in _STOPPING:
            if not self._asked:
                self._asked = number
                self._stop(self._job.stop_signal)
        else:
            stopping.send(self._pidfd, number)

    def _stop(self, number: int) -> None:
        if self._steps is None:
            self._steps = stopping.stop(self._pid, self._pidfd, number, self._job.stop_timeout_s)
            self._step()

    def _step(self) -> None:
        wait_s = next(self._steps, None) if self._steps is not None else None
        self._step_at = _now() + wait_s if wait_s is not None else None

    def _exit(self, status: int) -> report.Exit:
        result = faults.exit_of(status, self._faults, 1, self._operations)
        if result.reason == report.SETUP:
            raise result.error or errors.GuntainerError(result.message)
        if self._timed_out:
            return report.timed_out(self._job.timeout_s or 0)
        if self._asked and result.signal == stopping.KILL:
            # 128+n of what we were asked with, as sh(1)
            return report.Exit(
                reason=report.CANCELLED, code=errors.SIGNAL_BASE + self._asked, message=report.signal_name(self._asked)
            )
        return result


def _now() -> float:
    import time

    return time.monotonic()


class _Signals:
    """Signals as bytes in a pipe: signal.set_wakeup_fd, for a poll loop. Restores what was there."""

    def __enter__(self) -> _Signals:
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old_fd = _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old = {}
        for number in (_signal.SIGINT, *_STOPPING, *_FORWARDED, _signal.SIGWINCH):
            if _signal.getsignal(number) is _signal.SIG_IGN and number == _signal.SIGHUP:
                continue  # nohup(1)
            self._old[number] = _signal.signal(number, lambda *_: None)
        return self

    def take(self) -> bytes:
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(self._old_fd)
        os.close(self.fd)
        os.close(self._write)
