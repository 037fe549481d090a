"""What a job file takes over: `extends` at its top, from other files; `extends` in a job, from other jobs. Pure.

Files are merged in order, each over those before it: tables key by key, everything else is replaced. A job's own keys win over
those that it takes over; its `env` is merged by name. Whoever calls reads the files. What comes out is one document that knows
of each part in which file it stands, so that messages name that, and relative paths are seen from there.
"""

from __future__ import annotations

import posixpath

from guntainer import errors
from guntainer.jobs.parse import LARGEST_BYTES, Document, is_text, parse
from guntainer.jobs.placing import DEEPEST, EXTENDS, Placed
from guntainer.jobs.problems import Origin, Problems
from guntainer.jobs.reading import kind_of
from guntainer.jobs.values import host_path, near, quoted
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    from guntainer.jobs.problems import Path, Place
    from guntainer.jobs.setting import Setting

    _T = TypeVar("_T")
    Read = Callable[[str], bytes]
    """The bytes of the file at an absolute path; raises OSError. One more than LARGEST_BYTES is enough."""

KEY = EXTENDS
MOST_FILES = 50
TEMPLATE = "."
"""What the name of a job begins with that is only taken over from, and never run."""
_NAMES = (("jobs",), ("rootfs",), ("secrets",), ("services",))
"""Tables whose keys are the user's own names."""
_PLACED = ("source", "file")
"""Keys of tables that hold a path: which file it is seen from counts, not where the rest of the table stands."""


class _File(Value):
    """A job file that was read."""

    name: str
    """As the user would call it."""
    base: str
    """The absolute path of its folder."""
    document: Document
    path: str = ""
    """Absolute; of the job file itself nobody asks."""


class Joined:
    """A job file and all that it takes over, as one tree."""

    def __init__(self, file: _File) -> None:
        self.root = file.document.root
        self.files = [file]
        """The job file itself, then the others."""
        self._main = file
        self._owners: dict[Path, _File] = {}
        self._moved: dict[Path, Path] = {}
        self._settings: dict[Path, str] = {}
        self._copied: dict[Path, Path] = {}
        self._here = file.base

    @property
    def others(self) -> tuple[str, ...]:
        """The absolute paths of all files but the job file itself."""
        return tuple(file.path for file in self.files[1:])

    def trace(self, path: Path) -> Origin:
        """Where the thing at `path` stands."""
        path, option = self._origin(path)
        if option is not None:
            return Origin(name=f"--set {option}", place=(0, 0), path=())
        file = self._file(path)
        return Origin(name=file.name, place=file.document.locate(path), path=path)

    def base_of(self, path: Path) -> str:
        """The folder that a relative path is seen from which the thing at `path` holds: an option's is the working directory."""
        if not self._owners and not self._settings:
            return self._main.base
        path, option = self._origin(path, _PLACED)
        if option is not None:
            return self._here
        return self._file(next(((*path, key) for key in _PLACED if (*path, key) in self._owners), path)).base

    def _origin(self, path: Path, keys: tuple[str, ...] = ()) -> tuple[Path, str | None]:
        """Where the thing at `path` really stands, and the option that has set it, if one has.

        Args:
            keys: of the thing; an option that has set one of them counts.
        """
        path = _moved(self._moved, path)
        while True:
            for each in ((*path, key) for key in keys):
                if each in self._settings:
                    return path, self._settings[each]
            option = _longest(self._settings, path)
            there = _moved(self._copied, path)
            if option is not None or there == path:
                return path, option
            path = there

    def _file(self, path: Path) -> _File:
        return _longest(self._owners, path) or self._main

    def locate(self, path: Path) -> Place:
        return self._main.document.locate(path)

    def merge(self, files: list[_File]) -> None:
        """Make the tree of these files, the later ones over the earlier ones; the last one is the job file itself."""
        tree: dict[str, object] = {}
        for file in files:
            if isinstance(file.document.root, dict):
                tree = self._merged(tree, file.document.root, (), file)
        self.files = [files[-1], *files[:-1]]
        self.root = {key: value for key, value in tree.items() if key != KEY}

    def _merged(self, below: dict[str, object], above: dict[str, object], path: Path, file: _File) -> dict[str, object]:
        merged = dict(below)
        spelled = {key: key for key in below} if _holds_names(path) else {_plain(key): key for key in below}
        _exclude(merged, above, path)
        for key in below:
            # until now it was where the table is
            self._owners.setdefault((*path, key), self._file((*path, key)))
        for key, value in above.items():
            old = spelled.get(key if _holds_names(path) else _plain(key), key)
            there = merged.pop(old, None) if old != key else merged.get(key)
            here = (*path, key)
            if isinstance(value, dict) and isinstance(there, dict):
                merged[key] = self._merged(there, value, here, file)
            else:
                merged[key] = value
                self._disown(here, there)
            self._owners[here] = file
        return merged

    def _disown(self, path: Path, value: object) -> None:
        """Forget who owned what was in `value`: it is replaced as a whole."""
        if isinstance(value, dict):
            for key, inside in value.items():
                self._owners.pop((*path, key), None)
                self._disown((*path, key), inside)

    def set(self, settings: tuple[Setting, ...], here: str) -> None:
        """Put in what --set says; relative paths in that are seen from the folder `here`."""
        self._here = here
        placed = Placed(self.root, settings)
        self.root, self._settings, self._copied = placed.root, placed.settings, placed.copied

    def take_over(self, problems: Problems) -> None:
        """Give each job what it takes over from others."""
        jobs = self.root.get("jobs") if isinstance(self.root, dict) else None
        if not isinstance(jobs, dict) or not any(isinstance(job, dict) and KEY in job for job in jobs.values()):
            return
        taking = _Taking(jobs, problems)
        whole = {key: taking.job(key, ()) if isinstance(job, dict) else job for key, job in jobs.items()}
        self._moved = taking.moved
        assert isinstance(self.root, dict)
        self.root = {**self.root, "jobs": whole}


def _longest(table: dict[Path, _T], path: Path) -> _T | None:
    """What is there for the longest beginning of `path`."""
    for end in range(len(path), -1, -1):
        if path[:end] in table:
            return table[path[:end]]
    return None


def _moved(table: dict[Path, Path], path: Path) -> Path:
    """Where the thing at `path` has come from, by the longest beginning that `table` knows."""
    for end in range(min(len(path), 4), 0, -1):
        if path[:end] in table:
            return (*table[path[:end]], *path[end:])
    return path


def _plain(key: str) -> str:
    return key.replace("_", "-")


def _holds_names(path: Path) -> bool:
    return path in _NAMES or path[-1:] in (("env",), ("matrix",))


def _exclude(below: dict[str, object], above: dict[str, object], path: Path) -> None:
    """`command` over `run`, or `run` over `command`: only one of them can be meant."""
    of_a_job = path == ("defaults",) or (len(path) == 2 and path[0] in ("jobs", "services"))
    if of_a_job and ("command" in above or "run" in above):
        for key in ("command", "run"):
            below.pop(key, None)


class _Taking:
    """What each job is with what it takes over from others."""

    def __init__(self, jobs: dict[str, object], problems: Problems) -> None:
        self._jobs = jobs
        self._problems = problems
        self._done: dict[str, tuple[dict[str, object], int]] = {}
        """Each whole job, and how many jobs it is made of, one over the other."""
        self.moved: dict[Path, Path] = {}
        """The path of what was taken over → the path at which it stands."""

    def job(self, key: str, below: tuple[str, ...]) -> dict[str, object]:
        """The whole job `key`.

        Args:
            below: the jobs that take over from it, the first one first.
        """
        return self._job(key, below)[0]

    def _job(self, key: str, below: tuple[str, ...]) -> tuple[dict[str, object], int]:
        own = self._jobs[key]
        assert isinstance(own, dict)
        if KEY not in own:
            return own, 1
        if key in self._done:
            return self._done[key]
        taken: dict[str, object] = {}
        chain, most = (*below, key), 0
        for path, name in _names(own[KEY], ("jobs", key, KEY), "a job's name", self._problems):
            problem = self._wrong(name, chain)
            if not problem:
                other, depth = self._job(name, chain)
                most = max(most, depth)
                self._over(taken, other, key, name)
                problem = _TOO_DEEP if depth >= DEEPEST else ""
            if problem:
                self._problems.add(path, problem)
        whole = {name: value for name, value in own.items() if name != KEY}
        self._over(taken, whole, key, key)
        self._done[key] = taken, most + 1
        return self._done[key]

    def _wrong(self, name: str, chain: tuple[str, ...]) -> str:
        if name not in self._jobs:
            return f"there is no job {quoted(name)}{near(name, self._jobs)}"
        if name in chain:
            return f"jobs that extend each other: {' → '.join((*chain[chain.index(name) :], name))}"
        if len(chain) >= DEEPEST:
            return _TOO_DEEP
        # one that is no table is told of elsewhere
        return "" if isinstance(self._jobs[name], dict) else f"{quoted(name)} is no job"

    def _over(self, taken: dict[str, object], above: dict[str, object], key: str, name: str) -> None:
        """Put the job `name`, which is `above`, over what the job `key` has so far."""
        _exclude(taken, above, ("jobs", key))
        spelled = {_plain(each): each for each in taken}
        for each, value in above.items():
            old = taken.pop(spelled.get(_plain(each), each), None)
            here, there = ("jobs", key, each), ("jobs", name, each)
            both = each == "env" and isinstance(old, dict) and isinstance(value, dict)
            taken[each] = {**old, **value} if both else value  # type: ignore[dict-item]
            if not both:
                self._move(here, there)
            if each == "env" and isinstance(value, dict):
                for variable in value:
                    self._move((*here, variable), (*there, variable))

    def _move(self, here: Path, there: Path) -> None:
        self.moved[here] = there if here == there else self.moved.get(there, there)


_TOO_DEEP = f"more than {DEEPEST} jobs that extend one another"


def _names(value: object, path: Path, what: str, problems: Problems) -> list[tuple[Path, str]]:
    """What a key `extends` names: one, or a list."""
    items = [((*path, n), item) for n, item in enumerate(value)] if isinstance(value, list) else [(path, value)]
    found: list[tuple[Path, str]] = []
    for where, item in items:
        if is_text(item) and item:
            found.append((where, str(item)))
        else:
            problems.add(where, f"expected {what}, or a list of them, got {kind_of(item)}")
    return found


def join(text: bytes, *, name: str, base: str, notation: str | None, read: Read | None, problems: Problems) -> Joined:
    """Read a job file and the files that it extends.

    Args:
        text: of the job file.
        name: its name, for messages.
        base: the absolute path of its folder.
        read: what gets the bytes of the others; None: there can be none.

    Raises:
        JobFileError: one of them can not be read to its end.
    """
    main = _File(name=name, base=base, document=parse(text, name=name, notation=notation, problems=problems))
    joined = Joined(main)
    if isinstance(main.document.root, dict) and KEY in main.document.root:
        gathering = _Gathering(read, problems, len(text))
        gathering.above(main, posixpath.normpath(posixpath.join(base, posixpath.basename(name))), ())
        problems.raise_all(name, main.document.locate)
        joined.merge([*gathering.files.values(), main])
    return joined


class _Gathering:
    """Reads the files that a job file extends, and those that they extend, each once."""

    def __init__(self, read: Read | None, problems: Problems, size: int) -> None:
        self._read = read
        self._problems = problems
        self._size = size
        self.files: dict[str, _File] = {}
        """By absolute path, in the order in which they are merged."""

    def above(self, file: _File, own: str, chain: tuple[str, ...]) -> None:
        """Everything that `file` extends.

        Args:
            own: the absolute path of `file`.
            chain: the paths of the files that led to it.
        """
        root = file.document.root
        if not isinstance(root, dict) or KEY not in root:
            return
        problems = Problems()
        for where, text in _names(root[KEY], (KEY,), "the path of a job file", problems):
            try:
                self._one(text, file, (*chain, own))
            except errors.UsageError as error:
                problems.add(where, error.message)
        self._problems.take(problems, file.name, file.document.locate)

    def _one(self, text: str, file: _File, chain: tuple[str, ...]) -> None:
        path = posixpath.normpath(host_path(text, file.base))
        if path in chain:
            circle = [posixpath.basename(each) for each in (*chain[chain.index(path) :], path)]
            raise errors.UsageError(f"files that extend each other: {' → '.join(circle)}")
        if path in self.files:
            return
        if len(chain) > DEEPEST:
            raise errors.UsageError(f"more than {DEEPEST} files that extend one another")
        if len(self.files) + len(chain) > MOST_FILES:
            raise errors.UsageError(f"more than {MOST_FILES} files are extended")
        name = text if text.startswith(("/", "~")) else posixpath.join(posixpath.dirname(file.name), text)
        problems = Problems()
        document = parse(self._bytes(path, text), name=name, notation=None, problems=problems)
        self._problems.take(problems, name, document.locate)
        found = _File(name=name, base=posixpath.dirname(path), document=document, path=path)
        self.above(found, path, chain)
        self.files[path] = found

    def _bytes(self, path: str, text: str) -> bytes:
        if self._read is None:
            raise errors.UsageError(f"{quoted(text)} can not be read: no other file can be read here")
        try:
            found = self._read(path)
        except OSError as error:
            raise errors.UsageError(f"{quoted(text)}: {error.strerror or error}") from None
        self._size += len(found)
        if self._size > LARGEST_BYTES:
            raise errors.UsageError(f"{quoted(text)}: all files together are larger than {LARGEST_BYTES // 1000000} MB")
        return found
