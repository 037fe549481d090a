"""A process of ours beside this one, in the namespaces in which a container's ids are what they are in a container.

    helper   a rootfs, merged by the kernel ─ its work ─→ pipe
    here                                                  pipe ─ compress ─→ file

It mounts in a mount namespace of its own, so that nothing is to be unmounted: what it has mounted is gone with it. It is
killed when its parent ends, and whatever interrupts that, `close` waits for its end.
"""

from __future__ import annotations

import _signal
import marshal
import os

from guntainer import errors, hostids, interrupts
from guntainer.archive.feeder import close_all_but
from guntainer.init.mounts import overlay_escape
from guntainer.kernel import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

    from guntainer.idmap import Ids

    Work = Callable[[int], dict[str, Any]]

_BLOCK = 1 << 20
_F_SETPIPE_SZ = 1031
_KILL = 9


class Helper:
    """The helper's owner; for a process with one thread.

    Args:
        work: what is done there; it gets the descriptor to write to, and what it returns comes back, by marshal.
        subject: what it works on, for messages.
    """

    def __init__(self, ids: Ids, work: Work, subject: str) -> None:
        self._subject = subject
        self._pid = 0
        self.fd, data = os.pipe2(os.O_CLOEXEC)
        self._answers, answer = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        try:
            with interrupts.held():
                self._pid = os.fork()
                if self._pid == 0:
                    _live(ids, work, data, answer, parent)
        except OSError as error:
            self.close()
            raise errors.Exhausted(
                f"{subject}: no more processes are allowed ({error.strerror})", hint="raise `ulimit -u`", probe="nproc"
            ) from None
        finally:
            os.close(data)
            os.close(answer)

    def __enter__(self) -> Helper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def chunks(self) -> Iterator[bytes]:
        """What it writes, to its end."""
        while data := os.read(self.fd, _BLOCK):
            yield data

    def finish(self) -> dict[str, Any]:
        """What came of it.

        Raises:
            GuntainerError: what it has failed for.
        """
        with open(self._answers, "rb", closefd=False) as file:
            said = file.read()
        self.close()
        if not said:
            raise errors.GuntainerError(f"{self._subject}: the process that reads it has died", hint="run it again")
        message = marshal.loads(said)
        if message[0] == "failed":
            from guntainer.store.filling import failure

            raise failure(message)
        facts: dict[str, Any] = message[1]
        return facts

    def close(self) -> None:
        """It is dead and waited for after this; does nothing the second time."""
        if self._pid:
            os.kill(self._pid, _KILL)
            os.waitpid(self._pid, 0)
            self._pid = 0
        for fd in (self.fd, self._answers):
            if fd >= 0:
                os.close(fd)
        self.fd = self._answers = -1


def _live(ids: Ids, work: Work, data: int, answer: int, parent: int) -> NoReturn:
    """The helper's life, up to its answer."""
    try:
        os.write(answer, marshal.dumps(_answer(ids, work, data, answer, parent)))
    finally:
        os._exit(0)


def _answer(ids: Ids, work: Work, data: int, answer: int, parent: int) -> tuple[Any, ...]:
    try:
        interrupts.ignore()  # the parent decides, and kills
        _signal.set_wakeup_fd(-1)
        _enter(ids)
        syscalls.prctl(abi.PR_SET_PDEATHSIG, _KILL)
        if os.getppid() != parent:
            os._exit(1)
        close_all_but(0, 1, 2, data, answer)
        _enlarge(data)
        return "done", work(data)
    except errors.GuntainerError as error:
        return "failed", type(error).__name__, error.message, error.hint, error.probe
    except OSError as error:
        return "failed", "GuntainerError", errors.describe_oserror(error), "", ""
    except BaseException as error:
        return "failed", "GuntainerError", f"{type(error).__name__}: {error}", "", ""


def _enlarge(pipe: int) -> None:
    import fcntl

    try:
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _BLOCK)
    except OSError:
        pass  # over the user's share of pipe memory: pipe-user-pages-soft


def _enter(ids: Ids) -> None:
    """Become root of the ids, with a mount namespace of one's own in which nothing is seen outside."""
    if ids.namespace >= 0:
        if not ids.inside:
            syscalls.setns(ids.namespace, abi.CLONE_NEWUSER)
        syscalls.unshare(abi.CLONE_NEWNS)
    else:
        syscalls.unshare(abi.CLONE_NEWUSER | abi.CLONE_NEWNS)
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"0 {hostids.UID} 1"),
            ("gid_map", f"0 {hostids.GID} 1"),
        ):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)
    syscalls.mount("none", "/", "none", abi.MS_REC | abi.MS_PRIVATE)


def merge(folders: tuple[str, ...], base: str, point: str, *, upper: str = "", work: str = "") -> str:
    """In a helper: mount what overlayfs makes of folders, uppermost first, and return where it is.

    Args:
        base: the folder that they are seen from, where they are relative.
        upper, work: with them it can be written to.
    """
    if base:
        os.chdir(base)
    if len(folders) == 1 and not upper:
        return os.path.realpath(folders[0])
    options = "lowerdir=" + ":".join(map(overlay_escape, folders))
    if upper:
        options += f",upperdir={overlay_escape(upper)},workdir={overlay_escape(work)},volatile"
    try:
        syscalls.mount("overlay", point, "overlay", 0 if upper else abi.MS_RDONLY, options + ",userxattr")
    except OSError as error:
        raise errors.HostError(f"overlayfs: {error.strerror}", probe="overlay-disk") from None
    return point
