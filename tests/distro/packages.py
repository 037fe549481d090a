"""Packages and repositories, small and made here: .deb (deb(5)) and .apk (apk-package(5), version 2), with files of any owner.

They are written byte by byte, because an ordinary user can not give files to others, and so that neither dpkg-deb nor abuild
is needed; dpkg, apt and apk judge whether they are right.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
from pathlib import Path
from typing import NamedTuple


class Entry(NamedTuple):
    """A file of a package, or with content None a folder."""

    name: str
    uid: int
    gid: int
    mode: int
    content: bytes | None = b"made by a test\n"
    names: tuple[str, str] = ("", "")
    """Of user and group, which go before the numbers where they are known."""


def tar(entries: list[Entry], *, prefix: str = "", ended: bool = True, sums: bool = False) -> bytes:
    """A tar with these entries and the folders above them.

    Args:
        ended: with the two blocks of zeros at the end.
        sums: each file with its SHA-1, as apk wants it.
    """
    whole = io.BytesIO()
    made = tarfile.open(fileobj=whole, mode="w", format=tarfile.PAX_FORMAT)
    known = {entry.name for entry in entries}
    for entry in entries:
        for above in reversed(Path(entry.name).parents[:-1]):
            if str(above) not in known:
                known.add(str(above))
                _add(made, Entry(str(above), 0, 0, 0o755, None), prefix, sums=sums)
        _add(made, entry, prefix, sums=sums)
    if ended:
        made.close()
    return whole.getvalue()


def _add(made: tarfile.TarFile, entry: Entry, prefix: str, *, sums: bool) -> None:
    info = tarfile.TarInfo(prefix + entry.name)
    info.uid, info.gid, info.mode = entry.uid, entry.gid, entry.mode
    info.uname, info.gname = entry.names
    if entry.content is None:
        info.type = tarfile.DIRTYPE
        made.addfile(info)
        return
    info.size = len(entry.content)
    if sums:
        info.pax_headers = {"APK-TOOLS.checksum.SHA1": hashlib.sha1(entry.content).hexdigest()}
    made.addfile(info, io.BytesIO(entry.content))


def deb(folder: Path, name: str, entries: list[Entry], postinst: str, depends: str = "") -> Path:
    """A .deb of version 1.0, for every machine, in `folder`."""
    rows = ["Package: " + name, "Version: 1.0", "Architecture: all", "Maintainer: Tests <tests@example.invalid>"]
    rows += [f"Depends: {depends}"] if depends else []
    rows += ["Description: made by a test", ""]
    control = [
        Entry("control", 0, 0, 0o644, "\n".join(rows).encode()),
        Entry("postinst", 0, 0, 0o755, f"#!/bin/sh\nset -e\n{postinst}\n".encode()),
    ]
    parts = {
        "debian-binary": b"2.0\n",
        "control.tar.gz": gzip.compress(tar(control, prefix="./")),
        "data.tar.gz": gzip.compress(tar(entries, prefix="./")),
    }
    path = folder / f"{name}_1.0_all.deb"
    path.write_bytes(b"!<arch>\n" + b"".join(_member(part, content) for part, content in parts.items()))
    (folder / f"{name}.control").write_text("\n".join(rows))
    return path


def _member(name: str, content: bytes) -> bytes:
    """A member of an archive as ar(5) has it."""
    head = f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n"
    return head.encode() + content + b"\n" * (len(content) % 2)


def apt_repository(folder: Path) -> None:
    """Packages and Release for all that `deb` has put there: a flat repository, sources.list(5)."""
    rows = []
    for path in sorted(folder.glob("*.deb")):
        content = path.read_bytes()
        rows.append((folder / f"{path.name.split('_')[0]}.control").read_text().rstrip("\n"))
        rows += [
            f"Filename: ./{path.name}",
            f"Size: {len(content)}",
            f"SHA256: {hashlib.sha256(content).hexdigest()}",
            "",
        ]
    packages = "\n".join(rows).encode()
    (folder / "Packages").write_bytes(packages)
    release = f"SHA256:\n {hashlib.sha256(packages).hexdigest()} {len(packages)} Packages\n"
    (folder / "Release").write_text("Origin: tests\nDate: Thu, 01 Jan 2026 00:00:00 UTC\n" + release)


def apk(folder: Path, name: str, entries: list[Entry], scripts: dict[str, str], depends: str = "") -> Path:
    """An unsigned .apk of version 1.0-r0 in `folder`, which is named after the machine.

    Args:
        scripts: "pre-install", "post-install" → text of sh.
    """
    data = gzip.compress(tar(entries, sums=True))
    facts = [
        f"pkgname = {name}",
        "pkgver = 1.0-r0",
        f"arch = {folder.name}",
        f"size = {len(data)}",
        "pkgdesc = made by a test",
    ]
    facts += [f"depend = {depends}"] if depends else []
    facts += [f"datahash = {hashlib.sha256(data).hexdigest()}", ""]
    control = [Entry(".PKGINFO", 0, 0, 0o644, "\n".join(facts).encode())]
    control += [
        Entry(f".{kind}", 0, 0, 0o755, f"#!/bin/sh\nset -e\n{text}\n".encode()) for kind, text in scripts.items()
    ]
    # one tar in two streams: the first is not ended
    head = gzip.compress(tar(control, ended=False))
    path = folder / f"{name}-1.0-r0.apk"
    path.write_bytes(head + data)
    row = {
        "C": "Q1" + base64.b64encode(hashlib.sha1(head).digest()).decode(),
        "P": name,
        "V": "1.0-r0",
        "A": folder.name,
    }
    row |= {"S": str(path.stat().st_size), "I": str(len(data)), "T": "made by a test", "D": depends}
    (folder / f"{name}.index").write_text("".join(f"{key}:{value}\n" for key, value in row.items() if value) + "\n")
    return path


def apk_repository(folder: Path) -> None:
    """APKINDEX.tar.gz for all that `apk` has put there."""
    index = "".join(path.read_text() for path in sorted(folder.glob("*.index")))
    content = tar([Entry("DESCRIPTION", 0, 0, 0o644, b"tests"), Entry("APKINDEX", 0, 0, 0o644, index.encode())])
    (folder / "APKINDEX.tar.gz").write_bytes(gzip.compress(content))
