"""What is wrong with a job file, gathered under the path of the key that it is wrong with.

Places are looked up only when there is something to say, because finding them costs more than reading the file.
"""

from __future__ import annotations

import re

from guntainer import errors
from guntainer.jobs.values import printable
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Path = tuple[str | int, ...]
    Place = tuple[int, int]
    """Line and column, both from 1; column 0: not known."""
    Locate = Callable[[Path], Place]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_MOST = 200  # lines of problems that anyone reads


class Given(Value):
    """A value as the file has it, and where."""

    value: object
    path: Path


def show_path(path: Path) -> str:
    """`jobs.test.volumes[0]`; a key that is not a bare word is quoted, as TOML has it."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            shown = part if len(part) <= 60 else part[:59] + "…"
            if _BARE.fullmatch(shown) is None:
                shown = '"' + printable(shown.replace('"', '\\"')) + '"'
            text += f".{shown}" if text else shown
    return text


def show_place(name: str, place: Place, path: Path, message: str) -> str:
    line, column = place
    where = f"{name}:{line}:{column}" if column else f"{name}:{line}"
    subject = show_path(path)
    return printable(f"{where}: {subject}: {message}" if subject else f"{where}: {message}")


class Problems:
    """A growing list of problems; each is told once, however many cells of a matrix have it."""

    def __init__(self) -> None:
        self._errors: dict[tuple[Path, str], Place | None] = {}
        self._warnings: dict[tuple[Path, str], Place | None] = {}

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, path: Path, message: str, place: Place | None = None) -> None:
        self._errors.setdefault((path, message), place)

    def warn(self, path: Path, message: str) -> None:
        self._warnings.setdefault((path, message), None)

    def warnings(self, name: str, locate: Locate) -> tuple[str, ...]:
        return _lines(self._warnings, name, locate)

    def raise_all(self, name: str, locate: Locate) -> None:
        """Raise JobFileError with every problem, in the order of the file, if there is one."""
        if self._errors:
            raise errors.JobFileError(_lines(self._errors, name, locate))


def _lines(found: dict[tuple[Path, str], Place | None], name: str, locate: Locate) -> tuple[str, ...]:
    placed = [(place or locate(path), path, message) for (path, message), place in found.items()]
    placed.sort(key=lambda each: each[0])
    lines = [show_place(name, *each) for each in placed[:_MOST]]
    if len(placed) > _MOST:
        lines.append(f"{name}: and {len(placed) - _MOST} more")
    return tuple(lines)


def fail(name: str, place: Place, message: str) -> errors.JobFileError:
    """The error of a file that can not be read any further."""
    return errors.JobFileError((show_place(name, place, (), message),))
