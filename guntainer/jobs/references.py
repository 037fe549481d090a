"""What a remote source is called: `docker://HOST/NAME:TAG@DIGEST` and `http(s)://…#sha256=…`, as values.

Pure: nothing is opened or asked. The grammar of image names is the distribution spec's ("Pulling manifests") and, for what
may be left out, docker's: `docker://alpine` is `docker://docker.io/library/alpine:latest`.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs.values import printable, quoted
from guntainer.value import Value

IMAGE_SCHEME = "docker://"
URL_SCHEMES = ("https://", "http://")
DOCKER_HUB = "docker.io"
_HUB_API = "registry-1.docker.io"
_HUB_ALIASES = ("index.docker.io", _HUB_API)
_FORM = '"docker://[HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST]"'
_LOWER = "abcdefghijklmnopqrstuvwxyz0123456789"
_WORD = _LOWER + "ABCDEFGHIJKLMNOPQRSTUVWXYZ_"
_HEX = "0123456789abcdef"
_OTHER_DIGESTS = ("sha512", "sha384", "blake3", "md5")
_LONGEST_NAME = 255
_LONGEST_TAG = 128
_LONGEST_URL = 8192
_LONGEST_FILE_NAME = 200  # NAME_MAX is 255: there is room for a suffix


class ImageReference(Value):
    """An image in a registry."""

    registry: str
    """`HOST[:PORT]`; "docker.io" for Docker's own."""
    repository: str
    """`library/alpine`."""
    tag: str = ""
    digest: str = ""
    """64 hex digits of a SHA-256, or "": then the tag says which. With both, the digest does, as in docker."""

    @property
    def selector(self) -> str:
        """What the registry is asked for: <reference> of the distribution spec."""
        return f"sha256:{self.digest}" if self.digest else self.tag

    @property
    def host(self) -> str:
        """`HOST[:PORT]` that is connected to: docker.io answers at another name."""
        return _HUB_API if self.registry == DOCKER_HUB else self.registry

    @property
    def canonical(self) -> str:
        """The one text of all ways to write it."""
        which = f"@sha256:{self.digest}" if self.digest else f":{self.tag}"
        return f"{IMAGE_SCHEME}{self.registry}/{self.repository}{which}"

    @property
    def shown(self) -> str:
        """For messages."""
        return self.canonical


class UrlReference(Value):
    """An archive at a URL."""

    url: str
    """Without the fragment. User name, password and query may be secrets: messages show `shown`."""

    @property
    def canonical(self) -> str:
        """The one text of all ways to write it; of a query, which may be a secret, there is the digest."""
        scheme, user, host, path, query = _split_url(self.url)
        default = ":443" if scheme == "https://" else ":80"
        text = f"{scheme}{host.lower().removesuffix(default)}{path or '/'}"
        if query or user:
            # the digest's own front loads a dozen other algorithms
            from _hashlib import openssl_sha256

            secret = f"{user}?{query}".encode("utf-8", "surrogateescape")
            text += f"?{openssl_sha256(secret, usedforsecurity=False).hexdigest()[:16]}"
        return text

    @property
    def shown(self) -> str:
        """For messages."""
        scheme, _, host, path, _ = _split_url(self.url)
        return printable(f"{scheme}{host}{path}")

    def __repr__(self) -> str:
        return f"UrlReference({self.shown!r})"


def file_name(canonical: str) -> str:
    """`canonical` as a file's name of at most 200 bytes: all but letters, digits and `-._` as %XX."""
    name = "".join(c if c in _WORD or c in "-." else "".join(f"%{b:02X}" for b in c.encode()) for c in canonical)
    if len(name) <= _LONGEST_FILE_NAME:
        return name
    from _hashlib import openssl_sha256

    digest = openssl_sha256(canonical.encode(), usedforsecurity=False).hexdigest()
    return f"{name[: _LONGEST_FILE_NAME - 33]}~{digest[:32]}"


def parse_image(text: str) -> ImageReference:
    """`[docker://][HOST[:PORT]/]NAME[:TAG][@sha256:DIGEST]`.

    Raises:
        UsageError: it is not well formed.
    """
    rest, at, digest = text.removeprefix(IMAGE_SCHEME).partition("@")
    if at:
        digest = _digest(text, digest)
    first, slash, path = rest.partition("/")
    # docker's rule: a first part is a host where it can not be a part of a name
    if slash and ("." in first or ":" in first or first.lower() == "localhost"):
        registry, rest = _registry(text, first), path
    else:
        registry = DOCKER_HUB
    repository, colon, tag = rest.partition(":")
    if colon:
        _check_tag(text, tag)
    _check_repository(text, repository)
    if registry == DOCKER_HUB and "/" not in repository:
        repository = f"library/{repository}"
    return ImageReference(
        registry=registry, repository=repository, tag=tag or ("" if digest else "latest"), digest=digest
    )


def parse_url(text: str) -> tuple[str, str | None]:
    """(URL, its sha256) of `http(s)://HOST[:PORT]/PATH[?QUERY][#sha256=DIGEST]`: RFC 3986; other bytes are quoted as %XX.

    Raises:
        UsageError: it is not well formed.
    """
    url, hash_sign, fragment = text.partition("#")
    shown = quoted(UrlReference(url=url).shown)
    sha256 = None
    if hash_sign:
        key, _, sha256 = fragment.partition("=")
        if key != "sha256" or not is_sha256(sha256.lower()):
            raise errors.UsageError(f"{shown}: expected #sha256= and 64 hex digits behind it")
        sha256 = sha256.lower()
    if len(url) > _LONGEST_URL:
        raise errors.UsageError(f"{shown}: a URL of more than {_LONGEST_URL} characters")
    scheme, user, host, path, query = _split_url(url)
    scheme = scheme.lower()
    if scheme not in URL_SCHEMES:
        raise errors.UsageError(f"{shown}: expected https:// or http://")
    if not _is_host(host):
        raise errors.UsageError(f"{shown}: expected a host, with a port or without, behind {scheme}")
    clean = f"{scheme}{f'{user}@' if user else ''}{host}{path}{f'?{query}' if query else ''}"
    return "".join(c if "!" <= c <= "~" else _percent(shown, c) for c in clean), sha256


def _percent(shown: str, character: str) -> str:
    if character < " " or character == "\x7f":
        raise errors.UsageError(f"{shown}: a URL can not hold control characters")
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogateescape"))


def is_sha256(text: str) -> bool:
    """Whether it is 64 lower-case hex digits."""
    return len(text) == 64 and all(c in _HEX for c in text)


def _split_url(url: str) -> tuple[str, str, str, str, str]:
    """(scheme with `://`, user information, host with port, path, query) of a URL without its fragment."""
    scheme, _, rest = url.partition("://")
    end = min((at for at in (rest.find("/"), rest.find("?")) if at >= 0), default=len(rest))
    user, _, host = rest[:end].rpartition("@")
    path, _, query = rest[end:].partition("?")
    return f"{scheme}://", user, host, path, query


def _digest(text: str, digest: str) -> str:
    algorithm, colon, digits = digest.partition(":")
    if algorithm in _OTHER_DIGESTS:
        raise errors.UsageError(f"{quoted(text)}: digests of {quoted(algorithm)} are not known: give a sha256")
    if algorithm != "sha256" or not colon or "/" in digest or "@" in digest:
        # what is before it may be a password, so nothing is shown
        raise errors.UsageError(
            f"expected {_FORM}: a user name does not belong into it, and a digest begins with sha256:",
            hint="log in with `podman login HOST`",
        )
    if not is_sha256(digits):
        raise errors.UsageError(f"expected {_FORM}, got {quoted(text)}: a digest is 64 lower-case hex digits")
    return digits


def _registry(text: str, host: str) -> str:
    if not _is_host(host):
        raise errors.UsageError(f"expected {_FORM}, got {quoted(text)}: {quoted(host)} can not be a host")
    host = host.lower()
    return DOCKER_HUB if host in _HUB_ALIASES else host


def _is_host(text: str) -> bool:
    """`NAME`, `NAME:PORT`, `1.2.3.4`, `[::1]:PORT`."""
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        fits = bool(bracket) and ":" in address and all(c in _HEX + ":." for c in address.lower())
        if port and not port.startswith(":"):
            return False
        port, colon = port[1:], port[:1]
    else:
        name, colon, port = text.partition(":")
        parts = name.split(".")
        if parts[-1] == "" and len(parts) > 1:
            parts.pop()  # a fully qualified name
        fits = len(name) <= 253 and all(_is_label(part) for part in parts)
    return fits and (not colon or (port.isascii() and port.isdigit() and len(port) <= 5 and 0 < int(port) < 1 << 16))


def _is_label(text: str) -> bool:
    good = all(c in _WORD or c == "-" for c in text)
    return 0 < len(text) <= 63 and good and text[0] != "-" and text[-1] != "-"


def _check_tag(text: str, tag: str) -> None:
    if not tag or len(tag) > _LONGEST_TAG or tag[0] in "-." or not all(c in _WORD or c in "-." for c in tag):
        what = f"up to {_LONGEST_TAG} letters, digits, _, - and ."
        raise errors.UsageError(f"expected {_FORM}, got {quoted(text)}: a tag is {what}")


def _check_repository(text: str, name: str) -> None:
    if not name:
        raise errors.UsageError(f"expected {_FORM}, got {quoted(text)}: there is no name")
    if name != name.lower():
        raise errors.UsageError(f"expected {_FORM}, got {quoted(text)}: names are in lower case")
    if len(name) > _LONGEST_NAME or not all(_is_component(part) for part in name.split("/")):
        why = f"{quoted(name)} can not be a name"
        raise errors.UsageError(f"expected {_FORM}, got {quoted(text)}: {why}")


def _is_component(text: str) -> bool:
    """Runs of a-z and 0-9, with `.`, `_`, `__` or any number of `-` between them."""
    if not text or text[0] not in _LOWER or text[-1] not in _LOWER:
        return False
    between = "".join(c if c not in _LOWER else "/" for c in text).split("/")
    return all(mark in ("", ".", "_", "__") or not mark.strip("-") for mark in between)
