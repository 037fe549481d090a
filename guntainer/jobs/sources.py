"""What a user may write as ROOTFS: a path, `host`, an image, a URL, a registry's image. No file is opened here."""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs.model import MAX_ENTRIES, MAX_UNPACKED_BYTES, Source
from guntainer.jobs.values import host_path, quoted

_IMAGES = {"oci": "oci", "oci-archive": "oci", "docker-archive": "docker-archive"}
"""containers-transports(5)."""
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

_HEX = frozenset("0123456789abcdef")
_DIGITS = 64
_OTHERS = ("containers-storage", "docker-daemon", "dir", "ostree", "sif", "tarball", "ftp", "s3", "git")


def parse(text: str, base: str, name: str = "") -> Source:
    """The source that `text` means; paths are seen from the folder `base`.

    Args:
        name: what the user calls it, if not by this text.

    Raises:
        UsageError: it means nothing.
    """
    name = name or text
    scheme, colon, rest = text.partition(":")
    scheme = scheme.lower()
    if text == "host":
        return Source(location="/", name=name, kind="host")
    if colon and rest.startswith("//"):
        return _by_url(text, scheme, rest, name, base)
    if colon and scheme in _IMAGES:
        path, reference = _split(rest)
        if not path:
            raise errors.UsageError(f"{quoted(text)}: expected {scheme}:PATH[:TAG]")
        return Source(location=host_path(path, base), name=name, kind=_IMAGES[scheme], reference=reference)
    if colon and scheme in _OTHERS:
        raise errors.UsageError(
            f"{quoted(text)}: {scheme}: is not supported",
            hint="docker://, oci:, docker-archive:, https:// and paths are",
        )
    return Source(location=host_path(text, base), name=name)


def _by_url(text: str, scheme: str, rest: str, name: str, base: str) -> Source:
    if scheme in ("http", "https"):
        from guntainer.jobs.references import UrlReference, parse_url

        url, sha256 = parse_url(f"{scheme}:{rest}")
        shown = UrlReference(url=url).shown if name == text else name
        return Source(location=url, name=shown, kind="url", sha256=sha256)
    if scheme == "docker":
        from guntainer.jobs.references import parse_image

        return Source(location=parse_image(rest[2:]).canonical, name=name, kind="registry")
    if scheme == "file":
        return Source(location=host_path(rest.removeprefix("//"), base), name=name)
    # what is behind it may hold a password
    raise errors.UsageError(f"{quoted(f'{scheme}://')} is not supported", hint="docker:// and https:// are")


def _split(rest: str) -> tuple[str, str]:
    """PATH[:TAG] or PATH@sha256:DIGEST."""
    path, at, digest = rest.partition("@")
    if at and digest.startswith("sha256:"):
        return path, f"@{digest}"
    path, _, tag = rest.partition(":")
    return path, tag


def check_sha256(text: str) -> str:
    """64 hexadecimal digits, in lower case.

    Raises:
        UsageError: it is something else.
    """
    digits = text.lower()
    if len(digits) != _DIGITS or set(digits) - _HEX:
        raise errors.UsageError(f"expected {_DIGITS} hexadecimal digits, got {quoted(text)}")
    return digits


def check_platform(text: str) -> str:
    """`os/arch[/variant]`, as docker has it; `arch` alone is Linux's.

    Raises:
        UsageError: it is something else.
    """
    parts = text.split("/")
    if len(parts) == 1 and text not in ("linux", ""):
        parts = ["linux", text]
    known = all(part and set(part) <= _NAME for part in parts)
    if len(parts) not in (2, 3) or not known:
        raise errors.UsageError(f"expected os/arch[/variant] such as linux/arm64, got {quoted(text)}")
    if parts[0] != "linux":
        raise errors.UsageError(f"{quoted(text)}: containers here are Linux ones", hint="linux/arm64, for example")
    return "/".join(parts)


_NAME = frozenset("abcdefghijklmnopqrstuvwxyz0123456789._-")


def bounded(source: Source, read: Mapping[str, Any]) -> Source:
    """A source with the platform, the pull policy and the limits that were read, where it has none of its own."""
    changes: dict[str, Any] = {}
    if "platform" in read and not source.platform:
        changes["platform"] = read["platform"]
    if "pull" in read and source.pull == Source.pull:
        changes["pull"] = read["pull"]
    if source.limits is None and ("max-unpacked" in read or "max-entries" in read):
        changes["limits"] = (read.get("max-unpacked", MAX_UNPACKED_BYTES), read.get("max-entries", MAX_ENTRIES))
    return source.replace(**changes) if changes else source
