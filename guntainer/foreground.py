"""One container in the foreground: what `guntainer run` does between its options and its exit code.

One process, one thread, no event loop and no fork helper: this process clones the container itself, from the same Plan
and with the same code as the helper. It then sleeps in poll(2) on the container's pidfd, on signals, and on the terminal
where there is one, and waits for nothing else.

What a terminal sends for Ctrl-C, and SIGPIPE, do not reach a command that is pid 1 and has no handler: they end the container
here, see stopping.Deaf.
"""

from __future__ import annotations

import _signal
import os
import select
import stat

from guntainer import assembly, errors, faults, interrupts, planner, report, stopping
from guntainer.init import child

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from guntainer.cgroups.cgroup import Cgroup
    from guntainer.cgroups.usage import Usage
    from guntainer.jobs.model import Job
    from guntainer.ladder import Rung
    from guntainer.network.link import Link
    from guntainer.terminal import Terminal

_STOPPING = (_signal.SIGTERM, _signal.SIGHUP)
_FORWARDED = (_signal.SIGUSR1, _signal.SIGUSR2, _signal.SIGQUIT, _signal.SIGCONT)


class Foreground:
    """The container of one `run`."""

    def __init__(
        self,
        job: Job,
        tree: str,
        ground: assembly.Ground,
        *,
        terminal: bool,
        descend: Callable[[Rung], None],
        note: Callable[..., None] = lambda *_: None,
    ):
        self._job = job
        self._tree = tree
        self._ground = ground
        self._terminal = terminal
        self._descend = descend
        self._note = note
        self._link: Link | None = None
        self._faults = faults.FaultPipe()
        self._life = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._launches = child.Launches(self._faults.write_fd, self._life, parent=False)
        self._operations: tuple[tuple[object, ...], ...] = ()
        self._target = stopping.Target()
        self._steps: Iterator[float] | None = None
        self._timers: dict[Callable[[], None], float] = {}
        self._tty: Terminal | None = None
        self._deaf = stopping.Deaf(self._target, self._later)
        self._asked = 0
        self._timed_out = False
        self._watched = False
        self._poll = select.poll()
        self._cgroup: Cgroup | None = None
        self.usage: Usage | None = None
        """What the container has used; of one with limits."""
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
        except (errors.SetupError, errors.NamespaceRefused) as error:
            from guntainer import ladder

            lower = ladder.next_rung(error, isolation, copy=copy)
            if lower is None:
                raise
            self._descend(lower)
            return self._attempt(signals, lower.isolation, copy=lower.copy)

    def _once(self, signals: _Signals, isolation: str, *, copy: bool) -> report.Exit:
        fds: list[int] = []
        try:
            stdio = self._open_terminal(fds) if self._terminal else planner.Stdio()
            if self._job.network == "private":
                self._link = self._open_link()
            self._cgroup = self._ground.new_cgroup(self._job.limits)
            made = self._assemble(stdio, fds, isolation, copied=self._copied(signals) if copy else "")
            self.layer = made.layer
            if self._cgroup is not None:
                self._limit(self._cgroup, made)
            if self._tty is not None:
                self._tty.enter(signals.ending)
            self._launch(made, [*fds, *self._lent()])
            _close(fds)
            status = self._wait(signals)
            if self._link is not None and self._steps is None:
                self._pass_on(self._link)
        finally:
            _close(fds)
            self._end()
            if self._cgroup is not None:
                self.usage = self._cgroup.usage()
                self._cgroup.remove()
                self._cgroup = None
            if self._link is not None:
                self._link.close()
                self._link = None
            if self._tty is not None:
                self._tty.close()
                self._tty = None
        return self._exit(status)

    def _open_terminal(self, fds: list[int]) -> planner.Stdio:
        import _socket

        from guntainer import terminal

        ours, theirs = _socket.socketpair()
        fds.append(theirs.detach())
        self._tty = tty = terminal.Terminal(ours, self._typed, self._ask, self._later)
        return planner.Stdio(terminal=0, rows=tty.rows, columns=tty.columns)

    def _open_link(self) -> Link:
        from guntainer.network.link import Link

        link = Link(self._job, lambda: self._ground.run().path, lambda text: self._note(text, "warning"))
        for text in link.published():
            self._note(text)
        return link

    def _limit(self, cgroup: Cgroup, made: assembly.Assembly) -> None:
        cgroup.limit(made.spec["linux"]["resources"], best_effort=self._job.limits.best_effort)
        for text in cgroup.notes:
            self._note(text, "warning")

    def _lent(self) -> list[int]:
        """Descriptors that are handed over and stay somebody else's."""
        link = [] if self._link is None else [self._link.theirs]
        return link if self._cgroup is None else [*link, self._cgroup.fd]

    def _pass_on(self, link: Link) -> None:
        """What the command has sent last is passed on."""
        import time

        for wait_s in link.passing_on():
            time.sleep(wait_s)

    def _expect(self) -> None:
        """The network's tool has had its time."""
        if self._link is not None and self._link.rising:
            self._link.late()

    def _assemble(self, stdio: planner.Stdio, fds: list[int], isolation: str, *, copied: str) -> assembly.Assembly:
        init = ""
        if self._job.init:
            path = assembly.find_init()
            if path is None:
                init = "reaper"
            else:
                init = str(len(fds))
                fds.append(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        return assembly.assemble(
            self._job,
            self._tree,
            self._ground,
            stdio,
            terminal=self._terminal,
            term=os.environ.get("TERM") or "xterm",
            init=init,
            isolation=isolation,
            copied=copied,
            network=len(fds) if self._link is not None else -1,
            cgroup=len(fds) + (self._link is not None) if self._cgroup is not None else -1,
        )

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
        self._operations = made.plan[1:4]
        try:
            self._target = stopping.Target(*self._launches.launch(made.data, fds, 1))
        except OSError as error:
            raise faults.clone_error(error.errno or 0, error.filename or "") from None
        self._target.cgroup = self._cgroup
        self._deaf = stopping.Deaf(self._target, self._later)
        self._timers.clear()  # of an attempt before this one
        if self._job.timeout_s is not None:
            self._later(self._expire, self._job.timeout_s)

    def _end(self) -> None:
        """Whatever happened: no process is left, and the pidfd is closed."""
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

    def _wait(self, signals: _Signals) -> int:
        """Sleep until the container's init has ended; returns its wait status."""
        poll = self._poll = select.poll()
        poll.register(self._target.pidfd, select.POLLIN)
        poll.register(signals.fd, select.POLLIN)
        # Where the command is not pid 1, SIGPIPE reaches it.
        first = not self._job.init and self._target.mounts < 0
        self._watched = self._tty is None and first and _is_pipe(1)
        if self._watched:
            poll.register(1, 0)  # POLLERR is always told
        if self._link is not None:
            self._link.launched(self._target.pid, lambda fd: poll.register(fd, select.POLLIN), poll.unregister)
            self._later(self._expect, self._link.patience_s)
        self._take(signals)
        while True:
            if self._tty is not None:
                self._tty.register(poll)
            for fd, events in poll.poll(self._patience_ms()):
                if fd == self._target.pidfd:
                    return self._reap()
                if fd == signals.fd:
                    self._take(signals)
                elif self._link is not None and self._link.owns(fd):
                    self._link.ready(fd)
                    break  # what it has closed must not be looked at
                elif self._tty is not None:
                    self._tty.ready(fd, poll)
                elif fd == 1:
                    poll.unregister(fd)  # it would be told for ever
                    if _reader_left(fd, events):
                        self._read_ourselves()
                else:
                    poll.unregister(fd)
                    self._deaf.written()
                    self._later(self._read_ourselves, stopping.READER_AGAIN_S)
            self._clock()

    def _reap(self) -> int:
        """The init has ended: take what it has left."""
        if self._tty is not None:
            self._tty.drain()
        elif self._watched:
            self._watched = False
            poll = select.poll()
            poll.register(1, 0)
            if any(_reader_left(fd, events) for fd, events in poll.poll(0)):
                self._deaf.reader_left()
        self._deaf.ended()
        self._deaf.close()
        return os.waitpid(self._target.pid, 0)[1]

    def _later(self, due: Callable[[], None], seconds: float) -> None:
        """Call `due` after so long; the time that was set for it before does not count any more."""
        self._timers[due] = _now() + seconds

    def _patience_ms(self) -> int | None:
        return max(0, int((min(self._timers.values()) - _now()) * 1000) + 1) if self._timers else None

    def _clock(self) -> None:
        for due, at in list(self._timers.items()):
            if _now() >= at:
                del self._timers[due]
                due()

    def _expire(self) -> None:
        self._timed_out = True
        self._stop(self._job.stop_signal)

    def _take(self, signals: _Signals) -> None:
        numbers = signals.take()
        if _signal.SIGWINCH in numbers and self._tty is not None:
            self._tty.resize()  # once, however many there were
        for number in numbers:
            if number != _signal.SIGWINCH:
                self._signal(number)

    def _signal(self, number: int) -> None:
        if number == _signal.SIGINT:
            if self._asked:
                self._target.kill()  # twice: killed
            else:
                self._asked = number
                self._stop(number)
        elif number in _STOPPING:
            self._ask(number)
        else:
            if number == _signal.SIGCONT and self._tty is not None:
                self._tty.resume()
            self._target.send(number)

    def _ask(self, number: int) -> None:
        """Stop for a signal: one that has come, or SIGHUP or SIGPIPE because the caller's terminal is lost."""
        if not self._asked:
            self._asked = number
            self._stop(self._job.stop_signal)

    def _typed(self, number: int) -> None:
        """A key is about to send a signal inside."""
        if self._tty is not None:
            self._deaf.typed(number, self._tty.foreground_group)

    def _read_ourselves(self) -> None:
        """The reader of our stdout has left: what the command still writes there decides whether it goes on."""
        fd = self._deaf.reader_left()
        if fd >= 0:
            self._poll.register(fd, select.POLLIN)
        else:
            self._later(self._read_ourselves, stopping.READER_AGAIN_S)

    def _stop(self, number: int) -> None:
        if self._steps is None:
            self._steps = stopping.stop(self._target, number, self._job.stop_timeout_s)
            self._step()

    def _step(self) -> None:
        wait_s = next(self._steps, None) if self._steps is not None else None
        if wait_s is not None:
            self._later(self._step, wait_s)

    def _exit(self, status: int) -> report.Exit:
        result = faults.exit_of(status, self._faults, 1, self._operations)
        if result.reason == report.SETUP:
            raise result.error or errors.GuntainerError(result.message)
        if self._timed_out:
            return report.timed_out(self._job.timeout_s or 0)
        asked = self._asked or self._deaf.key
        if asked and result.signal == stopping.KILL:
            # 128+n of what we were asked with, as sh(1)
            return report.Exit(
                reason=report.CANCELLED, code=errors.SIGNAL_BASE + asked, message=report.signal_name(asked)
            )
        if self._deaf.unread and not result.ok:
            return report.signalled(_signal.SIGPIPE)
        if self.usage is not None:
            from guntainer.cgroups.usage import verdict

            return verdict(result, self.usage, self._job.limits)
        return result


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


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


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
            if _signal.getsignal(number) is _signal.SIG_IGN and number in interrupts.SIGNALS:
                continue  # nohup(1), and what a shell starts in the background
            self._old[number] = _signal.signal(number, lambda *_: None)
        self._seen = b""
        return self

    def take(self) -> bytes:
        """The numbers that have come, each as often as it has."""
        numbers, self._seen = self._seen + self._read(), b""
        return numbers

    def ending(self) -> bool:
        """Whether one has come that asks for the end; it can still be taken."""
        self._seen += self._read()
        return any(number in self._seen for number in (_signal.SIGINT, *_STOPPING))

    def _read(self) -> bytes:
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
