"""The caller's terminal in raw mode, and as it was afterwards: termios(3).

A terminal may vanish at any moment: then nothing here raises, because whoever reads from it finds that out.
"""

from __future__ import annotations

import errno
import os
import termios
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class RawMode:
    """The settings of the terminal behind a descriptor; of anything else, nothing."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._saved: list[Any] | None = None
        self._in_foreground = False
        self.is_terminal = os.isatty(fd)

    def enter(self, given_up: Callable[[], bool]) -> None:
        """Set raw mode; in the background this stops, by SIGTTOU, until `fg`.

        Args:
            given_up: asked whenever a signal has come meanwhile; true ends the attempt.
        """
        if not self.is_terminal:
            return
        try:
            self._saved = termios.tcgetattr(self._fd)
        except termios.error:
            return
        while not self._set_raw():
            if given_up():
                self._saved = None  # it is as it was
                return
        self._in_foreground = not self._in_background()

    def _set_raw(self) -> bool:
        """False where a signal came instead: SIGCONT after a stop, above all."""
        try:
            # At once: waiting for the output (TCSADRAIN) would mean waiting for a reader that may not read.
            tty.setraw(self._fd, termios.TCSANOW)
        except termios.error as error:
            return bool(error.args[0] != errno.EINTR)
        return True

    def resume(self) -> None:
        """After SIGCONT: the shell has had the terminal, in its own mode."""
        if self._saved is not None and not self._in_background():
            self._set_raw()
            self._in_foreground = True

    def restore(self) -> None:
        """Put the terminal back as it was; does nothing the second time."""
        saved, self._saved = self._saved, None
        if saved is None or (self._in_foreground and self._in_background()):
            return  # moved to the background: its settings are somebody else's by now
        while True:
            try:
                termios.tcsetattr(self._fd, termios.TCSANOW, saved)
            except termios.error as error:
                if error.args[0] == errno.EINTR:
                    continue
            return

    def _in_background(self) -> bool:
        try:
            return os.tcgetpgrp(self._fd) != os.getpgrp()
        except OSError:
            return False  # not the terminal of our session
