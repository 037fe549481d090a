"""A job file becomes jobs: `load(bytes) → JobFile`, or one error with everything that is wrong with it.

Pure: the caller reads the file and says where it lay. Nothing is looked up on the host but $HOME, for `~/`.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs import extending, fields, policy, services, setting, sources, things, together
from guntainer.jobs.matrix import MAX_CELLS, Cell, Matrix, expand, fill, has_expression, is_broken, read_matrix
from guntainer.jobs.model import Job, Source
from guntainer.jobs.names import check_key, folder_name
from guntainer.jobs.parse import is_text, meaning
from guntainer.jobs.problems import Given, Problems, show_path
from guntainer.jobs.reading import Context, kind_of, open_table
from guntainer.jobs.values import quoted
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from guntainer.jobs.problems import Path

VERSION = 1
_MOST_JOBS = 100_000
_TOP = (
    "version",
    "name",
    "description",
    "defaults",
    "rootfs",
    "services",
    "secrets",
    "jobs",
    "max-parallel",
    "fail-fast",
    "timeout",
    extending.KEY,
)
_JOB_KEYS = (*fields.READERS, "env", "matrix")
_SHARED_KEYS = tuple(key for key in _JOB_KEYS if key not in fields.OF_A_JOB)
"""Those that [defaults] may have as well."""
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
    "if": "condition",
    "stage": "stage",
    "allow-failure": "allow_failure",
    "retry": "retry",
    "priority": "priority",
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
    name: str = ""
    """What the batch is called in reports."""
    extends: tuple[str, ...] = ()
    """The absolute paths of the files that it takes over from, directly or not."""
    warnings: tuple[str, ...] = ()
    max_parallel: int | None = None
    """Of the whole batch."""
    fail_fast: bool = False
    """The first failure cancels the whole batch."""
    timeout_s: float | None = None
    """After so long the whole batch is ended."""
    places: Mapping[str, tuple[str, int]] = {}
    """By a job's key, the file and line where it stands; where that was asked for."""


class _Section(Value):
    """What [defaults] or a job sets: single values by key, variables by name."""

    settings: dict[str, Given]
    env: dict[str, Given]

    @property
    def paths(self) -> dict[str, Path]:
        """Where each of the settings stands, by key."""
        return {key: given.path for key, given in self.settings.items()}


class _Named(Value):
    """The name of one job to be, and what to blame for it."""

    id: str
    path: Path


def load(
    text: bytes,
    *,
    path: str,
    base: str,
    format: str | None = None,  # noqa: A002
    max_cells: int = MAX_CELLS,
    read: extending.Read | None = None,
    settings: tuple[setting.Setting, ...] = (),
    here: str = "",
    placed: bool = False,
) -> JobFile:
    """Read a job file.

    Args:
        path: how the user calls the file; messages begin with it.
        base: the absolute path of the folder that relative paths in it are seen from.
        format: "toml", "yaml" or "json"; None: by the ending of `path`, else by the look of the text.
        max_cells: how many cells a matrix may have.
        read: the bytes of the file at an absolute path, for `extends`; None: no other file can be read.
        settings: what --set says.
        here: the absolute path of the folder that relative paths in those are seen from; "": `base`.
        placed: tell where each job stands, which takes as long as the reading.

    Raises:
        JobFileError: with every problem of the file, in its order.
        UsageError: a setting does not fit to it.
    """
    problems = Problems()
    joined = extending.join(text, name=path, base=base, notation=format, read=read, problems=problems)
    joined.set(settings, here or base)
    joined.take_over(problems)
    reading = _Reading(problems, joined, base, max_cells)
    found = reading.file(Given(value=joined.root, path=()))
    problems.raise_all(path, joined.locate, joined.trace)
    return found.replace(
        path=path,
        extends=joined.others,
        warnings=problems.warnings(path, joined.locate, joined.trace),
        places=_places(found.jobs, joined) if placed else {},
    )


def _places(jobs: tuple[Job, ...], joined: extending.Joined) -> dict[str, tuple[str, int]]:
    found = {}
    for key in dict.fromkeys(job.key for job in jobs):
        origin = joined.trace(("jobs", key))
        found[key] = origin.name, origin.place[0]
    return found


class _Reading:
    """One pass over one file."""

    def __init__(self, problems: Problems, joined: extending.Joined, base: str, max_cells: int) -> None:
        self.problems = problems
        self.context = Context(base=base, sources={}, problems=problems, bases=joined.base_of)
        self.max_cells = max_cells
        self.taken: dict[str, _Named] = {}
        self.total = 0
        self.nodes: list[policy.Node] = []

    def file(self, root: Given) -> JobFile:
        top = open_table(root, _TOP, self.problems)
        self.version(top.get("version"))
        for key in ("name", "description"):
            if key in top and not is_text(top[key].value):
                self.problems.add(top[key].path, f"expected a text, got {kind_of(top[key].value)}")
        self.sources(top.get("rootfs"))
        secrets = things.all_secrets(top.get("secrets"), self.context, self.problems)
        self.context = self.context.replace(secrets=secrets)
        self.services = services.Services(top.get("services"), self)
        defaults = self.defaults(top.get("defaults"))
        return JobFile(
            path="",
            jobs=tuple(self.jobs(top.get("jobs"), defaults)),
            max_parallel=self.read("max-parallel", top["max-parallel"]) if "max-parallel" in top else None,
            fail_fast=bool(self.read("fail-fast", top["fail-fast"])) if "fail-fast" in top else False,
            timeout_s=self.read("timeout", top["timeout"]) if "timeout" in top else None,
            name=str(top["name"].value) if "name" in top else "",
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
                read[key] = fields.SOURCE_READERS[key](each, self.context.at(each.path))
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
        if isinstance(given.value, dict):
            misplaced = [key for key in given.value if key in fields.OF_A_JOB]
            for key in misplaced:
                self.problems.add((*given.path, key), fields.OF_A_JOB[key])
            given = given.replace(value={key: value for key, value in given.value.items() if key not in misplaced})
        section = self.section(open_table(given, _SHARED_KEYS, self.problems))
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
            template = key.startswith(extending.TEMPLATE)
            try:
                check_key(key[len(extending.TEMPLATE) :] if template else key)
            except errors.UsageError as error:
                self.problems.add(here.path, error.message)
            if isinstance(value, dict) and template:
                self.template(here)
            elif isinstance(value, dict):
                found += self.job(key, here, defaults)
            else:
                self.problems.add(here.path, f"expected a table, got {kind_of(value)}")
        if not found and not self.problems:
            self.problems.add(
                given.path, "there are only templates: expected at least one job without a dot before its name"
            )
        needs = policy.Graph(self.nodes, given.value, self.problems).needs()
        return [job.replace(needs=needs[job.id]) if needs[job.id] else job for job in found]

    def template(self, given: Given) -> None:
        """A job that is only taken over from: read for the problems alone."""
        own = open_table(given, _JOB_KEYS, self.problems)
        matrix = own.pop("matrix", None)
        if matrix is not None:
            read_matrix(matrix, self.problems)
        section = self.section(own)
        self.one_command(section.settings)
        self.read_all(section, expressions=False)

    def job(self, key: str, given: Given, defaults: _Section) -> list[Job]:
        own = open_table(given, _JOB_KEYS, self.problems)
        matrix_given = own.pop("matrix", None)
        section = self.merged(given, self.section(own), defaults)
        cells: tuple[Cell, ...] = (Cell(path=given.path),)
        matrix: Matrix | None = None
        if matrix_given is not None:
            matrix = read_matrix(matrix_given, self.problems)
            cells = expand(matrix, self.problems, self.max_cells) if matrix is not None else ()
        read = self.read_all(section, expressions=False)
        varying = _Section(
            settings={k: g for k, g in section.settings.items() if fields.varies(k, g)},
            env={k: g for k, g in section.env.items() if has_expression(g.value)},
        )
        for name in fields.SHARED:
            if name in varying.settings:
                self.problems.add(varying.settings.pop(name).path, "all cells have it in common: it can not vary")
        names = matrix.names if matrix is not None else None
        found: list[Job] = []
        for cell in cells:
            filled = self.filled(varying, cell, names) if varying.settings or varying.env else varying
            own_read = self.services.settled(section, {**read, **self.read_all(filled, expressions=True)})
            self.condition(section, own_read, cell, names)
            found += self.services.added(self.cell(key, cell, section, own_read), own_read, cell, names)
        return found

    def condition(self, section: _Section, read: dict[str, Any], cell: Cell, names: tuple[str, ...] | None) -> None:
        """Puts the cell's values into what was read of `if`."""
        if "if" in read:
            try:
                read["if"] = policy.filled(read["if"], cell, names)
            except errors.UsageError as error:
                self.problems.add(section.settings["if"].path, error.message)
        elif read.get("stage") == policy.TEARDOWN:
            read["if"] = policy.ALWAYS

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
            if expressions or not fields.varies(key, given):
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
            return fields.READERS[key](given, self.context.at(given.path))
        except errors.UsageError as error:
            self.problems.add(given.path, error.message)
            return _NOTHING

    def cell(self, key: str, cell: Cell, section: _Section, read: dict[str, Any]) -> Iterator[Job]:
        """The jobs of one cell: one, or `repeat` of them."""
        repeat = read.get("repeat", 1)
        assert isinstance(repeat, int)
        self.total += repeat
        if self.total > _MOST_JOBS:
            self.problems.add(cell.path, f"the file has more than {_MOST_JOBS} jobs")
            return
        paths = section.paths
        mounts = together.mounts(read, paths, self.problems)
        together.check_secrets(read, paths, section.env, self.problems)
        together.check_network(read, paths, self.problems)
        limits = together.limits_of(read, paths, self.problems)
        for number in range(1, repeat + 1):
            job_id = f"{key}{cell.label} #{number}" if repeat > 1 else f"{key}{cell.label}"
            self.take(_Named(id=job_id, path=cell.path))
            self.nodes.append(
                policy.Node(
                    id=job_id,
                    key=key,
                    cell=f"{key}{cell.label}",
                    stage=read.get("stage", ""),
                    wanted=read.get("needs", ()),
                )
            )
            if isinstance(read.get("rootfs"), Source):
                values: dict[str, Any] = {_PLAIN[name]: value for name, value in read.items() if name in _PLAIN}
                values.update(read.get("security-opt", {}))
                if "run" in read:
                    values.setdefault("entrypoint", ())  # a script is for a shell, whatever the image begins with
                env: Any = tuple(read[f"env.{name}"] for name in section.env if f"env.{name}" in read)
                values.update(things.of_job(read))
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


_NOTHING: Any = object()
