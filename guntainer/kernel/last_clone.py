"""Whom a fork helper has cloned last, and for which launch: in memory that its supervisor can read when it has died.

The kernel writes the process id before the clone runs (CLONE_PARENT_SETTID), so there is no moment at which a container is
there and nobody could find it.

    memory:  launch id, process id; 0: not cloned yet
"""

from __future__ import annotations

import ctypes
import mmap
import os
import struct

from guntainer.kernel import syscalls

_LAYOUT = struct.Struct("=qi4x")  # as `_Cells`


class _Cells(ctypes.Structure):
    _fields_ = (("launch_id", ctypes.c_int64), ("pid", ctypes.c_int32))


class LastClone:
    """The helper's side.

    Args:
        fd: of the memory, from `shared`; it is closed.
    """

    def __init__(self, fd: int) -> None:
        self._memory = mmap.mmap(fd, _LAYOUT.size)
        os.close(fd)
        self._memory.madvise(mmap.MADV_DONTFORK)  # no clone with memory of its own has it
        self._cells = _Cells.from_buffer(self._memory)
        syscalls.clone_args.parent_tid = ctypes.addressof(self._cells) + _Cells.pid.offset

    def begin(self, launch_id: int) -> None:
        """The clone that comes next, with CLONE_PARENT_SETTID, is for this launch."""
        self._cells.pid = 0
        self._cells.launch_id = launch_id


def shared() -> int:
    """A descriptor of such memory, close-on-exec: memfd_create(2)."""
    fd = os.memfd_create("clone")
    try:
        os.pwrite(fd, bytes(_LAYOUT.size), 0)
    except OSError:
        os.close(fd)
        raise
    return fd


def read(fd: int) -> tuple[int, int]:
    """(launch id, process id), zeros where there was no launch; once the helper is dead, it is the last word."""
    launch_id, pid = _LAYOUT.unpack(os.pread(fd, _LAYOUT.size, 0))
    return launch_id, pid
