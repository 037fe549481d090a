"""A real terminal outside, a pseudo-terminal inside: raw mode, size, bytes both ways, and everything put back.

Imported under `-t` only.
"""

from __future__ import annotations

import array
import atexit
import fcntl
import os
import select
import termios
import tty as _tty

from guntainer.kernel import abi

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from types import TracebackType
    from typing import Any

_CHUNK = 1 << 16
_BACKLOG_LIMIT = 1 << 18  # bytes typed or piped that the container has not read yet


class Terminal:
    """The caller's stdin and stdout, and the master of the container's pseudo-terminal."""

    def __init__(self) -> None:
        self._master = -1
        self._channel = -1
        self._saved: list[Any] | None = None
        self._to_container = b""
        self._stdin_open = True
        size = self._outer_size()
        self.rows, self.columns = size if size else (0, 0)

    @staticmethod
    def _outer_size() -> tuple[int, int] | None:
        for fd in (0, 1, 2):
            cells = array.array("H", (0, 0, 0, 0))
            try:
                fcntl.ioctl(fd, termios.TIOCGWINSZ, cells, True)
            except OSError:
                continue
            if cells[0] and cells[1]:  # 0x0: nobody knows; the container keeps its default
                return cells[0], cells[1]
        return None

    def attached(self, channel: _socket.socket) -> Terminal:
        self._channel = channel.detach()
        return self

    def __enter__(self) -> Terminal:
        if os.isatty(0):
            self._saved = termios.tcgetattr(0)
            atexit.register(self.restore)
            _tty.setraw(0, termios.TCSADRAIN)
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.restore()
        for fd in (self._master, self._channel):
            if fd >= 0:
                os.close(fd)
        self._master = self._channel = -1

    def restore(self) -> None:
        """Put the caller's terminal back as it was; does nothing the second time."""
        if self._saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self._saved)
            self._saved = None
            atexit.unregister(self.restore)

    def register(self, poll: select.poll) -> None:
        """Say what this waits for now."""
        if self._channel >= 0:
            poll.register(self._channel, select.POLLIN)
        if self._master >= 0:
            poll.register(self._master, select.POLLIN | (select.POLLOUT if self._to_container else 0))
            if self._stdin_open and len(self._to_container) < _BACKLOG_LIMIT:
                poll.register(0, select.POLLIN)
            else:
                _unregister(poll, 0)

    def ready(self, fd: int, poll: select.poll) -> None:
        """Something happened on one of our descriptors."""
        if fd == self._channel:
            self._take_master(poll)
        elif fd == 0:
            self._from_user()
        elif fd == self._master:
            self._push()
            if not self._pull():
                _unregister(poll, self._master)
                os.close(self._master)
                self._master = -1
                _unregister(poll, 0)

    def _take_master(self, poll: select.poll) -> None:
        import _socket

        sock = _socket.socket(fileno=self._channel)
        try:
            _, ancillary, _, _ = sock.recvmsg(16, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        except OSError:
            ancillary = []
        finally:
            sock.detach()
        _unregister(poll, self._channel)
        os.close(self._channel)
        self._channel = -1
        for _level, _kind, data in ancillary:
            self._master = array.array("i", data[:4])[0]
            os.set_blocking(self._master, False)

    def _from_user(self) -> None:
        try:
            data = os.read(0, _CHUNK)
        except OSError:
            data = b""
        if not data:
            self._stdin_open = False
            data = b"\x04"  # end of file, as a terminal says it
        self._to_container += data
        self._push()

    def _push(self) -> None:
        if self._to_container and self._master >= 0:
            try:
                sent = os.write(self._master, self._to_container)
            except (BlockingIOError, OSError):
                return
            self._to_container = self._to_container[sent:]

    def _pull(self) -> bool:
        """Bytes of the container to our stdout; False at its end."""
        try:
            data = os.read(self._master, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False  # EIO: the last slave is closed
        _write_all(1, data)
        return bool(data)

    def drain(self) -> None:
        """What is still in the pseudo-terminal when the container has ended."""
        if self._master < 0 and self._channel >= 0:
            self._take_master(select.poll())
        while self._master >= 0:
            try:
                data = os.read(self._master, _CHUNK)
            except OSError:
                return
            if not data:
                return
            _write_all(1, data)

    def resize(self) -> None:
        size = self._outer_size()
        if size and self._master >= 0:
            fcntl.ioctl(self._master, abi.TIOCSWINSZ, array.array("H", (*size, 0, 0)))


def _unregister(poll: select.poll, fd: int) -> None:
    try:
        poll.unregister(fd)
    except (KeyError, ValueError):
        pass


def _write_all(fd: int, data: bytes) -> None:
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:
            select.select((), (fd,), ())
