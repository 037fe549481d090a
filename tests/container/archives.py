"""Archives for tests: from tarfile, from libarchive's writer, and by hand."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from pathlib import Path
from typing import Any

from guntainer.archive.library import load_libarchive

Entry = tuple[str, str, dict[str, object]]

_KINDS = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "sym": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}


def tar(path: Path, *entries: Entry, mode: str = "w", format_: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=format_) as archive:  # type: ignore[call-overload]
        for name, kind, more in entries:
            info = tarfile.TarInfo(name)
            data = more.get("data", b"")
            assert isinstance(data, bytes)
            info.type = _KINDS[kind]
            info.size = len(data)
            info.mode = int(more.get("mode", 0o755 if kind == "dir" else 0o644))  # type: ignore[call-overload]
            info.mtime = float(more.get("mtime", 1000))  # type: ignore[arg-type]
            info.linkname = str(more.get("to", ""))
            info.devmajor, info.devminor = 1, 3
            archive.addfile(info, io.BytesIO(data))
    return path


def write(path: Path, kind: str, compression: str | None, *entries: Entry) -> Path:
    """An archive of libarchive's writer."""
    ffi = load_libarchive()
    archive = ffi.write_new()
    ffi.get_write_format_function(kind)(archive)
    if compression is not None:
        ffi.get_write_filter_function(compression)(archive)
    ffi.write_open_filename(archive, os.fsencode(path))
    for entry in entries:
        _write_entry(ffi, archive, *entry)
    ffi.write_close(archive)
    ffi.write_free(archive)
    return path


def _write_entry(ffi: Any, archive: Any, name: str, kind: str, more: dict[str, Any]) -> None:
    entry = ffi.entry_new()
    kinds = {"file": stat.S_IFREG, "dir": stat.S_IFDIR, "sym": stat.S_IFLNK}
    data = more.get("data", b"")
    ffi.entry_copy_pathname(entry, os.fsencode(name))
    ffi.entry_set_filetype(entry, kinds[kind])
    ffi.entry_set_perm(entry, more.get("mode", 0o755 if kind == "dir" else 0o644))
    ffi.entry_set_mtime(entry, more.get("mtime", 1000), 0)
    ffi.entry_set_size(entry, len(data))
    if kind == "sym":
        ffi.ffi("entry_copy_symlink", [ffi.c_archive_entry_p, ffi.c_char_p], None)(entry, os.fsencode(more["to"]))
    ffi.write_header(archive, entry)
    if data:
        ffi.write_data(archive, data, len(data))
    ffi.write_finish_entry(archive)
    ffi.entry_free(entry)


def newc(*entries: tuple[str, int, int, int, bytes]) -> bytes:
    """A cpio, "new ASCII" (cpio(5)), of (name, inode, mode, links, data)."""
    out = b""
    for name, inode, mode, links, data in (*entries, ("TRAILER!!!", 0, 0, 1, b"")):
        raw = os.fsencode(name) + b"\0"
        fields = (inode, mode, 0, 0, links, 1000, len(data), 0, 0, 0, 0, len(raw), 0)
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + raw
        out += bytes(-len(out) % 4) + data
        out += bytes(-len(out) % 4)
    return out


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    found = {}
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = Path(folder) / name
            status = path.lstat()
            what: object = None
            if path.is_symlink():
                what = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                what = path.read_bytes()
            times = None if path.is_symlink() else status.st_mtime_ns
            found[str(path.relative_to(root))] = (
                oct(status.st_mode),
                what,
                times,
                status.st_nlink if stat.S_ISREG(status.st_mode) else 0,
            )
    return found
