"""What remote sources are called."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guntainer import errors
from guntainer.jobs.references import (
    ImageReference,
    UrlReference,
    file_name,
    parse_image,
    parse_url,
)
from guntainer.remote import addresses
from guntainer.remote.addresses import Proxy, is_loopback, parse_address, proxy_for, redirected, settings_of

D = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("alpine", "docker.io/library/alpine:latest"),
        ("alpine:3.20", "docker.io/library/alpine:3.20"),
        ("docker.io/alpine", "docker.io/library/alpine:latest"),
        ("index.docker.io/a/b", "docker.io/a/b:latest"),
        ("a/b", "docker.io/a/b:latest"),
        ("a/b/c:V_1.2-x", "docker.io/a/b/c:V_1.2-x"),
        ("localhost/a", "localhost/a:latest"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("LOCALHOST/a", "localhost/a:latest"),
        ("Host.Example/a", "host.example/a:latest"),
        ("quay.io/a/b__c/d--e.f_g", "quay.io/a/b__c/d--e.f_g:latest"),
        ("127.0.0.1:80/a", "127.0.0.1:80/a:latest"),
        ("[::1]:5000/a/b:1", "[::1]:5000/a/b:1"),
        (f"a@sha256:{D}", f"docker.io/library/a@sha256:{D}"),
        (f"h.example/a:1@sha256:{D}", f"h.example/a@sha256:{D}"),
    ],
)
def test_images(text: str, canonical: str) -> None:
    found = parse_image(text)
    assert found.canonical == f"docker://{canonical}"
    assert parse_image(f"docker://{text}") == found
    assert parse_image(found.canonical).canonical == found.canonical


def test_the_parts_of_an_image() -> None:
    found = parse_image(f"docker://Registry.Example:5000/a/b:1@sha256:{D}")
    assert found == ImageReference(registry="registry.example:5000", repository="a/b", tag="1", digest=D)
    assert found.selector == f"sha256:{D}"
    assert found.host == "registry.example:5000"
    assert parse_image("alpine").host == "registry-1.docker.io"
    assert parse_image("alpine").selector == "latest"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "there is no name"),
        ("host.example/", "there is no name"),
        ("Host/a", "names are in lower case"),
        ("Alpine", "names are in lower case"),
        ("a//b", '"a//b" can not be a name'),
        ("a/../b", "can not be a name"),
        ("-a", "can not be a name"),
        ("a.", "can not be a name"),
        ("a___b", "can not be a name"),
        ("a..b", "can not be a name"),
        ("a b", "can not be a name"),
        ("ä", "can not be a name"),
        ("a:", "a tag is"),
        ("a:-x", "a tag is"),
        ("a:" + "x" * 129, "a tag is"),
        ("a:1:2", "a tag is"),
        ("x" * 300, "can not be a name"),
        ("a@sha256:" + "0" * 63, "a digest is 64 lower-case hex digits"),
        ("a@sha256:" + "A" * 64, "a digest is 64"),
        ("a@", "a digest begins with sha256:"),
        ("a@sha512:" + "0" * 128, '"sha512" are not known'),
        ("host.example:0/a", "can not be a host"),
        ("host.example:99999/a", "can not be a host"),
        ("host..example/a", "can not be a host"),
        ("[::1/a", "can not be a host"),
        ("[evil]:1/a", "can not be a host"),
        ("-h.example/a", "can not be a host"),
    ],
)
def test_what_is_no_image(text: str, words: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        parse_image(text)
    assert words in caught.value.message
    assert caught.value.message.isprintable()


@pytest.mark.parametrize("rest", ["host.example/a", "host.example", "localhost:5000", "host/a@sha256:1", ""])
def test_a_login_in_an_image_is_not_shown(rest: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        parse_image(f"docker://me:secret@{rest}")
    assert "secret" not in str(caught.value)
    assert "podman login" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "url", "sha256"),
    [
        ("https://a.example/x.tar", "https://a.example/x.tar", None),
        ("HTTP://a.example", "http://a.example", None),
        (f"http://a.example:8080/x?y=z#sha256={D.upper()}", "http://a.example:8080/x?y=z", D),
        ("https://me:pw@a.example/ä b", "https://me:pw@a.example/%C3%A4%20b", None),
        ("http://[::1]:80/x", "http://[::1]:80/x", None),
    ],
)
def test_urls(text: str, url: str, sha256: str | None) -> None:
    assert parse_url(text) == (url, sha256)
    assert UrlReference(url=parse_url(text)[0]).canonical.startswith(("http://", "https://"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://", "expected a host"),
        ("https:///x", "expected a host"),
        ("https://a b/x", "expected a host"),
        ("https://a:b/x", "expected a host"),
        ("https://a/x#sha256=12", "64 hex digits"),
        ("https://a/x#md5=12", "64 hex digits"),
        ("https://a/x\ny", "control characters"),
        ("https://a/" + "x" * 9000, "more than 8192"),
        ("ftp://a/x", "expected"),
        ("a", "expected"),
    ],
)
def test_what_is_no_url(text: str, words: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        parse_url(text)
    assert words in caught.value.message
    assert caught.value.message.isprintable()


def test_a_url_keeps_its_secrets() -> None:
    one, other = (UrlReference(url=f"https://me:{word}@Host.example:443/x?s={word}") for word in ("secret", "sesame"))
    assert one.shown == "https://Host.example:443/x"
    assert "secret" not in f"{one!r}{one.canonical}{one.shown}"
    assert one.canonical.startswith("https://host.example/x?")
    assert one.canonical != other.canonical
    assert UrlReference(url="http://a.example:80").canonical == "http://a.example/"


@given(st.text(max_size=400))
def test_any_text_gives_a_value_or_one_line(text: str) -> None:
    for scheme in ("", "docker://", "https://"):
        found: ImageReference | UrlReference
        try:
            found = (
                UrlReference(url=parse_url(scheme + text)[0]) if scheme == "https://" else parse_image(scheme + text)
            )
        except errors.UsageError as error:
            assert str(error).isprintable()
        else:
            name = file_name(found.canonical)
            assert 0 < len(name.encode()) <= 200
            assert "/" not in name
            assert name.isascii()
            assert name not in (".", "..")


def test_long_names_of_files_differ() -> None:
    names = {file_name(f"docker://host.example/{'a' * 240}{end}:1") for end in "abc"}
    assert len(names) == 3
    assert file_name("docker://a/b:1") == "docker%3A%2F%2Fa%2Fb%3A1"


@pytest.mark.parametrize(
    ("host", "good"),
    [("localhost", True), ("a.localhost", True), ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True),
     ("127.0.0.1.example.org", False), ("localhost.example", False), ("1.127.0.0", False), ("127.x.0.1", False), ("::2", False)],
)  # fmt: skip
def test_this_machine(host: str, good: bool) -> None:
    assert is_loopback(host) is good


def test_addresses() -> None:
    found, user = parse_address("HTTPS://me@Host.example.:443/a?b#sha256=" + D)
    assert (found.tls, found.host, found.port, found.target, user) == (True, "host.example", 443, "/a?b", "me")
    assert found.url == "https://host.example/a?b"
    assert found.shown == "https://host.example/a"
    assert parse_address("http://[::1]:8080")[0].authority == "[::1]:8080"
    assert "b" not in repr(found)


def test_redirects() -> None:
    here = parse_address("https://a.example/x/y?z")[0]
    assert redirected(here, "../w").url == "https://a.example/w"
    assert redirected(here, "//b.example/w").url == "https://b.example/w"
    assert redirected(here, "/caf\xc3\xa9").target == "/caf%C3%A9"  # bytes, as http.client hands them over
    assert redirected(here, "https://me:pw@b.example/").url == "https://b.example/"
    assert redirected(here, "http://localhost:1/").url == "http://localhost:1/"
    with pytest.raises(errors.RemoteError, match="not encrypted"):
        redirected(here, "http://b.example/")


class TestProxies:
    def where(self, url: str, **settings: str) -> Proxy | None:
        return proxy_for(parse_address(url)[0], settings)

    def test_which(self) -> None:
        proxy = Proxy(host="p.example", port=3128, login="")
        assert self.where("https://a.example", https_proxy="http://p.example:3128") == proxy
        assert self.where("https://a.example", https_proxy="p.example:3128") == proxy
        assert self.where("https://a.example", all_proxy="http://p.example:3128") == proxy
        assert self.where("https://a.example", http_proxy="http://p.example:3128") is None
        assert self.where("http://a.example", http_proxy="http://me:pw@p.example:3128") == proxy.replace(login="me:pw")
        assert "pw" not in repr(proxy.replace(login="me:pw"))

    def test_this_machine_is_reached_directly(self) -> None:
        for host in ("localhost", "127.0.0.1:5000", "[::1]"):
            assert self.where(f"http://{host}/", http_proxy="http://p.example") is None

    @pytest.mark.parametrize(
        ("no_proxy", "host", "passed"),
        [
            ("*", "a.example", True),
            ("a.example", "a.example", True),
            ("a.example", "b.a.example", True),
            (".example", "a.example", True),
            ("*.example", "a.example", True),
            ("x, a.example:8080", "a.example:8080", True),
            ("a.example:81", "a.example:8080", False),
            ("ample", "a.example", False),
            ("10.0.0.0/8", "10.1.2.3", True),
            ("10.0.0.0/8", "11.1.2.3", False),
            ("10.0.0.0/8", "a.example", False),
            ("no/mask", "10.1.2.3", False),
            ("fd00::/8", "[fd00::1]", True),
            ("fd00::1", "[fd00::1]", True),
            ("", "a.example", False),
            (",.,", "a.example", False),
        ],
    )
    def test_who_is_passed_by(self, no_proxy: str, host: str, passed: bool) -> None:
        found = self.where(f"http://{host}/", http_proxy="http://p.example", no_proxy=no_proxy)
        assert (found is None) is passed

    def test_what_is_no_proxy(self) -> None:
        with pytest.raises(errors.RemoteError, match="http_proxy is not a URL"):
            self.where("http://a.example", http_proxy="http://p p")

    def test_settings(self) -> None:
        environ = {
            "HTTP_PROXY": "a",
            "https_proxy": "b",
            "HTTPS_PROXY": "c",
            "SSL_CERT_FILE": "d",
            "OTHER": "e",
            "NO_PROXY": "",
        }
        assert settings_of(environ) == (("https_proxy", "b"), ("http_proxy", "a"), ("SSL_CERT_FILE", "d"))
        assert settings_of({**environ, "REQUEST_METHOD": "GET"}) == (("https_proxy", "b"), ("SSL_CERT_FILE", "d"))
        assert len(addresses.SETTINGS) == 6
