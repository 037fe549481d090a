"""A private copy of a rootfs, for hosts where overlayfs is refused: its stack as one folder, with reflinks where there are any."""

from __future__ import annotations

import os
import subprocess

from guntainer import errors, idmap
from guntainer.assembly import Copied
from guntainer.store import flatten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.assembly import Ground
    from guntainer.jobs.model import Job
    from guntainer.rootfs import Rootfs

_MESSAGE_BYTES = 4096
_ROOM = "set TMPDIR to a disk with more room, or where overlayfs works"
_ELSEWHERE = "set TMPDIR to where overlayfs works, or try --scratch memory"


class Copying:
    """A copy into a new layer, under way; its owner waits for `pidfd` to be readable, then calls `finish`, or `stop`.

    Raises:
        HostError: the copy would be made inside of what is copied, or there is no room for it.
    """

    def __init__(self, job: Job, rootfs: Rootfs, ground: Ground) -> None:
        self._name = job.rootfs.name
        folder = ground.run()
        self._check(folder.path, rootfs.folders)
        skeleton = ground.skeleton(job, rootfs)
        self.layer = folder.layer()
        self._said = os.memfd_create("copy")
        self.pidfd = -1
        ids = ground.ids
        enter = (ids.namespace,) if ids.namespace >= 0 and not ids.inside else ()
        # the skeleton hides what the rootfs has of its files; its folders are as the rootfs has them
        line = flatten.line(
            (skeleton, *rootfs.folders),
            f"{self.layer}/upper",
            bare=1,
            namespace=enter[0] if enter else -1,
            single=ids.kind == idmap.SINGLE,
        )
        try:
            # a group of its own: what the terminal sends is for its owner to decide about
            self._process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said, pass_fds=enter, process_group=0
            )
            self.pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            self._close()
            raise errors.HostError(f"copying the rootfs: {errors.describe_oserror(error)}") from None

    def _check(self, place: str, folders: tuple[str, ...]) -> None:
        inside = f"{os.path.realpath(place)}/"
        if any(inside.startswith(os.path.realpath(folder).rstrip("/") + "/") for folder in folders):
            raise errors.HostError(
                f"rootfs {self._name}: overlayfs is refused here, and a copy would lie inside of it",
                hint="set TMPDIR to a folder outside of the rootfs",
                probe="overlay-disk",
            )
        if os.statvfs(place).f_flag & os.ST_NOEXEC:
            raise errors.HostError(
                f"rootfs {self._name}: overlayfs is refused here, and nothing can be executed of a copy in {place},"
                " which is mounted noexec",
                hint="set TMPDIR to a folder that is not",
                probe="overlay-disk",
            )

    def finish(self) -> Copied:
        """After its end: the layer, and how it was copied.

        Raises:
            HostError: it failed.
        """
        code = self._process.wait()
        said = os.pread(self._said, _MESSAGE_BYTES, 0).decode(errors="replace").strip()
        self._close()
        if code:
            why = said.splitlines()[-1] if said else f"it ended with {code}"
            raise errors.HostError(
                f"rootfs {self._name}: overlayfs is refused here, and copying it failed: {why}",
                hint=_ROOM if code == flatten.FULL else _ELSEWHERE,
                probe="overlay-disk",
            )
        return Copied(layer=self.layer, scratch=said)

    def stop(self) -> None:
        """Kill it, and wait for that; does nothing after its end. The layer is its owner's to remove."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for fd in (self.pidfd, self._said):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self._said = -1
