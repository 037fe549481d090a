"""A descriptor that everybody writes to and perhaps nobody reads: whole writes, in their order, without a wait in the loop.

What the reader does not take yet is kept, up to a bound that holds back whoever writes more. A reader that takes nothing is
waited for without end, until somebody wants to end: `hurry`. Nothing here changes the flags of the descriptor, which
others share: a pipe or a terminal is opened once more, non-blocking.

On a terminal some lines may stand below everything else. The cursor waits at their beginning, so that they are taken away by
erasing what follows it, whatever became of them when the terminal was resized; and what comes meanwhile is shown thirty
times a second, in one write with those lines, so that they do not flicker.
"""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections import deque

from guntainer import nonblocking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from queue import SimpleQueue
    from typing import Protocol

    class Door(Protocol):
        """A way to write to a descriptor that never blocks the caller."""

        def write(self, data: memoryview) -> int:
            """Write some of it; BlockingIOError: nothing now, ask with `wait`."""

        def wait(self, loop: asyncio.AbstractEventLoop, ready: Callable[[], None]) -> None:
            """Call `ready`, once or more, when it is worth another try, until `rest`."""

        def rest(self) -> None: ...

        def close(self) -> None: ...


MOST = 256 << 10
"""Bytes that may pend before a writer is held back: enough to keep a quick reader busy, soon shown by a slow one."""
PATIENCE_S = (2.0, 0.1)
"""How long a reader may take nothing after the first call of `hurry`, and after the second."""
_THREAD_PIECE = 64 << 10
_ERASE = b"\r\x1b[J"
_TOGETHER_S = 1 / 30
_TOGETHER_BYTES = 64 << 10


class Screen:
    """What several jobs are shown on.

    Args:
        fd: the descriptor; it stays the caller's.
        lost: called once, when nothing can be written any more: BrokenPipeError where the reader has left.
    """

    def __init__(self, fd: int, lost: Callable[[OSError], None] | None = None) -> None:
        self.lost = lost
        self.gone = False
        """Nothing is written any more, everything is dropped."""
        self._door = _door(fd)
        self._pending: deque[memoryview] = deque()
        self._size = 0
        self._blocked = False
        self._paused = False
        self._since = 0.0
        self._patience_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiters: list[asyncio.Future[None]] = []
        self._at_start = True
        self._footer = b""
        """What stands below everything else, as it is drawn."""
        self._drawn = False
        self._held: list[bytes] = []
        """What is shown together with the next drawing of that."""
        self._releasing: asyncio.TimerHandle | None = None
        self.put_at = time.monotonic()
        """When something was shown for the last time, but for those lines."""

    def __repr__(self) -> str:
        return f"Screen(pending={self._size}, blocked={self._blocked}, gone={self.gone})"

    async def write(self, data: bytes) -> None:
        """Show bytes; waits first while too much is pending."""
        if data:
            await self._below(MOST)
            self.put(data)

    async def room(self) -> None:
        """Wait while too much is pending."""
        await self._below(MOST)

    def put(self, data: bytes) -> None:
        """Show bytes, however much is pending: for what is short."""
        if not data or self.gone:
            return
        self.put_at = time.monotonic()
        self._at_start = data.endswith(b"\n")
        if not self._drawn:
            self._add(data)
            return
        self._held.append(data)
        self._size += len(data)
        if self._releasing is None:
            self._releasing = asyncio.get_running_loop().call_later(_TOGETHER_S, self._release)
        if self._size >= _TOGETHER_BYTES:
            self._release()

    def footer(self, lines: Sequence[bytes]) -> None:
        """Lines of a terminal to show below everything else until the next call; without any they are taken away.

        Not shown while something is pending, nor in the middle of another line. None may be wider than the terminal: what is
        would be cut by it.
        """
        # without wrapping: one row too many and the cursor would not find its way back
        up = b"\x1b[%dA" % (len(lines) - 1) if len(lines) > 1 else b""
        text = b"\x1b[K\r\n".join(lines)
        self._footer = b"\r\x1b[?7l" + text + b"\x1b[J" + up + b"\r\x1b[?7h" if lines else b""
        if self._held or (self._drawn and not lines):
            self._release()
        elif self._has_room():
            self._drawn = True
            self._add(self._footer)

    def _has_room(self) -> bool:
        return bool(self._footer) and self._at_start and not self._pending

    def _release(self) -> None:
        """Show what was held, and the lines below again."""
        if self._releasing is not None:
            self._releasing.cancel()
            self._releasing = None
        data = b"".join(self._held)
        self._held.clear()
        self._size -= len(data)
        if self._drawn:
            data = _ERASE + data
        self._drawn = self._has_room()
        if data:
            self._add(data + self._footer if self._drawn else data)

    async def flush(self) -> None:
        """Wait until the reader has taken everything, or is not waited for any more."""
        if self._held:
            self._release()
        await self._below(0)

    def pause(self) -> None:
        """Show nothing until `resume`: somebody else has the terminal. What comes meanwhile is kept, within the bound."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        if not self._blocked:
            self._go()

    def hurry(self) -> None:
        """Somebody wants an end: wait no longer for a reader that takes nothing. The second time hardly at all."""
        first = self._patience_s is None
        self._patience_s = PATIENCE_S[0 if first else 1]
        if self._blocked:
            if first:
                self._since = asyncio.get_running_loop().time()
            self._look()

    def close(self) -> None:
        """Drop what is pending, and close what was opened here."""
        if self._drawn or self._held:
            self.footer(())
        self._drop()
        self._door.close()

    def _add(self, data: bytes) -> None:
        if self.gone:
            return
        self._pending.append(memoryview(data))
        self._size += len(data)
        if not self._blocked:
            self._go()

    def _go(self) -> None:
        """Write what the reader takes."""
        if self._paused:
            return
        before = self._size
        try:
            while self._pending:
                self._sent(self._door.write(self._pending[0]))
        except BlockingIOError:
            self._block(moved=self._size < before)
            return
        except OSError as error:
            self._drop()
            if self.lost is not None:
                self.lost(error)
            return
        self._unblock()

    def _sent(self, count: int) -> None:
        rest = self._pending[0][count:]
        if rest:
            self._pending[0] = rest
        else:
            self._pending.popleft()
        self._size -= count
        if self._size <= MOST:
            self._wake()

    def _block(self, *, moved: bool) -> None:
        loop = asyncio.get_running_loop()
        if moved or not self._blocked:
            self._since = loop.time()
        if not self._blocked:
            self._blocked = True
            self._door.wait(loop, self._go)
        if self._patience_s is not None and self._timer is None:
            self._look()

    def _unblock(self) -> None:
        if self._blocked:
            self._blocked = False
            self._door.rest()

    def _look(self) -> None:
        """Give a reader up that has taken nothing for too long; else look again later."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._blocked or self._patience_s is None:
            return
        loop = asyncio.get_running_loop()
        left_s = self._since + self._patience_s - loop.time()
        if left_s <= 0:
            self._drop()
        else:
            self._timer = loop.call_later(left_s, self._look)

    def _drop(self) -> None:
        self.gone = True
        self._pending.clear()
        self._held.clear()
        if self._releasing is not None:
            self._releasing.cancel()
            self._releasing = None
        self._size = 0
        self._unblock()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    async def _below(self, most: int) -> None:
        while self._size > most and not self.gone:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter


def _door(fd: int) -> Door:
    """The cheapest way in that never blocks."""
    mode = os.fstat(fd).st_mode
    if stat.S_ISSOCK(mode):
        return _Socket(fd)
    if not stat.S_ISFIFO(mode) and not os.isatty(fd):
        return _Plain(fd)  # a file, /dev/null: write(2) does not wait for anybody
    own = nonblocking.reopened(fd, os.O_WRONLY)
    return _Reopened(own) if own >= 0 else _Thread(fd)


class _Plain:
    """A descriptor that does not block anyway."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._loop: asyncio.AbstractEventLoop | None = None

    def write(self, data: memoryview) -> int:
        return os.write(self._fd, data)

    def wait(self, loop: asyncio.AbstractEventLoop, ready: Callable[[], None]) -> None:
        self._loop = loop
        loop.add_writer(self._fd, ready)

    def rest(self) -> None:
        if self._loop is not None:
            self._loop.remove_writer(self._fd)
            self._loop = None

    def close(self) -> None:
        self.rest()


class _Reopened(_Plain):
    """A pipe or a terminal in an open file description of our own."""

    def close(self) -> None:
        super().close()
        os.close(self._fd)


class _Socket(_Plain):
    """A socket can not be opened again, but each send(2) says for itself that it must not wait."""

    def __init__(self, fd: int) -> None:
        import _socket

        super().__init__(fd)
        self._socket = _socket.socket(fileno=os.dup(fd))
        self._flags = _socket.MSG_DONTWAIT | _socket.MSG_NOSIGNAL

    def write(self, data: memoryview) -> int:
        return self._socket.send(data, self._flags)

    def close(self) -> None:
        super().close()
        self._socket.close()


class _Thread:
    """The last resort: a thread that blocks for us, one piece at a time. Nobody waits for it at the end."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._ready: Callable[[], None] | None = None
        self._answer: int | OSError | None = None
        self._pieces: SimpleQueue[memoryview] | None = None

    def write(self, data: memoryview) -> int:
        answer, self._answer = self._answer, None
        if isinstance(answer, OSError):
            raise answer
        if answer is not None:
            return answer
        if self._pieces is None and not self._start():
            return os.write(self._fd, data)
        assert self._pieces is not None
        self._pieces.put(data[:_THREAD_PIECE])
        raise BlockingIOError

    def wait(self, loop: asyncio.AbstractEventLoop, ready: Callable[[], None]) -> None:
        self._ready = ready

    def rest(self) -> None:
        self._ready = None

    def close(self) -> None:
        self.rest()

    def _start(self) -> bool:
        """False where no more threads are allowed (RLIMIT_NPROC, pids.max): better to wait then than to say nothing."""
        import queue
        import threading

        pieces: SimpleQueue[memoryview] = queue.SimpleQueue()
        loop = asyncio.get_running_loop()
        try:
            threading.Thread(target=self._work, args=(loop, pieces), daemon=True).start()
        except RuntimeError:
            return False
        self._pieces = pieces
        return True

    def _work(self, loop: asyncio.AbstractEventLoop, pieces: SimpleQueue[memoryview]) -> None:
        while True:
            piece = pieces.get()
            answer: int | OSError
            try:
                answer = os.write(self._fd, piece)
            except OSError as error:
                answer = error
            try:
                loop.call_soon_threadsafe(self._done, answer)
            except RuntimeError:
                return  # the loop is closed: nobody asks any more

    def _done(self, answer: int | OSError) -> None:
        self._answer = answer
        if self._ready is not None:
            self._ready()
