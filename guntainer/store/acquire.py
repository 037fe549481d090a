"""From what a user names to a leased entry: archives, images, URLs and registries, each step of it written once.

The way is a generator. It yields what takes time (a `Call`, a `Fill`) and is sent what came of it: `acquire` goes it without
an event loop, `asynchronous.acquire` with one, and neither knows what a step is for.
"""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.store import fill, images
from guntainer.store.filling import Filling, ImageInside, Wanted, failed, wanted_archive
from guntainer.store.lookup import IMAGE, demanding, identified_by, index_name, key_of
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from guntainer.image.layout import Image
    from guntainer.jobs.model import Source
    from guntainer.store.headstart import Begun
    from guntainer.store.lookup import Lease, Store

    Steps = Generator["Call | Fill", Any, Lease]


class Call(Value):
    """A blocking function to call; what it returns is sent back."""

    function: Callable[[], Any]
    remote: bool = False
    """Whether it waits for others than this machine: it need not be waited for when nobody wants it any more."""


class Fill(Value):
    """Entries to be filled side by side; {filling: lease} is sent back. Each filling is closed, whatever comes of it."""

    fillings: tuple[Filling, ...]
    begun: Begun | None = None
    """The worker that is under way for the only one of them."""


def steps(store: Store, source: Source, begun: Begun | None = None) -> Steps:
    """The way to the lease of `source`, whatever kind it is.

    Raises:
        RootfsError, ArchiveError: it can not be had.
        StoreError: the store can not be written.
    """
    if source.kind == "registry":
        return _registry(store, source)
    if source.kind == "url":
        return _url(store, source)
    return _local(store, source, begun)


def _local(store: Store, source: Source, begun: Begun | None) -> Steps:
    path = source.location
    known = identified_by(path)
    # before it is read: what is written over it meanwhile is not what the link leads to
    link = ("index", _index(known, source))
    if begun is None:
        lease = store.find(path, source.sha256, source.selection)
        if lease is not None:
            return lease
        image = yield Call(function=lambda: images.open_local(source))
        if image is not None:
            return (yield from _image(store, source, image, link))
        if os.path.isdir(path):
            raise errors.RootfsError(f"rootfs {source.name}: a folder in which there is no container image")
    if begun is not None:
        filling = begun.filling
    else:
        wanted = wanted_archive(path, source.sha256, source.limits)
        filling = Filling(store, wanted.replace(selection=source.selection))
    try:
        leases = yield Fill(fillings=(filling,), begun=begun)
    except ImageInside as inside:
        return (yield from _inside(store, source, inside, link))
    unpacked: Lease = leases[filling]
    if unpacked.kind != IMAGE and (source.reference or source.kind in ("oci", "docker-archive")):
        unpacked.release()
        raise errors.RootfsError(f"rootfs {source.name}: a rootfs archive, not a container image")
    return unpacked


def _index(known: str, source: Source) -> str:
    try:
        return index_name(key_of(os.stat(known)), demanding(source.selection, source.sha256))
    except OSError as error:
        raise errors.RootfsError(errors.describe_oserror(error)) from None


def _inside(store: Store, source: Source, inside: ImageInside, link: tuple[str, str]) -> Steps:
    """An archive that was unpacked, and is that of an image: its files are read where they lie."""
    try:
        image = yield Call(function=lambda: images.open_local(source, inside.folder))
        if image is None:
            raise errors.RootfsError(f"rootfs {source.name}: neither a rootfs nor a container image")
        # the image's own sha256 is not the archive's, which is the one that was demanded, and was checked
        return (yield from _image(store, source.replace(sha256=None), image, link))
    finally:
        inside.filling.close()


def _url(store: Store, source: Source) -> Steps:
    from guntainer.remote import download

    link = ("refs", ref_name(source))
    if source.pull != "always":
        found = store.follow(*link)
        if found is None and source.sha256 is not None:
            found = store.lease(source.sha256)
        if found is not None:
            return found
    _may_pull(source)
    filling = Filling(
        store,
        Wanted(
            name=source.name,
            source=("remote", download.request(source.location, sha256=source.sha256)),
            key=f"url-{index_name('', link[1])[1:]}",
            sha256=source.sha256,
            limits=source.limits,
            link=link,
            again=source.pull == "always",
        ),
    )
    try:
        leases = yield Fill(fillings=(filling,))
        lease: Lease = leases[filling]
    except ImageInside as inside:
        return (yield from _inside(store, source, inside, link))
    return lease


def _registry(store: Store, source: Source) -> Steps:
    link = ("refs", ref_name(source))
    if source.pull != "always":
        found = store.follow(*link)
        if found is not None:
            return found
    _may_pull(source)
    image = yield Call(function=lambda: images.fetch(source), remote=True)
    images.check_digest(source, image)
    return (yield from _image(store, source, image, link))


def _may_pull(source: Source) -> None:
    if source.pull == "never":
        raise errors.RootfsError(
            f"rootfs {source.name}: not in the store, and --pull never was given", hint="guntainer pull it before"
        )


def _image(store: Store, source: Source, image: Image, link: tuple[str, str]) -> Steps:
    """Every layer, then the image that is made of them."""
    lease = store.lease(image.digest, IMAGE)
    if lease is None:
        lease = yield from _layers(store, source, image)
    try:
        store.remember(*link, lease.digest, IMAGE)
    except OSError as error:
        lease.release()
        raise failed(store, error) from None
    return lease


def _layers(store: Store, source: Source, image: Image) -> Steps:
    held: dict[str, Lease] = {}
    try:
        missing: dict[str, Filling] = {}
        for layer in image.layers:
            if layer.digest in held or layer.digest in missing:
                continue
            filling = Filling(store, images.wanted_layer(source, image, layer))
            found = filling.find()
            if found is not None:
                held[layer.digest] = found
            else:
                missing[layer.digest] = filling
        if missing:
            leases = yield Fill(fillings=tuple(missing.values()))
            held.update((filling.wanted.sha256, lease) for filling, lease in leases.items())
        made: Lease = yield Call(function=lambda: images.place(store, source, image, held))
        return made
    finally:
        for lease in held.values():
            lease.release()


def ref_name(source: Source) -> str:
    """The name of the link in `refs` that leads to what was fetched for a source."""
    from guntainer.jobs import references

    text = source.location if source.kind == "registry" else references.UrlReference(url=source.location).canonical
    return index_name(references.file_name(text), demanding(source.selection, source.sha256))


def acquire(
    store: Store,
    source: Source,
    *,
    progress: fill.Progress | None = None,
    meanwhile: fill.Meanwhile | None = None,
) -> Lease:
    """The lease of `source`, fetched and unpacked if need be. For a process with one thread.

    Args:
        progress: called with (bytes read, size) at most ten times a second, and at the end.
        meanwhile: called once the unpacking goes on in its process.

    Raises:
        GuntainerError: as of `steps`.
    """
    way = steps(store, source)
    try:
        step = next(way)
        while True:
            try:
                result = _go(step, progress, meanwhile)
            except BaseException as error:
                step = way.throw(error)
            else:
                step = way.send(result)
    except StopIteration as end:
        lease: Lease = end.value
        return lease


def _go(step: Call | Fill, progress: fill.Progress | None, meanwhile: fill.Meanwhile | None) -> Any:
    if isinstance(step, Call):
        return step.function()
    return fill.Crew(step.fillings, fill.workers(), progress, meanwhile).run()
