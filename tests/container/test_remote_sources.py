"""What is elsewhere: images of a registry, archives at a URL; fetched, checked, unpacked meanwhile, and kept."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import image_builder as make
import pytest
import registry_server
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")


class Web(http.server.ThreadingHTTPServer):
    """A web server on loopback; `files` by path, and what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut_after = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Web

    def do_GET(self) -> None:
        data = self.server.files.get(self.path)
        begin = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        self.server.asked.append(f"{self.path} {begin}")
        if data is None:
            self.send_error(404)
            return
        self.send_response(206 if begin else 200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(data) - begin))
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        cut, self.server.cut_after = self.server.cut_after, 0
        self.wfile.write(data[begin : begin + cut if cut else None])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[registry_server.RegistryServer]:
    with registry_server.running(tmp_path) as server:
        yield server


@pytest.fixture
def layout(home: Path, small_archive: Path) -> Path:
    base = make.layer_of(gzip.decompress(small_archive.read_bytes()))
    top = make.layer(("srv", "dir", {}), ("srv/top", "file", {"data": b"top"}), compression="zstd")
    return make.oci_folder(home / "layout", {"1": make.image(base, top, config={"Cmd": ["cat", "/srv/top"]})})


@pytest.mark.root
def test_an_image_of_a_registry(
    guntainer: Run, home: Path, layout: Path, registry: registry_server.RegistryServer, traces: Traces
) -> None:
    registry.push(layout, "team/web")
    given = f"docker://{registry.address}/team/web:1"
    done = guntainer("run", given)
    assert done.stdout == "top", done.stderr
    registry.forget()
    assert guntainer("run", given).stdout == "top"
    assert registry.requests("/v2/") == []  # it is there
    assert guntainer("run", "--pull", "always", given).stdout == "top"
    assert registry.requests("/manifests/") and not registry.requests("/blobs/sha256")[2:]
    traces.check()


def test_by_digest_and_without_the_cache(
    guntainer: Run, home: Path, layout: Path, registry: registry_server.RegistryServer, traces: Traces
) -> None:
    digest = registry.push(layout, "web")["1"].removeprefix("sha256:")
    for more in ([], ["--no-cache"]):
        done = guntainer("run", *more, f"docker://{registry.address}/web@sha256:{digest}")
        assert done.stdout == "top", done.stderr
    done = guntainer("run", f"docker://{registry.address}/web@sha256:{'0' * 64}")
    assert done.returncode == 125 and len(done.stderr.splitlines()) == 1, done.stderr
    traces.check()


def test_pull_then_never(
    guntainer: Run, home: Path, layout: Path, registry: registry_server.RegistryServer, traces: Traces
) -> None:
    registry.push(layout, "web")
    given = f"docker://{registry.address}/web:1"
    done = guntainer("run", "--pull", "never", given)
    assert done.returncode == 125 and "guntainer pull it before" in done.stderr
    done = guntainer("pull", given)
    assert done.returncode == 0 and done.stdout.split()[0] == "image", done.stderr
    assert guntainer("run", "--pull", "never", given).stdout == "top"
    traces.check()


def test_with_a_password(guntainer: Run, home: Path, layout: Path, tmp_path: Path, traces: Traces) -> None:
    import base64

    with registry_server.running(tmp_path, auth="basic") as server:
        server.push(layout, "web")
        given = f"docker://{server.address}/web:1"
        done = guntainer("run", given)
        assert done.returncode == 125 and len(done.stderr.splitlines()) == 1, done.stderr
        key = base64.b64encode(f"{registry_server.USER}:{registry_server.PASSWORD}".encode()).decode()
        (home / "auth.json").write_text(json.dumps({"auths": {server.address: {"auth": key}}}))
        env = {**os.environ, "REGISTRY_AUTH_FILE": str(home / "auth.json")}
        done = guntainer("run", given, env=env)
        assert done.stdout == "top", done.stderr
        (home / "work" / "jobs.toml").write_text(
            f'[jobs.j]\nrootfs = "{given}"\npull = "always"\ncache = false\ncommand = ["cat", "/srv/top"]\n'
        )
        done = guntainer("batch", "--results", "out", "jobs.toml", env=env)
        assert done.returncode == 0, done.stderr + done.stdout
        everything = b"".join(path.read_bytes() for path in (home / "work" / "out").rglob("*") if path.is_file())
        assert registry_server.PASSWORD.encode() not in everything
    traces.check()


@pytest.mark.root
def test_an_archive_at_a_url(guntainer: Run, home: Path, small_archive: Path, web: Web, traces: Traces) -> None:
    data = small_archive.read_bytes()
    web.files["/a.tar.gz"] = data
    given = f"{web.url}/a.tar.gz#sha256={hashlib.sha256(data).hexdigest()}"
    assert guntainer("run", given, "echo", "hi").stdout == "hi\n"
    assert guntainer("run", given, "echo", "hi").stdout == "hi\n"
    assert web.asked == ["/a.tar.gz 0"]
    traces.check()


def test_a_broken_connection_is_taken_up_again(
    guntainer: Run, home: Path, small_archive: Path, web: Web, traces: Traces
) -> None:
    web.files["/a.tar.gz"] = small_archive.read_bytes()
    web.cut_after = 100_000
    done = guntainer("run", f"{web.url}/a.tar.gz", "echo", "hi")
    assert done.stdout == "hi\n", done.stderr
    assert web.asked == ["/a.tar.gz 0", "/a.tar.gz 100000"]
    traces.check()


def test_another_digest_is_not_run_and_not_kept(
    guntainer: Run, home: Path, small_archive: Path, web: Web, traces: Traces
) -> None:
    web.files["/a.tar.gz"] = small_archive.read_bytes()
    done = guntainer("run", f"{web.url}/a.tar.gz#sha256={'0' * 64}", "echo", "hi")
    assert done.returncode == 125 and "0" * 64 in done.stderr and done.stdout == ""
    assert hashlib.sha256(small_archive.read_bytes()).hexdigest() in done.stderr
    assert os.listdir(home / "store" / "rootfs") == os.listdir(home / "store" / "incoming") == []
    traces.check()


def test_any_kind_of_archive_and_image(
    guntainer: Run, home: Path, small_archive: Path, layout: Path, web: Web, traces: Traces
) -> None:
    """Uncompressed, one whose table is at its end, and the tar of an image: all are unpacked as they come, or at once after."""
    import subprocess

    web.files["/plain"] = gzip.decompress(small_archive.read_bytes())
    subprocess.run(["tar", "-cf", home / "image.tar", "-C", layout, "."], check=True)
    web.files["/image"] = (home / "image.tar").read_bytes()
    web.files["/image.gz"] = gzip.compress(web.files["/image"], 1)
    assert guntainer("run", f"{web.url}/plain", "echo", "hi").stdout == "hi\n"
    for name in ("image", "image.gz"):
        done = guntainer("run", f"{web.url}/{name}")
        assert done.stdout == "top", done.stderr
    traces.check()


def test_what_is_not_there(guntainer: Run, home: Path, web: Web, traces: Traces) -> None:
    user = f"http://me:secret@127.0.0.1:{web.server_address[1]}/nothing?token=hidden"
    for given in (user, "http://127.0.0.1:1/x", "docker://127.0.0.1:1/x"):
        done = guntainer("run", given, "true")
        assert done.returncode == 125 and len(done.stderr.splitlines()) == 1, done.stderr
        assert "secret" not in done.stderr and "hidden" not in done.stderr
    traces.check()


def test_ctrl_c_while_it_is_fetched(guntainer: Run, home: Path, web: Web, small_archive: Path) -> None:
    import signal
    import subprocess
    import sys

    stalled = threading.Event()

    class Stalling(bytes):
        def __getitem__(self, key: object) -> bytes:
            stalled.set()
            import time

            time.sleep(3)
            return b""

    web.files["/a.tar.gz"] = Stalling(small_archive.read_bytes())
    process = subprocess.Popen([sys.executable, "-m", "guntainer", "run", f"{web.url}/a.tar.gz", "true"])
    assert stalled.wait(30)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    assert os.listdir(home / "store" / "incoming") == []
    assert not list(Path(os.environ.get("TMPDIR", "/tmp")).glob(f"guntainer-{os.getuid()}/{process.pid}-*"))
