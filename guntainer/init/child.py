"""A child's life between clone3 and execve: a plan's operations and its exec, compiled into one program of system calls.

Nothing of Python runs in the child, except where a plan asks for our own reaper or the processor has no machine code here.
A failure goes up the fault pipe as one record (see `kernel.program`): the step's number in the plan, and the kernel's
answer. That pipe is shared by all children of a supervisor and close-on-exec, so a container never holds it; a record is
smaller than PIPE_BUF, so two never mix (pipe(7)).
"""

from __future__ import annotations

import _signal
import errno
import marshal
import os

from guntainer.init import AS_JOINED, AS_SUBREAPER, FAULTS, INIT, OUR_INITS, ops
from guntainer.kernel import abi
from guntainer.kernel.program import ATTEMPTS, TEXT_BYTES, Pointer, Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.kernel.last_clone import LastClone

_SIG_SETMASK = 2
_FIRST_RESULT = 4  # header word of the first attempt to exec
_TEXT = (_FIRST_RESULT + ATTEMPTS) * 8  # header byte of the text
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TELL_WHICH = (errno.ENOSPC, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.EUSERS)
_CACHE_LIMIT = 64
_MOST_FREE = 256


def compile_plan(plan: tuple[Any, ...], ignored: tuple[int, ...], *, step: int = 0) -> Program:
    """The program of a plan: (clone flags, operations, argv, environment, init), see `planner`.

    Args:
        ignored: signals that the cloning process ignores; the command starts with everything at its default.
        step: the number of the first operation, for fault records.
    """
    flags, operations, argv, environment, init = plan
    program = Program(flags)
    program.call("umask", 0o022)
    filtered = bool(operations) and operations[-1][0] == "seccomp"
    checked = not operations  # the command's own program, under our init
    for number, operation in enumerate(operations):
        program.step = step + number
        if operation[0] in ("limits", "seccomp") and not checked:
            checked = True  # before they are short of descriptors, and before a filter that knows no openat2(2)
            program.step = step + len(operations)
            _refuse_magic_links(program, candidates(argv[0], environment))
            program.step = step + number
        if filtered and number == len(operations) - 1:
            # nothing but the exec comes after a filter
            _tidy(program, ignored, close=init not in OUR_INITS)
        arguments = _seal_arguments(init) if operation[0] == "seal" else operation[1:]
        ops.OPERATIONS[operation[0]](program, *arguments)
    program.step = step + len(operations)
    if not filtered:
        if not checked:
            _refuse_magic_links(program, candidates(argv[0], environment))
        _tidy(program, ignored, close=init not in OUR_INITS)
    if init not in OUR_INITS:
        _exec(program, argv, environment, init)
    program.finish()
    return program


def _seal_arguments(init: str) -> tuple[Any, ...]:
    """See `process.seal`: what stays open depends on the init."""
    return (int(init),) if init.isdecimal() else (-1, init == AS_SUBREAPER)


def _refuse_magic_links(program: Program, places: list[str]) -> None:
    """A link to what this process was before it executes, by /proc/self/exe, is no command: symlink(7), proc(5).

    What can be opened, but not without going by such a link, ends the launch.
    """
    how = (os.O_PATH | os.O_CLOEXEC, 0, abi.RESOLVE_NO_MAGICLINKS)
    rules = program.data(b"".join(one.to_bytes(8, "little") for one in how))
    for path in places:
        doubtful, following = program.label(), program.label()
        plain = program.call("openat2", abi.AT_FDCWD, path, rules, 24, on_error=doubtful)
        program.jump_to(program.call("close", plain), following)
        program.here(doubtful)
        program.call("openat", abi.AT_FDCWD, path, os.O_PATH | os.O_CLOEXEC, 0, on_error=following)
        program.call("openat2", abi.AT_FDCWD, path, rules, 24)  # fails: tells the record
        program.here(following)


def _tidy(program: Program, ignored: tuple[int, ...], *, close: bool) -> None:
    """The command starts with no signal ignored or blocked, and with no descriptor of ours."""
    for number in ignored:
        program.call("rt_sigaction", number, program.data(bytes(32)), 0, 8)
    program.call("rt_sigprocmask", _SIG_SETMASK, program.data(bytes(8)), 0, 8)
    if close:
        program.call("close_range", 3, 0xFFFF_FFFF, abi.CLOSE_RANGE_CLOEXEC)


def _exec(program: Program, argv: tuple[str, ...], environment: dict[str, str], init: str) -> None:
    variables = program.pointers(tuple(os.fsencode(f"{key}={value}") for key, value in environment.items()))
    words = program.pointers(tuple(os.fsencode(word) for word in argv))
    places = candidates(argv[0], environment)
    found = program.label()
    for number, path in enumerate(places):
        following = program.label()
        if init:
            # The init would find out by itself, but could not tell us: it ends with a code of its own.
            attempt = program.call("faccessat", abi.AT_FDCWD, path, os.X_OK, 0, on_error=following)
            program.result_to_header(attempt, _FIRST_RESULT + min(number, ATTEMPTS - 1))
            folder = program.call("openat", abi.AT_FDCWD, path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, 0)
            program.on_error(folder, found)
        attempt = program.call("execve", path, words, variables, on_error=following)  # of a folder, it says EACCES
        program.result_to_header(attempt, _FIRST_RESULT + min(number, ATTEMPTS - 1))
        program.here(following)
    # All attempts have failed. A file that is there although exec said ENOENT names a missing interpreter in its head.
    for path in places:
        following = program.label()
        file = program.call(
            "openat", abi.AT_FDCWD, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC, 0, on_error=following
        )
        program.call("read", file, Pointer(_TEXT // 8, header=True), TEXT_BYTES, ignore=True)
        program.here(following)
    program.call("execve", "", words, variables)  # fails: tells the record
    program.here(found)
    if init:
        words = program.pointers(tuple(os.fsencode(word) for word in ("init", "--", *argv)))
        program.call("execveat", INIT, "", words, variables, abi.AT_EMPTY_PATH)


def candidates(name: str, environment: dict[str, str]) -> list[str]:
    """Where execvp(3) looks for a command."""
    if "/" in name or not name:
        return [name]
    path = environment.get("PATH", _DEFAULT_PATH)
    return [f"{folder or '.'}/{name}" for folder in path.split(":")]


class Launches:
    """Launches plans, and keeps compiled programs for the next launch of the same plan.

    Args:
        fault_fd: the writing end of the fault pipe.
        life: the reading and the writing end of the life pipe, -1 where this process does not have it.
        parent: give children to this process's own parent (CLONE_PARENT).
        last: where it is noted whom it clones.
    """

    def __init__(self, fault_fd: int, life: tuple[int, int], *, parent: bool, last: LastClone | None = None) -> None:
        self._fault_fd = fault_fd
        self._life = life
        self._parent = parent
        self._last = last
        self._cache: dict[bytes, list[Program]] = {}
        self._ignored = tuple(
            int(number)
            for number in _signal.valid_signals()
            if number not in (_signal.SIGKILL, _signal.SIGSTOP) and _signal.getsignal(number) is _signal.SIG_IGN
        )

    def launch(self, data: bytes, fds: list[int], launch_id: int) -> tuple[int, int, int]:
        """Clone, and let the child live the plan that `data` is the marshalled form of.

        Args:
            fds: what the plan's indexes from FIRST on stand for.

        Returns:
            (pid, pidfd, a descriptor of its mount namespace); the last one is -1 where there is a pid namespace, which
            ends with its init everything that the container has started.

        Raises:
            OSError: of clone3; its file name is the namespace that was refused, as abi.NAMESPACES names it, or "".
        """
        try:
            return self._launch(data, fds, launch_id)
        except OSError as error:
            kind = ""
            if error.errno in _TELL_WHICH:
                from guntainer.init import trial

                kind, number = trial.refused_namespace(marshal.loads(data)[0])
                error.errno = number or error.errno
            raise OSError(error.errno, error.strerror, kind) from None

    def _launch(self, data: bytes, fds: list[int], launch_id: int) -> tuple[int, int, int]:
        programs = self._cache.get(data)
        program = next((one for one in programs if not one.busy), None) if programs else None
        if program is None:
            plan = marshal.loads(data)
            if plan[4] in OUR_INITS:
                return self._with_reaper(plan, fds, launch_id)
            program = compile_plan(plan, self._ignored)
            self._remember(data, program)
        program.prepare(launch_id, self._fault_fd, [*self._life, *fds])
        flags, exit_signal = self._how(program.flags, launch_id)
        return (*_mapped(program, lambda: program.launch(flags, exit_signal=exit_signal)), -1)

    def _how(self, flags: int, launch_id: int) -> tuple[int, int]:
        """The flags of the clone, and its exit signal."""
        if self._last is not None:
            self._last.begin(launch_id)
            flags |= abi.CLONE_PARENT_SETTID
        return (flags | abi.CLONE_PARENT, 0) if self._parent else (flags, int(_signal.SIGCHLD))

    def _remember(self, data: bytes, program: Program) -> None:
        """Keep the program at least until its child has executed; of plans that never come again, not for long."""
        if len(self._cache) >= _CACHE_LIMIT:
            for key in [key for key, programs in self._cache.items() if not any(one.busy for one in programs)]:
                del self._cache[key]
        programs = self._cache.setdefault(data, [])
        if len(programs) < _MOST_FREE:
            programs.append(program)
        else:
            programs[:] = [one for one in programs if one.busy] + [program]

    def _with_reaper(self, plan: tuple[Any, ...], fds: list[int], launch_id: int) -> tuple[int, int, int]:
        """Our own init: a clone with its own memory makes the calls, stays, and forks the command.

        Without a pid namespace it waits until its mount namespace has been looked at, which it can not be any more later.
        """
        from guntainer.init import reaper  # most have none

        setup = compile_plan(plan, self._ignored)
        command = compile_plan((0, (), *plan[2:4], ""), (), step=len(plan[1]))
        setup.prepare(launch_id, self._fault_fd, [*self._life, *fds])
        command.prepare(launch_id, FAULTS, [])
        flags, exit_signal = self._how(plan[0], launch_id)
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if plan[4] == AS_SUBREAPER else -1
        waiting, looked = os.pipe2(os.O_CLOEXEC)
        try:
            pid, pidfd = _mapped(setup, lambda: setup.clone(flags, exit_signal=exit_signal))
            if pid == 0:
                try:
                    os.close(looked)
                    os.read(waiting, 1)
                    if proc >= 0:
                        os.dup2(proc, INIT, inheritable=False)
                    setup.interpret()
                    reaper.run(command.interpret, INIT if proc >= 0 else -1, bound=plan[4] == AS_JOINED)
                finally:
                    os._exit(125)
            return pid, pidfd, -1 if proc < 0 else _mount_namespace(pid)
        finally:
            for fd in (proc, waiting, looked):
                if fd >= 0:
                    os.close(fd)


def _mapped(program: Program, launch: Callable[[], tuple[int, int]]) -> tuple[int, int]:
    """Launch, map the clone's ids where it waits for that, and open its gate: user_namespaces(7)."""
    if program.maps is None:
        return launch()
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = -1
    try:
        program.prepare_gate(read_end, write_end)
        pid, pidfd = launch()
        if pid:
            _map(program, pid, pidfd, write_end)
        return pid, pidfd
    finally:
        if pid:  # the clone itself comes by here as well, where it has memory of its own, and has yet to wait
            os.close(read_end)
            os.close(write_end)


def _map(program: Program, pid: int, pidfd: int, gate: int) -> None:
    assert program.maps is not None
    try:
        for name, text in zip(("uid_map", "gid_map"), program.maps, strict=True):
            file = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(file, text.encode())
            finally:
                os.close(file)
        os.write(gate, b"m")
    except OSError as error:
        # without ids it could only fail, and could not say at what
        program.refuse_maps(error.errno or 0)
        _signal.pidfd_send_signal(pidfd, _signal.SIGKILL)


def _mount_namespace(pid: int) -> int:
    """A descriptor of a child's mount namespace; of nobody's, where it can not be seen."""
    try:
        return os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
