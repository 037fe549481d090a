"""`guntainer pack`: a small rootfs archive from programs of this very machine, with the shared libraries that they need.

Programs are read, never run: the libraries come from their ELF headers (elf(5)), found as ld.so(8) would find them.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess

from guntainer import errors
from guntainer.archive.formats import TARS
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.archive.writing import Writer

_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_RPATH, _DT_RUNPATH = 1, 5, 15, 29
_LIBRARY_FOLDERS = ("/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib")
_EMPTY_FOLDERS = {
    "proc": 0o755,
    "sys": 0o755,
    "dev": 0o755,
    "run": 0o755,
    "root": 0o700,
    "tmp": 0o1777,
    "var/tmp": 0o1777,
    "etc": 0o755,
}
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}
_NAME_SERVICES = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2")  # opened by glibc by name, when first used

# suffix → (libarchive's format, filter)
FORMATS = {
    **{suffix: ("gnutar", filter_) for suffix, filter_ in TARS.items()},
    ".zip": ("zip", ""),
    ".cpio": ("cpio_newc", ""),
    ".7z": ("7zip", ""),
}


class Packed(Value):
    """What was packed."""

    path: str
    files: int = 0
    size_bytes: int = 0
    """Of the archive."""


class Elf(Value):
    """What an ELF file asks for."""

    interpreter: str = ""
    needed: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    """DT_RUNPATH, else DT_RPATH, as written."""
    machine: int = 0


def read_elf(path: str) -> Elf | None:
    """The loader, the libraries and the search path of an ELF file; None for any other file."""
    with open(path, "rb") as file:
        data = file.read()
    if data[:4] != b"\x7fELF" or len(data) < 64:
        return None
    order = "<" if data[5] == 1 else ">"
    wide = data[4] == 2
    header = struct.unpack_from(order + ("16xHHIQQQIHHH" if wide else "16xHHIIIIIHHH"), data)
    start, size, count = header[4], header[8], header[9]
    programs = []
    for number in range(count):
        at = start + number * size
        if wide:
            kind, _, offset, virtual, _, length = struct.unpack_from(order + "IIQQQQ", data, at)
        else:
            kind, offset, virtual, _, length = struct.unpack_from(order + "IIIII", data, at)
        programs.append((kind, offset, virtual, length))
    interpreter = next((data[o : o + n].rstrip(b"\0").decode() for k, o, _, n in programs if k == _PT_INTERP), "")
    entries = next(((o, n) for k, o, _, n in programs if k == _PT_DYNAMIC), None)
    if entries is None:
        return Elf(interpreter=interpreter, machine=header[1])
    step = order + ("qQ" if wide else "iI")
    dynamic = [
        struct.unpack_from(step, data, at) for at in range(entries[0], entries[0] + entries[1], struct.calcsize(step))
    ]
    table = next((value for tag, value in dynamic if tag == _DT_STRTAB), 0)
    base = next((o + table - v for k, o, v, n in programs if k == _PT_LOAD and v <= table < v + n), 0)

    def text(at: int) -> str:
        return data[base + at : data.index(b"\0", base + at)].decode()

    needed = tuple(text(value) for tag, value in dynamic if tag == _DT_NEEDED)
    found = [text(v) for t, v in dynamic if t == _DT_RUNPATH] or [text(v) for t, v in dynamic if t == _DT_RPATH]
    return Elf(
        interpreter=interpreter,
        needed=needed,
        search=tuple(":".join(found).split(":")) if found else (),
        machine=header[1],
    )


def _cache() -> dict[str, str]:
    """Library name → path, as `ldconfig -p` lists ld.so's cache; {} where there is none (musl)."""
    program = shutil.which("ldconfig", path="/sbin:/usr/sbin:/bin:/usr/bin")
    if program is None:
        return {}
    done = subprocess.run([program, "-p"], capture_output=True, text=True, check=False)
    found: dict[str, str] = {}
    for line in done.stdout.splitlines():
        name, arrow, path = line.strip().partition(" => ")
        if arrow:
            found.setdefault(name.split(" ")[0], path)
    return found


class _Collection:
    """Paths of this machine that go into the archive, with everything that they need."""

    def __init__(self) -> None:
        self.paths: dict[str, None] = {}
        self._cache = _cache()

    def add(self, path: str, *, wanted_by: str = "") -> None:
        """A file, its folders, the links on the way to it, and what an ELF file or a script among them needs."""
        path = os.path.normpath(path)
        if path in self.paths:
            return
        if not os.path.lexists(path):
            raise errors.UsageError(f"pack: {path}{wanted_by} does not exist")
        parent = os.path.dirname(path)
        if parent != path:
            self.add(parent, wanted_by=wanted_by)
            real = os.path.realpath(parent)
            if real != parent:
                # /bin/sh on a machine where /bin is a link: the link, and the file where it is
                self.add(os.path.join(real, os.path.basename(path)), wanted_by=wanted_by)
                return
        self.paths[path] = None
        mode = os.lstat(path).st_mode
        if stat.S_ISLNK(mode):
            self.add(os.path.join(parent, os.readlink(path)), wanted_by=wanted_by)
        elif stat.S_ISREG(mode):
            self._needs(path)

    def tree(self, path: str) -> None:
        self.add(path)
        for folder, folders, files in os.walk(path):
            for name in [*folders, *files]:
                self.add(os.path.join(folder, name))

    def _needs(self, path: str) -> None:
        with open(path, "rb") as file:
            head = file.read(256)
        if head[:2] == b"#!":
            words = head[2:].split(b"\n")[0].split()
            if words:
                self.add(words[0].decode(), wanted_by=f" (the interpreter of {path})")
            return
        elf = read_elf(path) if head[:4] == b"\x7fELF" else None
        if elf is None:
            return
        if elf.interpreter:
            self.add(elf.interpreter, wanted_by=f" (the loader of {path})")
        for name in elf.needed:
            self.add(self._library(name, elf, path), wanted_by=f" (needed by {path})")
            if name == "libc.so.6":
                for service in _NAME_SERVICES:
                    if service in self._cache:
                        self.add(self._cache[service])

    def _library(self, name: str, elf: Elf, path: str) -> str:
        """Where ld.so(8) would find a library: the search path of the file, the cache, the usual folders."""
        if "/" in name:
            return name
        origin = os.path.dirname(os.path.realpath(path))
        places = [p.replace("$ORIGIN", origin).replace("${ORIGIN}", origin) for p in elf.search if p]
        cached = [os.path.dirname(self._cache[name])] if name in self._cache else []
        for folder in [*places, *cached, *_LIBRARY_FOLDERS]:
            candidate = os.path.join(folder, name)
            if os.path.isfile(candidate):
                return candidate
        raise errors.UsageError(f"pack: the library {name}, needed by {path}, was not found")


def find_program(name: str) -> str:
    """A program's path, by PATH where it is a bare name.

    Raises:
        UsageError: there is none.
    """
    path = (
        name if "/" in name else shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin:/usr/bin:/bin")
    )
    if path is None or not os.path.isfile(path):
        raise errors.UsageError(f"pack: program {name!r} was not found", hint="is it in PATH?")
    return os.path.abspath(path)


def pack(programs: Iterable[str], output: str, *, include: Iterable[str] = (), shell: bool = True) -> Packed:
    """Write a rootfs archive of programs and what they need; its format follows from the name of `output`.

    Args:
        include: files and folders to add as they are.
        shell: add /bin/sh as well, so that `run` has something to run.

    Raises:
        UsageError: a program or a library was not found, or the suffix is unknown.
        GuntainerError: something can not be read, or the archive not written.
    """
    suffix = next((s for s in sorted(FORMATS, key=len, reverse=True) if output.endswith(s)), None)
    if suffix is None:
        raise errors.UsageError(f"pack: {output}: unknown kind of archive; known are {', '.join(FORMATS)}")
    folder = os.path.dirname(output) or "."
    if not os.path.isdir(folder):
        raise errors.GuntainerError(f"pack: {output}: the folder {folder} does not exist", hint="make it first")
    try:
        members = _members(_collect(programs, include, shell=shell))
        _write(members, output, *FORMATS[suffix])
        return Packed(path=output, files=len(members), size_bytes=os.path.getsize(output))
    except OSError as error:
        raise errors.GuntainerError(f"pack: {errors.describe_oserror(error)}") from None


def _collect(programs: Iterable[str], include: Iterable[str], *, shell: bool) -> dict[str, None]:
    collection = _Collection()
    for name in [*programs, *(["/bin/sh"] if shell else [])]:
        collection.add(find_program(name))
    for path in include:
        (collection.tree if os.path.isdir(path) else collection.add)(os.path.abspath(path))
    return collection.paths


class _Member(Value):
    """One entry to write."""

    mode: int
    kind: int
    content: bytes = b""
    """A file's bytes, or a link's text."""


def _members(paths: Iterable[str]) -> dict[str, _Member]:
    made: dict[str, _Member] = {}
    for path, mode in _EMPTY_FOLDERS.items():
        if "/" in path:
            made[os.path.dirname(path)] = _Member(mode=0o755, kind=stat.S_IFDIR)
        made[path] = _Member(mode=mode, kind=stat.S_IFDIR)
    for path, text in _TEXTS.items():
        made[path] = _Member(mode=0o644, kind=stat.S_IFREG, content=text.encode())
    if os.path.isfile("/etc/os-release"):
        made["etc/os-release"] = _Member(mode=0o644, kind=stat.S_IFREG, content=_read("/etc/os-release"))
    for path in paths:
        name = path.lstrip("/")
        status = os.lstat(path)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISDIR(status.st_mode):
            if name:
                made.setdefault(name, _Member(mode=mode | 0o500, kind=stat.S_IFDIR))
        elif stat.S_ISLNK(status.st_mode):
            made[name] = _Member(mode=0o777, kind=stat.S_IFLNK, content=os.fsencode(os.readlink(path)))
        elif stat.S_ISREG(status.st_mode):
            made[name] = _Member(mode=mode & 0o1777, kind=stat.S_IFREG, content=_read(path))
    return made


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _write(members: dict[str, _Member], output: str, format_name: str, filter_name: str) -> None:
    """Write the archive whole or not at all: sorted, root's, and of one time, so that two archives are the same."""
    from guntainer.archive.whole import Whole
    from guntainer.archive.writing import Writer

    when_ns = int(os.environ.get("SOURCE_DATE_EPOCH", "0")) * 1_000_000_000
    try:
        with Whole(output) as file:
            writer = Writer(file.fd, format_name, filter_name)
            try:
                for name in sorted(members):
                    _add(writer, name, members[name], when_ns)
                writer.close()
            finally:
                writer.free()
            file.keep()
    except OSError as error:
        raise OSError(error.errno, error.strerror, output) from None


def _add(writer: Writer, name: str, member: _Member, mtime_ns: int) -> None:
    is_file = member.kind == stat.S_IFREG
    link = b"" if is_file else member.content
    size = len(member.content) if is_file else 0
    writer.begin(os.fsencode(name), member.kind, member.mode, size=size, mtime_ns=mtime_ns, link=link)
    if is_file:
        writer.data(member.content)
    writer.end()
