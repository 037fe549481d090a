"""A GitHub workflow's jobs as a job file: what can be carried over is, what can not is a comment there and a warning. Pure.

What is known: <https://docs.github.com/actions/reference/workflow-syntax-for-github-actions>. Nothing of the workflow is trusted:
each job is read as a job of ours before it is put into the file, and left out, as a comment, where it would be wrong.
"""

from __future__ import annotations

import re

from guntainer import errors
from guntainer.jobs import conditions
from guntainer.jobs.load import load
from guntainer.jobs.matrix import scalar_text
from guntainer.jobs.parse import meaning, parse
from guntainer.jobs.problems import Problems
from guntainer.jobs.values import near, quoted
from guntainer.starter import github_matrix, github_steps, toml, writing
from guntainer.starter.github_words import EXPRESSION, MATRIX, SECRET, Words, bare
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.jobs.problems import Path

_MOST_JOBS = 256
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_IMAGE_OF = {"ubuntu-latest": "ubuntu:24.04", "ubuntu-slim": "ubuntu:24.04"}
_UBUNTU = re.compile(r"ubuntu-(\d\d\.\d\d)(?:-arm)?")
_TIMEOUT = "6h"  # GitHub's
_SILENT = ("permissions", "concurrency", "name", "defaults", "steps", "strategy", "env")
_MOST_LINE = 100


class Converted(Value):
    """A workflow as a job file."""

    text: str
    warnings: tuple[str, ...]
    """A line each, with its place in the workflow."""


class _Job(Value):
    key: str
    head: tuple[str, ...] = ()
    """Comments above the job's table."""
    settings: dict[str, object]
    env: dict[str, str]
    matrix: dict[str, object]

    def lines(self, *, needs: bool = True) -> list[str]:
        """As it stands in the file."""
        table = f"jobs.{toml.key(self.key)}"
        left = {key: value for key, value in self.settings.items() if needs or key != "needs"}
        found = [*self.head, f"[{table}]", *(toml.entry(*each) for each in left.items())]
        if self.env:
            found += [f"[{table}.env]", *(toml.entry(*each) for each in self.env.items())]
        if self.matrix:
            found += [f"[{table}.matrix]", *(toml.entry(*each) for each in self.matrix.items())]
        return found


def convert(text: bytes, *, name: str, inside: str = ".") -> Converted:
    """Make a job file of a workflow.

    Args:
        name: of the workflow's file, for messages.
        inside: the project's folder, seen from where the job file will lie.

    Raises:
        JobFileError: it is not YAML, or no workflow, or none of its jobs has a meaning here.
    """
    problems = Problems()
    document = parse(text, name=name, notation="yaml", problems=problems)
    root = document.root
    jobs = root.get("jobs") if isinstance(root, dict) else None
    if not isinstance(root, dict) or not isinstance(jobs, dict) or not jobs:
        problems.add(("jobs",), "there are no jobs: expected a workflow of GitHub's, as in .github/workflows")
    elif len(jobs) > _MOST_JOBS:
        problems.add(("jobs",), f"more than {_MOST_JOBS} jobs")
    problems.raise_all(name, document.locate)
    assert isinstance(root, dict)
    assert isinstance(jobs, dict)
    workflow = _Workflow(root, problems)
    found = workflow.text(jobs, name, inside)
    problems.raise_all(name, document.locate)
    return Converted(text=found, warnings=problems.warnings(name, document.locate))


def _problem(lines: list[str]) -> str:
    """What a batch would say of a job file; "" where it would take it."""
    try:
        load("\n".join([*lines, ""]).encode(), path="", base="/", format="toml")
    except errors.JobFileError as error:
        return error.problems[0].split(": ", 1)[-1]
    return ""


def _service(name: str, keys: dict[str, object]) -> list[str]:
    return [f"[services.{toml.key(name)}]", *(toml.entry(*each) for each in keys.items())]


def _table(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


class _Workflow:
    def __init__(self, root: dict[str, object], problems: Problems) -> None:
        self.root = root
        self.problems = problems
        self.warn: Callable[[Path, str], None] = problems.warn
        self.runners: dict[str, str] = {}
        """Name for [rootfs.NAME] → its source."""
        self.secrets: dict[str, None] = {}
        self.left: list[tuple[Path, str]] = []
        """The jobs that have no meaning here, and why."""
        self.services: dict[str, dict[str, object]] = {}
        """Name for [services.NAME] → its keys."""

    def text(self, jobs: dict[str, object], name: str, inside: str) -> str:
        """The whole file."""
        made: dict[str, _Job | list[str]] = {}
        for key, value in jobs.items():
            made[key] = self.job(key, value)
        good = {key: job for key, job in made.items() if isinstance(job, _Job)}
        self.check(good, made)
        if not any(isinstance(each, _Job) for each in made.values()):
            self.problems.add(("jobs",), "none of the jobs can be carried over")
            for path, why in self.left:
                self.problems.add(path, f"left out: {why}")
            return ""
        lines = [
            toml.comment(f"Jobs for `guntainer batch`, made from {name}.\n{writing.HEAD}\n{_RUNNERS}"),
            "version = 1",
            "",
        ]
        lines += writing.defaults(inside, _TIMEOUT)
        lines += self.tables()
        for each in made.values():
            lines += ["", *(each.lines() if isinstance(each, _Job) else each)]
        return "\n".join(lines) + "\n"

    def tables(self) -> list[str]:
        """[rootfs.NAME], [secrets.NAME] and [services.NAME] that the jobs speak of."""
        lines: list[str] = []
        for runner, source in self.runners.items():
            lines += ["", f"[rootfs.{toml.key(runner)}]", toml.entry("source", source)]
        for name in self.secrets:
            lines += ["", f"[secrets.{toml.key(name)}]", toml.entry("env", name)]
        for name, keys in self.services.items():
            lines += ["", *_service(name, keys)]
        return lines

    def check(self, good: dict[str, _Job], made: dict[str, _Job | list[str]]) -> None:
        """Leave out what would be wrong in the file; whoever needs that needs it no more."""
        for key, job in list(good.items()):
            problem = self.wrong(job)
            if problem:
                self.warn(("jobs", key), f"left out: {problem}")
                self.left.append((("jobs", key), problem))
                made[key] = toml.commented([f"left out: {problem}", *job.lines()])
                del good[key]
        changed = True
        while changed:
            changed = False
            for key, job in list(good.items()):
                needs = job.settings.get("needs")
                here = [each for each in needs if each in good] if isinstance(needs, list) else []
                if isinstance(needs, list) and len(here) < len(needs):
                    for gone in set(needs) - set(here):
                        self.warn(("jobs", key, "needs"), f"{quoted(str(gone))} is left out{near(str(gone), good)}")
                    rest = {name: value for name, value in job.settings.items() if name != "needs"}
                    good[key] = job.replace(settings={**rest, "needs": here} if here else rest)
                    made[key] = good[key]
                    changed = True
        if good and self.loads([line for job in good.values() for line in ["", *job.lines()]]):
            # only a circle of needs is left to be wrong
            for key, job in good.items():
                if "needs" in job.settings:
                    self.warn(("jobs", key, "needs"), "left out: the jobs need each other")
                    rest = {name: value for name, value in job.settings.items() if name != "needs"}
                    made[key] = job.replace(settings=rest)

    def wrong(self, job: _Job) -> str:
        """What a batch would say of this job alone."""
        return self.loads(job.lines(needs=False))

    def loads(self, lines: list[str]) -> str:
        return _problem([*writing.defaults(".", _TIMEOUT), *self.tables(), *lines])

    def job(self, key: str, value: object) -> _Job | list[str]:
        """One job; the lines of a comment where there is none."""
        path = ("jobs", key)
        if not isinstance(value, dict) or _KEY.fullmatch(key) is None:
            return self.left_out(path, key, "it is no job")
        if "uses" in value:
            return self.left_out((*path, "uses"), key, f"uses {value['uses']}: a workflow of its own")
        if not isinstance(value.get("steps"), list):
            return self.left_out(path, key, "it has no steps")
        for each in value:
            if each not in (*_READ, *_SILENT):
                self.warn((*path, each), "left out: it has no meaning here")
        return _Reading(self, key, value).job()

    def left_out(self, path: Path, key: str, why: str) -> list[str]:
        self.warn(path, f"left out: {why}")
        self.left.append((path, why))
        return [toml.comment(f"[jobs.{toml.key(key)}]  left out: {why}")]


_RUNNER = re.compile(r"\$\{\{\s*matrix\.([A-Za-z_][A-Za-z0-9_-]*)\s*(?:\|\|\s*'([^'\n]+)'\s*)?\}\}")
"""`${{ matrix.os }}`, `${{ matrix.os || 'ubuntu-latest' }}`."""
_READ = ("runs-on", "container", "services", "needs", "if", "timeout-minutes", "continue-on-error")
_RUNNERS = "A rootfs that is named after a runner has far less in it than GitHub's: install what the jobs need, or name another."


def _is_written(matrix: object, axis: str) -> bool:
    """Whether the values of an axis stand in the workflow, and are not made while it runs."""
    return isinstance(_table(matrix).get(axis), list) or isinstance(_table(matrix).get("include"), list)


class _Reading:
    """One pass over one job."""

    def __init__(self, workflow: _Workflow, key: str, job: dict[str, object]) -> None:
        self.workflow = workflow
        self.key = key
        self.given = job
        self.path: Path = ("jobs", key)
        self.strategy = _table(job.get("strategy"))
        self.head: list[str] = []
        self.settings: dict[str, object] = {}
        self.env: dict[str, str] = {}
        self.names_of_secrets: dict[str, None] = {}
        self.matrix: dict[str, object] = {}

    def warn(self, path: Path, message: str) -> None:
        self.workflow.warn(path, message)

    def words(self, *path: str | int) -> Words:
        where = (*self.path, *path)
        return Words(names=github_matrix.names(self.matrix), told=lambda message: self.warn(where, message))

    def job(self) -> _Job | list[str]:
        runs_on = self.given.get("runs-on", "")
        found = _RUNNER.fullmatch(runs_on.strip()) if isinstance(runs_on, str) else None
        axis, otherwise = (found[1], found[2]) if found else ("", None)
        if "matrix" in self.strategy:
            where = (*self.path, "strategy", "matrix")
            self.matrix = github_matrix.read(self.strategy["matrix"], where, self.warn, axis)
        if otherwise and self.matrix:
            self.matrix = github_matrix.everywhere(self.matrix, axis, otherwise)
        if not _is_written(self.strategy.get("matrix"), axis):
            runs_on, axis = otherwise or runs_on, ""
        problem = self.rootfs(runs_on, axis)
        if problem:
            return self.workflow.left_out((*self.path, "runs-on"), self.key, problem)
        self.order()
        self.variables()
        self.services()
        problem = self.steps()
        if problem:
            return self.workflow.left_out((*self.path, "steps"), self.key, problem)
        self.workflow.secrets.update(self.names_of_secrets)
        return _Job(key=self.key, head=tuple(self.head), settings=self.settings, env=self.env, matrix=self.matrix)

    def note(self, text: str) -> None:
        # an expression in a comment is none, but a reader may take it for one
        self.head.append(toml.comment(text[: _MOST_LINE * 4]))

    def rootfs(self, runs_on: object, axis: str) -> str:
        """`rootfs`, by the container, else by the runner; what is wrong, or ""."""
        container = self.given.get("container")
        image = container if isinstance(container, str) else _table(container).get("image")
        if isinstance(image, str) and image:
            text = self.words("container").text(image)
            self.settings["rootfs"] = text if text.startswith("docker://") else f"docker://{text}"
            for name in _table(container):
                if name not in ("image", "env"):
                    self.warn((*self.path, "container", name), "left out: it has no meaning here")
            self.container_env(_table(container).get("env"))
            return ""
        labels = [str(label) for label in runs_on] if isinstance(runs_on, list) else [str(runs_on)]
        if isinstance(runs_on, dict):
            labels = [str(runs_on.get("group") or runs_on.get("labels") or "self-hosted")]
        if axis:
            runners = self.values(axis)
            if not runners:
                return "it is for no Linux"
            for runner in runners:
                self.runner(runner)
            self.settings["rootfs"] = f"${{{{ matrix.{axis} }}}}"
            return "" if github_matrix.has_everywhere(self.matrix, axis) else f"not every cell has {quoted(axis)}"
        label = next((one for one in labels if one != "self-hosted"), labels[0] if labels else "")
        if "${{" in label or not label:
            self.warn((*self.path, "runs-on"), "left out: it is not known before the workflow runs")
            label = "ubuntu-latest"
        if github_matrix.is_other_system(label):
            return f"runs-on {label}: containers here are Linux ones"
        self.settings["rootfs"] = self.runner(label)
        return ""

    def values(self, axis: str) -> list[str]:
        found = self.matrix.get(axis)
        values = [str(value) for value in found] if isinstance(found, list) else []
        include = self.matrix.get("include")
        values += [entry[axis] for entry in include if axis in entry] if isinstance(include, list) else []
        return list(dict.fromkeys(values))

    def runner(self, label: str) -> str:
        """The name of the rootfs for a runner."""
        ubuntu = _UBUNTU.fullmatch(label)
        image = f"ubuntu:{ubuntu[1]}" if ubuntu else _IMAGE_OF.get(label)
        self.workflow.runners[label] = f"docker://{image}" if image else writing.HOST
        return label

    def container_env(self, env: object) -> None:
        for name, value in _table(env).items():
            self.variable(name, value, ("container", "env", name))

    def order(self) -> None:
        """When it runs, how long, and what its failure means."""
        needs = self.given.get("needs")
        names = [str(one) for one in needs] if isinstance(needs, list) else [str(needs)] if needs else []
        if names:
            self.settings["needs"] = list(dict.fromkeys(names))
        self.condition(self.given.get("if"))
        minutes = self.given.get("timeout-minutes")
        text = scalar_text(minutes) if minutes is not None else None
        if text is not None:
            self.settings["timeout"] = f"{self.words('timeout-minutes').text(text)}m"
        self.allow_failure(self.given.get("continue-on-error"))
        if self.matrix:
            fail_fast = meaning(self.strategy.get("fail-fast", True))
            if isinstance(fail_fast, bool):
                self.settings["fail-fast"] = fail_fast  # on GitHub it is true where nothing is said
            else:
                self.warn((*self.path, "strategy", "fail-fast"), "left out: expected true or false")
            most = meaning(self.strategy.get("max-parallel"))
            if isinstance(most, int) and not isinstance(most, bool) and most > 0:
                self.settings["max-parallel"] = most
            elif most is not None:
                self.warn((*self.path, "strategy", "max-parallel"), "left out: expected a number")

    def condition(self, given: object) -> None:
        if given is None:
            return
        text = scalar_text(given) or ""
        try:
            known = conditions.parse(bare(text), references=True)
        except errors.UsageError:
            known = None
        if known is not None and known.names <= set(github_matrix.names(self.matrix)):
            self.settings["if"] = bare(text)
        else:
            self.warn((*self.path, "if"), f"left out: {bare(text)[:_MOST_LINE]} is no condition that is known here")
            self.note(f"if: {bare(text)}   (left out: it runs when what it needs has succeeded)")

    def allow_failure(self, given: object) -> None:
        if given is None:
            return
        value = meaning(given)
        if isinstance(value, bool):
            self.settings.update({"allow-failure": True} if value else {})
            return
        found = EXPRESSION.fullmatch(str(given).strip())
        reference = MATRIX.fullmatch(found[1].strip()) if found else None
        name = reference[1] if reference else ""
        if name in github_matrix.names(self.matrix):
            # false in a cell that has no value for it, as on GitHub
            self.settings["allow-failure"] = f"${{{{ matrix.{name} }}}}"
            return
        self.warn((*self.path, "continue-on-error"), f"left out: {str(given)[:_MOST_LINE]} is not known here")
        self.note(f"continue-on-error: {given}")

    def variables(self) -> None:
        for name, value in _table(self.workflow.root.get("env")).items():
            if name not in self.env:
                self.variable(name, value, ("env", name), top=True)
        for name, value in _table(self.given.get("env")).items():
            self.variable(name, value, ("env", name))

    def variable(self, name: str, value: object, path: Path, *, top: bool = False) -> None:
        text = "" if value is None else scalar_text(value)
        text = "" if text is None and meaning(value) is None else text
        where = path if top else (*self.path, *path)
        if text is None:
            self.warn(where, "left out: expected a text")
            return
        found = EXPRESSION.fullmatch(text.strip())
        secret = SECRET.fullmatch(found[1].strip()) if found else None
        if secret and secret[1] == name:
            self.names_of_secrets[name] = None
            self.env.pop(name, None)
            return
        words = Words(names=github_matrix.names(self.matrix), told=lambda message: self.warn(where, message))
        self.env[name] = words.text(text)

    def services(self) -> None:
        names: list[str] = []
        for name, given in _table(self.given.get("services")).items():
            path = ("services", name)
            keys = self.service(_table(given), path)
            # nothing of it is read before a job names it
            axes = [toml.entry("matrix", self.matrix)] if self.matrix else []
            user = ["[jobs.x]", 'rootfs = "host"', 'run = "x"', toml.entry("services", [name]), *axes]
            problem = _problem([*_service(name, keys), *user])
            if problem:
                self.warn((*self.path, *path), f"left out: {problem}")
                continue
            free = name
            if self.workflow.services.get(name, keys) != keys:
                free = f"{self.key}-{name}"  # another job has one of this name, which is not the same
                self.warn((*self.path, *path), f"its host name is {free}: another job's service is called {name}")
            self.workflow.services[free] = keys
            names.append(free)
        if names:
            self.settings["services"] = names

    def service(self, given: dict[str, object], path: Path) -> dict[str, object]:
        """The keys of one service."""
        words = self.words(*path)
        keys: dict[str, object] = {"rootfs": f"docker://{words.text(str(given.get('image', '')))}"}
        env: dict[str, str] = {}
        for name, value in _table(given.get("env")).items():
            text = "" if meaning(value) is None else scalar_text(value)
            if text is None:
                self.warn((*self.path, *path, "env", name), "left out: expected a text")
            else:
                env[name] = words.text(text)
        if env:
            keys["env"] = env
        for name in given:
            # its ports are in the job's own network
            if name not in ("image", "env", "ports", "options"):
                self.warn((*self.path, *path, name), "left out: it has no meaning here")
        options = str(given.get("options") or "")
        found = re.search(r"--health-cmd(?:=|\s+)(?:\"([^\"]*)\"|'([^']*)'|(\S+))", options)
        if found:
            keys["ready"] = next(group for group in found.groups() if group is not None)
        elif options.strip():
            self.warn((*self.path, *path, "options"), "left out: they are docker's")
        return keys

    def steps(self) -> str:
        """`run` or `command`, and artifacts; what is wrong, or ""."""
        given = self.given["steps"]
        assert isinstance(given, list)
        defaults = {
            **_table(_table(self.workflow.root.get("defaults")).get("run")),
            **_table(_table(self.given.get("defaults")).get("run")),
        }
        found = github_steps.read(given, (*self.path, "steps"), self.words("steps"), self.warn, defaults)
        if not found.runs:
            self.note("\n".join(line.removeprefix("# ") for line in found.lines))
            return "none of its steps runs a script"
        script = "\n".join(found.lines) + "\n"
        # on GitHub a script is bash's, but in a container that has none
        if found.bash or "container" not in self.given:
            self.settings["command"] = toml.Raw(f"{toml.value(github_steps.BASH)[:-1]}, {toml.script(script)}]")
        else:
            self.settings["run"] = script
        if self.names_of_secrets:
            self.settings["secrets"] = list(self.names_of_secrets)
        if found.artifacts:
            self.settings["artifacts"] = list(dict.fromkeys(found.artifacts))
        return ""
