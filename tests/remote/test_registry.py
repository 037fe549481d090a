"""Images from registries: from a real one, and from one that lies."""

from __future__ import annotations

import hashlib
import json
import marshal
import os
import time
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import image_builder as build
import pytest
import registry_server
from faulty import Faulty, moved, reply, served
from registry_server import IDENTITY, PASSWORD, USER, RegistryServer

from guntainer import errors
from guntainer.jobs.references import parse_image
from guntainer.remote import authentication, registry
from guntainer.remote.addresses import settings_of
from guntainer.remote.connection import Wire
from guntainer.remote.download import Request, open_stream
from guntainer.remote.registry import Patience, fetch_image, open_image, registry_of

BASE = build.layer(("bin", "dir", {}), ("bin/x", "file", {"data": b"x" * 1000, "mode": 0o755}))
UPPER = build.layer(("data", "file", {"data": os.urandom(200_000)}), compression="")
WEB = build.image(BASE, UPPER, config={"Cmd": ["/bin/x"]})
QUICK = Wire(connect_s=5.0, stall_s=0.5)


@pytest.fixture(autouse=True)
def _own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No login and no token of anybody else's."""
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", registry.INSECURE):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(registry, "_registries", {})
    monkeypatch.setattr(authentication, "_tokens", {})


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    def write(address: str, user: str = USER, password: str = PASSWORD, **more: str) -> None:
        entry = {"auth": b64encode(f"{user}:{password}".encode()).decode(), **more}
        (tmp_path / "auth.json").write_text(json.dumps({"auths": {address: entry}}))
        monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))

    return write


def download(values: tuple[Any, ...]) -> bytes:
    stream = open_stream(marshal.loads(marshal.dumps(values)))
    try:
        return b"".join(iter(lambda: stream.read(1 << 16), b""))
    finally:
        stream.close()


def whole(location: str, **more: Any) -> list[bytes]:
    """An image's layers, fetched."""
    image = open_image(location, **more)
    return [download(layer.source[1]) for layer in image.layers]


def refused(location: str, kind: type[errors.GuntainerError] = errors.RootfsError, **more: Any) -> str:
    with pytest.raises(kind) as caught:
        open_image(location, **more)
    text = str(caught.value)
    assert text.isprintable()
    assert PASSWORD not in text.replace("user and password", "")
    return text


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RegistryServer]:
    folder = tmp_path_factory.mktemp("real")
    with registry_server.running(folder) as server:
        several = build.index(build.image(BASE, architecture="s390x"), WEB)
        lists = build.index(WEB, build.image(BASE, architecture="s390x", docker=True), docker=True)
        server.push(build.oci_folder(folder / "a", {"1": WEB}), "web")
        server.push(build.oci_folder(folder / "b", {"several": several, "latest": WEB, "list": lists}), "deep/er/web")
        yield server


class TestReal:
    """Against docker-registry."""

    def test_an_image(self, real: RegistryServer) -> None:
        location = f"docker://{real.address}/web:1"
        data, digest, config, layers = fetch_image(parse_image(location))
        assert (data, digest, config) == (WEB.manifest, WEB.digest, WEB.config)
        kinds = (f"{build.OCI_LAYER}+gzip", build.OCI_LAYER)
        assert layers == [(one.digest, len(one.data), kind) for one, kind in zip((BASE, UPPER), kinds, strict=True)]
        image = open_image(location)
        assert image.config.cmd == ("/bin/x",)
        assert [layer.diff_id for layer in image.layers] == [BASE.diff_id, UPPER.diff_id]
        assert whole(location) == [BASE.data, UPPER.data]
        assert download(registry_of(parse_image(location)).request(BASE.digest, len(BASE.data))) == BASE.data

    def test_by_digest(self, real: RegistryServer) -> None:
        assert open_image(f"docker://{real.address}/web@sha256:{WEB.digest}").digest == WEB.digest
        assert open_image(f"docker://{real.address}/web:other@sha256:{WEB.digest}").digest == WEB.digest

    def test_latest(self, real: RegistryServer) -> None:
        assert open_image(f"docker://{real.address}/deep/er/web").digest == WEB.digest

    @pytest.mark.parametrize("tag", ["several", "list"])
    def test_of_several_platforms(self, real: RegistryServer, tag: str) -> None:
        location = f"docker://{real.address}/deep/er/web:{tag}"
        assert open_image(location).digest == WEB.digest
        assert open_image(location, "linux/s390x").config.architecture == "s390x"
        assert "not for linux/mips" in refused(location, platform="linux/mips")

    @pytest.mark.parametrize("name", ["web:gone", "gone:1", f"web@sha256:{'0' * 64}"])
    def test_what_is_not_there(self, real: RegistryServer, name: str) -> None:
        text = refused(f"docker://{real.address}/{name}", errors.RemoteError)
        assert text.startswith(f"docker://{real.address}/{name}: answered 404: is not there")
        assert "unknown" in text

    def test_a_layer_that_is_not_there(self, real: RegistryServer) -> None:
        reference = parse_image(f"docker://{real.address}/web:1")
        with pytest.raises(errors.RemoteError, match="answered 404"):
            download(registry_of(reference).request("0" * 64, 5))

    def test_nothing_is_asked_twice(self, real: RegistryServer) -> None:
        real.forget()
        whole(f"docker://{real.address}/web:1")
        asked: list[str] = []
        for _ in range(100):  # it writes its log when it has answered, and a little later
            asked = [line for line in real.requests() if line != "GET /v2/"]
            if len(asked) >= 4:
                break
            time.sleep(0.05)
        assert len(asked) == len(set(asked)) == 4

    def test_basic(self, tmp_path: Path, login: Any) -> None:
        with registry_server.running(tmp_path, "basic") as server:
            server.push(build.oci_folder(tmp_path / "l", {"1": WEB}), "web")
            location = f"docker://{server.address}/web:1"
            assert "answered 401: needs a login" in refused(location, errors.RemoteError)
            login(server.address, password="wrong")
            assert "the login that is known is refused" in refused(location, errors.RemoteError)
            login(server.address)
            assert whole(location) == [BASE.data, UPPER.data]

    def test_token(self, tmp_path: Path, login: Any) -> None:
        with registry_server.running(tmp_path, "token") as server:
            assert server.tokens is not None
            layout = build.oci_folder(tmp_path / "l", {"1": WEB})
            server.push(layout, "web")
            server.push(layout, "public/web")
            location = f"docker://{server.address}/web:1"

            assert whole(f"docker://{server.address}/public/web:1") == [BASE.data, UPPER.data]
            assert server.tokens.asked == [("GET", "repository:public/web:pull", "")]
            assert "answered 401: needs a login, or is not there" in refused(location, errors.RemoteError)
            login(server.address, password="wrong")
            assert f"the login for {server.address} is refused (401)" in refused(location, errors.RemoteError)
            login(server.address)
            server.tokens.asked.clear()
            assert whole(location) == [BASE.data, UPPER.data]
            assert server.tokens.asked == [("GET", "repository:web:pull", USER)]
            login(server.address, identitytoken=IDENTITY)
            server.tokens.asked.clear()
            assert whole(location) == [BASE.data, UPPER.data]
            assert server.tokens.asked == [("POST", "repository:web:pull", USER)]

    def test_tls(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with registry_server.running(tmp_path, tls=True) as server:
            server.push(build.oci_folder(tmp_path / "l", {"1": WEB}), "web")
            location = f"docker://{server.address}/web:1"
            monkeypatch.delenv("SSL_CERT_FILE", raising=False)
            monkeypatch.delenv("SSL_CERT_DIR", raising=False)
            assert "the server's certificate is refused" in refused(location, errors.RemoteError)
            monkeypatch.setenv("SSL_CERT_FILE", str(server.authority))
            assert whole(location) == [BASE.data, UPPER.data]

    def test_it_ends_with_its_block(self, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), registry_server.running(tmp_path) as server:
            process = server._process
            raise ZeroDivisionError
        assert process is not None
        assert process.returncode == -9


class Lying:
    """A registry made of plans: everything of it can be wrong."""

    def __init__(self, server: Faulty) -> None:
        self.server = server
        self.address = f"127.0.0.1:{server.port}"
        server.plan("/v2/", reply(b"{}"))

    def document(self, name: str, data: bytes, media_type: str = build.OCI_MANIFEST, digest: str = "") -> str:
        """Plan a manifest; returns its digest."""
        own = hashlib.sha256(data).hexdigest()
        headers = [("Content-Type", media_type), ("Docker-Content-Digest", digest or f"sha256:{own}")]
        for selector in (name, f"sha256:{own}"):
            self.server.plan(f"/v2/a/manifests/{selector}", reply(data, headers=headers))
        return own

    def image(self, image: build.Image = WEB) -> None:
        self.document("1", image.manifest)
        for data in (image.config, *(layer.data for layer in image.layers)):
            self.server.plan(f"/v2/a/blobs/sha256:{hashlib.sha256(data).hexdigest()}", served(data, etag=""))

    @property
    def location(self) -> str:
        return f"docker://{self.address}/a:1"

    def patient(self, retries: int = 3) -> registry.Registry:
        patience = Patience(wire=QUICK.replace(settings=settings_of({})), retries=retries, pause_s=0.001)
        return registry_of(parse_image(self.location), patience=patience)


@pytest.fixture
def lying() -> Iterator[Lying]:
    with Faulty() as server:
        yield Lying(server)


class TestLying:
    def test_all_good(self, lying: Lying) -> None:
        lying.image()
        assert whole(lying.location) == [BASE.data, UPPER.data]
        accept = lying.server.seen["/v2/a/manifests/1"][0].headers["accept"].split(", ")
        assert accept == [build.OCI_MANIFEST, build.DOCKER_MANIFEST, build.OCI_INDEX, build.DOCKER_LIST]

    def test_it_names_another_digest(self, lying: Lying) -> None:
        lying.document("1", WEB.manifest, digest=f"sha256:{'0' * 64}")
        assert "the registry names its manifest sha256:000000000000…" in refused(lying.location, errors.RemoteError)

    def test_it_sends_another_manifest_than_that_digest(self, lying: Lying) -> None:
        lying.server.plan(f"/v2/a/manifests/sha256:{'1' * 64}", reply(WEB.manifest))
        text = refused(f"docker://{lying.address}/a@sha256:{'1' * 64}", errors.RemoteError)
        assert "sends something of another digest; nothing of it was kept" in text

    def test_it_sends_another_manifest_than_the_index_names(self, lying: Lying) -> None:
        index = build.index(WEB)
        lying.document(
            "1",
            index.data,
            build.OCI_INDEX,
        )
        lying.server.plan(f"/v2/a/manifests/sha256:{WEB.digest}", reply(WEB.manifest + b" "))
        assert "bytes long, but" in refused(lying.location)
        lying.server.plan(f"/v2/a/manifests/sha256:{WEB.digest}", reply(WEB.manifest[:-1] + b" "))
        assert "its sha256 is" in refused(lying.location)

    def test_it_sends_another_config(self, lying: Lying) -> None:
        lying.image()
        digest = hashlib.sha256(WEB.config).hexdigest()
        lying.server.plan(f"/v2/a/blobs/sha256:{digest}", reply(WEB.config[:-1] + b" "))
        assert "its sha256 is" in refused(lying.location)

    @pytest.mark.parametrize("change", [1, -1])
    def test_a_layer_of_another_size(self, lying: Lying, change: int) -> None:
        lying.image()
        data = BASE.data + b"x" if change > 0 else BASE.data[:-1]
        lying.server.plan(f"/v2/a/blobs/sha256:{BASE.digest}", served(data))
        image = open_image(lying.location)
        with pytest.raises(errors.RemoteError, match=f"has {len(data)} bytes, and not the {len(BASE.data)}"):
            download(image.layers[0].source[1])

    def test_schema_1(self, lying: Lying) -> None:
        lying.document(
            "1", b'{"schemaVersion": 1, "name": "a"}', "application/vnd.docker.distribution.manifest.v1+prettyjws"
        )
        assert "schema 1" in refused(lying.location)

    @pytest.mark.parametrize("data", [b"", b"[]", b"{}", b"<html>", b"\xff", b"[" * 100_000, b'{"layers": 5}'])
    def test_no_manifest(self, lying: Lying, data: bytes) -> None:
        lying.document("1", data, "text/html")
        refused(lying.location)

    def test_a_manifest_that_never_ends(self, lying: Lying, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "MOST_MANIFEST", 1000)
        lying.document("1", b" " * 1001)
        assert "more than the 1000 bytes" in refused(lying.location, errors.RemoteError)

    def test_a_config_that_is_too_large(self, lying: Lying, monkeypatch: pytest.MonkeyPatch) -> None:
        lying.image()
        monkeypatch.setattr(registry, "MOST_CONFIG", 10)
        assert "its config is" in refused(lying.location, errors.RemoteError)

    def test_indexes_of_indexes(self, lying: Lying) -> None:
        lying.image()
        kind, data = build.OCI_MANIFEST, WEB.manifest
        for depth in range(3):
            entry = {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(data).hexdigest()}", "size": len(data)}
            kind, data = (
                build.OCI_INDEX,
                json.dumps({"schemaVersion": 2, "mediaType": build.OCI_INDEX, "manifests": [entry]}).encode(),
            )
            lying.document("1", data, kind)
            if depth < 2:
                assert open_image(lying.location).digest == WEB.digest
        assert "indexes of indexes, more than 2 deep" in refused(lying.location, errors.RemoteError)

    def test_a_document_in_another_coding(self, lying: Lying) -> None:
        lying.server.plan("/v2/a/manifests/1", reply(b"x", headers=[("Content-Encoding", "gzip")]))
        assert "another coding" in refused(lying.location, errors.RemoteError)

    def test_what_it_says_of_a_refusal_is_kept_on_one_line(self, lying: Lying) -> None:
        said = {"errors": [{"code": "DENIED", "message": "no\n\x1b[31mway " + "x" * 500}]}
        lying.server.plan("/v2/a/manifests/1", reply(json.dumps(said).encode(), status=403))
        text = refused(lying.location, errors.RemoteError)
        assert "answered 403" in text
        assert "no\\n\\x1b[31mway" in text
        assert len(text) < 300

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b'{"errors": []}', b'{"errors": [5]}', b'{"errors": {"a": 1}}', b"\xff"]
    )
    def test_or_nothing_of_use(self, lying: Lying, body: bytes) -> None:
        lying.server.plan("/v2/a/manifests/1", reply(body, status=404))
        assert "answered 404: is not there" in refused(lying.location, errors.RemoteError)

    def test_a_foreign_layer_is_fetched_where_it_lies(self, lying: Lying, login: Any) -> None:
        login(lying.address)
        kind = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
        manifest = json.loads(WEB.manifest)
        lying.image()
        with Faulty() as other:
            manifest["layers"][0].update(mediaType=kind, urls=[other.url("/foreign")])
            lying.document("1", json.dumps(manifest).encode())
            other.plan("/foreign", served(BASE.data))
            assert whole(lying.location) == [BASE.data, UPPER.data]
            assert "authorization" not in other.seen["/foreign"][0].headers


class TestFaults:
    def test_a_manifest_at_the_third_try(self, lying: Lying) -> None:
        lying.image()
        bad = [reply(status=500), reply(WEB.manifest, cut=10)]
        lying.server.plan(
            "/v2/a/manifests/1", *bad, reply(WEB.manifest, headers=[("Content-Type", build.OCI_MANIFEST)])
        )
        found = fetch_image(parse_image(lying.location), registry=lying.patient())
        assert found[1] == WEB.digest

    def test_no_try_left(self, lying: Lying) -> None:
        lying.server.plan("/v2/a/manifests/1", reply(status=502))
        with pytest.raises(errors.RemoteError) as caught:
            fetch_image(parse_image(lying.location), registry=lying.patient(2))
        assert str(caught.value) == f"docker://{lying.address}/a:1: answered 502, tried 3 times; run it again"

    def test_a_layer_by_way_of_another_host(self, lying: Lying, login: Any) -> None:
        login(lying.address)
        lying.image()
        with Faulty() as storage:
            challenge = [("WWW-Authenticate", 'Basic realm="x"')]
            for name in (f"blobs/sha256:{BASE.digest}",):
                lying.server.plan(
                    f"/v2/a/{name}", reply(status=401, headers=challenge), moved(storage.url("/s?sig=1", "localhost"))
                )
            storage.plan("/s", served(BASE.data, cut=100), served(BASE.data))
            values = lying.patient().request(BASE.digest, len(BASE.data))
            assert download(values) == BASE.data
            assert all("authorization" not in seen.headers for seen in storage.seen["/s"])
            assert storage.seen["/s"][1].headers["range"] == "bytes=100-"
            assert (
                lying.server.seen[f"/v2/a/blobs/sha256:{BASE.digest}"][1].headers["authorization"].startswith("Basic ")
            )

    def test_a_token_that_expires_in_the_middle(self, lying: Lying) -> None:
        """The stream is cut, and by then its token is no longer good."""
        blob = f"/v2/a/blobs/sha256:{UPPER.digest}"
        challenge = f'Bearer realm="{lying.server.url("/token")}",service="s",scope="repository:a:pull"'
        no = reply(status=401, headers=[("WWW-Authenticate", challenge)])
        lying.image()
        lying.server.plan("/v2/a/manifests/1", no, reply(WEB.manifest))
        tokens = [
            reply(json.dumps({name: token, "expires_in": 300}).encode())
            for name, token in (("token", "one"), ("access_token", "two"))
        ]
        lying.server.plan("/token", *tokens)
        lying.server.plan(blob, served(UPPER.data, cut=5000), no, served(UPPER.data))
        patient = lying.patient()
        fetch_image(parse_image(lying.location), registry=patient)
        assert download(patient.request(UPPER.digest, len(UPPER.data))) == UPPER.data
        sent = [(seen.headers["authorization"], seen.headers.get("range")) for seen in lying.server.seen[blob]]
        assert sent == [("Bearer one", None), ("Bearer one", "bytes=5000-"), ("Bearer two", "bytes=5000-")]
        assert lying.server.seen["/token"][0].target == "/token?service=s&scope=repository%3Aa%3Apull"

    def test_a_token_that_is_never_good(self, lying: Lying) -> None:
        no = reply(status=401, headers=[("WWW-Authenticate", f'Bearer realm="{lying.server.url("/token")}"')])
        lying.server.plan("/v2/a/manifests/1", no)
        lying.server.plan("/token", reply(b'{"token": "x"}'))
        assert "answered 401: needs a login" in refused(lying.location, errors.RemoteError)
        assert len(lying.server.seen["/v2/a/manifests/1"]) == 3

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            (reply(status=403), "is refused (403)"),
            (reply(b"{}"), "holds no token"),
            (reply(b'{"token": 5}'), "holds no token"),
            (reply(b'{"token": "a\\r\\nX-Evil: 1"}'), "holds no token"),
            (reply(b"[]"), "nothing of use"),
            (reply(b"no json"), "nothing of use"),
            (reply(status=302, headers=[("Location", "http://example.test/")]), "answered 302"),
            (reply(b" " * ((1 << 20) + 1)), "more than the 1048576 bytes"),
        ],
    )
    def test_no_token(self, lying: Lying, answer: Any, words: str) -> None:
        no = reply(status=401, headers=[("WWW-Authenticate", f'Bearer realm="{lying.server.url("/token")}"')])
        lying.server.plan("/v2/a/manifests/1", no)
        lying.server.plan("/token", answer)
        assert words in refused(lying.location, errors.RemoteError)

    def test_a_token_at_the_second_try(self, lying: Lying) -> None:
        no = reply(status=401, headers=[("WWW-Authenticate", f'Bearer realm="{lying.server.url("/token")}"')])
        lying.image()
        lying.server.plan("/v2/a/manifests/1", no, reply(WEB.manifest))
        lying.server.plan("/token", reply(status=500), reply(b'{"token": "x"}'))
        assert open_image(lying.location).digest == WEB.digest

    @pytest.mark.parametrize(
        ("realm", "words"),
        [
            ("", "does not say from where"),
            ("file:///etc/passwd", "does not say from where"),
            ("\x1b[31m", "does not say from where"),
        ],
    )
    def test_a_realm_that_is_none(self, lying: Lying, realm: str, words: str) -> None:
        no = reply(status=401, headers=[("WWW-Authenticate", f'Bearer realm="{realm}"')])
        lying.server.plan("/v2/a/manifests/1", no)
        assert words in refused(lying.location, errors.RemoteError)

    def test_a_realm_that_is_not_encrypted(self) -> None:
        keys = authentication.Keys("host.example", "repository:a:pull")
        with pytest.raises(
            errors.RemoteError, match=r"http://auth\.example/t, which is not encrypted; it is not asked"
        ):
            keys.answer(['Bearer realm="http://auth.example/t?secret"'], "", QUICK)

    def test_nobody_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry.time, "sleep", lambda _: None)
        with Faulty() as server:
            port = server.port
        assert f"127.0.0.1:{port}: Connection refused" in refused(f"docker://127.0.0.1:{port}/a:1", errors.RemoteError)


class TestAtOnce:
    """Several images of one repository, in threads of one process."""

    def test_a_token_is_got_once_and_taken_by_all(self, lying: Lying) -> None:
        lying.image()
        no = reply(status=401, headers=[("WWW-Authenticate", f'Bearer realm="{lying.server.url("/token")}"')])
        good = reply(WEB.manifest, headers=[("Content-Type", build.OCI_MANIFEST)])
        for tag in ("1", "2", "3"):
            lying.server.plan(f"/v2/a/manifests/{tag}", no, good)
        lying.server.plan("/token", reply(b'{"token": "x"}'))
        for tag in ("1", "2", "3"):
            first = registry_of(parse_image(f"docker://{lying.address}/a:{tag}"))
            assert first.manifest(tag)[0] == WEB.manifest
            first.keys.header = ""  # as one that began before there was a token
        assert len(lying.server.seen["/token"]) == 1

    def test_messages_name_their_own_image(self, lying: Lying) -> None:
        for tag in ("4", "5"):
            text = refused(f"docker://{lying.address}/a:{tag}", errors.RemoteError)
            assert text.startswith(f"docker://{lying.address}/a:{tag}: answered 404")
        assert len(lying.server.seen["/v2/"]) == 1


class TestWithoutTls:
    def test_only_to_this_machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def base(location: str, **more: Any) -> str:
            return registry_of(parse_image(location), **more).address("x").url

        monkeypatch.setattr(registry, "exchange", lambda address, *_: _Good())
        assert base("docker://host.example/a") == "https://host.example/v2/a/x"
        assert base("docker://alpine") == "https://registry-1.docker.io/v2/library/alpine/x"
        assert base("docker://localhost:5000/a") == "http://localhost:5000/v2/a/x"
        assert base("docker://plain.example/a", insecure=("plain.example",)) == "http://plain.example/v2/a/x"
        monkeypatch.setenv(registry.INSECURE, "one.example, two.example:5000")
        assert base("docker://two.example:5000/a") == "http://two.example:5000/v2/a/x"
        assert base("docker://two.example/a") == "https://two.example/v2/a/x"


class _Good:
    status = 200

    def close(self) -> None:
        pass


def test_secrets_are_in_no_repr(lying: Lying, login: Any) -> None:
    login(lying.address)
    lying.image()
    image = open_image(lying.location)
    assert PASSWORD in str(image.layers[0].request)
    assert Request.from_tuple(image.layers[0].request).url.endswith(BASE.digest)  # type: ignore[arg-type]
    assert PASSWORD not in f"{image!r}{registry_of(parse_image(lying.location))!r}"
