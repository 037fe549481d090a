"""What a batch shows while it runs: live lines with a prefix, whole blocks, or next to nothing.

Bytes of jobs are passed on as they are, except where they would take over the terminal or the CI system that reads them:
escape sequences other than colours are taken out of live output, and workflow commands are switched off around blocks.
"""

from __future__ import annotations

import os
import re
import threading

from guntainer.report_text import duration, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from guntainer.report import Report, Result

_PREFIX_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_BLOCK_LIMIT = 10 << 20  # bytes of one stream of a job that a block shows
_TAIL_BYTES = 64 << 10
_TAIL_LINES = 200
_CHUNK = 1 << 18
# an escape that does not begin a colour, and the other control characters that move the cursor or ring
_CONTROLS = re.compile(rb"\x1b(?!\[[0-9;]*m)|[\x00-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]|\r(?!\n)")


class Screen:
    """A descriptor that several jobs write to: whole writes, one at a time, and a reader that left ends them all quietly."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self.gone = False

    def write(self, data: bytes) -> None:
        with self._lock:
            view = memoryview(data)
            while view and not self.gone:
                try:
                    view = view[os.write(self._fd, view) :]
                except BlockingIOError:
                    import select

                    select.select((), (self._fd,), ())
                except OSError:
                    self.gone = True


class Prefixer:
    """Puts a prefix before each line of a stream that comes in chunks; a line may span several."""

    def __init__(self, prefix: bytes, *, terminal: bool) -> None:
        self._prefix = prefix
        self._break = b"\n" + prefix
        self._terminal = terminal
        self._at_start = True

    def feed(self, data: bytes) -> bytes:
        if not data:
            return b""
        if self._terminal and _CONTROLS.search(data):
            data = _CONTROLS.sub(b"", data)
        body, ended = (data[:-1], b"\n") if data.endswith(b"\n") else (data, b"")
        text = (self._prefix if self._at_start else b"") + body.replace(b"\n", self._break) + ended
        self._at_start = bool(ended)
        return text

    def end(self) -> bytes:
        """The line break that the stream did not end with."""
        if self._at_start:
            return b""
        self._at_start = True
        return b"\n"


class Output:
    """Quiet: nothing but what goes wrong. The other modes build on it."""

    live = False

    def __init__(self, screen: Screen, *, colour: bool, terminal: bool, env: Mapping[str, str]) -> None:
        self.screen = screen
        self.colour = colour
        self.terminal = terminal
        self.env = env

    def say(self, text: str) -> None:
        self.screen.write(text.encode("utf-8", "surrogateescape"))

    def output(self, job_id: str, stream: str, data: bytes) -> None:
        """Bytes of a job, as they come; only where `live`."""

    def finished(self, result: Result) -> None:
        """A job has ended; its logs are still there."""

    def closing(self, report: Report) -> None:
        """After everything: the first failure alone, with the end of what it said."""
        result = report.first_failure
        if result is None:
            return
        self.say(f"\n{self.paint('31', 'first failure')}: {visible(result.id)}: {result.exit.describe()}\n")
        for path in (result.stdout, result.stderr):
            tail = read_tail(path) if path else b""
            if tail:
                self.screen.write(self.shielded(tail))

    def paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def shielded(self, data: bytes) -> bytes:
        """A job's text, so that it can not command the CI system which reads our output."""
        data = data if data.endswith(b"\n") or not data else data + b"\n"
        if self.env.get("GITHUB_ACTIONS") != "true":
            return data
        token = os.urandom(16).hex().encode()
        return b"::stop-commands::" + token + b"\n" + data + b"::" + token + b"::\n"


class Live(Output):
    """Lines as they come, each behind its job's name."""

    live = True

    def __init__(self, screen: Screen, *, colour: bool, terminal: bool, env: Mapping[str, str], width: int) -> None:
        super().__init__(screen, colour=colour, terminal=terminal, env=env)
        self._width = min(width, 40)
        self._prefixers: dict[tuple[str, str], Prefixer] = {}

    def _prefixer(self, job_id: str, stream: str) -> Prefixer:
        found = self._prefixers.get((job_id, stream))
        if found is None:
            code = _PREFIX_COLOURS[sum(job_id.encode()) % len(_PREFIX_COLOURS)]
            name = self.paint(str(code), f"{visible(job_id):<{self._width}} |")
            found = Prefixer(f"{name} ".encode(), terminal=self.terminal)
            self._prefixers[job_id, stream] = found
        return found

    def output(self, job_id: str, stream: str, data: bytes) -> None:
        self.screen.write(self._prefixer(job_id, stream).feed(data))

    def finished(self, result: Result) -> None:
        for stream in ("stdout", "stderr"):
            prefixer = self._prefixers.pop((result.id, stream), None)
            if prefixer is not None:
                self.screen.write(prefixer.end())
        if not result.ok:
            self.screen.write(self._prefixer(result.id, "note").feed(f"{result.exit.describe()}\n".encode()))
            self._prefixers.pop((result.id, "note"), None)


class Group(Output):
    """A block per job, when it has ended: for logs that are read afterwards."""

    def finished(self, result: Result) -> None:
        title = f"{visible(result.id)}: {result.exit.describe()} in {duration(result.wall_ns)}"
        section = f"job_{os.urandom(4).hex()}"
        if self.env.get("GITHUB_ACTIONS") == "true":
            self.say(f"::group::{title}\n")
        elif self.env.get("GITLAB_CI") == "true":
            self.say(
                f"\x1b[0Ksection_start:{int(result.started_at)}:{section}[collapsed={'true' if result.ok else 'false'}]\r\x1b[0K{title}\n"
            )
        else:
            self.say(f"{self.paint('32' if result.ok else '31', '==')} {title}\n")
        for path in (result.stdout, result.stderr):
            if path:
                self._block(path)
        if self.env.get("GITHUB_ACTIONS") == "true":
            self.say("::endgroup::\n")
            if not result.ok:
                self.say(f"::error title={_property(result.id)}::{_property(result.exit.describe())}\n")
        elif self.env.get("GITLAB_CI") == "true":
            self.say(f"\x1b[0Ksection_end:{int(result.started_at + result.wall_ns / 1e9)}:{section}\r\x1b[0K\n")

    def _block(self, path: str) -> None:
        token = os.urandom(16).hex() if self.env.get("GITHUB_ACTIONS") == "true" else ""
        shown = 0
        try:
            with open(path, "rb") as file:
                data = b""
                while shown < _BLOCK_LIMIT and (chunk := file.read(min(_CHUNK, _BLOCK_LIMIT - shown))):
                    if not shown and token:
                        self.say(f"::stop-commands::{token}\n")
                    data = chunk
                    self.screen.write(chunk)
                    shown += len(chunk)
                more = os.fstat(file.fileno()).st_size - shown
        except OSError:
            return
        if shown and not data.endswith(b"\n"):
            self.say("\n")
        if shown and token:
            self.say(f"::{token}::\n")
        if more > 0:
            self.say(f"[{more} more bytes are not shown: {path}]\n")


def _property(text: str) -> str:
    """A value in a workflow command: percent, line breaks, colons and commas are escaped there."""
    for character, code in (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"), (":", "%3A"), (",", "%2C")):
        text = text.replace(character, code)
    return visible(text)


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
        data = data.partition(b"\n")[2]
    return b"".join(data.splitlines(keepends=True)[-_TAIL_LINES:])
