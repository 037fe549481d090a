"""The caller's descriptors, used without ever waiting on them, and without changing them.

O_NONBLOCK belongs to the open file description, which the caller's shell has as well, so it is never set there: a terminal
or a FIFO is opened again where that is allowed, and a socket is asked call by call (MSG_DONTWAIT).
"""

from __future__ import annotations

import _signal
import _socket
import errno
import os
import select
import stat

_CHUNK = 1 << 16
_SMALL = 64  # bytes that a descriptor which says POLLOUT nearly always takes at once
_PTMX = os.makedev(5, 2)


def reopened(fd: int, access: int) -> int:
    """A non-blocking description of our own of the terminal or FIFO behind `fd`; -1 where there can be none.

    Args:
        access: os.O_RDONLY or os.O_WRONLY.
    """
    try:
        status = os.fstat(fd)
        # Opening the master of a pseudo-terminal again makes a new pair.
        if not stat.S_ISFIFO(status.st_mode) and (not os.isatty(fd) or status.st_rdev == _PTMX):
            return -1
        return os.open(f"/proc/self/fd/{fd}", access | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return -1  # another user's terminal, no reader, no /proc


class Outlet:
    """Where a terminal's output goes: what is not taken at once stays in `pending`, for the next POLLOUT on `fd`."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.pending = b""
        self.lost = 0
        """The signal that says why nobody can read any more: SIGHUP of a terminal, SIGPIPE of anything else."""
        self._given = fd
        self._sock: _socket.socket | None = None
        self._terminal = os.isatty(fd)
        self._careful = False
        self._open()

    def _open(self) -> None:
        try:
            mode = os.fstat(self.fd).st_mode
        except OSError:
            return  # closed: writing will tell
        if stat.S_ISSOCK(mode):
            self._sock = _socket.socket(fileno=self.fd)
        elif self._terminal or stat.S_ISFIFO(mode):
            own = reopened(self.fd, os.O_WRONLY)
            self._careful = own < 0 and os.get_blocking(self.fd)
            if own >= 0:
                self.fd = own

    def close(self) -> None:
        if self._sock is not None:
            self._sock.detach()
        elif self.fd != self._given:
            os.close(self.fd)
        self.fd = self._given

    def write(self, data: bytes) -> None:
        """Take `data`; what has been lost is thrown away."""
        if not self.lost:
            self.pending += data
            if not self._careful:
                self.flush()

    def flush(self) -> None:
        """Write what is taken now: after POLLOUT.

        Raises:
            OSError: the file can not be written, as on a full disk.
        """
        while self.pending:
            try:
                sent = self._send(self.pending[: _SMALL if self._careful else _CHUNK])
            except BlockingIOError:
                return
            except OSError as error:
                self._lose(error)
                return
            self.pending = self.pending[sent:]
            if self._careful:
                return  # once for each POLLOUT

    def _send(self, data: bytes) -> int:
        if self._sock is None:
            return os.write(self.fd, data)
        return self._sock.send(data, _socket.MSG_DONTWAIT)

    def _lose(self, error: OSError) -> None:
        if error.errno in (errno.EPIPE, errno.ECONNRESET):
            self.lost = _signal.SIGPIPE
        elif error.errno == errno.EIO and self._terminal:
            self.lost = _signal.SIGHUP
        else:
            raise OSError(error.errno, error.strerror, "standard output") from None
        self.pending = b""

    def wait(self, seconds: float) -> bool:
        """Flush, waiting for the reader at most so long; False where it has taken nothing."""
        poll = select.poll()
        poll.register(self.fd, select.POLLOUT)
        before = len(self.pending)
        if poll.poll(seconds * 1000):
            self.flush()
        return len(self.pending) < before
