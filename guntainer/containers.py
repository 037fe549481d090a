"""The containers of one supervisor that are alive: launched, on the rung that the host allows, when there is room for one more."""

from __future__ import annotations

import time

import anyio

from guntainer import errors, planner
from guntainer.container import Container, Outcome
from guntainer.stdio import Stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from guntainer.assembly import Ground
    from guntainer.container import Left
    from guntainer.jobs.model import Job
    from guntainer.launcher.client import Launcher
    from guntainer.results import Results
    from guntainer.rootfs import Rootfs
    from guntainer.timing import Timing
    from guntainer.watcher import Watcher

    AfterFailure = Callable[[Job, Left, tuple[str, str]], Awaitable[None]]
    """Takes the job, what it has left, and the paths of its logs."""

_TAKEN_BACK_S = 1.0  # the kernel counts a namespace for a while after its last process has ended
_LOOK_AGAIN_S = 0.01


class Containers:
    """Those that live now.

    Args:
        note: told of what goes otherwise than asked for.
        prepared: gives the rootfs of a job's service.
        require_full: refuse lower rungs of the isolation ladder.
        after_failure: called when a job has failed by itself for the last time, before its layer is given back.
    """

    def __init__(
        self,
        ground: Ground,
        launcher: Launcher,
        watcher: Watcher,
        results: Results,
        note: Callable[[str], None],
        prepared: Callable[[Job], Awaitable[Rootfs]],
        *,
        require_full: bool,
        after_failure: AfterFailure | None = None,
    ) -> None:
        self._ground = ground
        self._launcher = launcher
        self._watcher = watcher
        self._results = results
        self._note = note
        self._prepared = prepared
        self._require_full = require_full
        self._after_failure = after_failure
        self._live: set[Container] = set()
        self._ended: anyio.Event | None = None
        """Set when the next container ends, where a job waits for that."""
        self._ended_at = 0.0
        self._isolation = planner.FULL
        self._copied: set[str] = set()
        """Kinds of scratch on which overlayfs is refused."""

    def __len__(self) -> int:
        return len(self._live)

    def kill(self) -> None:
        """Kill all, whatever they are doing."""
        for container in self._live:
            container.kill()

    async def run(self, job: Job, rootfs: Rootfs, timing: Timing) -> Outcome:
        """Run a job's command to its end; waits where there is no room for one more."""
        timing.started_at = time.time()
        timing.launched_ns = time.monotonic_ns()
        timing.stdout, timing.stderr = self._results.logs(job.id)
        self._watcher.started(job)
        try:
            while True:
                late_notes: list[str] = []
                try:
                    if job.services:
                        outcome = await self._beside_services(job, rootfs, timing, late_notes)
                    else:
                        outcome = await self._run(job, rootfs, timing, self._launcher)
                except errors.Exhausted as error:
                    await self._room(error)
                    continue
                self._note_rung(job, outcome)
                return outcome.replace(notes=(*outcome.notes, *late_notes)) if late_notes else outcome
        finally:
            changed = self._results.changed(job.id, timing.stdout, timing.stderr)
            if changed:
                with anyio.CancelScope(shield=True):
                    await self._results.restore(changed)

    async def _run(
        self, job: Job, rootfs: Rootfs, timing: Timing, launcher: Launcher, *, joined: bool = False
    ) -> Outcome:
        container = Container(
            rootfs.job(job),
            rootfs,
            self._ground,
            launcher,
            lambda: self._stdio(job, timing),
            lambda text: self._note(f"{job.id}: {text}"),
            joined=joined,
            after=self._after(job, timing),
        )
        try:
            return await self._lived(job, container)
        finally:
            timing.running_ns = container.running_ns
            timing.ended_ns = container.ended_ns or time.monotonic_ns()

    def _after(self, job: Job, timing: Timing) -> Callable[[Left], Awaitable[None]] | None:
        """What is done with what a job leaves that failed; nothing where it may fail, or is tried again."""
        call = self._after_failure
        if call is None or job.allow_failure:
            return None

        async def after(left: Left) -> None:
            if not timing.tries_again(job, left.exit):
                await call(job, left, (timing.stdout, timing.stderr))

        return after

    async def _beside_services(self, job: Job, rootfs: Rootfs, timing: Timing, notes: list[str]) -> Outcome:
        """Run a job in the network of its services, which live as long as it does; what has happened to these goes to `notes`."""
        from guntainer.services.running import Services, Surroundings, settled

        job = settled(job, self._note)
        around = Surroundings(
            ground=self._ground,
            launcher=self._launcher,
            rootfs=self._prepared,
            live=self._lived,
            log=self._results.service_log,
            opener=self._results.open_log,
            note=self._note,
        )
        services = Services(job, rootfs, around)
        try:
            outcome = await services.run(
                lambda pod: self._run(job, rootfs, timing, pod.launcher, joined=pod.joined),
            )
        finally:
            timing.ended_ns = timing.ended_ns or time.monotonic_ns()
        for text in services.notes:
            self._note(f"{job.id}: {text}")
        for text in services.lacks:
            self._note(text)
        notes += (*services.notes, *services.lacks)
        return outcome

    async def _lived(self, job: Job, container: Container) -> Outcome:
        self._live.add(container)
        try:
            copy = job.scratch.kind in self._copied
            outcome = await container.run(self._isolation, copy=copy, require_full=self._require_full)
            self._ended_at = time.monotonic()
            return outcome
        finally:
            self._live.discard(container)
            if self._ended is not None:
                self._ended.set()
                self._ended = None

    async def _room(self, error: errors.Exhausted) -> None:
        """Wait until one of the other containers has ended, which makes room for one more.

        Raises:
            Exhausted: there is no other one.
        """
        if not self._live:
            if time.monotonic() - self._ended_at > _TAKEN_BACK_S:
                raise error
            await anyio.sleep(_LOOK_AGAIN_S)
            return
        self._note(f"{error.message}: jobs wait until others have ended; {error.hint}")
        if self._ended is None:
            self._ended = anyio.Event()
        await self._ended.wait()

    def _stdio(self, job: Job, timing: Timing) -> Stdio:
        watcher = self._watcher

        async def sink(stream: str, data: bytes) -> None:
            await watcher.output(job, stream, data)

        belongings = self._ground.belongings
        secret = belongings.patterns(job) if belongings is not None else None
        shown = sink if watcher.live else None
        return Stdio(job.stdin, timing.stdout, timing.stderr, shown, secret, self._results.open_log)

    def _note_rung(self, job: Job, outcome: Outcome) -> None:
        """What one job found the host to refuse holds for all: it is not tried again."""
        if not outcome.exit.error:
            for note in outcome.notes:
                self._note(note)
        if outcome.scratch:
            self._isolation = outcome.isolation
        if outcome.scratch.endswith("copy"):
            self._copied.add(job.scratch.kind)
