"""Secrets kept out of what is shown: each of their occurrences in a stream of bytes becomes `***`.

What is looked for of a secret is in `spellings`. What does not hold any of it comes out as it went in. Pure: values are
given.
"""

from __future__ import annotations

import re
import sys

from guntainer import errors
from guntainer.spellings import forms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Literal

    from guntainer.report import Exit

    Code = Literal["Q", "I", "H"]

STARS = b"***"
_PROBE_BYTES = 64
_BLOCKS: tuple[tuple[Code, int], ...] = (("Q", 8), ("I", 4), ("H", 2))
"""Sizes of blocks for words of 15, 7 and 3 bytes or more."""
LEAST_BYTES = 4
"""What is shorter stands in texts that have nothing to do with it."""
MOST_BYTES = 64 << 10
_MOST_PLAIN = 8  # words that are sooner looked for one by one


class Patterns:
    """What is looked for, of any number of secrets; for any number of streams."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        words = {form for secret in secrets for form in forms(secret, LEAST_BYTES)}
        # the longest first: at one place it is the one that counts
        self._words = sorted(words, key=lambda word: (-len(word), word))
        self._match = _compiled(self._words).match if words else None
        self._plain: list[bytes] = []
        self._sieves: list[_Sieve] = []
        self._choose()
        self._heads: dict[bytes, list[bytes]] = {}
        for word in self._words:
            self._heads.setdefault(word[:LEAST_BYTES], []).append(word)
        self._beginnings = {head[:length] for head in self._heads for length in range(1, LEAST_BYTES)}

    def _choose(self) -> None:
        """How each word is looked for."""
        longer = sys.maxsize
        for code, size in _BLOCKS:
            least, most = 2 * size - 1, longer
            those = [word for word in self._words if least <= len(word) < most]
            if len(those) <= _MOST_PLAIN:
                self._plain += those
            else:
                self._sieves.append(_Sieve(those, code, size))
            longer = least

    def __bool__(self) -> bool:
        return self._match is not None

    def __repr__(self) -> str:
        return f"Patterns({len(self._words)})"

    def occurrences(self, data: bytes) -> list[tuple[int, int]]:
        """(begin, end) of each, in their order; of those that begin at one place the longest. They may overlap."""
        if self._match is None:
            return []
        places: set[int] = set()
        for word in self._plain:
            at = data.find(word)
            while at >= 0:
                places.add(at)
                at = data.find(word, at + 1)
        for sieve in self._sieves:
            places.update(sieve.places(data))
        return [found.span() for at in sorted(places) if (found := self._match(data, at)) is not None]

    def unfinished(self, data: bytes) -> int:
        """Where at the end of `data` the first occurrence begins that may go on; its length where there is none."""
        best = len(data)
        for head, words in self._heads.items():
            at = data.find(head, max(0, len(data) - len(words[0]) + 1))
            while 0 <= at < best:
                # almost all of them differ soon: the whole end is compared only where its beginning is right
                probe, left = data[at : at + _PROBE_BYTES], len(data) - at
                if any(len(word) > left and word.startswith(probe) and word.startswith(data[at:]) for word in words):
                    best = at
                    break
                at = data.find(head, at + 1)
        for length in range(min(LEAST_BYTES - 1, len(data)), 0, -1):
            if len(data) - length < best and data[-length:] in self._beginnings:
                best = len(data) - length
        return best

    def stream(self) -> Masker:
        """For one stream of bytes."""
        return Masker(self)

    def mask(self, text: str) -> str:
        """A text as it may be shown."""
        if self._match is None:
            return text
        how = "surrogateescape"
        try:
            data = text.encode("utf-8", how)
        except UnicodeEncodeError:  # half a surrogate pair that stands for no byte
            data = text.encode("utf-8", how := "surrogatepass")
        masker = self.stream()
        masked = masker.feed(data) + masker.end()
        return text if masked == data else masked.decode("utf-8", how)


class _Sieve:
    """Where words may be, in one look at each block of `size` bytes: wherever a word lies, it has one of these for itself.

    Args:
        words: of 2·size - 1 bytes or more.
        code: of a number of this size, as struct has it.
    """

    def __init__(self, words: list[bytes], code: Code, size: int) -> None:
        self._code = code
        self._size = size
        self._offsets: dict[int, set[int]] = {}
        """A block → where in words it begins."""
        for word in words:
            for offset in range(size):
                block = int.from_bytes(word[offset : offset + size], sys.byteorder)
                self._offsets.setdefault(block, set()).add(offset)

    def places(self, data: bytes) -> Iterator[int]:
        """Where one may begin."""
        blocks = memoryview(data)[: len(data) // self._size * self._size].cast(self._code).tolist()
        if self._offsets.keys().isdisjoint(blocks):  # most often
            return
        for number, block in enumerate(blocks):
            for offset in self._offsets.get(block, ()):
                if number * self._size >= offset:
                    yield number * self._size - offset


def _compiled(words: list[bytes]) -> re.Pattern[bytes]:
    try:
        return re.compile(_tree(words))
    except RecursionError:  # hundreds of lines, each the beginning of the next
        return re.compile(b"|".join(map(re.escape, words)))


def _tree(words: list[bytes]) -> bytes:
    """A regular expression of the alternatives that looks at each byte of theirs but once."""
    if len(words) == 1:
        return re.escape(words[0])
    if not words[-1]:  # the shortest one ends here, the others go on
        return b"(?:" + _tree(words[:-1]) + b")?"
    groups: dict[bytes, list[bytes]] = {}
    for word in words:
        groups.setdefault(word[:1], []).append(word)
    if len(groups) > 1:
        return b"(?:" + b"|".join(_tree(group) for group in groups.values()) + b")"
    shared = _shared(words)
    return re.escape(words[0][:shared]) + _tree([word[shared:] for word in words])


def _shared(words: list[bytes]) -> int:
    """How many bytes all of them begin with."""
    first, last = min(words), max(words)
    return next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))


class Masker:
    """One stream: what is fed comes out again, masked, but for an end that may be the beginning of a secret."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns = patterns
        self._held = b""
        """Shorter than the longest word that is looked for."""
        self._masked = 0
        """So many bytes of it belong to what was shown as stars already."""

    def feed(self, data: bytes) -> bytes:
        """The next bytes; returns what can be shown by now."""
        data = self._held + data if self._held else data
        return self._pass(data, self._patterns.unfinished(data))

    def end(self) -> bytes:
        """The rest, when nothing comes any more."""
        return self._pass(self._held, len(self._held))

    def _pass(self, data: bytes, upto: int) -> bytes:
        """What is shown of the first `upto` bytes; the others are held."""
        shown: list[bytes] = []
        end = self._masked
        for begin, stop in self._patterns.occurrences(data):
            if begin >= upto:
                break
            if begin >= end:
                shown += (data[end:begin], STARS)
            # else the two overlap: what is of either is hidden
            end = max(end, stop)
        if end < upto:
            shown.append(data[end:upto])
        self._masked = max(0, end - upto)
        self._held = data[upto:]
        return b"".join(shown)


def check(name: str, value: bytes, where: str) -> bytes:
    """`value`, when it can be kept secret.

    Args:
        where: it was read, for messages.

    Raises:
        UsageError: naming the secret, never its value.
    """
    if not value:
        raise errors.UsageError(f"secret {name}: {where} is empty")
    if len(value) > MOST_BYTES:
        raise errors.UsageError(f"secret {name}: {where} has more than {MOST_BYTES >> 10} KiB")
    if b"\0" in value:
        raise errors.UsageError(f"secret {name}: {where} has a NUL byte, which no variable can hold")
    if len(value.strip()) < LEAST_BYTES:
        raise errors.UsageError(
            f"secret {name}: {where} has fewer than {LEAST_BYTES} bytes, which can not be told from other text in a log"
        )
    return value


def masked(an_exit: Exit, patterns: Patterns) -> Exit:
    """How a job ended, as it may be written and shown; its error is changed as well."""
    error = an_exit.error
    if error is not None:
        error.message, error.hint = patterns.mask(error.message), patterns.mask(error.hint)
        error.args = tuple(patterns.mask(str(one)) for one in error.args)
    return an_exit.replace(message=patterns.mask(an_exit.message)) if an_exit.message else an_exit
