"""Times before 1970 with a fraction, as libarchive gives them out: whole seconds, and nanoseconds to be added.

Its reader of pax headers takes `-1.5` for -1 s and 500,000,000 ns, which would be -0.5 s, in the versions up to now at least.
So it is asked for one that is known, when the first such time is met. What is between -1 and 0 can not be told from what is
between 0 and 1: it keeps no sign.
"""

from __future__ import annotations

import ctypes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_BLOCK = 512


def fraction_sign(ffi: Any) -> int:
    """What the nanoseconds of a pax header's time below zero are to be multiplied with."""
    data = _header(b"x", 14) + b"14 mtime=-1.5\n".ljust(_BLOCK, b"\0") + _header(b"0", 0) + bytes(2 * _BLOCK)
    kept = ctypes.create_string_buffer(data, len(data))
    archive, entry = ffi.read_new(), ffi.entry_new()
    try:
        ffi.get_read_format_function("tar")(archive)
        ffi.read_open_memory(archive, ctypes.addressof(kept), len(data))
        ffi.read_next_header2(archive, entry)
        return -1 if ffi.entry_mtime(entry) == -1 and ffi.entry_mtime_nsec(entry) else 1
    finally:
        ffi.entry_free(entry)
        ffi.read_free(archive)


def _header(kind: bytes, size: int) -> bytes:
    """A block as tar(5) has it."""
    fields = (b"f".ljust(100, b"\0"), b"0000644\0", b"0000000\0" * 2, b"%011o\0" % size, b"00000000000\0")
    before, after = b"".join(fields), kind.ljust(101, b"\0") + b"ustar\x0000"
    total = sum(before) + 8 * 32 + sum(after)
    return (before + b"%06o\0 " % total + after).ljust(_BLOCK, b"\0")
