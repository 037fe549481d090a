"""Images in the store: their layers, each an entry of its own, and the stack that is made of them."""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.archive.inspection import emulated
from guntainer.store import filling, implied
from guntainer.store.filling import Incoming, Wanted
from guntainer.store.lookup import IMAGE, LAYER, VERSION, mismatch, read_meta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.image.layout import Image, Layer
    from guntainer.jobs.model import Source
    from guntainer.store.lookup import Lease, Store

_MOST_LOWERS = 490  # OVL_MAX_STACK of overlayfs is 500; the skeleton is one of them


def is_tar_of_image(path: str) -> bool:
    """Whether a file is the tar of an image whose layers can be unpacked straight out of it."""
    from guntainer.image import layout

    return layout.is_image(path) is not None


def open_local(source: Source, folder: str = "") -> Image | None:
    """The image in a folder or an archive of this machine; None: it is none.

    Args:
        folder: where its files lie, if not at the source's own place.
    """
    from guntainer.image import layout

    path = folder or source.location
    if layout.is_image(path) is None:
        return None
    image = layout.open_image(path, source.reference, source.platform, name=source.name, foreign=emulated())
    if not folder:
        check_digest(source, image)
    return image


def check_digest(source: Source, image: Image) -> None:
    """What was demanded: of a file its own digest, else that of the image's manifest.

    Raises:
        RootfsError: it has another one.
    """
    if source.sha256 is None:
        return
    local = not source.remote and os.path.isfile(source.location)
    found = _digest_of(source.location) if local else image.digest
    if found != source.sha256:
        raise mismatch(source.name, source.sha256, found)


def _digest_of(path: str) -> str:
    import hashlib

    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fetch(source: Source) -> Image:
    """The image that a registry has: its manifest and its config, and where its layers are."""
    from guntainer.remote import registry

    return registry.open_image(source.location, source.platform, name=source.name, foreign=emulated())


def wanted_layer(source: Source, image: Image, layer: Layer) -> Wanted:
    """A layer, as it is to be filled; a foreign one, of which its image has but a URL, is fetched from there.

    Raises:
        RootfsError: its bytes are nowhere.
    """
    if layer.urls and not layer.path and layer.request is None:
        layer = layer.replace(request=_elsewhere(source, layer))
    return Wanted(
        name=f"{source.name}: layer {layer.digest[:12]}",
        source=layer.source,
        size_bytes=layer.size_bytes,
        key=f"layer-{layer.digest}",
        kind=LAYER,
        sha256=layer.digest,
        diff_id=layer.diff_id,
        limits=source.limits,
    )


def _elsewhere(source: Source, layer: Layer) -> object:
    """What a layer is fetched by that is neither in its image nor in a registry."""
    from guntainer.remote import download

    where = f"{source.name}: layer {layer.digest[:12]}"
    if source.pull == "never":
        raise errors.RootfsError(f"{where}: it is not in the image, and --pull never was given")
    try:
        return download.request(layer.urls[0], sha256=layer.digest, most=layer.size_bytes)
    except errors.UsageError as error:
        raise errors.RootfsError(f"{where}: its URL: {error.message}") from None


def place(store: Store, source: Source, image: Image, layers: dict[str, Lease]) -> Lease:
    """Make the stack of an image whose layers are leased, and lease it.

    Raises:
        RootfsError: it has more layers than overlayfs takes, or more in them than the limits let in.
        StoreError: the store can not be written.
    """
    incoming = Incoming(store, f"image-{image.digest}")
    try:
        incoming.lock(wait=True)
        there = store.lease(image.digest, IMAGE)
        if there is not None:
            return there
        folder = incoming.make()
        names = [f"{layer.digest}{store.suffix}" for layer in image.layers]
        sums = _sums(store, names)
        limits = source.limits
        if limits is not None and (sums["size_bytes"] > limits[0] or sums["entries"] > limits[1]):
            raise errors.ArchiveRefused(f"{source.name}: its layers unpack to more than the limits let in")
        count = _stack(store, names, f"{folder}/lowers", source.name)
        meta = {
            "layout": VERSION,
            "ids": store.ids.describe(),
            "sources": [source.name],
            "layers": names,
            "lowers": count,
            "config": image.config.as_dict(),
            "architecture": image.config.machine,
            **sums,
        }
        lease = filling.place(store, IMAGE, image.digest, folder, meta)
        for name in ("devices", "sockets", "unmapped", "xattrs", "acls"):
            lease.facts[name] = sum(one.facts.get(name, 0) for one in layers.values())
        return lease
    except OSError as error:
        raise filling.failed(store, error) from None
    finally:
        incoming.close()


def _sums(store: Store, names: list[str]) -> dict[str, int]:
    metas = [read_meta(f"{store.path}/{LAYER}/{name}") or {} for name in names]
    return {key: sum(int(meta.get(key, 0)) for meta in metas) for key in ("size_bytes", "entries")}


def _stack(store: Store, names: list[str], folder: str, shown: str) -> int:
    """The links 0, 1, … to the layers' folders, uppermost first, and above them what `implied` wants; returns how many."""
    os.mkdir(folder, 0o700)
    targets = []
    lowers = []
    for name in reversed(names):
        meta = read_meta(f"{store.path}/{LAYER}/{name}")
        if meta is None:
            raise errors.StoreError(f"store {store.path}: layer {name[:12]} was removed meanwhile", hint="run it again")
        path = f"{store.path}/{LAYER}/{name}"
        targets.append(f"{name}/tree")
        lowers.append(implied.Lower(path=f"{path}/tree", implied=frozenset(meta.get("implied", ()))))
        if meta.get("opaque"):
            targets.append(f"{name}/opaque")
            lowers.append(implied.Lower(path=f"{path}/opaque", plain=False))
        if meta.get("cut"):
            break  # it hides everything below
    if len(targets) > _MOST_LOWERS:
        raise errors.RootfsError(
            f"{shown}: {len(names)} layers are more than overlayfs can stack ({_MOST_LOWERS})",
            hint="make an image of fewer layers of it",
        )
    first = 1 if implied.write(f"{folder}/0", lowers) else 0
    for number, target in enumerate(targets, first):
        os.symlink(f"../../../{LAYER}/{target}", f"{folder}/{number}")
    if not targets:
        os.mkdir(f"{folder}/0", 0o755)  # an image without layers: an empty root
    return first + len(targets) or 1
