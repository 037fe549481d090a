"""Read an image where it lies: an OCI layout, or what `docker save` wrote, in a folder or an uncompressed tar.

The way to it: `sniffing` tells what is there, `places` where its files are, `manifest` what they say; `saved` is docker's own
form. Layers stay where they are: an image says where, and whoever unpacks one compares its digest.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.image import configs, document, manifest, platforms, saved, sniffing
from guntainer.image.document import bad, shown
from guntainer.image.manifest import Descriptor, Image, Index, Layer, Manifest
from guntainer.image.platforms import Platform
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from guntainer.image.places import Files

__all__ = ["Image", "Layer", "contents", "is_image", "open_image"]
_DEEPEST = 4  # indexes in indexes
_MOST_READ = 256  # of them, in the search for a digest
_MOST_SHOWN = 12


class Content(Value):
    """One image of a place, as it is chosen."""

    names: tuple[str, ...]
    digest: str
    platforms: tuple[Platform, ...]


def is_image(path: str) -> str | None:
    """ "oci" or "docker", None where it is no image, or a compressed one: that is seen when it is unpacked."""
    found = sniffing.detect(path)
    return found.kind if found is not None else None


def open_image(path: str, reference: str = "", platform: str = "", *, name: str = "", foreign: bool = False) -> Image:
    """An image of a folder or an uncompressed tar.

    Args:
        reference: a tag, a name with one, or `@sha256:…`; "": the only image there is.
        platform: `os/arch[/variant]`; "": this machine's.
        name: what messages call it.
        foreign: an image for another machine alone is welcome: there is an emulator, or nothing is to be run.

    Raises:
        RootfsError: it is none, is wrong in itself, has no such image, or none for this platform.
        UsageError: the platform has another form.
    """
    name = name or path
    wanted = platforms.parse(platform) if platform else None
    with _files(path, name) as (kind, files):
        docker = kind == sniffing.DOCKER
        image = saved.image(files, reference) if docker else _located(files, _chosen(files, reference, wanted))
    platforms.check(name, image.config, wanted, foreign=foreign)
    return image


def contents(path: str, *, name: str = "") -> tuple[Content, ...]:
    """All images of a folder or an uncompressed tar."""
    with _files(path, name or path) as (kind, files):
        if kind == sniffing.DOCKER:
            return tuple(
                Content(names=one.names, digest=one.id, platforms=(saved.platform(files, one),))
                for one in saved.entries(files)
            )
        return tuple(
            Content(names=entry.names, digest=entry.digest, platforms=tuple(_platforms(files, entry)))
            for entry in _entries(files)
        )


class _files:  # noqa: N801 - used as a function
    """`with _files(…) as (kind, files)`."""

    def __init__(self, path: str, name: str) -> None:
        self._path = path
        self._name = name

    def __enter__(self) -> tuple[str, Files]:
        found = sniffing.detect(self._path)
        if found is None:
            raise bad(self._name, "no container image")
        try:
            self._opened = found.open(self._path, self._name)
        except OSError as error:
            raise errors.RootfsError(f"{self._name}: {errors.describe_oserror(error)}") from None
        return found.kind, self._opened

    def __exit__(self, _kind: object, error: BaseException | None, _where: object) -> None:
        self._opened.close()
        if isinstance(error, OSError):  # of the disk
            raise errors.RootfsError(f"{self._name}: {errors.describe_oserror(error)}") from None


# -- choosing


def _entries(files: Files) -> tuple[Descriptor, ...]:
    """The images that the layout's index names."""
    data = files.read("index.json")
    if data is None:
        raise files.missing("index.json")
    index = manifest.parse(data, files.shown("index.json"), manifest.OCI_INDEX)
    if not isinstance(index, Index):
        raise bad(files.shown("index.json"), "no index")
    found = tuple(entry for entry in index.entries if manifest.is_image(entry))
    if not found:
        raise bad(files.name, "there is no image in it")
    return found


def _chosen(files: Files, reference: str, wanted: Platform | None) -> Manifest:
    """The manifest that is meant."""
    entries = _entries(files)
    if reference.startswith(("@", "sha256:")):
        digest = document.digest_of(reference.removeprefix("@"), files.name)
        entry = _by_digest(files, entries, digest)
    else:
        entry = _by_name(files, entries, reference, wanted)
    return _manifest(files, entry, wanted)


def _by_name(files: Files, entries: Sequence[Descriptor], reference: str, wanted: Platform | None) -> Descriptor:
    named = [entry for entry in entries if reference in entry.names] if reference else list(entries)
    if not named:
        named = [entry for entry in entries if any(saved.same_name(reference, one) for one in entry.names)]
    if not named:
        raise saved.unknown(files.name, reference, [name for entry in entries for name in entry.names])
    if len({entry.digest for entry in named}) == 1:
        return named[0]
    if len({entry.names for entry in named}) > 1:
        raise saved.several(files.name, [name for entry in named for name in entry.names[:1]], len(named))
    # one name, or none at all: for several platforms
    if len({str(entry.platform) for entry in named}) != len(named) or any(entry.platform is None for entry in named):
        digests = [f"@sha256:{entry.digest}" for entry in named[:_MOST_SHOWN]]
        raise bad(files.name, f"{len(named)} images without names: choose one by its digest", hint=", ".join(digests))
    return manifest.choose(named, wanted, files.name)


def _by_digest(files: Files, entries: Iterable[Descriptor], digest: str) -> Descriptor:
    """The entry with a digest, in this index or in one that it names."""
    todo = [(entry, 1) for entry in entries]
    read = 0
    while todo:
        entry, depth = todo.pop(0)
        if entry.digest == digest:
            return entry
        if entry.media_type in manifest.INDEXES and depth < _DEEPEST and read < _MOST_READ:
            read += 1
            below = _document(files, entry)
            if isinstance(below, Index):
                todo += [(one, depth + 1) for one in below.entries]
    raise bad(files.name, f"there is no image sha256:{digest} in it")


def _document(files: Files, entry: Descriptor) -> Index | Manifest:
    """An index or a manifest, by what another says of it."""
    file = f"blobs/sha256/{entry.digest}"
    data = files.read(file)
    if data is None:
        raise files.missing(file)
    manifest.check_blob(data, entry, files.shown(file))
    return manifest.parse(data, files.shown(file), entry.media_type)


def _manifest(files: Files, entry: Descriptor, wanted: Platform | None) -> Manifest:
    for _ in range(_DEEPEST):
        found = _document(files, entry)
        if isinstance(found, Manifest):
            return found
        entry = manifest.choose(found.entries, wanted, files.name)
    raise bad(files.name, f"more than {_DEEPEST} indexes, one in the other")


def _platforms(files: Files, entry: Descriptor) -> Iterator[Platform]:
    if entry.platform is not None:
        yield entry.platform
        return
    found = _document(files, entry)
    if isinstance(found, Index):
        yield from (one.platform for one in found.entries if manifest.is_image(one) and one.platform is not None)
        return
    config = _read_config(files, found)
    said = configs.config_of(config, files.name)[0]
    yield platforms.normal(said.os, said.architecture, said.variant)


# -- where its layers are


def _read_config(files: Files, found: Manifest) -> bytes:
    file = f"blobs/sha256/{found.config.digest}"
    data = files.read(file)
    if data is None:
        raise files.missing(file)
    return data


def _located(files: Files, found: Manifest) -> Image:
    image = manifest.image_of(found, _read_config(files, found), files.name)
    return image.replace(layers=tuple(_local(files, layer) for layer in image.layers))


def _local(files: Files, layer: Layer) -> Layer:
    """A layer with the place of its bytes; a foreign one may be elsewhere.

    Raises:
        RootfsError: they are nowhere, or not as many as was told.
    """
    file = f"blobs/sha256/{layer.digest}"
    place = files.place(file)
    if place is None:
        if layer.urls:
            return layer
        foreign = "foreign" in layer.media_type or "nondistributable" in layer.media_type
        if foreign:
            raise bad(files.shown(file), "a foreign layer, whose bytes are not in the image, and no URL is named")
        raise files.missing(file)
    if place.size != layer.size_bytes:
        raise bad(
            files.shown(file), f"{place.size} bytes long, but its manifest names {shown(str(layer.size_bytes))[1:-1]}"
        )
    return layer.replace(path=place.path, offset=place.offset)
