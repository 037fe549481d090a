"""An image's documents: its index and its manifest, as OCI's image-spec and docker's schema 2 have them.

Pure: bytes in, values out. Who has the bytes, from a file or a registry, has checked nothing of them; here everything is: the
digests of documents against their bytes, the form of every digest, so that none can be a path, every type, size and count.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.image import configs, document, platforms
from guntainer.image.config import Config
from guntainer.image.document import bad, shown
from guntainer.image.platforms import Platform
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from guntainer.image.document import Table

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
INDEXES = (OCI_INDEX, DOCKER_LIST)
MANIFESTS = (OCI_MANIFEST, DOCKER_MANIFEST)
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1+"

_OCI_LAYER = "application/vnd.oci.image.layer."
LAYERS = (
    *(f"{_OCI_LAYER}{kind}v1.tar{how}" for kind in ("", "nondistributable.") for how in ("", "+gzip", "+zstd")),
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
)
"""What a layer may be. How it is compressed is seen from its bytes all the same."""

MOST_LAYERS = 499
"""overlayfs stacks 500 folders (OVL_MAX_STACK of Linux), and the one with the container's own /etc files is one of them."""
_MOST_ENTRIES = 4096  # of an index
_MOST_LAYERS_NAMED = 4096  # the same one may come again and again
_MOST_URLS = 16
REF_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"
_REFERENCE_TYPE = "vnd.docker.reference.type"


class Descriptor(Value):
    """What one document says of another, or of a layer: OCI image-spec, "descriptor.md"."""

    digest: str
    """64 hex digits of its sha256."""
    size_bytes: int
    media_type: str = ""
    platform: Platform | None = None
    names: tuple[str, ...] = ()
    """What a layout calls it: annotations."""
    urls: tuple[str, ...] = ()
    attached: bool = False
    """It belongs to another entry, and is no image: an attestation, a signature."""


class Index(Value):
    """Several images, for different platforms or under different names."""

    digest: str
    entries: tuple[Descriptor, ...]


class Manifest(Value):
    """One image: its config, and its layers, lowest first."""

    digest: str
    config: Descriptor
    layers: tuple[Descriptor, ...]


class Layer(Value):
    """One layer of an image, and where its bytes are."""

    digest: str
    """64 hex digits: the sha256 of the blob as it lies there, compressed or not."""
    size_bytes: int
    media_type: str = ""
    diff_id: str = ""
    """64 hex digits: the sha256 of its uncompressed tar."""
    path: str = ""
    """The file that it is, or is a part of; "": it has to be fetched."""
    offset: int = 0
    """Where in that it begins."""
    urls: tuple[str, ...] = ()
    """Where it is told to be, where it is neither here nor in the registry: a foreign layer."""

    request: object = None
    """What it is fetched by, plain values: set by whoever knows how to. None: it is here."""

    def __repr__(self) -> str:
        return f"Layer({self.digest[:12]!r}, {self.media_type!r})"  # a request may hold a token

    @property
    def source(self) -> tuple[Any, ...]:
        """Its bytes, as an unpacker takes them: see `archive.source`.

        Raises:
            RootfsError: they are nowhere.
        """
        if self.request is not None:
            return ("remote", self.request)
        if not self.path:
            raise errors.RootfsError(f"layer {self.digest[:12]}: it is not here, and there is no way to fetch it")
        return ("file", self.path, self.offset, self.size_bytes)


class Image(Value):
    """An image for one platform."""

    digest: str
    """64 hex digits: the sha256 of its manifest; of one that has none, as `docker save` had it, of its config."""
    config: Config
    layers: tuple[Layer, ...]
    """Lowest first, each once: of one that comes again the uppermost place counts, which hides all that it has in the others."""
    id: str = ""
    """The sha256 of its config: docker's image id."""


def sha256(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def check_blob(data: bytes, wanted: Descriptor, where: str) -> None:
    """Compare a document with what was said of it.

    Raises:
        RootfsError: it is another one.
    """
    if len(data) != wanted.size_bytes and wanted.size_bytes >= 0:
        raise bad(where, f"{len(data)} bytes long, but {wanted.size_bytes} were named")
    found = sha256(data)
    if found != wanted.digest:
        raise bad(where, f"its sha256 is {found}, but {wanted.digest} was named", hint="it is damaged")


def _descriptor(values: Table, where: str) -> Descriptor:
    digest = document.digest_of(document.text(values, "digest", where), where)
    marks = document.table(values.get("annotations") or {}, f"{where}: annotations")
    names = (document.text(marks, key, where, "") for key in (_CONTAINERD_NAME, REF_NAME))
    urls = document.texts(values, "urls", where)
    if len(urls) > _MOST_URLS:
        raise bad(where, f"urls: {len(urls)} are more than {_MOST_URLS}")
    return Descriptor(
        digest=digest,
        size_bytes=document.number(values, "size", where),
        media_type=document.text(values, "mediaType", where, "").partition(";")[0].strip(),
        platform=_platform(values.get("platform"), f"{where}: platform"),
        names=tuple(dict.fromkeys(name for name in names if name)),
        urls=urls,
        attached=_REFERENCE_TYPE in marks or bool(values.get("artifactType")),
    )


def _platform(value: object, where: str) -> Platform | None:
    if value is None:
        return None
    values = document.table(value, where)
    os_, architecture, variant = (document.text(values, key, where, "") for key in ("os", "architecture", "variant"))
    return platforms.normal(os_, architecture, variant) if os_ or architecture else None


def parse(data: bytes, where: str, media_type: str = "") -> Index | Manifest:
    """An index or a manifest, whichever it is.

    Args:
        media_type: what whoever names it, or sends it, says that it is.

    Raises:
        RootfsError: it is neither, or wrong in itself.
    """
    values = document.table(document.parse(data, where), where)
    told = document.text(values, "mediaType", where, "")
    named = media_type.partition(";")[0].strip()
    known = (*INDEXES, *MANIFESTS)
    kind = told or (named if named in known or named.startswith(_SCHEMA_1) else "")  # servers may say application/json
    if values.get("schemaVersion") == 1 or kind.startswith(_SCHEMA_1):
        hint = "push it again with a docker of today"
        raise bad(where, "a manifest of docker's schema 1, which is not supported", hint=hint)
    # a document that can be read as both means what its reader likes: CVE-2021-41190
    if "manifests" in values and ("layers" in values or "config" in values):
        raise bad(where, "both an index and a manifest")
    if named in known and kind != named:
        raise bad(where, f"named as {shown(named)}, but says of itself that it is {shown(told)}")
    if kind in INDEXES or (not kind and "manifests" in values):
        return _index(values, sha256(data), where)
    if kind in MANIFESTS or (not kind and "layers" in values):
        return _manifest(values, sha256(data), where)
    raise bad(where, f"neither an index nor a manifest of images, but {shown(kind) if kind else 'something else'}")


def _index(values: Table, digest: str, where: str) -> Index:
    if "manifests" not in values:
        raise bad(where, "manifests is missing")
    found = document.tables(values, "manifests", where, _MOST_ENTRIES)
    entries = [_descriptor(one, f"{where}: manifests[{place}]") for place, one in enumerate(found)]
    return Index(digest=digest, entries=tuple(entries))


def _manifest(values: Table, digest: str, where: str) -> Manifest:
    if "config" not in values:
        raise bad(where, "config is missing")
    config = _descriptor(document.table(values["config"], f"{where}: config"), f"{where}: config")
    if config.media_type not in (OCI_CONFIG, DOCKER_CONFIG, "", "application/json", "application/octet-stream"):
        raise bad(where, f"no container image: its config is {shown(config.media_type)}")
    found = document.tables(values, "layers", where, _MOST_LAYERS_NAMED)
    layers = [_descriptor(one, f"{where}: layers[{place}]") for place, one in enumerate(found)]
    for place, layer in enumerate(layers):
        check_media_type(layer.media_type, f"{where}: layers[{place}]")
    return Manifest(digest=digest, config=config, layers=tuple(layers))


def check_media_type(media_type: str, where: str) -> None:
    """Refuse a layer that no unpacker has an idea of."""
    if media_type.endswith("+encrypted"):
        raise bad(where, "it is encrypted", hint="decrypt the image first: skopeo copy --decryption-key")
    if media_type not in LAYERS:
        raise bad(where, f"media type {shown(media_type)} is not that of a layer")


def is_image(entry: Descriptor) -> bool:
    """Whether an index's entry may be an image at all: not an attestation, a signature, or what has no platform by design."""
    unknown = entry.platform is not None and "unknown" in (entry.platform.os, entry.platform.architecture)
    return not (entry.attached or unknown) and entry.media_type in (*INDEXES, *MANIFESTS, "")


def choose(entries: Sequence[Descriptor], wanted: Platform | None, name: str) -> Descriptor:
    """The entry for a platform.

    Args:
        wanted: None: for this machine.
        name: of the image, for messages.

    Raises:
        RootfsError: none of them is, and which there are.
    """
    images = [entry for entry in entries if is_image(entry)]
    for platform in platforms.acceptable(wanted):
        for entry in images:
            if entry.platform is not None and platforms.fits(entry.platform, platform):
                return entry
    # an entry that does not say has its config looked at when it has been read
    silent = [entry for entry in images if entry.platform is None]
    if silent:
        return silent[0]
    raise platforms.misfit(name, [entry.platform for entry in images if entry.platform is not None], wanted)


def image_of(manifest: Manifest, config: bytes, name: str) -> Image:
    """The image of a manifest and its config; where its layers' bytes are is not known yet.

    Args:
        name: of the image, for messages.

    Raises:
        RootfsError: the config is another one, or does not go with the manifest.
    """
    where = f"{name}: config {manifest.config.digest[:12]}"
    check_blob(config, manifest.config, where)
    found, ids = configs.config_of(config, where)
    if len(ids) != len(manifest.layers):
        raise bad(name, f"its manifest has {len(manifest.layers)} layers, its config {len(ids)}")
    layers = [
        Layer(digest=one.digest, size_bytes=one.size_bytes, media_type=one.media_type, diff_id=diff_id, urls=one.urls)
        for one, diff_id in zip(manifest.layers, ids, strict=True)
    ]
    return Image(digest=manifest.digest, config=found, layers=stacked(layers, name), id=manifest.config.digest)


def stacked(layers: Sequence[Layer], name: str) -> tuple[Layer, ...]:
    """Layers, lowest first, each once: overlayfs refuses a folder that comes twice, and the upper one hides all of the lower.

    Raises:
        RootfsError: they are too many, or one is said to be two different ones.
    """
    found: dict[str, Layer] = {}
    for layer in reversed(layers):
        other = found.setdefault(layer.digest, layer)
        if other.diff_id != layer.diff_id or other.size_bytes != layer.size_bytes:
            raise bad(name, f"layer {layer.digest[:12]} is named twice, with different contents")
    if len(found) > MOST_LAYERS:
        raise bad(
            name,
            f"{len(found)} layers are more than the {MOST_LAYERS} that overlayfs can stack",
            hint="make an image of fewer layers of it",
        )
    return tuple(reversed(found.values()))
