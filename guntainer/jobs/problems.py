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
    Trace = Callable[[Path], "Origin"]
    _Problem = tuple[Path, str, str]
    """(path, message, name of the file; "": to be found out)."""

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_MOST = 200  # lines of problems that anyone reads


class Given(Value):
    """A value as the file has it, and where."""

    value: object
    path: Path


class Origin(Value):
    """Where something of a job file really stands: it may have come from another file, another job, an option."""

    name: str
    """Of the file, as the user calls it; or the option with its value."""
    place: Place
    """(0, 0): it is an option."""
    path: Path
    """In that file."""


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
    where = f"{name}:{line}:{column}" if column else f"{name}:{line}" if line else name
    subject = show_path(path)
    return printable(f"{where}: {subject}: {message}" if subject else f"{where}: {message}")


class Problems:
    """A growing list of problems; each is told once, however many cells of a matrix have it."""

    def __init__(self) -> None:
        self._errors: dict[_Problem, Place | None] = {}
        self._warnings: dict[_Problem, Place | None] = {}

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, path: Path, message: str, place: Place | None = None, name: str = "") -> None:
        """One more.

        Args:
            place: where it stands, where that is known already.
            name: of the file that `path` and `place` belong to, if it is not the one that is being read.
        """
        self._errors.setdefault((path, message, name), place)

    def warn(self, path: Path, message: str) -> None:
        self._warnings.setdefault((path, message, ""), None)

    def take(self, others: Problems, name: str, locate: Locate) -> None:
        """The errors of another file."""
        for (path, message, _), place in others._errors.items():
            self.add(path, message, place or locate(path), name)

    def warnings(self, name: str, locate: Locate, trace: Trace | None = None) -> tuple[str, ...]:
        return _lines(self._warnings, name, locate, trace)

    def raise_all(self, name: str, locate: Locate, trace: Trace | None = None) -> None:
        """Raise JobFileError with every problem, in the order of the file, if there is one.

        Args:
            trace: where a path stands that may belong to something else than the file `name`, which `locate` knows.
        """
        if self._errors:
            raise errors.JobFileError(_lines(self._errors, name, locate, trace))


def _lines(found: dict[_Problem, Place | None], name: str, locate: Locate, trace: Trace | None) -> tuple[str, ...]:
    placed: list[tuple[bool, str, Place, Path, str]] = []
    for (path, message, file), known in found.items():
        place = known
        shown, where = file or name, path
        if place is None and trace is not None:
            origin = trace(path)
            shown, place, where = origin.name, origin.place, origin.path
        placed.append((shown != name, shown, place or locate(path), where, message))
    placed.sort(key=lambda each: each[:3])  # the file itself comes first
    # what several jobs have taken over from one place is told once
    lines = list(dict.fromkeys(show_place(*each[1:]) for each in placed))
    if len(lines) > _MOST:
        lines[_MOST:] = [f"{name}: and {len(lines) - _MOST} more"]
    return tuple(lines)


def fail(name: str, place: Place, message: str) -> errors.JobFileError:
    """The error of a file that can not be read any further."""
    return errors.JobFileError((show_place(name, place, (), message),))
