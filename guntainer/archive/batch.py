"""Small files, written many at a time by a second thread that needs neither the interpreter nor its lock.

What a small file costs is its system calls, and Python between them. Here a file is a row of a table (open, write, owner,
time, close), and a table of rows is run by `kernel.machine_code` while the next one is filled. Two tables take turns.

Each row is what `tree` would do by itself: a name without a slash in an open folder, which must not be there yet. Where a
row fails for whatever reason, the rows after it wait while the file is written in the ordinary way, which knows what to do
with names that are there, and has words for the rest. So a table is only ever a quicker way to the same.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import struct

from guntainer.kernel import abi, machine_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Owner = tuple[int, int] | None
    File = tuple[bytes, int, int, Owner, int, int]
    """Name in the archive, mode, time in ns, owner, where its bytes are in the table, how many."""

MOST_BYTES = 32 << 10
"""Of a file that is written here: what a copy of more would cost is more than the calls."""
_ROWS = 128
_DATA_BYTES = 2 << 20
_WORD = 8
# The words of a row: those that differ from file to file, those that stay, and its five calls of eight words each.
_FOLDER, _NAME, _MODE, _DATA, _LENGTH, _AFTER, _UID, _GID, _ATIME = range(9)
_FD, _RESULT, _TIMES, _FOLLOWING, _TO_WRITE, _TO_UTIME, _TO_CLOSE = range(12, 19)
_OPEN, _WRITE, _UTIME, _OWNER, _CLOSE = range(20, 60, 8)
_ROW_BYTES = 60 * _WORD
_set_row = struct.Struct("12q").pack_into
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SECOND = 1_000_000_000
NAME_MAX = 255


class _Table:
    """Rows, and the names and bytes that they point to."""

    def __init__(self) -> None:
        self.files: list[File] = []
        self.paths: set[bytes] = set()
        self.closing: list[int] = []
        """Descriptors of folders that nobody needs after this table."""
        self.used = 0
        self._block = (ctypes.c_char * ((_ROWS + 1) * _ROW_BYTES))()
        self._data = (ctypes.c_char * _DATA_BYTES)()
        self.address = ctypes.addressof(self._block)
        self.data_address = ctypes.addressof(self._data)
        self.words = memoryview(self._block).cast("B")
        self.data = memoryview(self._data).cast("B")
        self._constants = self.address + _ROWS * _ROW_BYTES
        struct.pack_into("2q", self.words, _ROWS * _ROW_BYTES, 0, _NEW)
        for row in range(_ROWS):
            self._lay_out(row)

    def _lay_out(self, row: int) -> None:
        """The words that stay."""

        def at(word: int) -> int:
            return self.address + row * _ROW_BYTES + word * _WORD

        zero, flags = self._constants, self._constants + _WORD
        number = abi.SYSCALLS
        fixed = (at(_ATIME), at(60 + _OPEN), at(_WRITE), at(_UTIME), at(_CLOSE), 0)
        calls = (
            (number["openat"], at(_FOLDER), at(_NAME), flags, at(_MODE), at(_FD), 0, at(_TO_WRITE)),
            (number["write"], at(_FD), at(_DATA), at(_LENGTH), zero, at(_RESULT), at(_LENGTH), at(_TO_UTIME)),
            (number["utimensat"], at(_FD), zero, at(_TIMES), zero, at(_RESULT), 0, at(_AFTER)),
            (number["fchown"], at(_FD), at(_UID), at(_GID), zero, at(_RESULT), 0, at(_TO_CLOSE)),
            (number["close"], at(_FD), zero, zero, zero, at(_RESULT), 0, at(_FOLLOWING)),
        )
        words = [-1, 0, *fixed, *(word for call in calls for word in call)]
        struct.pack_into(f"{len(words)}q", self.words, row * _ROW_BYTES + _FD * _WORD, *words)

    def add(self, folder: int, last: bytes, path: bytes, file: File) -> None:
        _, mode, mtime_ns, owner, at, size = file
        row = len(self.files) * _ROW_BYTES
        base = self.address + row
        name = at + size
        self.data[name : name + len(last) + 1] = last + b"\0"
        self.used = name + len(last) + 1
        seconds, ns = divmod(mtime_ns, _SECOND)
        uid, gid = owner or (0, 0)
        after = base + (_CLOSE if owner is None else _OWNER) * _WORD
        data = self.data_address
        _set_row(self.words, row, folder, data + name, mode, data + at, size, after, uid, gid, seconds, ns, seconds, ns)
        self.files.append(file)
        self.paths.add(path)

    def last_is(self, row: int, *, last: bool) -> None:
        """Whether the calls end after a row."""
        following = 0 if last else self.address + (row + 1) * _ROW_BYTES + _OPEN * _WORD
        struct.pack_into("q", self.words, row * _ROW_BYTES + _FOLLOWING * _WORD, following)

    def failed(self, where: int) -> tuple[int, int]:
        """(the row that a call belongs to, its descriptor, or -1 where it has none that is open)."""
        row, byte = divmod(where - self.address, _ROW_BYTES)
        if byte // _WORD in (_OPEN, _CLOSE):
            return row, -1
        fd: int = struct.unpack_from("q", self.words, row * _ROW_BYTES + _FD * _WORD)[0]
        return row, fd

    def start_of(self, row: int) -> int:
        return self.address + row * _ROW_BYTES + _OPEN * _WORD

    def clear(self) -> None:
        for fd in self.closing:
            os.close(fd)
        self.files.clear()
        self.paths.clear()
        self.closing.clear()
        self.used = 0


class Batch:
    """Files that are yet to be written.

    Args:
        anew: writes a file in the ordinary way, given its name, mode, time, owner, bytes; what it raises, comes out of here.
    """

    def __init__(self, run: Callable[[int], int], anew: Callable[[bytes, int, int, Owner, bytes], None]) -> None:
        self._run = run
        self._anew = anew
        self._filling, self._running = _Table(), _Table()
        self._busy = self._working = self._ended = False
        self._where = 0  # the call that the thread is to begin at, then the one at which it stopped
        self._go, self._done = _thread.allocate_lock(), _thread.allocate_lock()
        self._go.acquire()
        self._done.acquire()

    def __contains__(self, path: bytes) -> bool:
        """Whether a file with these parts, joined, is yet to be written."""
        return path in self._filling.paths or (self._busy and path in self._running.paths)

    def __bool__(self) -> bool:
        """Whether any is."""
        return self._busy or bool(self._filling.files)

    def place(self, size: int) -> int:
        """The address where the bytes of the next file are to be put, at most MOST_BYTES of them."""
        table = self._filling
        if len(table.files) == _ROWS or table.used + size + NAME_MAX + 1 > _DATA_BYTES:
            self._submit()
            table = self._filling
        return table.data_address + table.used

    def add(
        self, folder: int, last: bytes, path: bytes, name: bytes, mode: int, mtime_ns: int, owner: Owner, size: int
    ) -> None:
        """A file whose bytes are at `place`.

        Args:
            folder: an open folder; it stays open until `close_later` of it, and longer.
            last: its name in there.
            path: its parts, joined.
        """
        table = self._filling
        table.add(folder, last, path, (name, mode, mtime_ns, owner, table.used, size))

    def taken(self, size: int) -> bytes:
        """The bytes that were put at `place`, for who does not add them."""
        table = self._filling
        return bytes(table.data[table.used : table.used + size])

    def close_later(self, fd: int) -> None:
        """Close a folder when its files are written."""
        if self:
            self._filling.closing.append(fd)
        else:
            os.close(fd)

    def flush(self) -> None:
        """Write all."""
        self._submit()
        self._wait()

    def end(self) -> None:
        """The thread is over after this, and what was not written never is."""
        if self._busy:
            self._busy = False
            self._done.acquire()
        if self._working:
            self._ended = True
            self._go.release()
            self._working = False
        for table in (self._filling, self._running):
            table.clear()

    def _submit(self) -> None:
        self._wait()
        table = self._filling
        if not table.files:
            table.clear()
            return
        table.last_is(len(table.files) - 1, last=True)
        self._filling, self._running = self._running, table
        self._busy = True
        self._begin(table.start_of(0))

    def _begin(self, where: int) -> None:
        self._where = where
        if not self._working:
            try:
                _thread.start_new_thread(self._work, ())
                self._working = True
            except RuntimeError:  # no more threads are allowed: here and now
                self._where = self._run(where)
                self._done.release()
                return
        self._go.release()

    def _work(self) -> None:
        while True:
            self._go.acquire()
            if self._ended:
                return
            self._where = self._run(self._where)
            self._done.release()

    def _wait(self) -> None:
        """Wait for the table under way; what could not be written is written anew, in its turn."""
        if not self._busy:
            return
        self._done.acquire()
        self._busy = False
        table = self._running
        last = len(table.files) - 1
        while self._where:
            row, fd = table.failed(self._where)
            if fd >= 0:
                os.close(fd)
            name, mode, mtime_ns, owner, at, size = table.files[row]
            self._anew(name, mode, mtime_ns, owner, bytes(table.data[at : at + size]))
            self._where = 0 if row == last else self._run(table.start_of(row + 1))
        table.last_is(last, last=False)
        table.clear()


_machine: list[Callable[[int], int] | None] = []


def open_batch(folder: int, anew: Callable[[bytes, int, int, Owner, bytes], None]) -> Batch | None:
    """A batch for the files below an open folder.

    None where there is no machine code, or a file would not get the mode that it is made with: umask(2), acl(5).
    """
    if not _machine:
        _machine.append(machine_code.load_table())
    mask = os.umask(0)
    os.umask(mask)
    if _machine[0] is None or mask:
        return None
    try:
        os.getxattr(folder, "system.posix_acl_default")
    except OSError:
        return Batch(_machine[0], anew)
    return None
