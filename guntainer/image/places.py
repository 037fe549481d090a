"""Where an image's files are: in a folder, or in an uncompressed tar. Neither is trusted.

In a folder every look goes through openat2 with RESOLVE_BENEATH: a link may lead to another file of the folder, never out of
it; and nothing but a regular file is read, so that no FIFO can keep us waiting. In a tar links are followed by name.
"""

from __future__ import annotations

import os
import stat

from guntainer import errors
from guntainer.image import tarfiles
from guntainer.image.document import MOST_BYTES, bad, shown
from guntainer.kernel import abi, syscalls
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Self

_RULES = abi.RESOLVE_BENEATH | abi.RESOLVE_NO_MAGICLINKS
_MOST_MEMBERS = 65536  # of the tar of an image: three for each layer, as a rule
_MOST_LINKS = 8
_HASH_BLOCK = 1 << 20


class Place(Value):
    """Where a file's bytes are."""

    path: str
    offset: int
    size: int


class Files:
    """An image's files; `with` closes it.

    Args:
        path: the folder or the tar.
        name: what messages call it.
        top: the folder in it that all of them are in, with a slash at its end, or "".
    """

    def __init__(self, path: str, name: str, top: str = "") -> None:
        self.path = path
        self.name = name
        self.top = top

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        raise NotImplementedError

    def place(self, file: str) -> Place | None:
        """Where a file is; None where there is none.

        Raises:
            RootfsError: something else is in its place.
        """
        raise NotImplementedError

    def _open(self, file: str) -> tuple[int, Place] | None:
        """A descriptor that the caller closes, and where in it the file is."""
        raise NotImplementedError

    def read(self, file: str) -> bytes | None:
        """All of a document; None where there is none.

        Raises:
            RootfsError: it is no file, or too large.
        """
        found = self._open(file)
        if found is None:
            return None
        fd, place = found
        try:
            if place.size > MOST_BYTES:
                raise bad(self.shown(file), f"larger than {MOST_BYTES >> 20} MiB")
            return _whole(fd, place)
        except OSError as error:
            raise bad(self.shown(file), error.strerror or str(error)) from None
        finally:
            os.close(fd)

    def head(self, file: str, size: int) -> bytes:
        """The first bytes of a file; b"" where there is none."""
        found = self._open(file)
        if found is None:
            return b""
        fd, place = found
        try:
            return os.pread(fd, min(size, place.size), place.offset)
        finally:
            os.close(fd)

    def sha256(self, file: str) -> str:
        """64 hex digits, for the rare layer whose digest nobody tells."""
        import hashlib

        found = self._open(file)
        if found is None:
            raise self.missing(file)
        fd, place = found
        total = hashlib.sha256()
        try:
            at = place.offset
            end = place.offset + place.size
            while at < end:
                data = os.pread(fd, min(_HASH_BLOCK, end - at), at)
                if not data:
                    raise bad(self.shown(file), "cut off while it was read")
                total.update(data)
                at += len(data)
        finally:
            os.close(fd)
        return total.hexdigest()

    def shown(self, file: str) -> str:
        """A file of it for a message."""
        return f"{self.name}: {shown(file)[1:-1]}"

    def missing(self, file: str) -> errors.RootfsError:
        return bad(self.shown(file), "it is missing", hint="the image is not whole")


def _whole(fd: int, place: Place) -> bytes:
    found = b""
    while len(found) < place.size:
        data = os.pread(fd, place.size - len(found), place.offset + len(found))
        if not data:
            break
        found += data
    return found


class Folder(Files):
    """Of a folder."""

    def __init__(self, path: str, name: str, top: str = "") -> None:
        super().__init__(path, name, top)
        # the user's own path may be a link; what is in there may not
        nofollow = os.O_NOFOLLOW if top else 0
        where = os.path.join(path, top.rstrip("/"))
        self._root = os.open(where, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC | nofollow)

    def close(self) -> None:
        os.close(self._root)

    def _open(self, file: str) -> tuple[int, Place] | None:
        try:
            # O_NONBLOCK: opening a FIFO must not wait for its writer
            fd = syscalls.openat2(self._root, file, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=_RULES)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            why = "a link that leads out of the image" if error.errno == 18 else error.strerror or str(error)  # EXDEV
            raise bad(self.shown(file), why) from None
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(fd)
            raise bad(self.shown(file), "not a regular file")
        return fd, Place(path=os.path.join(self.path, self.top, file), offset=0, size=status.st_size)

    def place(self, file: str) -> Place | None:
        found = self._open(file)
        if found is None:
            return None
        os.close(found[0])
        return found[1]


class Tar(Files):
    """Of an uncompressed tar.

    Raises:
        RootfsError: it is damaged, or has more members than an image.
    """

    def __init__(self, path: str, name: str, top: str = "") -> None:
        super().__init__(path, name, top)
        self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            self._members = self._scan()
        except tarfiles.Damaged as error:
            os.close(self._fd)
            raise errors.ArchiveError(f"{name}: damaged ({error})") from None
        except BaseException:
            os.close(self._fd)
            raise

    def _scan(self) -> dict[str, tarfiles.Member]:
        found: dict[str, tarfiles.Member] = {}
        for number, member in enumerate(tarfiles.members(self._fd, os.fstat(self._fd).st_size)):
            if number >= _MOST_MEMBERS:
                raise bad(self.name, f"more than {_MOST_MEMBERS} entries: no container image")
            found[normal(member.name)] = member  # the last one counts, as where it is unpacked
        return found

    def close(self) -> None:
        os.close(self._fd)

    def place(self, file: str) -> Place | None:
        found = self._resolved(normal(self.top + file), file)
        return Place(path=self.path, offset=found.offset, size=found.size) if found is not None else None

    def _resolved(self, at: str, file: str) -> tarfiles.Member | None:
        for _ in range(_MOST_LINKS):
            member = self._members.get(at)
            if member is None or member.kind == tarfiles.FILE:
                return member
            if member.kind == tarfiles.LINK:
                at = normal(member.target)
            elif member.kind == tarfiles.SYMLINK:
                at = _beside(at, member.target)
            else:
                raise bad(self.shown(file), "not a regular file")
            if at.startswith(("/", "../")) or at == "..":
                raise bad(self.shown(file), "a link that leads out of the image")
        raise bad(self.shown(file), "a link to a link to a link, and so on")

    def _open(self, file: str) -> tuple[int, Place] | None:
        place = self.place(file)
        return None if place is None else (os.dup(self._fd), place)


def normal(name: str) -> str:
    """A member's name without `.` and empty parts; what leads out begins with `/` or `../`."""
    if name.startswith("/"):
        return name
    return _joined(name.split("/"))


def _beside(link: str, target: str) -> str:
    return target if target.startswith("/") else _joined([*link.split("/")[:-1], *target.split("/")])


def _joined(parts: list[str]) -> str:
    found: list[str] = []
    for part in parts:
        if part == ".." and found and found[-1] != "..":
            found.pop()
        elif part not in ("", "."):
            found.append(part)
    return "/".join(found)
