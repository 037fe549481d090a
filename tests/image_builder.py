"""Container images for tests, made by code: layers of entries, images of layers, and the files that images come in.

    base = layer(("bin", "dir", {}), ("bin/x", "file", {"data": b"…", "mode": 0o755}))
    upper = layer(whiteout("bin/x"), opaque("etc"), compression="zstd")
    web = image(base, upper, config={"Cmd": ["/bin/x"], "Env": ["A=b"]})
    oci_folder(tmp_path / "layout", {"web:1": web})        oci_tar(tmp_path / "web.tar", {"web:1": web})
    docker_tar(tmp_path / "saved.tar", {"web:1": web})     style="new": as docker 25 has it, "flat": as podman
    oci_folder(path, {"web": index(web, image(base, architecture="arm64"))})   several platforms under one name

An entry is (name, kind, more) as in tests/container/archives.py; kind is file, dir, sym, link, fifo, char or block.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Entry = tuple[str, str, dict[str, Any]]

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_SUFFIX = {"": "", "gzip": "+gzip", "zstd": "+zstd"}
_KINDS = {
    "file": tarfile.REGTYPE,
    "dir": tarfile.DIRTYPE,
    "sym": tarfile.SYMTYPE,
    "link": tarfile.LNKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "char": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
}
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
HERE = _MACHINES.get(os.uname().machine, os.uname().machine)
"""This machine, in the words of images."""


def sha256(data: bytes) -> str:
    """64 hex digits."""
    return hashlib.sha256(data).hexdigest()


def whiteout(path: str) -> Entry:
    """What is at this path in the layers below is gone."""
    folder, _, name = path.rpartition("/")
    return (f"{folder}/.wh.{name}" if folder else f".wh.{name}", "file", {"mode": 0o600})


def opaque(folder: str) -> Entry:
    """All that is in this folder in the layers below is gone."""
    return (f"{folder}/.wh..wh..opq" if folder else ".wh..wh..opq", "file", {"mode": 0o600})


def tar_of(entries: Sequence[Entry], format_: int = tarfile.PAX_FORMAT) -> bytes:
    """An uncompressed tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format_) as archive:
        for name, kind, more in entries:
            info = tarfile.TarInfo(name)
            data = more.get("data", b"")
            info.type = _KINDS[kind]
            info.size = len(data)
            info.mode = more.get("mode", 0o755 if kind == "dir" else 0o644)
            info.mtime = more.get("mtime", 1000)
            info.uid, info.gid = more.get("uid", 0), more.get("gid", 0)
            info.linkname = more.get("to", "")
            info.devmajor, info.devminor = more.get("device", (1, 3))
            info.pax_headers = more.get("pax", {})
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zstd(data: bytes) -> bytes:
    """Compressed by libarchive's own writer: Python has none."""
    from guntainer.archive.library import load_libarchive

    ffi = load_libarchive()
    with tempfile.NamedTemporaryFile() as file:
        archive = ffi.write_new()
        ffi.get_write_format_function("raw")(archive)
        ffi.get_write_filter_function("zstd")(archive)
        ffi.write_open_filename(archive, os.fsencode(file.name))
        entry = ffi.entry_new()
        ffi.entry_copy_pathname(entry, b"data")
        ffi.entry_set_filetype(entry, 0o100000)
        ffi.write_header(archive, entry)
        if data:
            ffi.write_data(archive, data, len(data))
        ffi.write_finish_entry(archive)
        ffi.entry_free(entry)
        ffi.write_close(archive)
        ffi.write_free(archive)
        return Path(file.name).read_bytes()


@dataclass(frozen=True)
class Layer:
    """A layer's blob.

    Args:
        tar: its uncompressed bytes.
        media_type: "": by its compression, as the manifest's kind has it.
        urls: where a foreign layer's bytes are; it is left out of what is written where `left_out`.
    """

    data: bytes
    tar: bytes
    compression: str = "gzip"
    media_type: str = ""
    urls: tuple[str, ...] = ()
    left_out: bool = False

    @property
    def digest(self) -> str:
        return sha256(self.data)

    @property
    def diff_id(self) -> str:
        return sha256(self.tar)


def layer_of(tar: bytes, compression: str = "gzip", **more: Any) -> Layer:
    """A layer of the bytes of a tar."""
    if compression == "gzip":
        data = gzip.compress(tar, 1, mtime=0)
    elif compression == "zstd":
        data = zstd(tar)
    else:
        data = tar
    return Layer(data=data, tar=tar, compression=compression, **more)


def layer(*entries: Entry, compression: str = "gzip", **more: Any) -> Layer:
    """A layer of entries; compression: "", "gzip" or "zstd"."""
    return layer_of(tar_of(entries), compression, **more)


@dataclass(frozen=True)
class Image:
    """One manifest with what it names.

    `manifest` and `config` are the bytes as they are written; `descriptor` is what an index says of it.
    """

    layers: tuple[Layer, ...]
    config: bytes
    manifest: bytes
    media_type: str
    platform: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return sha256(self.manifest)

    @property
    def descriptor(self) -> dict[str, Any]:
        found = descriptor(self.media_type, self.manifest)
        if self.platform:
            found["platform"] = self.platform
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found

    def blobs(self) -> dict[str, bytes]:
        """Digest → bytes, of all that it needs."""
        found = {one.digest: one.data for one in self.layers if not one.left_out}
        return {**found, sha256(self.config): self.config, self.digest: self.manifest}


def descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": f"sha256:{sha256(data)}", "size": len(data)}


def config_of(
    layers: Sequence[Layer],
    config: Mapping[str, Any] | None = None,
    *,
    architecture: str = HERE,
    os: str = "linux",
    variant: str = "",
    empty_layers: int = 0,
) -> dict[str, Any]:
    """An image's config document; `config` is its inner part: Entrypoint, Cmd, Env, …"""
    history: list[dict[str, Any]] = [{"created_by": f"layer {number}"} for number, _ in enumerate(layers)]
    history += [{"created_by": "a setting", "empty_layer": True}] * empty_layers
    found: dict[str, Any] = {
        "architecture": architecture,
        "os": os,
        "config": dict(config or {}),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{one.diff_id}" for one in layers]},
        "history": history,
    }
    return found | ({"variant": variant} if variant else {})


def image(
    *layers: Layer,
    config: Mapping[str, Any] | None = None,
    architecture: str = HERE,
    os: str = "linux",
    variant: str = "",
    docker: bool = False,
    empty_layers: int = 0,
    with_platform: bool = True,
    annotations: Mapping[str, str] | None = None,
    change_config: Mapping[str, Any] | None = None,
    change_manifest: Mapping[str, Any] | None = None,
) -> Image:
    """An image of layers, lowest first.

    Args:
        docker: with docker's schema 2 rather than OCI's manifest.
        empty_layers: entries of the history that have no blob.
        change_config, change_manifest: keys of these documents to set, for what is wrong in them.
    """
    document = config_of(
        layers, config, architecture=architecture, os=os, variant=variant, empty_layers=empty_layers
    ) | dict(change_config or {})
    data = json.dumps(document).encode()
    kind, config_kind = (DOCKER_MANIFEST, DOCKER_CONFIG) if docker else (OCI_MANIFEST, OCI_CONFIG)
    found = []
    for one in layers:
        base, suffix = (DOCKER_LAYER, ".gzip") if docker and one.compression == "gzip" else (OCI_LAYER, "")
        media_type = one.media_type or base + (suffix or _SUFFIX[one.compression])
        found.append(descriptor(media_type, one.data) | ({"urls": list(one.urls)} if one.urls else {}))
    manifest: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": kind,
        "config": descriptor(config_kind, data),
        "layers": found,
    }
    manifest |= dict(change_manifest or {})
    platform = {"architecture": architecture, "os": os} | ({"variant": variant} if variant else {})
    return Image(
        layers=layers,
        config=data,
        manifest=json.dumps(manifest).encode(),
        media_type=kind,
        platform=platform if with_platform else {},
        annotations=dict(annotations or {}),
    )


@dataclass(frozen=True)
class Index:
    """One name for images of several platforms."""

    images: tuple[Image, ...]
    data: bytes
    media_type: str

    @property
    def digest(self) -> str:
        return sha256(self.data)

    @property
    def descriptor(self) -> dict[str, Any]:
        return descriptor(self.media_type, self.data)

    def blobs(self) -> dict[str, bytes]:
        found: dict[str, bytes] = {self.digest: self.data}
        for one in self.images:
            found |= one.blobs()
        return found


def index(*images: Image, docker: bool = False, change: Mapping[str, Any] | None = None) -> Index:
    """An index (docker: a manifest list) of images."""
    kind = DOCKER_LIST if docker else OCI_INDEX
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": [one.descriptor for one in images]}
    return Index(images=images, data=json.dumps(document | dict(change or {})).encode(), media_type=kind)


def attestation(of: Image) -> Image:
    """What buildkit adds to an index beside an image: no image at all."""
    note = layer_of(b'{"_type": "https://in-toto.io/Statement/v0.1"}', "", media_type="application/vnd.in-toto+json")
    marks = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": f"sha256:{of.digest}"}
    return image(note, architecture="unknown", os="unknown", annotations=marks)


Named = Mapping[str, Image | Index] | Sequence[Image | Index]


def oci_files(named: Named) -> dict[str, bytes]:
    """Path → bytes of an OCI layout.

    Args:
        named: by tag; a sequence: without names.
    """
    pairs = list(named.items()) if isinstance(named, Mapping) else [("", one) for one in named]
    manifests = []
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}
    for tag, one in pairs:
        found = one.descriptor
        if tag:
            found["annotations"] = {**found.get("annotations", {}), "org.opencontainers.image.ref.name": tag}
        manifests.append(found)
        files |= {f"blobs/sha256/{digest}": data for digest, data in one.blobs().items()}
    document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}
    return files | {"index.json": json.dumps(document).encode()}


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def write_tar(path: Path, files: Mapping[str, bytes], links: Mapping[str, str] | None = None, top: str = "") -> Path:
    """A tar of files, and of symbolic links (name → target); `top`: all below this folder; mode by the file's ending."""
    mode = {".gz": "w:gz", ".xz": "w:xz"}.get(path.suffix, "w")
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(top + name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(top + name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return path


def oci_folder(path: Path, named: Named) -> Path:
    return write_folder(path, oci_files(named))


def oci_tar(path: Path, named: Named, top: str = "") -> Path:
    return write_tar(path, oci_files(named), top=top)


def docker_files(
    named: Mapping[str, Image] | Sequence[Image], style: str = "old"
) -> tuple[dict[str, bytes], dict[str, str]]:
    """Files and links of a `docker save` tar.

    Args:
        style: "old": a folder with layer.tar for each layer of each image, links where a layer was there before.
            "flat": DIFF_ID.tar beside manifest.json, as podman writes it. "new": OCI's blobs, and both kinds of index.
    """
    pairs = list(named.items()) if isinstance(named, Mapping) else [("", one) for one in named]
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    manifest = []
    repositories: dict[str, dict[str, str]] = {}
    known: dict[str, str] = {}
    for tag, one in pairs:
        config = f"{sha256(one.config)}.json" if style != "new" else f"blobs/sha256/{sha256(one.config)}"
        files[config] = one.config
        names = []
        for number, part in enumerate(one.layers):
            if style == "new":
                name = f"blobs/sha256/{part.diff_id}"
                files[name] = part.tar
            elif style == "flat":
                name = f"{part.diff_id}.tar"
                files[name] = part.tar
            else:
                folder = sha256(f"{one.digest} {number}".encode())
                name = f"{folder}/layer.tar"
                files[f"{folder}/VERSION"] = b"1.0"
                files[f"{folder}/json"] = json.dumps({"id": folder}).encode()
                if part.diff_id in known:
                    links[name] = f"../{known[part.diff_id]}"
                else:
                    files[name] = part.tar
                    known[part.diff_id] = name
            names.append(name)
        manifest.append({"Config": config, "RepoTags": [tag] if tag else None, "Layers": names})
        if tag and names:
            repository, _, version = tag.rpartition(":")
            repositories.setdefault(repository, {})[version] = names[-1].partition("/")[0]
    files["manifest.json"] = json.dumps(manifest).encode()
    if repositories:
        files["repositories"] = json.dumps(repositories).encode()
    if style == "new":
        plain = [image_again(one) for _, one in pairs]
        files |= oci_files({tag: one for (tag, _), one in zip(pairs, plain, strict=True)} if pairs[0][0] else plain)
    return files, links


def image_again(one: Image) -> Image:
    """The same image with its layers uncompressed."""
    plain = tuple(layer_of(part.tar, "") for part in one.layers)
    manifest = json.loads(one.manifest)
    manifest["layers"] = [descriptor(OCI_LAYER, part.data) for part in plain]
    return Image(
        layers=plain,
        config=one.config,
        manifest=json.dumps(manifest).encode(),
        media_type=OCI_MANIFEST,
        platform=one.platform,
    )


def docker_tar(path: Path, named: Mapping[str, Image] | Sequence[Image], style: str = "old", top: str = "") -> Path:
    files, links = docker_files(named, style)
    return write_tar(path, files, links, top)
