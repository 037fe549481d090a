"""[services.NAME] of a job file: containers beside a job's own, with the values of the cell that they are started for. Pure.

A service has the keys of a job that make sense for what is started and stopped with another one. Of [defaults] it takes
nothing: those are of jobs.
"""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs import fields, sources, things, together
from guntainer.jobs.limits import IO_KINDS
from guntainer.jobs.matrix import fill, has_expression, is_broken
from guntainer.jobs.model import Job, Service, Source
from guntainer.jobs.network import GATEWAY
from guntainer.jobs.parse import meaning
from guntainer.jobs.problems import Given
from guntainer.jobs.reading import Context, items, kind_of, number_or_text, open_table, text
from guntainer.jobs.values import check_hostname, near, parse_duration, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from typing import Any, Protocol

    from guntainer.jobs.matrix import Cell
    from guntainer.jobs.problems import Path, Problems

    class Section(Protocol):
        @property
        def settings(self) -> dict[str, Given]: ...
        @property
        def env(self) -> dict[str, Given]: ...
        @property
        def paths(self) -> dict[str, Path]: ...

    class Reading(Protocol):
        """What `load` lends."""

        problems: Problems
        context: Context

        def section(self, settings: dict[str, Given]) -> Any: ...
        def one_command(self, settings: dict[str, Given]) -> None: ...
        def read_all(self, section: Any, *, expressions: bool) -> dict[str, Any]: ...
        def filled(self, section: Any, cell: Cell, names: tuple[str, ...] | None) -> Any: ...


_PLAIN = {  # key in the file → field of Job
    **{key: key for key in ("rootfs", "command", "entrypoint", "workdir", "user", "hostname", "privileged", "stdin")},
    "run": "command",
    "add-hosts": "add_hosts",
    "cap-add": "cap_add",
    "cap-drop": "cap_drop",
    "root-emulation": "root_emulation",
    "init": "init",
    "read-only": "read_only",
    "scratch": "scratch",
    "stop-signal": "stop_signal",
    "stop-timeout": "stop_timeout_s",
}
_LIMITS = ("memory", "memory-swap", "cpus", "cpuset-cpus", "pids-limit", "blkio-weight", *IO_KINDS, "ulimits", "limits")
OWN = ("ready", "ready-port", "ready-timeout")
_GIVEN = ("workspace", "cache", "secrets")
KEYS = (*_PLAIN, *fields.OF_SOURCE, *_LIMITS, "volumes", "tmpfs", "security-opt", *_GIVEN, "env", *OWN)
"""Every key of [services.NAME]."""
_IN_ITS_NETWORK = "a service is in the network of the job that it is started for: this belongs there"
_NOT = {
    "timeout": "a service lives as long as the job that it is started for: ready-timeout bounds its start",
    "matrix": "a service has no matrix of its own: ${{ matrix.NAME }} is of the job that it is started for",
    "needs": "a service needs nothing: it is started when its job is",
    "artifacts": "what a service leaves behind is gone with it: mount a workspace, or copy it in a job",
    "services": "a service has no services: name all of them at the job",
    **dict.fromkeys(("network", "ports", "publish-all", "dns"), _IN_ITS_NETWORK),
}
_SHELL = ("/bin/sh", "-e", "-c")
_LAST_PORT = 65535
_LONGEST_NAME = 63  # of one part of a host's name, and of a log's


def _ready(given: Given, context: Context) -> tuple[str, ...]:
    if isinstance(given.value, str):
        if not text(given).strip():
            raise errors.UsageError("the script is empty")
        return (*_SHELL, text(given))
    words = tuple(str(word) for _, word in items(given, context, ' such as ["pg_isready"], or a script', _word))
    if isinstance(given.value, list) and not (words and words[0]):
        raise errors.UsageError("the command is empty")
    return words


def _word(given: Given) -> str:
    return "" if given.value == "" else text(given)


def _port(given: Given, _context: Context) -> int:
    value = meaning(given.value)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LAST_PORT:
        raise errors.UsageError(f"expected a port from 1 to {_LAST_PORT}, got {kind_of(value)}")
    return value


def _timeout(given: Given, _context: Context) -> float:
    seconds = parse_duration(number_or_text(given))
    if not seconds:
        raise errors.UsageError("expected a time above 0")
    return seconds


_OWN_READERS: dict[str, Callable[[Given, Context], object]] = {
    "ready": _ready,
    "ready-port": _port,
    "ready-timeout": _timeout,
}
assert tuple(_OWN_READERS) == OWN


class _Table:
    """One [services.NAME]: its sections, and what of them is the same for every cell."""

    def __init__(self, given: Given, section: Section, own: dict[str, Given]) -> None:
        self.given = given
        self.section = section
        self.own = own
        self.read: dict[str, Any] = {}


class Services:
    """All services of a file.

    Args:
        given: the table `services`; None: there is none.
    """

    def __init__(self, given: Given | None, reading: Reading) -> None:
        self._reading = reading
        self._problems = reading.problems
        self._tables: dict[str, _Table] = {}
        self._made: dict[tuple[str, tuple[tuple[str, str], ...]], Service | None] = {}
        if given is None:
            return
        if not isinstance(given.value, dict):
            self._problems.add(given.path, f"expected tables [services.NAME], got {kind_of(given.value)}")
            return
        for name, value in given.value.items():
            self._table(name, Given(value=value, path=(*given.path, name)))

    # -- the tables

    def _table(self, name: str, given: Given) -> None:
        try:
            check_name(name)
        except errors.UsageError as error:
            self._problems.add(given.path, error.message)
        settings = open_table(self._without_others(given), KEYS, self._problems)
        self._reading.one_command(settings)
        if "ready" in settings and "ready-port" in settings:
            self._problems.add(
                settings["ready-port"].path, "ready and ready-port exclude each other: expected one of them"
            )
        if isinstance(given.value, dict) and "rootfs" not in settings:
            self._problems.add(given.path, "rootfs is missing: expected a name of [rootfs.NAME] or a path")
        own = {key: settings.pop(key) for key in OWN if key in settings}
        table = _Table(given, self._reading.section(settings), own)
        table.read = self._reading.read_all(table.section, expressions=False)
        table.read.update(self._read_own(own, expressions=False))
        self._tables[name] = table

    def _without_others(self, given: Given) -> Given:
        """Without the keys of a job that a service can not have, which is told."""
        if not isinstance(given.value, dict):
            return given
        kept = {}
        for key, value in given.value.items():
            why = _NOT.get(key.replace("_", "-")) if isinstance(key, str) else None
            if why:
                self._problems.add((*given.path, key), why)
            else:
                kept[key] = value
        return given.replace(value=kept)

    def _read_own(self, own: Mapping[str, Given], *, expressions: bool) -> dict[str, object]:
        read: dict[str, object] = {}
        for key, given in own.items():
            if expressions or not has_expression(given.value):
                try:
                    read[key] = _OWN_READERS[key](given, self._reading.context)
                except errors.UsageError as error:
                    self._problems.add(given.path, error.message)
        return read

    # -- the services of one cell

    def settled(self, section: Section, read: dict[str, Any]) -> dict[str, Any]:
        """What was read of a job, with the network that its services need, where it says nothing of one.

        In the host's, two cells would want the same port.
        """
        if not read.get("services") or "network" in section.settings:
            return read
        addresses = [address for _, address in read.get("add-hosts", ())]
        private = read.get("ports") or read.get("publish-all") or GATEWAY in addresses
        return {**read, "network": "private" if private else "auto"}

    def added(
        self, jobs: Iterable[Job], read: dict[str, Any], cell: Cell, names: tuple[str, ...] | None
    ) -> Iterator[Job]:
        """The jobs of one cell, with the services that they name.

        Args:
            names: every name of the job's matrix; None: the job has no matrix.
        """
        named = read.get("services")
        if not named:
            yield from jobs
            return
        found: dict[str, Service] = {}
        seen: set[str] = set()
        for path, name in named:
            if name in seen:
                self._problems.add(path, f"service {quoted(name)} is named twice")
            elif name not in self._tables:
                self._problems.add(path, f"no {quoted(name)} in [services]{near(name, self._tables)}")
            elif (service := self._service(name, cell, names)) is not None:
                found[name] = service
            seen.add(name)
        for job in jobs:
            yield job.replace(services=tuple(found.values()))

    def _service(self, name: str, cell: Cell, names: tuple[str, ...] | None) -> Service | None:
        """None, and what is wrong is told."""
        table = self._tables[name]
        section, own = self._varying(table)
        varies = bool(section.settings or section.env or own)
        key = (name, cell.pairs if varies and names is not None else ())
        if varies and names is None:
            return self._make(name, table, self._filled(table, section, own, cell, names))  # which fails, and says so
        if key not in self._made:
            read = self._filled(table, section, own, cell, names) if varies else table.read
            self._made[key] = self._make(name, table, read)
        return self._made[key]

    def _varying(self, table: _Table) -> tuple[Any, dict[str, Given]]:
        def some(group: dict[str, Given]) -> dict[str, Given]:
            return {key: given for key, given in group.items() if has_expression(given.value)}

        section: Any = table.section
        varying = section.replace(settings=some(section.settings), env=some(section.env))
        return varying, some(table.own)

    def _filled(
        self, table: _Table, section: Any, own: dict[str, Given], cell: Cell, names: tuple[str, ...] | None
    ) -> dict[str, Any]:
        filled = self._reading.filled(section, cell, names)
        values = {key: fill(given.value, cell, names, given.path, self._problems) for key, given in own.items()}
        own = {key: own[key].replace(value=value) for key, value in values.items() if not is_broken(value)}
        return {
            **table.read,
            **self._reading.read_all(filled, expressions=True),
            **self._read_own(own, expressions=True),
        }

    def _make(self, name: str, table: _Table, read: dict[str, Any]) -> Service | None:
        if not isinstance(read.get("rootfs"), Source):
            return None
        values: dict[str, Any] = {_PLAIN[key]: value for key, value in read.items() if key in _PLAIN}
        values.update(read.get("security-opt", {}))
        if "run" in read:
            values.setdefault("entrypoint", ())
        values.setdefault("hostname", name)
        values["rootfs"] = sources.bounded(values["rootfs"], read)
        values["env"] = tuple(read[f"env.{key}"] for key in table.section.env if f"env.{key}" in read)
        paths, env = table.section.paths, table.section.env
        values["mounts"] = together.mounts(read, paths, self._problems)
        together.check_secrets(read, paths, env, self._problems)
        values.update(things.of_job(read))
        values["limits"] = together.limits_of(read, paths, self._problems)
        timeout = {"ready_timeout_s": read["ready-timeout"]} if "ready-timeout" in read else {}
        return Service(
            name=name,
            job=Job(id=name, key=name, **values),
            ready=read.get("ready", ()),
            ready_port=read.get("ready-port"),
            **timeout,
        )


def check_name(name: str) -> str:
    """`name`, when it can name a service: it is a host's name for its job.

    Raises:
        UsageError: it can not.
    """
    try:
        fine = len(name) <= _LONGEST_NAME and check_hostname(name) == name and name not in ("localhost", ".", "..")
    except errors.UsageError:
        fine = False
    if not fine:
        raise errors.UsageError(
            f"{quoted(name)} can not name a service: expected a host's name of up to {_LONGEST_NAME} letters, digits and -"
        )
    return name
