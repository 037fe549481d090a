"""The few functions of libarchive that are called for every entry, bound so that a call costs as little as it can.

libarchive-c's own give the interpreter's lock up and look at each result by a Python function. What only reads a value from
an entry keeps the lock here; what may wait for the feeder gives it up, and whoever calls it looks at the result.
"""

from __future__ import annotations

import ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any


class Calls:
    """Functions of libarchive, named as there without `archive_`.

    Args:
        ffi: libarchive-c's table.
    """

    def __init__(self, ffi: Any) -> None:
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
        self.entry_perm = bind(keeping, "entry_perm", number, pointer)
        self.entry_filetype = bind(keeping, "entry_filetype", number, pointer)
        self.entry_size = bind(keeping, "entry_size", whole, pointer)
        self.entry_uid = bind(keeping, "entry_uid", whole, pointer)
        self.entry_gid = bind(keeping, "entry_gid", whole, pointer)
        self.entry_mtime = bind(keeping, "entry_mtime", ffi.c_time_t, pointer)
        self.entry_mtime_nsec = bind(keeping, "entry_mtime_nsec", ctypes.c_long, pointer)
        self.entry_mtime_is_set = bind(keeping, "entry_mtime_is_set", number, pointer)
        self.entry_acl_types = bind(keeping, "entry_acl_types", number, pointer)
        self.entry_xattr_reset = bind(keeping, "entry_xattr_reset", number, pointer)
