"""A plugin of pytest: tests whose commands run in containers, once for each rootfs.

    import pytest

    @pytest.mark.guntainer(rootfs=["alpine.tar.gz", "debian.tar.xz"], run="uname -s")
    def test_it_is_linux(container):
        assert container.stdout == b"Linux\\n"

    @pytest.mark.guntainer(rootfs={"alpine": "alpine.tar.gz"}, volumes=["../src:/src:ro"])
    def test_it_can_be_read(container):
        assert b"main.py\\n" in container.run(["ls", "/src"]).stdout
        container.run("head -n 1 /src/main.py; id -u")

The mark takes the keys of a job in a job file, with `_` for `-`; relative paths are seen from the folder of the test's file.
`rootfs` is one place or several, or a table of them by name, whose values may be those of a [rootfs.NAME]; `services` is a table of
services by name, with the keys of a [services.NAME]. The mark of a class or
a module gives what that of a test does not say. With a `command`, `run` or `entrypoint` the command has run when the test begins,
and the fixture `container` is a Run; without one it is a Runner. A command that fails fails the test, unless the test has looked
at how it ended. What keeps a command from being run at all is an error of the test's set-up.

All containers of a process belong to one supervisor in a thread of its own: a launch costs milliseconds, and they are gone with
the session, however that ends. Nothing here is loaded before the first test with the mark runs.
"""

from __future__ import annotations

import os
import threading
from fnmatch import fnmatchcase

import pytest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, NoReturn

    from guntainer.jobs.model import Job
    from guntainer.report import Exit, Result
    from guntainer.session import Session

MARK = "guntainer"
_PARAMETER = "guntainer_rootfs"
_REFUSED = "guntainer_refused"
_COMMANDS = ("command", "run", "entrypoint")
_TAIL_LINES = 20
_TAIL_BYTES = 4096
_ENDINGS = (".gz", ".xz", ".zst", ".bz2", ".lz4", ".tar", ".tgz", ".txz", ".tzst", ".tbz2", ".cpio", ".zip")
_MARKED = pytest.StashKey["Runner"]()
_SESSION = pytest.StashKey["Session"]()
_one_at_a_time = threading.Lock()


# -- what pytest asks for


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("guntainer", "tests in containers (guntainer)")
    group.addoption("--guntainer-store", metavar="DIR", help="where unpacked archives are kept")
    group.addoption(
        "--guntainer-rootfs",
        metavar="GLOB",
        action="append",
        default=[],
        help="of the tests in containers, only those in a rootfs whose name matches; may be repeated",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers",
        "guntainer(rootfs=…, command=…, …): run a command in a container, once for each rootfs; the keys of a guntainer job",
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    keys = _keys_of(metafunc.definition)
    if keys is None:
        return
    places = _places(keys.get("rootfs"), metafunc.definition.nodeid)
    if _PARAMETER not in metafunc.fixturenames:
        metafunc.fixturenames.append(_PARAMETER)
    metafunc.parametrize(_PARAMETER, [(name, place) for name, place in places], ids=[name for name, _ in places])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker(MARK) is not None and isinstance(item, pytest.Function)]
    if not marked:
        return
    lost = next((item for item in marked if _PARAMETER not in _parameters(item)), None)
    if lost is not None:
        _end(
            config,
            items,
            f"{lost.nodeid}: a method of unittest's can not have @pytest.mark.guntainer; write a function",
        )
        return
    globs = config.getoption("guntainer_rootfs")
    if globs:
        left = [item for item in marked if not any(_matches(_parameters(item)[_PARAMETER], glob) for glob in globs)]
        if len(left) == len(marked):
            _end(config, items, f"--guntainer-rootfs {' '.join(globs)}: no test has such a rootfs")
            return
        gone = set(map(id, left))
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if id(item) not in gone]
    if not config.pluginmanager.has_plugin("guntainer-running"):
        config.pluginmanager.register(_Running(), "guntainer-running")


def _end(config: pytest.Config, items: list[pytest.Item], why: str) -> None:
    """End the session before any test runs.

    Raises:
        UsageError: but in a worker of pytest-xdist, where that would be taken for an error of the machinery: who has started it
            is told, and raises it.
    """
    if not hasattr(config, "workerinput"):
        raise pytest.UsageError(why)
    config.workeroutput[_REFUSED] = why  # type: ignore[attr-defined]
    config.hook.pytest_deselected(items=items[:])
    items.clear()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    """A worker of pytest-xdist has ended: see `_end`."""
    why = getattr(node, "workeroutput", {}).get(_REFUSED)
    if why is not None:
        raise pytest.UsageError(why)


@pytest.fixture
def container(request: pytest.FixtureRequest) -> Run | Runner:
    """What came of the mark's command, a Run; where it has none, a Runner."""
    runner = _runner(request.node)
    if runner.has_command:
        return runner.first()
    runner.check()
    return runner


class _Running:
    """What is done around tests; there only where one has the mark."""

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """With the fixtures: what keeps a command from being run is an error, and no failure of the test."""
        if _PARAMETER in _parameters(item) and _runner(item).has_command:
            _runner(item).first()

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """After the test, if that was good."""
        for run in _runs(item):
            if not run.looked_at and not run.ok:
                pytest.fail(run.story(), pytrace=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> None:
        if call.when == "call" and call.excinfo is not None:
            for run in _runs(item):
                run.show(item)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        """Output may be large, and items live as long as the session."""
        if _MARKED in item.stash:
            del item.stash[_MARKED]

    def pytest_unconfigure(self, config: pytest.Config) -> None:
        session = config.stash.get(_SESSION, None)
        if session is not None:
            session.close()


# -- what a test gets


class Run:
    """How a command in a container has ended, and what it said."""

    def __init__(self, rootfs: str, command: str, result: Result, stdout: bytes, stderr: bytes) -> None:
        self.rootfs = rootfs
        """The name of its rootfs."""
        self.stdout = stdout
        self.stderr = stderr
        self.looked_at = False
        """Whether anybody has asked how it ended."""
        self._told = False
        self._command = command
        self._result = result

    def __repr__(self) -> str:
        return f"<Run in {self.rootfs}: {self._result.exit.describe()}: {self._command}>"

    @property
    def result(self) -> Result:
        """All that is known of it: times, memory, notes."""
        self.looked_at = True
        return self._result

    @property
    def exit(self) -> Exit:
        """How it ended: `reason`, `code`, `signal`, `message`."""
        return self.result.exit

    @property
    def code(self) -> int:
        """The command's own 0..255, 124 after a timeout, 126 or 127 where it could not be executed, 128+N by signal N."""
        return self.exit.code

    @property
    def ok(self) -> bool:
        return self.exit.ok

    def check(self) -> Run:
        """Fail the test if the command has failed; returns this very Run."""
        __tracebackhide__ = True
        if not self.ok:
            pytest.fail(self.story())
        return self

    def story(self) -> str:
        """How it ended, and the end of what it said."""
        self._told = True
        parts = [f"in {self.rootfs}: {self._result.exit.describe()}: {self._command}"]
        for name, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            if text:
                parts.append(f"the end of its {name}:\n{_tail(text)}")
        return "\n".join(parts)

    def show(self, item: pytest.Item) -> None:
        """Put what it said into the report of a test that fails, if it is not there already."""
        if self._told:
            return
        for name, text in (("stdout", self.stdout), ("stderr", self.stderr)):
            if text:
                item.add_report_section("call", f"{name} in {self.rootfs}: {self._command}", _tail(text))


class Runner:
    """Runs commands in containers for one test: each in a fresh one."""

    def __init__(self, item: pytest.Item, name: str, place: object, keys: Mapping[str, Any]) -> None:
        self.rootfs = name
        """The name of the rootfs."""
        self.has_command = any(key in keys for key in _COMMANDS)
        """Whether the mark has one."""
        self.runs: list[Run] = []
        self._item = item
        self._place = place
        self._keys = keys

    def __repr__(self) -> str:
        return f"<Runner in {self.rootfs}>"

    def run(self, command: str | list[str] | tuple[str, ...], **more: Any) -> Run:
        """Run a command in a fresh container.

        Args:
            command: words; or one text, which the rootfs's /bin/sh runs.
            more: other keys of a job, for this command alone.
        """
        __tracebackhide__ = True
        key = "run" if isinstance(command, str) else "command"
        kept = {name: value for name, value in self._keys.items() if name not in ("run", "command")}
        return self._run({**kept, key: command, **_with_hyphens(more)})

    def first(self) -> Run:
        """What came of the mark's own command, which is run once."""
        __tracebackhide__ = True
        return self.runs[0] if self.runs else self._run(dict(self._keys))

    def check(self) -> None:
        """Fail the test if its mark makes no sense, whatever command will come."""
        self._job({**self._keys, "command": ["true"]})

    def _job(self, keys: dict[str, Any]) -> Job:
        import re

        from guntainer import errors

        try:
            return _job(keys, self.rootfs, self._place, self._item)
        except errors.JobFileError as error:
            place = re.compile(r":1:\d+: (?:jobs\.test[.:])?")
            _refuse("\n".join(place.sub(": ", text, count=1) for text in error.problems))
        except errors.GuntainerError as error:
            _refuse(f"{self._item.nodeid}: {error}")

    def _run(self, keys: dict[str, Any]) -> Run:
        __tracebackhide__ = True
        from guntainer import errors, report

        job = self._job(keys)
        try:
            result, stdout, stderr = _session(self._item.config).run(job)
        except errors.GuntainerError as error:
            _refuse(str(error))
        if result.exit.reason == report.SETUP and result.exit.code == errors.OWN_FAILURE:
            _refuse(f"in {self.rootfs}: {result.exit.message}")
        run = Run(self.rootfs, _shown(keys, job), result, stdout, stderr)
        self.runs.append(run)
        return run


def _runs(item: pytest.Item) -> list[Run]:
    """What was run for a test."""
    runner = item.stash.get(_MARKED, None)
    return [] if runner is None else runner.runs


def _runner(item: pytest.Item) -> Runner:
    found = item.stash.get(_MARKED, None)
    if found is None:
        keys = _keys_of(item)
        if keys is None or _PARAMETER not in _parameters(item):
            _refuse("container: this test has no @pytest.mark.guntainer(rootfs=…)")
        name, place = _parameters(item)[_PARAMETER]
        found = item.stash[_MARKED] = Runner(item, name, place, {k: v for k, v in keys.items() if k != "rootfs"})
    return found


def _session(config: pytest.Config) -> Session:
    with _one_at_a_time:  # a test may have threads
        found = config.stash.get(_SESSION, None)
        if found is None:
            from guntainer.session import Session

            found = config.stash[_SESSION] = Session(store=config.getoption("guntainer_store"))
        return found


# -- what a mark says


def _keys_of(item: pytest.Item) -> dict[str, Any] | None:
    """The keys of a test's mark, and of those around it where it says nothing; None: there is none."""
    found: dict[str, Any] | None = None
    for mark in item.iter_markers(MARK):  # the closest one comes first
        if mark.args:
            _refuse(
                f"{item.nodeid}: @pytest.mark.guntainer: expected rootfs=…, command=… and so on, got {mark.args[0]!r}"
            )
        own = _with_hyphens(mark.kwargs)
        around = found or {}
        if any(key in around for key in _COMMANDS):
            own = {key: value for key, value in own.items() if key not in _COMMANDS}
        found = {**own, **around}
    return found


def _with_hyphens(keys: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in keys.items()}


def _places(given: object, nodeid: str) -> list[tuple[str, object]]:
    """(name, place) of each rootfs of a mark."""
    if isinstance(given, dict):
        found = list(given.items())
    elif isinstance(given, list | tuple):
        found = [(_name(one), one) for one in given]
    else:
        found = [(_name(given), given)]
    good = [one for one in found if isinstance(one[0], str) and isinstance(one[1], str | os.PathLike | dict) and one[1]]
    if not found or len(good) < len(found):
        _refuse(
            f"{nodeid}: @pytest.mark.guntainer(rootfs={given!r}): expected a path, a list of paths, or a table of them by name"
        )
    return found


def _name(place: object) -> str:
    """What a rootfs is called where it has no name: `alpine-3.20` of images/alpine-3.20.tar.gz."""
    text = os.fspath(place) if isinstance(place, str | os.PathLike) else ""
    text = str(text).rstrip("/").rpartition("/")[2]
    while text.endswith(_ENDINGS):
        text = text[: text.rindex(".")]
    return text or "rootfs"


def _matches(parameter: tuple[str, object], glob: str) -> bool:
    name, place = parameter
    return fnmatchcase(name, glob) or (isinstance(place, str | os.PathLike) and fnmatchcase(os.fspath(place), glob))


def _parameters(item: pytest.Item) -> Mapping[str, Any]:
    spec = getattr(item, "callspec", None)
    return spec.params if spec is not None else {}


def _job(keys: dict[str, Any], name: str, place: object, item: pytest.Item) -> Job:
    """The Job that keys of a mark stand for.

    Raises:
        JobFileError, UsageError: they make no sense.
    """
    import json

    from guntainer import errors, jobfile
    from guntainer.jobs.load import load

    source = place if isinstance(place, dict) else {"source": os.fspath(place)}  # type: ignore[call-overload]
    services = _services(keys)
    job = {**keys, "rootfs": name, "services": list(services)}
    try:
        text = json.dumps({"rootfs": {name: source}, "services": services, "jobs": {"test": job}}, default=os.fspath)
    except (TypeError, ValueError) as error:
        raise errors.UsageError(f"@pytest.mark.guntainer: {error}") from None
    base = str(item.path.parent)
    jobs = load(text.encode(), path=item.nodeid, base=base, format="json", read=jobfile.read).jobs
    if len(jobs) != 1:
        raise errors.UsageError(
            f"@pytest.mark.guntainer: {len(jobs)} jobs come of it", hint="parametrize the test instead"
        )
    return jobs[0]


def _services(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The services of a mark, by name.

    Raises:
        UsageError: they are something else; or they, or the test, are to have secrets.
    """
    from guntainer import errors

    found = keys.get("services", {})
    if not isinstance(found, dict):
        raise errors.UsageError(
            f"@pytest.mark.guntainer: services: expected a table by name, got {found!r}",
            hint='write services={"db": {"rootfs": …, "command": …}}',
        )
    if any("secrets" in table for table in (keys, *found.values()) if isinstance(table, dict)):
        raise errors.UsageError(
            "@pytest.mark.guntainer: secrets: there are none in tests, whose output is not masked", hint="give it env"
        )
    return found


def _shown(keys: Mapping[str, Any], job: Job) -> str:
    """A command on one line."""
    import shlex

    from guntainer.report_text import visible

    script = keys.get("run")
    if isinstance(script, str):
        first, more, _ = script.strip().partition("\n")
        return visible(f"{first} …" if more else first)
    return visible(shlex.join((*(job.entrypoint or ()), *job.command))) or "the image's own command"


def _tail(text: bytes) -> str:
    lines = text[-_TAIL_BYTES:].decode(errors="replace").splitlines()
    return "\n".join(line.replace("\x1b", "\\x1b") for line in lines[-_TAIL_LINES:])


def _refuse(text: str) -> NoReturn:
    __tracebackhide__ = True
    raise pytest.fail.Exception(text, pytrace=False) from None
