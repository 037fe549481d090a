"""Write a rootfs, or the layer of what a run has changed, as an archive: whole, or not at all."""

from __future__ import annotations

import errno
import os

from guntainer import errors
from guntainer.archive.compressing import Sink, compressor
from guntainer.archive.whole import Whole
from guntainer.export import helper
from guntainer.export.names import STDOUT
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.export.names import Output
    from guntainer.idmap import Ids
    from guntainer.rootfs import Rootfs

NO_POINTS: frozenset[bytes] = frozenset()


class Saved(Value):
    """What was written."""

    entries: int = 0
    size_bytes: int = 0
    """Of the files in it."""
    written_bytes: int = 0
    """Of the archive."""
    devices: int = 0
    sockets: int = 0
    marks: int = 0
    """Files whose names a layer has another meaning for."""

    def left_out(self) -> str:
        """For the user: what of the rootfs is not in it; "" where all is."""
        notes = []
        if self.devices or self.sockets:
            notes.append(f"{_many(self.devices + self.sockets, 'device or socket', 'devices or sockets')} left out")
        if self.marks:
            notes.append(f"{_many(self.marks, 'name that begins', 'names that begin')} with .wh. left out")
        return ", ".join(notes)


def _many(count: int, one: str, more: str) -> str:
    return f"{count} {one if count == 1 else more}"


def tar_of(path: str, fd: int, **settings: Any) -> dict[str, Any]:
    """In a helper: a folder as a tar into a descriptor; settings as of a Walk; returns its counts."""
    from guntainer.archive.library import prepare_process

    prepare_process()
    from guntainer.archive.writing import Writer
    from guntainer.export.walking import Walk

    writer = Writer(fd)
    try:
        counts = Walk(writer, **settings).run(path)
        writer.close()
    finally:
        writer.free()
    return counts


def read_rootfs(
    rootfs: Rootfs, ids: Ids, point: str, *, upper: str = "", points: frozenset[bytes] = NO_POINTS, name: str
) -> helper.Helper:
    """A helper that gives a rootfs as a tar.

    Args:
        point: an empty folder to mount on; nothing is seen there outside of the helper.
        upper: a writable layer on top of it.
        points: see `walking.Walk`.
        name: for messages.
    """

    def work(fd: int) -> dict[str, Any]:
        folders = (upper, *rootfs.lowers) if upper else rootfs.lowers
        return tar_of(helper.merge(folders, rootfs.base, point), fd, points=points)

    return helper.Helper(ids, work, name)


def read_copy(
    copy: str, ids: Ids, rootfs: Rootfs, skeleton: str, *, points: frozenset[bytes] = NO_POINTS, name: str
) -> helper.Helper:
    """A helper that gives a copy of a rootfs, on which a run was for want of overlayfs, as a tar."""

    def work(fd: int) -> dict[str, Any]:
        from guntainer.export import copies

        copies.take_out(skeleton, copy, rootfs)
        return tar_of(copy, fd, points=points)

    return helper.Helper(ids, work, name)


def read_layer(upper: str, ids: Ids, *, points: frozenset[bytes] = NO_POINTS, name: str) -> helper.Helper:
    """A helper that gives a writable layer as the tar of an image's layer: image-spec, layer.md."""
    return helper.Helper(ids, lambda fd: tar_of(upper, fd, layer=True, points=points), name)


def save(reading: helper.Helper, output: Output, stdout: int = 1) -> Saved:
    """Write what a helper gives, which is ended by this in any case.

    Raises:
        GuntainerError: it can not be read, or not written.
    """
    try:
        if output.path == STDOUT:
            return _write(reading, output, stdout)
        with Whole(output.path) as file:
            saved = _write(reading, output, file.fd)
            file.keep()
            return saved.replace(written_bytes=os.fstat(file.fd).st_size)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise failed(output.path, error) from None
    finally:
        reading.close()


def _write(reading: helper.Helper, output: Output, fd: int) -> Saved:
    sink = Sink(fd)
    packing = compressor(output.filter, sink, fd)
    try:
        for data in reading.chunks():
            packing.write(data)
        counts = reading.finish()
        packing.close()
    finally:
        packing.free()
    return Saved(written_bytes=sink.size_bytes, **counts)


def failed(path: str, error: OSError) -> errors.GuntainerError:
    """An archive that can not be written, in words."""
    where = "standard output" if path == STDOUT else path
    hint = "free some, or write it to a larger disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return errors.GuntainerError(f"{where}: {error.strerror or os.strerror(error.errno or 0)}", hint=hint)
