"""A server on loopback that answers as it is told, and as wrongly: raw bytes, so that no library mends them.

with Faulty() as server:
    server.plan("/a", served(data, cut=1000), served(data))     the first request to /a, and all that follow
    server.url("/a"); server.seen["/a"][1].headers["range"]
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ETAG = '"one"'


@dataclass
class Seen:
    """A request that came."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Answer = Callable[[Seen, Any, threading.Event], None]


class Faulty:
    def __init__(self, certificate: tuple[Path, Path] | None = None, host: str = "127.0.0.1") -> None:
        self._listener = socket.create_server((host, 0))
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(*certificate)
        self.port = self._listener.getsockname()[1]
        self.over = threading.Event()
        self.seen: dict[str, list[Seen]] = {}
        """By path, without its query."""
        self._plans: dict[str, list[Answer]] = {}
        self._threads: list[threading.Thread] = []
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Faulty:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def url(self, path: str, host: str = "127.0.0.1", user: str = "") -> str:
        return f"{'https' if self._context else 'http'}://{user}{host}:{self.port}{path}"

    def plan(self, path: str, *answers: Answer) -> None:
        """What each request to a path gets; the last goes for all further ones."""
        self._plans[path] = list(answers)

    def _serve(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._one, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _one(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            connection.settimeout(30)
            if self._context is not None:
                connection = stack.enter_context(self._context.wrap_socket(connection, server_side=True))
            file = stack.enter_context(connection.makefile("rb"))
            seen = _read(file)
            if seen is None:
                return
            path = seen.target.partition("?")[0]
            known = self.seen.setdefault(path, [])
            known.append(seen)
            plan = self._plans.get(path, [reply(b"nothing here", status=404)])
            plan[min(len(known), len(plan)) - 1](seen, connection, self.over)


def _read(file: Any) -> Seen | None:
    words = file.readline().decode("latin-1").split()
    if len(words) != 3:
        return None
    headers: dict[str, str] = {}
    while line := file.readline().decode("latin-1").strip():
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Seen(words[0], words[1], headers, file.read(int(headers.get("content-length", 0))))


def head(status: int, headers: Iterable[tuple[str, object]]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"HTTP/1.1 {status} So\r\n{lines}\r\n".encode("latin-1")


def reply(
    data: bytes = b"",
    *,
    status: int = 200,
    headers: Iterable[tuple[str, object]] = (),
    length: int | None = -1,
    cut: int | None = None,
    stall: bool = False,
) -> Answer:
    """An answer of these bytes.

    Args:
        length: Content-Length; -1: the right one; None: none, the end of the connection is the end.
        cut: send only so many bytes.
        stall: do not close after them.
    """

    def answer(_: Seen, connection: Any, over: threading.Event) -> None:
        more = [] if length is None else [("Content-Length", len(data) if length < 0 else length)]
        connection.sendall(head(status, [*headers, *more]) + data[:cut])
        if stall:
            over.wait(30)

    return answer


def served(
    data: bytes,
    *,
    etag: str = ETAG,
    ranges: bool = True,
    cut: int | None = None,
    stall: bool = False,
    headers: Iterable[tuple[str, object]] = (),
) -> Answer:
    """A file as a good server has it, RFC 9110 13 and 14, but for where it is cut."""

    def answer(seen: Seen, connection: Any, over: threading.Event) -> None:
        wanted, known = seen.headers.get("range"), seen.headers.get("if-range")
        tag = [("ETag", etag)] if etag else []
        if not ranges or wanted is None or (known is not None and known != etag):
            reply(data, headers=[*tag, *headers], cut=cut, stall=stall)(seen, connection, over)
            return
        first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first >= len(data):
            reply(status=416, headers=[("Content-Range", f"bytes */{len(data)}")])(seen, connection, over)
            return
        place = ("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        reply(data[first:], status=206, headers=[*tag, *headers, place], cut=cut, stall=stall)(seen, connection, over)

    return answer


def chunked(data: bytes, size: int, *, whole: bool = True, headers: Iterable[tuple[str, object]] = ()) -> Answer:
    """Chunks of so many bytes: RFC 9112 7.1; without the last one if it is not to be whole."""

    def answer(_: Seen, connection: Any, __: threading.Event) -> None:
        connection.sendall(head(200, [("Transfer-Encoding", "chunked"), *headers]))
        for at in range(0, len(data), size):
            part = data[at : at + size]
            connection.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
        if whole:
            connection.sendall(b"0\r\n\r\n")

    return answer


def raw(data: bytes, *, again_s: float | None = None) -> Answer:
    """These bytes and the end; or again and again, so many seconds apart, until the other side has left."""

    def answer(_: Seen, connection: Any, over: threading.Event) -> None:
        connection.sendall(data)
        while again_s is not None and not over.wait(again_s):
            connection.sendall(data)

    return answer


def drip(start: bytes, drop: bytes, every_s: float) -> Answer:
    """`start`, and then a drop at a time."""

    def answer(_: Seen, connection: Any, over: threading.Event) -> None:
        connection.sendall(start)
        while not over.wait(every_s):
            connection.sendall(drop)

    return answer


def moved(location: str, status: int = 302) -> Answer:
    return reply(status=status, headers=[("Location", location)])
