"""Try what a launch would do, in a clone that ends at once: which namespace the host refuses, which step.

A refused clone3 does not say which of its namespaces was the one: here each is asked for by itself. What a trial makes, it
makes in namespaces of its own, so nothing of it stays.
"""

from __future__ import annotations

import _signal
import os

from guntainer.init import ops
from guntainer.kernel import abi
from guntainer.kernel.program import RECORD_BYTES, WORD, Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.kernel.program import Argument, Result

_ORDER = ("mount", "uts", "ipc", "cgroup", "network", "pid")
"""pid comes last: where it is named, everything else is allowed."""


class Trial:
    """Steps to try one after the other; for a process with one thread.

    Args:
        flags: namespaces, of clone3(2).
    """

    def __init__(self, flags: int = 0) -> None:
        self._program = Program(flags)
        self._steps: list[str] = []

    def operation(self, name: str, *arguments: Any) -> None:
        """A plan's operation, see `ops`."""
        self._step(name)
        ops.OPERATIONS[name](self._program, *arguments)

    def call(self, name: str, *arguments: Argument, step: str = "") -> Result:
        """A system call; `step` is what it is called where it fails."""
        self._step(step or name)
        return self._program.call(name, *arguments)

    def data(self, content: bytes) -> Any:
        """An argument of a call: a pointer to these bytes."""
        return self._program.data(content, shared=False)

    def _step(self, name: str) -> None:
        self._program.step = len(self._steps)
        self._steps.append(name)

    def run(self, fds: tuple[int, ...] = ()) -> tuple[str, int] | None:
        """(name, errno) of the step that failed; None where none did.

        Args:
            fds: what the operations' indexes of descriptors stand for, from 0.

        Raises:
            OSError: of clone3.
        """
        program = self._program
        program.call("exit_group", 0)
        program.finish()
        reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            program.prepare(0, writer, list(fds))
            pid, pidfd = program.launch(program.flags, exit_signal=int(_signal.SIGCHLD))
            os.close(pidfd)
            os.waitpid(pid, 0)
            record = _read(reader)
        finally:
            os.close(reader)
            os.close(writer)
        return (self._steps[_word(record, 1)], -_word(record, 2)) if record else None


def refused_namespace(flags: int) -> tuple[str, int]:
    """The first namespace of `flags` that can not be made, as (its name in abi.NAMESPACES, errno); ("", 0) where all can."""
    user = flags & abi.CLONE_NEWUSER
    trial = Trial(user)
    for kind in _ORDER:
        if flags & abi.NAMESPACES[kind]:
            trial.call("unshare", abi.NAMESPACES[kind], step=kind)
    try:
        return trial.run() or ("", 0)
    except OSError as error:
        return "user" if user else "", error.errno or 0


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, RECORD_BYTES)
    except BlockingIOError:
        return b""


def _word(record: bytes, place: int) -> int:
    return int.from_bytes(record[place * WORD : (place + 1) * WORD], "little", signed=True)
