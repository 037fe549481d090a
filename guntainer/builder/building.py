"""Do what a Gunfile says: each step on what the ones before it have left, or, where that was done before, from the store."""

from __future__ import annotations

import os
import time

from guntainer import assembly, errors, interrupts
from guntainer import rootfs as rootfs_
from guntainer.builder import content, layers
from guntainer.builder.gunfile import CMD, COPY, ENV, EXEC, WORKDIR
from guntainer.builder.layers import Layer, Making
from guntainer.export import helper, layout
from guntainer.image.config import NO_CONFIG, Config
from guntainer.jobs import values
from guntainer.jobs.model import Job
from guntainer.rootfs import Rootfs
from guntainer.store import filling
from guntainer.store.lookup import BUILD, VERSION
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.builder.gunfile import Gunfile, Step
    from guntainer.idmap import Ids
    from guntainer.ladder import Rung
    from guntainer.runfolder import RunFolder
    from guntainer.store.lookup import Lease, Store

_SHELL = ("/bin/sh", "-e", "-c")
_SHOWN = 200  # characters of a step in the store's list
_MOST_LOWERS = 490  # OVL_MAX_STACK of overlayfs is 500; the skeleton is one of them


class Base(Value):
    """What a build begins from."""

    rootfs: Rootfs
    key: str
    """What stands for its content."""
    architecture: str | None = None


class Done(Value):
    """A step that was done."""

    step: Step
    layer: Layer | None = None
    """None: it has changed no file."""


class Ways(Value):
    """How steps are run: options of the build."""

    env: tuple[tuple[str, str], ...] = ()
    """Variables of Exec that the image does not keep."""
    network: str = "host"
    timeout_s: float | None = None


def digests_of(gunfile: Gunfile, folder: str) -> dict[int, str]:
    """The digest of what each Copy copies, by its line: read before anything is done.

    Raises:
        JobFileError: with each that can not be copied.
    """
    found: dict[int, str] = {}
    problems = []
    for step in gunfile.steps:
        if step.kind != COPY:
            continue
        path = step.words[0]
        try:
            fd = content.open_source(folder, path)
            try:
                found[step.line] = content.Content(path).digest(fd)
            finally:
                os.close(fd)
        except OSError as error:
            problems.append(f"{gunfile.name}:{step.line}: Copy: {path}: {errors.describe_oserror(error)}")
        except errors.GuntainerError as error:
            problems.append(f"{gunfile.name}:{step.line}: Copy: {error}")
    if problems:
        raise errors.JobFileError(tuple(problems))
    return found


class Build:
    """One build.

    Args:
        folder: where the paths of Copy are seen from.
        digests: of what they lead to.
        store: where steps are kept.
        shared: a folder of ours for the skeleton, the mount point and filters.
        note: told of each step, and of what goes otherwise than usual.
    """

    def __init__(
        self,
        gunfile: Gunfile,
        folder: str,
        digests: dict[int, str],
        base: Base,
        *,
        ways: Ways,
        ids: Ids,
        store: Store,
        shared: str,
        run: RunFolder,
        note: Callable[..., None],
    ) -> None:
        self._gunfile = gunfile
        self._folder = folder
        self._digests = digests
        self.base = base
        self.config = base.rootfs.config or NO_CONFIG
        """How the image is run, so far."""
        self._ways = ways
        self._ids = ids
        self._store = store
        self._run = run
        self._note = note
        self._making: Making | None = None
        self._ground = assembly.Ground(shared, self._place, ids)
        self._leases: list[Lease] = []
        self._folders = base.rootfs.folders
        self._count = 0
        self.done: list[Done] = []

    def _place(self) -> Any:
        """As the run folder of the step at hand."""
        assert self._making is not None
        return self._making

    def run(self) -> None:
        """Do every step.

        Raises:
            StepFailed: one of them has ended with another code than 0.
            GuntainerError: one could not be done.
        """
        key = layers.key_of("1", self.base.key, *(f"{k}={v}" for k, v in sorted(self._ways.env)))
        for number, step in enumerate(self._gunfile.steps, 1):
            shown = f"step {number}/{len(self._gunfile.steps)}: {step}"
            try:
                key = self._step(step, key, shown)
            except (errors.UsageError, errors.StepFailed):
                raise
            except errors.GuntainerError as error:
                error.message = f"{self._gunfile.name}:{step.line}: {error.message}"
                raise

    @property
    def point(self) -> str:
        """An empty folder to mount on."""
        return self._ground.empty_folder("mount")

    def stacked(self) -> Rootfs:
        """All that the steps have left, by short names: fifty long ones would not fit into one mount(2)."""
        if len(self._folders) > _MOST_LOWERS:
            raise errors.RootfsError(
                f"{self._gunfile.name}: {len(self._folders)} layers are more than overlayfs can stack ({_MOST_LOWERS})",
                hint="put several Exec into one",
            )
        self._count += 1
        base = f"{self._run.path}/lowers-{self._count}"
        os.mkdir(base, 0o700)
        for number, folder in enumerate(self._folders):
            os.symlink(folder, f"{base}/{number}")
        return Rootfs(lowers=tuple(map(str, range(len(self._folders)))), base=base)

    def _step(self, step: Step, key: str, shown: str) -> str:
        """Do one step; returns its key."""
        digest = self._digests.get(step.line, "")
        key = layers.key_of(key, step.kind, *step.words, digest)
        before, self.config = self.config, _after(self.config, step)
        layer = None
        if step.kind in (EXEC, COPY) or (step.kind == WORKDIR and rootfs_.missing(self._folders, step.words[0])):
            lease = self._store.lease(key, BUILD)
            self._note(f"{shown}{' (cached)' if lease is not None else ''}")
            made = self._kept(lease) if lease is not None else self._made(step, key, before, digest)
            if made.entries:
                layer = made
                self._folders = (*layer.lowers, *self._folders)
        else:
            self._note(shown)
        self.done.append(Done(step=step, layer=layer))
        return key

    def _kept(self, lease: Lease) -> Layer:
        self._leases.append(lease)
        return layers.of_lease(self._store, lease)

    def _made(self, step: Step, key: str, config: Config, digest: str) -> Layer:
        """The layer of a step that was not done before."""
        incoming = filling.Incoming(self._store, f"build-{key}")
        try:
            incoming.lock(wait=True)  # another build may be at the same step
            lease = self._store.lease(key, BUILD)
            if lease is not None:
                return self._kept(lease)
            folder = incoming.make()
            meta = {
                **self._do(step, folder, config, digest),
                "layout": VERSION,
                "ids": self._store.ids.describe(),
                "sources": [f"{self._gunfile.name}:{step.line}: {step}"[:_SHOWN]],
                "architecture": self.base.architecture,
            }
            return self._kept(filling.place(self._store, BUILD, key, folder, meta))
        except OSError as error:
            raise filling.failed(self._store, error) from None
        finally:
            incoming.close()

    def _do(self, step: Step, folder: str, config: Config, digest: str) -> dict[str, Any]:
        """Do a step with its writable layer in `folder`; returns what its meta says."""
        self._making = Making(folder, self._run)
        if step.kind == EXEC:
            self._execute(step, config)
        else:
            layer, rootfs = self._making.layer(), self.stacked()
            self._help(lambda: self._change(step, rootfs, layer, config, digest))
        return self._help(lambda: layers.settle(folder))

    def _help(self, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        with helper.Helper(self._ids, lambda _fd: work(), self._gunfile.name) as one:
            return one.finish()

    def _change(self, step: Step, rootfs: Rootfs, layer: str, config: Config, digest: str) -> dict[str, Any]:
        """In a helper: what Copy and Workdir do."""
        folders, upper, work = rootfs.lowers, f"{layer}/upper", f"{layer}/work"
        root = helper.merge(folders, rootfs.base, self.point, upper=upper, work=work)
        if step.kind == COPY:
            source, target = step.words
            return content.copy(self._folder, source, root, os.path.join(config.workdir or "/", target), digest)
        os.umask(0)
        place = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        content.make_folders(place, step.words[0])
        return {}

    # -- Exec

    def _execute(self, step: Step, config: Config) -> None:
        from guntainer.foreground import Foreground

        # the image's own command is not what a step runs
        rootfs = self.stacked().replace(config=config.replace(entrypoint=(), cmd=(), stop_signal=""))
        job = Job(
            id=f"{self._gunfile.name}:{step.line}",
            rootfs=self._gunfile.using,
            command=(*_SHELL, step.words[0]),
            env=self._ways.env,
            network=self._ways.network,
            timeout_s=self._ways.timeout_s,
        )
        container = Foreground(
            rootfs.job(job), rootfs, self._ground, terminal=False, descend=self._descend, note=self._note
        )
        try:
            exit_ = container.run()
        except (errors.CommandNotFound, errors.CommandNotExecutable) as error:
            raise errors.StepFailed(f"{job.id}: {step}: {error}") from None
        if container.asked:
            raise interrupts.Interrupted(container.asked)
        if not exit_.ok:
            raise errors.StepFailed(f"{job.id}: {step}: {exit_.describe()}")

    def _descend(self, rung: Rung) -> None:
        if rung.copy:
            raise errors.HostError(
                "overlayfs is refused here, and a step's changes can not be told without it", probe="overlay-disk"
            )
        self._note(rung.note, "warning")

    def image(self, architecture: str) -> dict[str, Any]:
        """The image's configuration, as config.md has it, without its layers."""
        created = _now()
        history: list[dict[str, Any]] = [
            {"created": created, "created_by": f"Using {values.quoted(self._gunfile.using.name)}"}
        ]
        for one in self.done:
            empty = {"empty_layer": True} if one.layer is None else {}
            history.append({"created": created, "created_by": str(one.step), **empty})
        config = layout.described(self.config)
        return {"created": created, "architecture": architecture, "os": "linux", "config": config, "history": history}

    def close(self) -> None:
        """Give the steps' leases back."""
        for lease in self._leases:
            lease.release()
        self._leases.clear()


def _after(config: Config, step: Step) -> Config:
    """How the image is run, with what a step says of it."""
    if step.kind == ENV:
        name, value = step.words
        return config.replace(env=(*((k, v) for k, v in config.env if k != name), (name, value)))
    if step.kind == WORKDIR:
        return config.replace(workdir=step.words[0])
    return config.replace(cmd=step.words) if step.kind == CMD else config


def _now() -> str:
    """The time that an image says it was made at: RFC 3339; $SOURCE_DATE_EPOCH where it is set."""
    given = os.environ.get("SOURCE_DATE_EPOCH", "")
    seconds = int(given) if given.isdecimal() else int(time.time())
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
