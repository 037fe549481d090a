"""The small pid 1 of `--init`, where the host has no catatonit, tini or docker-init: reaps orphans, forwards signals.

It is a clone of the interpreter, so it costs memory that the command as pid 1 does not; it ends with the command. That
memory holds the environment and the plans of other containers, so it is closed to the container's own root: a process that
is not dumpable can not be looked into through /proc by anybody without rights over the host's user namespace (ptrace(2)).
"""

from __future__ import annotations

import _signal
import os

from guntainer.kernel import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

_NOT_FORWARDED = (_signal.SIGCHLD, _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE)


def run(execute: Callable[[], None]) -> NoReturn:
    """Fork a child that becomes the command by `execute`, forward signals to it, reap everything, end as it ended."""
    syscalls.prctl(abi.PR_SET_DUMPABLE, 0)  # the command is dumpable again after its execve
    signals = [n for n in _signal.valid_signals() if n not in _NOT_FORWARDED and n < _signal.SIGRTMIN]
    waited = [*signals, _signal.SIGCHLD]
    _signal.pthread_sigmask(_signal.SIG_BLOCK, waited)
    # A handler makes pid 1 hear a signal at all, and shows in SigCgt that it does.
    for number in signals:
        _signal.signal(number, lambda *_: None)
    pid = os.fork()
    if pid == 0:
        for number in signals:
            _signal.signal(number, _signal.SIG_DFL)
        os.setpgid(0, 0)
        _foreground()
        _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
        execute()
        os._exit(125)
    os.closerange(0, 1 << 16)
    os.chdir("/")
    while True:
        number = _signal.sigwait(waited)
        if number != _signal.SIGCHLD:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
            continue
        _reap(pid)


def _foreground() -> None:
    """Where there is a terminal, the command's group is the one that Ctrl-C goes to."""
    try:
        _signal.signal(_signal.SIGTTOU, _signal.SIG_IGN)
        os.tcsetpgrp(0, os.getpgrp())
    except OSError:
        pass  # no terminal
    finally:
        _signal.signal(_signal.SIGTTOU, _signal.SIG_DFL)


def _reap(command: int) -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        if pid == command:
            # 128+n, as sh(1): pid 1 can not end itself by a signal
            os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
