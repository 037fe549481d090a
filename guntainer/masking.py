"""Secrets kept out of what is shown: each of their occurrences in a stream of bytes becomes `***`.

What is looked for of a secret: itself; of one with several lines each line; its base64, wherever it begins in what was
encoded; its URL-encoded and its JSON form. What does not hold any of these comes out as it went in. Pure: values are given.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.parse

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.report import Exit

STARS = b"***"
_PROBE_BYTES = 64
LEAST_BYTES = 4
"""What is shorter stands in texts that have nothing to do with it."""
MOST_BYTES = 64 << 10
_MOST_PLAIN = 48  # words that are sooner looked for one by one


def forms(secret: bytes) -> set[bytes]:
    """Everything that is looked for of one secret."""
    found = {secret, *secret.splitlines(), *(line.strip() for line in secret.splitlines())}
    found |= _base64(secret)
    for encode in (urllib.parse.quote, urllib.parse.quote_plus):
        quoted = encode(secret, safe="")
        found |= {quoted.encode(), re.sub("%..", lambda m: m[0].lower(), quoted).encode()}
    found.add(urllib.parse.quote(secret).encode())
    try:
        found.add(json.dumps(secret.decode())[1:-1].encode())
        found.add(json.dumps(secret.decode(), ensure_ascii=False)[1:-1].encode())
    except UnicodeDecodeError:
        pass  # JSON can not hold it
    return {form for form in found if len(form) >= LEAST_BYTES}


def _base64(secret: bytes) -> set[bytes]:
    """What of its base64 does not depend on what stands before and after it, for each place in a group of three bytes."""
    found = {base64.b64encode(secret), base64.urlsafe_b64encode(secret)}
    for before in range(3):
        whole = bytes(before) + secret
        first = -(-before * 8 // 6)
        last = len(whole) * 8 // 6
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            found.add(encode(whole)[first:last])
    return found


class Patterns:
    """What is looked for, of any number of secrets; for any number of streams."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        words = {form for secret in secrets for form in forms(secret)}
        # the longest first: at one place it is the one that counts
        self._words = sorted(words, key=lambda word: (-len(word), word))
        self._search = _compiled(self._words).search if words else None
        self._heads: dict[bytes, list[bytes]] = {}
        for word in self._words:
            self._heads.setdefault(word[:LEAST_BYTES], []).append(word)
        self._longest = max(map(len, words), default=0)

    def __bool__(self) -> bool:
        return self._search is not None

    def __repr__(self) -> str:
        return f"Patterns({len(self._words)})"

    def are_in(self, data: bytes) -> bool:
        """Whether there is an occurrence."""
        if self._search is None:
            return False
        if len(self._words) <= _MOST_PLAIN:  # a search for one word is the faster one by far
            return any(word in data for word in self._words)
        return self._search(data) is not None

    def find(self, data: bytes, at: int) -> tuple[int, int] | None:
        """The first occurrence from `at` on, and of those that begin there the longest."""
        found = self._search(data, at) if self._search is not None else None
        return found.span() if found else None

    def unfinished(self, data: bytes) -> int:
        """Where at the end of `data` the first occurrence begins that may go on; its length where there is none."""
        start = max(0, len(data) - self._longest + 1)
        best = len(data)
        for head, words in self._heads.items():
            at = data.find(head, start)
            while 0 <= at < best:
                # almost all of them differ soon: the whole end is compared only where its beginning is right
                probe, left = data[at : at + _PROBE_BYTES], len(data) - at
                if any(len(word) > left and word.startswith(probe) and word.startswith(data[at:]) for word in words):
                    best = at
                    break
                at = data.find(head, at + 1)
        for length in range(min(LEAST_BYTES - 1, len(data)), 0, -1):
            if len(data) - length < best and any(head.startswith(data[-length:]) for head in self._heads):
                best = len(data) - length
        return best

    def stream(self) -> Masker:
        """For one stream of bytes."""
        return Masker(self)

    def mask(self, text: str) -> str:
        """A text as it may be shown."""
        if self._search is None:
            return text
        how = "surrogateescape"
        try:
            data = text.encode("utf-8", how)
        except UnicodeEncodeError:  # half a surrogate pair that stands for no byte
            data = text.encode("utf-8", how := "surrogatepass")
        masker = self.stream()
        masked = masker.feed(data) + masker.end()
        return text if masked == data else masked.decode("utf-8", how)


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
        if not self._patterns.are_in(data):  # most often
            self._masked, self._held = max(0, end - upto), data[upto:]
            return data[end:upto]
        found = self._patterns.find(data, 0)
        while found is not None and found[0] < upto:
            if found[0] >= end:
                shown += (data[end : found[0]], STARS)
            # else the two overlap: what is of either is hidden
            end = max(end, found[1])
            found = self._patterns.find(data, found[0] + 1)
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
