"""A job file becomes jobs: `load(bytes) → JobFile`, or one error with everything that is wrong with it.

Pure: the caller reads the file and says where it lay. Nothing is looked up on the host but $HOME, for `~/`.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs import fields, limits, network, sources
from guntainer.jobs.matrix import MAX_CELLS, Cell, Matrix, expand, fill, has_expression, is_broken, read_matrix
from guntainer.jobs.model import Job, Limits, Mount, Source
from guntainer.jobs.names import check_key, folder_name
from guntainer.jobs.parse import meaning, parse
from guntainer.jobs.problems import Given, Problems, show_path
from guntainer.jobs.reading import Context, kind_of, open_table
from guntainer.jobs.values import quoted
from guntainer.spec import RESERVED_TARGETS, normal_path
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from guntainer.jobs.problems import Path

VERSION = 1
_MOST_JOBS = 100_000
_TOP = ("version", "name", "description", "defaults", "rootfs", "jobs", "max-parallel", "fail-fast")
_SHARED_KEYS = (*fields.READERS, "env")
_PLAIN = {  # key in the file → field of Job, for those that are taken over as they are read
    "rootfs": "rootfs",
    "command": "command",
    "run": "command",
    "entrypoint": "entrypoint",
    "workdir": "workdir",
    "user": "user",
    "hostname": "hostname",
    "network": "network",
    "ports": "ports",
    "publish-all": "publish_all",
    "dns": "dns",
    "add-hosts": "add_hosts",
    "cap-add": "cap_add",
    "cap-drop": "cap_drop",
    "privileged": "privileged",
    "root-emulation": "root_emulation",
    "stdin": "stdin",
    "init": "init",
    "read-only": "read_only",
    "scratch": "scratch",
    "cache": "cache",
    "timeout": "timeout_s",
    "stop-signal": "stop_signal",
    "stop-timeout": "stop_timeout_s",
    "fail-fast": "fail_fast",
    "max-parallel": "max_parallel",
}


class JobFile(Value):
    """What a job file says, all of it checked."""

    path: str
    jobs: tuple[Job, ...]
    """In the order of the file, each job's cells in the order of its matrix."""
    warnings: tuple[str, ...] = ()
    max_parallel: int | None = None
    """Of the whole batch."""
    fail_fast: bool = False
    """The first failure cancels the whole batch."""


class _Section(Value):
    """What [defaults] or a job sets: single values by key, variables by name."""

    settings: dict[str, Given]
    env: dict[str, Given]


class _Named(Value):
    """The name of one job to be, and what to blame for it."""

    id: str
    path: Path


def load(text: bytes, *, path: str, base: str, format: str | None = None, max_cells: int = MAX_CELLS) -> JobFile:  # noqa: A002
    """Read a job file.

    Args:
        path: how the user calls the file; messages begin with it.
        base: the absolute path of the folder that relative paths in it are seen from.
        format: "toml", "yaml" or "json"; None: by the ending of `path`, else by the look of the text.
        max_cells: how many cells a matrix may have.

    Raises:
        JobFileError: with every problem of the file, in its order.
    """
    problems = Problems()
    document = parse(text, name=path, notation=format, problems=problems)
    reading = _Reading(problems, base, max_cells)
    found = reading.file(Given(value=document.root, path=()))
    problems.raise_all(path, document.locate)
    return found.replace(path=path, warnings=problems.warnings(path, document.locate))


class _Reading:
    """One pass over one file."""

    def __init__(self, problems: Problems, base: str, max_cells: int) -> None:
        self.problems = problems
        self.context = Context(base=base, sources={}, problems=problems)
        self.max_cells = max_cells
        self.taken: dict[str, _Named] = {}
        self.total = 0

    def file(self, root: Given) -> JobFile:
        top = open_table(root, _TOP, self.problems)
        self.version(top.get("version"))
        for key in ("name", "description"):
            if key in top and not isinstance(top[key].value, str):
                self.problems.add(top[key].path, f"expected a text, got {kind_of(top[key].value)}")
        self.sources(top.get("rootfs"))
        defaults = self.defaults(top.get("defaults"))
        return JobFile(
            path="",
            jobs=tuple(self.jobs(top.get("jobs"), defaults)),
            max_parallel=self.read("max-parallel", top["max-parallel"]) if "max-parallel" in top else None,
            fail_fast=bool(self.read("fail-fast", top["fail-fast"])) if "fail-fast" in top else False,
        )

    def version(self, given: Given | None) -> None:
        if given is not None:
            value = meaning(given.value)
            if type(value) is not int or value != VERSION:
                self.problems.add(given.path, f"this guntainer reads version {VERSION}, got {kind_of(value)}")

    def sources(self, given: Given | None) -> None:
        """Fills `context.sources`; a bad one is there as None, so that its users are not blamed as well."""
        if given is None:
            return
        if not isinstance(given.value, dict):
            self.problems.add(given.path, f"expected tables [rootfs.NAME], got {kind_of(given.value)}")
            return
        for name, value in given.value.items():
            here = Given(value=value, path=(*given.path, name))
            self.context.sources[name] = None
            try:
                self.context.sources[name] = self.source(name, here)
            except errors.UsageError as error:
                self.problems.add(here.path, error.message)

    def source(self, name: str, given: Given) -> Source | None:
        keys = open_table(given, tuple(fields.SOURCE_READERS), self.problems)
        read: dict[str, Any] = {}
        for key, each in keys.items():
            try:
                if has_expression(each.value):
                    raise errors.UsageError("an expression has a meaning only in a job")
                read[key] = fields.SOURCE_READERS[key](each, self.context)
            except errors.UsageError as error:
                self.problems.add(each.path, error.message)
        if isinstance(given.value, dict) and "source" not in keys:
            raise errors.UsageError("source is missing: expected an archive, a folder, an image or a URL")
        if "source" not in read:
            return None
        source: Source = read.pop("source")
        return sources.bounded(source.replace(name=name, sha256=read.pop("sha256", source.sha256)), read)

    def defaults(self, given: Given | None) -> _Section:
        if given is None:
            return _Section(settings={}, env={})
        if isinstance(given.value, dict) and "matrix" in given.value:
            self.problems.add((*given.path, "matrix"), "a matrix belongs to a job: [jobs.NAME.matrix]")
            rest = {key: value for key, value in given.value.items() if key != "matrix"}
            given = given.replace(value=rest)
        section = self.section(open_table(given, _SHARED_KEYS, self.problems, fields.LATER))
        self.one_command(section.settings)
        # Read for the problems alone: a job may override every one of them.
        self.read_all(section, expressions=False)
        return section

    def section(self, settings: dict[str, Given]) -> _Section:
        given = settings.pop("env", None)
        env: dict[str, Given] = {}
        if given is not None and isinstance(given.value, dict):
            env = {name: Given(value=value, path=(*given.path, name)) for name, value in given.value.items()}
        elif given is not None:
            self.problems.add(given.path, f'expected a table such as {{CI = "1"}}, got {kind_of(given.value)}')
        return _Section(settings=settings, env=env)

    def one_command(self, settings: dict[str, Given]) -> None:
        if "command" in settings and "run" in settings:
            self.problems.add(settings["run"].path, "command and run exclude each other: expected one of them")

    def jobs(self, given: Given | None, defaults: _Section) -> list[Job]:
        if given is None or not meaning(given.value):
            self.problems.add(given.path if given else (), "there are no jobs: expected at least one [jobs.NAME]")
            return []
        if not isinstance(given.value, dict):
            self.problems.add(given.path, f"expected tables [jobs.NAME], got {kind_of(given.value)}")
            return []
        found: list[Job] = []
        for key, value in given.value.items():
            here = Given(value=value, path=(*given.path, key))
            try:
                check_key(key)
            except errors.UsageError as error:
                self.problems.add(here.path, error.message)
            if isinstance(value, dict):
                found += self.job(key, here, defaults)
            else:
                self.problems.add(here.path, f"expected a table, got {kind_of(value)}")
        return found

    def job(self, key: str, given: Given, defaults: _Section) -> list[Job]:
        own = open_table(given, (*_SHARED_KEYS, "matrix"), self.problems, fields.LATER)
        matrix_given = own.pop("matrix", None)
        section = self.merged(given, self.section(own), defaults)
        cells: tuple[Cell, ...] = (Cell(path=given.path),)
        matrix: Matrix | None = None
        if matrix_given is not None:
            matrix = read_matrix(matrix_given, self.problems)
            cells = expand(matrix, self.problems, self.max_cells) if matrix is not None else ()
        read = self.read_all(section, expressions=False)
        varying = _Section(
            settings={k: g for k, g in section.settings.items() if has_expression(g.value)},
            env={k: g for k, g in section.env.items() if has_expression(g.value)},
        )
        for name in fields.SHARED:
            if name in varying.settings:
                self.problems.add(varying.settings.pop(name).path, "all cells have it in common: it can not vary")
        names = matrix.names if matrix is not None else None
        found: list[Job] = []
        for cell in cells:
            filled = self.filled(varying, cell, names) if varying.settings or varying.env else varying
            found += self.cell(key, cell, section, {**read, **self.read_all(filled, expressions=True)})
        return found

    def merged(self, given: Given, own: _Section, defaults: _Section) -> _Section:
        self.one_command(own.settings)
        settings = {**defaults.settings, **own.settings}
        if "command" in own.settings or "run" in own.settings:
            for key in ("command", "run"):
                if key not in own.settings:
                    settings.pop(key, None)
        if "rootfs" not in settings:
            self.problems.add(given.path, "rootfs is missing: expected a name of [rootfs.NAME] or a path")
        if not {"command", "run", "entrypoint"} & set(settings):
            self.problems.add(
                given.path, "there is neither command nor run: expected one of them; command = [] is the image's own"
            )
        return _Section(settings=settings, env={**defaults.env, **own.env})

    def filled(self, section: _Section, cell: Cell, names: tuple[str, ...] | None) -> _Section:
        """`section` with a cell's values put in; what could not be filled is left out."""

        def put(group: dict[str, Given]) -> dict[str, Given]:
            texts = {k: fill(g.value, cell, names, g.path, self.problems) for k, g in group.items()}
            return {k: group[k].replace(value=text) for k, text in texts.items() if not is_broken(text)}

        return _Section(settings=put(section.settings), env=put(section.env))

    def read_all(self, section: _Section, *, expressions: bool) -> dict[str, object]:
        """What could be read, by key; variables under `("env", name)`-like keys `env.NAME`.

        Args:
            expressions: the values have been filled in, so that a "${{" in them is text. Without, those that
                have an expression are left for their cells.
        """
        read: dict[str, object] = {}
        for key, given in section.settings.items():
            if expressions or not has_expression(given.value):
                value = self.read(key, given)
                if value is not _NOTHING:
                    read[key] = value
        for name, given in section.env.items():
            if expressions or not has_expression(given.value):
                try:
                    read[f"env.{name}"] = fields.env_entry(name, given)
                except errors.UsageError as error:
                    self.problems.add(given.path, error.message)
        return read

    def read(self, key: str, given: Given) -> Any:
        try:
            return fields.READERS[key](given, self.context)
        except errors.UsageError as error:
            self.problems.add(given.path, error.message)
            return _NOTHING

    def cell(self, key: str, cell: Cell, section: _Section, read: dict[str, object]) -> Iterator[Job]:
        """The jobs of one cell: one, or `repeat` of them."""
        repeat = read.get("repeat", 1)
        assert isinstance(repeat, int)
        self.total += repeat
        if self.total > _MOST_JOBS:
            self.problems.add(cell.path, f"the file has more than {_MOST_JOBS} jobs")
            return
        mounts = self.mounts(read)
        self.network(section, read)
        limits = self.limits(section, read)
        for number in range(1, repeat + 1):
            job_id = f"{key}{cell.label} #{number}" if repeat > 1 else f"{key}{cell.label}"
            self.take(_Named(id=job_id, path=cell.path))
            if isinstance(read.get("rootfs"), Source):
                values: dict[str, Any] = {_PLAIN[name]: value for name, value in read.items() if name in _PLAIN}
                values.update(read.get("security-opt", {}))  # type: ignore[call-overload]
                if "run" in read:
                    values.setdefault("entrypoint", ())  # a script is for a shell, whatever the image begins with
                env: Any = tuple(read[f"env.{name}"] for name in section.env if f"env.{name}" in read)
                values["rootfs"] = sources.bounded(values["rootfs"], read)
                yield Job(id=job_id, key=key, matrix=cell.pairs, env=env, mounts=mounts, limits=limits, **values)

    def take(self, named: _Named) -> None:
        """Claims a name; two that differ only in case would share a folder on some file systems."""
        for form in {named.id.casefold(), folder_name(named.id).casefold()}:
            other = self.taken.setdefault(form, named)
            if other is not named:
                whose = f", at {show_path(other.path)}" if other.path != named.path else ""
                same = "the same" if other.id == named.id else quoted(other.id)
                self.problems.add(named.path, f"two jobs would be called {quoted(named.id)} and {same}{whose}")
                return

    def network(self, section: _Section, read: dict[str, Any]) -> None:
        """Ports and names that go with the job's network; what does not is told at its key."""
        if "network" in section.settings and "network" not in read:
            return
        kind = read.get("network", Job.network)
        checks: dict[str, Callable[[Any, str], object]] = {
            "ports": network.check_ports,
            "publish-all": network.check_publish_all,
            "add-hosts": network.check_hosts,
        }
        for key, check in checks.items():
            if key in read:
                try:
                    check(read[key], kind)
                except errors.UsageError as error:
                    self.problems.add(section.settings[key].path, error.message)

    def limits(self, section: _Section, read: dict[str, Any]) -> Limits:
        try:
            return limits.of_keys(read)
        except errors.UsageError as error:
            self.problems.add(section.settings["memory-swap"].path, error.message)
            return Limits()

    def mounts(self, read: dict[str, object]) -> tuple[Mount, ...]:
        """Volumes and tmpfs together; what would hide the kernel's file systems or each other is told."""
        found: list[Mount] = []
        targets: set[str] = set()
        for key in ("volumes", "tmpfs"):
            items = read.get(key, [])
            assert isinstance(items, list)
            for path, mount in items:
                target = normal_path(mount.target)
                if target in RESERVED_TARGETS or target.startswith(("/proc/", "/sys/")):
                    self.problems.add(path, f"can not mount on {target}")
                elif target in targets:
                    self.problems.add(path, f"{target} is mounted twice")
                targets.add(target)
                found.append(mount)
        return tuple(found)


_NOTHING: Any = object()
