"""The notations of resource limits: docker's, for options and job files alike. Pure.

Each function turns a text into a value or raises `UsageError` with one sentence; `gather` puts them together and looks at
what goes with what.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs.model import Limits
from guntainer.jobs.values import check_text, host_path, near, parse_size, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEAST_MEMORY_BYTES = 6 << 20  # docker's; a container's own set-up takes some of it
LEAST_CPUS = 0.01  # a quota of one millisecond in each tenth of a second, the least that the kernel takes
_MOST_CPUS = 100_000
_MOST_CPU = 1 << 16
_MOST_RATE = 1 << 62
_LEAST_RATE = 2  # io.max takes no less
_MOST_PIDS = 1 << 22  # PID_MAX_LIMIT: pids.max takes no more
_MOST_LIMIT = 1 << 62
WEIGHTS = (10, 1000)
MODES = ("required", "best-effort")
UNLIMITED = -1
# getrlimit(2): name → number, of <asm-generic/resource.h>, which all of our architectures have
ULIMITS = {
    "cpu": 0,
    "fsize": 1,
    "data": 2,
    "stack": 3,
    "core": 4,
    "rss": 5,
    "nproc": 6,
    "nofile": 7,
    "memlock": 8,
    "as": 9,
    "locks": 10,
    "sigpending": 11,
    "msgqueue": 12,
    "nice": 13,
    "rtprio": 14,
    "rttime": 15,
}
IO_KINDS = {
    "device-read-bps": "rbps",
    "device-write-bps": "wbps",
    "device-read-iops": "riops",
    "device-write-iops": "wiops",
}
"""Option and key in a job file → the word for it in io.max."""


def memory(text: str | float) -> int:
    """Bytes of memory."""
    size = parse_size(str(text))
    if size < LEAST_MEMORY_BYTES:
        raise errors.UsageError(
            f"a container needs at least {LEAST_MEMORY_BYTES >> 20}m of memory, got {quoted(str(text))}"
        )
    return size


def memory_swap(text: str | float) -> int:
    """Bytes of memory and swap together; -1: as much swap as there is."""
    return UNLIMITED if str(text).strip() == "-1" else parse_size(str(text))


def cpus(value: str | float) -> float:
    """How many processors' time: `0.5`, `2`."""
    text = str(value).strip()
    whole, _, part = text.partition(".")
    fits = (whole + part).isascii() and (whole + part).isdigit() and len(text) <= 20
    if not fits or not LEAST_CPUS <= float(text) <= _MOST_CPUS:
        raise errors.UsageError(f'expected a number of processors from {LEAST_CPUS} such as "1.5", got {quoted(text)}')
    return float(text)


def cpuset(text: str) -> str:
    """Processors by number: `0-3,6`; in order and without doubles, as the kernel shows them."""
    return spans(processors(text))


def processors(text: str) -> set[int]:
    """`0-2,6` → {0, 1, 2, 6}."""
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        ends = [first, last] if dash else [first]
        if not all(end.isascii() and end.isdigit() and len(end) < 6 for end in ends):
            raise errors.UsageError(f'expected processors such as "0-3,6", got {quoted(text)}')
        low, high = int(ends[0]), int(ends[-1])
        if low > high or high > _MOST_CPU:
            raise errors.UsageError(
                f'expected processors such as "0-3,6", got {quoted(text)}: {part.strip()} is no range'
            )
        chosen.update(range(low, high + 1))
    return chosen


def spans(numbers: set[int]) -> str:
    """{0, 1, 2, 6} → `0-2,6`."""
    found: list[list[int]] = []
    for number in sorted(numbers):
        if found and found[-1][1] == number - 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return ",".join(str(low) if low == high else f"{low}-{high}" for low, high in found)


def pids(value: str | float) -> int | None:
    """The most processes and threads at once; None for -1 and 0, which are docker's words for no limit."""
    text = str(value).strip()
    if text in ("-1", "0"):
        return None
    expected = f"a number of processes such as 100, at most {_MOST_PIDS}, or -1 for no limit"
    return _whole(text, expected, _MOST_PIDS)


def _whole(text: str, expected: str, most: int = _MOST_RATE) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20 and 0 < int(text) <= most):
        raise errors.UsageError(f"expected {expected}, got {quoted(text)}")
    return int(text)


def weight(value: str | float) -> int:
    """The share of input and output, docker's: 10 to 1000."""
    number = _whole(str(value).strip(), f"a weight from {WEIGHTS[0]} to {WEIGHTS[1]}")
    if not WEIGHTS[0] <= number <= WEIGHTS[1]:
        raise errors.UsageError(f"expected a weight from {WEIGHTS[0]} to {WEIGHTS[1]}, got {number}")
    return number


def device_rate(option: str, text: str, base: str) -> tuple[str, str, int]:
    """`DEV:RATE` → (word of io.max, absolute path, rate a second): bytes with a unit, or a number of operations."""
    path, colon, rate = text.rpartition(":")
    kind = IO_KINDS[option]
    if not colon or not path:
        example = "/dev/sda:10m" if kind.endswith("bps") else "/dev/sda:1000"
        raise errors.UsageError(f'expected "DEVICE:RATE" such as "{example}", got {quoted(text)}')
    amount = parse_size(rate) if kind.endswith("bps") else _whole(rate.strip(), "a number of operations a second")
    if amount < _LEAST_RATE:
        raise errors.UsageError(f"a device's rate is at least {_LEAST_RATE} a second, got {quoted(text)}")
    return kind, host_path(path, base), amount


def ulimit(text: str) -> tuple[str, int, int]:
    """`NAME=SOFT[:HARD]` → (name, soft, hard); -1 or `unlimited` is no limit, as in ulimit(1p) and docker."""
    name, equals, limits = text.partition("=")
    if not equals:
        raise errors.UsageError(f'expected "NAME=SOFT[:HARD]" such as "nofile=1024:2048", got {quoted(text)}')
    if name not in ULIMITS:
        hint = near(name.lower().removeprefix("rlimit_"), ULIMITS)
        raise errors.UsageError(f"unknown limit {quoted(name)}{hint}: one of {', '.join(sorted(ULIMITS))}")
    soft, colon, hard = limits.partition(":")
    ends = [_limit(end, text) for end in ((soft, hard) if colon else (soft,))]
    low, high = ends[0], ends[-1]
    if high != UNLIMITED and (low == UNLIMITED or low > high):
        raise errors.UsageError(f"{quoted(text)}: the soft limit is above the hard one")
    return name, low, high


def _limit(text: str, whole: str) -> int:
    text = text.strip()
    if text in ("-1", "unlimited"):
        return UNLIMITED
    if not (text.isascii() and text.isdigit() and len(text) < 20 and int(text) <= _MOST_LIMIT):
        raise errors.UsageError(
            f"{quoted(check_text(whole))}: {quoted(text)} is no limit: expected a number, -1 or unlimited"
        )
    return int(text)


def mode(text: str) -> bool:
    """Whether to go on without what can not be limited."""
    if text not in MODES:
        raise errors.UsageError(f"expected {' or '.join(MODES)}, got {quoted(text)}{near(text, MODES)}")
    return text == MODES[1]


_KEYS = {
    "memory": "memory_bytes",
    "memory-swap": "memory_swap_bytes",
    "cpus": "cpus",
    "cpuset-cpus": "cpuset",
    "pids-limit": "pids",
    "blkio-weight": "io_weight",
    "limits": "best_effort",
}


def of_keys(read: dict[str, Any]) -> Limits:
    """Limits from the keys of a job, as they were read; lists have a place with each item.

    Raises:
        UsageError: as `gather`; it is about memory-swap.
    """
    found = {field: read[key] for key, field in _KEYS.items() if key in read}
    rates = tuple(rate for key in IO_KINDS for _, rate in read.get(key, ()))
    return gather(**found, io_max=rates, ulimits=tuple(one for _, one in read.get("ulimits", ())))


def gather(**found: Any) -> Limits:
    """Limits from fields that were read one by one.

    Raises:
        UsageError: two of them do not go together.
    """
    limits = Limits(**found)
    swap, most = limits.memory_swap_bytes, limits.memory_bytes
    if swap is not None:
        if most is None:
            raise errors.UsageError("memory-swap counts memory and swap together: it needs memory as well")
        if swap != UNLIMITED and swap < most:
            raise errors.UsageError(
                f"memory-swap counts memory and swap together: it can not be less than memory ({most})"
            )
    return limits
