"""Our own part of the tree of control groups: entered once, removed at the end, by whoever starts next if we are killed.

A group whose controllers are given to groups below it may hold no process itself (cgroups(7), "no internal processes").
So we move into a group below: ourselves and what we have started. Others in the same group, the user's shell, are none of
our business: where there are some, systemd is asked for a scope of our own, and nothing of theirs changes.

Two guntainers in one delegated group share the group for supervisors. Who leaves last takes the controllers back, moves to
where it was, and leaves the delegated group as it was found. A run folder holds the path of the sub-tree, so that a later
start finds what a killed run has left: see `remove_left`.
"""

from __future__ import annotations

import errno
import fcntl
import os

from guntainer import errors, interrupts
from guntainer.cgroups import cgroup, host, userbus
from guntainer.runfolder import CGROUP_RECORD, RunFolder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.cgroups.host import Place

_PREFIX = "guntainer-"
_SUPERVISORS = "guntainer-supervisors"
_MOVED_WITHIN_S = 5.0
_LOOK_AGAIN_S = 0.002
_TRIES = 20


class Subtree:
    """Our sub-tree, and the controllers that it gives to containers."""

    def __init__(self) -> None:
        self.place: host.Place | None = None
        self.path = ""
        self.controllers: frozenset[str] = frozenset()
        self._record = RunFolder()
        self._is_scope = False
        self._count = 0

    def give(self, wanted: frozenset[str]) -> frozenset[str]:
        """Give these controllers to the containers; returns those of them that can be given.

        Raises:
            HostError: there is no place for a sub-tree of ours, and why.
        """
        if not self.path:
            self._enter(wanted)
        assert self.place is not None
        able = wanted & host.offered(self.place.folder)
        with _Locked(self.place.folder):
            for controller in able - self.controllers:
                _enable(self.place.folder, controller)
                _enable(self.path, controller)
        self.controllers |= able
        return able

    def new(self) -> cgroup.Cgroup:
        """An empty group for one container."""
        assert self.place is not None
        self._count += 1
        return cgroup.Cgroup(f"{self.path}/{self._count}", fenced=self.place.fenced)

    # -- in

    def _enter(self, wanted: frozenset[str]) -> None:
        place = host.here()
        if os.path.basename(place.folder) == _SUPERVISORS:
            place = place.replace(folder=os.path.dirname(place.folder))  # another one has brought us there
        why = _unfit(place)
        if why is not None or wanted - host.offered(place.folder) or _systemd_minds(place):
            place = self._scope(place, why)
        with interrupts.held(), _Locked(place.folder):
            self._record.__enter__()
            self.place = place
            path = f"{place.folder}/{_PREFIX}{os.path.basename(self._record.path)}"
            with open(f"{self._record.path}/{CGROUP_RECORD}", "w", encoding="utf-8", errors="surrogateescape") as file:
                file.write(f"{place.folder}\0{path}")
            try:
                os.mkdir(path)
                self.path = path
                if not host.is_root(place.folder):
                    _make(f"{place.folder}/{_SUPERVISORS}")
                    _move_ours(place.folder, f"{place.folder}/{_SUPERVISORS}")
            except OSError as error:
                raise _refused(place, error) from None

    def _scope(self, place: Place, why: errors.HostError | None) -> Place:
        """A scope that systemd has made for us; our own place, where that can do and nobody answers.

        Raises:
            HostError: `why`, with what systemd has said.
        """
        name = f"guntainer-{os.getpid()}-{os.urandom(4).hex()}.scope"
        for attempt in (1, 2):
            try:
                userbus.start_scope(name, _ours(place.folder), host.unit_of(place)[1])
                moved = _wait_for_move(place, name)
                break
            except userbus.NoManager as error:
                if attempt == 1 and error.refused:
                    continue  # one of the processes may have ended meanwhile
                if why is None:
                    return place
                # systemd-run asks the same manager
                hint = host.hint_without_manager() if error.absent and why.hint == host.HINT else why.hint
                raise errors.HostError(f"{why.message}; {error.message}", hint=hint, probe=why.probe) from None
        self._is_scope = True
        return moved

    # -- out

    def close(self) -> None:
        """Remove the sub-tree; leave the delegated group as it was, unless another guntainer works there."""
        if self.place is None:
            return
        folder, self.place = self.place.folder, None
        try:
            if self.path and cgroup.remove(self.path) and not self._is_scope:
                with _Locked(folder):
                    _leave(folder)
        except OSError:
            pass  # the group itself is gone, or not ours any more
        finally:
            self.path = ""
            self._record.remove()


def _unfit(place: Place) -> errors.HostError | None:
    """Why we can not work in the group that we are in."""
    if place.read_only:
        return errors.HostError(
            f"{place.root} is mounted read-only",
            hint="mount it read-write, or use --limits best-effort",
            probe=host.PROBE,
        )
    if not host.is_ours(place.folder):
        return errors.HostError(
            f"{place.folder} is not delegated to you",
            hint=host.HINT,
            probe=host.PROBE,
        )
    others = _others(place.folder)
    if others and not host.is_root(place.folder):
        return errors.HostError(
            f"other processes ({_shown(others)}) are in {place.folder} as well",
            hint=host.HINT,
            probe=host.PROBE,
        )
    return None


def _systemd_minds(place: Place) -> bool:
    """Whether systemd manages this group and has not left it to us: it would not expect groups of ours in it."""
    unit, _ = host.unit_of(place)
    return bool(unit) and not userbus.delegates(unit)


def _refused(place: Place, error: OSError) -> errors.HostError:
    if error.errno == errno.EAGAIN:
        return errors.Exhausted(
            f"no more control groups are allowed below {place.folder}", hint="see cgroup.max.descendants"
        )
    return errors.HostError(
        f"no control group of ours can be made: {errors.describe_oserror(error)}", hint=host.HINT, probe=host.PROBE
    )


def _shown(pids: Iterable[int]) -> str:
    names = []
    for pid in sorted(pids)[:3]:
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                names.append(file.read().strip())
        except OSError:
            names.append(str(pid))
    return ", ".join(names)


def _wait_for_move(before: Place, name: str) -> Place:
    """Our place once systemd has moved us.

    Raises:
        NoManager: it has not.
    """
    import time

    deadline = time.monotonic() + _MOVED_WITHIN_S
    while time.monotonic() < deadline:
        now = host.here()
        if now.folder != before.folder:
            return now
        time.sleep(_LOOK_AGAIN_S)
    raise userbus.NoManager(f"systemd took the request for {name}, but did not move us")


# -- processes and controllers of a group


def _pids(folder: str) -> list[int]:
    return [int(word) for word in host.words(f"{folder}/cgroup.procs")]


def _ours(folder: str) -> list[int]:
    return [pid for pid in _pids(folder) if _is_ours(pid)]


def _others(folder: str) -> list[int]:
    return [pid for pid in _pids(folder) if not _is_ours(pid)]


def _is_ours(pid: int) -> bool:
    """Whether a process is this one or below it; 0 is one that we can not see."""
    own = os.getpid()
    for _ in range(_TRIES):
        if pid == own:
            return True
        if pid <= 1:
            return False
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except OSError:
            return True  # gone meanwhile
    return False


def _move_ours(source: str, target: str) -> None:
    """Move this process and those below it, until there is none left: they may start others meanwhile."""
    for _ in range(_TRIES):
        pids = _ours(source)
        if not pids:
            return
        for pid in pids:
            try:
                _write(f"{target}/cgroup.procs", str(pid))
            except ProcessLookupError:
                pass


def _enable(folder: str, controller: str) -> None:
    """Give a controller to the groups below.

    Raises:
        HostError: the kernel refuses; EBUSY: a process is in the group itself.
    """
    if controller in host.words(f"{folder}/cgroup.subtree_control"):
        return
    try:
        _write(f"{folder}/cgroup.subtree_control", f"+{controller}")
    except OSError as error:
        why = "processes are in it" if error.errno == errno.EBUSY else error.strerror
        raise errors.HostError(
            f"the cgroup controller {controller} can not be used in {folder}: {why}",
            hint=host.HINT,
            probe=f"{host.PROBE}-{controller}",
        ) from None


def _leave(folder: str) -> None:
    """Out of a delegated group; the caller has its lock. Another guntainer's sub-tree there keeps it as it is."""
    if host.is_root(folder) or any(_is_subtree(name) for name in os.listdir(folder)):
        return
    for controller in host.words(f"{folder}/cgroup.subtree_control"):
        _write(f"{folder}/cgroup.subtree_control", f"-{controller}")
    supervisors = f"{folder}/{_SUPERVISORS}"
    _move_ours(supervisors, folder)
    cgroup.remove_empty(supervisors)


def _is_subtree(name: str) -> bool:
    return name.startswith(_PREFIX) and name != _SUPERVISORS


def _make(path: str) -> None:
    try:
        os.mkdir(path)
    except FileExistsError:
        pass


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


class _Locked:
    """`with _Locked(folder):` no other guntainer enters or leaves this group meanwhile: flock(2)."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def remove_left(record: str) -> None:
    """Remove the sub-tree of a run that was killed, with what still runs in it: the record is its run folder's."""
    folder, _, path = record.partition("\0")
    inside = os.path.dirname(path) == folder and _is_subtree(os.path.basename(path))
    if not inside or not os.path.exists(f"{folder}/cgroup.procs"):
        return
    try:
        if cgroup.remove(path):
            with _Locked(folder):
                _leave(folder)
    except OSError:
        pass  # gone
