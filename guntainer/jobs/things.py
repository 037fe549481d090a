"""What a job is given besides its rootfs, and what is taken from it: workspace, artifacts, cache folders, secrets. Pure.

Readers of the job file's keys, as those in `fields`: each takes a value as the file has it and returns it checked, or raises
UsageError.
"""

from __future__ import annotations

import re

from guntainer import errors
from guntainer.jobs.model import NO_FILES, WORKSPACES, Artifacts, CacheFolder, Secret, Workspace
from guntainer.jobs.parse import is_text, meaning
from guntainer.jobs.problems import Given
from guntainer.jobs.reading import Context, items, kind_of, number_or_text, open_table, text
from guntainer.jobs.values import check_target, check_text, host_path, near, parse_size, quoted
from guntainer.spec import RESERVED_TARGETS, normal_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from guntainer.jobs.problems import Path, Problems

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MOST_PATTERNS = 1000
_MOST_KEY = 4096  # characters
EXCEPT = "!"
"""A pattern that begins with it takes away what the others match."""


def _choice(given: Given, known: tuple[str, ...], key: str) -> str:
    found = text(given)
    if found not in known:
        words = ", ".join(map(quoted, known[:-1])) + f" or {quoted(known[-1])}"
        raise errors.UsageError(f"{key}: expected {words}, got {quoted(found)}{near(found, known)}")
    return found


# -- workspace


def workspace(given: Given, context: Context) -> Workspace:
    """`"."`, or {source, target, mode}."""
    if not isinstance(given.value, dict):
        if not is_text(given.value):
            raise errors.UsageError(f'expected a folder such as ".", or a table, got {kind_of(given.value)}')
        return Workspace(source=host_path(text(given), context.base))
    keys = open_table(given, ("source", "target", "mode"), context.problems)
    if "source" not in keys:
        raise errors.UsageError('source is missing: expected a folder of the host such as "."')
    found = Workspace(source=host_path(text(keys["source"]), context.at(keys["source"].path).base))
    if "target" in keys:
        found = found.replace(target=place(text(keys["target"])))
    return found.replace(mode=_choice(keys["mode"], WORKSPACES, "mode")) if "mode" in keys else found


def place(path: str) -> str:
    """`path`, when something can be mounted there: an absolute path in the container.

    Raises:
        UsageError: it would hide the kernel's own file systems, or everything.
    """
    target = normal_path(check_target(path))
    if target in RESERVED_TARGETS or target.startswith(("/proc/", "/sys/")):
        raise errors.UsageError(f"can not mount on {target}")
    return target


# -- artifacts


def artifacts(given: Given, context: Context) -> Artifacts | None:
    """A pattern, a list of them, or {paths, if-none, max-size}; None: an empty list, which is none."""
    keys = {"paths": given}
    if isinstance(given.value, dict):
        keys = open_table(given, ("paths", "if-none", "if-no-files-found", "max-size"), context.problems)
        if "paths" not in keys:
            raise errors.UsageError('paths is missing: expected a list such as ["dist/*.whl"]')
    paths = _patterns(keys["paths"], context)
    chosen = keys.get("if-none", keys.get("if-no-files-found"))
    if {"if-none", "if-no-files-found"} <= set(keys):
        raise errors.UsageError("if-none and if-no-files-found are the same: expected one of them")
    found = Artifacts(paths=paths)
    if chosen is not None:
        found = found.replace(if_none=_choice(chosen, NO_FILES, str(chosen.path[-1])))
    if "max-size" in keys:
        found = found.replace(most_bytes=parse_size(str(number_or_text(keys["max-size"]))))
    return found if paths else None


def _patterns(given: Given, context: Context) -> tuple[str, ...]:
    if is_text(given.value):
        # several lines: as GitHub's `path: |` has it
        lines = [line.strip() for line in text(given).splitlines()]
        found = tuple(pattern(line) for line in lines if line)
    else:
        listed = items(given, context, ' such as ["dist/*.whl"]', lambda item: pattern(text(item)))
        found = tuple(str(one) for _, one in listed)
    if len(found) > _MOST_PATTERNS:
        raise errors.UsageError(f"at most {_MOST_PATTERNS} patterns")
    if found and all(one.startswith(EXCEPT) for one in found):
        raise errors.UsageError(f"every pattern begins with {EXCEPT}, so that there is nothing to take them away from")
    return found


def pattern(word: str) -> str:
    """`word`, when it can match paths.

    Raises:
        UsageError: it can not.
    """
    check_text(word)
    rest = word.removeprefix(EXCEPT)
    if not rest.strip():
        raise errors.UsageError("an empty pattern matches nothing")
    if ".." in rest.split("/"):
        raise errors.UsageError(f"{quoted(word)}: .. has no meaning in a pattern; write the path from / on")
    return word


# -- cache folders


def cache(given: Given, context: Context) -> bool | tuple[tuple[Path, CacheFolder], ...]:
    """true or false: whether the unpacked rootfs is kept; {key, path} or a list of them: folders that are."""
    if isinstance(meaning(given.value), bool):
        return bool(meaning(given.value))
    if isinstance(given.value, dict):
        return ((given.path, _cache_folder(given, context)),)
    if not isinstance(given.value, list):
        raise errors.UsageError(
            f'expected true, false, or folders such as [{{key = "pip", path = "/root/.cache/pip"}}],'
            f" got {kind_of(given.value)}"
        )
    found = items(given, context, "", lambda item: _cache_folder(item, context))
    return tuple((path, folder) for path, folder in found if isinstance(folder, CacheFolder))


def _cache_folder(given: Given, context: Context) -> CacheFolder:
    keys = open_table(given, ("key", "path"), context.problems)
    for name, meant in (("key", "what it is known by"), ("path", "an absolute path in the container")):
        if isinstance(given.value, dict) and name not in keys:
            raise errors.UsageError(f"{name} is missing: expected {meant}")
    if not keys:
        raise errors.UsageError("expected a table such as {key = …, path = …}")
    key = str(number_or_text(keys["key"]))
    if not key or len(key) > _MOST_KEY:
        raise errors.UsageError(f"key: expected 1 to {_MOST_KEY} characters, got {len(key)}")
    return CacheFolder(key=check_text(key), target=place(text(keys["path"])))


# -- secrets


def all_secrets(given: Given | None, context: Context, problems: Problems) -> dict[str, Secret | None]:
    """[secrets.NAME]; a bad one is there as None, so that its users are not blamed as well."""
    if given is None:
        return {}
    if not isinstance(given.value, dict):
        problems.add(given.path, f"expected tables [secrets.NAME], got {kind_of(given.value)}")
        return {}
    found: dict[str, Secret | None] = {}
    for name, value in given.value.items():
        here = Given(value=value, path=(*given.path, name))
        found[name] = None
        try:
            found[name] = _secret(name, here, context)
        except errors.UsageError as error:
            problems.add(here.path, error.message)
    return found


def _secret(name: str, given: Given, context: Context) -> Secret:
    check_variable(name)
    if not isinstance(given.value, dict):
        # the value itself, most likely: it is not repeated
        raise errors.UsageError('expected a table with env = "VARIABLE" or file = "path": a secret is not written here')
    keys = open_table(given, ("env", "file"), context.problems)
    if len(keys) != 1:
        raise errors.UsageError('expected one of env = "VARIABLE" and file = "path"')
    if "env" in keys:
        return Secret(name=name, variable=check_variable(text(keys["env"])))
    return Secret(name=name, file=host_path(text(keys["file"]), context.at(keys["file"].path).base))


def check_variable(name: str) -> str:
    """`name`, when a shell can name a variable so.

    Raises:
        UsageError: it can not.
    """
    if _VARIABLE.fullmatch(name) is None:
        raise errors.UsageError(f"{quoted(name)} can not name a variable: expected letters, digits and _")
    return name


def secrets(given: Given, context: Context) -> tuple[Secret, ...]:
    """Names of [secrets.NAME] that a job gets."""
    known = context.secrets or {}

    def read(item: Given) -> Secret | None:
        name = text(item)
        if name not in known:
            if not known:
                raise errors.UsageError(f"there is no [secrets.{name}]")
            raise errors.UsageError(f"no {quoted(name)} in [secrets]{near(name, known)}")
        return known[name]

    if is_text(given.value):
        one = read(given)
        return (one,) if one is not None else ()
    found = [one for _, one in items(given, context, ' such as ["TOKEN"]', read)]
    return tuple(dict.fromkeys(one for one in found if isinstance(one, Secret)))


# -- all of them, of one job


def of_job(read: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a Job, of what was read of its keys."""
    found: dict[str, Any] = {key: read[key] for key in ("workspace", "artifacts", "secrets") if key in read}
    if isinstance(read.get("cache"), bool):
        found["cache"] = read["cache"]
    elif "cache" in read:
        found["cache_folders"] = tuple(folder for _, folder in read["cache"])
    if "workspace" in read and "workdir" not in read:
        found["workdir"] = read["workspace"].target
    return found


def targets(read: Mapping[str, Any], places: Mapping[str, Path]) -> list[tuple[Path, str]]:
    """(where it is said, path in the container) of all that is mounted for them."""
    found = [(places["workspace"], read["workspace"].target)] if "workspace" in read else []
    if "cache" in read and not isinstance(read["cache"], bool):
        found += [(path, folder.target) for path, folder in read["cache"]]
    return found
