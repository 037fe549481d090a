"""Write an OCI image layout: image-spec, image-layout.md, manifest.md and config.md.

Blobs have no name until the last one is written: then the folder is made, or added to, and its index replaced last of all. What
fails before that leaves nothing, and a reader sees the old image or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os

from guntainer import errors, interrupts
from guntainer.archive.compressing import Sink, compressor
from guntainer.archive.whole import Whole
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.export.helper import Helper
    from guntainer.image.config import Config

_INDEX_BYTES = 4 << 20
_TYPES = "application/vnd.oci.image."
_REF = "org.opencontainers.image.ref.name"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i386": "386", "i686": "386", "armv7l": "arm"}


class Blob(Value):
    """A layer that was written."""

    digest: str
    size_bytes: int
    diff_id: str
    """The sha256 of what it is when it is decompressed."""


def check(path: str, tag: str) -> None:
    """Whether an image can be put there; what is there already is told before anything is built.

    Raises:
        UsageError: it can not.
    """
    if tag and (set(tag) - _TAG or not tag[0].isalnum() or len(tag) > 128):
        raise errors.UsageError(f"oci:{path}:{tag}: not a tag: expected letters, digits and . _ - such as 1.0")
    parent = os.path.dirname(os.path.abspath(path))
    if not os.path.lexists(path):
        if not os.path.isdir(parent):
            raise errors.UsageError(f"oci:{path}: the folder {parent} does not exist", hint="make it first")
        if not os.access(parent, os.W_OK | os.X_OK):
            raise errors.UsageError(f"oci:{path}: the folder {parent} can not be written")
        return
    if not os.path.isdir(path):
        raise errors.UsageError(f"oci:{path} is there, and is no folder: it is not replaced")
    if not os.access(path, os.W_OK | os.X_OK):
        raise errors.UsageError(f"oci:{path} can not be written")
    if os.listdir(path):
        _read_index(path)


_TAG = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


def _read_index(path: str) -> dict[str, Any]:
    """The index of a layout that is there.

    Raises:
        UsageError: it is none.
    """
    try:
        if not os.path.isfile(f"{path}/oci-layout"):
            raise ValueError("no oci-layout in it")
        with open(f"{path}/index.json", "rb") as file:
            data = file.read(_INDEX_BYTES + 1)
        found = json.loads(data) if len(data) <= _INDEX_BYTES else None
        if not isinstance(found, dict) or not isinstance(found.get("manifests"), list):
            raise ValueError("its index.json is not one")
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise errors.UsageError(f"oci:{path} is there, and is no image layout ({why}): it is not replaced") from None
    return found


class Layout:
    """A layout under way; a context manager that leaves nothing, unless `finish` was called."""

    def __init__(self, path: str, tag: str) -> None:
        self._path = os.path.abspath(path)
        self._tag = tag
        self._layers: list[tuple[Blob, Whole]] = []

    def __enter__(self) -> Layout:
        return self

    def __exit__(self, *_: object) -> None:
        for _blob, file in self._layers:
            file.__exit__()

    def _place(self) -> str:
        """Where files without a name are made: on the file system of the layout."""
        return self._path if os.path.isdir(self._path) else os.path.dirname(self._path)

    def add(self, reading: Helper) -> Blob:
        """The next layer, from below, as a helper gives it; it is ended by this in any case.

        Raises:
            GuntainerError: it can not be read.
            OSError: it can not be written.
        """
        file = Whole(f"{self._place()}/layer")
        try:
            with reading:
                blob = self._write(reading, file.__enter__().fd)
        except BaseException:
            file.__exit__()
            raise
        self._layers.append((blob, file))
        return blob

    @staticmethod
    def _write(reading: Helper, fd: int) -> Blob:
        diff, digest = hashlib.sha256(), hashlib.sha256()
        sink = Sink(fd, digest)
        packing = compressor("gzip", sink, fd)
        for data in reading.chunks():
            diff.update(data)
            packing.write(data)
        reading.finish()
        packing.close()
        return Blob(digest=digest.hexdigest(), size_bytes=sink.size_bytes, diff_id=diff.hexdigest())

    def finish(self, config: dict[str, Any]) -> str:
        """Put it all into place.

        Args:
            config: the image's, without `rootfs`, which is made of the layers.

        Returns:
            the digest of its manifest.

        Raises:
            OSError: it can not be written: what was made for it is removed.
        """
        layers = [blob for blob, _ in self._layers]
        diff_ids = [f"sha256:{blob.diff_id}" for blob in layers]
        told = _json({**config, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        manifest = _json(
            {
                "schemaVersion": 2,
                "mediaType": _TYPES + "manifest.v1+json",
                "config": _descriptor("config.v1+json", _sha256(told), len(told)),
                "layers": [_descriptor("layer.v1.tar+gzip", blob.digest, blob.size_bytes) for blob in layers],
            }
        )
        made: list[str] = []
        with interrupts.held():  # it is short, and done or undone as a whole
            try:
                self._folders(made)
                for blob, file in self._layers:
                    self._keep(file, blob.digest, made)
                for data in (told, manifest):
                    with Whole(f"{self._path}/blob") as file:
                        Sink(file.fd).write(data)
                        self._keep(file, _sha256(data), made)
                self._indexed(_sha256(manifest), len(manifest), config["architecture"], made)
            except BaseException:
                for path in reversed(made):
                    (os.rmdir if os.path.isdir(path) else os.unlink)(path)
                raise
        return _sha256(manifest)

    def _folders(self, made: list[str]) -> None:
        for path in (self._path, f"{self._path}/blobs", f"{self._path}/blobs/sha256"):
            try:
                os.mkdir(path)
                made.append(path)
            except FileExistsError:
                pass

    def _keep(self, file: Whole, digest: str, made: list[str]) -> None:
        path = f"{self._path}/blobs/sha256/{digest}"
        if not os.path.exists(path):  # of another image, or of the one before: the same bytes
            file.keep(path)
            made.append(path)

    def _indexed(self, digest: str, size: int, architecture: str, made: list[str]) -> None:
        found: dict[str, Any] = {"schemaVersion": 2, "mediaType": _TYPES + "index.v1+json", "manifests": []}
        if os.path.exists(f"{self._path}/oci-layout"):
            found = _read_index(self._path)
        else:
            with Whole(f"{self._path}/oci-layout") as file:
                Sink(file.fd).write(_json({"imageLayoutVersion": "1.0.0"}))
                file.keep()
                made.append(f"{self._path}/oci-layout")
        new = _descriptor("manifest.v1+json", digest, size)
        new["platform"] = {"os": "linux", "architecture": architecture}
        if self._tag:
            new["annotations"] = {_REF: self._tag}
        kept = [one for one in found["manifests"] if _tag_of(one) != self._tag]
        with Whole(f"{self._path}/index.json") as file:
            Sink(file.fd).write(_json({**found, "manifests": [*kept, new]}))
            file.keep()


def _tag_of(descriptor: object) -> str:
    """The name that an index has for an image; "" none."""
    annotations = descriptor.get("annotations") if isinstance(descriptor, dict) else None
    return str(annotations.get(_REF, "")) if isinstance(annotations, dict) else ""


def _descriptor(kind: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": _TYPES + kind, "digest": f"sha256:{digest}", "size": size}


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("ascii")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def architecture(machine: str | None) -> str:
    """What the spec calls a machine, GOARCH; without one, this one."""
    machine = machine or os.uname().machine
    return _ARCHITECTURES.get(machine, machine)


def described(config: Config) -> dict[str, Any]:
    """The part of a configuration that says how an image is run: config.md, "Properties"."""
    said = {
        "User": config.user,
        "ExposedPorts": {port: {} for port in config.ports},
        "Env": [f"{name}={value}" for name, value in config.env],
        "Entrypoint": list(config.entrypoint),
        "Cmd": list(config.cmd),
        "Volumes": {path: {} for path in config.volumes},
        "WorkingDir": config.workdir,
        "Labels": dict(config.labels),
        "StopSignal": config.stop_signal,
    }
    return {name: value for name, value in said.items() if value}
