"""What a batch shows while it runs: live lines with a prefix, whole blocks, or next to nothing.

Bytes of jobs are passed on as they are, except where they would take over the terminal or the CI system that reads them:
there, escape sequences other than colours are taken out, and workflow commands are switched off around blocks.
"""

from __future__ import annotations

import asyncio
import os

from guntainer.report_text import duration, padded, shortened, visible
from guntainer.shown.ci import Ci
from guntainer.shown.taming import Prefixer, chunks, open_log, read_tail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

    from guntainer.report import Exit, Report, Result
    from guntainer.screen import Screen

_PREFIX_COLOURS = (36, 33, 35, 32, 34, 96, 93, 95, 92, 94)
_BLOCK_LIMIT = 10 << 20  # bytes of one stream of a job that a block shows
_CHUNK = 128 << 10
_CUT = b"[the end of its output is not shown: nobody took it; its log has all of it]\n"


class Output:
    """Quiet: nothing but what goes wrong. The other modes build on it.

    Args:
        terminal: the screen is one.
        env: tells which CI system reads us.
        places: by a job's key, the file and line where it is written.
        again: gives the command that runs just that job again.
    """

    live = False

    def __init__(
        self,
        screen: Screen,
        *,
        colour: bool,
        terminal: bool,
        env: Mapping[str, str],
        places: Mapping[str, tuple[str, int]] | None = None,
        again: Callable[[Result], str] | None = None,
    ) -> None:
        self.screen = screen
        self.colour = colour
        self.ci = Ci(env, places)
        self.tame = terminal or self.ci.reads
        self.told: set[str] = set()
        """How jobs have ended, as far as it was said in full."""
        self._again = again

    def say(self, text: str) -> None:
        """A short text of our own, if there is any."""
        if text:
            self.screen.put(self.encoded(text))

    def encoded(self, text: str) -> bytes:
        """A text of our own, in which names and reasons command nobody."""
        return self.ci.within(text).encode("utf-8", "surrogateescape")

    def aside(self, text: str) -> None:
        """A line of our own between those of jobs: that a batch is alive, that a job is tried again."""

    def retrying(self, job_id: str, attempt: int, exit_: Exit, wait_s: float) -> None:
        """An attempt has failed; the next one begins after a while."""

    async def output(self, job_id: str, stream: str, data: bytes) -> None:
        """Bytes of a job, as they come; only where `live`."""

    async def finished(self, result: Result) -> None:
        """A job has ended; its logs are still there."""
        if self.ci.github:
            self.say(self.ci.annotation(result, self.story(result)))

    def closing(self, report: Report) -> None:
        """After everything: the first failure alone, with the end of what it said, and how to have it again."""
        result = report.first_failure
        if result is None:
            return
        why = result.exit.describe()
        said = shortened(why) if why in self.told else self.tell(result)
        self.say(f"\n{self.paint('31', 'first failure')}: {visible(result.id)}: {visible(said)}\n")
        for path in (result.stdout, result.stderr):
            tail = read_tail(path) if path else b""
            self.screen.put(b"".join(self.shielded(iter((tail,)))))
        if self._again is not None:
            self.say(f"run it again: {visible(self._again(result))}\n")

    def tell(self, result: Result) -> str:
        """How it ended, in full: elsewhere that need not be said again."""
        why = result.exit.describe()
        self.told.add(why)
        return why

    def story(self, result: Result) -> str:
        """How it ended, whether that is bad, and how often it was tried."""
        text = visible(self.tell(result))
        if result.attempts:
            before = visible(shortened(result.attempts[-1].exit.describe()))
            text += f" at attempt {len(result.attempts) + 1}{f' (flaky: {before} before)' if result.ok else ''}"
        return f"{text} (allowed to fail)" if result.allowed else text

    def paint(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def shielded(self, text: Iterator[bytes]) -> Iterator[bytes]:
        """A job's text, so that it can not command what shows our output; it ends with a line break."""
        return self.ci.shielded(text, tame=self.tame)


def again_words(attempt: int, exit_: Exit, wait_s: float) -> str:
    """`attempt 1 failed (exit 3), again in 2 s`"""
    when = f"in {wait_s:g} s" if wait_s > 0 else "at once"
    return f"attempt {attempt} failed ({visible(shortened(exit_.describe()))}), again {when}\n"


class Live(Output):
    """Lines as they come, each behind its job's name.

    Args:
        width: of the longest name.
        whole: show a line when it has ended: below it there is a table.
    """

    live = True

    def __init__(self, screen: Screen, *, width: int, whole: bool = False, terminal: bool, **common: Any) -> None:
        super().__init__(screen, terminal=terminal, **common)
        self._width = min(width, 40)
        # elsewhere the rest of a line may come after another job's, and what it begins with would be read as a command
        self._whole = whole or not terminal or self.ci.reads
        self._prefixers: dict[tuple[str, str], Prefixer] = {}
        self._cut: set[str] = set()

    def _prefixer(self, job_id: str, stream: str) -> Prefixer:
        found = self._prefixers.get((job_id, stream))
        if found is None:
            code = _PREFIX_COLOURS[sum(job_id.encode("utf-8", "replace")) % len(_PREFIX_COLOURS)]
            name = self.paint(str(code), f"{padded(visible(job_id), self._width)} |")
            found = Prefixer(self.encoded(f"{name} "), tame=self.tame, whole=self._whole)
            self._prefixers[job_id, stream] = found
        return found

    def aside(self, text: str) -> None:
        if self._whole:
            self.say(text)

    def retrying(self, job_id: str, attempt: int, exit_: Exit, wait_s: float) -> None:
        text = self._rest(job_id) + self._note(job_id, self.encoded(again_words(attempt, exit_, wait_s)))
        self.screen.put(text)

    async def output(self, job_id: str, stream: str, data: bytes) -> None:
        try:
            await self.screen.write(self._prefixer(job_id, stream).feed(data))
        except asyncio.CancelledError:
            self._cut.add(job_id)
            raise

    async def finished(self, result: Result) -> None:
        text = self._rest(result.id)
        if result.id in self._cut:
            self._cut.discard(result.id)
            text += self._note(result.id, _CUT)
        if not result.ok or result.attempts:
            text += self._note(result.id, self.encoded(f"{self.story(result)}\n"))
        await self.screen.write(text)
        self.say(self.ci.annotation(result, self.story(result)))

    def _rest(self, job_id: str) -> bytes:
        """What the job's streams have not ended with a line break."""
        found = (self._prefixers.pop((job_id, stream), None) for stream in ("stdout", "stderr"))
        return b"".join(prefixer.end() for prefixer in found if prefixer is not None)

    def _note(self, job_id: str, text: bytes) -> bytes:
        note = self._prefixer(job_id, "note")
        del self._prefixers[job_id, "note"]
        return note.feed(text) + note.end()


class Group(Output):
    """A block per job, when it has ended: for logs that are read afterwards."""

    def __init__(self, screen: Screen, **common: Any) -> None:
        super().__init__(screen, **common)
        self._turn = asyncio.Lock()
        self._asides: list[str] = []

    def aside(self, text: str) -> None:
        if not self._turn.locked():
            self.say(text)

    def retrying(self, job_id: str, attempt: int, exit_: Exit, wait_s: float) -> None:
        line = f"{self.paint('33', '==')} {visible(job_id)}: {again_words(attempt, exit_, wait_s)}"
        if self._turn.locked():
            self._asides.append(line)
        else:
            self.say(line)

    async def finished(self, result: Result) -> None:
        async with self._turn:
            for piece in () if self.screen.gone else self._pieces(result):
                await self.screen.write(piece)
                if self.screen.gone:
                    return
            for text in self._asides:  # never within a block
                self.say(text)
            self._asides.clear()

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
        story = self.story(result)
        ran = bool(result.stdout)
        title = f"{visible(result.id)}: {story}{f' in {duration(result.wall_ns)}' if ran else ''}"
        begin = self.ci.begin(result, title) if ran else ""
        code = "31" if result.bad else "32" if result.outcome == "ok" else "33"
        yield self.encoded(begin or f"{self.paint(code, '==')} {title}\n")
        for number, attempt in enumerate(result.attempts, 1):
            if attempt.stdout:
                ended = visible(shortened(attempt.exit.describe()))
                yield self.encoded(f"[attempt {number}: {ended} in {duration(attempt.wall_ns)}]\n")
                yield from self._logs(attempt.stdout, attempt.stderr)
        if result.attempts and ran:
            yield self.encoded(f"[attempt {len(result.attempts) + 1}]\n")
        yield from self._logs(result.stdout, result.stderr)
        if begin:
            yield self.encoded(self.ci.end(result))
        yield self.encoded(self.ci.annotation(result, story))

    def _logs(self, *paths: str | None) -> Iterator[bytes]:
        for path in paths:
            if path:
                yield from self._log(path)

    def _log(self, path: str) -> Iterator[bytes]:
        try:
            with open(path, "rb", buffering=0, opener=open_log) as file:
                yield from self.shielded(chunks(file.fileno(), _CHUNK, _BLOCK_LIMIT))
                more = os.fstat(file.fileno()).st_size - _BLOCK_LIMIT
        except OSError:
            return
        if more > 0:
            yield self.encoded(f"[{more} more bytes are not shown: {visible(path)}]\n")
