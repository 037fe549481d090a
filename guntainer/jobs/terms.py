"""What conditions are made of: statuses, values, and what joins them; how each is asked, and how it looks. Pure.

Values are GitHub's: texts, numbers, true, false and null; those of two kinds are compared as numbers.
"""

from __future__ import annotations

import math

from guntainer.jobs.parse import Written, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Scalar = str | float | bool | None

STATUS = ("success", "failure", "always", "cancelled")


class Status:
    """What a condition is asked with."""

    __slots__ = STATUS

    def __init__(self, *, success: bool, failure: bool, cancelled: bool) -> None:
        self.success = success and not cancelled
        self.failure = failure
        self.cancelled = cancelled
        self.always = True


class Node:
    """Part of a condition."""

    __slots__ = ("inside",)
    inside: tuple[Node, ...]
    rank = 4
    """How tightly it holds together: || && == ! and the rest."""

    def value(self, status: Status) -> Scalar:
        raise NotImplementedError

    def filled(self, _values: Mapping[str, str]) -> Node:
        return self

    def within(self, rank: int) -> str:
        """Its text, in parentheses where what is around it holds more tightly."""
        return f"({self})" if self.rank < rank else str(self)


class Literal(Node):
    """`'text'`, `1.5`, `true`, `null`"""

    __slots__ = ("known",)

    def __init__(self, known: Scalar) -> None:
        self.inside = ()
        self.known = known

    def __str__(self) -> str:
        if isinstance(self.known, str):
            return "'" + self.known.replace("'", "''") + "'"
        if self.known is None or isinstance(self.known, bool):
            return {True: "true", False: "false", None: "null"}[self.known]
        return str(int(self.known)) if self.known.is_integer() and abs(self.known) < 1e15 else repr(self.known)

    def value(self, _status: Status) -> Scalar:
        return self.known


class Asked(Node):
    """`success()`"""

    __slots__ = ("word",)

    def __init__(self, word: str) -> None:
        self.inside = ()
        self.word = word

    def __str__(self) -> str:
        return f"{self.word}()"

    def value(self, status: Status) -> Scalar:
        return bool(getattr(status, self.word))


class Reference(Node):
    """`matrix.NAME`; alone it is what YAML makes of its value, so that `false` and `0` do not hold."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.inside = ()
        self.name = name

    def __str__(self) -> str:
        return f"matrix.{self.name}"

    def filled(self, values: Mapping[str, str]) -> Node:
        return Literal(_meant(values.get(self.name, "")))


class Not(Node):
    """`!failure()`"""

    __slots__ = ()
    rank = 3

    def __init__(self, inside: Node) -> None:
        self.inside = (inside,)

    def __str__(self) -> str:
        return f"!{self.inside[0].within(self.rank)}"

    def value(self, status: Status) -> Scalar:
        return not truth(self.inside[0].value(status))

    def filled(self, values: Mapping[str, str]) -> Node:
        return Not(self.inside[0].filled(values))


class Comparison(Node):
    """`matrix.os == 'debian'`"""

    __slots__ = ("sign",)
    rank = 2

    def __init__(self, left: Node, sign: str, right: Node) -> None:
        self.inside = (left, right)
        self.sign = sign

    def __str__(self) -> str:
        left, right = self.inside
        return f"{left.within(self.rank + 1)} {self.sign} {right.within(self.rank + 1)}"

    def value(self, status: Status) -> Scalar:
        left, right = (node.value(status) for node in self.inside)
        return _same(left, right) == (self.sign == "==")

    def filled(self, values: Mapping[str, str]) -> Node:
        left, right = self.inside
        return Comparison(_beside(left, right, values), self.sign, _beside(right, left, values))


class Chain(Node):
    """`a && b && c`, or the same with ||: the value of the first one that decides it, else of the last one."""

    __slots__ = ("rank", "sign")

    def __init__(self, sign: str, inside: tuple[Node, ...]) -> None:
        self.sign = sign
        self.inside = inside
        self.rank = 1 if sign == "&&" else 0

    def __str__(self) -> str:
        return f" {self.sign} ".join(node.within(self.rank + 1) for node in self.inside)

    def value(self, status: Status) -> Scalar:
        found: Scalar = None
        for node in self.inside:
            found = node.value(status)
            if truth(found) == (self.sign == "||"):
                break
        return found

    def filled(self, values: Mapping[str, str]) -> Node:
        return Chain(self.sign, tuple(node.filled(values) for node in self.inside))


class Call(Node):
    """`startsWith(matrix.os, 'deb')`"""

    __slots__ = ("word",)

    def __init__(self, word: str, inside: tuple[Node, ...]) -> None:
        self.word = word
        self.inside = inside

    def __str__(self) -> str:
        return f"{self.word}({', '.join(map(str, self.inside))})"

    def value(self, status: Status) -> Scalar:
        text, part = (_shown(node.value(status)).lower() for node in self.inside)
        return CALLS[self.word](text, part)

    def filled(self, values: Mapping[str, str]) -> Node:
        return Call(self.word, tuple(_as_text(node, values) for node in self.inside))


CALLS: dict[str, Callable[[str, str], bool]] = {
    "contains": lambda text, part: part in text,
    "startsWith": lambda text, part: text.startswith(part),
    "endsWith": lambda text, part: text.endswith(part),
}


def _as_text(node: Node, values: Mapping[str, str]) -> Node:
    return Literal(values.get(node.name, "")) if isinstance(node, Reference) else node.filled(values)


def _beside(node: Node, other: Node, values: Mapping[str, str]) -> Node:
    """A side of a comparison: `matrix.python == '3.10'` is of texts, `matrix.fast == true` is not."""
    plain = isinstance(other, Literal) and not isinstance(other.known, str)
    return node.filled(values) if plain else _as_text(node, values)


def walk(root: Node) -> Iterator[Node]:
    """`root` and all that is in it."""
    yield root
    for node in root.inside:
        yield from walk(node)


def pruned(node: Node) -> Node:
    """`node` without what decides nothing: in && what always holds, in || what never does."""
    if not isinstance(node, Chain):
        return node
    idle = node.sign == "&&"
    nodes = [pruned(each) for each in node.inside]
    left = tuple(each for each in nodes if not (_is_constant(each) and truth(each.value(_NOTHING)) == idle))
    return left[0] if len(left) == 1 else Chain(node.sign, left) if left else nodes[-1]


def _is_constant(node: Node) -> bool:
    return not any(isinstance(each, (Asked, Reference)) for each in walk(node))


_NOTHING = Status(success=False, failure=False, cancelled=False)


def truth(value: Scalar) -> bool:
    """Whether a value counts as true: not "", 0, false and null."""
    return bool(value)


def _same(left: Scalar, right: Scalar) -> bool:
    if isinstance(left, str) and isinstance(right, str):
        return left.lower() == right.lower()
    return _number(left) == _number(right)


def _number(value: Scalar) -> float:
    """Of what is compared with something of another kind; NaN, which equals nothing, for a text that is none."""
    if not isinstance(value, str):
        return float(value or 0)
    text = value.strip()
    known = _meant(text) if text else 0.0
    return known if isinstance(known, float) else math.nan


def _meant(text: str) -> Scalar:
    """What YAML makes of a text; one of a number that is too large for a float stays what it is."""
    found = resolve(text)
    known = found.value if isinstance(found, Written) else found
    if known is None or isinstance(known, (bool, str)):
        return known
    assert isinstance(known, (int, float))
    try:
        return float(known) if math.isfinite(known) else text
    except OverflowError:
        return text


def _shown(value: Scalar) -> str:
    return value if isinstance(value, str) else "" if value is None else str(Literal(value))
