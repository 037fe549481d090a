"""Seccomp profiles: docker's JSON format, and the OCI runtime spec's `linux.seccomp`, which is the same without conditions
on capabilities, architectures and kernels.

A profile says what the rules are for one container: those whose `includes` and `excludes` do not fit are left out here.
Every mistake is one line with its place, also in rules that do not apply. Keys that nobody knows are refused: a rule whose
`args` are misspelt would hold for every call.

Two things are as runc and crun have them: conditions of one rule must all hold, unless two of them look at the same
argument, then each stands for itself; and `includes.caps` wants all that it names, everything else one of them. One thing is
better: a rule with conditions comes before one without for the same call, where libseccomp drops it.
"""

from __future__ import annotations

import errno
import os

from guntainer import capabilities as capability_names
from guntainer import errors
from guntainer.jobs.values import near, printable, quoted
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any, NoReturn

MOST_BYTES = 1 << 20
ALLOW, LOG, TRACE, ERRNO = 0x7FFF_0000, 0x7FFC_0000, 0x7FF0_0000, 0x0005_0000
TRAP, KILL_THREAD, KILL_PROCESS = 0x0003_0000, 0, 0x8000_0000
_ACTIONS = {
    "SCMP_ACT_ALLOW": ALLOW,
    "SCMP_ACT_ERRNO": ERRNO,
    "SCMP_ACT_KILL": KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": KILL_PROCESS,
    "SCMP_ACT_KILL_THREAD": KILL_THREAD,
    "SCMP_ACT_LOG": LOG,
    "SCMP_ACT_TRACE": TRACE,
    "SCMP_ACT_TRAP": TRAP,
}
_LARGEST = {ERRNO: 4095, TRACE: 0xFFFF}
"""What takes a number, and the largest one: MAX_ERRNO, and what fits into SECCOMP_RET_DATA."""
_NOTIFY = "SCMP_ACT_NOTIFY"
_OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
_LAST_ARGUMENT = 5
# uname(2)'s name of a machine: libseccomp's, and docker's
_MACHINES = {
    "x86_64": ("SCMP_ARCH_X86_64", "amd64"),
    "aarch64": ("SCMP_ARCH_AARCH64", "arm64"),
    "riscv64": ("SCMP_ARCH_RISCV64", "riscv64"),
    "loongarch64": ("SCMP_ARCH_LOONGARCH64", "loongarch64"),
}
_ARCHITECTURES = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        *("X86", "X86_64", "X32", "ARM", "AARCH64", "LOONGARCH64", "M68K", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL"),
        *("MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "RISCV64", "S390", "S390X", "PARISC", "PARISC64", "SH"),
        "SHEB",
    )
)
_ARCHES = (
    *("x86", "amd64", "x32", "arm", "arm64", "loong64", "loongarch64", "mips", "mips64", "mips64n32", "mipsel"),
    *("mipsel64", "mipsel64n32", "mips3l64n32", "mipsle", "ppc", "ppc64", "ppc64le", "riscv64", "s390", "s390x"),
    *("parisc", "parisc64"),
)
_PROFILE_KEYS = (
    *("defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap", "syscalls", "flags"),
    *("listenerPath", "listenerMetadata", "comment", "$schema"),
)
_RULE_KEYS = ("names", "name", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes")
_ARGUMENT_KEYS = ("index", "value", "valueTwo", "op")
_FILTER_KEYS = ("caps", "arches", "minKernel")

if TYPE_CHECKING:
    Condition = tuple[int, str, int, int]
    """(index of the argument, operator, value, second value); of MASKED_EQ the first value is the mask."""


class Rule(Value):
    """What some calls are answered with, where all conditions hold."""

    names: tuple[str, ...]
    action: int
    """As the filter returns it: SECCOMP_RET_* and its data."""
    conditions: tuple[Condition, ...] = ()
    place: str = ""


class Profile(Value):
    """A profile as it applies to one container."""

    path: str
    default: int
    rules: tuple[Rule, ...]
    known: frozenset[str]
    """The names of all calls that the file has rules for, also of those that do not apply."""
    kin: frozenset[str]
    """The architectures besides this machine's own, by libseccomp's names."""


def load(path: str, *, capabilities: frozenset[str], machine: str, release: str) -> Profile:
    """The profile in a file, for a container with these capabilities, on this machine and kernel.

    Args:
        machine, release: as uname(2) has them.

    Raises:
        UsageError: the file can not be read, or is no profile.
    """
    return _Reader(path, capabilities, machine, release).profile(_parse(path))


def _parse(path: str) -> Any:
    import json

    try:
        # a FIFO without a writer must not hold us up
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        why = "it is no file" if error.errno == errno.EAGAIN else error.strerror or str(error)
        raise errors.UsageError(f"can not read the seccomp profile {printable(path)}: {why}") from None
    if len(content) > MOST_BYTES:
        raise errors.UsageError(f"{printable(path)}: a seccomp profile has at most {MOST_BYTES >> 20} MiB")
    try:
        return json.loads(content)
    except json.JSONDecodeError as error:
        raise errors.UsageError(f"{printable(path)}:{error.lineno}:{error.colno}: no JSON: {error.msg}") from None
    except UnicodeDecodeError:
        raise errors.UsageError(f"{printable(path)}: no JSON: not in UTF-8") from None
    except (RecursionError, ValueError):
        raise errors.UsageError(
            f"{printable(path)}: no JSON of a profile: nested too deeply, or a huge number"
        ) from None


def _one_of(names: Iterable[str], got: str) -> str:
    return f"expected one of {', '.join(names)}, got {quoted(got)}{near(got, names)}"


class _Reader:
    """Checks a file's content, place by place, and picks what applies."""

    def __init__(self, path: str, capabilities: frozenset[str], machine: str, release: str) -> None:
        self._path = path
        self._capabilities = capabilities
        self._architecture, self._arch = _MACHINES.get(machine, ("", machine))
        self._kernel = _version(release) or (0, 0)

    def fail(self, place: str, message: str) -> NoReturn:
        raise errors.UsageError(f"{printable(self._path)}: {place}: {message}")

    # -- shapes; null stands for a key that is not there

    def table(self, given: Any, place: str, keys: tuple[str, ...]) -> dict[str, Any]:
        if not isinstance(given, dict):
            self.fail(place, f"expected an object with {', '.join(keys)}")
        for key in given:
            if key not in keys:
                self.fail(place, f"unknown key {quoted(key)}{near(key, keys)}")
        return {key: value for key, value in given.items() if value is not None}

    def items(self, given: Any, place: str) -> list[Any]:
        if not isinstance(given, list):
            self.fail(place, "expected a list")
        return given

    def texts(self, given: Any, place: str) -> list[str]:
        for number, one in enumerate(self.items(given, place)):
            if not isinstance(one, str) or not one.isascii() or not one.isprintable() or not one:
                self.fail(f"{place}[{number}]", "expected a name")
        return list(given)

    def number(self, given: Any, place: str, most: int) -> int:
        if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given <= most:
            self.fail(place, f"expected a whole number from 0 to {most}")
        return given

    # -- the parts

    def profile(self, given: Any) -> Profile:
        keys = self.table(given, "the profile", _PROFILE_KEYS)
        if "defaultAction" not in keys:
            self.fail("defaultAction", f"missing: expected one of {', '.join(_ACTIONS)}")
        default = self.action(keys, "", "defaultAction", "defaultErrnoRet", "defaultErrno")
        if keys.get("flags", []) not in ([], ["SECCOMP_FILTER_FLAG_TSYNC"]):  # a command starts with one thread
            self.fail("flags", "expected none: guntainer installs the filter without flags")
        if keys.get("listenerPath") or keys.get("listenerMetadata"):
            self.fail("listenerPath", "guntainer has no listener for notifications")
        rules: list[Rule] = []
        known: set[str] = set()
        for number, one in enumerate(self.items(keys.get("syscalls", []), "syscalls")):
            rules += self.rule(one, f"syscalls[{number}]", known)
        return Profile(path=self._path, default=default, rules=tuple(rules), known=frozenset(known), kin=self.kin(keys))

    def kin(self, keys: dict[str, Any]) -> frozenset[str]:
        listed = self.texts(keys.get("architectures", []), "architectures")
        mapped = self.items(keys.get("archMap", []), "archMap")
        if listed and mapped:
            self.fail("archMap", "expected either architectures or archMap, got both")
        self.architectures(listed, "architectures")
        for number, one in enumerate(mapped):
            place = f"archMap[{number}]"
            entry = self.table(one, place, ("architecture", "subArchitectures"))
            name = entry.get("architecture")
            if not isinstance(name, str):
                self.fail(f"{place}.architecture", "expected a name such as SCMP_ARCH_X86_64")
            below = self.texts(entry.get("subArchitectures", []), f"{place}.subArchitectures")
            self.architectures([name, *below], place)
            if name == self._architecture:
                listed += below
        return frozenset(listed) - {self._architecture}

    def architectures(self, names: list[str], place: str) -> None:
        for name in names:
            if name not in _ARCHITECTURES:
                self.fail(place, f"unknown architecture {quoted(name)}{near(name, _ARCHITECTURES)}")

    def action(self, keys: dict[str, Any], place: str, name: str, number: str, symbol: str) -> int:
        """The answer that an action and its error stand for."""
        given = keys[name]
        if given == _NOTIFY:
            self.fail(place + name, f"{_NOTIFY} needs a listener, which guntainer does not have")
        action = _ACTIONS.get(given) if isinstance(given, str) else None
        if action is None:
            self.fail(place + name, _one_of(_ACTIONS, str(given)))
        most = _LARGEST.get(action)
        if most is None:
            if number in keys or symbol in keys:
                self.fail(place + (number if number in keys else symbol), f"{given} has no error number")
            return action
        if symbol in keys:
            value = getattr(errno, keys[symbol], None) if str(keys[symbol]) in errno.errorcode.values() else None
            if value is None:
                self.fail(
                    place + symbol, f"expected the name of an error such as EPERM, got {quoted(str(keys[symbol]))}"
                )
            return action | int(value)
        return action | self.number(keys.get(number, errno.EPERM), place + number, most)

    def rule(self, given: Any, place: str, known: set[str]) -> list[Rule]:
        """The rules that one entry of `syscalls` stands for: none where it does not apply."""
        keys = self.table(given, place, _RULE_KEYS)
        names = self.texts(keys.get("names", []), f"{place}.names")
        if "name" in keys:
            if names:
                self.fail(f"{place}.name", "expected either name or names, got both")
            names = self.texts([keys["name"]], f"{place}.name")
        if not names:
            self.fail(f"{place}.names", "expected one system call at least")
        known.update(names)
        if "action" not in keys:
            self.fail(f"{place}.action", f"missing: expected one of {', '.join(_ACTIONS)}")
        action = self.action(keys, f"{place}.", "action", "errnoRet", "errno")
        arguments = self.items(keys.get("args", []), f"{place}.args")
        conditions = [self.condition(one, f"{place}.args[{number}]") for number, one in enumerate(arguments)]
        includes = self.requirements(keys.get("includes", {}), f"{place}.includes")
        excludes = self.requirements(keys.get("excludes", {}), f"{place}.excludes")
        if not includes[0] or excludes[1]:
            return []
        one_each = len({index for index, *_ in conditions}) < len(conditions)
        alternatives = [(one,) for one in conditions] if one_each else [tuple(conditions)]
        return [
            Rule(names=tuple(names), action=action, conditions=alternative, place=place) for alternative in alternatives
        ]

    def condition(self, given: Any, place: str) -> Condition:
        keys = self.table(given, place, _ARGUMENT_KEYS)
        operator = str(keys.get("op", ""))
        if operator.removeprefix("SCMP_CMP_") not in _OPERATORS or not operator.startswith("SCMP_CMP_"):
            self.fail(f"{place}.op", _one_of([f"SCMP_CMP_{name}" for name in _OPERATORS], operator))
        for key in ("index", "value"):
            if key not in keys:
                self.fail(f"{place}.{key}", "missing: expected a whole number")
        largest = (1 << 64) - 1
        return (
            self.number(keys["index"], f"{place}.index", _LAST_ARGUMENT),
            operator.removeprefix("SCMP_CMP_"),
            self.number(keys["value"], f"{place}.value", largest),
            self.number(keys.get("valueTwo", 0), f"{place}.valueTwo", largest),
        )

    def requirements(self, given: Any, place: str) -> tuple[bool, bool]:
        """Whether what `includes` or `excludes` holds is met: (all of it, some of it)."""
        keys = self.table(given, place, _FILTER_KEYS)
        capabilities = self.texts(keys.get("caps", []), f"{place}.caps")
        for name in capabilities:
            if name not in capability_names.KNOWN:
                self.fail(f"{place}.caps", f"unknown capability {quoted(name)}{near(name, capability_names.KNOWN)}")
        arches = self.texts(keys.get("arches", []), f"{place}.arches")
        for name in arches:
            if name not in _ARCHES:
                self.fail(f"{place}.arches", f"unknown architecture {quoted(name)}{near(name, _ARCHES)}")
        every = [self._capabilities.issuperset(capabilities)]
        some = [not self._capabilities.isdisjoint(capabilities)]
        if arches:
            every.append(self._arch in arches)
            some.append(self._arch in arches)
        if "minKernel" in keys:
            least = _version(keys["minKernel"]) if isinstance(keys["minKernel"], str) else None
            if least is None or keys["minKernel"].count(".") != 1:
                self.fail(f"{place}.minKernel", 'expected a kernel version such as "4.8"')
            every.append(self._kernel >= least)
            some.append(self._kernel >= least)
        return all(every), any(some)


def _version(text: str) -> tuple[int, int] | None:
    """`6.12.3-arch1` as (6, 12); None where it does not begin so."""
    major, _, rest = text.partition(".")
    digits = len(rest) - len(rest.lstrip("0123456789"))
    minor = rest[:digits]
    if not (major.isascii() and major.isdigit() and minor) or len(major) > 9 or len(minor) > 9:
        return None
    return int(major), int(minor)
