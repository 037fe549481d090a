"""A GitHub workflow's jobs as a job file: what can be carried over is, what can not is a comment there and a warning. Pure.

What is known: <https://docs.github.com/actions/reference/workflow-syntax-for-github-actions>. Nothing of the workflow is trusted:
each job is read as a job of ours before it is put into the file, and left out, as a comment, where it would be wrong.
"""

from __future__ import annotations

import itertools
import re

from guntainer.jobs.parse import parse
from guntainer.jobs.problems import Problems
from guntainer.jobs.values import near, quoted
from guntainer.starter import toml, writing
from guntainer.starter.github_job import READ, Common, Job, Reading, service, told_of
from guntainer.value import Value

_MOST_JOBS = 256
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,99}")
_TIMEOUT = "6h"  # GitHub's
_RUNNERS = "A rootfs that is named after a runner has far less in it than GitHub's: install what the jobs need, or name another."
_SILENT = ("permissions", "concurrency", "name", "defaults", "steps", "strategy", "env")
_MOST_KEY = 96  # with a number behind it, it is still a job's


class Converted(Value):
    """A workflow as a job file."""

    text: str
    warnings: tuple[str, ...]
    """A line each, with its place in the workflow."""


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


class _Workflow(Common):
    def __init__(self, root: dict[str, object], problems: Problems) -> None:
        super().__init__(root, problems.warn)
        self.problems = problems

    def text(self, jobs: dict[str, object], name: str, inside: str) -> str:
        """The whole file."""
        made: dict[str, Job | list[str]] = {}
        self.name(jobs)
        for key, value in jobs.items():
            made[self.keys[key]] = self.job(key, value)
        good = {key: job for key, job in made.items() if isinstance(job, Job)}
        self.check(good, made)
        if not any(isinstance(each, Job) for each in made.values()):
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
            lines += ["", *(each.lines() if isinstance(each, Job) else each)]
        return "\n".join(lines) + "\n"

    def tables(self) -> list[str]:
        """[rootfs.NAME], [secrets.NAME] and [services.NAME] that the jobs speak of."""
        lines: list[str] = []
        for runner, source in self.runners.items():
            lines += ["", f"[rootfs.{toml.key(runner)}]", toml.entry("source", source)]
        for name in self.secrets:
            lines += ["", f"[secrets.{toml.key(name)}]", toml.entry("env", name)]
        for name, keys in self.services.items():
            lines += ["", *service(name, keys)]
        return lines

    def name(self, jobs: dict[str, object]) -> None:
        """Call each job what it is called, but no two alike: their folders could not be told apart everywhere."""
        taken: dict[str, str] = {}
        for key in jobs:
            self.keys[key] = key
            other = taken.setdefault(key.casefold(), key)
            if other != key:
                likes = (f"{key[:_MOST_KEY]}-{number}" for number in itertools.count(2))
                everybody = {*taken, *(one.casefold() for one in jobs)}
                self.keys[key] = next(like for like in likes if like.casefold() not in everybody)
                taken[self.keys[key].casefold()] = key
                self.warn(("jobs", key), f"it is {self.keys[key]} here: another job is called {other}")

    def drop(self, key: str, problem: str, good: dict[str, Job], made: dict[str, Job | list[str]]) -> None:
        """Make a job a comment."""
        job = good.pop(key)
        path = ("jobs", job.given)
        self.warn(path, f"left out: {problem}")
        self.left.append((path, problem))
        made[key] = toml.commented([f"left out: {problem}", *job.lines()])

    def check(self, good: dict[str, Job], made: dict[str, Job | list[str]]) -> None:
        """Leave out what would be wrong in the file; whoever needs that needs it no more."""
        for key, job in list(good.items()):
            problem = self.wrong(job)
            if problem:
                self.drop(key, problem, good, made)
        for key, problem in self.clashes(good):
            self.drop(key, problem, good, made)
        changed = True
        while changed:
            changed = False
            for key, job in list(good.items()):
                needs = job.settings.get("needs")
                here = [each for each in needs if each in good] if isinstance(needs, list) else []
                if isinstance(needs, list) and len(here) < len(needs):
                    for gone in set(needs) - set(here):
                        path = ("jobs", job.given, "needs")
                        self.warn(path, f"{quoted(str(gone))} is left out{near(str(gone), good)}")
                    rest = {name: value for name, value in job.settings.items() if name != "needs"}
                    good[key] = job.replace(settings={**rest, "needs": here} if here else rest)
                    made[key] = good[key]
                    changed = True
        if good and self.wrong(*good.values(), needs=True):
            # only a circle of needs is left to be wrong
            for key, job in good.items():
                if "needs" in job.settings:
                    self.warn(("jobs", job.given, "needs"), "left out: the jobs need each other")
                    rest = {name: value for name, value in job.settings.items() if name != "needs"}
                    made[key] = job.replace(settings=rest)

    def clashes(self, good: dict[str, Job]) -> list[tuple[str, str]]:
        """The jobs that are right by themselves, but not behind those before them, and what a batch would say."""
        left = list(good.items())
        found: list[tuple[str, str]] = []
        while left and self.wrong(*(job for _, job in left)):
            first, last = 0, len(left)  # so many are right together, and so many are not
            while last - first > 1:
                middle = (first + last) // 2
                first, last = (first, middle) if self.wrong(*(job for _, job in left[:middle])) else (middle, last)
            found.append((left[last - 1][0], self.wrong(*(job for _, job in left[:last]))))
            del left[last - 1]
        return found

    def wrong(self, *jobs: Job, needs: bool = False) -> str:
        """What a batch would say of these jobs alone."""
        lines = [line for job in jobs for line in ["", *job.lines(needs=needs)]]
        return told_of([*writing.defaults(".", _TIMEOUT), *self.tables(), *lines])

    def job(self, key: str, value: object) -> Job | list[str]:
        """One job; the lines of a comment where there is none."""
        path = ("jobs", key)
        if not isinstance(value, dict) or _KEY.fullmatch(key) is None:
            return self.left_out(path, key, "it is no job")
        if "uses" in value:
            return self.left_out((*path, "uses"), key, f"uses {value['uses']}: a workflow of its own")
        if not isinstance(value.get("steps"), list):
            return self.left_out(path, key, "it has no steps")
        for each in value:
            if each not in (*READ, *_SILENT):
                self.warn((*path, each), "left out: it has no meaning here")
        return Reading(self, key, value).job()
