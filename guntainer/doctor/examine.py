"""Runs probes: each in a throw-away process of its own, with a bound of time, and everything that it started ends with it.

For a process with one thread: probes are forked from it.
"""

from __future__ import annotations

import _signal
import marshal
import os
import select

from guntainer import errors, interrupts, processes, refusals, runfolder
from guntainer.doctor import distribution, storage
from guntainer.doctor.finding import MISSING, Finding, missing
from guntainer.kernel import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType
    from typing import NoReturn, Self

    from guntainer.doctor.distribution import Distribution
    from guntainer.doctor.probes import Probe

BOUND_S = 10.0
_PROCESSES = "nproc"
_UMASK = 0o022
_ROUNDS, _ROUND_S = 200, 0.005
_ANSWER_LIMIT = 1 << 16


class Circumstances:
    """What the probes of one examination share; a context manager that removes the folders it has made.

    Args:
        store: the store's folder, which need not be there; None: the default one.
        host: its files.
        system: its distribution.
    """

    def __init__(
        self, *, store: str | None = None, host: refusals.Host | None = None, system: Distribution | None = None
    ) -> None:
        self.store = ""
        self.store_fault = ""
        self.store_errno = 0
        try:
            self.store = storage.store_path(store)
        except errors.HostError as error:
            self.store_fault = error.message
        self.host = host or refusals.Host()
        self.system = system or distribution.read()
        self.findings: dict[str, Finding] = {}
        """What came of those that were tried before."""
        self.run = ""
        """A folder of this examination's in TMPDIR; "" where none could be made."""
        self.run_fault = ""
        self.beside_store = ""
        """The same on the store's file system."""
        self._folder: runfolder.RunFolder | None = None

    def __enter__(self) -> Self:
        self._umask = os.umask(_UMASK)  # what the probes make they also look into
        runfolder.remove_stale()
        with interrupts.held():
            self._make()
        return self

    def _make(self) -> None:
        try:
            self._folder = runfolder.RunFolder().__enter__()
            self.run = self._folder.path
        except (errors.GuntainerError, OSError) as error:
            self.run_fault = (
                error.message if isinstance(error, errors.GuntainerError) else errors.describe_oserror(error)
            )
        try:
            if self.store:
                self.beside_store = storage.make_beside(self.store)
        except OSError as error:
            self.store_fault, self.store_errno = errors.describe_oserror(error), error.errno or 0

    def __exit__(
        self, _kind: type[BaseException] | None, _value: BaseException | None, _where: TracebackType | None
    ) -> None:
        if self.beside_store:
            runfolder.remove_layer(self.beside_store)
        if self._folder is not None:
            self._folder.remove()
        os.umask(self._umask)


def examine(
    wanted: Iterable[Probe], probes: dict[str, Probe], around: Circumstances
) -> Iterator[tuple[Probe, Finding]]:
    """Try the wanted probes, in order, and those that they need before them; yields what came of the wanted ones."""
    shown = {probe.id for probe in wanted}
    for probe in probes.values():
        if probe.id in _with_needs(shown, probes):
            around.findings[probe.id] = finding = _one(probe, around)
            if probe.id in shown:
                yield probe, finding


def _with_needs(ids: Iterable[str], probes: dict[str, Probe]) -> set[str]:
    found: set[str] = set()
    waiting = list(ids)
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += (*probes[one].needs, *probes[one].after)
    return found


def _one(probe: Probe, around: Circumstances) -> Finding:
    for needed in probe.needs:
        if around.findings[needed].status == MISSING:
            return missing(f"needs {needed}", because=around.findings[needed].because or needed)
    if probe.in_place:
        return _attempted(probe, around)
    try:
        return bounded(lambda: probe.attempt(around), BOUND_S)
    except BlockingIOError:
        if probe.id == _PROCESSES:
            return probe.attempt(around)  # changes nothing
        return missing("it can not be tried: no more processes are allowed", because=_PROCESSES)


def _attempted(probe: Probe, around: Circumstances) -> Finding:
    try:
        return probe.attempt(around)
    except Exception as error:
        return missing(f"{type(error).__name__}: {error}")


def bounded(attempt: Callable[[], Finding], bound_s: float) -> Finding:
    """The finding of an attempt that is made in a fork of this process, and killed with all that it started after so long."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
    except OSError:
        os.close(reader)
        os.close(writer)
        raise
    if pid == 0:
        os.close(reader)
        _child(attempt, writer)
    os.close(writer)
    try:
        answer = _answer(reader, bound_s)
    finally:
        os.close(reader)
        _end(pid)
    if answer is None:
        return missing(f"no answer within {bound_s:g} s")
    return Finding(**marshal.loads(answer)) if answer else missing("the probe has died")


def _child(attempt: Callable[[], Finding], writer: int) -> NoReturn:
    try:
        syscalls.prctl(abi.PR_SET_PDEATHSIG, int(_signal.SIGKILL))
        syscalls.prctl(abi.PR_SET_CHILD_SUBREAPER, 1)  # what it starts stays below it, to be found
        os.setsid()
        for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
            _signal.signal(number, _signal.SIG_DFL)
        try:
            found = attempt()
        except Exception as error:
            found = missing(f"{type(error).__name__}: {error}")
        _end_all_below()
        os.write(writer, marshal.dumps({**found.as_dict(), "remedy": tuple(found.remedy)}))
    finally:
        os._exit(0)


def _answer(reader: int, bound_s: float) -> bytes | None:
    """What the child has written, b"" where it ended without; None where it did neither in time."""
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    return os.read(reader, _ANSWER_LIMIT) if poll.poll(bound_s * 1000) else None


def _end_all_below() -> None:
    """Everything that this process has started, daemons as well: they are its children, since it is a subreaper."""
    for _ in range(_ROUNDS):
        _kill(processes.descendants(os.getpid()))
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        select.select((), (), (), _ROUND_S)


def _kill(pids: Iterable[int]) -> None:
    for one in pids:
        try:
            os.kill(one, _signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _end(pid: int) -> None:
    """The child is not waited for in vain: one that sleeps in the kernel, on a dead NFS server say, stays as it is."""
    _kill([*processes.descendants(pid), pid])
    for _ in range(_ROUNDS):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        select.select((), (), (), _ROUND_S)
