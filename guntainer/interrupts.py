"""SIGINT, SIGTERM and SIGHUP of a process that has no event loop: the first one raises, wherever it is, so that everything
that was begun is ended by its `finally`; those after it are ignored, because from then on there is only clean-up.

The foreground's poll loop and the supervisor's event loop have handlers of their own while they run.
"""

from __future__ import annotations

import _signal

SIGNALS = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


class Interrupted(BaseException):
    """One of SIGNALS has come; the program ends with 128+n, as sh(1)."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def install() -> None:
    """Let the first signal raise Interrupted; what is ignored, as SIGHUP under nohup(1), stays so."""
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
