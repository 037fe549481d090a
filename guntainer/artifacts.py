"""Files of a container that outlive it: taken out after its end, before its layer goes.

    launch   the container hands out its root, and its workspace's mount, through a socket: two O_PATH descriptors
    end      its mount namespace is gone, and with it every mount on that root: volumes, /proc, /dev. The root itself stays
             as long as it is held, an overlay with all that is below it, a memory file system as well
    then     a process in the container's ids walks it, and copies what matches to DIR/<job>/artifacts/<path inside>
    close    nothing is held any more; the layer may go

The walk is `collecting`.
"""

from __future__ import annotations

import _socket
import array
import os

from guntainer import errors
from guntainer.jobs.values import printable
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.errand import Errand
    from guntainer.idmap import Ids
    from guntainer.jobs.model import Artifacts
    from guntainer.resultsfolder import ResultsFolder

_MOST_NAMED = 5


class Taken(Value):
    """What came of it."""

    files: tuple[tuple[str, int], ...] = ()
    """(path inside without its first slash, bytes)."""
    notes: tuple[str, ...] = ()
    """What was not taken, and why: a sentence each."""


class Taking:
    """The artifacts of one launch; its owner closes it before the layer goes.

    Args:
        artifacts: what is wanted.
        into: the results folder, and the name of the job's in there: it is put into `artifacts`, where what is there of an
            earlier run goes.
        mount: the container's workspace, an absolute path inside; "": it has none.
    """

    def __init__(self, artifacts: Artifacts, into: tuple[ResultsFolder, str], ids: Ids, mount: str = "") -> None:
        self._artifacts = artifacts
        self._results, self._name = into
        self._ids = ids
        self.mount = mount
        self._ours, self._theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        self._fds: list[int] = []
        self._errand: Errand | None = None

    @property
    def channel(self) -> int:
        """The socket that goes with the launch."""
        return self._theirs.fileno()

    async def take(self, cwd: str) -> Taken:
        """Copy what matches, after the container's end; whatever interrupts this, nothing works on it any more.

        Args:
            cwd: the container's working directory.

        Raises:
            HostError: it can not be done.
        """
        import marshal

        from guntainer import errand

        if not self._fds:
            self._receive()
        roots = [("", self._fds[0]), *((self.mount.strip("/"), fd) for fd in self._fds[1:])]
        into = (self._results.fd, self._name, self._results.path)
        told = marshal.dumps((self._artifacts.paths, cwd, roots, into, self._artifacts.most_bytes))
        inherited = [self._results.fd, *self._fds, *((self._ids.namespace,) if errand.must_enter(self._ids) else ())]
        self._errand = errand.Errand("artifacts", errand.line("collecting", self._ids), told, inherited)
        code, said = await self._errand.wait()
        if code:
            why = said.decode("utf-8", "replace").strip() or f"it ended with {code}"
            raise errors.HostError(f"artifacts: taking them out failed: {why}")
        files, refused, special, stopped = marshal.loads(said)
        return Taken(files=tuple(files), notes=tuple(_notes(refused, special, stopped)))

    def _receive(self) -> None:
        """What the container has handed out.

        Raises:
            HostError: it has not.
        """
        try:
            _, rights, _, _ = self._ours.recvmsg(
                8, _socket.CMSG_SPACE(16), _socket.MSG_DONTWAIT | _socket.MSG_CMSG_CLOEXEC
            )
        except OSError:
            rights = []
        for _level, _kind, payload in rights:
            self._fds += array.array("i", payload[: len(payload) // 4 * 4])
        if len(self._fds) < 1 + bool(self.mount):
            raise errors.HostError(
                "artifacts: the container's root can not be held", hint="raise `ulimit -n`", probe="nofile"
            )

    def kill(self) -> None:
        """End it at once."""
        if self._errand is not None:
            self._errand.kill()

    def close(self) -> None:
        """Let go of the container's root; does nothing the second time."""
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()
        self._ours.close()
        self._theirs.close()


def _notes(refused: list[tuple[str, str]], special: int, stopped: str) -> list[str]:
    paths: dict[str, list[str]] = {}
    for path, why in refused:
        paths.setdefault(why, []).append(path)
    notes = [f"artifacts left out, {why}: {named(those)}" for why, those in paths.items()]
    if special:
        notes.append(f"artifacts: {special} FIFO{'' if special == 1 else 's'}, sockets or devices left out")
    return [*notes, f"artifacts: {stopped}"] if stopped else notes


def named(paths: list[str]) -> str:
    """The first of some paths, for a note."""
    more = len(paths) - _MOST_NAMED
    return ", ".join(printable("/" + path) for path in paths[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


def none_found(artifacts: Artifacts, notes: tuple[str, ...]) -> str:
    """What is said where nothing was taken.

    Args:
        notes: why not, of what did match.
    """
    if notes:
        return "none could be taken: " + "; ".join(note.removeprefix("artifacts").lstrip(": ") for note in notes)
    more = " …" if len(artifacts.paths) > _MOST_NAMED else ""
    return f"no file matches {', '.join(artifacts.paths[:_MOST_NAMED])}{more}"
