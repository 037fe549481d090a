"""Names of entries, which may be anything: for messages, and as the parts of a path inside of the rootfs."""

from __future__ import annotations

from guntainer import errors


def show(name: bytes) -> str:
    """An entry's name for a message: on one line, whatever it holds."""
    text = name.decode("utf-8", "backslashreplace")
    return "'" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in text[:200]) + "'"


def parts_of(name: bytes, what: str = "entry") -> tuple[bytes, ...]:
    """A name's parts, () for the root.

    Raises:
        ArchiveRefused: it is absolute, or has `..`.
    """
    if name.startswith(b"/"):
        raise errors.ArchiveRefused(f"{what} {show(name)} has an absolute name")
    parts = tuple(part for part in name.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise errors.ArchiveRefused(f"{what} {show(name)} leads out of the rootfs")
    return parts
