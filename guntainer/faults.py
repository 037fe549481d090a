"""From a child's end to an Exit: the fault pipe's records and the words for them."""

from __future__ import annotations

import errno
import os

from guntainer import errors, report
from guntainer.init import ops
from guntainer.kernel.program import ATTEMPTS, RECORD_BYTES, TEXT_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_FAULT_CODES = (errors.OWN_FAILURE,)


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
        return None if record is None else _read(record, *operations)

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


def _read(
    record: bytes, operations: tuple[Any, ...], argv: tuple[str, ...], environment: dict[str, str]
) -> errors.SetupError:
    step = _word(record, 1)
    if step < len(operations):
        return setup_error(operations[step][0], ops.subject(operations[step]), -_word(record, 2))
    attempts = [-_word(record, 4 + number) for number in range(ATTEMPTS)]
    if errno.E2BIG in attempts:
        size = sum(len(os.fsencode(text)) + 1 for text in argv)
        size += sum(len(os.fsencode(f"{key}={value}")) + 1 for key, value in environment.items())
        return errors.SetupError(
            "exec", f"{argv[0]} with {size} bytes of arguments and environment", errno.E2BIG, hint="shorten them"
        )
    return exec_error(
        argv[0], [number for number in attempts if number > 0] or [-_word(record, 2)], record[-TEXT_BYTES:]
    )


def setup_error(step: str, subject: str, number: int) -> errors.SetupError:
    """The typed error of an operation that failed, with what the user can do about it."""
    from guntainer import refusals

    hint, probe = refusals.of_setup(step, subject, number)
    hint = hint or _HINTS.get((step, number), "")
    if number == errno.EOVERFLOW:
        hint = "the rootfs has files of other users, which a single id can not change; unpack it as yourself"
    return errors.SetupError(step, subject, number, hint=hint, probe=probe)


def exec_error(name: str, attempts: list[int], head: bytes) -> errors.SetupError:
    """Why no attempt to exec worked: 126 found but not executable, 127 not found, as sh(1).

    Args:
        attempts: the errno of each place that was tried.
        head: the first bytes of a file that was there although the kernel could not find it: its interpreter is missing.
    """
    missing = (errno.ENOENT, errno.ENOTDIR)
    number = next((one for one in attempts if one not in missing), errno.ENOENT)
    if number in missing:
        if head[:2] == b"#!":
            words = head[2:].split(b"\n")[0].strip(b"\0").split()
            interpreter = os.fsdecode(words[0]) if words else ""
            hint = "the file has Windows line ends" if head.split(b"\n")[0].endswith(b"\r") else ""
            return errors.CommandNotFound(
                f"{name}: the interpreter {interpreter} that it names is not in the rootfs", hint=hint
            )
        if head[:4] == b"\x7fELF":
            return errors.CommandNotFound(f"{name}: the program loader (ld.so) that it names is not in the rootfs")
        return errors.CommandNotFound(f"{name}: command not found in the rootfs")
    if number == errno.ENOEXEC:
        why = "can not be executed: not a program for this machine, and no #! line"
        return errors.CommandNotExecutable(f"{name}: {why}", errno=number)
    if number in (errno.EACCES, errno.EPERM, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return errors.CommandNotExecutable(f"{name}: found, but {os.strerror(number)}", errno=number)
    return errors.SetupError("exec", name, number)


_HINTS = {
    ("id_map", errno.EPERM): "is this host's SELinux restricting user namespaces?",
    ("id_map", errno.ENOENT): "is /proc mounted here?",
    ("mount", errno.EPERM): "parts of this host's /proc are masked, as in many CI containers",
    ("overlay", errno.EINVAL): "does the file system of TMPDIR support overlayfs? try --scratch memory",
    ("credentials", errno.EINVAL): "the user is none of the ids that are mapped",
    ("session_keyring", errno.EDQUOT): "too many keys; see kernel.keys.maxkeys",
    ("seccomp", errno.EINVAL): "does this kernel have CONFIG_SECCOMP_FILTER? try --security-opt seccomp=unconfined",
    ("workdir", errno.ENOENT): "-w/--workdir names a folder that is not in the rootfs",
    ("overlay", errno.ELOOP): "the store and TMPDIR must not lie inside of the rootfs",
    ("hold", errno.ENOENT): "the volume's source is gone",
    ("place", errno.EINVAL): "a folder can only be mounted on a folder, and a file on a file",
    ("place", errno.ENOTDIR): "a folder can only be mounted on a folder, and a file on a file",
    ("place", errno.ENOENT): "it can not be made: a dangling link, or a read-only mount, is in its way",
    ("place_tmpfs", errno.ENOTDIR): "a part of the path is a file in the rootfs",
    ("place_tmpfs", errno.ENOENT): "it can not be made: a dangling link, or a read-only mount, is in its way",
}


def clone_error(number: int, kind: str) -> errors.HostError:
    """Why clone3 was refused, in words; `kind` is the namespace that is refused, "" where it is none."""
    from guntainer import refusals

    return refusals.of_clone(number, kind)


def exit_of(status: int, faults: FaultPipe, launch_id: int, operations: tuple[Any, ...]) -> report.Exit:
    """The Exit for a wait status of a container's init: wait(2); `operations` as for FaultPipe.take."""
    if os.WIFSIGNALED(status):
        return report.signalled(os.WTERMSIG(status), core_dumped=os.WCOREDUMP(status))
    code = os.WEXITSTATUS(status)
    if code in _FAULT_CODES:
        error = faults.take(launch_id, operations)
        if error is not None:
            return report.setup_failed(error)
    return report.exited(code)
