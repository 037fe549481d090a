"""What `docker save` wrote, in docker's own form: manifest.json names configs, tags and layers, each a file.

Layers of old are folders with a layer.tar in it, and links where one was there before; podman and others name files after
digests. Since docker 25 the same archive is an OCI layout as well, and read as that: see `layout`.
"""

from __future__ import annotations

from guntainer.image import configs, document, manifest, platforms, tarfiles
from guntainer.image.document import bad, shown
from guntainer.image.manifest import Image, Layer
from guntainer.image.sniffing import is_digest
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from guntainer import errors
    from guntainer.image.places import Files
    from guntainer.image.platforms import Platform

_INDEX = "manifest.json"
_MOST_IMAGES = 1024
_MOST_SHOWN = 12
_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_EMPTY_TAR = bytes(512)


class Entry(Value):
    """One image of manifest.json."""

    config: str
    """A file, as the next ones."""
    layers: tuple[str, ...]
    names: tuple[str, ...]
    id: str
    """64 hex digits, of the config's name; "" where that is none."""


def entries(files: Files) -> tuple[Entry, ...]:
    """The images that there are.

    Raises:
        RootfsError: manifest.json is wrong in itself, or missing.
    """
    data = files.read(_INDEX)
    if data is None:
        raise bad(files.name, "saved by a docker before 1.10, which is not supported", hint="save it again")
    where = files.shown(_INDEX)
    found = document.tables({"images": document.parse(data, where)}, "images", where, _MOST_IMAGES)
    if not found:
        raise bad(files.name, "there is no image in it")
    old = _repositories(files) if not any(one.get("RepoTags") for one in found) else {}
    return tuple(_entry(one, f"{where}: [{place}]", old) for place, one in enumerate(found))


def _entry(values: document.Table, where: str, old: dict[str, tuple[str, ...]]) -> Entry:
    config = document.text(values, "Config", where)
    layers = document.texts(values, "Layers", where)
    names = document.texts(values, "RepoTags", where)
    if not names and layers:
        names = old.get(layers[-1].partition("/")[0], ())
    return Entry(config=config, layers=layers, names=names, id=_named_digest(config))


def _repositories(files: Files) -> dict[str, tuple[str, ...]]:
    """Folder of an image's uppermost layer → its names, from the file of that name."""
    data = files.read("repositories")
    if data is None:
        return {}
    where = files.shown("repositories")
    found: dict[str, tuple[str, ...]] = {}
    for name, tags in document.table(document.parse(data, where), where).items():
        for tag, folder in document.pairs({name: tags}, name, where):
            found[folder] = (*found.get(folder, ()), f"{name}:{tag}")
    return found


def image(files: Files, reference: str = "") -> Image:
    """The image that is meant: a name with a tag, a tag, or the `sha256:…` of its config; "": the only one.

    Raises:
        RootfsError: there is none, or it is wrong in itself.
    """
    entry = _chosen(files, entries(files), reference)
    data = _config(files, entry)
    config, ids = configs.config_of(data, files.shown(entry.config))
    if len(ids) != len(entry.layers):
        raise bad(files.name, f"{_INDEX} has {len(entry.layers)} layers, the config {len(ids)}")
    layers = [_layer(files, file, diff_id) for file, diff_id in zip(entry.layers, ids, strict=True)]
    digest = manifest.sha256(data)
    return Image(digest=digest, config=config, layers=manifest.stacked(layers, files.name), id=digest)


def platform(files: Files, entry: Entry) -> Platform:
    """What an image is for, as its config says."""
    said = configs.config_of(_config(files, entry), files.shown(entry.config))[0]
    return platforms.normal(said.os, said.architecture, said.variant)


def _config(files: Files, entry: Entry) -> bytes:
    data = files.read(entry.config)
    if data is None:
        raise files.missing(entry.config)
    if entry.id and manifest.sha256(data) != entry.id:
        raise bad(files.shown(entry.config), "its sha256 is not its name", hint="it is damaged")
    return data


def _named_digest(file: str) -> str:
    """The digest in `<digest>.json`, `<digest>.tar.gz`, `sha256:<digest>`, `blobs/sha256/<digest>`; "" where there is none."""
    stem = file.rpartition("/")[2].removeprefix("sha256:").partition(".")[0]
    return stem if is_digest(stem) else ""


def _layer(files: Files, file: str, diff_id: str) -> Layer:
    """A layer; the digest of its bytes is that of the config where it is not compressed, else that of its name, if it has one."""
    place = files.place(file)
    if place is None:
        raise files.missing(file)
    head = files.head(file, len(_EMPTY_TAR))
    plain = head == _EMPTY_TAR or tarfiles.looks_like_tar(head)
    digest = diff_id if plain else _named_digest(file) or files.sha256(file)
    return Layer(
        digest=digest,
        size_bytes=place.size,
        media_type=_LAYER,
        diff_id=diff_id,
        path=place.path,
        offset=place.offset,
    )


# -- names


def _chosen(files: Files, found: Sequence[Entry], reference: str) -> Entry:
    if reference.startswith(("@", "sha256:")):
        digest = document.digest_of(reference.removeprefix("@"), files.name)
        named = [entry for entry in found if digest in (entry.id, manifest.sha256(_config(files, entry)))]
        if not named:
            raise bad(files.name, f"there is no image sha256:{digest} in it")
        return named[0]
    named = [entry for entry in found if reference in entry.names] if reference else list(found)
    if not named:
        named = [entry for entry in found if any(same_name(reference, one) for one in entry.names)]
    if not named:
        raise unknown(files.name, reference, [name for entry in found for name in entry.names])
    if len({(entry.config, entry.layers) for entry in named}) > 1:
        raise several(files.name, [(*entry.names, f"@sha256:{entry.id}")[0] for entry in named], len(named))
    return named[0]


def _plain(name: str) -> str:
    """docker.io/library/busybox and busybox:latest are busybox."""
    for prefix in ("docker.io/library/", "docker.io/", "index.docker.io/library/", "localhost/"):
        name = name.removeprefix(prefix)
    return name.removesuffix(":latest")


def same_name(reference: str, name: str) -> bool:
    """Whether a user who says `reference` may mean `name`: a tag alone will do, and what docker leaves out is left out."""
    tag = name.rpartition("/")[2].partition(":")[2]
    return reference == tag or _plain(reference) == _plain(name)


def _listed(names: Sequence[str]) -> str:
    found = [shown(name)[1:-1] for name in dict.fromkeys(names)]
    return ", ".join(found[:_MOST_SHOWN]) + (
        f" and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
    )


def several(name: str, names: Sequence[str], count: int) -> errors.RootfsError:
    """The error where nobody can know which one is meant."""
    return bad(
        name, f"{count} images are in it: {_listed(names)}", hint="choose one: oci:PATH:TAG, docker-archive:PATH:TAG"
    )


def unknown(name: str, reference: str, names: Sequence[str]) -> errors.RootfsError:
    """The error where none is called so."""
    there = f"there are {_listed(names)}" if names else "its images have no names"
    return bad(name, f"no image {shown(reference)} in it; {there}")
