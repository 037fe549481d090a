"""A filter of system calls as a short program of classic BPF: <linux/filter.h>, struct seccomp_data of seccomp(2).

Per architecture there is a line of call numbers, cut into stretches with the same verdict. It becomes a tree of comparisons
that is balanced by the stretches' lengths: the kernel, when it installs a filter, walks the program for every number there
is, to know the calls that it need not ask about later.

A verdict is a number: from 0 on an answer (SECCOMP_RET_*), below 0 a test of an argument in a Graph. The program is built
from its end, so that every jump knows its target.
"""

from __future__ import annotations

import struct
import sys

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    Verdict = int
    Line = list[tuple[int, Verdict]]
    """(first number, verdict of it and of those that follow) each, ascending."""

MOST_INSTRUCTIONS = 4096  # BPF_MAXINSNS
_MOST_TESTS = MOST_INSTRUCTIONS  # a program with more would not fit either
_LOAD, _AND, _RETURN, _JUMP = 0x20, 0x54, 0x06, 0x05  # BPF_LD|W|ABS, BPF_ALU|AND|K, BPF_RET|K, BPF_JMP|JA
EQUAL, GREATER, NOT_LESS = 0x15, 0x25, 0x35  # BPF_JMP|…|K: JEQ, JGT, JGE
_FARTHEST = 255
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_ALL = 0xFFFF_FFFF
_COUNTED = 512  # numbers from here on do not weigh: no call has one, or it is seldom made
_ODD_ONES = 3  # so many numbers are asked for one by one, which takes half the instructions of cuts around each


def word(index: int, *, high: bool) -> int:
    """Where a half of an argument stands in struct seccomp_data."""
    return _ARGUMENTS + 8 * index + (4 if high == (sys.byteorder == "little") else 0)


class Graph:
    """Tests of arguments, each kept once, in an order in which what a test leads to comes before it."""

    def __init__(self) -> None:
        self.tests: list[tuple[int, int, int, int, Verdict, Verdict]] = []
        self._known: dict[tuple[int, int, int, int, Verdict, Verdict], Verdict] = {}

    def test(self, offset: int, mask: int, operator: int, value: int, then: Verdict, otherwise: Verdict) -> Verdict:
        """The verdict `then` where the word at `offset`, under the mask, compares so with `value`, else `otherwise`."""
        if then == otherwise:
            return then
        key = (offset, mask, operator, value, then, otherwise)
        if key not in self._known:
            if len(self.tests) >= _MOST_TESTS:
                raise _too_long()
            self.tests.append(key)
            self._known[key] = -len(self.tests)
        return self._known[key]


def _too_long() -> errors.UsageError:
    return errors.UsageError(
        f"the seccomp profile has too many rules: its program is longer than {MOST_INSTRUCTIONS} instructions"
    )


def line(verdicts: dict[int, Verdict], default: Verdict, *, last: int, beyond: Verdict, start: int = 0) -> Line:
    """The line of the numbers from `start` on.

    Args:
        default: for the numbers up to `last` without a verdict.
        beyond: for those after it.
    """
    stretches: Line = []
    at = start
    for number in sorted(verdicts):
        if at < number:
            stretches.append((at, default if at <= last else beyond))
            if at <= last < number - 1:
                stretches.append((last + 1, beyond))
        stretches.append((number, verdicts[number]))
        at = number + 1
    if at <= last:
        stretches.append((at, default))
        at = last + 1
    stretches.append((at, beyond))
    return merged(stretches)


def merged(stretches: Line) -> Line:
    """The line without cuts between stretches of the same verdict."""
    return [one for place, one in enumerate(stretches) if place == 0 or stretches[place - 1][1] != one[1]]


def assemble(graph: Graph, lines: list[tuple[int, Line]], foreign: Verdict) -> bytes:
    """The program: struct sock_filter, 8 bytes each.

    Args:
        lines: of each architecture, the most used first.
        foreign: the verdict for all other architectures.

    Raises:
        UsageError: it is longer than the kernel takes.
    """
    code = _Code(graph, {verdict for _, stretches in lines for _, verdict in stretches} | {foreign})
    target = code.of(foreign)
    for architecture, stretches in reversed(lines):
        target = code.branch(EQUAL, architecture, code.load(_NUMBER, _ALL, code.tree(stretches)), target)
    code.load(_ARCHITECTURE, _ALL, target)
    if len(code.reversed) > MOST_INSTRUCTIONS:
        raise _too_long()
    return b"".join(reversed(code.reversed))


class _Code:
    """Instructions, the last one first. A target is the place of one in that list, or ~answer."""

    def __init__(self, graph: Graph, roots: set[Verdict]) -> None:
        self.reversed: list[bytes] = []
        self._returns: dict[int, int] = {}
        self._tests: dict[Verdict, int] = {}  # where a test begins, with loading its word
        self._loaded: dict[Verdict, int] = {}  # where it goes on when the word is there
        self._place_tests(graph.tests, roots)

    def _place_tests(self, tests: list[tuple[int, int, int, int, Verdict, Verdict]], roots: set[Verdict]) -> None:
        begun: set[Verdict] = set(roots)
        continued: set[Verdict] = set()
        for verdict in range(-len(tests), 0):
            if verdict in begun or verdict in continued:
                test = tests[~verdict]
                for following in test[4:]:
                    same = following < 0 and tests[~following][:2] == test[:2]
                    (continued if same else begun).add(following)
        for number, (offset, mask, operator, value, then, otherwise) in enumerate(tests):
            verdict = ~number
            if verdict in begun or verdict in continued:
                targets = [
                    self._loaded[one] if one < 0 and tests[~one][:2] == (offset, mask) else self.of(one)
                    for one in (then, otherwise)
                ]
                self._loaded[verdict] = self.branch(operator, value, *targets)
                if verdict in begun:
                    self._tests[verdict] = self.load(offset, mask, self._loaded[verdict])

    def of(self, verdict: Verdict) -> int:
        """The target that gives a verdict."""
        return ~verdict if verdict >= 0 else self._tests[verdict]

    def _add(self, code: int, value: int, then: int = 0, otherwise: int = 0) -> int:
        self.reversed.append(struct.pack("=HBBI", code, then, otherwise, value))
        return len(self.reversed) - 1

    def _near(self, target: int) -> int:
        """A place that one of the next two instructions can jump to, and that leads to the target."""
        place = target if target >= 0 else self._returns.get(target, -1)
        distance = len(self.reversed) - 1 - place
        if place >= 0 and distance <= _FARTHEST - 2:
            return place
        if target >= 0:
            return self._add(_JUMP, distance)
        self._returns[target] = self._add(_RETURN, ~target)
        return self._returns[target]

    def branch(self, operator: int, value: int, then: int, otherwise: int) -> int:
        """A comparison of what was loaded."""
        if then == otherwise:
            return then
        then, otherwise = self._near(then), self._near(otherwise)
        here = len(self.reversed)
        return self._add(operator, value, here - 1 - then, here - 1 - otherwise)

    def load(self, offset: int, mask: int, target: int) -> int:
        """Load a word for what comes at `target`."""
        if target < 0:
            return target  # an answer asks for none
        if target != len(self.reversed) - 1:
            self._add(_JUMP, len(self.reversed) - 1 - target)
        if mask != _ALL:
            self._add(_AND, mask)
        return self._add(_LOAD, offset)

    def tree(self, stretches: Line) -> int:
        """Comparisons of the number that lead to its stretch's verdict."""
        common = self._common(stretches)
        if common is not None:
            target = self.of(common)
            for start, verdict in reversed(stretches):
                if verdict != common:
                    target = self.branch(EQUAL, start, self.of(verdict), target)
            return target
        starts = [min(start, _COUNTED) for start, _ in stretches]
        middle = (starts[0] + min(_COUNTED, stretches[-1][0] + 1)) / 2
        half = len(stretches) / 2
        cut = min(range(1, len(stretches)), key=lambda place: (abs(starts[place] - middle), abs(place - half)))
        upper = self.tree(stretches[cut:])
        return self.branch(NOT_LESS, stretches[cut][0], upper, self.tree(stretches[:cut]))

    def _common(self, stretches: Line) -> Verdict | None:
        """The verdict of all but a few single numbers; None where there is none."""
        if len(stretches) == 1:
            return stretches[0][1]
        for common in (stretches[0][1], stretches[1][1]):
            others = [place for place, (_, verdict) in enumerate(stretches) if verdict != common]
            if len(others) <= _ODD_ONES and all(
                place + 1 < len(stretches) and stretches[place + 1][0] == stretches[place][0] + 1 for place in others
            ):
                return common
        return None
