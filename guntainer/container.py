"""One container from plan to exit: launch, wait, stop, kill, clean up. Clean-up is written here and nowhere else.

Whatever happens to the task that runs it, a container is dead, waited for, drained and removed before `run` returns:
ask, wait, force; then the pipes, the layer; shielded from cancellation, each with a bound.
"""

from __future__ import annotations

import asyncio
import os
import time

import anyio

from guntainer import assembly, errors, faults, ladder, planner, report, runfolder, space, stopping
from guntainer.handover import Handover
from guntainer.jobs.model import NO_LIMITS
from guntainer.offloading import in_thread
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from guntainer.assembly import Copied
    from guntainer.belongings import Belongings
    from guntainer.cgroups.cgroup import Cgroup
    from guntainer.cgroups.usage import Usage
    from guntainer.jobs.model import Job
    from guntainer.launcher.client import Child, Launcher
    from guntainer.network.attached import Attached
    from guntainer.rootfs import Rootfs
    from guntainer.stdio import Stdio


_UNKNOWN_STATUS = 9  # as if killed: wait(2)


class Outcome(Value):
    """What one container came to."""

    exit: report.Exit
    usage: Any = None
    """struct rusage of the container's init and all that it waited for, as getrusage(2) gives it."""
    used: Usage | None = None
    """The same as its control group counts it, where it has one."""
    limits: tuple[tuple[str, str], ...] = ()
    scratch: str = ""
    userns: str = ""
    isolation: str = planner.FULL
    notes: tuple[str, ...] = ()
    artifacts: tuple[report.Artifact, ...] = ()


class Left(Value):
    """What a container that failed by itself has left, as long as somebody looks at it."""

    job: Job
    """With all that was mounted, and with its variables."""
    rootfs: Rootfs
    ground: assembly.Ground
    launcher: Launcher
    joined: bool
    layer: str
    """The folder of its writable layer."""
    copied: Copied | None
    """The same as a copy of the rootfs, where it is one."""
    isolation: str
    exit: report.Exit


class Container:
    """One container of a supervisor.

    Args:
        open_stdio: makes its streams; called again where a lower rung of the ladder is tried.
        note: told of what the user must know while it runs: a port that was chosen.
        joined: the launcher is in its network already, see `services`.
        after: called when it has failed by itself, before its layer is given back; not of one in memory.
        copied: a copy of the rootfs that it runs on, instead of one of its own.
        terminal: TERM, where its streams are a terminal.
    """

    def __init__(
        self,
        job: Job,
        rootfs: Rootfs,
        ground: assembly.Ground,
        launcher: Launcher,
        open_stdio: Callable[[], Stdio],
        note: Callable[[str], None] = lambda _text: None,
        *,
        joined: bool = False,
        after: Callable[[Left], Awaitable[None]] | None = None,
        copied: Copied | None = None,
        terminal: str = "",
    ) -> None:
        self._job = job
        self._rootfs = rootfs
        self._ground = ground
        self._launcher = launcher
        self._open_stdio = open_stdio
        self._note = note
        self._joined = joined
        self._after = after
        self._copy = copied
        self._terminal = terminal
        self._left: Left | None = None
        self._plan: planner.Plan | None = None
        self._network: Attached | None = None
        self._child: Child | None = None
        self._ended: asyncio.Future[tuple[int, Any]] | None = None
        self._killed = False
        self._belongings: Belongings | None = None
        self.notes: tuple[str, ...] = ()
        """Of one that was stopped from outside: what it got otherwise than asked for, which its outcome would have said."""
        self.running_ns = 0
        """When its command was executed, by the monotonic clock; 0: not yet."""
        self.ended_ns = 0
        """When it was gone, where that was not just now."""

    def __repr__(self) -> str:
        return f"Container({self._job.id!r}, {self._child!r})"

    async def run(self, isolation: str = planner.FULL, *, copy: bool = False, require_full: bool = False) -> Outcome:
        """Run to the end, on the highest rung of the ladder that the host lets us reach.

        Raises:
            Exhausted: there is no room for one more process, namespace or descriptor.
            GuntainerError: it could not be launched, or, with `require_full`, only on a lower rung.
            CancelledError: after it was stopped and cleaned up.
        """
        notes: tuple[str, ...] = ()
        while True:
            try:
                outcome = await self._attempt(isolation, copy=copy)
            except errors.NamespaceRefused as refused:
                outcome = Outcome(exit=report.setup_failed(refused), isolation=isolation)
            except asyncio.CancelledError:
                self.notes = (*notes, *self.notes)
                raise
            error = outcome.exit.error
            if self._belongings is not None and (note := self._belongings.refused(error)):
                notes = (*notes, note)
                continue
            lower = ladder.next_rung(error, isolation, copy=copy) if error is not None else None
            if lower is None:
                return outcome.replace(notes=(*notes, *outcome.notes))
            isolation, copy = lower.isolation, lower.copy
            if require_full:
                ladder.refuse(lower)
            notes = (*notes, lower.note)

    async def _attempt(self, isolation: str, *, copy: bool) -> Outcome:
        shared = self._ground.belongings if self._job.has_belongings else None
        if shared is None:
            return await self._looked_at(self._job, isolation, copy=copy)
        from guntainer.belongings import Belongings

        self._belongings = Belongings(self._job, shared)
        try:
            job = await self._belongings.open(copy=copy)
            return await self._looked_at(job, isolation, copy=copy)
        finally:
            await self._belongings.close()

    async def _looked_at(self, job: Job, isolation: str, *, copy: bool) -> Outcome:
        """Launched; what it leaves is shown to whoever wants to see it."""
        try:
            outcome = await self._launched(job, isolation, copy=copy)
            if self._after is not None and self._left is not None and not self._killed:
                self.ended_ns = time.monotonic_ns()
                try:
                    await self._after(self._left)
                except asyncio.CancelledError:
                    pass  # it has come to its end before: that is what it came to
            return outcome
        finally:
            left, self._left = self._left, None
            if left is not None:
                await self._give_back(left.layer)

    async def _launched(self, job: Job, isolation: str, *, copy: bool) -> Outcome:
        stdio = self._open_stdio()
        layer = ""
        network_notes: list[str] = []
        given = Handover(job, self._ground, stdio.fds, network_notes.append, joined=self._joined)
        try:
            copied = self._copy or (await self._copied() if copy else None)
            layer = copied.layer if copied else ""
            given.open()
            if given.link is not None:
                from guntainer.network.attached import Attached

                self._network = Attached(given.link, self.kill)
            if self._belongings is not None:
                self._belongings.hand_over(given)
            made = given.assemble(
                self._rootfs,
                stdio.plan,
                isolation=isolation,
                copied=copied,
                terminal=bool(self._terminal),
                term=self._terminal or "xterm",
            )
            layer = made.layer
            given.limit(made)
            self._child = await self._launcher.launch(made.plan, given.fds, data=made.data)
            self.running_ns = time.monotonic_ns()
            self._child.target.cgroup = given.cgroup
            self._plan = made.plan
            stdio.launched()
            exit_, usage = await self._live(self._child, stdio)
            if self._network is not None:
                if self._network.error is not None:
                    raise self._network.error
                if not self._killed and exit_.reason in (report.EXIT, report.SIGNAL):
                    await self._network.passed_on()
            notes = (*network_notes, *((stdio.cut,) if stdio.cut else ()))
            if exit_.error is not None:
                space.explain(exit_.error, layer)
                exit_ = report.setup_failed(exit_.error)
            elif not exit_.ok and (text := space.note(layer)):
                notes = (*notes, text)
            outcome = Outcome(
                exit=exit_,
                usage=usage,
                scratch=made.scratch,
                userns=self._ground.ids.kind,
                isolation=isolation,
                notes=notes,
            )
            if self._job.limits != NO_LIMITS:
                outcome = self._limited(outcome, given.cgroup)
            if self._after is not None and layer and not outcome.exit.ok and outcome.exit.error is None:
                self._left = Left(
                    job=job,
                    rootfs=self._rootfs,
                    ground=self._ground,
                    launcher=self._launcher,
                    joined=self._joined,
                    layer=layer,
                    copied=copied,
                    isolation=isolation,
                    exit=outcome.exit,
                )
            if self._belongings is None or outcome.exit.error is not None:
                return outcome
            return await self._belongings.taken(outcome, made.spec["process"]["cwd"])
        except asyncio.CancelledError:
            self.notes = (*self._ungranted(given.cgroup), *network_notes, *((stdio.cut,) if stdio.cut else ()))
            raise
        finally:
            await self._take_back(given)
            stdio.close()
            if layer and self._left is None:
                await self._give_back(layer)

    async def _copied(self) -> Copied:
        """A layer with a copy of the rootfs."""
        from guntainer.copying import Copying

        copying = Copying(self._job, self._rootfs, self._ground)
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(copying.pidfd, ended.set)
        try:
            try:
                await ended.wait()
            finally:
                loop.remove_reader(copying.pidfd)
            return copying.finish()
        except BaseException:
            copying.stop()
            await self._give_back(copying.layer)
            raise

    def _limited(self, outcome: Outcome, cgroup: Cgroup | None) -> Outcome:
        """What its limits have done to it, and which of them are not in force."""
        from guntainer.cgroups.usage import verdict

        outcome = outcome.replace(notes=(*self._ungranted(cgroup), *outcome.notes))
        if cgroup is None:
            return outcome
        used = cgroup.usage()
        return outcome.replace(
            exit=verdict(outcome.exit, used, self._job.limits),
            used=used,
            limits=tuple(cgroup.limits.items()),
        )

    def _ungranted(self, cgroup: Cgroup | None) -> tuple[str, ...]:
        """Which of its limits are not in force, and why."""
        if self._job.limits == NO_LIMITS:
            return ()
        granted = self._ground.granted(self._job.limits).notes
        return (*granted, *cgroup.notes) if cgroup is not None else tuple(granted)

    async def _take_back(self, given: Handover) -> None:
        """What was handed over, when nobody uses it any more."""
        given.close()
        network, self._network = self._network, None
        if network is not None:
            with anyio.CancelScope(shield=True):
                await network.close()
        elif given.link is not None:
            given.link.close()  # nobody has got it
        if given.cgroup is not None and not given.cgroup.remove_nowait():
            with anyio.CancelScope(shield=True):
                await in_thread(given.cgroup.remove)

    async def _live(self, child: Child, stdio: Stdio) -> tuple[report.Exit, Any]:
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        loop.add_reader(child.pidfd, self._reap, child)
        if self._network is not None:
            self._network.launched(child.pid)
            for text in self._network.link.published():
                self._note(text)
        timed_out = False
        try:
            if self._killed:
                child.target.kill()
            if self._job.timeout_s is None:
                await asyncio.shield(self._ended)
            else:
                with anyio.move_on_after(self._job.timeout_s) as scope:
                    await asyncio.shield(self._ended)
                timed_out = scope.cancelled_caught
        finally:
            with anyio.CancelScope(shield=True):
                if not self._ended.done():
                    await self._stop()
                child.target.sweep()
                self._launcher.forget(child)
                await stdio.drain()
        status, usage = self._ended.result()
        exit_ = faults.exit_of(status, child.zygote.faults, child.launch_id, child.operations)
        if timed_out and exit_.reason != report.SETUP:
            exit_ = report.timed_out(self._job.timeout_s or 0)
        return exit_, usage

    def _reap(self, child: Child) -> None:
        """The pidfd is readable: the init has ended. wait4 rather than waitid, for the usage."""
        asyncio.get_running_loop().remove_reader(child.pidfd)
        assert self._ended is not None
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except ChildProcessError:
            # somebody else of this process has waited for it: how it ended is not known, but that it has
            status, usage = _UNKNOWN_STATUS, None
        self._ended.set_result((status, usage))

    async def _stop(self) -> None:
        """Ask, wait, force; returns when the container's init has been reaped."""
        assert self._child is not None and self._ended is not None
        steps = stopping.stop(self._child.target, self._job.asks_with, self._job.stop_timeout_s)
        for wait_s in steps:
            done, _ = await asyncio.wait({self._ended}, timeout=wait_s)
            if done or self._killed:
                break
        if not self._ended.done():
            self._child.target.kill()
        await asyncio.wait({self._ended})

    @property
    def running(self) -> tuple[Child, planner.Plan] | None:
        """What has been launched, and by which plan; None before that and after its end."""
        if self._child is None or self._plan is None or self._ended is None or self._ended.done():
            return None
        return self._child, self._plan

    def kill(self) -> None:
        """Kill at once, whatever it is doing."""
        self._killed = True
        if self._belongings is not None:
            self._belongings.kill()
        if self._child is not None and self._ended is not None and not self._ended.done():
            self._child.target.kill()

    async def _give_back(self, layer: str) -> None:
        """The writable layer: at once where nothing was written, else removed in a thread."""
        with anyio.CancelScope(shield=True):
            if not self._ground.run().give_back(layer):
                await in_thread(runfolder.remove_layer, layer)
