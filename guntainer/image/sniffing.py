"""Whether a folder or a file is a container image, by a look at the names in it; not by its own name."""

from __future__ import annotations

import os
import stat

from guntainer.image import tarfiles
from guntainer.image.places import Folder, Tar, normal
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.image.places import Files

OCI, DOCKER = "oci", "docker"
_ROOT_FOLDERS = frozenset(("bin", "etc", "usr", "lib", "sbin"))
_OF_IMAGES = frozenset(("blobs", "oci-layout", "index.json", "manifest.json", "repositories", "ingest"))
_MOST_NAMES = 4096  # of a folder, and of an image's tar: three for each layer
_MOST_OTHERS = 64  # entries of a tar that no image has
_DIGITS = frozenset("0123456789abcdef")


class Found(Value):
    """What kind of image there is, and where."""

    kind: str
    top: str = ""
    """The one folder that all of it is in, with a slash at its end."""
    tar: bool = False

    def open(self, path: str, name: str) -> Files:
        """Its files; the caller closes them."""
        return Tar(path, name, self.top) if self.tar else Folder(path, name, self.top)


def detect(path: str) -> Found | None:
    """What image is there, None where none is: an archive of another kind, a compressed one, a rootfs, nothing at all."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(fd)
        if stat.S_ISDIR(status.st_mode):
            return _in_folder(path, fd)
        if stat.S_ISREG(status.st_mode) and tarfiles.looks_like_tar(os.pread(fd, 512, 0)):
            return _in_tar(fd, status.st_size)
    except OSError:
        pass
    finally:
        os.close(fd)
    return None


def _kind(names: Iterable[str]) -> str:
    found = set(names)
    if found & _ROOT_FOLDERS:
        return ""
    if "oci-layout" in found:
        return OCI
    old = "repositories" in found and any(is_digest(one) for one in found)
    return DOCKER if "manifest.json" in found or old else ""


def is_digest(text: str) -> bool:
    """64 hex digits."""
    return len(text) == 64 and set(text) <= _DIGITS


def _in_folder(path: str, fd: int) -> Found | None:
    names = _names(fd)
    kind, top = _kind(names), ""
    if not kind and len(names) == 1:
        try:
            inner = os.open(names[0], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=fd)
        except OSError:
            return None
        try:
            kind, top = _kind(_names(inner)), f"{names[0]}/"
        finally:
            os.close(inner)
    if kind == DOCKER:
        with Folder(path, path, top) as files:
            if not _docker_means_it(files):
                return None
    return Found(kind=kind, top=top) if kind else None


def _names(fd: int) -> list[str]:
    names: list[str] = []
    with os.scandir(fd) as entries:
        for entry in entries:
            names.append(entry.name)
            if len(names) > _MOST_NAMES:
                return []
    return names


def _in_tar(fd: int, size: int) -> Found | None:
    """A look at the headers, which ends as soon as one tells that it is a rootfs."""
    tops: dict[str, bool] = {}
    inner: dict[str, bool] = {}
    manifests: dict[str, tarfiles.Member] = {}
    others = 0
    try:
        for number, member in enumerate(tarfiles.members(fd, size)):
            parts = normal(member.name).split("/", 2)
            if not parts[0]:
                continue
            tops[parts[0]] = True
            alone = len(tops) == 1
            if alone and len(parts) > 1:
                inner[parts[1]] = True
            which = parts[1] if alone and len(parts) > 1 and parts[0] not in _OF_IMAGES else parts[0]
            if which in _ROOT_FOLDERS:
                return None
            if member.kind == tarfiles.FILE and parts[-1] == "manifest.json" and len(parts) < 3:
                manifests[normal(member.name)] = member
            others += not _usual(which)
            if others > _MOST_OTHERS or number >= _MOST_NAMES:
                return None
    except tarfiles.Damaged:
        return None
    kind, top = _kind(tops), ""
    if not kind and len(tops) == 1:
        kind, top = _kind(inner), f"{next(iter(tops))}/"
    manifest = manifests.get(f"{top}manifest.json")
    if kind == DOCKER and manifest is not None and not _is_docker(os.pread(fd, manifest.size, manifest.offset)):
        return None
    return Found(kind=kind, top=top, tar=True) if kind else None


def _usual(name: str) -> bool:
    """Whether images have files of this name: those of old layers, and of configs, begin with a digest."""
    stem = name.removeprefix("sha256:").partition(".")[0]
    return name in _OF_IMAGES or is_digest(stem)


def _docker_means_it(files: Files) -> bool:
    found = files.read("manifest.json")
    return found is None or _is_docker(found)


def _is_docker(data: bytes) -> bool:
    """Whether a manifest.json is docker's: other programs have files of that name."""
    from guntainer import errors
    from guntainer.image import document

    try:
        found = document.parse(data, "")
    except errors.RootfsError:
        return False
    return isinstance(found, list) and all(isinstance(one, dict) and "Layers" in one for one in found)
