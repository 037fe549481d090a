"""The text of a first job file for what is in a folder."""

from __future__ import annotations

import platform

from guntainer import errors
from guntainer.jobs.load import load
from guntainer.starter import toml
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.starter.archives import Rootfs
    from guntainer.starter.project import Project, Test

_EXPRESSION = "${{"
_NOT_WRITTEN = f"no path in a job file can hold {_EXPRESSION}: call it something else"
HOST = "host"
WORKDIR = "/workspace"
HEAD = """\
guntainer batch --check      look for mistakes, run nothing
guntainer batch              run everything; --only NAME: some of it
guntainer batch --help       all there is; guntainer schema: for completion in editors"""


class Folder(Value):
    """A folder, as it was looked at."""

    project: Project
    rootfs: tuple[Rootfs, ...]
    inside: str = "."
    """The folder, seen from the folder of the job file."""


def problem(text: str) -> str:
    """What a batch would say of a job file; "" where it would take it."""
    try:
        load(text.encode("utf-8", "surrogateescape"), path="", base="/", format="toml")
    except errors.JobFileError as error:
        return error.problems[0].split(": ", 1)[-1]
    return ""


def text(folder: Folder) -> str:
    """The job file."""
    usable = [one for one in folder.rootfs if not _unusable(folder, one)]
    names = [one.name for one in usable] or [HOST]
    found = sorted({test.file for test in folder.project.tests})
    found += [f"{len(folder.rootfs)} rootfs"] if folder.rootfs else []
    lines = [
        toml.comment(
            f"Jobs for `guntainer batch`, made from what was here: {', '.join(found) or 'nothing known'}.\n{HEAD}"
        )
    ]
    lines += ["version = 1", "", *defaults(folder.inside)]
    lines += _all_rootfs(folder)
    pythons = _pythons(names, folder.project.pythons)
    for test in folder.project.tests:
        lines += ["", *_job(test, names, folder.project.pythons, pythons if test.prepare.startswith("pip") else {})]
    if not folder.project.tests:
        lines += ["", *_hello(names)]
    return "\n".join(lines) + "\n"


def defaults(inside: str, timeout: str = "10m", env: dict[str, object] | None = None) -> list[str]:
    """[defaults]: what holds for every job that says nothing else."""
    return [
        "[defaults]",
        toml.entry("timeout", timeout),
        *_workspace(inside),
        toml.entry("env", {"CI": "1", **(env or {})}),
        toml.comment('memory = "2g"                # and cpus, pids-limit, network = "none", user, …'),
    ]


def _workspace(inside: str) -> list[str]:
    if _EXPRESSION in inside:
        return toml.commented([toml.entry("workspace", inside), f"left out: {_NOT_WRITTEN}"])
    told = f"# each job works in a copy of this folder, at {WORKDIR}"
    return [f"{toml.entry('workspace', inside)}            {told}", toml.entry("workdir", WORKDIR)]


def _source(folder: Folder, one: Rootfs) -> str:
    return f"./{one.path}" if folder.inside == "." else f"./{folder.inside}/{one.path}"


def _unusable(folder: Folder, one: Rootfs) -> str:
    """Why a rootfs is a comment in the file; "" where it is none."""
    if _EXPRESSION in _source(folder, one):
        return f"left out: {_NOT_WRITTEN}"
    return "" if one.machine in ("", platform.machine()) else f"for {one.machine}, and this machine is none"


def _all_rootfs(folder: Folder) -> list[str]:
    lines: list[str] = []
    for one in folder.rootfs:
        table = [f"[rootfs.{toml.key(one.name)}]", toml.entry("source", _source(folder, one))]
        why = _unusable(folder, one)
        if why:
            table = toml.commented([*table, why])
        lines += ["", *table]
    if not folder.rootfs:
        lines += [
            "",
            toml.comment(
                'This machine\'s own programs, read-only, are what the jobs run on: rootfs = "host". Others are given names:\n'
                "[rootfs.debian]\n"
                'source = "docker://debian:12"       # or an archive: "rootfs/debian.tar.zst"'
            ),
        ]
    return lines


def _pythons(names: list[str], versions: tuple[str, ...]) -> dict[str, str]:
    """Versions of Python → the rootfs that is named after it, where there is one for each."""
    found: dict[str, str] = {}
    for version in versions:
        forms = (version.replace(".", "-"), version.replace(".", ""))
        for name in names:
            _, python, rest = name.lower().partition("python")
            if python and any(
                rest.lstrip("-_").split("-")[: len(form.split("-"))] == form.split("-") for form in forms
            ):
                found.setdefault(version, name)
    return found


def _job(test: Test, names: list[str], versions: tuple[str, ...], pythons: dict[str, str]) -> list[str]:
    lines = [f"[jobs.{toml.key(test.name)}]{' ' * 20}# as {test.file} says"]
    matrix: dict[str, object] = {}
    after: list[str] = []
    if pythons:
        lines.append(toml.entry("rootfs", "${{ matrix.rootfs }}"))
        matrix["rootfs"] = list(pythons.values())
    elif len(names) > 1:
        lines.append(toml.entry("rootfs", "${{ matrix.rootfs }}"))
        matrix["rootfs"] = names
    else:
        lines.append(toml.entry("rootfs", names[0]))
        if versions and test.prepare.startswith("pip"):
            after = toml.commented(
                [
                    "The versions of Python that it is for, each in an image of its own; rootfs above becomes",
                    'rootfs = "docker://python:${{ matrix.python }}"',
                    f"[jobs.{toml.key(test.name)}.matrix]",
                    toml.entry("python", list(versions)),
                ]
            )
    script = test.run
    if test.prepare:
        script = f"# {test.prepare}      # where the rootfs does not have what the tests need\n{test.run}\n"
    lines.append(toml.entry("run", script))
    if test.axis:
        matrix[test.axis] = list(test.values)
    if matrix:
        lines += [f"[jobs.{toml.key(test.name)}.matrix]", *(toml.entry(*axis) for axis in matrix.items())]
    return lines + after


def _hello(names: list[str]) -> list[str]:
    lines = ["[jobs.hello]", toml.entry("rootfs", "${{ matrix.rootfs }}" if len(names) > 1 else names[0])]
    lines.append(toml.entry("run", 'cat /etc/os-release || true\necho "hello from $(uname -sr), in $PWD:"\nls\n'))
    if len(names) > 1:
        lines += ["[jobs.hello.matrix]", toml.entry("rootfs", names)]
    return lines
