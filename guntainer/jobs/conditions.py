"""Whether a job runs, given how the jobs ended that it needs: `if = "always() && matrix.os == 'debian'"`. Pure.

Words and meaning are GitHub's (docs: "Evaluate expressions in workflows and actions"): a text in single quotes, numbers, true,
false and null; `!`, `==`, `!=`, `&&`, `||` and parentheses; texts are compared without regard to case, and `success() &&` is put
before what asks for no status. Otherwise than there, whatever has no meaning is an error, not an empty text.
"""

from __future__ import annotations

import functools
import itertools
import math
import re

from guntainer import errors
from guntainer.jobs.matrix import check_name
from guntainer.jobs.terms import (
    CALLS,
    STATUS,
    Asked,
    Call,
    Chain,
    Comparison,
    Literal,
    Node,
    Not,
    Reference,
    Status,
    pruned,
    truth,
    walk,
)
from guntainer.jobs.values import near, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from guntainer.jobs.terms import Scalar

ALWAYS = "always()"
_LONGEST = 20_000  # characters, also after the values of a matrix are put in
_DEEPEST = 50  # parentheses and ! within one another
_TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')"
    r"|(?P<number>[-+]?(?:0x[0-9a-fA-F]+|0o[0-7]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)(?![\w.]))"
    r"|(?P<name>[A-Za-z_][\w-]*(?:\.[A-Za-z_*][\w-]*)*)"
    r"|(?P<sign>&&|\|\||==|!=|[!(),])|(?P<end>\Z))"
)
_SLIPS = {
    "&": '"&&"',
    "|": '"||"',
    "=": '"=="',
    '"': "a text in single quotes: 'text'",
    "'": "a ' at the end of the text",
}
_WORDS: dict[str, Scalar] = {"true": True, "false": False, "null": None}
_COMPARED = ("==", "!=")


class Condition:
    """A condition that has been read; `str()` is its normal form, which means the same when it is read again."""

    __slots__ = ("_root", "_text", "names", "status_words")

    def __init__(self, root: Node) -> None:
        self._root = root
        self._text = str(root)
        nodes = tuple(walk(root))
        self.status_words = frozenset(node.word for node in nodes if isinstance(node, Asked))
        """Which of STATUS appear in it."""
        self.names = frozenset(node.name for node in nodes if isinstance(node, Reference))
        """The NAME of each `matrix.NAME` in it, which have to be put in before it is asked."""
        if len(self._text) > _LONGEST:
            raise errors.UsageError("the condition grows too long when the values of the matrix are put in")

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"Condition({self._text!r})"

    @property
    def survives(self) -> bool:
        """Whether a job with this condition runs, and goes on, while the batch is being ended."""
        return self.holds(success=False, failure=False, cancelled=True)

    @property
    def never(self) -> bool:
        """Whether it holds in no case: the values of a cell have decided so."""
        cases = itertools.product((True, False), repeat=3)
        return not any(self.holds(success=one, failure=two, cancelled=three) for one, two, three in cases)

    def holds(self, *, success: bool, failure: bool, cancelled: bool) -> bool:
        """Whether a job runs.

        Args:
            success: no job that it needs, or that those need, has failed, was cancelled or skipped; true where it needs none.
            failure: one of them has failed, and was not allowed to.
            cancelled: the batch is being ended.
        """
        return truth(self._root.value(Status(success=success, failure=failure, cancelled=cancelled)))

    def filled(self, values: Mapping[str, str], known: tuple[str, ...] | None) -> Condition:
        """The same with a cell's values in the place of each `matrix.NAME`; one that a cell does not have is "".

        Args:
            known: every name of the job's matrix; None: the job has no matrix.

        Raises:
            UsageError: the matrix has no such name, or the condition grows too long.
        """
        for name in sorted(self.names):
            check_name(name, known, quoted(f"matrix.{name}"))
        return Condition(pruned(self._root.filled(values))) if self.names else self


# -- how it is read


@functools.lru_cache(maxsize=1024)  # jobs by the thousand have one and the same
def parse(text: str, *, references: bool = False) -> Condition:
    """Read a condition, with or without `${{ }}` around it.

    Args:
        references: it may hold `matrix.NAME`, to be put in with `Condition.filled`.

    Raises:
        UsageError: it is none; with the column, from 1.
    """
    if len(text) > _LONGEST:
        raise errors.UsageError(f"the condition is longer than {_LONGEST} characters")
    return Condition(_Parser(text, references).whole())


def _wrong(at: int, message: str) -> errors.UsageError:
    return errors.UsageError(f"column {at + 1}: {message}")


def _bounds(text: str) -> tuple[int, int]:
    """Where the condition begins and ends in `text`: within the `${{ }}` that is around it, if there is one."""
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    if text.startswith("${{", start):
        if not text.endswith("}}", start + 3, end):
            raise _wrong(start, '${{ }} goes around the whole condition: expected "}}" at its end')
        return start + 3, end - 2
    return start, end


class _Parser:
    """Recursive descent: one method for each level of binding."""

    def __init__(self, text: str, references: bool) -> None:
        start, end = _bounds(text)
        self._references = references
        self._depth = self._deepest = 0
        self._tokens = _tokens(text, start, end)
        self._kind = self._word = ""
        self._at = start
        self._asks = False
        self._next()

    def _next(self) -> None:
        self._kind, self._word, self._at = next(self._tokens)

    def _takes(self, *signs: str) -> str:
        word = self._word
        if self._kind != "sign" or word not in signs:
            return ""
        self._next()
        return word

    def whole(self) -> Node:
        if self._kind == "end":
            raise _wrong(self._at, 'the condition is empty: expected one such as "always()"')
        root = self._any()
        if self._kind != "end":
            raise self._unexpected('"&&", "||", "==", "!=" or the end')
        if not self._asks:
            first: tuple[Node, ...] = (Asked("success"),)
            is_all = isinstance(root, Chain) and root.sign == "&&"
            root = Chain("&&", first + (root.inside if is_all else (root,)))
            self._deepest += 1  # the parentheses that this may need
        if self._deepest > _DEEPEST:
            raise errors.UsageError(f"nested more than {_DEEPEST - 1} levels deep")
        return pruned(root)

    def _any(self) -> Node:
        return self._chain("||", self._all)

    def _all(self) -> Node:
        return self._chain("&&", self._comparison)

    def _chain(self, sign: str, read: Callable[[], Node]) -> Node:
        nodes = [read()]
        while self._takes(sign):
            nodes.append(read())
        return Chain(sign, tuple(nodes)) if len(nodes) > 1 else nodes[0]

    def _comparison(self) -> Node:
        left = self._single()
        compared = 0
        while sign := self._takes(*_COMPARED):
            compared += 1
            if compared > 1:
                raise _wrong(self._at, "a comparison of a comparison: expected parentheses around one of them")
            left = Comparison(left, sign, self._single())
        return left

    def _single(self) -> Node:
        """What stands on one side of a sign."""
        self._depth += 1
        self._deepest = max(self._depth, self._deepest)
        if self._depth > _DEEPEST:
            raise _wrong(self._at, f"nested more than {_DEEPEST - 1} levels deep")
        try:
            if self._takes("!"):
                return Not(self._single())
            if self._takes("("):
                inside = self._any()
                self._closing()
                return inside
            return self._word_or_value()
        finally:
            self._depth -= 1

    def _closing(self) -> None:
        if not self._takes(")"):
            raise self._unexpected('")"')

    def _word_or_value(self) -> Node:
        kind, word, at = self._kind, self._word, self._at
        if kind not in ("text", "number", "name"):
            raise self._unexpected("a function such as success(), matrix.NAME, a text or a number")
        self._next()
        if kind == "text":
            return Literal(word[1:-1].replace("''", "'"))
        if kind == "number":
            return Literal(_number_of(word, at))
        if self._takes("("):
            return self._call(word, at)
        if word in _WORDS:
            return Literal(_WORDS[word])
        return self._reference(word, at)

    def _reference(self, word: str, at: int) -> Node:
        head, _, name = word.partition(".")
        if head != "matrix":
            if word.lower() in STATUS:
                raise _wrong(at, f'{quoted(word)} is a function: expected "{word.lower()}()"')
            raise _wrong(at, f"{quoted(word)} has no meaning here: expected matrix.NAME, or a text in single quotes")
        if not name or "." in name or "*" in name:
            raise _wrong(at, f"{quoted(word)}: expected matrix.NAME")
        if not self._references:
            raise _wrong(at, f"{quoted(word)}: there is no matrix here")
        return Reference(name)

    def _call(self, word: str, at: int) -> Node:
        known = {each.lower(): each for each in (*STATUS, *CALLS)}
        name = known.get(word.lower())
        if name is None:
            raise _wrong(at, f"there is no function {quoted(word)}{near(word, known.values())}")
        if name in STATUS:
            if not self._takes(")"):
                raise self._unexpected(f'")": {name}() takes nothing')
            self._asks = True
            return Asked(name)
        first = self._any()
        if not self._takes(","):
            raise self._unexpected(f'",": {name}() takes two texts')
        second = self._any()
        self._closing()
        return Call(name, (first, second))

    def _unexpected(self, expected: str) -> errors.UsageError:
        got = "the end" if self._kind == "end" else quoted(self._word)
        return _wrong(self._at, f"expected {expected}, got {got}")


def _tokens(text: str, start: int, end: int) -> Iterator[tuple[str, str, int]]:
    """(kind, word, where); the last one, of the kind "end", is given again and again."""
    while True:
        found = _TOKEN.match(text, start, end)
        if found is None:
            raise _stray(text, start)
        kind = str(found.lastgroup)
        start = found.end()
        yield kind, found[kind], found.start(kind)


def _stray(text: str, start: int) -> errors.UsageError:
    at = start + len(text[start:]) - len(text[start:].lstrip())
    sign = text[at]
    if text.startswith(("${{", "}}"), at):
        return _wrong(at, "${{ }} goes around the whole condition: inside of it, write matrix.NAME alone")
    slip = _SLIPS.get(sign)
    return _wrong(at, f"{quoted(sign)} has no meaning here" + (f": expected {slip}" if slip else ""))


def _number_of(word: str, at: int) -> float:
    sign = -1.0 if word.startswith("-") else 1.0
    digits = word.lstrip("+-")
    try:
        found = float(int(digits, 0)) if digits[:2] in ("0x", "0o") else float(digits)
    except OverflowError:
        found = math.inf
    if math.isinf(found):
        raise _wrong(at, f"{quoted(word)} is too large a number")
    return sign * found
