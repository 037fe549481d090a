"""Which pasta and which slirp4netns are new enough: by the versions that they tell, else by the options that --help names.

pasta's versions are the dates of its releases. Packages spell them in ways of their own, and some have built it without any:
`pasta 2024_09_06.6b38f07`, `pasta 0.0~git20240220.1e6f92b-1`, `pasta unknown version`.
"""

from __future__ import annotations

import os

from guntainer.network import asking
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

MINIMUM = {"pasta": (2023, 2, 27), "slirp4netns": (0, 4, 2)}
"""pasta has had all of our options since August 2022 (--netns was the last), has told its version since October, and has reached
name servers on other loopback addresses than 127.0.0.1, such as systemd-resolved's, since this release. slirp4netns 0.4.0
brought --netns-type, --userns-path, --enable-seccomp and --enable-sandbox, whose mounts reached the host's until 0.4.2."""
_SHOWN = {"pasta": "2023_02_27", "slirp4netns": "0.4.2"}
_NAMES = {"pasta": ("pasta ", "passt "), "slirp4netns": ("slirp4netns ",)}
_LONGEST = 60
_NAMED = 3
_DIGITS = frozenset("0123456789")
_AROUND = str.maketrans(dict.fromkeys("=,[]()|", " "))
_judged: dict[tuple[str, int, int, int, int], Verdict] = {}
"""By path, device, inode, size and time of change: a batch of a thousand asks once, and again when another one is installed."""


class Verdict(Value):
    """What is thought of one tool."""

    version: str
    """For people, as it tells it, without its name: `version 1.2.0`, `unknown version`."""
    fault: str = ""
    """Why it is not used, to stand after its path; "" where it is."""


def judge(name: str, path: str, options: Collection[str]) -> Verdict:
    """Ask a tool, where it has not been asked before.

    Args:
        name: a key of MINIMUM.
        options: with which it may be started.

    Raises:
        OSError: it can not be executed, or no process or descriptor is left.
    """
    state = os.stat(path)
    key = (path, state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)
    if key not in _judged:
        version, usage = asking.ask(path, ("--version", "--help"))
        _judged[key] = weigh(name, version, usage, options)
    return _judged[key]


def weigh(name: str, version: asking.Answer, usage: asking.Answer, options: Collection[str]) -> Verdict:
    """From the answers to --version and to --help. Pure."""
    told = _told(name, version.text)
    number = read(name, told)
    if number is not None:
        old = f"too old: {told}, at least {_SHOWN[name]} is needed" if number < MINIMUM[name] else ""
        return Verdict(version=told, fault=old)
    known = set(usage.text.translate(_AROUND).split())
    lacking = sorted(option for option in options if option not in known)
    if not lacking:
        return Verdict(version=f"{told or 'no version'}, with every option that is used")
    named = ", ".join(lacking[:_NAMED]) + (f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else "")
    why = f"--version {version.fault}" if version.fault else f"tells no version that can be read ({told or 'none'})"
    return Verdict(
        version=told or "no version",
        fault=f"{why}, and --help {f'{usage.fault}, and ' if usage.fault else ''}does not name {named}: "
        f"at least {_SHOWN[name]} is needed",
    )


def _told(name: str, text: str) -> str:
    """The rest of the line that begins with its name; "": there is none. Whatever else is said is of no interest."""
    for line in text.splitlines():
        for start in _NAMES[name]:
            if line.startswith(start):
                rest = line[len(start) :].strip()[:_LONGEST]
                return "".join(one if " " <= one <= "~" else "?" for one in rest)
    return ""


def read(name: str, told: str) -> tuple[int, ...] | None:
    """A version as a number that can be compared; None: it can not be read. What follows the number counts for nothing."""
    return _date(told) if name == "pasta" else _dotted(told.removeprefix("version "))


def _date(text: str) -> tuple[int, int, int] | None:
    """The first date in a text: 20240906, 2024_09_06, 2024-09-06 or 2024.09.06."""
    for at in range(len(text)):
        piece = text[at : at + 10]
        parted = piece[4:5] in ("_", "-", ".") and piece[4:5] == piece[7:8]
        digits = piece[:4] + piece[5:7] + piece[8:] if parted else piece[:8]
        if len(digits) < 8 or not _DIGITS.issuperset(digits) or text[at - 1 : at] in _DIGITS:
            continue
        year, month, day = int(digits[:4]), int(digits[4:6]), int(digits[6:])
        if year >= 2020 and 1 <= month <= 12 and 1 <= day <= 31:
            return year, month, day
    return None


def _dotted(text: str) -> tuple[int, ...] | None:
    """The number at the start of a text: 1.2.0, 1.3.0-beta.1, 1.2.0+dev."""
    end = next((at for at, one in enumerate(text) if one not in _DIGITS and one != "."), len(text))
    parts = text[:end].rstrip(".").split(".")
    return tuple(map(int, parts)) if len(parts) > 1 and all(parts) else None
