"""One container in the foreground: what `guntainer run` does between its options and its exit code.

One process, one thread, no event loop and no fork helper: this process clones the container itself, from the same Plan
and with the same code as the helper. What the launch needs is opened, the container is waited for (see `waiting`), and
everything is closed again; where the host refuses something, once more on the next rung of the ladder.
"""

from __future__ import annotations

import os
import select

from guntainer import assembly, errors, faults, interrupts, planner, report, stopping, waiting
from guntainer.handover import Handover
from guntainer.init import child, guard

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.cgroups.usage import Usage
    from guntainer.interrupts import SignalPipe
    from guntainer.jobs.model import Job
    from guntainer.ladder import Rung
    from guntainer.network.link import Link
    from guntainer.rootfs import Rootfs
    from guntainer.terminal import Terminal

_LAUNCH_ID = 1  # no others go through this fault pipe at the same time


class Foreground:
    """The container of one `run`.

    Args:
        descend: told of a lower rung before it is tried; it may raise.
        note: told what the user must know, and how grave it is.
    """

    def __init__(
        self,
        job: Job,
        rootfs: Rootfs,
        ground: assembly.Ground,
        *,
        terminal: bool,
        descend: Callable[[Rung], None],
        note: Callable[..., None] = lambda *_: None,
    ):
        self._job = job
        self._rootfs = rootfs
        self._ground = ground
        self._terminal = terminal
        self._descend = descend
        self._note = note
        self._faults = faults.FaultPipe()
        self._life = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._launches = child.Launches(self._faults.write_fd, self._life, parent=False)
        self.usage: Usage | None = None
        """What the container has used; of one with limits."""
        self.layer = ""
        self.asked = 0
        """The signal for which it was asked to end, whatever came of that."""

    def run(self) -> report.Exit:
        """Launch, wait, stop on demand; the terminal and the signals are as before when this returns."""
        with interrupts.SignalPipe(waiting.SIGNALS) as signals:
            result = self._attempt(signals, planner.FULL, copy=False)
        self._faults.close()
        for fd in self._life:
            os.close(fd)
        return result

    def _attempt(self, signals: SignalPipe, isolation: str, *, copy: bool) -> report.Exit:
        wait = waiting.Wait(self._job, signals)
        try:
            return self._once(wait, signals, isolation, copy=copy)
        except (errors.SetupError, errors.NamespaceRefused) as error:
            from guntainer import ladder

            lower = ladder.next_rung(error, isolation, copy=copy)
            if lower is None:
                raise
            if wait.asked:
                raise interrupts.Interrupted(wait.asked) from None
            self._descend(lower)
            return self._attempt(signals, lower.isolation, copy=lower.copy)

    def _once(self, wait: waiting.Wait, signals: SignalPipe, isolation: str, *, copy: bool) -> report.Exit:
        streams: list[int] = []
        tty: Terminal | None = None
        given: Handover | None = None
        guarded: guard.Guard | None = None
        try:
            copied = self._copied(signals) if copy else None
            if self._terminal:
                tty = _open_terminal(wait, streams)
            given = Handover(self._job, self._ground, streams, self._warn)
            given.open()
            made = self._assemble(given, tty, isolation, copied)
            if tty is not None:
                tty.enter(signals.ending)
            target = self._launch(made, given)
            wait.launched(target)
            guarded = self._guard(target)
            _close(streams)
            given.close()
            status = wait.until_end(tty, given.link)
            if given.link is not None and not wait.stopped:
                _pass_on(given.link)
        finally:
            _close(streams)
            wait.close()
            if guarded is not None:
                guarded.close()
            if given is not None:
                self._take_back(given)
            if tty is not None:
                tty.close()
        return self._exit(wait, status, made)

    def _warn(self, text: str) -> None:
        self._note(text, "warning")

    def _assemble(
        self, given: Handover, tty: Terminal | None, isolation: str, copied: assembly.Copied | None
    ) -> assembly.Assembly:
        if given.link is not None:
            for text in given.link.published():
                self._note(text)
        stdio = planner.Stdio() if tty is None else planner.Stdio(terminal=0, rows=tty.rows, columns=tty.columns)
        term = os.environ.get("TERM") or "xterm"
        made = given.assemble(
            self._rootfs, stdio, isolation=isolation, copied=copied, terminal=self._terminal, term=term
        )
        self.layer = made.layer
        given.limit(made)
        if given.cgroup is not None:
            for text in given.cgroup.notes:
                self._warn(text)
        return made

    def _copied(self, signals: SignalPipe) -> assembly.Copied:
        """A layer with a copy of the rootfs, where overlayfs is refused; a signal that would stop the container ends it."""
        from guntainer.copying import Copying

        copying = Copying(self._job, self._rootfs, self._ground)
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

    def _launch(self, made: assembly.Assembly, given: Handover) -> stopping.Target:
        try:
            target = stopping.Target(*self._launches.launch(made.data, given.fds, _LAUNCH_ID))
        except OSError as error:
            raise faults.clone_error(error.errno or 0, error.filename or "") from None
        target.cgroup = given.cgroup
        return target

    def _guard(self, target: stopping.Target) -> guard.Guard | None:
        """Who kills it when this process is killed; without a pid namespace its own init does."""
        if target.mounts >= 0:
            return None
        try:
            return guard.Guard(target.pidfd, self._life[0])
        except OSError as error:
            raise faults.clone_error(error.errno or 0, "") from None

    def _take_back(self, given: Handover) -> None:
        """What was handed over, when nobody uses it any more."""
        given.close()
        if given.cgroup is not None:
            self.usage = given.cgroup.usage()
            given.cgroup.remove()
        if given.link is not None:
            given.link.close()

    def _exit(self, wait: waiting.Wait, status: int, made: assembly.Assembly) -> report.Exit:
        self.asked = wait.asked
        result = faults.exit_of(status, self._faults, _LAUNCH_ID, made.plan[1:4])
        if result.reason == report.SETUP:
            raise result.error or errors.GuntainerError(result.message)
        ended_here = wait.verdict(result)
        if ended_here is not None:
            return ended_here
        if self.usage is not None:
            from guntainer.cgroups.usage import verdict

            return verdict(result, self.usage, self._job.limits)
        return result


def _open_terminal(wait: waiting.Wait, streams: list[int]) -> Terminal:
    """The caller's terminal; the socket through which the container's comes is added to `streams`."""
    import _socket

    from guntainer.terminal import Terminal

    ours, theirs = _socket.socketpair()
    streams.append(theirs.detach())
    return Terminal(ours, wait.typed, wait.ask, wait.later)


def _pass_on(link: Link) -> None:
    """What the command has sent last is passed on."""
    import time

    for wait_s in link.passing_on():
        time.sleep(wait_s)


def _close(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
