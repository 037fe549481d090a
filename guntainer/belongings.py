"""What a container is given besides its rootfs, and what is taken from it: workspace, cache folders, secrets, artifacts.

One launch's are opened before it and closed after its end, by its container, before the layer goes.
"""

from __future__ import annotations

import os

import anyio

from guntainer import errors, report, runfolder, workspace
from guntainer.artifacts import Taking, none_found
from guntainer.jobs.model import Mount
from guntainer.jobs.names import folder_name
from guntainer.masking import Patterns
from guntainer.offloading import in_thread
from guntainer.store.folders import CacheFolders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from guntainer.assembly import Ground
    from guntainer.container import Outcome
    from guntainer.errand import Errand
    from guntainer.handover import Handover
    from guntainer.jobs.model import Job, Workspace
    from guntainer.results import Results
    from guntainer.store.lookup import Store


_TAKING_S = 600.0
"""How long taking artifacts may last: whoever names files in a container could draw it out."""
_LOOK_AGAIN_S = 0.1


class Shared:
    """What those of all jobs of a supervisor have in common; it closes this at its end.

    Args:
        secrets: name → value.
        results: where artifacts are put.
        note: told, perhaps many times, of what jobs wait for.
    """

    def __init__(
        self,
        store: Store,
        ground: Ground,
        secrets: Mapping[str, bytes],
        results: Results,
        note: Callable[[str], None],
    ) -> None:
        self.ground = ground
        self.secrets = secrets
        self._cache = CacheFolders(store)
        self._note = note
        self._opening: dict[str, anyio.Lock] = {}
        self.copied: set[str] = set()
        """Folders over which there can be no overlay."""
        self.results = results
        self._places = (store.path, results.path or "")
        self._patterns: dict[tuple[str, ...], Patterns] = {}

    def hidden(self, source: str) -> tuple[str, ...]:
        """Folders of guntainer's own inside of a workspace's."""
        return workspace.inside(source, (*self._places, os.path.dirname(self.ground.run().path)))

    async def cache_folder(self, key: str) -> str:
        """The host folder of a key; waits for who removes it, which keeps nobody from another one.

        Raises:
            StoreError: it can not be made.
        """
        async with self._opening.setdefault(key, anyio.Lock()):
            if path := self._cache.held(key):
                return path
            text = ""  # said at the second look: who lists the store takes the lock for a moment
            while not (path := await in_thread(self._cache.open_nowait, key)):
                if text:
                    self._note(text)
                text = f"waiting for cache folder {key!r}: its lock is held, as `guntainer store rm` and `prune` do"
                await anyio.sleep(_LOOK_AGAIN_S)
            return path

    def patterns(self, job: Job) -> Patterns | None:
        """What is to be masked in whatever a job and its services print: the secrets of all of them; None: nothing.

        A service may show what the job has told it, and the other way round.
        """
        wanted = {secret.name for one in (job, *(service.job for service in job.services)) for secret in one.secrets}
        if not wanted:
            return None
        names = tuple(sorted(wanted & self.secrets.keys()))
        if names not in self._patterns:
            self._patterns[names] = Patterns(self.secrets[name] for name in names)
        return self._patterns[names]

    def close(self) -> None:
        self._cache.close()


class Belongings:
    """Those of one launch."""

    def __init__(self, job: Job, shared: Shared) -> None:
        self._job = job
        self._shared = shared
        self._layer = ""
        self._errand: Errand | None = None
        self._taking: Taking | None = None
        self._killed = False
        if job.artifacts is not None and shared.results.path is not None:
            mount = job.workspace.target if job.workspace is not None else ""
            into = shared.results.folder(), folder_name(job.id)
            self._taking = Taking(job.artifacts, into, shared.ground.ids, mount)

    async def open(self, *, copy: bool) -> Job:
        """The job with all that is mounted, and with the values of its secrets.

        Args:
            copy: overlayfs is refused.

        Raises:
            GuntainerError: something can not be had.
        """
        job, shared = self._job, self._shared
        mounts = list(job.mounts)
        if job.workspace is not None:
            mounts.append(await self._workspace(copy=copy or job.workspace.source in shared.copied))
            mounts += self._hidden(job.workspace)
        for one in job.cache_folders:
            mounts.append(Mount(source=await shared.cache_folder(one.key), target=one.target))
        return job.replace(mounts=tuple(mounts), env=(*job.env, *self._variables()))

    def _hidden(self, wanted: Workspace) -> list[Mount]:
        """What of ours lies in a folder of the host's that the job works in: it could lead us anywhere by links in there."""
        if wanted.mode == workspace.COPY:
            return []  # that has done it already
        empty = self._shared.ground.empty_folder("empty")
        return [
            Mount(source=empty, target=f"{wanted.target}/{path}", read_only=True)
            for path in self._shared.hidden(wanted.source)
            if os.path.isdir(f"{wanted.source}/{path}")
        ]

    def _variables(self) -> list[tuple[str, str]]:
        found = []
        for secret in self._job.secrets:
            if secret.name not in self._shared.secrets:
                raise errors.UsageError(f"secret {secret.name}: the supervisor was given no value for it")
            found.append((secret.name, self._shared.secrets[secret.name].decode("utf-8", "surrogateescape")))
        return found

    async def _workspace(self, *, copy: bool) -> Mount:
        wanted = self._job.workspace
        assert wanted is not None
        workspace.check(wanted)
        if wanted.mode != workspace.COPY:
            return workspace.bound(wanted)
        ground = self._shared.ground
        self._layer = ground.run().layer()
        hidden = self._shared.hidden(wanted.source)
        try:
            if not copy:
                return workspace.layered(wanted, self._layer, hidden)
            self._errand = workspace.copying(wanted, self._layer, hidden, ground.ids)
            if self._killed:
                self._errand.kill()
            return workspace.copied(wanted, self._layer, *await self._errand.wait())
        except OSError as error:
            raise errors.HostError(f"workspace {wanted.source}: {errors.describe_oserror(error)}") from None

    def hand_over(self, given: Handover) -> None:
        """Have the container hand out what artifacts are taken from."""
        if self._taking is not None:
            given.keep(self._taking.channel, self._taking.mount)

    async def taken(self, outcome: Outcome, cwd: str) -> Outcome:
        """The outcome with what was taken out of the container, which has ended; not interrupted but by `kill`."""
        wanted = self._job.artifacts
        if self._taking is None or wanted is None or self._killed:
            return outcome
        taken, why = None, f"artifacts: they could not be taken within {_TAKING_S:g} s"
        with anyio.move_on_after(_TAKING_S, shield=True):
            try:
                taken = await self._taking.take(cwd)
            except errors.HostError as error:
                why = str(error)
            except OSError as error:
                why = f"artifacts: {errors.describe_oserror(error)}"
        self._taking.close()  # what it holds of the container goes before its layer, or before a shell needs that
        if taken is None:
            return self._without(outcome, why)
        files = tuple(report.Artifact(path=path, size_bytes=size) for path, size in taken.files)
        if files or wanted.if_none == "ignore":
            return outcome.replace(artifacts=files, notes=(*outcome.notes, *taken.notes))
        return self._without(outcome, f"artifacts: {none_found(wanted, taken.notes)}")

    def _without(self, outcome: Outcome, why: str) -> Outcome:
        """What a job without any artifact has come to."""
        if self._job.artifacts is not None and self._job.artifacts.if_none == "error" and outcome.exit.ok:
            return outcome.replace(exit=report.Exit(reason=report.EXIT, code=errors.FAILED, message=why))
        return outcome.replace(notes=(*outcome.notes, why))

    def refused(self, error: errors.GuntainerError | None) -> str:
        """What the user is told where there can be no overlay over the workspace, which the next launch copies; "" otherwise."""
        if not workspace.is_refused(error) or self._job.workspace is None:
            return ""
        assert isinstance(error, errors.SetupError)
        source = self._job.workspace.source
        self._shared.copied.add(source)
        return f"workspace {source}: overlayfs is refused over it ({os.strerror(error.errno)}): running on a copy"

    def kill(self) -> None:
        """End at once what is under way."""
        self._killed = True
        for one in (self._errand, self._taking):
            if one is not None:
                one.kill()

    async def close(self) -> None:
        """Let go of everything, and give the workspace's layer back."""
        if self._taking is not None:
            self._taking.close()
        layer, self._layer = self._layer, ""
        if layer and not self._shared.ground.run().give_back(layer):
            with anyio.CancelScope(shield=True):
                await in_thread(runfolder.remove_layer, layer)
