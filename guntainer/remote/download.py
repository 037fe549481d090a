"""A stream of bytes from a server that goes on where it was broken off: RFC 9110 14, ranges.

A second part is joined to the first only where it is of the same content: the bytes' digest is known and will be checked, or
the server vouches for it by If-Range, or the bytes that are there already come again and are compared. The digest is taken by
whoever reads the stream.
"""

from __future__ import annotations

import os
import time
import zlib

from guntainer import errors
from guntainer.remote.addresses import parse_address, settings_of
from guntainer.remote.authentication import Keys, basic
from guntainer.remote.connection import Broken, Wire
from guntainer.remote.exchange import ask, refusal
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from guntainer.remote.addresses import Address
    from guntainer.remote.connection import Headers, Response

_PROGRESS = 1 << 20
_BLOCK = 256 << 10
_EARLY_TRIES = 2
_LONGEST_PAUSE_S = 20.0
MOST_BYTES = 1 << 40
"""Of one archive or layer, where nothing else is said."""


class Request(Value):
    """What `open_stream` needs, from plain values and into them: it is opened in another process."""

    url: str
    """Without user information."""
    headers: Headers = ()
    """Nothing secret."""
    size: int = -1
    """Bytes that must come; -1: as many as there are."""
    most: int = MOST_BYTES
    """Bytes that may come."""
    vouched: bool = False
    """Who reads the stream knows its digest."""
    retries: int = 5
    """Tries after the first, anew whenever 1 MiB has come since the last."""
    pause_s: float = 0.5
    """Before the first of them; it doubles."""
    wire: Wire = Wire()
    keys: tuple[Any, ...] = ()
    """`Keys.as_tuple()`, or (): nobody asks for a login."""

    def __repr__(self) -> str:
        return f"Request({_shown(self.url)!r})"

    def as_tuple(self) -> tuple[Any, ...]:
        """Of plain values, as marshal takes them. It may hold a secret: not for command lines and messages."""
        wire = self.wire
        plain = (wire.connect_s, wire.stall_s, wire.settings)
        own = (self.url, self.headers, self.size, self.most, self.vouched, self.retries, self.pause_s)
        return (*own, plain, self.keys)

    @classmethod
    def from_tuple(cls, values: tuple[Any, ...]) -> Request:
        url, headers, size, most, vouched, retries, pause_s, (connect_s, stall_s, settings), keys = values
        return cls(
            url=url,
            headers=headers,
            size=size,
            most=most,
            vouched=vouched,
            retries=retries,
            pause_s=pause_s,
            wire=Wire(connect_s=connect_s, stall_s=stall_s, settings=settings),
            keys=keys,
        )


def _shown(url: str) -> str:
    return parse_address(url)[0].shown


def request(
    url: str, *, sha256: str | None = None, most: int = MOST_BYTES, environ: Mapping[str, str] = os.environ
) -> tuple[Any, ...]:
    """What `open_stream` takes for an http(s) URL; a user and password in it are for its own host alone.

    Args:
        sha256: the digest that whoever reads the stream will check, if any.
        most: bytes that may come.
    """
    address, user = parse_address(url)
    keys = Keys()
    if user:
        from urllib.parse import unquote

        name, _, password = user.partition(":")
        keys = Keys(header=basic(unquote(name), unquote(password)))
    return Request(
        url=address.url,
        most=most,
        vouched=sha256 is not None,
        wire=Wire(settings=settings_of(environ)),
        keys=keys.as_tuple(),
    ).as_tuple()


def open_stream(values: tuple[Any, ...]) -> Stream:
    """Connect, and return the stream once its first byte can be read.

    Raises:
        RemoteError: it can not be had.
    """
    stream = Stream(Request.from_tuple(values))
    try:
        stream.start()
    except BaseException:
        stream.close()
        raise
    return stream


class Stream:
    """Bytes that come from a server, in one piece for who reads them."""

    def __init__(self, wanted: Request) -> None:
        self._wanted = wanted
        self._address: Address = parse_address(wanted.url)[0]
        self._keys = Keys.from_tuple(wanted.keys) if wanted.keys else None
        self._response: Response | None = None
        self.size = wanted.size
        """Bytes in all; -1: not known before the end."""
        self._done = 0
        self._skip = 0
        """Bytes that come again and are to be passed over."""
        self._sum = 0
        """CRC-32 of what came, where nothing else says whether it is the same when it comes again."""
        self._validator: str | None = None
        self._marks: tuple[str, str] = ("", "")
        self._no_ranges = False
        self._left = wanted.retries
        self._pause_s = wanted.pause_s
        self._begun_at = 0

    def __repr__(self) -> str:
        return f"Stream({self._address.shown!r}, {self._done} of {self.size})"

    def start(self) -> None:
        while self._response is None:
            try:
                self._open()
            except Broken as broken:
                self._wait(broken)

    def read(self, n: int) -> bytes:
        """The next bytes, at most `n`; b"" at the end.

        Raises:
            RemoteError: the rest can not be had, has changed meanwhile, or is more than was allowed.
        """
        while True:
            try:
                if self._done == self.size:
                    return b""
                if self._response is None:
                    self._open()
                if self._skip:
                    self._pass_over()
                return self._next(n)
            except Broken as broken:
                self._wait(broken)

    def close(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _next(self, n: int) -> bytes:
        assert self._response is not None
        data = self._response.read(min(n, _BLOCK))
        if not data:
            if self.size >= 0:
                raise Broken(f"ended after {self._done} of {self.size} bytes")
            self.size = self._done
            return b""
        self._done += len(data)
        if not self._vouched:
            self._sum = zlib.crc32(data, self._sum)
        if self._done > self._wanted.most:
            raise self._too_much()
        return data

    @property
    def _vouched(self) -> bool:
        """Whether somebody sees to it that the parts belong together."""
        return self._wanted.vouched or bool(self._validator)

    def _pass_over(self) -> None:
        """What has come before comes again: look whether it is the same."""
        assert self._response is not None
        again = 0
        while self._skip:
            data = self._response.read(min(self._skip, _BLOCK))
            if not data:
                raise Broken(f"ended before the {self._done} bytes that came the first time")
            self._skip -= len(data)
            again = zlib.crc32(data, again)
        if not self._vouched and again != self._sum:
            raise self._changed()

    def _wait(self, broken: Broken) -> None:
        """Before another try; where none is left, that is the end."""
        self.close()
        wanted = self._wanted
        if self._done - self._begun_at >= _PROGRESS:
            self._left, self._pause_s, self._begun_at = wanted.retries, wanted.pause_s, self._done
        if broken.early and not self._done:
            self._left = min(self._left, _EARLY_TRIES)
        if self._left <= 0:
            far = f" after {self._done} of {self.size} bytes" if self._done and self.size >= 0 else ""
            tried = f", tried {wanted.retries + 1} times" if wanted.retries and not broken.early else ""
            raise errors.RemoteError(
                f"{self._address.shown}: broken off{far}: {broken.why}{tried}", hint="run it again"
            )
        self._left -= 1
        time.sleep(max(broken.after_s, min(self._pause_s, _LONGEST_PAUSE_S)))
        self._pause_s *= 2

    def _open(self) -> None:
        """Ask for the bytes from where we are, and look whether the answer goes with what is there already."""
        headers: list[tuple[str, str]] = [*self._wanted.headers]
        ranged = self._done > 0 and not self._no_ranges and self._vouched
        if ranged:
            headers.append(("Range", f"bytes={self._done}-"))
            if self._validator:
                headers.append(("If-Range", self._validator))
        response = ask(self._address, tuple(headers), self._wanted.wire, self._keys)
        try:
            if response.status == 200:
                self._from_start(response)
            elif response.status == 206 and ranged:
                self._from_here(response)
            elif response.status == 416 and ranged:
                # the file has become shorter; or all of it is there, and only that was not known
                raise self._changed()
            else:
                raise refusal(self._address.shown, response.status, self._keys)
            _check_coding(response)
        except BaseException:
            response.close()
            raise
        self._response = response

    def _from_start(self, response: Response) -> None:
        size = response.length
        marks = (response.header("etag"), response.header("last-modified"))
        if self.size >= 0 and size >= 0 and size != self.size:
            if self._done:
                raise self._changed()
            raise errors.RemoteError(f"{self._address.shown}: has {size} bytes, and not the {self.size} that it should")
        if size > self._wanted.most:
            raise self._too_much()
        if self._done and not self._wanted.vouched and (self._differ(marks) or (self._validator and not any(marks))):
            raise self._changed()
        if not self._done:
            self._marks, self._validator = marks, _validator(response)
            if self.size < 0:
                self.size = size
        response.most = self._wanted.most
        self._skip = self._done

    def _from_here(self, response: Response) -> None:
        first, total = _content_range(response.header("content-range"))
        expected = total - first if total >= 0 else -1
        if first != self._done or (response.length >= 0 and expected >= 0 and response.length != expected):
            self._no_ranges = True
            raise Broken("sends another part of the file than was asked for")
        if self.size >= 0 and total >= 0 and total != self.size:
            raise self._changed()
        if not self._wanted.vouched and self._differ((response.header("etag"), response.header("last-modified"))):
            raise self._changed()
        if self.size < 0:
            self.size = total
        response.most = self._wanted.most
        self._skip = 0

    def _differ(self, marks: tuple[str, str]) -> bool:
        return any(old and new and old != new for old, new in zip(self._marks, marks, strict=True))

    def _changed(self) -> errors.RemoteError:
        return errors.RemoteError(
            f"{self._address.shown}: changed on the server while it was downloaded", hint="run it again"
        )

    def _too_much(self) -> errors.RemoteError:
        most = self._wanted.most
        return errors.RemoteError(
            f"{self._address.shown}: is larger than the {most} bytes that are allowed", hint="nothing of it was kept"
        )


def _validator(response: Response) -> str | None:
    """What If-Range may name: RFC 9110 13.1.5, a strong entity tag, or a date that is older than the answer."""
    tag = response.header("etag")
    if tag.startswith('"'):
        return tag
    modified, date = response.header("last-modified"), response.header("date")
    # 8.8.2.2: within the second in which it was changed, a date may mean two contents
    return modified if modified and date and modified != date else None


def _content_range(text: str) -> tuple[int, int]:
    """(first byte, length of the whole or -1) of `bytes 5-9/10`, RFC 9110 14.4; (-1, -1) where it is anything else."""
    unit, _, rest = text.partition(" ")
    part, slash, total = rest.strip().partition("/")
    first, dash, last = part.partition("-")
    numbers = [number for number in (first, last, total) if number != "*"]
    if unit.lower() != "bytes" or not slash or not dash or not all(n.isascii() and n.isdigit() for n in numbers):
        return -1, -1
    if not all(len(number) <= 18 for number in numbers) or len(numbers) < 2 or "*" in part:
        return -1, -1
    whole = int(total) if total != "*" else -1
    if int(last) < int(first) or (whole >= 0 and int(last) != whole - 1):
        return -1, -1
    return int(first), whole


def _check_coding(response: Response) -> None:
    """Whether a body is the file itself.

    gzip stands: servers name it so for a .tar.gz as it lies there, and where it is one more, that is seen and undone later.
    """
    coding = response.header("content-encoding").lower()
    if coding not in ("", "identity", "gzip", "x-gzip"):
        raise errors.RemoteError(
            f"{response.address.shown}: comes in another coding than was asked for (Content-Encoding)",
            hint="get the file by other means",
        )
