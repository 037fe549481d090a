"""Our own init: of `--init` where the host has no catatonit, tini or docker-init, and wherever there is no pid namespace.

It reaps orphans, forwards signals and ends as the command ended. As pid 1 it takes everything with it. Without a pid
namespace it is the parent of all orphans (PR_SET_CHILD_SUBREAPER of prctl(2)), so that everything the command has started
stays below it: that is killed when the command has ended, and when the supervisor has died.

It is a clone of the interpreter, so it costs memory that the command as pid 1 does not; it ends with the command. That
memory holds the environment and the plans of other containers, so it is closed to the container's own root: a process that
is not dumpable can not be looked into through /proc by anybody without rights over the host's user namespace (ptrace(2)).
"""

from __future__ import annotations

import _signal
import os

from guntainer.init import SUPERVISOR_DIED
from guntainer.kernel import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_NOT_FORWARDED = (_signal.SIGCHLD, _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE)
_KILL = 9
_LOOK_AGAIN_S = 0.005


def run(execute: Callable[[], None], proc: int = -1, *, bound: bool = False) -> NoReturn:
    """Fork a child that becomes the command by `execute`, forward signals to it, reap everything, end as it ended.

    Args:
        proc: a descriptor of the host's /proc where there is no pid namespace.
        bound: this process is not the command's pid 1, but the command ends with it.
    """
    syscalls.prctl(abi.PR_SET_DUMPABLE, 0)  # the command is dumpable again after its execve
    if proc >= 0:
        syscalls.prctl(abi.PR_SET_CHILD_SUBREAPER, 1)
    signals = [n for n in _signal.valid_signals() if n not in _NOT_FORWARDED and n < _signal.SIGRTMIN]
    waited = [*signals, _signal.SIGCHLD, SUPERVISOR_DIED]
    _signal.pthread_sigmask(_signal.SIG_BLOCK, waited)
    # A handler makes pid 1 hear a signal at all, and shows in SigCgt that it does.
    for number in signals:
        _signal.signal(number, lambda *_: None)
    pid = os.fork()
    if pid == 0:
        for number in signals:
            _signal.signal(number, _signal.SIG_DFL)
        if proc >= 0 or bound:
            syscalls.prctl(abi.PR_SET_PDEATHSIG, _KILL)
        if proc >= 0:
            os.close(proc)  # the command must not find it while it executes
        os.setpgid(0, 0)
        _foreground()
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        execute()
        os._exit(125)
    _close_all_but(proc)
    os.chdir("/")
    while True:
        number = _signal.sigwait(waited)
        if number == _signal.SIGCHLD:
            status = _reap(pid)
            if status is not None:
                _end(status, proc)
        elif number == SUPERVISOR_DIED:
            _end(_KILL, proc)
        else:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass


def _close_all_but(kept: int) -> None:
    os.closerange(0, kept)
    os.closerange(kept + 1, 1 << 16)


def _foreground() -> None:
    """Where there is a terminal, the command's group is the one that Ctrl-C goes to."""
    try:
        _signal.signal(_signal.SIGTTOU, _signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
    except OSError:
        pass  # no terminal
    finally:
        _signal.signal(_signal.SIGTTOU, _signal.SIG_DFL)


def _reap(command: int) -> int | None:
    """Wait for whoever has ended; the command's wait status once it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == command:
            found = status


def _end(status: int, proc: int) -> NoReturn:
    """End as the command has ended: wait(2)."""
    if proc >= 0:
        while _kill_below(proc):
            _signal.sigtimedwait((_signal.SIGCHLD,), _LOOK_AGAIN_S)
            _reap(0)
        if os.WIFSIGNALED(status):
            _end_by(os.WTERMSIG(status))
    # 128+n, as sh(1): pid 1 can not end itself by a signal
    os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


def _end_by(number: int) -> None:
    """By the same signal; who is not dumpable leaves no core file."""
    try:
        _signal.signal(number, _signal.SIG_DFL)
    except OSError:
        pass  # SIGKILL and SIGSTOP have no handlers
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (number,))
    os.kill(os.getpid(), number)


def _kill_below(proc: int) -> bool:
    """Kill every process below this one; whether there was one that is not dead yet."""
    found = False
    waiting = [os.getpid()]
    while waiting:
        for child in _children(proc, waiting.pop()):
            waiting.append(child)
            try:
                os.kill(child, _KILL)
                found = True
            except (ProcessLookupError, PermissionError):
                pass
    return found


def _children(proc: int, pid: int) -> list[int]:
    """/proc/PID/task/TID/children of proc(5)."""
    text = b""
    for thread in _listed(proc, f"{pid}/task"):
        try:
            file = os.open(f"{pid}/task/{thread}/children", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        except OSError:
            continue
        try:
            while data := os.read(file, 1 << 16):
                text += data
        except OSError:
            pass
        finally:
            os.close(file)
        text += b" "
    return [int(word) for word in text.split()]


def _listed(folder: int, path: str) -> list[str]:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return []
    try:
        return os.listdir(fd)
    except OSError:
        return []
    finally:
        os.close(fd)
