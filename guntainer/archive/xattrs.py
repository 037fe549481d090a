"""Extended attributes and ACLs of an archive's entries: which of them a rootfs gets, xattr(7), acl(5).

    user.*                kept, but for user.overlay.*: it would tell the kernel how to merge folders
    security.capability   kept where the kernel lets us: in a range of ids, bound to its root
    all others, ACLs      left out and counted: what they say is of the host that they come from

What a file system does not take is left out and counted as well: it may know no attributes at all.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.archive.calls import Calls

    Attributes = list[tuple[bytes, bytes]]

_CAPABILITY = b"security.capability"
_USER = b"user."
_OVERLAY = (b"user.overlay", b"user.overlay.")
_FOLDER, _FILE = 0o040000, 0o100000


class Xattrs:
    """Reads them from libarchive's entries and sets them."""

    def __init__(self, ffi: Any, calls: Calls) -> None:
        entry = ffi.c_archive_entry_p
        self._count = calls.entry_xattr_reset
        self._next = ffi.ffi(
            "entry_xattr_next",
            [entry, *map(ctypes.POINTER, (ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t))],
            ctypes.c_int,
        )
        self._acl_types = calls.entry_acl_types
        self.left_out = 0
        """Attributes that no file of the rootfs has."""
        self.acls = 0
        """Entries that had an ACL."""

    def of(self, entry: Any, kind: int) -> Attributes | None:
        """Those of an entry that are to be set: of a regular file, of a folder; None: none."""
        if self._acl_types(entry):
            self.acls += 1
        if not self._count(entry):
            return None
        name, value, size = ctypes.c_char_p(), ctypes.c_void_p(), ctypes.c_size_t()
        kept = []
        while self._next(entry, name, value, size) == 0:
            if _is_kept(name.value or b"", kind):
                kept.append((name.value or b"", ctypes.string_at(value.value, size.value) if value.value else b""))
            else:
                self.left_out += 1
        return kept or None

    def put(self, fd: int, attributes: Attributes) -> None:
        """Set them, after the owner, whose change would take capabilities away."""
        for name, value in attributes:
            try:
                os.setxattr(fd, name, value)
            except (OSError, ValueError):
                self.left_out += 1


def _is_kept(name: bytes, kind: int) -> bool:
    if name == _CAPABILITY:
        return kind == _FILE
    return (
        name.startswith(_USER) and kind in (_FILE, _FOLDER) and not name.startswith(_OVERLAY[1]) and name != _OVERLAY[0]
    )
