"""One job of a GitHub workflow as a job of ours. Pure; see github.py."""

from __future__ import annotations

import re

from guntainer import errors
from guntainer.jobs import conditions
from guntainer.jobs.matrix import scalar_text
from guntainer.jobs.parse import meaning
from guntainer.jobs.values import check_env_name, check_text, quoted
from guntainer.starter import github_matrix, github_steps, toml, writing
from guntainer.starter.github_words import EXPRESSION, MATRIX, SECRET, Words, bare, variables
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.jobs.problems import Path

_IMAGE_OF = {"ubuntu-latest": "ubuntu:24.04", "ubuntu-slim": "ubuntu:24.04"}
_UBUNTU = re.compile(r"ubuntu-(\d\d\.\d\d)(?:-arm)?")
_MOST_LINE = 100
_MOST_HOST = 58
_MOST_SERVICES = 1000
_RUNNER = re.compile(r"\$\{\{\s*matrix\.([A-Za-z_][A-Za-z0-9_-]*)\s*(?:\|\|\s*'([^'\n]+)'\s*)?\}\}")
"""`${{ matrix.os }}`, `${{ matrix.os || 'ubuntu-latest' }}`."""
READ = ("runs-on", "container", "services", "needs", "if", "timeout-minutes", "continue-on-error")


class Job(Value):
    """A job as it may stand in the file."""

    key: str
    given: str
    """Its key in the workflow."""
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


def told_of(lines: list[str]) -> str:
    """What a batch would say of a job file with these lines; "" where it would take it."""
    return writing.problem("\n".join([*lines, ""]))


def service(name: str, keys: dict[str, object]) -> list[str]:
    """[services.NAME]."""
    return [f"[services.{toml.key(name)}]", *(toml.entry(*each) for each in keys.items())]


def table(value: object) -> dict[str, object]:
    """`value`, where it is a table; else an empty one."""
    return value if isinstance(value, dict) else {}


class Common:
    """What the jobs of a workflow share."""

    def __init__(self, root: dict[str, object], warn: Callable[[Path, str], None]) -> None:
        self.root = root
        self.warn = warn
        self.runners: dict[str, str] = {}
        """Name for [rootfs.NAME] → its source."""
        self.secrets: dict[str, None] = {}
        self.left: list[tuple[Path, str]] = []
        """The jobs that have no meaning here, and why."""
        self.services: dict[str, dict[str, object]] = {}
        """Name for [services.NAME] → its keys."""
        self.keys: dict[str, str] = {}
        """A job's key in the workflow → in the file."""

    def left_out(self, path: Path, key: str, why: str) -> list[str]:
        """The comment in place of a job."""
        self.warn(path, f"left out: {why}")
        self.left.append((path, why))
        return [toml.comment(f"[jobs.{toml.key(key)}]  left out: {why}")]


def _is_written(matrix: object, axis: str) -> bool:
    """Whether the values of an axis stand in the workflow, and are not made while it runs."""
    return isinstance(table(matrix).get(axis), list) or isinstance(table(matrix).get("include"), list)


def _no_variable(name: str, text: str) -> str:
    """What is wrong with a variable; "" nothing."""
    try:
        check_env_name(name)
        check_text(text)
    except errors.UsageError as error:
        return error.message
    return ""


class Reading:
    """One pass over one job."""

    def __init__(self, workflow: Common, key: str, job: dict[str, object]) -> None:
        self.workflow = workflow
        self.key = key
        self.given = job
        self.path: Path = ("jobs", key)
        self.strategy = table(job.get("strategy"))
        self.head: list[str] = []
        self.settings: dict[str, object] = {}
        self.env: dict[str, str] = {}
        self.names_of_secrets: dict[str, None] = {}
        self.matrix: dict[str, object] = {}
        self.variables_of: dict[str, str] = {}
        """Name of the matrix → the variable that holds its value for a shell."""

    def warn(self, path: Path, message: str) -> None:
        self.workflow.warn(path, message)

    def words(self, *path: str | int) -> Words:
        where = (*self.path, *path)
        return Words(variables=self.variables_of, told=lambda message: self.warn(where, message))

    def job(self) -> Job | list[str]:
        runs_on = self.given.get("runs-on", "")
        found = _RUNNER.fullmatch(runs_on.strip()) if isinstance(runs_on, str) else None
        axis, otherwise = (found[1], found[2]) if found else ("", None)
        if "matrix" in self.strategy:
            where = (*self.path, "strategy", "matrix")
            self.matrix = github_matrix.read(self.strategy["matrix"], where, self.warn, axis)
        if otherwise and self.matrix:
            self.matrix = github_matrix.everywhere(self.matrix, axis, otherwise)
        self.variables_of = variables(github_matrix.names(self.matrix), self.names_of_variables())
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
        return Job(
            key=self.workflow.keys[self.key],
            given=self.key,
            head=tuple(self.head),
            settings=self.settings,
            env=self.env,
            matrix=self.matrix,
        )

    def names_of_variables(self) -> set[str]:
        """All that the workflow, the job and its steps call variables."""
        steps = self.given.get("steps")
        tables = [self.workflow.root, self.given, table(self.given.get("container"))]
        tables += [table(step) for step in steps] if isinstance(steps, list) else []
        return {str(name) for place in tables for name in table(place.get("env"))}

    def note(self, text: str) -> None:
        # an expression in a comment is none, but a reader may take it for one
        self.head.append(toml.comment(text[: _MOST_LINE * 4]))

    def rootfs(self, runs_on: object, axis: str) -> str:
        """`rootfs`, by the container, else by the runner; what is wrong, or ""."""
        container = self.given.get("container")
        image = container if isinstance(container, str) else table(container).get("image")
        if isinstance(image, str) and image:
            text = self.words("container").text(image)
            self.settings["rootfs"] = text if text.startswith("docker://") else f"docker://{text}"
            for name in table(container):
                if name not in ("image", "env"):
                    self.warn((*self.path, "container", name), "left out: it has no meaning here")
            self.container_env(table(container).get("env"))
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
        for name, value in table(env).items():
            self.variable(name, value, ("container", "env", name))

    def order(self) -> None:
        """When it runs, how long, and what its failure means."""
        needs = self.given.get("needs")
        names = [str(one) for one in needs] if isinstance(needs, list) else [str(needs)] if needs else []
        names = [self.workflow.keys.get(name, name) for name in names]
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
        for name, value in table(self.workflow.root.get("env")).items():
            if name not in self.env:
                self.variable(name, value, ("env", name), top=True)
        for name, value in table(self.given.get("env")).items():
            self.variable(name, value, ("env", name))

    def variable(self, name: str, value: object, path: Path, *, top: bool = False) -> None:
        text = "" if value is None else scalar_text(value)
        text = "" if text is None and meaning(value) is None else text
        where = path if top else (*self.path, *path)
        problem = "expected a text" if text is None else _no_variable(name, text)
        if text is None or problem:
            self.warn(where, f"left out: {problem}")
            return
        found = EXPRESSION.fullmatch(text.strip())
        secret = SECRET.fullmatch(found[1].strip()) if found else None
        if secret and secret[1] == name:
            self.names_of_secrets[name] = None
            self.env.pop(name, None)
            return
        words = Words(variables=self.variables_of, told=lambda message: self.warn(where, message))
        self.env[name] = words.text(text)

    def services(self) -> None:
        names: list[str] = []
        for name, given in table(self.given.get("services")).items():
            path = ("services", name)
            keys = self.service(table(given), path)
            free = self.name_of_service(name, keys)
            # nothing of it is read before a job names it
            axes = [toml.entry("matrix", self.matrix)] if self.matrix else []
            user = ["[jobs.x]", 'rootfs = "host"', 'run = "x"', toml.entry("services", [free]), *axes]
            problem = told_of([*service(free, keys), *user])
            if problem:
                self.warn((*self.path, *path), f"left out: {problem}")
                continue
            if free != name:
                self.warn((*self.path, *path), f"its host name is {free}: another job's service is called {name}")
            self.workflow.services[free] = keys
            names.append(free)
        if names:
            self.settings["services"] = names

    def name_of_service(self, name: str, keys: dict[str, object]) -> str:
        """What a service is called in the file: as here, but where another job has one of this name that is not the same."""
        there = {other.casefold() for other in self.workflow.services}
        own = re.sub(r"[^A-Za-z0-9]+", "-", f"{self.key}-{name}").strip("-")[:_MOST_HOST]
        for free in (name, own, *(f"{own}-{number}" for number in range(2, _MOST_SERVICES))):
            if self.workflow.services.get(free) == keys or free.casefold() not in there:
                return free
        return name

    def service(self, given: dict[str, object], path: Path) -> dict[str, object]:
        """The keys of one service."""
        words = self.words(*path)
        keys: dict[str, object] = {"rootfs": f"docker://{words.text(str(given.get('image', '')))}"}
        env: dict[str, str] = {}
        for name, value in table(given.get("env")).items():
            text = "" if meaning(value) is None else scalar_text(value)
            problem = "expected a text" if text is None else _no_variable(name, text)
            if text is None or problem:
                self.warn((*self.path, *path, "env", name), f"left out: {problem}")
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
            **table(table(self.workflow.root.get("defaults")).get("run")),
            **table(table(self.given.get("defaults")).get("run")),
        }
        found = github_steps.read(given, (*self.path, "steps"), self.words("steps"), self.warn, defaults)
        if not found.runs:
            self.note("\n".join(line.removeprefix("# ") for line in found.lines))
            return "none of its steps runs a script"
        script = "\n".join(found.lines) + "\n"
        for name, variable in self.variables_of.items():
            if re.search(rf"\$(?:{variable}\b|\{{{variable}\}})", script):
                self.env[variable] = f"${{{{ matrix.{name} }}}}"
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
