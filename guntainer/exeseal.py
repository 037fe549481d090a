"""The program that our processes execute, out of reach of what they launch: a sealed copy in memory.

Until it executes, a container's process is a clone of ours, and /proc/self/exe in there is the file that we execute. A rootfs
can have it opened: a script's interpreter may be that link, and execve(2) follows it. What runs then is harmless, but it holds
the file, and where that belongs to one of the container's ids it can change its mode, and write to it once nobody executes it
any more: it would run as the user on the host from then on (the way of CVE-2019-5736).

So the file is the ELF loader, which is small, in a memfd with every seal: memfd_create(2), fcntl(2). It loads the interpreter
as a library, so that no link of /proc leads to that: those of /proc/PID/map_files take a capability of the host's, proc(5).
"""

from __future__ import annotations

import os
import sys

from guntainer import errors, hostids

_NAME = "guntainer"
_LINK = f"/memfd:{_NAME} (deleted)"
_EXE = "/proc/self/exe"
_MFD_EXEC = 0x0010  # Linux 6.3, <linux/memfd.h>
_F_SEAL_EXEC = 0x0020  # Linux 6.3, <linux/fcntl.h>
_PT_INTERP = 3
_MOST_HEADERS = 1 << 16
_BEGUN = "GUNTAINER_SEALED"
_OVERFLOW_UID = 65534  # of whoever is not mapped: user_namespaces(7)


def is_exposed(path: str) -> bool:
    """Whether a container may write to a program or change its mode: its ids are the caller's, and the caller's sub-ids.

    What belongs to nobody but root is out of reach, of whoever is not root. True where it can not be seen.
    """
    # in a user namespace that does not have the host's root
    root = 0 if os.geteuid() == hostids.UID else _OVERFLOW_UID
    try:
        found = os.stat(path)
        return hostids.UID == 0 or found.st_uid != root or bool(found.st_mode & 0o020) or os.access(path, os.W_OK)
    except OSError:
        return True


def is_sealed() -> bool:
    """Whether this process executes from a sealed copy."""
    try:
        return os.readlink(_EXE) == _LINK
    except OSError:
        return False


def reexecute() -> None:
    """Begin this program again from a sealed copy, where the file that it executes is exposed. Call it before anything is open.

    Raises:
        HostError: it can not be had.
    """
    us = str(os.getpid())
    begun = os.environ.pop(_BEGUN, "") == us
    if is_sealed():
        _name_process()
        return
    if not is_exposed(_EXE if os.path.exists(_EXE) else sys.executable):
        return
    try:
        if begun:  # or it would begin for ever
            raise ValueError("/proc is not mounted, or the interpreter is a program that executes another one")
        fd, words = sealed(sys.orig_argv[1:])
        variables = {name: value for name, value in os.environ.items() if name}  # one without a name is refused
        os.execve(fd, words, {**variables, _BEGUN: us})
    except (OSError, ValueError) as error:
        raise refused(error) from None


def sealed(arguments: list[str], *, above: int = 0) -> tuple[int, list[str]]:
    """A sealed file to execute, close-on-exec, and the words for it that start this interpreter with these arguments.

    Args:
        above: the file's descriptor is not below this number.

    Raises:
        OSError: of memfd_create(2) or a file that can not be read.
        ValueError: the interpreter is no ELF file.
    """
    name, file = _program()
    loader = elf_loader(file)
    words = _for_loader(loader, name, file) if loader else [name]
    return _copy(loader or file, above), [*words, *arguments]


def _for_loader(loader: str, name: str, file: str) -> list[str]:
    """The loader's own words: ld.so(8).

    It takes the folder of the path that it is given for $ORIGIN, where a program may have its libraries. The kernel takes
    that of the file, so a link is followed; the interpreter gets the link's path all the same, by which it knows its venv.
    """
    if name != file:
        with open(loader, "rb") as content:
            if b"argv0" in content.read():  # glibc 2.33, and musl
                return [name, "--argv0", name, file]
    return [name, name] if os.path.realpath(name) == file else [file, file]


def refused(error: Exception) -> errors.HostError:
    """What to say when an exposed interpreter can not be sealed."""
    why = error.strerror if isinstance(error, OSError) else str(error)
    return errors.HostError(
        f"{sys.executable} could be changed by a container, and no sealed copy can be executed here: {why}",
        hint="take a Python that belongs to root, as an ordinary user, or allow it: sysctl vm.memfd_noexec=1",
        probe="python",
    )


def elf_loader(path: str) -> str:
    """The loader that a program names, PT_INTERP of elf(5); "" where it is static.

    Raises:
        OSError: it can not be read.
        ValueError: it is no ELF file of this machine's byte order.
    """
    with open(path, "rb") as file:
        head = file.read(64)
        if len(head) < 52 or head[:4] != b"\x7fELF" or head[5] != (1 if sys.byteorder == "little" else 2):
            raise ValueError(f"{path} is no ELF file")
        wide = head[4] == 2
        start = _integer(head, 32, 8) if wide else _integer(head, 28, 4)
        size, count = (_integer(head, at, 2) for at in ((54, 56) if wide else (42, 44)))
        if size * count > _MOST_HEADERS:
            raise ValueError(f"{path} has too many program headers")
        file.seek(start)
        table = file.read(size * count)
        for at in range(0, len(table), size or 1):
            if _integer(table, at, 4) == _PT_INTERP:
                place, length = (at + 8, at + 32) if wide else (at + 4, at + 16)
                file.seek(_integer(table, place, 8 if wide else 4))
                return os.fsdecode(file.read(min(_integer(table, length, 8 if wide else 4), 4096)).rstrip(b"\0"))
    return ""


def _integer(data: bytes, at: int, width: int) -> int:
    return int.from_bytes(data[at : at + width], sys.byteorder)


def _program() -> tuple[str, str]:
    """The path by which the interpreter knows itself, and its file: another one where a wrapper has that path."""
    file = os.path.realpath(sys.executable)
    if not is_sealed():
        try:
            if not os.path.samefile(_EXE, file):
                file = os.readlink(_EXE)
        except OSError:
            pass  # without /proc
    return sys.executable or file, file


def _copy(path: str, above: int) -> int:
    import fcntl

    made = _memfd()
    kept = -1
    try:
        with open(path, "rb") as source:
            while os.sendfile(made, source.fileno(), None, 1 << 30):
                pass
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        try:
            fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals | _F_SEAL_EXEC)
        except OSError:
            fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals)
        kept = made if made >= above else fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, above)
        return kept
    finally:
        if kept != made:
            os.close(made)


def _memfd() -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(_NAME, flags | _MFD_EXEC)
    except OSError as error:
        if isinstance(error, PermissionError):
            raise  # sysctl vm.memfd_noexec=2
        return os.memfd_create(_NAME, flags)


def _name_process() -> None:
    """The kernel has named it after the descriptor's number: execveat(2)."""
    try:
        with open("/proc/self/comm", "wb", buffering=0) as file:
            file.write(_NAME.encode())
    except OSError:
        pass
