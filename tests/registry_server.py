"""A real registry on loopback for tests: Debian's `docker-registry`, filled by plain HTTP.

    with registry_server.running(tmp_path) as registry:            auth="basic": user "user", password "password"
        registry.push(oci_folder(tmp_path / "l", {"1": web}), "web")     auth="token": the same, tokens by a server of ours
        f"docker://{registry.address}/web:1"                       tls=True: by a certificate of `registry.authority`
        registry.requests("/blobs/")      -> ["GET /v2/web/blobs/sha256:…", …], all since the last `forget()`

It is dead and waited for when the block is left, and when the tests' process is killed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

USER, PASSWORD, IDENTITY = "user", "password", "a refresh token"
PROGRAM = "docker-registry"
_SERVICE, _ISSUER = "registry.test", "issuer.test"
_WAIT_S = 20.0


def make_certificate(folder: Path, name: str = "127.0.0.1", *, days: int = 2) -> tuple[Path, Path]:
    """(certificate, key) for an address or a name of this machine, signed by itself."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    kind = "IP" if name[:1].isdigit() else "DNS"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", str(days), "-subj", f"/CN={name}",
         "-addext", f"subjectAltName={kind}:{name}", "-keyout", key, "-out", certificate],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class TokenServer:
    """Gives tokens as `auth: token` of the registry wants them: signed by a key whose certificate the registry knows."""

    def __init__(self, folder: Path) -> None:
        self.certificate, self._key = make_certificate(folder, "token-signer")
        self.life_s = 300
        """How long the next tokens are good for."""
        self.asked: list[tuple[str, str, str]] = []
        """(method, scope, who) of each token."""
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                login = self.headers.get("Authorization", "")
                right = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
                query = parse_qs(urlsplit(self.path).query)
                self._answer("GET", query, USER if login == right else "" if not login else None)

            def do_POST(self) -> None:
                query = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
                good = query.get("grant_type") == ["refresh_token"] and query.get("refresh_token") == [IDENTITY]
                self._answer("POST", query, USER if good else None)

            def _answer(self, method: str, query: dict[str, list[str]], who: str | None) -> None:
                scope = query.get("scope", [""])[0]
                outer.asked.append((method, scope, str(who)))
                answer = outer.token(scope, who) if who is not None else {"details": "incorrect username or password"}
                data = json.dumps(answer).encode()
                self.send_response(200 if who is not None else 401)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.realm = f"http://127.0.0.1:{self._server.server_port}/token"

    def token(self, scope: str, who: str) -> dict[str, object]:
        """Everything for USER; for anybody nothing but repositories that begin with `public`."""
        now = int(time.time())
        kind, name, actions = scope.split(":") if scope.count(":") == 2 else ("", "", "")
        access = [{"type": kind, "name": name, "actions": actions.split(",")}]
        claims = {
            "iss": _ISSUER, "sub": who, "aud": _SERVICE, "iat": now, "nbf": now - 10, "exp": now + self.life_s,
            "jti": os.urandom(8).hex(), "access": access if kind and (who or name.startswith("public")) else [],
        }  # fmt: skip
        chain = [base64.b64encode(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).decode()]
        head = {"typ": "JWT", "alg": "RS256", "x5c": chain}
        signed = f"{_text(json.dumps(head).encode())}.{_text(json.dumps(claims).encode())}"
        signature = subprocess.run(
            ["openssl", "dgst", "-sha256", "-sign", self._key], input=signed.encode(), capture_output=True, check=True
        ).stdout
        return {"token": f"{signed}.{_text(signature)}", "expires_in": self.life_s}

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class RegistryServer:
    """A registry that runs."""

    def __init__(self, folder: Path, auth: str, *, tls: bool) -> None:
        self.folder = folder
        self.tokens = TokenServer(folder) if auth == "token" else None
        self.authority: Path | None = None
        """The certificate that it is to be trusted by; None: it is without TLS."""
        self._auth = auth
        self._marks = 0
        self._begin = 0
        self.address = ""
        """`127.0.0.1:PORT`."""
        self._log = folder / "registry.log"
        try:
            self._process = self._start(tls)
        except BaseException:
            self.close()
            raise

    _process: subprocess.Popen[bytes] | None = None

    def _start(self, tls: bool) -> subprocess.Popen[bytes]:
        config = {
            "version": "0.1",
            "log": {"level": "info", "formatter": "json"},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "blobs")}, "delete": {"enabled": True}},
            "http": {"addr": "127.0.0.1:0"},
        }
        if tls:
            self.authority, key = make_certificate(self.folder)
            config["http"]["tls"] = {"certificate": str(self.authority), "key": str(key)}  # type: ignore[index]
        if self._auth == "basic":
            config["auth"] = {"htpasswd": {"realm": "test", "path": str(self._htpasswd())}}
        if self.tokens is not None:
            token = {"realm": self.tokens.realm, "service": _SERVICE, "issuer": _ISSUER}
            config["auth"] = {"token": {**token, "rootcertbundle": str(self.tokens.certificate)}}
        path = self.folder / "config.yml"
        path.write_text(json.dumps(config))  # which is YAML as well
        with self._log.open("wb") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", PROGRAM, "serve", path],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "OTEL_TRACES_EXPORTER": "none"},
            )
        self._process = process
        self.address = self._listening(process)
        return process

    def _htpasswd(self) -> Path:
        if shutil.which("htpasswd") is None:
            pytest.skip("htpasswd is not installed (apache2-utils)")
        path = self.folder / "htpasswd"
        # the registry takes bcrypt alone; of the least cost
        subprocess.run(["htpasswd", "-Bbc", "-C", "4", path, USER, PASSWORD], check=True, capture_output=True)
        return path

    def _listening(self, process: subprocess.Popen[bytes]) -> str:
        end = time.monotonic() + _WAIT_S
        while time.monotonic() < end and process.poll() is None:
            for line in self._log.read_text().splitlines():
                if '"msg":"listening on ' in line:
                    return str(json.loads(line)["msg"]).removeprefix("listening on ").partition(",")[0]
            time.sleep(0.02)
        raise AssertionError(f"the registry does not start: {self._log.read_text()[-2000:]}")

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self.tokens is not None:
            self.tokens.close()

    def call(
        self, method: str, target: str, body: bytes = b"", kind: str = "", repository: str = ""
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, header with its names in lower case, body) of one request, with the login that it needs."""
        headers = {"Content-Type": kind} if kind else {}
        if self._auth == "basic":
            headers["Authorization"] = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"
        if self.tokens is not None and repository:
            token = self.tokens.token(f"repository:{repository}:pull,push", USER)["token"]
            headers["Authorization"] = f"Bearer {token}"
        if self.authority is not None:
            context = ssl.create_default_context(cafile=str(self.authority))
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                self.address, context=context, timeout=30
            )
        else:
            connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.headers.items()}, response.read()
        finally:
            connection.close()

    def put_blob(self, repository: str, data: bytes) -> str:
        """Upload a blob; returns its `sha256:…`."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        status, headers, _ = self.call("POST", f"/v2/{repository}/blobs/uploads/", repository=repository)
        assert status == 202, status
        place = urlsplit(headers["location"])
        target = f"{place.path}?{place.query}&digest={digest}"
        status, _, answer = self.call("PUT", target, data, "application/octet-stream", repository)
        assert status == 201, answer
        return digest

    def put_manifest(self, repository: str, tag: str, data: bytes, media_type: str) -> str:
        """Upload a manifest or an index whose blobs are there; returns its `sha256:…`."""
        status, headers, answer = self.call("PUT", f"/v2/{repository}/manifests/{tag}", data, media_type, repository)
        assert status == 201, answer
        return headers["docker-content-digest"]

    def push(self, layout: Path, repository: str) -> dict[str, str]:
        """Upload all images of an OCI layout's folder; returns {tag: `sha256:…`}. One without a name becomes `latest`."""
        pushed = {}
        for entry in json.loads((layout / "index.json").read_bytes())["manifests"]:
            name = entry.get("annotations", {}).get("org.opencontainers.image.ref.name", "latest")
            pushed[name] = self._push(layout, repository, entry, name.rpartition(":")[2])
        self.forget()
        return pushed

    def _push(self, layout: Path, repository: str, entry: dict[str, str], tag: str) -> str:
        data = (layout / "blobs" / entry["digest"].replace(":", "/")).read_bytes()
        document = json.loads(data)
        for one in document.get("manifests", ()):
            self._push(layout, repository, one, one["digest"])
        for one in (document.get("config"), *document.get("layers", ())):
            if one is not None:
                self.put_blob(repository, (layout / "blobs" / one["digest"].replace(":", "/")).read_bytes())
        return self.put_manifest(repository, tag, data, entry["mediaType"])

    def _lines(self) -> list[str]:
        lines = self._log.read_text(errors="replace").splitlines()
        requests = (line.split('"')[1] for line in lines if '"' in line and not line.startswith("{"))
        return [request.rpartition(" HTTP/")[0] for request in requests if " HTTP/1." in request]

    def _settled(self) -> list[str]:
        """All requests so far: a line is written when its request is over, so one more of ours is waited for."""
        self._marks += 1
        mark = f"GET /v2/?mark={self._marks}"
        self.call("GET", mark.removeprefix("GET "))
        end = time.monotonic() + _WAIT_S
        while mark not in (lines := self._lines()):
            assert time.monotonic() < end, "the registry writes no log"
            time.sleep(0.01)
        return lines

    def requests(self, part: str = "") -> list[str]:
        """`METHOD TARGET` of the requests since `forget`, with `part` in them; those that got a 401 as well."""
        return [line for line in self._settled()[self._begin :] if part in line and "?mark=" not in line]

    def forget(self) -> None:
        self._begin = len(self._settled())


@contextlib.contextmanager
def running(folder: Path, auth: str = "", *, tls: bool = False) -> Iterator[RegistryServer]:
    """A registry with its files in a new folder below `folder`; skips where there is no program for it."""
    if shutil.which(PROGRAM) is None:
        pytest.skip("docker-registry is not installed")
    own = folder / f"registry-{os.urandom(3).hex()}"
    own.mkdir()
    server = RegistryServer(own, auth, tls=tls)
    try:
        yield server
    finally:
        server.close()
