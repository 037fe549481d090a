"""Compiled filters, kept in the store: what every launch asks, so a hit imports nothing and reads one small file.

    seccomp/<name>      a head with the key in full, a check of the program, the program

The name is short and stands for the key; the key itself tells the profile file (path, inode, size, times), the
capabilities, root emulation, the machine, the kernel and the version of guntainer. A changed file is another key, so an
entry is never wrong, only old: when one is added, those beyond a bound are removed, the oldest first. Each entry comes by a
rename. What is damaged is compiled again and replaced; a store that can not be written to costs a compilation for every
run, and nothing else.
"""

from __future__ import annotations

import os
from zlib import adler32, crc32

from guntainer import __version__, errors

LAYOUT = 1
"""Raised with every change, within a version of guntainer, of what is compiled from the same profile."""
MOST_ENTRIES = 64
DEFAULT_PROFILE = f"{os.path.dirname(__file__)}/default.json"
_INSTRUCTION_BYTES = 8  # struct sock_filter
_CHECK_BYTES = 4
_MOST_BYTES = 1 << 16  # the longest program there can be, and a long path


def program(store: str, *, profile: str, capabilities: frozenset[str], emulate_root: bool) -> bytes:
    """The filter for a container, as seccomp(2) takes it: struct sock_filter after struct sock_filter.

    Args:
        store: the store's folder.
        profile: "default", "unconfined" or the absolute path of a file.
        capabilities: those that the container's root has: CAP_CHOWN and the like.
        emulate_root: answer what needs more than one id without doing it, see `emulation`.

    Returns:
        empty where nothing is to be filtered.

    Raises:
        UsageError: the profile is missing or wrong.
        HostError: it must be compiled, and libseccomp is missing.
    """
    path = {"default": DEFAULT_PROFILE, "unconfined": ""}.get(profile, profile)
    if not path and not emulate_root:
        return b""
    machine = os.uname()
    key = f"{__version__} {LAYOUT} {machine.machine} {machine.release} {int(emulate_root)} {_identity(path)}"
    if path:
        key += f" {','.join(sorted(capabilities))} {path}"
    head = f"{len(key)} {key}\n".encode("utf-8", "surrogateescape")
    place = f"{store}/seccomp/{crc32(head):08x}{adler32(head):08x}"
    found = _read(place, head)
    if found:
        return found
    made = _compile(path, capabilities, emulate_root)
    try:
        _write(place, head + crc32(made).to_bytes(_CHECK_BYTES, "little") + made)
    except OSError:
        pass  # it was compiled all the same
    return made


def _identity(path: str) -> str:
    if not path:
        return "-"
    try:
        status = os.stat(path)
    except OSError as error:
        from guntainer.jobs.values import printable

        raise errors.UsageError(f"seccomp profile {printable(path)}: {error.strerror}") from None
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}-{status.st_ctime_ns}"


def _read(place: str, head: bytes) -> bytes:
    """The program of an entry; empty where there is none, or it is not whole, or another key's."""
    try:
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        content = os.read(fd, _MOST_BYTES)
    except OSError:
        return b""
    finally:
        os.close(fd)
    start = len(head) + _CHECK_BYTES
    found = content[start:]
    whole = content.startswith(head) and found and len(found) % _INSTRUCTION_BYTES == 0
    return found if whole and crc32(found).to_bytes(_CHECK_BYTES, "little") == content[len(head) : start] else b""


def _compile(path: str, capabilities: frozenset[str], emulate_root: bool) -> bytes:
    from guntainer.seccomp import profile, verdicts

    machine = os.uname()
    rules = None
    if path:
        rules = profile.load(path, capabilities=capabilities, machine=machine.machine, release=machine.release)
    return verdicts.compile_program(rules, emulate_root=emulate_root)


def _write(place: str, content: bytes) -> None:
    folder = os.path.dirname(place)
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    made = f"{place}.{os.getpid()}-{os.urandom(4).hex()}"
    with open(os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        try:
            file.write(content)
            file.flush()
            os.rename(made, place)
        except BaseException:
            os.unlink(made)
            raise
    _remove_oldest(folder)


def _remove_oldest(folder: str) -> None:
    times: list[tuple[int, str]] = []
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        try:
            times.append((os.stat(path, follow_symlinks=False).st_mtime_ns, path))
        except FileNotFoundError:
            pass  # another process removes as well
    for _, path in sorted(times)[:-MOST_ENTRIES]:
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
