"""libarchive, as a table of functions: libarchive-c's own, loaded without what that would bring along.

libarchive-c's readers and writers are not used: their flags do not stop every escape, and they would double the start.
"""

from __future__ import annotations

import _locale
import ctypes
import os
import sys

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PACKAGES = "libarchive13 (Debian, Ubuntu) or libarchive (Fedora, Arch, Alpine)"


def load_libarchive() -> Any:
    """libarchive-c's function table.

    Raises:
        HostError: the library is missing; names its package.
    """
    for name in ("libarchive.so.13", "libarchive.so"):
        try:
            ctypes.CDLL(name)
        except OSError:
            continue
        os.environ.setdefault("LIBARCHIVE", name)  # or libarchive-c would start ldconfig to find it
        break
    try:
        from libarchive import ffi
    except (ImportError, AttributeError, OSError, TypeError):
        raise errors.HostError(
            "libarchive was not found on this host", hint=f"install the package {_PACKAGES}", probe="libarchive"
        ) from None
    import logging

    logging.getLogger("libarchive").disabled = True  # warnings are counted here, not printed there
    return ffi


FORMATS = ("tar", "cpio", "zip", "7zip")
FILTERS = ("gzip", "bzip2", "xz", "zstd", "lz4", "lzma")
"""What a rootfs archive may be, as archive_read_support_format_* and archive_read_support_filter_* name it."""
MEMORY_BYTES = 1 << 30
"""What an unpacker may take. Real archives need 10 MiB, or what their compression keeps: 64 after `xz -9`, 128 after `zstd --long`."""
TOO_MUCH_MEMORY = f"takes more than {MEMORY_BYTES >> 30} GiB of memory to be read"
_OK = 0


def abilities() -> tuple[str, tuple[str, ...]]:
    """(the version, those of FORMATS and FILTERS that this build of the library can not read by itself).

    Raises:
        HostError: the library is missing.
    """
    ffi = load_libarchive()
    library = ffi.libarchive
    library.archive_read_new.restype = ctypes.c_void_p
    number = int(library.archive_version_number())
    reader = ctypes.c_void_p(library.archive_read_new())
    lacking = []
    for kind, names in (("format", FORMATS), ("filter", FILTERS)):
        for name in names:
            support = getattr(library, f"archive_read_support_{kind}_{name}", None)
            # ARCHIVE_WARN: it would start a program for it
            if support is None or support(reader) != _OK:
                lacking.append(name)
    library.archive_read_free(reader)
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}", tuple(lacking)


class _Silent:
    """A logger: every method there may be takes everything and does nothing."""

    def __getattr__(self, _name: str) -> Any:
        return lambda *_args, **_settings: None


def prepare_process() -> None:
    """For a process that does nothing but unpack: a light start, and names as the archive has them.

    Stand-ins for modules that libarchive-c imports at its start and that are not used here: logging for a warning that is
    switched off, ctypes.util, and with it subprocess and shutil, for a search that `load_libarchive` has made unnecessary,
    the package's own front for its readers and writers.
    """
    import types
    from importlib.machinery import PathFinder

    try:
        # libarchive hands out names in the locale's encoding, zip and 7z have them in Unicode: LC_ALL=C would lose them
        _locale.setlocale(_locale.LC_CTYPE, "C.UTF-8")
    except _locale.Error:  # type: ignore[attr-defined]
        pass  # a C library without it; the user's own is most likely UTF-8
    found = PathFinder.find_spec("libarchive")
    if "libarchive" not in sys.modules and found is not None:
        package: Any = types.ModuleType("libarchive")
        package.__path__ = found.submodule_search_locations
        sys.modules["libarchive"] = package

    if "ctypes.util" not in sys.modules:
        util: Any = types.ModuleType("ctypes.util")
        util.find_library = lambda _name: None
        sys.modules["ctypes.util"] = util
    if "logging" not in sys.modules:
        logging: Any = types.ModuleType("logging")
        logging.getLogger = lambda _name: _Silent()
        sys.modules["logging"] = logging


def text_of(error: Exception) -> str:
    """What libarchive says of an error, on one line."""
    text = getattr(error, "msg", "")
    if text is None:
        return "truncated"  # where bytes are missing, many of its readers say only that they failed
    text = text or str(error)
    if isinstance(text, bytes):
        text = text.decode(errors="replace")
    line = " ".join(str(text).split())
    return TOO_MUCH_MEMORY if "allocate" in line or "out of memory" in line.lower() else line
