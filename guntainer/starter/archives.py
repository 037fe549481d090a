"""Which rootfs lie in a folder: archives, images, unpacked ones. By a look at their first bytes; nothing is unpacked."""

from __future__ import annotations

import os
import platform
import re
import stat

from guntainer.image import sniffing, tarfiles
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PLACES = ("", "rootfs/", "images/")
_MOST_LOOKED_AT = 2000
_MOST = 20
_PEEKED_BYTES = 1 << 20
_HEADERS = 64
_OF_NO_PROJECT = frozenset(("usr", "sbin", "dev", "proc", "sys", "mnt", "srv", "media"))
_OF_SYSTEMS = _OF_NO_PROJECT | {"bin", "etc", "lib", "var", "root", "home", "opt", "run", "tmp", "lib64"}
_SUFFIX = re.compile(r"(?:\.tar(?:\.[a-z0-9]{1,4})?|\.t[gx]z|\.tzst)$")
_NOISE = re.compile(r"[-_.]?(?:mini)?rootfs|[-_.](?:x86_64|amd64|aarch64|arm64)")
_MACHINES = {"x86_64": "x86_64", "amd64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


class Rootfs(Value):
    """One that was found."""

    name: str
    """For [rootfs.NAME]."""
    path: str
    """Relative to the folder that was looked at."""
    machine: str = ""
    """As uname(2) has it, where the name tells; "" else."""


def look(folder: str) -> tuple[Rootfs, ...]:
    """The rootfs in a folder, and in `rootfs` and `images` in it, by name; at most twenty."""
    found: list[Rootfs] = []
    for place in _PLACES:
        for name in _names(f"{folder}/{place}"):
            if len(found) < _MOST and f"{place}{name}/" not in _PLACES and _is_rootfs(f"{folder}/{place}{name}", name):
                machine = next((_MACHINES[word] for word in _MACHINES if word in name), "")
                found.append(Rootfs(name=name, path=f"{place}{name}", machine=machine))
    taken: set[str] = {"host"}
    # those for this machine get the short names
    found.sort(key=lambda one: one.machine not in ("", platform.machine()))
    return tuple(one.replace(name=_named(one.name, taken)) for one in found)


def _names(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for _, entry in zip(range(_MOST_LOOKED_AT), entries, strict=False)]
    except OSError:
        return []
    return sorted(name for name in names if not name.startswith(".") and name.isprintable())


def _named(name: str, taken: set[str]) -> str:
    stem = _NOISE.sub("", _SUFFIX.sub("", name))
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-")[:60] or "rootfs"
    # jobs are named after it, and no two of those differ in case alone
    free = next(one for one in (plain, *(f"{plain}-{n}" for n in range(2, 99))) if one.casefold() not in taken)
    taken.add(free.casefold())
    return free


def _is_rootfs(path: str, name: str) -> bool:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            inside = set(os.listdir(path)) if os.access(path, os.R_OK | os.X_OK) else set()
            # a project has a bin, a lib or an etc of its own, but hardly all of what a system has
            return {"bin", "etc", "usr"} <= inside or ("oci-layout" in inside and sniffing.detect(path) is not None)
        return stat.S_ISREG(mode) and bool(_SUFFIX.search(name)) and _holds_root(path)
    except OSError:
        return False


def _holds_root(path: str) -> bool:
    """Whether an archive begins as a rootfs or an image does; of those that Python does not unpack, the name is believed."""
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        head = file.read(_PEEKED_BYTES)
    data = _unpacked(head)
    if data is None:
        return len(head) > 4 and not tarfiles.looks_like_tar(head[:512])
    if not tarfiles.looks_like_tar(data[:512]):
        return False
    return _looks_like_root(_members(data)) or sniffing.detect(path) is not None


def _unpacked(head: bytes) -> bytes | None:
    """The beginning of the tar in a file that begins with `head`; None where it is compressed in a way that is not known here."""
    if tarfiles.looks_like_tar(head[:512]):
        return head
    try:
        if head.startswith(b"\x1f\x8b"):
            import zlib

            return zlib.decompressobj(wbits=31).decompress(head, _PEEKED_BYTES)
        if head.startswith(b"\xfd7zXZ\0"):
            import lzma

            return lzma.LZMADecompressor(memlimit=256 << 20).decompress(head, _PEEKED_BYTES)
        if head.startswith(b"BZh"):
            import bz2

            return bz2.BZ2Decompressor().decompress(head, _PEEKED_BYTES)
    except Exception:  # zlib's, lzma's and bz2's are all of their own
        return b""
    known = head.startswith((b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"LZIP"))
    return None if known else b""


def _members(data: bytes) -> list[str]:
    """Names of the first members of a tar that may be cut."""
    import io
    import tarfile

    names: list[str] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                names.append(member.name)
                if len(names) >= _HEADERS:
                    break
    except (tarfile.TarError, ValueError, OverflowError):
        pass
    return names


def _looks_like_root(names: Iterable[str]) -> bool:
    """Whether folders of a system are at the top, or in the one folder that all is in; also whether it is an image."""
    parts = [[part for part in name.split("/") if part not in ("", ".")] for name in names]
    tops = {each[0] for each in parts if each}
    if {"oci-layout", "blobs"} & tops:
        return True
    inner = {each[1] for each in parts if len(each) > 1} if len(tops) == 1 else set()
    # a project has some of them as well, but hardly two of which one is a system's alone
    return any(len(found & _OF_SYSTEMS) > 1 and bool(found & _OF_NO_PROJECT) for found in (tops, inner))
