"""Start the fork helper: a fresh interpreter, without site, with a few descriptors and an empty environment.

It executes from a sealed copy, because its clones execute what nobody trusts: see `exeseal`.

Light on imports, so that the helper starts while the supervisor is still importing its own modules. Call it from the
main thread: the parent-death signal of the helper and of its containers follows the thread that spawned it.
"""

from __future__ import annotations

import _socket
import errno
import os
import sys

from guntainer import descriptors, errors, exeseal
from guntainer.faults import FaultPipe
from guntainer.kernel import last_clone

_SOCKET, _FAULTS, _LIFE, _LAST, _USER = 3, 4, 5, 6, 7  # the helper's descriptors
_ABOVE = 16  # these, for what it executes
_CODE = (
    "import sys; sys.dont_write_bytecode = True; sys.path.insert(0, {path!r}); "
    "from guntainer.init.zygote import main; main({socket}, {faults}, {life}, {last}, {user}, pod={pod})"
)
_QUEUE_BYTES = 1 << 20
_NONE_LEFT = (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE)


class Zygote:
    """A running fork helper."""

    def __init__(self, pid: int, sock: _socket.socket, faults: FaultPipe, life: int, last: int) -> None:
        self.pid = pid
        self.sock = sock
        self.faults = faults
        self._life = life
        self._last = last
        self._ended = self._closed = False

    def end(self) -> None:
        """Kill it and wait for that; does nothing the second time, when its process id may be another's."""
        if self._ended:
            return
        self._ended = True
        try:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass

    def last_clone(self) -> tuple[int, int]:
        """(launch id, process id) of whom it has cloned last, zeros where there is nobody: for when it has ended."""
        return last_clone.read(self._last) if self._last >= 0 else (0, 0)

    def close(self) -> None:
        """End it, and wait for that; does nothing the second time."""
        if self._closed:
            return
        self._closed = True
        self.sock.close()
        self.end()
        self.faults.close()
        os.close(self._life)
        _close(self._last)


def spawn(namespace: int = -1, *, pod: bool = False) -> Zygote:
    """Start a fork helper, with room for the descriptors that a launch uses.

    Args:
        namespace: a descriptor of the user namespace that it is to enter, or -1.
        pod: it makes namespaces of its own first, see `launcher.pod`.

    Raises:
        HostError: no process or no descriptor is left.
    """
    descriptors.allow(2 * descriptors.LEAST)  # the helper keeps one of each container, beside those of a launch
    opened: list[FaultPipe | _socket.socket] = []
    last = -1
    try:
        faults = FaultPipe()
        opened.append(faults)
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        opened += [ours, theirs]
        ours.setblocking(False)
        for sock in (ours, theirs):
            sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDBUF, _QUEUE_BYTES)
        last = _shared_memory()
        life, ours_alone = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        for one in opened:
            one.close()
        _close(last)
        raise _not_started("", error) from None
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    places = {_SOCKET: theirs.fileno(), _FAULTS: faults.write_fd, _LIFE: life}
    places |= {number: fd for number, fd in ((_LAST, last), (_USER, namespace)) if fd >= 0}
    more = {name: at if at in places else -1 for name, at in (("last", _LAST), ("user", _USER))}
    code = _CODE.format(path=package, socket=_SOCKET, faults=_FAULTS, life=_LIFE, pod=pod, **more)
    try:
        pid = _start(["-I", "-S", "-c", code], places)
    except (OSError, errors.HostError) as error:
        ours.close()
        faults.close()
        os.close(ours_alone)
        _close(last)
        raise _not_started(f" {sys.executable}", error) if isinstance(error, OSError) else error from None
    finally:
        theirs.close()
        os.close(life)
    return Zygote(pid, ours, faults, ours_alone, last)


def _shared_memory() -> int:
    """Of `kernel.last_clone`; -1 where there is none to be had: a container of a helper that dies is not looked for then.

    Raises:
        OSError: no descriptor or no memory is left.
    """
    try:
        return last_clone.shared()
    except OSError as error:
        if error.errno in _NONE_LEFT:
            raise
        return -1


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _start(arguments: list[str], places: dict[int, int]) -> int:
    """This interpreter, from a sealed copy; from its file where no copy can be had, and no container could change that.

    Raises:
        OSError: of posix_spawn(3).
        HostError: the file is exposed.
    """
    sealed = -1
    try:
        sealed, words = exeseal.sealed(arguments, above=_ABOVE)
        return _posix_spawn(f"/proc/self/fd/{sealed}", words, descriptors.to_places(places, clear=sealed))
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in _NONE_LEFT:
            raise
        if exeseal.is_exposed(sys.executable):
            raise exeseal.refused(error) from None
    finally:
        if sealed >= 0:
            os.close(sealed)
    return _posix_spawn(sys.executable, [sys.executable, *arguments], descriptors.to_places(places))


def _posix_spawn(path: str, words: list[str], actions: list[tuple[int, ...]]) -> int:
    null = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDWR, 0), (os.POSIX_SPAWN_DUP2, 0, 1)]
    return os.posix_spawn(
        path,
        words,
        {"LANG": "C.UTF-8"},
        file_actions=[*actions, *null],
        setsigmask=(),
        setsigdef=(2, 13, 15),
    )


def _not_started(what: str, error: OSError) -> errors.HostError:
    from guntainer.refusals import probe_of

    text = f"can not start the fork helper{what}: {error.strerror}"
    return errors.HostError(text, probe=probe_of(error.errno or 0) or "python")
