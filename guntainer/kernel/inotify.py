"""Be told of changes in folders and files: inotify(7)."""

from __future__ import annotations

import ctypes
import os
import struct

_libc = ctypes.PyDLL(None, use_errno=True)

_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_MODIFY, _ATTRIB, _CLOSE_WRITE, _MOVED, _CREATE, _DELETE = 0x2, 0x4, 0x8, 0xC0, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_OVERFLOW, _IGNORED, _ISDIR = 0x4000, 0x8000, 0x40000000
_DONT_FOLLOW = 0x02000000
_CHANGES = _MODIFY | _ATTRIB | _CLOSE_WRITE | _MOVED | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_HEAD = struct.Struct("iIII")
_MOST = 64 << 10


class Inotify:
    """Watches folders, each by itself, not those in it.

    Raises:
        OSError: ENOSPC or EMFILE: the user has too many watches or instances already.
    """

    def __init__(self) -> None:
        self.fd: int = _libc.inotify_init1(_NONBLOCK | _CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        self._folders: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._folders)

    def watch(self, path: str) -> None:
        """Raises OSError: it is not there, or there are too many watches (fs.inotify.max_user_watches)."""
        watch = _libc.inotify_add_watch(self.fd, os.fsencode(path), ctypes.c_uint32(_CHANGES | _DONT_FOLLOW))
        if watch < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
        self._folders[watch] = path

    def changes(self) -> list[tuple[str, bool]]:
        """What has changed since the last call: (path, whether it is a folder); ("", False): more than anybody kept count of."""
        found: list[tuple[str, bool]] = []
        while True:
            try:
                data = os.read(self.fd, _MOST)
            except BlockingIOError:
                return found
            at = 0
            while at < len(data):
                watch, mask, _, length = _HEAD.unpack_from(data, at)
                name = data[at + _HEAD.size : at + _HEAD.size + length].rstrip(b"\0")
                at += _HEAD.size + length
                if mask & _OVERFLOW:
                    found.append(("", False))
                elif not mask & _IGNORED and watch in self._folders:
                    folder = self._folders[watch]
                    path = f"{folder}/{os.fsdecode(name)}" if name else folder
                    found.append((path, bool(mask & _ISDIR) or not name))

    def close(self) -> None:
        os.close(self.fd)
