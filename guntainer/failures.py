"""Why a container could not be launched, in words: from the step that failed, or the attempts to execute, to a typed error."""

from __future__ import annotations

import errno
import os

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def of_record(
    step: int,
    number: int,
    attempts: list[int],
    head: bytes,
    operations: tuple[Any, ...],
    argv: tuple[str, ...],
    environment: dict[str, str],
) -> errors.SetupError:
    """What a fault record says, see `kernel.program`.

    Args:
        step: of the plan's operations; their count for the exec.
        number: an errno.
        attempts: the errno of each attempt to exec, 0 where there was none.
        head: the first bytes of the file that was tried.
        operations: the plan's; `argv` and `environment` as well.
    """
    if step < len(operations):
        from guntainer.init import descriptions

        return setup_error(operations[step][0], descriptions.subject(operations[step]), number)
    if errno.E2BIG in attempts:
        size = sum(len(os.fsencode(text)) + 1 for text in argv)
        size += sum(len(os.fsencode(f"{key}={value}")) + 1 for key, value in environment.items())
        return errors.SetupError(
            "exec", f"{argv[0]} with {size} bytes of arguments and environment", errno.E2BIG, hint="shorten them"
        )
    return exec_error(argv[0], [one for one in attempts if one > 0] or [number], head)


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
    ("map_ids", errno.EPERM): "the ids of the outer user namespace are not to be had any more",
    ("map_ids", errno.ENOENT): "is /proc mounted here?",
    ("credentials", errno.EINVAL): "the user is none of the ids that are mapped",
    ("session_keyring", errno.EDQUOT): "too many keys; see kernel.keys.maxkeys",
    ("seccomp", errno.EINVAL): "does this kernel have CONFIG_SECCOMP_FILTER? try --security-opt seccomp=unconfined",
    (
        "workdir",
        errno.ENOENT,
    ): "there is no such folder in the rootfs, or a volume hides it: -w/--workdir names another",
    ("make_folder", errno.ENOENT): "the image's working directory: a dangling link is in its way; -w names another",
    ("make_folder", errno.ELOOP): "the image's working directory: links lead nowhere; -w names another",
    ("make_folder", errno.ENAMETOOLONG): "the image's working directory; -w names another",
    ("overlay", errno.ELOOP): "the store and TMPDIR must not lie inside of the rootfs",
    ("hold", errno.ENOENT): "the volume's source is gone",
    ("place", errno.EINVAL): "a folder can only be mounted on a folder, and a file on a file",
    ("place", errno.ENOTDIR): "a folder can only be mounted on a folder, and a file on a file",
    ("place", errno.ENOENT): "it can not be made: a dangling link, or a read-only mount, is in its way",
    ("place_tmpfs", errno.ENOTDIR): "a part of the path is a file in the rootfs",
    ("place_tmpfs", errno.ENOENT): "it can not be made: a dangling link, or a read-only mount, is in its way",
}
