"""A process of ours that does one thing with files beside the event loop: copies a workspace, takes artifacts out.

It runs in the container's ids, so that it sees and makes what is a container's; it says what came of it at its end. It dies
with its parent, and whoever waits for it may stop it at any time.
"""

from __future__ import annotations

import os
import sys

from guntainer import errors, hostids, idmap
from guntainer.kernel import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from guntainer.idmap import Ids

_CODE = "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, {package!r}); from guntainer.{module} import main; main()"
_SAID_BYTES = 64 << 20


def line(module: str, ids: Ids, words: Sequence[str] = ()) -> list[str]:
    """A command line that calls a module's `main` with what `enter` wants and `words`."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    where = ids.namespace if must_enter(ids) else hostids.SINGLE if ids.kind == idmap.SINGLE else hostids.HERE
    code = _CODE.format(package=package, module=module)
    return [sys.executable, "-I", "-S", "-c", code, str(where), str(os.getpid()), *words]


def must_enter(ids: Ids) -> bool:
    """Whether the ids are those of a namespace that this process is not in."""
    return ids.namespace >= 0 and not ids.inside


def enter() -> list[str]:
    """In the process: become the root of the ids, who may look into folders that are closed to their owner; returns the words."""
    where, parent, *words = sys.argv[1:]
    os.umask(0o022)
    hostids.enter(int(where))
    syscalls.prctl(abi.PR_SET_PDEATHSIG, 9)  # now, since it is forgotten when ids change
    if os.getppid() != int(parent):
        os._exit(1)
    return words


class Errand:
    """One of them, under way.

    Args:
        subject: what it is about, for messages.
        words: its command line.
        told: what it reads from its stdin.
        fds: descriptors that it inherits.

    Raises:
        HostError: it can not be started.
    """

    def __init__(self, subject: str, words: list[str], told: bytes = b"", fds: Sequence[int] = ()) -> None:
        import subprocess  # the process itself has no need of it, nor of asyncio

        self._subject = subject
        self._said = self._pidfd = task = -1
        process: subprocess.Popen[bytes] | None = None
        try:
            self._said = os.memfd_create("said")
            task = os.memfd_create("task")
            with open(task, "wb", closefd=False) as file:
                file.write(told)
            os.lseek(task, 0, os.SEEK_SET)
            # a group of its own: what the terminal sends is for its owner to decide about
            process = self._process = subprocess.Popen(
                words, stdin=task, stdout=self._said, stderr=subprocess.DEVNULL, pass_fds=fds, process_group=0
            )
            self._pidfd = os.pidfd_open(process.pid)
        except BlockingIOError:
            self._close()
            raise errors.Exhausted(
                f"{subject}: no more processes are allowed (EAGAIN)",
                hint="raise `ulimit -u` or pids.max",
                probe="nproc",
            ) from None
        except OSError as error:
            if process is not None:
                process.kill()
                process.wait()
            self._close()
            raise errors.HostError(f"{subject}: {errors.describe_oserror(error)}") from None
        finally:
            if task >= 0:
                os.close(task)

    async def wait(self) -> tuple[int, bytes]:
        """Its exit code, and what it has said; whatever interrupts this, it is dead afterwards."""
        import asyncio

        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._pidfd, ended.set)
        try:
            await ended.wait()
        except BaseException:
            self._process.kill()
            raise
        finally:
            loop.remove_reader(self._pidfd)
            code = self._process.wait()
            said = os.pread(self._said, _SAID_BYTES, 0)
            self._close()
        return code, said

    def kill(self) -> None:
        """End it at once; does nothing after its end."""
        if self._pidfd >= 0:
            self._process.kill()

    def _close(self) -> None:
        for fd in (self._pidfd, self._said):
            if fd >= 0:
                os.close(fd)
        self._pidfd = self._said = -1
