"""The few functions of libarchive that are called for every entry, bound so that a call costs as little as it can.

libarchive-c's own give the interpreter's lock up and look at each result by a Python function. What only reads a value from
an entry keeps the lock here; what may wait for the feeder gives it up, and whoever calls it looks at the result.
"""

from __future__ import annotations

import ctypes
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


# struct stat of stat(2), up to the mode of which the machines differ: mode, size, seconds and nanoseconds of the time
_STAT = {"x86_64": "=24xI20xq32xqq", "aarch64": "=16xI28xq32xqq", "riscv64": "=16xI28xq32xqq"}


class Calls:
    """Functions of libarchive, named as there without `archive_`.

    Args:
        ffi: libarchive-c's table.
    """

    def __init__(self, ffi: Any) -> None:
        self._ffi = ffi
        pointer, number, whole, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong, ctypes.c_char_p
        keeping = ctypes.PyDLL(None, handle=ffi.libarchive._handle)

        def bind(library: Any, name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
            function = library[f"archive_{name}"]  # an object of its own, other than by attribute
            function.restype, function.argtypes = result, arguments
            bound: Callable[..., Any] = function
            return bound

        self.read_next_header2 = bind(ffi.libarchive, "read_next_header2", number, pointer, pointer)
        self.read_data_block = bind(ffi.libarchive, "read_data_block", number, *[pointer] * 4)
        self.entry_pathname = bind(keeping, "entry_pathname", text, pointer)
        self.entry_hardlink = bind(keeping, "entry_hardlink", text, pointer)
        self.entry_uid = bind(keeping, "entry_uid", whole, pointer)
        self.entry_gid = bind(keeping, "entry_gid", whole, pointer)
        self.entry_mtime_is_set = bind(keeping, "entry_mtime_is_set", number, pointer)
        self.entry_acl_types = bind(keeping, "entry_acl_types", number, pointer)
        self._entry_stat = bind(keeping, "entry_stat", pointer, pointer)
        self.entry_xattr_reset = bind(keeping, "entry_xattr_reset", number, pointer)

    def status_of(self, entry: Any) -> Callable[[], tuple[int, int, int, int]]:
        """A function that tells of whatever `entry` holds just then: (mode with the type, size, seconds, nanoseconds).

        By archive_entry_stat(3) where the layout of struct stat is known here, else value by value.
        """
        layout = _STAT.get(os.uname().machine) if struct.calcsize("P") == 8 else None
        if layout is None:
            ffi = self._ffi
            ways = (ffi.entry_size, ffi.entry_mtime, ffi.entry_mtime_nsec)
            return lambda: (ffi.entry_perm(entry) | ffi.entry_filetype(entry), *(way(entry) for way in ways))
        status_of, unpack = self._entry_stat, struct.Struct(layout).unpack_from
        at = (ctypes.c_char * struct.calcsize(layout)).from_address

        def status() -> tuple[int, int, int, int]:
            place = status_of(entry)
            if place is None:
                raise MemoryError
            values: tuple[int, int, int, int] = unpack(at(place))
            return values

        return status
