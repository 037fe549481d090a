"""What a batch shows while it runs: live lines with a prefix, whole blocks, or next to nothing.

Bytes of jobs are passed on as they are, except where they would take over the terminal or the CI system that reads them:
there, escape sequences other than colours are taken out, and workflow commands are switched off around blocks.
"""

from __future__ import annotations

import asyncio
import os
import re

from guntainer.report_text import duration, shortened, visible, width_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from guntainer.report import Report, Result
    from guntainer.screen import Screen

_PREFIX_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_BLOCK_LIMIT = 10 << 20  # bytes of one stream of a job that a block shows
_TAIL_BYTES = 64 << 10
_TAIL_LINES = 200
_CHUNK = 128 << 10
# an escape that does not begin a colour, the other control characters that move the cursor or ring, and C1 in UTF-8
_CONTROLS = re.compile(rb"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\r(?!\n)|\xc2[\x80-\x9f]")
# what only the next bytes decide about
_UNDECIDED = re.compile(rb"(?:\x1b(?:\[[0-9;]{0,32})?|\r|\xc2|##?)\Z")
_UNDECIDED_BYTES = 40
_INTERVAL_S = 0.1
_STALE_S = 1.0
_CUT = b"[the end of its output is not shown: nobody took it; its log has all of it]\n"


class Tamer:
    """Takes out of a stream what would command the terminal or the CI system that shows it; colours stay."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        data, held = _undecided(self._held + data)
        # once more: what is taken out may leave such an end behind
        data, more = _undecided(_tame(data))
        self._held = more + held
        return data

    def end(self) -> bytes:
        """What was held back, at the end of the stream."""
        held, self._held = self._held, b""
        return _tame(held).removesuffix(b"\xc2")


def _undecided(data: bytes) -> tuple[bytes, bytes]:
    """`data` without an end that only the next bytes decide about, and that end."""
    found = _UNDECIDED.search(data, max(0, len(data) - _UNDECIDED_BYTES))
    return (data[: found.start()], found.group()) if found else (data, b"")


def _tame(data: bytes) -> bytes:
    while _CONTROLS.search(data):  # again and again: what stood around one may make another
        data = _CONTROLS.sub(b"", data)
    # the older notation of workflow commands, which viewers know as well
    return data.replace(b"##[", b"## [")


class Prefixer:
    """Puts a prefix before each line of a stream that comes in chunks; a line may span several."""

    def __init__(self, prefix: bytes, *, tame: bool) -> None:
        self._prefix = prefix
        self._break = b"\n" + prefix
        self._tamer = Tamer() if tame else None
        self._at_start = True

    def feed(self, data: bytes) -> bytes:
        return self._lines(self._tamer.feed(data) if self._tamer is not None else data)

    def _lines(self, data: bytes) -> bytes:
        if not data:
            return b""
        body, ended = (data[:-1], b"\n") if data.endswith(b"\n") else (data, b"")
        text = (self._prefix if self._at_start else b"") + body.replace(b"\n", self._break) + ended
        self._at_start = bool(ended)
        return text

    def end(self) -> bytes:
        """What is still held back, and the line break that the stream did not end with."""
        text = self._lines(self._tamer.end()) if self._tamer is not None else b""
        if self._at_start:
            return text
        self._at_start = True
        return text + b"\n"


class Output:
    """Quiet: nothing but what goes wrong. The other modes build on it.

    Args:
        terminal: the screen is one.
        env: tells which CI system reads us.
    """

    live = False

    def __init__(self, screen: Screen, *, colour: bool, terminal: bool, env: Mapping[str, str]) -> None:
        self.screen = screen
        self.colour = colour
        self.github = env.get("GITHUB_ACTIONS") == "true"
        self.gitlab = env.get("GITLAB_CI") == "true"
        self.tame = terminal or self.github or self.gitlab
        self.told: set[str] = set()
        """How jobs have ended, as far as it was said in full."""

    def say(self, text: str) -> None:
        """A short text of our own."""
        self.screen.put(_bytes(text))

    async def output(self, job_id: str, stream: str, data: bytes) -> None:
        """Bytes of a job, as they come; only where `live`."""

    async def finished(self, result: Result) -> None:
        """A job has ended; its logs are still there."""

    def closing(self, report: Report) -> None:
        """After everything: the first failure alone, with the end of what it said."""
        result = report.first_failure
        if result is None:
            return
        why = result.exit.describe()
        said = shortened(why) if why in self.told else self.tell(result)
        self.say(f"\n{self.paint('31', 'first failure')}: {visible(result.id)}: {visible(said)}\n")
        for path in (result.stdout, result.stderr):
            tail = read_tail(path) if path else b""
            self.screen.put(b"".join(self.shielded(iter((tail,)))))

    def tell(self, result: Result) -> str:
        """How it ended, in full: elsewhere that need not be said again."""
        why = result.exit.describe()
        self.told.add(why)
        return why

    def paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def shielded(self, text: Iterator[bytes]) -> Iterator[bytes]:
        """A job's text, so that it can not command what shows our output; it ends with a line break."""
        tamer = Tamer() if self.tame else None
        token = b"::" + os.urandom(16).hex().encode() if self.github else b""
        last = b""
        for data in text:
            if not data:
                continue  # of a text without any there is nothing to be said, nor anything to be switched on again
            if token and not last:
                yield b"::stop-commands" + token + b"\n"
            last = data
            yield tamer.feed(data) if tamer is not None else data
        if not last:
            return
        if tamer is not None:
            yield tamer.end()
        if not last.endswith(b"\n"):
            yield b"\n"
        if token:
            yield token + b"::\n"


class Live(Output):
    """Lines as they come, each behind its job's name."""

    live = True

    def __init__(self, screen: Screen, *, colour: bool, terminal: bool, env: Mapping[str, str], width: int) -> None:
        super().__init__(screen, colour=colour, terminal=terminal, env=env)
        self._width = min(width, 40)
        self._prefixers: dict[tuple[str, str], Prefixer] = {}
        self._cut: set[str] = set()

    def _prefixer(self, job_id: str, stream: str) -> Prefixer:
        found = self._prefixers.get((job_id, stream))
        if found is None:
            code = _PREFIX_COLOURS[sum(job_id.encode()) % len(_PREFIX_COLOURS)]
            name = self.paint(str(code), f"{visible(job_id):<{self._width}} |")
            found = Prefixer(_bytes(f"{name} "), tame=self.tame)
            self._prefixers[job_id, stream] = found
        return found

    async def output(self, job_id: str, stream: str, data: bytes) -> None:
        try:
            await self.screen.write(self._prefixer(job_id, stream).feed(data))
        except asyncio.CancelledError:
            self._cut.add(job_id)
            raise

    async def finished(self, result: Result) -> None:
        text = b""
        for stream in ("stdout", "stderr"):
            prefixer = self._prefixers.pop((result.id, stream), None)
            if prefixer is not None:
                text += prefixer.end()
        note = self._prefixer(result.id, "note")
        if result.id in self._cut:
            self._cut.discard(result.id)
            text += note.feed(_CUT)
        if not result.ok:
            text += note.feed(_bytes(f"{visible(self.tell(result))}\n"))
        self._prefixers.pop((result.id, "note"), None)
        await self.screen.write(text)


class Group(Output):
    """A block per job, when it has ended: for logs that are read afterwards."""

    def __init__(self, screen: Screen, *, colour: bool, terminal: bool, env: Mapping[str, str]) -> None:
        super().__init__(screen, colour=colour, terminal=terminal, env=env)
        self._turn = asyncio.Lock()

    async def finished(self, result: Result) -> None:
        async with self._turn:
            for piece in () if self.screen.gone else self._pieces(result):
                await self.screen.write(piece)
                if self.screen.gone:
                    return

    def _pieces(self, result: Result) -> Iterator[bytes]:
        """A block in pieces of bounded size; what is small is one, for a write less."""
        text = b""
        for more in self._block(result):
            text += more
            if len(text) >= _CHUNK:
                yield text
                text = b""
        yield text

    def _block(self, result: Result) -> Iterator[bytes]:
        title = f"{visible(result.id)}: {visible(self.tell(result))} in {duration(result.wall_ns)}"
        section = f"job_{os.urandom(4).hex()}" if self.gitlab else ""
        if self.github:
            yield _bytes(f"::group::{_value(title)}\n")
        elif self.gitlab:
            folded = "true" if result.ok else "false"
            start = f"section_start:{int(result.started_at)}:{section}[collapsed={folded}]"
            yield _bytes(f"\x1b[0K{start}\r\x1b[0K{title}\n")
        else:
            yield _bytes(f"{self.paint('32' if result.ok else '31', '==')} {title}\n")
        for path in (result.stdout, result.stderr):
            if path:
                yield from self._log(path)
        if self.github:
            yield b"::endgroup::\n"
            if not result.ok:
                yield _bytes(f"::error title={_property(result.id)}::{_value(visible(result.exit.describe()))}\n")
        elif self.gitlab:
            ended = int(result.started_at + result.wall_ns / 1e9)
            yield _bytes(f"\x1b[0Ksection_end:{ended}:{section}\r\x1b[0K\n")

    def _log(self, path: str) -> Iterator[bytes]:
        try:
            with open(path, "rb", buffering=0) as file:
                yield from self.shielded(_chunks(file.fileno()))
                more = os.fstat(file.fileno()).st_size - _BLOCK_LIMIT
        except OSError:
            return
        if more > 0:
            yield _bytes(f"[{more} more bytes are not shown: {visible(path)}]\n")


class Unpacking:
    """How far archives are unpacked: one line of a terminal, gone when it is over.

    Args:
        columns: the terminal's width.
    """

    def __init__(self, screen: Screen, columns: int) -> None:
        self._screen = screen
        self._columns = columns
        self._parts: dict[str, tuple[int, float]] = {}
        """Per name: percent, and when that was told."""
        self._shown_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def told(self, name: str, done: int, total: int) -> None:
        """An unpacker has come so far, in bytes."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._parts[name] = min(100, done * 100 // max(1, total)), now
        if now - self._shown_at >= _INTERVAL_S:
            self._show(now)
        if self._timer is None:
            self._timer = loop.call_later(_STALE_S, self._tidy)

    def over(self, name: str) -> None:
        """It is unpacked, or has failed."""
        if self._parts.pop(name, None) is not None:
            self._show(asyncio.get_running_loop().time())

    def close(self) -> None:
        self._parts.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._screen.status(b"")

    def _tidy(self) -> None:
        """Nobody tells us of an end: what was not told of for a while has come to it."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._parts = {name: part for name, part in self._parts.items() if now - part[1] < _STALE_S}
        self._timer = loop.call_later(_STALE_S, self._tidy) if self._parts else None
        self._show(now)

    def _show(self, now: float) -> None:
        self._shown_at = now
        parts = [f"{visible(os.path.basename(name))} {percent} %" for name, (percent, _) in self._parts.items()]
        line = f"unpacking {', '.join(parts)}" if parts else ""
        while width_of(line) >= self._columns > 0:
            line = line[:-1]
        self._screen.status(_bytes(line))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _value(text: str) -> str:
    """The text of a workflow command: percent and line breaks are escaped there."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """A property of a workflow command: colons and commas as well."""
    return _value(visible(text)).replace(":", "%3A").replace(",", "%2C")


def _chunks(fd: int) -> Iterator[bytes]:
    left = _BLOCK_LIMIT
    while left and (data := os.read(fd, min(_CHUNK, left))):
        left -= len(data)
        yield data


def read_tail(path: str) -> bytes:
    """The last lines of a log: 200 of them, 64 KiB at most; b"" where it is gone."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL_BYTES))
            data = file.read(_TAIL_BYTES)
    except OSError:
        return b""
    if size > _TAIL_BYTES:
        data = data.partition(b"\n")[2] or data
    return b"".join(data.splitlines(keepends=True)[-_TAIL_LINES:])
