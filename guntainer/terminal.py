"""A real terminal outside, a pseudo-terminal inside: raw mode, size, bytes both ways, and everything put back.

Imported under `-t` only. Nothing here waits: what can not be read or written now is left for the next poll(2). The master is
not read while the caller has not taken what was read before, so a reader that stops stops the command, and nobody else.
"""

from __future__ import annotations

import _signal
import _socket
import array
import fcntl
import os
import select
import termios

from guntainer.kernel import abi
from guntainer.nonblocking import Outlet, reopened
from guntainer.rawmode import RawMode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_CHUNK = 1 << 16
_BACKLOG_LIMIT = 1 << 18  # bytes typed or piped that the container has not read yet
_DRAIN_S = 2.0
_EOF_FIRST_S = 0.05
_EOF_LONGEST_S = 1.0
_EOF_QUIET_S = 0.2  # that a program which reads key by key must have had for what came before
_EOF_LIMIT = 64
_KEYS = ((termios.VINTR, int(_signal.SIGINT)), (termios.VQUIT, int(_signal.SIGQUIT)))


class Terminal:
    """The caller's stdin and stdout, and the master of the container's pseudo-terminal.

    Args:
        channel: where the master comes from.
        typed: called with the signal that a key is about to send inside.
        lost: called with SIGHUP or SIGPIPE when nobody is left at the caller's end.
        later: calls a function after so many seconds, once.
    """

    def __init__(
        self,
        channel: _socket.socket,
        typed: Callable[[int], None],
        lost: Callable[[int], None],
        later: Callable[[Callable[[], None], float], None],
    ) -> None:
        self._channel = channel.detach()
        self._typed = typed
        self._lost = lost
        self._later = later
        self._master = -1
        self._slave = -1
        self._hung_up = False
        self._to_container = b""
        self._literal = b""
        self._eof_wait_s = _EOF_FIRST_S
        self._eofs = 0
        self._raw = RawMode(0)
        self._stdin = self._own_stdin = reopened(0, os.O_RDONLY)
        if self._own_stdin < 0:
            self._stdin = 0
        self._stdin_open = True
        self._outlet = Outlet(1)
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

    def enter(self, given_up: Callable[[], bool]) -> None:
        """Set the caller's terminal to raw mode, see RawMode."""
        self._raw.enter(given_up)

    def close(self) -> None:
        """Put the caller's terminal back as it was, and close what was opened here."""
        self._raw.restore()
        self._outlet.close()
        for fd in (self._own_stdin, self._slave, self._master, self._channel):
            if fd >= 0:
                os.close(fd)
        self._own_stdin = self._slave = self._master = self._channel = -1

    def register(self, poll: select.poll) -> None:
        """Say what this waits for now."""
        _wait_for(poll, self._channel, select.POLLIN)
        _wait_for(poll, self._outlet.fd, select.POLLOUT if self._outlet.pending else 0)
        reading = self._master >= 0 and self._stdin_open and len(self._to_container) < _BACKLOG_LIMIT
        _wait_for(poll, self._stdin, select.POLLIN if reading else 0)
        if not self._hung_up:
            events = 0 if self._outlet.pending else select.POLLIN
            _wait_for(poll, self._master, events | (select.POLLOUT if self._to_container else 0))

    def ready(self, fd: int, poll: select.poll) -> None:
        """Something happened on one of our descriptors."""
        if fd == self._channel:
            _wait_for(poll, fd, 0)
            self._take_master()
        elif fd == self._stdin:
            self._from_user()
        elif fd == self._outlet.fd:
            self._outlet.flush()
            self._look_for_loss()
        elif fd == self._master:
            self._push()
            if not self._outlet.pending and not self._pull():
                self._hung_up = True
                _wait_for(poll, fd, 0)

    def _take_master(self) -> None:
        sock = _socket.socket(fileno=self._channel)
        self._channel = -1
        try:
            _, ancillary, _, _ = sock.recvmsg(16, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
        except OSError:
            ancillary = []
        finally:
            sock.close()
        for _level, _kind, data in ancillary:
            self._master = array.array("i", data[:4])[0]
            os.set_blocking(self._master, False)
            self._hold_slave()
            if self._outer_size() != (self.rows, self.columns):
                self.resize()

    def _hold_slave(self) -> None:
        """A slave of our own: without one, the master fails when the container has closed its last, for a while or for ever."""
        try:
            how = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
            self._slave = fcntl.ioctl(self._master, abi.TIOCGPTPEER, how)
        except OSError:
            pass  # without it, then

    def _from_user(self) -> None:
        try:
            data = os.read(self._stdin, _CHUNK)
        except BlockingIOError:
            return  # another reader was faster
        except OSError:
            data = b""
        if data:
            self._to_container += data
            self._look_for_keys(data)
            self._push()
            return
        self._stdin_open = False
        if self._raw.is_terminal:
            self._lost(_signal.SIGHUP)  # raw mode knows no end of file: it was hung up
        else:
            self._eofs = _EOF_LIMIT
            self._say_end_of_file()

    def _look_for_keys(self, data: bytes) -> None:
        """Tell of the keys that the inner terminal makes signals of: ISIG of termios(3)."""
        mode = self._inner_mode()
        if mode is None or not mode[3] & termios.ISIG:
            self._literal = b""
            return
        lines = termios.ICANON | termios.IEXTEN
        next_is_literal = mode[6][termios.VLNEXT] if mode[3] & lines == lines else b""
        data = self._literal + data
        self._literal = data[-1:] if data[-1:] == next_is_literal else b""
        for index, number in _KEYS:
            key = mode[6][index]
            if next_is_literal:
                data = data.replace(next_is_literal + key, b"")
            if key != b"\0" and key in data:
                self._typed(number)

    def _inner_mode(self) -> list[Any] | None:
        """The settings of the slave, which the master shows."""
        try:
            return termios.tcgetattr(self._master)
        except termios.error:
            return None

    def foreground_group(self) -> int:
        """The process group inside that keys send signals to, as we number it; 0 where there is none."""
        try:
            return os.tcgetpgrp(self._master)
        except OSError:
            return 0

    def _say_end_of_file(self) -> None:
        """The end of a stdin that is no terminal, in the one way a terminal has: VEOF.

        The first one may only end a line that had no newline, and whoever reads after that is at the end as well: so it is
        said again, when what was said before has been read.
        """
        mode = self._inner_mode()
        if mode is None:
            return
        # A line editor, as shells have, reads key by key, and takes this one for the end on an empty line.
        reads_it = mode[3] & termios.ICANON or self._eof_wait_s > _EOF_QUIET_S
        if reads_it and not self._to_container and not self._unread_inside():
            self._to_container = mode[6][termios.VEOF]
            self._push()
            self._eofs -= 1
        if self._eofs:
            self._later(self._say_end_of_file, self._eof_wait_s)
            self._eof_wait_s = min(self._eof_wait_s * 2, _EOF_LONGEST_S)

    def _unread_inside(self) -> bool:
        if self._slave < 0:
            return False
        poll = select.poll()
        poll.register(self._slave, select.POLLIN)
        return bool(poll.poll(0))

    def _push(self) -> None:
        if self._to_container and self._master >= 0:
            try:
                sent = os.write(self._master, self._to_container)
            except BlockingIOError:
                sent = 0
            except OSError:
                sent = len(self._to_container)
            self._to_container = b"" if self._hung_up else self._to_container[sent:]

    def _pull(self) -> bool:
        """Bytes of the container to our stdout; False at its end."""
        try:
            data = os.read(self._master, _CHUNK)
        except BlockingIOError:
            return True
        except OSError:
            return False  # EIO: the last slave is closed
        self._outlet.write(data)
        self._look_for_loss()
        return bool(data)

    def _look_for_loss(self) -> None:
        if self._outlet.lost:
            self._lost(self._outlet.lost)

    def drain(self) -> None:
        """What is still in the pseudo-terminal when the container has ended, unless nobody reads it for DRAIN_S."""
        if self._channel >= 0:
            self._take_master()
        if self._slave >= 0:
            os.close(self._slave)  # so that the master says where the end is
            self._slave = -1
        while True:
            while self._outlet.pending:
                if not self._outlet.wait(_DRAIN_S):
                    return
            if self._master < 0 or not self._pull_last():
                return

    def _pull_last(self) -> bool:
        try:
            data = os.read(self._master, _CHUNK)
        except OSError:
            return False
        self._outlet.write(data)
        return bool(data) and not self._outlet.lost

    def resize(self) -> None:
        size = self._outer_size()
        if size and self._master >= 0:
            fcntl.ioctl(self._master, abi.TIOCSWINSZ, array.array("H", (*size, 0, 0)))

    def resume(self) -> None:
        """After SIGCONT: the terminal may have been the shell's, and have another size."""
        self._raw.resume()
        self.resize()


def _wait_for(poll: select.poll, fd: int, events: int) -> None:
    if fd >= 0 and events:
        poll.register(fd, events)
        return
    try:
        poll.unregister(fd)
    except (KeyError, ValueError):
        pass
