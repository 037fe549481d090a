"""From a child's end to an Exit, by the fault pipe's records; `failures` has the words for them."""

from __future__ import annotations

import os

from guntainer import errors, report
from guntainer.kernel.program import ATTEMPTS, RECORD_BYTES, TEXT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FAULT_CODES = (errors.OWN_FAILURE,)
_KILLED = 9


class FaultPipe:
    """The pipe in which children say why they could not exec: records of `kernel.program`."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_fd, False)
        self._records: dict[int, bytes] = {}
        self._rest = b""

    def take(self, launch_id: int, operations: tuple[Any, ...]) -> errors.SetupError | None:
        """The error that ended this launch, if one did: a child writes it before it ends.

        Args:
            operations: (the plan's operations, which the record's step counts, its argv, its environment).
        """
        self._drain()
        record = self._records.pop(launch_id, None)
        if record is None:
            return None
        from guntainer import failures

        step, result = _word(record, 1), _word(record, 2)
        attempts = [-_word(record, 4 + number) for number in range(ATTEMPTS)]
        return failures.of_record(step, -result, attempts, record[-TEXT_BYTES:], *operations)

    def _drain(self) -> None:
        while True:
            try:
                data = os.read(self.read_fd, RECORD_BYTES * 64)
            except BlockingIOError:
                break
            if not data:
                break
            self._rest += data
        while len(self._rest) >= RECORD_BYTES:
            record, self._rest = self._rest[:RECORD_BYTES], self._rest[RECORD_BYTES:]
            self._records[_word(record, 0)] = record

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


def _word(record: bytes, number: int) -> int:
    return int.from_bytes(record[number * 8 : number * 8 + 8], "little", signed=True)


def clone_error(number: int, kind: str) -> errors.HostError:
    """Why clone3 was refused, in words; `kind` is the namespace that is refused, "" where it is none."""
    from guntainer import refusals

    return refusals.of_clone(number, kind)


def exit_of(status: int, faults: FaultPipe, launch_id: int, operations: tuple[Any, ...]) -> report.Exit:
    """The Exit for a wait status of a container's init: wait(2); `operations` as for FaultPipe.take."""
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) == _KILLED:  # by whoever launched it, where that failed
            error = faults.take(launch_id, operations)
            if error is not None:
                return report.setup_failed(error)
        return report.signalled(os.WTERMSIG(status), core_dumped=os.WCOREDUMP(status))
    code = os.WEXITSTATUS(status)
    if code in _FAULT_CODES:
        error = faults.take(launch_id, operations)
        if error is not None:
            return report.setup_failed(error)
    return report.exited(code)
