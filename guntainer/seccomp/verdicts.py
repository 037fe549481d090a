"""What a filter says of each system call: rules by name become verdicts by number, per architecture.

Of the rules for one call, the first whose conditions hold decides, then the first one without conditions, then the profile's
default. The rules of root emulation come before all of them. A call that also enters the kernel through socketcall(2) or
ipc(2) is answered there as well, where the profile says nothing of those two. Its arguments are out of sight there, so where
a rule asks for them, the answer is the strictest that there may be.
"""

from __future__ import annotations

import errno

from guntainer import errors
from guntainer.jobs.values import printable, quoted
from guntainer.seccomp import bpf, emulation, names
from guntainer.seccomp.profile import ALLOW, ERRNO, KILL_PROCESS, LOG, TRACE, Profile, Rule

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.seccomp.bpf import Graph, Line, Verdict
    from guntainer.seccomp.profile import Condition

# Architectures that a kernel runs besides its own, by libseccomp's names; x32 is part of x86_64.
_KIN = {
    names.X86_64: {"SCMP_ARCH_X86": names.X86, "SCMP_ARCH_X32": names.X32},
    names.AARCH64: {"SCMP_ARCH_ARM": names.ARM},
}
_NARROW = (names.X86, names.ARM)  # their arguments have 32 bits: the upper halves are 0
_ARM_PRIVATE = 0x000F_0000  # __ARM_NR_BASE: a few calls of arm's own, far above all others
_NO_CALL = 0xFFFF_FFFF  # what a tracer puts there to skip a call, ptrace(2)
_PERMISSIVE = (ALLOW, LOG, TRACE)
_ACTION_BITS = 0xFFFF_0000


def compile_program(profile: Profile | None, *, emulate_root: bool) -> bytes:
    """The program of a profile, or of none; see `bpf.assemble`.

    Raises:
        UsageError: the profile has too many rules, or refuses a call that nobody knows.
        HostError: libseccomp is missing.
    """
    native = names.native()
    kin = _KIN.get(native, {})
    own = [kin[name] for name in kin if profile is None or name in profile.kin]
    graph = bpf.Graph()
    foreign = ALLOW if profile is None else KILL_PROCESS  # a thread that ends alone leaves its process waiting for it
    lines: list[tuple[int, Line]] = []
    for architecture in (native, *own):
        if architecture != names.X32:
            found = _Calls(graph, architecture, profile, emulate_root=emulate_root).line(0)
            lines.append((architecture, found))
    if native == names.X86_64:
        _add_x32(graph, lines[0][1], profile, emulate_root=emulate_root, known=names.X32 in own)
    return bpf.assemble(graph, lines, foreign)


def _add_x32(graph: Graph, line: Line, profile: Profile | None, *, emulate_root: bool, known: bool) -> None:
    """Calls of x32 are numbers of x86_64 from X32_BIT on. Those of no architecture of the profile's are foreign."""
    beyond = line[-1][1]
    if known:
        line += _Calls(graph, names.X32, profile, emulate_root=emulate_root).line(names.X32_BIT)
    else:
        line += [(names.X32_BIT, KILL_PROCESS)]
    line += [(_NO_CALL, beyond)]
    line[:] = bpf.merged(line)


def _rank(action: int) -> int:
    """Of two answers the kernel takes the lower one, as a number with a sign: seccomp(2)."""
    return action - (1 << 32) if action >= KILL_PROCESS else action


class _Calls:
    """The calls of one architecture."""

    def __init__(self, graph: Graph, architecture: int, profile: Profile | None, *, emulate_root: bool) -> None:
        self._graph = graph
        self._architecture = architecture
        self._places: dict[str, tuple[names.Place, ...]] = {}
        self._default = profile.default if profile else ALLOW
        self._verdicts: dict[int, Verdict] = {}
        self._last = 0xFFFF_FFFF
        self._beyond = self._default
        if profile:
            self._apply(profile.rules, profile)
            if self._default & _ACTION_BITS not in _PERMISSIVE:
                # What a profile's author could not know of is answered as by a kernel that does not have it, so that
                # programs fall back to what they did before: runc does that too.
                numbers = [number for name in profile.known for number, mask, _ in self._of(name) if not mask]
                self._last = max((number for number in numbers if not self._is_private(number)), default=0)
                self._beyond = ERRNO | errno.ENOSYS
        if emulate_root:
            self._apply(emulation.RULES, None)

    def line(self, start: int) -> Line:
        return bpf.line(self._verdicts, self._default, last=self._last, beyond=self._beyond, start=start)

    def _is_private(self, number: int) -> bool:
        return self._architecture == names.ARM and number >= _ARM_PRIVATE

    def _of(self, name: str) -> tuple[names.Place, ...]:
        if name not in self._places:
            self._places[name] = names.places(self._architecture, name) or ()
        return self._places[name]

    def _apply(self, rules: Iterable[Rule], profile: Profile | None) -> None:
        """Put rules before the verdicts that there are so far."""
        conditional: dict[int, list[Rule]] = {}
        plain: dict[int, Verdict] = {}
        through: dict[int, dict[tuple[int, int], list[Rule]]] = {}
        for rule in rules:
            for name in rule.names:
                if profile:
                    self._check(name, rule, profile)
                for number, mask, value in self._of(name):
                    if mask:
                        through.setdefault(number, {}).setdefault((mask, value), []).append(rule)
                    elif rule.conditions:
                        conditional.setdefault(number, []).append(rule)
                    else:
                        plain.setdefault(number, rule.action)
        offset = bpf.word(0, high=False)
        for number in {*conditional, *plain, *through}:
            verdict = self._verdicts.get(number, self._default)
            if number in plain:
                verdict = plain[number]
            else:
                for (mask, value), its_rules in through.get(number, {}).items():
                    verdict = self._graph.test(offset, mask, bpf.EQUAL, value, self._strictest(its_rules), verdict)
            for rule in reversed(conditional.get(number, ())):
                verdict = self._where(rule.conditions, rule.action, verdict)
            self._verdicts[number] = verdict

    def _strictest(self, rules: list[Rule]) -> int:
        """The strictest of all answers that these rules may give, where the arguments are not known."""
        last = next((rule.action for rule in rules if not rule.conditions), self._default)
        return min([last, *(rule.action for rule in rules if rule.conditions)], key=_rank)

    def _check(self, name: str, rule: Rule, profile: Profile) -> None:
        """A call that nobody knows may be left out where that refuses it, not where that lets it through."""
        strict = rule.action & _ACTION_BITS not in _PERMISSIVE
        permissive = profile.default & _ACTION_BITS in _PERMISSIVE
        if strict and permissive and not self._of(name) and names.places(self._architecture, name) is None:
            raise errors.UsageError(
                f"{printable(profile.path)}: {rule.place}.names: {quoted(name)} can not be refused: "
                "neither guntainer nor this host's libseccomp knows a system call of that name"
            )

    def _where(self, conditions: tuple[Condition, ...], then: Verdict, otherwise: Verdict) -> Verdict:
        for condition in reversed(conditions):
            then = self._condition(condition, then, otherwise)
        return then

    def _condition(self, condition: Condition, then: Verdict, otherwise: Verdict) -> Verdict:
        """64 bits are compared in two halves; where the upper one is known to be 0, no program needs to look."""
        index, operator, value, second = condition
        if operator in ("NE", "LT", "LE"):
            operator = {"NE": "EQ", "LT": "GE", "LE": "GT"}[operator]
            then, otherwise = otherwise, then
        mask = (1 << 64) - 1
        if operator == "MASKED_EQ":
            mask, value = value, second & value
        low, high = value & 0xFFFF_FFFF, value >> 32
        low_at, high_at = bpf.word(index, high=False), bpf.word(index, high=True)
        narrow = self._architecture in _NARROW
        test = self._graph.test
        if operator in ("EQ", "MASKED_EQ"):
            if mask & 0xFFFF_FFFF:
                then = test(low_at, mask & 0xFFFF_FFFF, bpf.EQUAL, low, then, otherwise)
            if not mask >> 32:
                return then
            if narrow:
                return otherwise if high else then
            return test(high_at, mask >> 32, bpf.EQUAL, high, then, otherwise)
        compare = bpf.GREATER if operator == "GT" else bpf.NOT_LESS
        if narrow and high:
            return otherwise
        least = test(low_at, 0xFFFF_FFFF, compare, low, then, otherwise)
        if narrow:
            return least
        equal = test(high_at, 0xFFFF_FFFF, bpf.EQUAL, high, least, otherwise)
        return test(high_at, 0xFFFF_FFFF, bpf.GREATER, high, then, equal)
