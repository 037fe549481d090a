"""Everything that guntainer raises on purpose, and the exit code that each kind ends the program with.

    GuntainerError            125   guntainer itself could not do it
    ├── UsageError            125   `run` with bad options or values (2 in every other command)
    ├── JobFileError            2   a job file with one or more problems, all of them listed
    ├── StepFailed              1   a command of a build has failed
    ├── RootfsError           125   what was given as ROOTFS is missing, unreadable or not usable
    │   ├── ArchiveError      125   the archive is damaged, cut, encrypted or not an archive
    │   ├── ArchiveRefused    125   an entry of the archive would have left the rootfs, or a limit was passed
    │   └── RemoteError       125   a server can not be reached, does not give it, or gives something else
    ├── StoreError            125   the store can not be read or written
    ├── HostError             125   the host lacks something: user namespaces, a library
    │   ├── NamespaceRefused  125   a kind of namespace can not be had here at all
    │   └── Exhausted         125   no process, namespace or descriptor is left for one more container
    ├── LauncherLost          125   the fork helper died while a launch was under way
    └── SetupError            125   a step between clone and exec failed: (step, subject, errno)
        ├── CommandNotExecutable 126
        └── CommandNotFound   127

A message is one sentence: what, where, why. `hint` is the next step, `probe` the id of the probe of `guntainer doctor` that
tries the same thing of the host by itself. 124 (timeout), 128+N (signal) and 130 (Ctrl-C) are
not errors but exits: see `report.Exit`.
"""

from __future__ import annotations

import os

USAGE = 2  # batch and the other commands: bad usage or a bad file
FAILED = 1  # batch: a job failed; build: a step did
TIMEOUT = 124  # as timeout(1)
OWN_FAILURE = 125  # as docker and podman
NOT_EXECUTABLE = 126  # as sh(1)
NOT_FOUND = 127  # as sh(1)
SIGNAL_BASE = 128  # 128+n, as sh(1)
INTERRUPTED = 130  # 128+SIGINT


class GuntainerError(Exception):
    """guntainer could not do what it was asked for."""

    exit_code: int = OWN_FAILURE

    def __init__(self, message: str, *, hint: str = "", probe: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.probe = probe

    def __str__(self) -> str:
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return f"{text} (guntainer doctor {self.probe})" if self.probe else text


class UsageError(GuntainerError):
    """An option or an argument makes no sense."""


class JobFileError(GuntainerError):
    """A job file is not valid; `problems` has one line per mistake, each with its place."""

    exit_code = USAGE

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class StepFailed(GuntainerError):
    """A command of a build has ended with another code than 0, or by a signal."""

    exit_code = FAILED


class RootfsError(GuntainerError):
    """What was given as a rootfs can not be used."""


class ArchiveError(RootfsError):
    """An archive can not be read to its end."""


class ArchiveRefused(RootfsError):
    """An archive holds an entry that is not let into a rootfs, or more than the limits allow."""


class RemoteError(RootfsError):
    """A server can not be reached, does not give what was asked for, or gives something else."""


class StoreError(GuntainerError):
    """The store can not be read or written."""


class HostError(GuntainerError):
    """The host lacks something that is needed."""


class NamespaceRefused(HostError):
    """A kind of namespace can not be had here, whatever else ends meanwhile.

    Args:
        kind: "user", "pid", …, as the OCI spec names it.
    """

    def __init__(self, message: str, *, kind: str, hint: str = "", probe: str = "") -> None:
        super().__init__(message, hint=hint, probe=probe)
        self.kind = kind


class Exhausted(HostError):
    """A limit of the host leaves no room for one more container: it may go when another one has ended."""


class LauncherLost(GuntainerError):
    """The fork helper died while this launch was under way."""


class SetupError(GuntainerError):
    """A step of the container's set-up failed before the command ran.

    Args:
        step: the operation's name, as `--dry-run` prints it.
        subject: what it worked on: a path, an option, a number.
        errno: the kernel's answer.
    """

    def __init__(self, step: str, subject: str, errno: int, *, hint: str = "", probe: str = "") -> None:
        why = os.strerror(errno) if errno else "failed"
        if errno == 9:  # EBADF: descriptors have fixed numbers in a launch
            hint = hint or "too few open files are allowed: raise `ulimit -n`"
            probe = probe or "nofile"
        super().__init__(f"{step} {subject}: {why}".replace("  ", " "), hint=hint, probe=probe)
        self.step = step
        self.subject = subject
        self.errno = errno


class CommandNotFound(SetupError):
    """The command, or the interpreter that its first line names, is not in the rootfs."""

    exit_code = NOT_FOUND

    def __init__(self, message: str, *, hint: str = "") -> None:
        GuntainerError.__init__(self, message, hint=hint)
        self.step, self.subject, self.errno = "exec", message, 2


class CommandNotExecutable(SetupError):
    """The command is there but can not be executed."""

    exit_code = NOT_EXECUTABLE

    def __init__(self, message: str, *, errno: int = 13, hint: str = "") -> None:
        GuntainerError.__init__(self, message, hint=hint)
        self.step, self.subject, self.errno = "exec", message, errno


def describe_oserror(error: OSError) -> str:
    """`error` as "what: why", without the number that nobody reads."""
    why = error.strerror or str(error)
    return f"{os.fsdecode(error.filename)}: {why}" if error.filename is not None else why
