"""The keys of a job: which there are, and what each is read as. Pure.

A reader takes a value as the file has it and returns what the Job wants, or raises UsageError: see `reading`.
"""

from __future__ import annotations

from guntainer import capabilities, errors
from guntainer.jobs import limits, network, policy, security, sources, things
from guntainer.jobs.matrix import has_expression, scalar_text
from guntainer.jobs.model import EMULATIONS, PULLS, Mount, Port, Source
from guntainer.jobs.parse import meaning
from guntainer.jobs.problems import Given
from guntainer.jobs.reading import (
    Context,
    count,
    flag,
    items,
    kind_of,
    number,
    number_or_text,
    open_table,
    scalar,
    text,
)
from guntainer.jobs.values import (
    check_env_name,
    check_hostname,
    check_network,
    check_target,
    check_text,
    check_user,
    host_path,
    near,
    parse_duration,
    parse_scratch,
    parse_signal,
    parse_size,
    parse_tmpfs,
    parse_volume,
    quoted,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from guntainer.jobs.problems import Path

    Reader = Callable[[Given, Context], object]

_SHELL = ("/bin/sh", "-e", "-c")


def _duration(given: Given, _context: Context) -> float:
    return parse_duration(number_or_text(given))


def _timeout(given: Given, context: Context) -> float | None:
    return _duration(given, context) or None  # 0 is no limit, as in timeout(1)


def _signal(given: Given, _context: Context) -> int:
    value = number_or_text(given)
    return parse_signal(value if isinstance(value, str) else int(value))


def _user(given: Given, _context: Context) -> str:
    if isinstance(meaning(given.value), bool):
        raise errors.UsageError(f"expected a user, got {kind_of(given.value)}")
    return check_user(str(number_or_text(given)))


def _argument(given: Given) -> str:
    return "" if given.value == "" else text(given)


def _command(given: Given, context: Context) -> tuple[str, ...]:
    if isinstance(given.value, str):
        raise errors.UsageError(
            f'expected a list such as ["/bin/true"], got {kind_of(given.value)}: a text goes to run'
        )
    words = tuple(str(item) for _, item in items(given, context, ' such as ["/bin/true"]', _argument))
    if words and not words[0]:
        raise errors.UsageError("the command is empty")
    return words  # [] is the image's own


def _entrypoint(given: Given, context: Context) -> tuple[str, ...]:
    if given.value == "":
        return ()
    if isinstance(given.value, str):
        return (text(given),)
    words = tuple(str(item) for _, item in items(given, context, ' such as ["/init"]', _argument))
    if words and not words[0]:
        raise errors.UsageError('the program is empty: "" or [] is no entrypoint')
    return words


def _run(given: Given, _context: Context) -> tuple[str, ...]:
    script = text(given)
    if not script.strip():
        raise errors.UsageError("the script is empty")
    return (*_SHELL, script)


def _volume(given: Given, context: Context) -> Mount:
    if not isinstance(given.value, dict):
        return parse_volume(text(given), context.base)
    keys = open_table(given, ("type", "source", "target", "read-only", "size"), context.problems)
    kind = text(keys["type"]) if "type" in keys else "bind"
    if kind not in ("bind", "tmpfs"):
        raise errors.UsageError(f'type: expected "bind" or "tmpfs", got {quoted(kind)}{near(kind, ("bind", "tmpfs"))}')
    if "target" not in keys:
        raise errors.UsageError("target is missing: expected an absolute path in the container")
    wrong, needed = ("source", "") if kind == "tmpfs" else ("size", "source")
    if wrong in keys:
        raise errors.UsageError(f"{wrong} makes no sense with type {quoted(kind)}")
    if needed and needed not in keys:
        raise errors.UsageError("source is missing: expected a path on the host")
    return Mount(
        target=check_target(text(keys["target"])),
        kind=kind,
        source=host_path(text(keys["source"]), context.base) if "source" in keys else "",
        read_only=flag(keys["read-only"]) if "read-only" in keys else False,
        size_bytes=parse_size(str(number_or_text(keys["size"]))) if "size" in keys else None,
    )


def _volumes(given: Given, context: Context) -> list[tuple[Path, object]]:
    return items(given, context, ' such as [".:/src:ro"]', lambda item: _volume(item, context))


def _tmpfs(given: Given, context: Context) -> list[tuple[Path, object]]:
    return items(given, context, ' such as ["/tmp:size=16m"]', lambda item: parse_tmpfs(text(item)))


def _ports(given: Given, context: Context) -> tuple[Port, ...]:
    found: list[Port] = []
    for _, item in items(given, context, ' such as ["8080:80"]', lambda one: network.parse_ports(str(scalar(one)))):
        found += item  # type: ignore[arg-type]
    return tuple(found)


def _dns(given: Given, context: Context) -> tuple[str, ...]:
    if given.value == network.NO_DNS:
        return (network.NO_DNS,)
    expected = f' such as ["192.0.2.1"], or "{network.NO_DNS}"'
    found = items(given, context, expected, lambda item: network.parse_dns((text(item),)))
    return network.parse_dns(str(one[0]) for _, one in found)  # type: ignore[index]


def _add_hosts(given: Given, context: Context) -> tuple[object, ...]:
    found = items(given, context, ' such as ["db:192.0.2.1"]', lambda item: network.parse_add_host(text(item)))
    return tuple(one for _, one in found)


def _capabilities(given: Given, context: Context) -> tuple[object, ...]:
    found = items(given, context, ' such as ["NET_ADMIN"]', lambda item: capabilities.parse(text(item)))
    return tuple(name for _, name in found)


def _security(given: Given, context: Context) -> dict[str, object]:
    options: list[str] = []

    def read(item: Given) -> None:
        security.parse((text(item),), context.base)
        options.append(text(item))

    items(given, context, ' such as ["no-new-privileges"]', read)
    return security.parse(tuple(options), context.base)


def _rates(option: str) -> Reader:
    def read(given: Given, context: Context) -> list[tuple[Path, object]]:
        example = ' such as ["/dev/sda:10m"]'
        return items(given, context, example, lambda item: limits.device_rate(option, text(item), context.base))

    return read


def _ulimits(given: Given, context: Context) -> list[tuple[Path, object]]:
    return items(given, context, ' such as ["nofile=1024:2048"]', lambda item: limits.ulimit(text(item)))


def _root_emulation(given: Given) -> str:
    value = meaning(given.value)
    if isinstance(value, bool):
        return "on" if value else "off"
    if text(given) not in EMULATIONS:
        raise errors.UsageError(f"expected auto, on or off, got {quoted(text(given))}{near(text(given), EMULATIONS)}")
    return text(given)


def env_entry(name: str, given: Given) -> tuple[str, str]:
    """One variable; its value may be any scalar, and is the text it was written with."""
    check_env_name(name)
    value = scalar_text(given.value)
    if value is None:
        raise errors.UsageError(f"expected a text, a number, true or false, got {kind_of(given.value)}")
    check_text(f"{name}={value}")
    return name, value


def _rootfs(given: Given, context: Context) -> Source | None:
    name = text(given)
    if name in context.sources:
        return context.sources[name]
    if not any(sign in name for sign in "/.~:"):
        hint = near(name, context.sources)
        if hint:
            raise errors.UsageError(f"no {quoted(name)} in [rootfs]{hint}; a path is written ./{name}")
    return sources.parse(name, context.base)


def _pull(given: Given, _context: Context) -> str:
    found = text(given)
    if found not in PULLS:
        raise errors.UsageError(f"expected {' or '.join(PULLS)}, got {quoted(found)}{near(found, PULLS)}")
    return found


SOURCE_READERS: dict[str, Reader] = {
    "source": lambda given, context: sources.parse(text(given), context.base),
    "sha256": lambda given, _: sources.check_sha256(text(given)),
    "platform": lambda given, _: sources.check_platform(text(given)),
    "pull": _pull,
    "max-unpacked": lambda given, _: parse_size(str(number_or_text(given))),
    "max-entries": lambda given, _: count(given),
}
"""The keys of [rootfs.NAME]; but for the first two they are those of a job as well."""


OF_SOURCE = ("platform", "pull", "max-unpacked", "max-entries")
READERS: dict[str, Reader] = {
    "rootfs": _rootfs,
    **{key: SOURCE_READERS[key] for key in OF_SOURCE},
    "command": _command,
    "run": _run,
    "entrypoint": _entrypoint,
    "volumes": _volumes,
    "tmpfs": _tmpfs,
    "workdir": lambda given, _: check_target(text(given)),
    "user": _user,
    "hostname": lambda given, _: check_hostname(text(given)),
    "network": lambda given, _: check_network(text(given)),
    "ports": _ports,
    "publish-all": lambda given, _: flag(given),
    "dns": _dns,
    "add-hosts": _add_hosts,
    "stdin": lambda given, context: host_path(text(given), context.base),
    "cap-add": _capabilities,
    "cap-drop": _capabilities,
    "security-opt": _security,
    "privileged": lambda given, _: flag(given),
    "root-emulation": lambda given, _: _root_emulation(given),
    "memory": lambda given, _: limits.memory(number_or_text(given)),
    "memory-swap": lambda given, _: limits.memory_swap(number_or_text(given)),
    "cpus": lambda given, _: limits.cpus(number(given)),
    "cpuset-cpus": lambda given, _: limits.cpuset(str(number_or_text(given))),
    "pids-limit": lambda given, _: limits.pids(number_or_text(given)),
    "blkio-weight": lambda given, _: limits.weight(number_or_text(given)),
    **{option: _rates(option) for option in limits.IO_KINDS},
    "ulimits": _ulimits,
    "limits": lambda given, _: limits.mode(text(given)),
    "init": lambda given, _: flag(given),
    "read-only": lambda given, _: flag(given),
    "scratch": lambda given, _: parse_scratch(text(given)),
    "workspace": things.workspace,
    "artifacts": things.artifacts,
    "cache": things.cache,
    "secrets": things.secrets,
    "needs": policy.names("build"),
    "if": policy.condition,
    "stage": policy.stage,
    "allow-failure": policy.allow_failure,
    "retry": policy.retry,
    "priority": policy.priority,
    "timeout": _timeout,
    "stop-signal": _signal,
    "stop-timeout": _duration,
    "fail-fast": lambda given, _: flag(given),
    "max-parallel": lambda given, _: count(given),
    "repeat": lambda given, _: count(given),
    "services": lambda given, context: items(given, context, ' such as ["db"]', text),
}
"""Every key with one value. `env` and `matrix` are read apart: one is merged by name, the other makes cells."""

SHARED = ("fail-fast", "max-parallel", "stage")
"""Keys that all cells of a job have in common."""
_UNFILLED = ("if",)
"""Keys whose readers read expressions themselves."""
_LIST, _ANY = (list,), (str, list, dict)
_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(
        ("command", "volumes", "tmpfs", "ports", "add-hosts", "cap-add", "cap-drop", "security-opt"), _LIST
    ),
    **dict.fromkeys((*limits.IO_KINDS, "ulimits", "services"), _LIST),
    **dict.fromkeys(("entrypoint", "dns", "needs", "secrets"), (str, list)),
    **dict.fromkeys(("workspace", "retry"), (str, dict)),
    **dict.fromkeys(("artifacts", "cache"), _ANY),
}
"""What may have expressions in it; of other keys a text alone. An expression is never more than a text, a number or a flag."""
OF_A_JOB = {
    "matrix": "a matrix belongs to a job: [jobs.NAME.matrix]",
    "needs": "what is needed belongs to a job: [jobs.NAME]",
    "if": "a condition belongs to a job: [jobs.NAME]",
    "stage": "a stage belongs to a job: [jobs.NAME]",
}
"""Keys that make no sense in [defaults], and what is said of them there."""


def varies(key: str, given: Given) -> bool:
    """Whether a value has to be filled in for each cell before it can be read; one of a wrong kind stays wrong."""
    fits = isinstance(given.value, _KINDS.get(key, (str,)))
    return fits and key not in _UNFILLED and has_expression(given.value)
