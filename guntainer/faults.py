"""From a child's end to an Exit: the fault pipe's records and the words for them."""

from __future__ import annotations

import errno
import marshal
import os

from guntainer import errors, report

_FAULT_CODES = (errors.OWN_FAILURE, errors.NOT_EXECUTABLE, errors.NOT_FOUND)


class FaultPipe:
    """The pipe in which children say why they could not exec; records are (launch id, step, subject, errno, detail)."""

    def __init__(self) -> None:
        self.read_fd, self.write_fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.read_fd, False)
        self._records: dict[int, tuple[str, str, int, str]] = {}
        self._rest = b""

    def take(self, launch_id: int) -> errors.SetupError | None:
        """The error that ended this launch, if one did. A child writes it before it ends."""
        self._drain()
        record = self._records.pop(launch_id, None)
        return None if record is None else setup_error(*record)

    def _drain(self) -> None:
        while True:
            try:
                data = os.read(self.read_fd, 1 << 16)
            except BlockingIOError:
                break
            if not data:
                break
            self._rest += data
        while len(self._rest) >= 2:
            size = int.from_bytes(self._rest[:2], "big")
            if len(self._rest) < 2 + size:
                return
            launch_id, *record = marshal.loads(self._rest[2 : 2 + size])
            self._rest = self._rest[2 + size :]
            self._records[launch_id] = tuple(record)

    def close(self) -> None:
        os.close(self.read_fd)
        os.close(self.write_fd)


def setup_error(step: str, subject: str, number: int, detail: str) -> errors.SetupError:
    """The typed error of a fault record, with what the user can do about it."""
    if number == errno.EOVERFLOW:
        hint = "the rootfs has files of other users, which a single id can not change; unpack it as yourself"
        return errors.SetupError(step, subject, number, hint=hint)
    if step != "exec":
        return errors.SetupError(step, subject, number, hint=_HINTS.get((step, number), ""))
    if detail:
        return errors.CommandNotFound(f"{subject}: the interpreter {detail} that it needs is not in the rootfs")
    if number in (errno.ENOENT, errno.ENOTDIR):
        return errors.CommandNotFound(f"{subject}: command not found in the rootfs")
    if number == errno.ENOEXEC:
        return errors.CommandNotExecutable(
            f"{subject}: can not be executed: not a program for this machine, and no #! line", errno=number
        )
    if number == errno.E2BIG:
        return errors.SetupError("exec", subject, number, hint="shorten the command or its environment")
    return errors.CommandNotExecutable(f"{subject}: found, but {os.strerror(number)}", errno=number)


_HINTS = {
    ("id_map", errno.EPERM): "is this host's AppArmor or SELinux restricting user namespaces?",
    ("mount", errno.EPERM): "parts of this host's /proc are masked, as in many CI containers",
    ("overlay", errno.EINVAL): "does the file system of TMPDIR support overlayfs? try --scratch memory",
    ("workdir", errno.ENOENT): "-w/--workdir names a folder that is not in the rootfs",
    ("hold", errno.ENOENT): "the volume's source is gone",
}


def clone_error(number: int) -> errors.HostError:
    """Why clone3 was refused, in words: clone(2), user_namespaces(7)."""
    if number == errno.ENOSPC:
        return errors.HostError(
            "no more namespaces are allowed (ENOSPC)", hint="raise user.max_user_namespaces and its kin with sysctl"
        )
    if number == errno.EPERM:
        return errors.HostError(
            "this host does not let you make user namespaces (EPERM)",
            hint="see kernel.unprivileged_userns_clone, AppArmor, or the seccomp profile of an outer container",
        )
    if number == errno.EAGAIN:
        return errors.HostError("no more processes are allowed (EAGAIN)", hint="raise `ulimit -u` or pids.max")
    return errors.HostError(f"clone3: {os.strerror(number)}")


def exit_of(status: int, faults: FaultPipe, launch_id: int) -> report.Exit:
    """The Exit for a wait status of a container's init: wait(2)."""
    if os.WIFSIGNALED(status):
        return report.signalled(os.WTERMSIG(status), core_dumped=os.WCOREDUMP(status))
    code = os.WEXITSTATUS(status)
    if code in _FAULT_CODES:
        error = faults.take(launch_id)
        if error is not None:
            return report.setup_failed(error)
    return report.exited(code)
