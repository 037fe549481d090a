"""The pull half of the OCI distribution spec: an image's documents, and what its layers are asked for with.

GET /v2/NAME/manifests/REFERENCE    an index or a manifest; every document below it by its digest
GET /v2/NAME/blobs/sha256:DIGEST    the config; layers are downloaded by their unpackers: `download.open_stream`
"""

from __future__ import annotations

import os
import time

from guntainer import errors
from guntainer.image import manifest as documents
from guntainer.image import platforms
from guntainer.jobs.references import parse_image
from guntainer.remote.addresses import Address, is_loopback, parse_address, settings_of, split_host
from guntainer.remote.authentication import Keys
from guntainer.remote.connection import Broken, Wire, exchange
from guntainer.remote.download import Request
from guntainer.remote.exchange import ask, refusal
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from guntainer.image.manifest import Descriptor, Manifest
    from guntainer.jobs.references import ImageReference
    from guntainer.remote.authentication import Login
    from guntainer.remote.connection import Response

    Fetched = tuple[bytes, str, bytes, list[tuple[str, int, str]]]

MOST_MANIFEST = 4 << 20  # what registries let a manifest have: distribution spec, "Pushing Manifests"
MOST_CONFIG = 8 << 20
_MOST_DEPTH = 2
_MOST_REFUSAL = 64 << 10
_ACCEPT = ", ".join((*documents.MANIFESTS, *documents.INDEXES))
_RETRIES = 5
_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 10.0
INSECURE = "GUNTAINER_INSECURE_REGISTRIES"
_registries: dict[tuple[str, str, bool, Login, Patience], Registry] = {}


class Patience(Value):
    """How long and how often a registry is tried."""

    wire: Wire = Wire()
    retries: int = _RETRIES
    pause_s: float = _PAUSE_S


class Registry:
    """An image's repository: how it is connected to, and its tokens."""

    def __init__(self, reference: ImageReference, keys: Keys, patience: Patience, *, plain: bool) -> None:
        self._reference = reference
        self.keys = keys
        self._patience = patience
        self._plain = plain
        self._base: Address | None = None

    def __repr__(self) -> str:
        return f"Registry({self._reference.registry!r}, {self._reference.repository!r})"

    def of(self, reference: ImageReference) -> Registry:
        """The same for another tag or digest of the repository: each has its own name in messages."""
        other = Registry(reference, self.keys, self._patience, plain=self._plain)
        other._base = self._base = self._base or self._find()
        return other

    def address(self, what: str) -> Address:
        """Of `manifests/…` or `blobs/…`."""
        base = self._base = self._base or self._find()
        return base.replace(target=f"/v2/{self._reference.repository}/{what}")

    def _find(self) -> Address:
        """With TLS; without it to this machine itself and to whom the user trusts so far, if there is none."""
        host = self._reference.host
        secure = parse_address(f"https://{host}/v2/")[0]
        if not self._plain:
            return secure
        open_one = parse_address(f"http://{host}/v2/")[0]
        try:
            response = exchange(open_one, (), self._patience.wire)
        except Broken as broken:
            return open_one if broken.early else secure
        response.close()
        return secure if response.status == 400 else open_one  # what Go answers to HTTP where it expects TLS

    def manifest(self, selector: str) -> tuple[bytes, str]:
        """(bytes, media type) of a tag's or a digest's, with the digest that the registry says checked."""
        address = self.address(f"manifests/{selector}")
        data, response = self._document(address, (("Accept", _ACCEPT),), MOST_MANIFEST)
        told = response.header("docker-content-digest")
        found = f"sha256:{documents.sha256(data)}"
        if told.startswith("sha256:") and told != found:
            raise errors.RemoteError(
                f"{self._reference.shown}: the registry names its manifest {told[:19]}…, and sends {found[:19]}…",
                hint="nothing of it was kept; run it again",
            )
        return data, response.header("content-type").partition(";")[0].strip().lower()

    def blob(self, digest: str, size: int, most: int) -> bytes:
        """A small blob, of which the caller checks the digest."""
        if size > most:
            raise errors.RemoteError(
                f"{self._reference.shown}: its config is {size} bytes long: more than {most >> 20} MiB are not read"
            )
        return self._document(self.address(f"blobs/sha256:{digest}"), (), most)[0]

    def _document(self, address: Address, headers: tuple[tuple[str, str], ...], most: int) -> tuple[bytes, Response]:
        patience, pause_s = self._patience, self._patience.pause_s
        for left in range(patience.retries, -1, -1):
            try:
                return self._once(address, headers, most)
            except Broken as broken:
                if left == 0 or (broken.early and patience.retries - left >= 2):
                    tried = "" if broken.early else f", tried {patience.retries + 1} times"
                    raise errors.RemoteError(
                        f"{self._reference.shown}: {broken.why}{tried}", hint="run it again"
                    ) from None
                time.sleep(max(broken.after_s, min(pause_s, _LONGEST_PAUSE_S)))
                pause_s *= 2
        raise AssertionError

    def _once(self, address: Address, headers: tuple[tuple[str, str], ...], most: int) -> tuple[bytes, Response]:
        response = ask(address, headers, self._patience.wire, self.keys)
        try:
            if response.status != 200:
                raise refusal(self._reference.shown, response.status, self.keys, why=_said(response))
            if response.header("content-encoding").lower() not in ("", "identity"):
                raise errors.RemoteError(
                    f"{self._reference.shown}: a document is sent in another coding than was asked for"
                )
            return response.read_all(most), response
        finally:
            response.close()

    def request(self, digest: str, size: int) -> tuple[Any, ...]:
        """What `open_stream` takes for a layer."""
        return self._request(self.address(f"blobs/sha256:{digest}").url, size, self.keys.as_tuple())

    def elsewhere(self, url: str, size: int) -> tuple[Any, ...]:
        """The same for one that lies with others: they get no login of this registry."""
        try:
            address, _ = parse_address(url)
        except errors.UsageError as error:
            raise errors.RemoteError(f"{self._reference.shown}: a layer's URL: {error.message}") from None
        return self._request(address.url, size, ())

    def _request(self, url: str, size: int, keys: tuple[Any, ...]) -> tuple[Any, ...]:
        patience = self._patience
        return Request(
            url=url,
            size=size,
            most=size,
            vouched=True,
            retries=patience.retries,
            pause_s=patience.pause_s,
            wire=patience.wire,
            keys=keys,
        ).as_tuple()


def _said(response: Response) -> str:
    """What a registry says of a refusal: distribution spec, "Error Codes"."""
    import json

    try:
        found = json.loads(response.read_all(_MOST_REFUSAL))
        first = found["errors"][0]
        return str(first.get("message") or first.get("code") or "")
    except (Broken, errors.RemoteError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""


def registry_of(
    reference: ImageReference,
    *,
    insecure: tuple[str, ...] = (),
    patience: Patience | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Registry:
    """The registry of an image: for one login and one way to connect the same for the whole process, with its tokens.

    Args:
        insecure: `HOST[:PORT]` of those that are spoken to without TLS, if they have none; $GUNTAINER_INSECURE_REGISTRIES
            names more of them. This machine itself is always one.

    Raises:
        RemoteError: a file with logins is damaged.
    """
    from guntainer.remote.credentials import login_for

    named = {*insecure, *environ.get(INSECURE, "").replace(",", " ").split()}
    plain = reference.registry in named or is_loopback(split_host(reference.registry, 443)[0])
    scope = f"repository:{reference.repository}:pull"
    login = login_for(reference, environ)
    patience = patience or Patience(wire=Wire(settings=settings_of(environ)))
    key = (reference.registry, reference.repository, plain, login, patience)
    known = _registries.get(key)
    if known is None:
        keys = Keys(reference.registry, scope, login, plain=plain)
        known = _registries[key] = Registry(reference, keys, patience, plain=plain)
    return known.of(reference)


def fetch_image(reference: ImageReference, platform: str = "", *, registry: Registry | None = None) -> Fetched:
    """The documents of an image, checked: (manifest, its sha256, config, layers).

    Args:
        platform: `os/arch[/variant]`; "": what this machine runs.

    Returns:
        Layers are (sha256, size in bytes, media type), lowest first; digests have 64 hex digits.

    Raises:
        RemoteError: the registry does not give it.
        RootfsError: it is no image, or none for this platform; a document is another one than was named.
    """
    registry = registry or registry_of(reference)
    data, found = _resolve(registry, reference, platform)
    config = registry.blob(found.config.digest, found.config.size_bytes, MOST_CONFIG)
    documents.check_blob(config, found.config, f"{reference.shown}: config")
    return data, found.digest, config, [(one.digest, one.size_bytes, one.media_type) for one in found.layers]


def _resolve(registry: Registry, reference: ImageReference, platform: str) -> tuple[bytes, Manifest]:
    """From what the user names through indexes to the manifest."""
    wanted = platforms.parse(platform) if platform else None
    shown = reference.shown
    data, media_type = registry.manifest(reference.selector)
    if reference.digest and documents.sha256(data) != reference.digest:
        raise errors.RemoteError(
            f"{shown}: the registry sends something of another digest", hint="nothing of it was kept"
        )
    for _ in range(_MOST_DEPTH + 1):
        found = documents.parse(data, shown, media_type)
        if isinstance(found, documents.Manifest):
            return data, found
        entry: Descriptor = documents.choose(found.entries, wanted, shown)
        data, _ = registry.manifest(f"sha256:{entry.digest}")
        media_type = entry.media_type
        documents.check_blob(data, entry, f"{shown}: manifest {entry.digest[:12]}")
    raise errors.RemoteError(f"{shown}: indexes of indexes, more than {_MOST_DEPTH} deep")


def open_image(location: str, platform: str = "", *, name: str = "", foreign: bool = False) -> documents.Image:
    """The image of `docker://…`, as `image.layout.open_image` has that of a folder; its layers know what they are fetched by.

    Args:
        platform: `os/arch[/variant]`; "": what this machine runs.
        name: what messages call it.
        foreign: an image for another machine alone is welcome.

    Raises:
        UsageError: the location or the platform has another form.
        RemoteError, RootfsError: as of `fetch_image`; or it is for another platform.
    """
    reference = parse_image(location)
    registry = registry_of(reference)
    data, _, config, _ = fetch_image(reference, platform, registry=registry)
    found = documents.parse(data, reference.shown)
    assert isinstance(found, documents.Manifest)
    image = documents.image_of(found, config, name or reference.shown)
    wanted = platforms.parse(platform) if platform else None
    platforms.check(name or reference.shown, image.config, wanted, foreign=foreign)
    layers = (layer.replace(request=_request(registry, layer)) for layer in image.layers)
    return image.replace(layers=tuple(layers))


def _request(registry: Registry, layer: documents.Layer) -> tuple[Any, ...]:
    """A foreign layer lies where its manifest says, and not in the registry: image-spec, "Non-Distributable Layers"."""
    if layer.urls and ("nondistributable" in layer.media_type or ".foreign." in layer.media_type):
        return registry.elsewhere(layer.urls[0], layer.size_bytes)
    return registry.request(layer.digest, layer.size_bytes)
