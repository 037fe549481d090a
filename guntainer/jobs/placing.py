"""Settings of the command line, put into the document that they are for. Pure.

What a job takes over from others, or from [defaults], is its own as soon as something inside of it is set: with
`jobs.a.matrix.py=9` the job keeps the other axes of its template. A setting for the template comes first, whatever their order.
"""

from __future__ import annotations

from guntainer.jobs.parse import is_text, meaning
from guntainer.jobs.problems import show_path
from guntainer.jobs.reading import kind_of
from guntainer.jobs.setting import changes, spelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.jobs.problems import Path
    from guntainer.jobs.setting import Setting

    Table = dict[str, object]

EXTENDS = "extends"
DEEPEST = 10
"""So many jobs may extend one another."""
_JOBS, _DEFAULTS = "jobs", "defaults"
_BY_NAME = "env"  # merged anyway: what is not set stays


class Placed:
    """A document with what settings say.

    Args:
        root: it; nothing in there is changed.

    Raises:
        UsageError: a setting does not fit to this file.
    """

    def __init__(self, root: object, settings: tuple[Setting, ...]) -> None:
        self.root = root
        self.settings: dict[Path, str] = {}
        """By the path that has been set, or made for that, the setting as it is told."""
        self.copied: dict[Path, Path] = {}
        """Of what a job has taken over before something in it was set: its path → where it stands."""
        self._copies: dict[int, Table] = {}
        if not isinstance(root, dict):
            return
        for setting in settings:
            for path, value in changes(self._table(), setting):
                self._set(path, value, setting)
        for key, names in _taking(root, settings).items():
            self._again(key, names, root[_JOBS][key], settings)

    def _again(self, key: str, names: list[str], job: object, settings: tuple[Setting, ...]) -> None:
        """Set what is to be set in the job `key` once more, now that it has `names` of those that it extends."""
        own: Path = (_JOBS, key)
        for path in [path for path in self.settings if path[:2] == own]:
            del self.settings[path]
        self._at((_JOBS,))[key] = job
        for name in names:
            there = _inherited(self._table(), key, name)
            if there is not None:
                here = (*own, there[-1])
                self._at(own)[str(there[-1])] = _copied(self._value(there))
                self.copied[here] = there
        for setting in settings:
            for path, value in changes(self._table(), setting):
                if path[:2] == own:
                    self.copied.pop(path, None)  # it is replaced as a whole
                    self._set(path, value, setting)

    def _set(self, path: Path, value: object, setting: Setting) -> None:
        self._without_other(path, setting)
        self._at(path[:-1], setting)[str(path[-1])] = value
        self.settings[path] = setting.told

    def _without_other(self, path: Path, setting: Setting) -> None:
        """Remove the `command` that a `run` at `path` takes the place of, or the other way round."""
        of_a_job = len(path) == (2 if path[0] == _DEFAULTS else 3)
        other = {"run": "command", "command": "run"}.get(str(path[-1]), "") if of_a_job else ""
        if other:
            self._at(path[:-1], setting).pop(other, None)

    def _table(self) -> Table:
        assert isinstance(self.root, dict)
        return self.root

    def _value(self, path: Path) -> object:
        here: object = self.root
        for part in path:
            here = here.get(str(part)) if isinstance(here, dict) else None
        return here

    def _own(self, table: object) -> Table:
        """`table`, or a copy of it that may be changed: each is copied once."""
        if id(table) in self._copies:
            return self._copies[id(table)]
        copy = dict(table) if isinstance(table, dict) else {}
        self._copies[id(copy)] = copy
        return copy

    def _at(self, path: Path, setting: Setting | None = None) -> Table:
        """The table at `path`, made where it is missing.

        Args:
            setting: what asks for it.
        """
        here = self.root = self._own(self.root)
        for end, part in enumerate(path, 1):
            inside = here.get(str(part))
            if setting is not None and not isinstance(inside, dict):
                if meaning(inside) is not None:
                    setting.wrong(f"{show_path(path[:end])} is {kind_of(inside)}: nothing can be set in it")
                self.settings[path[:end]] = setting.told
            here[str(part)] = here = self._own(inside)
        return here


def _taking(root: Table, settings: tuple[Setting, ...]) -> dict[str, list[str]]:
    """The jobs in which something is set that they take over, and the keys of that; those that are taken over from first."""
    wanted: dict[str, list[str]] = {}
    jobs = root.get(_JOBS)
    if not isinstance(jobs, dict):
        return wanted
    for setting in settings:
        if not setting.key.startswith(f"{_JOBS}."):
            continue
        for path, _ in changes(root, setting):
            key, name = str(path[1]), str(path[2])
            taken = len(path) > 3 and name != _BY_NAME and isinstance(jobs.get(key), dict) and name not in jobs[key]
            if taken and _inherited(root, key, name) is not None:
                wanted.setdefault(key, []).append(name)
    return {key: wanted[key] for key in _in_order(jobs, wanted)}


def _in_order(jobs: Table, wanted: dict[str, list[str]]) -> list[str]:
    found: list[str] = []
    seen: set[str] = set()

    def visit(key: str, depth: int) -> None:
        if key in seen or depth > DEEPEST:
            return
        seen.add(key)
        for base in _bases(jobs.get(key)):
            visit(base, depth + 1)
        if key in wanted:
            found.append(key)

    for key in wanted:
        visit(key, 0)
    return found


def _inherited(root: Table, key: str, name: str) -> Path | None:
    """Where the thing stands that a job without `name` has under that name; None: it has none."""
    jobs, defaults = root.get(_JOBS), root.get(_DEFAULTS)
    assert isinstance(jobs, dict)
    seen: set[str] = {key}

    def of_bases(key: str, depth: int) -> Path | None:
        for base in reversed(_bases(jobs.get(key))):  # the later ones are over the earlier ones
            if base in seen or depth > DEEPEST or not isinstance(jobs.get(base), dict):
                continue
            seen.add(base)
            known = spelled(jobs[base], name)
            found = (_JOBS, base, known) if known in jobs[base] else of_bases(base, depth + 1)
            if found is not None:
                return found
        return None

    found = of_bases(key, 0)
    if found is None and isinstance(defaults, dict) and spelled(defaults, name) in defaults:
        found = (_DEFAULTS, spelled(defaults, name))
    return found


def _copied(value: object) -> object:
    return {key: _copied(inside) for key, inside in value.items()} if isinstance(value, dict) else value


def _bases(job: object) -> list[str]:
    """The names of the jobs that a job extends."""
    given = job.get(EXTENDS, []) if isinstance(job, dict) else []
    return [str(name) for name in (given if isinstance(given, list) else [given]) if is_text(name)]
