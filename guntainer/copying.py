"""A private copy of a rootfs, for hosts where overlayfs is refused: cp(1), with reflinks where the file system has them."""

from __future__ import annotations

import os
import shutil
import subprocess

from guntainer import errors, idmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.assembly import Ground
    from guntainer.jobs.model import Job

_MESSAGE_BYTES = 4096


class Copying:
    """cp(1) into a new layer, under way; its owner waits for `pidfd` to be readable, then calls `finish`, or `stop`.

    Raises:
        HostError: the copy would be made inside of what is copied, or there is no room for it.
    """

    def __init__(self, job: Job, tree: str, ground: Ground) -> None:
        folder = ground.run()
        if f"{os.path.realpath(folder.path)}/".startswith(os.path.realpath(tree).rstrip("/") + "/"):
            raise errors.HostError(
                f"rootfs {job.rootfs.name}: overlayfs is refused here, and a copy would lie inside of it",
                hint="set TMPDIR to a folder outside of the rootfs",
                probe="overlay-disk",
            )
        if os.statvfs(folder.path).f_flag & os.ST_NOEXEC:
            raise errors.HostError(
                f"rootfs {job.rootfs.name}: overlayfs is refused here, and nothing can be executed of a copy in {folder.path},"
                " which is mounted noexec",
                hint="set TMPDIR to a folder that is not",
                probe="overlay-disk",
            )
        self.layer = folder.layer()
        self._folder = folder
        self._name = job.rootfs.name
        self._skeleton = ground.skeleton(job, tree)
        self._said = os.memfd_create("cp")
        self.pidfd = -1
        try:
            line = [*_dying_with_us(), "cp", "-a", "--reflink=auto", "--", f"{tree}/.", f"{self.layer}/upper"]
            enter: tuple[int, ...] = ()
            if ground.ids.namespace >= 0 and not ground.ids.inside:
                line, enter = idmap.inside(ground.ids, line), (ground.ids.namespace,)
            self._process = subprocess.Popen(
                line, stdin=subprocess.DEVNULL, stdout=self._said, stderr=self._said, pass_fds=enter
            )
            self.pidfd = os.pidfd_open(self._process.pid)
        except OSError as error:
            self._close()
            raise errors.HostError(f"copying the rootfs: {errors.describe_oserror(error)}") from None

    def finish(self) -> str:
        """After its end: the layer, with the skeleton put over the copy.

        Raises:
            HostError: cp failed.
        """
        code = self._process.wait()
        if code:
            said = os.pread(self._said, _MESSAGE_BYTES, 0).decode(errors="replace").strip().splitlines()
            self._close()
            raise errors.HostError(
                f"rootfs {self._name}: overlayfs is refused here, and copying it failed: {said[0] if said else code}",
                hint="set TMPDIR to a disk with more room, or where overlayfs works",
                probe="overlay-disk",
            )
        self._close()
        _put_over(self._skeleton, f"{self.layer}/upper")
        return self.layer

    def stop(self) -> None:
        """Kill it, and wait for that; the layer is removed with the run's folder."""
        self._process.kill()
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for fd in (self.pidfd, self._said):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self._said = -1


def _dying_with_us() -> list[str]:
    """setpriv(1) of util-linux gives a command the parent-death signal, prctl(2): no copy goes on without its owner."""
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", "KILL", "--"] if setpriv else []


def _put_over(skeleton: str, root: str) -> None:
    """The skeleton's files and folders in place of the rootfs's own; a link in their place is not followed."""
    for name in os.listdir(skeleton):
        if os.path.lexists(f"{root}/{name}") and (
            os.path.islink(f"{root}/{name}") or not os.path.isdir(f"{root}/{name}")
        ):
            os.unlink(f"{root}/{name}")
    etc = f"{root}/etc"
    for name in os.listdir(f"{skeleton}/etc") if os.path.isdir(f"{skeleton}/etc") else ():
        if os.path.lexists(f"{etc}/{name}") and not (_is_real(f"{etc}/{name}") and _is_real(f"{skeleton}/etc/{name}")):
            os.unlink(f"{etc}/{name}")
    # a link in the place of a file deeper down would be written through, to the host
    line = ["cp", "-r", "--remove-destination", "--", f"{skeleton}/.", root]
    subprocess.run(line, check=True, capture_output=True)


def _is_real(path: str) -> bool:
    """Whether a folder, and no link to one."""
    return os.path.isdir(path) and not os.path.islink(path)
