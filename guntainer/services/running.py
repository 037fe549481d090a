"""The services of one job: started before its command, stopped after it, new ones for each attempt.

The job's own container is dead when they are asked to end. Each is asked, waited for, killed as any container is; nothing of
them is left when `Services.run` returns, however it does.
"""

from __future__ import annotations

import os

import anyio

from guntainer import errors
from guntainer.container import Container, Outcome
from guntainer.services.pod import Pod
from guntainer.services.readiness import Readiness, tail
from guntainer.stdio import Stdio
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from anyio.abc import TaskGroup

    from guntainer.assembly import Ground
    from guntainer.jobs.model import Job, Service
    from guntainer.launcher.client import Launcher
    from guntainer.rootfs import Rootfs
    from guntainer.stdio import Opener

_LINES = 5
"""Of a service's log, in an error."""


class Surroundings(Value):
    """What the services of a job have from its supervisor."""

    ground: Ground
    launcher: Launcher
    rootfs: Callable[[Job], Awaitable[Rootfs]]
    live: Callable[[Job, Container], Awaitable[Outcome]]
    """Runs a container to its end."""
    log: Callable[[str, str], tuple[str, bool]]
    """(job's id, service's name) → a path for its log, and whether that is kept."""
    opener: Opener
    """Opens these."""
    note: Callable[[str], None]


def settled(job: Job, note: Callable[[str], None]) -> Job:
    """A job with services as it is run: in which network, and with their names.

    Args:
        note: told where it gets less than usual.
    """
    network = _network(note) if job.network == "auto" else job.network
    if network == "host":
        note('services of jobs with network "host" listen on the host itself: two of them can not have the same port')
    names = (*((service.name, "127.0.0.1") for service in job.services), *job.add_hosts)

    def joined(service: Service) -> Service:
        own = service.job.replace(network=network, dns=job.dns, add_hosts=(*names, *service.job.add_hosts))
        return service.replace(job=own)

    return job.replace(network=network, add_hosts=names, services=tuple(joined(one) for one in job.services))


def _network(note: Callable[[str], None]) -> str:
    """A private one where it can be had here."""
    from guntainer.network import tools

    try:
        tools.require()
    except errors.Exhausted:
        pass  # that may be over when it is needed
    except errors.HostError as error:
        note(f"jobs with services have no network but their own lo: {error.message}")
        return "none"
    return "private"


class Services:
    """Those of one job, which `settled` has settled.

    Args:
        rootfs: the job's own.
    """

    def __init__(self, job: Job, rootfs: Rootfs, around: Surroundings) -> None:
        self._job = job
        self._rootfs = rootfs
        self._around = around
        self._changed = anyio.Event()
        self._all: list[_Running] = []
        self.notes: list[str] = []
        """What has happened to them while the job ran."""
        self.lacks: list[str] = []
        """What each has got otherwise than asked for, when all have ended."""

    async def run(self, command: Callable[[Pod], Awaitable[Outcome]]) -> Outcome:
        """Start all, wait until they are ready, run the job's own container by `command`, stop them.

        Raises:
            Exhausted: there is no room for one more process, namespace or descriptor.
            GuntainerError: of `command`; or one of them is not ready in time, ends before, can not be started.
        """
        failed: Exception | None = None
        outcome: Outcome | None = None
        job = self._rootfs.job(self._job)
        ending = anyio.CancelScope()
        try:
            with ending:
                async with (
                    Pod(job, self._around.ground, self._around.launcher, self._tell_user) as pod,
                    anyio.create_task_group() as tasks,
                ):
                    try:
                        self._start(pod, tasks)
                        await self._until_ready()
                        outcome = await command(pod)
                    except Exception as error:  # a task group would wrap it
                        failed = error
                    finally:
                        # what cancels the job now changes nothing any more: they are asked to end already
                        ending.shield = True
                        self.notes += pod.notes
                        self._stop()
            self.lacks = [f"service {one.name}: {note}" for one in self._all for note in one.lacks]
        finally:
            for one in self._all:
                one.remove_log()
        if failed is not None or outcome is None:
            raise failed or AssertionError("neither an outcome nor an error")
        return outcome

    def _start(self, pod: Pod, tasks: TaskGroup) -> None:
        for service in self._job.services:
            self._all.append(_Running(self._job, service, pod, self._around, self._tell))
            tasks.start_soon(self._all[-1].live)

    def _tell_user(self, text: str) -> None:
        self._around.note(f"{self._job.id}: {text}")

    def _tell(self) -> None:
        self._changed.set()

    async def _until_ready(self) -> None:
        while True:
            for one in self._all:
                one.check()
            if all(one.ready for one in self._all):
                return
            self._changed = anyio.Event()
            await self._changed.wait()

    def _stop(self) -> None:
        for one in self._all:
            if one.ready and (how := one.end()):
                self.notes.append(f"service {one.name} ended ({how}) while the job ran")
            one.scope.cancel()


class _Running:
    """One service, of one attempt at a job.

    Args:
        tell: called when it is ready, and when it has ended.
    """

    def __init__(self, owner: Job, service: Service, pod: Pod, around: Surroundings, tell: Callable[[], None]) -> None:
        self.name = service.name
        self._service = service
        self._job = service.job.replace(id=f"{owner.id} · {service.name}")
        self._pod = pod
        self._around = around
        self._tell = tell
        belongings = around.ground.belongings
        self._secret = belongings.patterns(owner) if belongings is not None else None
        self._log, self._log_is_kept = around.log(owner.id, service.name)
        self._container: Container | None = None
        self.scope = anyio.CancelScope(shield=True)
        """What stops the job does not reach it: the job's own container ends before it."""
        self.ready = False
        self.outcome: Outcome | None = None
        self._error: Exception | None = None

    async def live(self) -> None:
        """Start it, see whether it is ready, wait until it has ended."""
        with self.scope:
            try:
                rootfs = await self._around.rootfs(self._job)
                await self._run(rootfs)
            except Exception as error:
                self._error = error
            finally:
                self._tell()

    async def _run(self, rootfs: Rootfs) -> None:
        around = self._around
        self._container = container = Container(
            rootfs.job(self._job),
            rootfs,
            around.ground,
            self._pod.launcher,
            lambda: Stdio(self._job.stdin, self._log, self._log, None, self._secret, around.opener),
            lambda text: around.note(f"{self._job.id}: {text}"),
            joined=self._pod.joined,
        )
        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch, container)
            try:
                self.outcome = await around.live(self._job, container)
            except Exception as error:
                failed = error
            tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed

    async def _watch(self, container: Container) -> None:
        """Until it is ready, or has had its time."""
        readiness = Readiness(self._service, self._pod, self._secret)
        limit_s = self._service.ready_timeout_s
        try:
            with anyio.move_on_after(limit_s) as limit:
                await readiness.wait(container)
                self.ready = True
            if limit.cancelled_caught:
                self._error = errors.HostError(
                    f"service {self.name} is not ready after {limit_s:g} s: {readiness.last}{self._last_lines()}"
                )
        except (errors.GuntainerError, OSError) as error:
            self._error = error
        self._tell()

    @property
    def lacks(self) -> tuple[str, ...]:
        """What it has got otherwise than asked for, when it has ended."""
        if self.outcome is not None:
            return self.outcome.notes
        return self._container.notes if self._container is not None else ()

    def end(self) -> str:
        """How it has ended by itself; "": it has not."""
        if self._error is not None:
            return str(self._in_words(self._error))
        return self.outcome.exit.describe() if self.outcome is not None else ""

    def check(self) -> None:
        """See whether something keeps it from becoming ready.

        Raises:
            Exhausted, HostError: it has failed.
        """
        if self._error is not None:
            raise self._in_words(self._error)
        if self.outcome is not None and not self.ready:
            exit_ = self.outcome.exit
            if exit_.error is not None:
                raise self._in_words(exit_.error)
            if not self._service.ready and self._service.ready_port is None:
                self.ready = True  # it was launched, however soon it has ended
                return
            raise errors.HostError(
                f"service {self.name} ended before it was ready: {exit_.describe()}{self._last_lines()}"
            )

    def _in_words(self, error: Exception) -> Exception:
        """The error, with the service's name in it."""
        if isinstance(error, errors.Exhausted):
            return error
        if isinstance(error, OSError):
            return errors.HostError(f"service {self.name}: {errors.describe_oserror(error)}")
        if not isinstance(error, errors.GuntainerError) or error.message.startswith(f"service {self.name} "):
            return error
        return errors.HostError(f"service {self.name}: {error.message}", hint=error.hint, probe=error.probe)

    def _last_lines(self) -> str:
        lines = tail(self._log, _LINES)
        return f"; its last lines: {lines}" if lines else "; it has printed nothing"

    def remove_log(self) -> None:
        """Where nobody has asked to keep it."""
        try:
            if not self._log_is_kept:
                os.unlink(self._log)
        except OSError:
            pass
