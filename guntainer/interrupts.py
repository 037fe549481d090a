"""SIGINT, SIGTERM and SIGHUP of a process that has no event loop: the first one raises, wherever it is, so that everything
that was begun is ended by its `finally`; those after it are ignored, because from then on there is only clean-up.

While a poll loop runs, signals come through a SignalPipe instead; the supervisor's event loop has handlers of its own.
"""

from __future__ import annotations

import _signal
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SIGNALS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)
_LEFT_IGNORED = (*SIGNALS, _signal.SIGQUIT)


class Interrupted(BaseException):
    """One of SIGNALS has come; the program ends with 128+n, as sh(1)."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def install() -> None:
    """Let the first signal raise Interrupted; what is ignored, as SIGHUP under nohup(1), stays so.

    But not SIGCHLD, as some callers leave it: nobody could wait for a child, wait(2).
    """
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    for number in SIGNALS:
        if _signal.getsignal(number) is not _signal.SIG_IGN:
            _signal.signal(number, _raise)


def _raise(number: int, _frame: object) -> None:
    ignore()
    raise Interrupted(number)


def ignore() -> None:
    """Nothing is left to do but to clean up, which is short, and is done to its end."""
    for number in SIGNALS:
        _signal.signal(number, _signal.SIG_IGN)


class held:  # noqa: N801 - used as a function
    """`with held():` signals wait until the end: what is begun in between has its owner by then."""

    def __enter__(self) -> None:
        self._before = _signal.pthread_sigmask(_signal.SIG_BLOCK, SIGNALS)

    def __exit__(self, *_: object) -> None:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, self._before)


class SignalPipe:
    """Signals as bytes in a pipe, for a poll loop: signal.set_wakeup_fd. `with` it; afterwards all is as it was before.

    Args:
        numbers: of the signals. Those that are ignored stay so, if they would end us: nohup(1), and what a shell starts in the
            background.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = numbers
        self._before: dict[int, object] = {}
        self._seen = b""

    def __enter__(self) -> SignalPipe:
        self.fd, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._fd_before = _signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._numbers:
            if number not in _LEFT_IGNORED or _signal.getsignal(number) is not _signal.SIG_IGN:
                self._before[number] = _signal.signal(number, lambda *_: None)
        return self

    def take(self) -> bytes:
        """The numbers that have come, each as often as it has."""
        numbers, self._seen = self._seen + self._read(), b""
        return numbers

    def ending(self) -> bool:
        """Whether one has come that asks for the end; it can still be taken."""
        self._seen += self._read()
        return any(number in self._seen for number in SIGNALS)

    def _read(self) -> bytes:
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            _signal.signal(number, handler)
        _signal.set_wakeup_fd(self._fd_before)
        os.close(self.fd)
        os.close(self._write)
