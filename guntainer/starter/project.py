"""How a project is tested, as its own files say: pyproject.toml, tox.ini, package.json, Makefile, Cargo.toml, go.mod.

Files are read in part and never run; one that can not be understood is named and left out.
"""

from __future__ import annotations

import os
import re
import stat

from guntainer.jobs.values import printable
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

_MOST_BYTES = 1 << 20
_MOST_ENVS = 64
_NO_TEST = "no test specified"  # what `npm init` puts in
_VERSION = re.compile(r"Programming Language :: Python :: (3\.\d{1,2})")
_LEAST = re.compile(r">=?\s*(3\.\d{1,2})")
_TARGET = re.compile(r"^(test|check|tests)\s*::?(?!=)", re.MULTILINE)
_ENVLIST = re.compile(r"^(?:envlist|env_list)\s*=\s*((?:.*\n?)(?:^[ \t]+.*\n?)*)", re.MULTILINE)
_ENV_NAME = re.compile(r"[A-Za-z0-9_.-]{1,60}")


class Test(Value):
    """One way to test what is in a folder."""

    name: str
    """Of the job that does it."""
    run: str
    """Shell script, seen from the folder."""
    file: str
    """Which says so."""
    prepare: str = ""
    """What has to be there first, as a command."""
    axis: str = ""
    """Name of an axis that `run` speaks of; "": there is none."""
    values: tuple[str, ...] = ()


class Project(Value):
    """What the files of a folder say."""

    tests: tuple[Test, ...] = ()
    pythons: tuple[str, ...] = ()
    """Versions of Python that it is for: `3.11`."""
    notes: tuple[str, ...] = ()
    """What could not be understood."""


def look(folder: str) -> Project:
    """Look at the files of a folder."""
    tests: dict[str, Test] = {}
    pythons: tuple[str, ...] = ()
    notes: list[str] = []
    for file, read in _READERS:
        text = _text(f"{folder}/{file}")
        if text is None:
            continue
        try:
            for found in read(text, folder):
                if isinstance(found, Test):
                    tests.setdefault(found.name, found)
                else:
                    pythons = found
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            notes.append(printable(f"{file}: left out, it can not be understood: {' '.join(str(error).split())[:100]}"))
    if "tox" in tests:
        tests.pop("pytest", None)  # which is what it runs
    return Project(tests=tuple(tests.values()), pythons=pythons, notes=tuple(notes))


def _text(path: str) -> str | None:
    """The beginning of a file; None where there is none that can be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with open(fd, "rb", closefd=False) as file:
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except OSError:
        return None
    finally:
        os.close(fd)


def _pyproject(text: str, folder: str) -> Iterator[Test | tuple[str, ...]]:
    import tomllib

    root = tomllib.loads(text)
    project, tool = _table(root.get("project")), _table(root.get("tool"))
    pythons = _pythons(project)
    if pythons:
        yield pythons
    hatch = _table(_table(tool.get("hatch")).get("envs"))
    if any("test" in _table(_table(env).get("scripts")) for env in hatch.values()):
        name = next(name for name, env in hatch.items() if "test" in _table(_table(env).get("scripts")))
        where = "" if name == "default" or not _ENV_NAME.fullmatch(name) else f"{name}:"
        yield Test(name="hatch", run=f"hatch run {where}test", file="pyproject.toml", prepare="pip install hatch")
    elif "tox" in tool:
        yield from _tox(str(_table(tool["tox"]).get("legacy_tox_ini", "")), folder, "pyproject.toml")
    elif "pytest" in tool or "pytest" in text or os.path.exists(f"{folder}/pytest.ini"):
        prepare = "pip install . pytest" if project else "pip install pytest"
        yield Test(name="pytest", run="python3 -m pytest", file="pyproject.toml", prepare=prepare)
    elif os.path.isdir(f"{folder}/tests"):
        yield Test(name="unittest", run="python3 -m unittest discover", file="pyproject.toml")


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _pythons(project: dict[str, Any]) -> tuple[str, ...]:
    classifiers = project.get("classifiers")
    lines = [str(line) for line in classifiers] if isinstance(classifiers, list) else []
    found = {match[1] for match in map(_VERSION.fullmatch, lines) if match}
    if not found:
        found = {match[1] for match in _LEAST.finditer(str(project.get("requires-python", "")))}
    return tuple(sorted(found, key=lambda version: int(version.partition(".")[2])))


def _tox_ini(text: str, folder: str) -> Iterator[Test | tuple[str, ...]]:
    yield from _tox(text, folder, "tox.ini")


def _tox(text: str, _folder: str, file: str) -> Iterator[Test]:
    found = _ENVLIST.search(text)
    names = _envlist(found[1]) if found else ()
    run = "tox -e ${{ matrix.env }}" if names else "tox"
    yield Test(name="tox", run=run, file=file, prepare="pip install tox", axis="env" if names else "", values=names)


def _envlist(text: str) -> tuple[str, ...]:
    """`py{310,311}-{a,b}, lint` → py310-a, py310-b, …: tox's generative section names."""
    found: dict[str, str] = {}
    lines = (line.partition("#")[0] for line in text.splitlines())
    for word in re.findall(r"(?:\{[^{}]*\}|[^\s,{}])+", ",".join(lines)):
        for name in _expanded(word):
            if _ENV_NAME.fullmatch(name) and len(found) < _MOST_ENVS:
                found.setdefault(name.casefold(), name)  # no two jobs differ in case alone
    return tuple(found.values())


def _expanded(word: str) -> list[str]:
    names = [""]
    for part in re.findall(r"\{[^{}]*\}|[^{}]+", word):
        choices = [each.strip() for each in part[1:-1].split(",")] if part.startswith("{") else [part]
        names = [name + choice for name in names for choice in choices][:_MOST_ENVS]
    return names


def _package(text: str, folder: str) -> Iterator[Test | tuple[str, ...]]:
    import json

    test = _table(_table(json.loads(text)).get("scripts")).get("test")
    if isinstance(test, str) and _NO_TEST not in test:
        tools = (("pnpm", "pnpm-lock.yaml"), ("yarn", "yarn.lock"))
        tool = next((name for name, lock in tools if os.path.exists(f"{folder}/{lock}")), "npm")
        prepare = "npm ci" if os.path.exists(f"{folder}/package-lock.json") else f"{tool} install"
        yield Test(name="npm" if tool == "npm" else tool, run=f"{tool} test", file="package.json", prepare=prepare)


def _makefile(text: str, _folder: str) -> Iterator[Test | tuple[str, ...]]:
    found = _TARGET.search(text)
    if found:
        yield Test(name="make", run=f"make {found[1]}", file="Makefile")


def _cargo(_text: str, _folder: str) -> Iterator[Test | tuple[str, ...]]:
    yield Test(name="cargo", run="cargo test", file="Cargo.toml")


def _go(_text: str, _folder: str) -> Iterator[Test | tuple[str, ...]]:
    yield Test(name="go", run="go test ./...", file="go.mod")


_READERS: tuple[tuple[str, Callable[[str, str], Iterator[Test | tuple[str, ...]]]], ...] = (
    ("tox.ini", _tox_ini),
    ("pyproject.toml", _pyproject),
    ("package.json", _package),
    ("Makefile", _makefile),
    ("makefile", _makefile),
    ("GNUmakefile", _makefile),
    ("Cargo.toml", _cargo),
    ("go.mod", _go),
)
