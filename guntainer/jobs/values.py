"""The small notations that options and job files share: durations, sizes, signals, volumes, environment.

Each function turns a text into a value or raises `UsageError` with one sentence. `guntainer run` imports this, so it
imports nothing that costs time. Opens no file: whether a path exists is asked by who uses it.
"""

from __future__ import annotations

import _signal
import os

from guntainer import errors
from guntainer.jobs.model import NETWORKS, Mount, Scratch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_LONGEST_S = 10 * 366 * 86400.0  # more overflows the timers below us, and is a slip of the pen
_BYTES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_MOST_BYTES = 1 << 62
_ID_LIMIT = (1 << 32) - 2  # (uid_t) -1 means "unchanged": chown(2)
_HOSTNAME_BYTES = 64  # HOST_NAME_MAX: sethostname(2)
LONGEST_ARGUMENT = 131071  # MAX_ARG_STRLEN without its NUL: execve(2)


def near(word: str, known: Iterable[str]) -> str:
    """` (did you mean "x"?)` for the nearest known name, else an empty text."""
    from difflib import get_close_matches  # on the error path alone

    names = {name.lower().replace("_", "-"): name for name in known}
    found = get_close_matches(word.lower().replace("_", "-"), names, n=1, cutoff=0.65)
    return f" (did you mean {quoted(names[found[0]])}?)" if found else ""


def quoted(text: str) -> str:
    """`text` for a message: in double quotes, on one line, not longer than a line."""
    shown = text if len(text) <= 60 else text[:59] + "…"
    return f'"{printable(shown)}"'


def printable(text: str) -> str:
    """`text` with its control characters escaped: a message can neither break its line nor command a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _number(text: str) -> float | None:
    """A plain decimal number: `5`, `1.5`, `.5`; None for anything else, `1e3`, `+1` and `nan` among it."""
    whole, dot, part = text.partition(".")
    digits = whole + part
    if not digits or not digits.isascii() or not digits.isdigit() or (dot and not part) or len(digits) > 20:
        return None
    return float(text)


def _split_unit(text: str) -> tuple[str, str, str]:
    """`1h30m` → `1`, `h`, `30m`: a number, its unit, and what follows."""
    end = 0
    while end < len(text) and (text[end].isdigit() or text[end] == "."):
        end += 1
    stop = end
    while stop < len(text) and not (text[stop].isdigit() or text[stop] == "."):
        stop += 1
    return text[:end], text[end:stop], text[stop:]


def parse_duration(value: str | int | float) -> float:
    """Seconds of `10m`, `1h30m`, `1.5`, `250ms`; a bare number is seconds, as in timeout(1)."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds: float | None = value if 0 <= value <= _LONGEST_S else None
        shown = str(value)
    else:
        shown = str(value)
        seconds = _duration(shown.strip().lower())
    if seconds is None:
        raise errors.UsageError(f'expected a duration such as "30s", "10m" or "1h30m", got {quoted(shown)}')
    if seconds > _LONGEST_S:
        raise errors.UsageError(f"{quoted(shown)} is more than ten years")
    return float(seconds)


def _duration(text: str) -> float | None:
    bare = _number(text)
    if bare is not None:
        return bare
    total, smallest = 0.0, float("inf")
    while text:
        digits, unit, text = _split_unit(text)
        number, size = _number(digits), _SECONDS.get(unit.strip())
        if number is None or size is None or size >= smallest:  # each unit once, the large ones first
            return None
        total, smallest = total + number * size, size
    return total if smallest < float("inf") else None


def parse_size(value: str | int) -> int:
    """Bytes of `512m`: the units b, k, m, g, t are powers of 1024, as docker's; a bare number is bytes."""
    text = str(value).strip().lower()
    digits, unit, rest = _split_unit(text)
    unit = unit.strip()
    for ending in ("ib", "b"):  # "16MiB" and "16mb" are what people write, too
        if len(unit) > len(ending) and unit.endswith(ending):
            unit = unit[: -len(ending)]
            break
    number = _number(digits)
    if number is None or rest or unit not in _BYTES or isinstance(value, bool):
        raise errors.UsageError(f'expected a size such as "512m" (units b, k, m, g, t), got {quoted(str(value))}')
    size = int(digits) * _BYTES[unit] if digits.isdigit() else int(number * _BYTES[unit])
    if not 0 < size <= _MOST_BYTES:
        raise errors.UsageError(f"a size must be at least one byte and at most 4096 PiB, got {quoted(str(value))}")
    return size


_SIGNAL_ALIASES = ("SIGCLD", "SIGIOT", "SIGPOLL")  # signal(7): of SIGCHLD, SIGABRT and SIGIO


def signal_names() -> dict[int, str]:
    """Number → `SIGTERM`, from the module below `signal`: that one makes enums of them, which takes milliseconds."""
    names = (name for name in dir(_signal) if name.startswith("SIG") and name[3] != "_")
    return {int(getattr(_signal, name)): name for name in names if name not in _SIGNAL_ALIASES}


def parse_signal(value: str | int) -> int:
    """The number of `TERM`, `SIGTERM`, `RTMIN+3` or `15`: signal(7)."""
    text = str(value).strip().upper()
    name = text.removeprefix("SIG")
    if text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= _signal.SIGRTMAX:
        return int(text)
    for base in ("RTMIN", "RTMAX"):
        if name.startswith(base) and name.isascii() and name[len(base) :][1:].isdigit():
            step = name[len(base) :]
            number = int(getattr(_signal, "SIG" + base)) + int(step) if step[0] in "+-" and len(step) <= 3 else 0
            if _signal.SIGRTMIN <= number <= _signal.SIGRTMAX:
                return number
    names = {each.removeprefix("SIG"): number for number, each in signal_names().items()}
    if name in names:
        return names[name]
    raise errors.UsageError(
        f'expected a signal such as "TERM", "SIGINT" or a number from 1 to {_signal.SIGRTMAX},'
        f" got {quoted(str(value))}{near(name, names)}"
    )


def parse_entrypoint(text: str | None) -> tuple[str, ...] | None:
    """One program, as docker has it; `["a", "b"]` a program and its first arguments, as podman; "" none at all."""
    if text is None or not text:
        return None if text is None else ()
    if not text.startswith("["):
        return (check_text(text),)
    import json  # a notation for few

    try:
        words = json.loads(text)
    except ValueError:
        words = None
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words) or words[:1] == [""]:
        raise errors.UsageError(f'expected a program, or a list such as ["/init", "-v"], got {quoted(text)}')
    return tuple(check_text(word) for word in words)


def check_text(text: str) -> str:
    """`text`, when the kernel can take it as an argument, a path or a value."""
    if "\0" in text:
        raise errors.UsageError("a NUL character can not be passed on")
    try:
        length = len(text.encode("utf-8", "surrogateescape"))
    except UnicodeEncodeError:
        raise errors.UsageError("holds half of a surrogate pair, which is no character") from None
    if length > LONGEST_ARGUMENT:
        why = f"is {length} bytes long, and the kernel takes at most {LONGEST_ARGUMENT} at once"
        raise errors.UsageError(why, hint="shorten it, or pass it as a file")
    return text


def check_env_name(name: str) -> str:
    """`name`, when it can name a variable: environ(7)."""
    if not name or "=" in name or not name.isprintable() or any(c.isspace() for c in name):
        raise errors.UsageError(f"{quoted(name)} can not name a variable: expected letters, digits and _")
    check_text(name)
    return name


def parse_env(text: str) -> tuple[str, str | None]:
    """`K=V`, or `K` alone, whose value (None here) comes from the caller's own environment."""
    name, equals, value = text.partition("=")
    check_env_name(name)
    check_text(text)
    return name, value if equals else None


def check_user(text: str) -> str:
    """`text`, when it has the form `UID[:GID]` or `name[:group]`; the rootfs says later who that is."""
    parts = text.split(":")
    if len(parts) > 2 or not all(parts) or any(c.isspace() or not c.isprintable() for c in text):
        raise errors.UsageError(f'expected "UID[:GID]" or "name[:group]", got {quoted(text)}')
    for part in parts:
        if part.startswith("-") or (part.isdecimal() and (len(part) > 10 or int(part) > _ID_LIMIT)):
            raise errors.UsageError(f"{quoted(part)} is not an id from 0 to {_ID_LIMIT}")
    return text


def check_hostname(text: str) -> str:
    """`text`, when it can be a host name: hostname(7)."""
    fits = text.isascii() and text.replace("-", "").replace(".", "").replace("_", "").isalnum()
    if not fits or len(text) > _HOSTNAME_BYTES or text[0] in "-." or text[-1] == "-":
        raise errors.UsageError(f"expected up to {_HOSTNAME_BYTES} letters, digits, - and ., got {quoted(text)}")
    return text


def check_network(text: str) -> str:
    """`text`, when it is a network that there is."""
    if text in NETWORKS:
        return text
    raise errors.UsageError(f'expected "host", "none" or "private", got {quoted(text)}{near(text, NETWORKS)}')


def parse_scratch(text: str) -> Scratch:
    """`disk` or `memory[:SIZE]`."""
    kind, colon, size = text.partition(":")
    if kind == "disk" and not colon:
        return Scratch()
    if kind == "memory":
        return Scratch(kind="memory", size_bytes=parse_size(size) if colon else None)
    hint = near(kind, ("disk", "memory"))
    raise errors.UsageError(f'expected "disk" or "memory[:SIZE]", got {quoted(text)}{hint}')


def check_target(path: str) -> str:
    """`path`, when it is absolute: a place inside the container."""
    if not path.startswith("/"):
        raise errors.UsageError(f'expected an absolute path in the container such as "/src", got {quoted(path)}')
    return check_text(path)


def host_path(text: str, base: str) -> str:
    """The absolute path that `text` means, seen from the folder `base`, "" where there is none; `~/` is $HOME.

    `..` stays as written: behind a symlink it is not the folder before it.
    """
    if not text:
        raise errors.UsageError("a path can not be empty")
    check_text(text)
    if text == "~" or text.startswith("~/"):
        home = os.environ.get("HOME", "")
        if not home.startswith("/"):
            raise errors.UsageError(f"{quoted(text)}: HOME is not set, so ~ has no meaning; write the path in full")
        text = home + text[1:]
    if not base and not text.startswith("/"):
        raise errors.UsageError(
            f"{quoted(text)} is seen from the working directory, which has been deleted", hint="write the path in full"
        )
    path = os.path.join(base, text)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/" + "/".join(parts)


def parse_volume(text: str, base: str) -> Mount:
    """`SRC:DST[:ro|rw]`, as in docker and podman; SRC is seen from the folder `base`."""
    parts = text.split(":")
    if len(parts) not in (2, 3) or not parts[0] or not parts[1]:
        raise errors.UsageError(f'expected "SRC:DST[:ro|rw]", got {quoted(text)}')
    access = parts[2] if len(parts) == 3 else "rw"
    if access not in ("ro", "rw"):
        labels = {"z", "Z"} & set(access.split(","))  # docker's and podman's, for SELinux
        raise errors.UsageError(
            f'expected "SRC:DST[:ro|rw]", got {quoted(text)}: the end is {quoted(access)}',
            hint="leave the z out: files keep their labels here" if labels else "",
        )
    return Mount(target=check_target(parts[1]), source=host_path(parts[0], base), read_only=access == "ro")


def parse_tmpfs(text: str) -> Mount:
    """`DST[:size=16m][,ro]`, as docker's --tmpfs."""
    target, _, options = text.partition(":")
    size, read_only = None, False
    for option in options.split(",") if options else ():
        name, equals, value = option.partition("=")
        if name == "size" and equals:
            size = parse_size(value)
        elif option in ("ro", "rw"):
            read_only = option == "ro"
        else:
            hint = near(name, ("size", "ro", "rw"))
            raise errors.UsageError(f'expected "DST[:size=16m]", got {quoted(text)}: {quoted(option)} is unknown{hint}')
    return Mount(target=check_target(target), kind="tmpfs", read_only=read_only, size_bytes=size)
