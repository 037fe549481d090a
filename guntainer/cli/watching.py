"""`guntainer batch --watch`: the batch again whenever something that it reads has changed.

Each round is a process of its own, so that nothing of one is left in the next; the kernel ends it when this one is killed. What is
watched is asked of the job file before each round; while that has mistakes, it is what was watched before, and what is extended.
What changes during a round begins the next one, but for what the jobs may have written themselves, and for the batch's own
reports, store and history.

Ctrl-C ends a round, and watching goes on; once more, or while nothing runs, it ends us.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

from guntainer import errors
from guntainer.cli.watched import MOST_FILES, MOST_FOLDERS, Watched, changed, paths_of, watchable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import FrameType

    from guntainer.cli.watched import Seen
    from guntainer.jobs.load import JobFile
    from guntainer.kernel.inotify import Inotify

QUIET_S = 0.2
"""Without a change, until a round begins: editors and checkouts write many files."""
_PATIENCE_S = 5.0  # with changes that never stop
_CODE = "import sys; sys.path.insert(0, {path!r}); from guntainer.cli import entry; entry()"


def watch(
    words: list[str],
    path: str,
    load: Callable[[set[str]], JobFile],
    without: Iterable[str],
    note: Callable[[str], None],
) -> int:
    """Rounds, until we are to end.

    Args:
        words: of the command line, with --watch.
        path: the job file's, absolute.
        load: reads it, and puts the paths of the files that it extends into the set, before it reads them.
        without: what the batch writes itself: see `Watched`.
        note: told what goes on.

    Returns:
        130 after Ctrl-C, 128+n after another signal: sh(1); 2 where the options make no sense.

    Raises:
        HostError: no more can be watched.
    """
    line = _line(words)
    stopped = _Stopped()
    without = tuple(without)
    first = True
    known: tuple[set[str], set[str]] = set(), set()
    while True:
        known, fine = _known(load, path, known)
        watched = Watched(*known, without)
        before = watched.look()
        code = stopped.run(line)
        if stopped.ends:
            return errors.SIGNAL_BASE + stopped.number
        if code == errors.SIGNAL_BASE + signal.SIGPIPE or (first and fine and code == errors.USAGE):
            return code  # nobody reads what we say; or it is not the file that is wrong, and no change would help
        first = False
        before = watched.after(before, watched.look())
        stopped.pause()
        what = _wait(watched, before, stopped, note)
        if stopped.ends:
            return errors.SIGNAL_BASE + stopped.number
        note(f"{_shown(what)} has changed: running again")


def _shown(path: str) -> str:
    """A path as the user would call it; names of files may hold anything."""
    from guntainer.report_text import visible

    try:
        near = os.path.relpath(path)
    except OSError:  # the working directory has been deleted
        near = path
    return visible(path if near.startswith("../") else near)


def _line(words: list[str]) -> list[str]:
    """The command line of a round: this very program, wherever it was started from."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    own = [word for word in words if word != "--watch"]
    return [sys.executable, "-P", "-c", _CODE.format(path=package), "batch", *own]


def _known(
    load: Callable[[set[str]], JobFile], path: str, last: tuple[set[str], set[str]]
) -> tuple[tuple[set[str], set[str]], bool]:
    """What is to be watched, and whether all is fine that may be mended by a change of it; the round tells what is not.

    Args:
        last: what was watched until now. Where the file has mistakes it still counts, and so does what is extended: the mistake may
            be in there.
    """
    asked: set[str] = set()
    try:
        file = load(asked)
    except errors.GuntainerError:
        read, written = last
        return (watchable({path, *asked, *read}), written), False
    return paths_of(file, path), not _lacks_secret(file)


def _lacks_secret(file: JobFile) -> bool:
    """Whether the file of a secret can not be used: somebody may make it yet, while a variable will never be set."""
    from guntainer import secret_values

    jobs = [one for job in file.jobs for one in (job, *(service.job for service in job.services))]
    for secret in {secret for job in jobs for secret in job.secrets if secret.file}:
        try:
            secret_values.read(secret, {})
        except errors.UsageError:
            return True
    return False


class _Stopped:
    """The signals that have come, and the round that they go to."""

    def __init__(self) -> None:
        self.number = 0
        self.ends = False
        """We are to end."""
        self._child: subprocess.Popen[bytes] | None = None
        self._interrupted = False
        """The round that runs was asked to end, by Ctrl-C."""
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup(1)
                signal.signal(number, self._signalled)

    def run(self, line: list[str]) -> int:
        """One round; returns what it ended with, as sh(1) has it."""
        self._interrupted = False
        parent = os.getpid()
        self._child = subprocess.Popen(line, preexec_fn=lambda: _die_with(parent))  # noqa: PLW1509 - we have one thread
        if self.ends:
            self._child.send_signal(self.number)  # it came before there was anybody to pass it on to
        code = self._child.wait()
        self._child = None
        return code if code >= 0 else errors.SIGNAL_BASE - code

    def pause(self) -> None:
        """Nothing runs now: what has come until then was for the round."""
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        self.number = number
        child = self._child
        if number != signal.SIGINT or child is None or self._interrupted:
            self.ends = True
        else:
            self._interrupted = True
        if child is not None and not (number == signal.SIGINT and _has_terminal()):
            child.send_signal(number)


def _has_terminal() -> bool:
    """Whether Ctrl-C on the terminal goes to us: then it goes to our children as well."""
    try:
        fd = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(fd)


def _die_with(parent: int) -> None:
    """Of a process that is to be asked to end when its parent has: prctl(2)."""
    from guntainer.kernel import abi, syscalls

    syscalls.prctl(abi.PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        os._exit(errors.SIGNAL_BASE + signal.SIGTERM)


def _wait(watched: Watched, before: Seen, stopped: _Stopped, note: Callable[[str], None]) -> str:
    """Wait until something differs from `before`, and nothing more changes; returns what, "" where we are to end."""
    told = False
    while not stopped.ends:
        inotify = _open_inotify()
        try:
            # whatever changes from here on is told of; what has changed before is seen
            what = changed(before, watched.look(inotify))
            if what:
                return what
            if not told:
                told = True
                _tell(watched, note)
            _until_quiet(inotify, stopped)
        finally:
            inotify.close()
    return ""


def _open_inotify() -> Inotify:
    from guntainer.kernel.inotify import Inotify

    try:
        return Inotify()
    except OSError as error:
        raise errors.HostError(
            f"--watch: nothing can be watched: {error.strerror}", hint="raise the sysctl fs.inotify.max_user_instances"
        ) from None


def _until_quiet(inotify: Inotify, stopped: _Stopped) -> None:
    """Ends a moment after the first change, when it has become quiet; at once where we are to end."""
    deadline: float | None = None
    while not stopped.ends:
        wait_s = None if deadline is None else min(QUIET_S, deadline - time.monotonic())
        if wait_s is not None and wait_s <= 0:
            return
        ready, _, _ = select.select([inotify.fd, stopped.fd], [], [], wait_s)
        if not ready:
            return
        if stopped.fd in ready:
            stopped.pause()
        if inotify.changes() and deadline is None:
            deadline = time.monotonic() + _PATIENCE_S


def _tell(watched: Watched, note: Callable[[str], None]) -> None:
    count = watched.folders
    where = f"{count} folder{'' if count == 1 else 's'}" if count else "the job file and what it names"
    more = f", and no more than {MOST_FOLDERS} folders and {MOST_FILES} files of them" if watched.cut else ""
    note(f"watching {where}{more}; Ctrl-C ends")
