"""Downloads from a server that does everything wrong."""

from __future__ import annotations

import email.utils
import gzip
import marshal
import random
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faulty
import pytest
import registry_server
from faulty import ETAG, Faulty, chunked, drip, moved, raw, reply, served

from guntainer import errors
from guntainer.remote import download
from guntainer.remote.authentication import Keys
from guntainer.remote.connection import Wire
from guntainer.remote.download import Request, open_stream

DATA = random.Random(4).randbytes(300_000)
QUICK = Wire(connect_s=5.0, stall_s=0.4)


@pytest.fixture
def server() -> Iterator[Faulty]:
    with Faulty() as one:
        yield one


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would be slept between two tries."""
    slept: list[float] = []
    monkeypatch.setattr(download.time, "sleep", slept.append)
    return slept


def get(url: str, **more: Any) -> bytes:
    """All bytes of a stream, by way of the plain values that another process would get."""
    more = {"pause_s": 0.001, "wire": QUICK, **more}
    stream = open_stream(marshal.loads(marshal.dumps(Request(url=url, **more).as_tuple())))
    try:
        parts = []
        while part := stream.read(50_000):
            assert len(part) <= 50_000
            parts.append(part)
        assert stream.read(1) == b""
        assert stream.size == sum(map(len, parts))
        return b"".join(parts)
    finally:
        stream.close()


def refused(url: str, **more: Any) -> str:
    with pytest.raises(errors.RemoteError) as caught:
        get(url, **more)
    text = str(caught.value)
    assert text.isprintable()  # one line
    return text


def ranges(server: Faulty, path: str = "/a") -> list[str | None]:
    return [seen.headers.get("range") for seen in server.seen[path]]


class TestGood:
    def test_whole(self, server: Faulty) -> None:
        server.plan("/a", served(DATA))
        assert get(server.url("/a?q=1")) == DATA
        (seen,) = server.seen["/a"]
        assert (seen.method, seen.target, seen.headers["host"]) == ("GET", "/a?q=1", f"127.0.0.1:{server.port}")
        assert seen.headers["accept-encoding"] == "identity"
        assert seen.headers["user-agent"].startswith("guntainer/")

    def test_the_size_is_known_before_anything_is_read(self, server: Faulty) -> None:
        server.plan("/a", served(DATA))
        stream = open_stream(download.request(server.url("/a"), environ={}))
        assert stream.size == len(DATA)
        stream.close()
        stream.close()

    def test_nothing(self, server: Faulty) -> None:
        server.plan("/a", reply(b""))
        assert get(server.url("/a")) == b""

    @pytest.mark.parametrize("size", [1, 7, 4096, 1 << 20])
    def test_chunks(self, server: Faulty, size: int) -> None:
        data = DATA[: 3000 if size < 10 else None]
        server.plan("/a", chunked(data, size))
        assert get(server.url("/a")) == data

    def test_no_length_at_all(self, server: Faulty) -> None:
        server.plan("/a", reply(DATA, length=None))
        assert get(server.url("/a")) == DATA

    def test_a_coding_that_nobody_asked_for_is_the_file_itself(self, server: Faulty) -> None:
        data = gzip.compress(DATA[:1000])
        server.plan("/a", served(data, headers=[("Content-Encoding", "gzip")]))
        assert get(server.url("/a")) == data

    def test_ipv6(self) -> None:
        try:
            one = Faulty(host="::1")
        except OSError:
            pytest.skip("no IPv6 here")
        with one:
            one.plan("/a", served(DATA))
            assert get(one.url("/a", host="[::1]")) == DATA


class TestBroken:
    @pytest.mark.parametrize("cut", [1, 65536, len(DATA) - 1])
    def test_cut_off(self, server: Faulty, cut: int) -> None:
        server.plan("/a", served(DATA, cut=cut), served(DATA))
        assert get(server.url("/a")) == DATA
        assert ranges(server) == [None, f"bytes={cut}-"]
        assert server.seen["/a"][1].headers["if-range"] == ETAG

    def test_cut_off_before_the_first_byte(self, server: Faulty) -> None:
        server.plan("/a", served(DATA, cut=0), served(DATA))
        assert get(server.url("/a")) == DATA
        assert ranges(server) == [None, None]

    def test_again_and_again(self, server: Faulty) -> None:
        server.plan("/a", *[served(DATA, cut=90_000)] * 3, served(DATA))
        assert get(server.url("/a"), retries=3) == DATA
        assert ranges(server) == [None, "bytes=90000-", "bytes=180000-", "bytes=270000-"]

    def test_tries_count_anew_after_a_mebibyte(self, server: Faulty) -> None:
        data = DATA * 12
        server.plan("/a", *[served(data, cut=1_100_000)] * 3, served(data))
        assert get(server.url("/a"), retries=1) == data
        assert len(server.seen["/a"]) == 4

    def test_no_tries_left(self, server: Faulty) -> None:
        server.plan("/a", served(DATA, cut=1000), reply(status=503))
        text = refused(server.url("/a"), retries=2)
        assert f"{server.url('/a')}: broken off after 1000 of {len(DATA)} bytes: answered 503, tried 3 times" in text
        assert len(server.seen["/a"]) == 3

    def test_a_stall(self, server: Faulty) -> None:
        server.plan("/a", served(DATA, cut=5000, stall=True), served(DATA))
        assert get(server.url("/a")) == DATA
        assert ranges(server) == [None, "bytes=5000-"]

    def test_a_stall_before_the_header(self, server: Faulty) -> None:
        server.plan("/a", drip(b"", b"", 0.1), served(DATA))
        assert get(server.url("/a")) == DATA

    def test_a_slow_drip(self, server: Faulty) -> None:
        server.plan("/a", drip(faulty.head(200, [("Content-Length", 10000)]), b"x", 0.05))
        assert "silent or too slow" in refused(server.url("/a"), retries=0)

    def test_a_header_that_drips(self, server: Faulty) -> None:
        server.plan("/a", drip(b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n", 0.05))
        assert "silent or too slow" in refused(server.url("/a"), retries=0)

    def test_a_slow_reader_is_no_stall(self, server: Faulty) -> None:
        server.plan("/a", served(DATA))
        stream = open_stream(Request(url=server.url("/a"), retries=0, wire=QUICK).as_tuple())
        first = stream.read(1)
        time.sleep(0.6)
        rest = b""
        while part := stream.read(100_000):
            rest += part
        stream.close()
        assert first + rest == DATA

    @pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
    def test_twice_an_error_then_good(self, server: Faulty, status: int) -> None:
        server.plan("/a", reply(b"no", status=status), reply(b"no", status=status), served(DATA))
        assert get(server.url("/a")) == DATA

    def test_pauses_grow_and_are_bounded(self, server: Faulty, pauses: list[float]) -> None:
        server.plan("/a", reply(status=500))
        refused(server.url("/a"), retries=8, pause_s=0.5)
        assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 20.0, 20.0]

    def test_retry_after(self, server: Faulty, pauses: list[float]) -> None:
        date = email.utils.formatdate(time.time() + 60, usegmt=True)
        server.plan(
            "/a",
            reply(status=429, headers=[("Retry-After", "7")]),
            reply(status=503, headers=[("Retry-After", date)]),
            reply(status=503, headers=[("Retry-After", "soon")]),
            served(DATA),
        )
        assert get(server.url("/a")) == DATA
        assert pauses[0] == 7.0
        assert 30 < pauses[1] <= 60
        assert pauses[2] < 1

    def test_a_server_that_wants_to_be_left_alone_for_long(self, server: Faulty, pauses: list[float]) -> None:
        server.plan("/a", reply(status=429, headers=[("Retry-After", "3600")]))
        assert "answered 429: asks to be left alone for 3600 s; run it again then" in refused(server.url("/a"))
        assert pauses == []

    def test_chunks_cut_off(self, server: Faulty) -> None:
        server.plan("/a", chunked(DATA[:100_000], 4096, whole=False), chunked(DATA, 4096))
        assert get(server.url("/a")) == DATA
        assert ranges(server) == [None, None]

    @pytest.mark.parametrize(
        "answer",
        [
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nabc"),
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
            raw(b"HTTP/1.1 200 OK\r\nContent-Length: 3x\r\n\r\nabc"),
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\nabc"),
        ],
    )
    def test_a_length_that_means_two_things(self, server: Faulty, answer: faulty.Answer) -> None:
        server.plan("/a", answer)
        assert "in no clear way" in refused(server.url("/a"))

    @pytest.mark.parametrize(
        "answer",
        [
            raw(b"SSH-2.0-OpenSSH_9.2\r\n"),
            raw(b""),
            raw(b"HTTP/1.1 abc\r\n\r\n"),
            raw(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 70_000 + b"\r\n\r\n"),
            raw(b"HTTP/1.1 200 OK\r\n" + b"X: a\r\n" * 200 + b"\r\n"),
            raw(b"HTTP/1.1 100 Continue\r\n\r\n" * 1000, again_s=0.0),
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc"),
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabcdefghijk"),
            raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;" + b"a" * 70_000),
        ],
        ids=["ssh", "empty", "status", "line", "lines", "continue", "chunk", "negative", "extension"],
    )
    def test_no_http(self, server: Faulty, answer: faulty.Answer) -> None:
        server.plan("/a", answer, answer, served(DATA))
        assert get(server.url("/a"), retries=2) == DATA
        server.plan("/b", answer)
        assert "broken off" in refused(server.url("/b"), retries=1)

    def test_a_trailer_without_end(self, server: Faulty) -> None:
        start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"
        server.plan("/a", drip(start, b"A: b\r\n" * 10_000, 0.0))
        assert "broken off" in refused(server.url("/a"), retries=0, most=1000)


class TestOtherContent:
    def test_changed_between(self, server: Faulty) -> None:
        server.plan("/a", served(DATA, cut=1000), served(DATA[::-1], etag='"two"'))
        assert "changed on the server while it was downloaded; run it again" in refused(server.url("/a"))

    def test_changed_between_without_ranges(self, server: Faulty) -> None:
        server.plan("/a", served(DATA, cut=1000, ranges=False), served(DATA[::-1], etag='"two"', ranges=False))
        assert "changed on the server" in refused(server.url("/a"))

    def test_changed_before_anything_was_read_is_nothing_to_us(self, server: Faulty) -> None:
        server.plan("/a", served(DATA, cut=0), served(DATA[::-1], etag='"two"'))
        assert get(server.url("/a")) == DATA[::-1]

    def test_a_part_of_another_content(self, server: Faulty) -> None:
        part = reply(
            DATA[1000:],
            status=206,
            headers=[("ETag", '"two"'), ("Content-Range", f"bytes 1000-{len(DATA) - 1}/{len(DATA)}")],
        )
        server.plan("/a", served(DATA, cut=1000), part)
        assert "changed on the server" in refused(server.url("/a"))

    def test_another_length(self, server: Faulty) -> None:
        server.plan("/a", served(DATA, cut=1000), served(DATA + b"x"))
        assert "changed on the server" in refused(server.url("/a"))

    def test_shorter_than_what_is_there(self, server: Faulty) -> None:
        server.plan("/a", served(DATA, cut=1000), served(DATA[:500]))
        assert "changed on the server" in refused(server.url("/a"))

    def test_last_modified_vouches_as_well(self, server: Faulty) -> None:
        dates = [("Last-Modified", "Sat, 01 Jan 2022 00:00:00 GMT"), ("Date", "Sun, 02 Jan 2022 00:00:00 GMT")]
        part = reply(
            DATA[1000:], status=206, headers=[*dates, ("Content-Range", f"bytes 1000-{len(DATA) - 1}/{len(DATA)}")]
        )
        server.plan("/a", served(DATA, etag="", cut=1000, headers=dates), part)
        assert get(server.url("/a")) == DATA
        assert server.seen["/a"][1].headers["if-range"] == dates[0][1]

    @pytest.mark.parametrize("etag", ["", 'W/"weak"'])
    def test_without_a_voucher_the_first_part_comes_again(self, server: Faulty, etag: str) -> None:
        server.plan("/a", served(DATA, etag=etag, cut=1000), served(DATA, etag=etag, cut=500), served(DATA, etag=etag))
        assert get(server.url("/a")) == DATA
        assert ranges(server) == [None, None, None]

    def test_and_is_compared(self, server: Faulty) -> None:
        other = DATA[:999] + bytes([DATA[999] ^ 1]) + DATA[1000:]
        server.plan("/a", served(DATA, etag="", cut=1000), served(other, etag=""))
        assert "changed on the server" in refused(server.url("/a"))

    def test_whoever_knows_the_digest_needs_no_voucher(self, server: Faulty) -> None:
        server.plan("/a", served(DATA, etag="", cut=1000), served(DATA, etag=""))
        assert get(server.url("/a"), vouched=True) == DATA
        assert ranges(server) == [None, "bytes=1000-"]
        assert "if-range" not in server.seen["/a"][1].headers

    @pytest.mark.parametrize(
        "place",
        [
            "bytes 0-299999/300000", "bytes 1001-299999/300000", "bytes 1000-5/300000", "bytes */300000", "apples", "",
            "bytes 1000-2000/300000", "bytes 1000-299999", f"bytes 1000-299999/{'9' * 40}",
        ],
    )  # fmt: skip
    def test_a_wrong_part(self, server: Faulty, place: str) -> None:
        wrong = reply(DATA[1000:], status=206, headers=[("Content-Range", place), ("ETag", ETAG)])
        server.plan("/a", served(DATA, cut=1000), wrong, served(DATA))
        assert get(server.url("/a")) == DATA
        assert ranges(server) == [None, "bytes=1000-", None]

    def test_ranges_that_are_passed_over(self, server: Faulty) -> None:
        server.plan("/a", served(DATA, cut=1000, ranges=False), served(DATA, ranges=False))
        assert get(server.url("/a")) == DATA


class TestBounds:
    def test_an_endless_body(self, server: Faulty) -> None:
        server.plan("/a", raw(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 65536, again_s=0.0))
        text = refused(server.url("/a"), most=1_000_000)
        assert "more than the 1000000 bytes that are allowed" in text
        assert len(server.seen["/a"]) == 1

    def test_too_large_by_its_header(self, server: Faulty) -> None:
        server.plan("/a", reply(b"x", length=1 << 50, stall=True))
        assert "is larger than the 5 bytes" in refused(server.url("/a"), most=5)

    def test_another_size_than_was_named(self, server: Faulty) -> None:
        server.plan("/a", served(DATA))
        assert "has 300000 bytes, and not the 5 that it should" in refused(server.url("/a"), size=5)

    def test_a_named_size_without_a_length(self, server: Faulty) -> None:
        server.plan("/a", reply(DATA[:-1], length=None), served(DATA))
        assert get(server.url("/a"), size=len(DATA), vouched=True) == DATA

    def test_no_byte_more_than_the_named_size(self, server: Faulty) -> None:
        server.plan("/a", reply(DATA, length=None))
        assert "more than the 5 bytes" in refused(server.url("/a"), size=5, most=5)


class TestRefused:
    @pytest.mark.parametrize(
        ("status", "words"),
        [
            (401, "answered 401: the login that is known is refused"),
            (403, "answered 403: may not be had"),
            (404, "answered 404: is not there; check its name"),
            (410, "answered 410: is gone"),
            (416, "answered 416"),
            (206, "answered 206"),
            (204, "answered 204"),
            (304, "answered 304"),
            (501, "answered 501"),
        ],
    )
    def test_by_an_answer(self, server: Faulty, status: int, words: str) -> None:
        server.plan("/a", reply(b"", status=status))
        url = server.url("/a?signature=hidden", user="me:secret@")
        with pytest.raises(errors.RemoteError) as caught:
            open_stream(download.request(url, environ={}))
        text = str(caught.value)
        assert text.startswith(f"{server.url('/a')}: {words}")
        assert "hidden" not in text
        assert "secret" not in text
        assert len(server.seen["/a"]) == 1

    def test_needs_a_login(self, server: Faulty) -> None:
        server.plan("/a", reply(status=401, headers=[("WWW-Authenticate", 'Basic realm="x"')]))
        assert "answered 401: needs a login" in refused(server.url("/a"))

    def test_nobody_is_there(self, pauses: list[float]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        assert f"127.0.0.1:{port}: Connection refused" in refused(f"http://127.0.0.1:{port}/a")
        assert len(pauses) == 2

    @pytest.mark.parametrize(("number", "tries"), [(socket.EAI_NONAME, 1), (socket.EAI_AGAIN, 3)])
    def test_no_such_host(self, monkeypatch: pytest.MonkeyPatch, pauses: list[float], number: int, tries: int) -> None:
        asked = []

        def look_up(*words: object, **_: object) -> None:
            asked.append(words[0])
            raise socket.gaierror(number, "no")

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        text = refused("http://nowhere.invalid/a")
        assert "nowhere.invalid:80" in text
        assert asked == ["nowhere.invalid"] * tries

    def test_a_coding_that_is_not_the_file(self, server: Faulty) -> None:
        server.plan("/a", served(DATA, headers=[("Content-Encoding", "br")]))
        assert "another coding" in refused(server.url("/a"))


class TestRedirects:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_followed(self, server: Faulty, status: int) -> None:
        server.plan("/a", moved("b/../c?x=y z", status))
        server.plan("/c", served(DATA))
        assert get(server.url("/a")) == DATA
        assert server.seen["/c"][0].target == "/c?x=y%20z"

    def test_a_resumed_one_begins_at_the_first_address(self, server: Faulty) -> None:
        server.plan("/a", moved("/b?signature=1"), moved("/c?signature=2"))
        server.plan("/b", served(DATA, cut=1000))
        server.plan("/c", served(DATA))
        assert get(server.url("/a")) == DATA
        assert ranges(server, "/c") == ["bytes=1000-"]

    def test_a_loop(self, server: Faulty) -> None:
        server.plan("/a", moved("/b"))
        server.plan("/b", moved("/a"))
        assert "redirected more than 10 times" in refused(server.url("/a"))
        assert len(server.seen["/a"]) + len(server.seen["/b"]) == 11

    @pytest.mark.parametrize("location", ["ftp://x/y", "file:///etc/passwd", "javascript:1", "http://a b/"])
    def test_to_nowhere(self, server: Faulty, location: str) -> None:
        server.plan("/a", moved(location))
        assert "redirects to something that is no http(s) URL" in refused(server.url("/a"))

    def test_a_login_is_for_its_own_host(self, server: Faulty) -> None:
        with Faulty() as other:
            server.plan("/a", moved("/b"))
            server.plan("/b", moved(other.url("/c", host="localhost")))
            other.plan("/c", moved(server.url("/d")))
            server.plan("/d", served(DATA))
            keys = Keys(header="Basic c2VjcmV0").as_tuple()
            assert get(server.url("/a"), keys=keys) == DATA
            assert "authorization" not in other.seen["/c"][0].headers
            for path in ("/a", "/b", "/d"):
                assert server.seen[path][0].headers["authorization"] == "Basic c2VjcmV0"

    def test_no_cookie_is_kept(self, server: Faulty) -> None:
        server.plan("/a", reply(status=302, headers=[("Set-Cookie", "a=b"), ("Location", "/b")]))
        server.plan("/b", served(DATA))
        assert get(server.url("/a")) == DATA
        assert "cookie" not in server.seen["/b"][0].headers


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return registry_server.make_certificate(tmp_path_factory.mktemp("tls"))


class TestTls:
    def test_a_certificate_of_nobody(self, certificate: tuple[Path, Path]) -> None:
        with Faulty(certificate) as server:
            text = refused(server.url("/a"))
            assert "the server's certificate is refused: self-signed certificate" in text
            assert "SSL_CERT_FILE" in text

    def test_trusted_by_the_environment(self, certificate: tuple[Path, Path]) -> None:
        with Faulty(certificate) as server:
            server.plan("/a", served(DATA, cut=1000), served(DATA))
            wanted = download.request(server.url("/a"), environ={"SSL_CERT_FILE": str(certificate[0])})
            stream = open_stream(wanted)
            data = b""
            while part := stream.read(1 << 20):
                data += part
            stream.close()
            assert data == DATA
            assert ranges(server) == [None, "bytes=1000-"]

    def test_of_another_name(self, certificate: tuple[Path, Path]) -> None:
        with Faulty(certificate) as server:
            settings = (("SSL_CERT_FILE", str(certificate[0])),)
            text = refused(server.url("/a", host="localhost"), wire=QUICK.replace(settings=settings))
            assert re.search("certificate is refused: Hostname mismatch", text)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with Faulty() as server:
            url = server.url("/a").replace("http://", "https://")
            with pytest.raises(errors.HostError, match=r"SSL_CERT_FILE=.*gone: No such file"):
                open_stream(download.request(url, environ={"SSL_CERT_FILE": str(tmp_path / "gone")}))

    def test_a_server_without_it(self, server: Faulty) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            import threading

            def answer() -> None:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\nno TLS here")

            thread = threading.Thread(target=answer)
            thread.start()
            text = refused(f"https://127.0.0.1:{listener.getsockname()[1]}/a", retries=0)
            thread.join()
        assert "no TLS with" in text
        assert "write http://" in text

    def test_no_step_down(self, certificate: tuple[Path, Path]) -> None:
        with Faulty(certificate) as server:
            settings = (("SSL_CERT_FILE", str(certificate[0])),)
            server.plan("/a", moved("http://example.test/a?secret=1"))
            text = refused(server.url("/a"), wire=QUICK.replace(settings=settings))
            assert "redirects to http://example.test/a, which is not encrypted; it is not followed" in text

    def test_to_this_machine_it_is_no_step_down(self, certificate: tuple[Path, Path], server: Faulty) -> None:
        with Faulty(certificate) as first:
            settings = (("SSL_CERT_FILE", str(certificate[0])),)
            first.plan("/a", moved(server.url("/b")))
            server.plan("/b", served(DATA))
            assert get(first.url("/a"), wire=QUICK.replace(settings=settings)) == DATA

    def test_by_a_proxy(self, certificate: tuple[Path, Path]) -> None:
        """CONNECT to a name that only the proxy knows; the certificate is looked at all the same."""
        connected = []

        def tunnel(seen: faulty.Seen, connection: Any, _: object) -> None:
            connected.append((seen.target, seen.headers.get("proxy-authorization")))
            connection.sendall(b"HTTP/1.1 200 Go\r\n\r\n")
            with socket.create_connection(("127.0.0.1", server.port)) as onward:
                import select

                while True:
                    for ready in select.select([connection, onward], [], [])[0]:
                        data = ready.recv(65536)
                        if not data:
                            return
                        (onward if ready is connection else connection).sendall(data)

        with Faulty(certificate) as server, Faulty() as proxy:
            proxy.plan("example.test:443", tunnel)
            settings = (("SSL_CERT_FILE", str(certificate[0])), ("https_proxy", proxy.url("", user="me:p%40ss@")))
            text = refused("https://example.test/a", wire=QUICK.replace(settings=settings))
            assert "certificate is refused: Hostname mismatch" in text
            assert connected == [("example.test:443", "Basic bWU6cEBzcw==")]


class TestProxies:
    def test_by_a_proxy(self, server: Faulty) -> None:
        server.plan("http://example.test/a", served(DATA))
        settings = (("http_proxy", server.url("", user="me:secret@")),)
        assert get("http://example.test/a?b", wire=QUICK.replace(settings=settings)) == DATA
        (seen,) = server.seen["http://example.test/a"]
        assert seen.target == "http://example.test/a?b"
        assert seen.headers["host"] == "example.test"
        assert seen.headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"

    def test_one_that_is_not_there(self, pauses: list[float]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        settings = (("http_proxy", f"http://me:secret@127.0.0.1:{port}"),)
        text = refused("http://example.test/a", wire=QUICK.replace(settings=settings))
        assert f"the proxy 127.0.0.1:{port}: Connection refused" in text
        assert "secret" not in text

    def test_one_that_refuses(self, server: Faulty) -> None:
        server.plan("http://example.test/a", reply(status=407))
        text = refused("http://example.test/a", wire=QUICK.replace(settings=(("http_proxy", server.url("")),)))
        assert "answered 407: the proxy needs a login" in text

    def test_a_tunnel_that_wants_a_login(self, server: Faulty) -> None:
        server.plan("example.test:443", reply(status=407))
        text = refused("https://example.test/a", wire=QUICK.replace(settings=(("https_proxy", server.url("")),)))
        assert f"the proxy 127.0.0.1:{server.port} needs a login" in text

    def test_a_tunnel_that_is_refused(self, server: Faulty) -> None:
        server.plan("example.test:443", reply(status=403))
        text = refused(
            "https://example.test/a", retries=0, wire=QUICK.replace(settings=(("https_proxy", server.url("")),))
        )
        assert "the proxy" in text
        assert "403" in text

    def test_a_kind_that_is_not_known(self) -> None:
        wire = QUICK.replace(settings=(("all_proxy", "socks5://me:secret@127.0.0.1:1"),))
        text = refused("http://example.test/a", wire=wire)
        assert "a proxy by socks5:// is not supported" in text
        assert "secret" not in text


def test_secrets_are_in_no_repr() -> None:
    keys = Keys("registry.test", "repository:a:pull", header="Bearer secret").as_tuple()
    wire = Wire(settings=(("http_proxy", "http://me:secret@proxy.test"),))
    wanted = Request(url="https://host.test/a?signature=secret", keys=keys, wire=wire)
    stream = download.Stream(wanted)
    shown = f"{wanted!r} {stream!r} {wire!r} {Keys.from_tuple(keys)!r}"
    assert "secret" not in shown
    assert Request.from_tuple(wanted.as_tuple()) == wanted


def test_a_password_of_the_url_is_sent_and_not_kept_in_it(server: Faulty) -> None:
    server.plan("/a", served(DATA))
    wanted = download.request(server.url("/a", user="me%40home:p%3Aw@"), environ={})
    assert "me" not in wanted[0]
    stream = open_stream(wanted)
    stream.close()
    assert server.seen["/a"][0].headers["authorization"] == "Basic bWVAaG9tZTpwOnc="
