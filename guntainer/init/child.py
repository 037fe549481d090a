"""A child's life between clone3 and execve: operations in order, then exec; a failure goes up the fault pipe.

Runs in a copy of a process with one thread. It takes no locks, logs nothing, imports nothing, and never returns: it
becomes the command, or it ends with 125, 126 or 127 after one record in the fault pipe. That pipe is shared by all
children of a supervisor and close-on-exec, so a container never holds it; a record is at most PIPE_BUF bytes, so two
never mix (pipe(7)).
"""

from __future__ import annotations

import _signal
import errno
import marshal
import os

from guntainer.init import ops, reaper
from guntainer.kernel import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn

_SUBJECT_LIMIT = 1500  # PIPE_BUF is 4096; a record has two texts
_FOREVER_IGNORED = (_signal.SIGKILL, _signal.SIGSTOP)


def launch(
    plan: tuple[Any, ...], fds: list[int], fault_fd: int, life_fd: int, launch_id: int, *, parent: bool
) -> tuple[int, int]:
    """Clone and, in the child, live the plan.

    Args:
        plan: (clone flags, operations, argv, environment, init), see `planner`.
        fds: what the operations' indexes stand for.
        fault_fd: the writing end of the fault pipe.
        life_fd: a pidfd of the supervisor.
        launch_id: put into the fault record.
        parent: give the child to this process's own parent (CLONE_PARENT).

    Returns:
        (pid, pidfd), in the calling process only.
    """
    flags = plan[0]
    pid, pidfd = (
        syscalls.clone3(flags | abi.CLONE_PARENT, exit_signal=0)
        if parent
        else syscalls.clone3(flags, exit_signal=int(_signal.SIGCHLD))
    )
    if pid:
        return pid, pidfd
    _live(plan, fds, fault_fd, life_fd, launch_id)


def _live(plan: tuple[Any, ...], fds: list[int], fault_fd: int, life_fd: int, launch_id: int) -> NoReturn:
    step, subject = "start", ""
    code = 125
    try:
        _, operations, argv, environment, init = plan
        context = ops.Context(fds, life_fd)
        table = ops.OPERATIONS
        for operation in operations:
            step = operation[0]
            subject = next((str(part) for part in operation[1:] if isinstance(part, str)), "")
            table[step][0](context, *operation[1:])
        step, subject = "exec", argv[0]
        _default_signals()
        if init == "":
            syscalls.close_range_on_exec(3)
            code = execute(argv, environment)
        elif init == "reaper":
            reaper.run(argv, environment, lambda error: _report(fault_fd, launch_id, "exec", argv[0], error))
        else:
            os.set_inheritable(fds[int(init)], False)
            syscalls.close_range_on_exec(3)
            os.execve(fds[int(init)], ["init", "--", *argv], environment)
    except OSError as error:
        if step == "exec":
            code = exec_code(error)
        else:
            subject = str(error.filename) if error.filename is not None else subject
        _report(fault_fd, launch_id, step, subject, error)
    except BaseException as error:
        _report(fault_fd, launch_id, step, f"{subject} ({type(error).__name__}: {error})", OSError(0, ""))
    os._exit(code)


def _report(fault_fd: int, launch_id: int, step: str, subject: str, error: OSError) -> None:
    record = marshal.dumps((launch_id, step, subject[:_SUBJECT_LIMIT], error.errno or 0, getattr(error, "detail", "")))
    try:
        os.write(fault_fd, len(record).to_bytes(2, "big") + record)
    except OSError:
        pass  # the supervisor is gone; the exit code is all that is left to say


def _default_signals() -> None:
    """The command starts with every signal at its default and none blocked, whatever this interpreter or its parent set."""
    for number in _signal.valid_signals():
        if number not in _FOREVER_IGNORED and _signal.getsignal(number) is not _signal.SIG_DFL:
            try:
                _signal.signal(number, _signal.SIG_DFL)
            except OSError:
                pass  # reserved by the C library
    _signal.pthread_sigmask(_signal.SIG_SETMASK, ())


def exec_code(error: OSError) -> int:
    """126 found but not executable, 127 not found, as sh(1); 125 where the command is not to blame."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return 127
    return 126 if error.errno in (errno.EACCES, errno.EPERM, errno.ENOEXEC, errno.EISDIR, errno.ELOOP) else 125


def execute(argv: tuple[str, ...], environment: dict[str, str]) -> NoReturn:
    """Become the command, looked up in the container's PATH as execvp(3) does.

    Raises:
        OSError: of execve; `detail` names the interpreter where that is what is missing.
    """
    name = argv[0]
    if "/" in name:
        places = [name]
    else:
        path = environment.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        places = [f"{folder or '.'}/{name}" for folder in path.split(":")]
    found: OSError | None = None
    for place in places if name else ():
        try:
            os.execve(place, argv, environment)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                missing = _interpreter(place)
                if missing:
                    error.detail = missing  # type: ignore[attr-defined]
                    raise
            elif error.errno in (errno.EACCES, errno.EISDIR):
                found = found or error
            else:
                raise
    raise found or OSError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _interpreter(path: str) -> str:
    """What the file at `path` asks to be run by, where the file itself is there: the kernel says ENOENT for both."""
    try:
        with open(path, "rb") as file:
            head = file.read(4096)
    except OSError:
        return ""
    if head[:2] == b"#!":
        words = head[2:].split(b"\n", 1)[0].split()
        return os.fsdecode(words[0]) if words else ""
    if head[:4] == b"\x7fELF":
        return "its program loader (ld.so)"
    return ""
