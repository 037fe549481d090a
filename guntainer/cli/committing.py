"""`guntainer run --commit FILE` and `--commit-layer FILE`: what is written when the command has succeeded."""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.export import layout, names, points, saving
from guntainer.export.names import STDOUT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.assembly import Ground
    from guntainer.cli.options import Options
    from guntainer.export.helper import Helper
    from guntainer.jobs.model import Job
    from guntainer.ladder import Rung
    from guntainer.rootfs import Rootfs


class Committing:
    """What is to be committed, and whereto; what is wrong with that is told before anything runs.

    Raises:
        UsageError: it can not be written there, or makes no sense with another option.
    """

    def __init__(self, args: Options, job: Job) -> None:
        if args.commit is not None and args.commit_layer is not None:
            raise errors.UsageError("--commit and --commit-layer can not be used together")
        self._layer = args.commit_layer is not None
        self._option = "--commit-layer" if self._layer else "--commit"
        self._copied = False
        self._stdout = 1
        if job.scratch.kind == "memory":
            raise errors.UsageError(
                f"{self._option}: with --scratch memory the layer is gone when the command ends", hint="leave that out"
            )
        if job.read_only:
            raise errors.UsageError(f"{self._option}: with --read-only nothing can change")
        if job.rootfs.kind == "host" and not self._layer:
            raise errors.UsageError(
                "--commit: this machine's own folders are not written", hint="--commit-layer can be"
            )
        try:
            self.output = names.parse(args.commit_layer if self._layer else args.commit)
        except errors.UsageError as error:
            raise errors.UsageError(f"{self._option} {error.message}", hint=error.hint) from None

    def redirect(self) -> None:
        """Where the archive goes to our stdout, the command's output goes to stderr."""
        if self.output.path == STDOUT:
            self._stdout = os.dup(1)
            os.dup2(2, 1)

    def descend(self, rung: Rung) -> None:
        """A lower rung is about to be tried.

        Raises:
            HostError: on it there is no layer.
        """
        self._copied = rung.copy
        if rung.copy and self._layer:
            raise errors.HostError(
                "--commit-layer: overlayfs is refused here, so that there is no layer of what has changed",
                hint="use --commit",
                probe="overlay-disk",
            )

    def after(self, code: int, job: Job, rootfs: Rootfs, layer: str, ground: Ground, note: Callable[..., None]) -> None:
        """The command of the job has ended; nobody uses its layer any more.

        Raises:
            GuntainerError: it could not be written: nothing of it is left.
        """
        if code:
            note(f"not committed: the command ended with {code}", "warning")
            return
        reading = self._reading(job, rootfs, layer, ground)
        saved = saving.save(reading, self.output, self._stdout)
        left_out = saved.left_out()
        if left_out:
            note(f"{self._option}: {left_out}", "warning")
        if not self._layer and rootfs.config is not None and layout.described(rootfs.config):
            note("an archive does not keep how its image is run: variables, command, user")
        note(f"committed {self.output.path}: {saved.entries} entries, {saved.written_bytes / 1e6:.1f} MB")

    def _reading(self, job: Job, rootfs: Rootfs, layer: str, ground: Ground) -> Helper:
        settings: dict[str, Any] = {"points": points.made_for(job, rootfs), "name": job.rootfs.name}
        upper = f"{layer}/upper"
        if self._layer:
            return saving.read_layer(upper, ground.ids, **settings)
        if self._copied:
            return saving.read_copy(upper, ground.ids, rootfs, ground.skeleton(job, rootfs), **settings)
        return saving.read_rootfs(rootfs, ground.ids, ground.empty_folder("mount"), upper=upper, **settings)
