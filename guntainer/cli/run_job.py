"""From the options of `guntainer run` to a Job: every value is read here, and a mistake is named with its option."""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.cli import limiting
from guntainer.jobs import sources, values
from guntainer.jobs.model import NETWORKS, PULLS, Job, Mount, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.cli.options import Options


def job_of(args: Options, location: str, command: list[str]) -> Job:
    """The options as a Job.

    Raises:
        UsageError: naming the option.
        CommandNotFound: its name is empty.
    """
    if args.network not in NETWORKS:
        known = " or ".join(NETWORKS)
        meant = "private" if args.network in _DOCKERS_NETWORKS else ""
        near = f" (did you mean {values.quoted(meant)}?)" if meant else values.near(args.network, NETWORKS)
        raise errors.UsageError(f"--network {args.network}: expected {known}{near}")
    if args.tty and args.no_tty:
        raise errors.UsageError("-t and --no-tty can not be used together")
    if not location:
        raise errors.UsageError("ROOTFS is empty", hint="is a variable not set?")
    if command and not command[0]:
        raise errors.CommandNotFound("COMMAND is empty: not found in the rootfs", hint="is a variable not set?")
    mounts = [_option("-v", values.parse_volume, text, _here()) for text in args.volume]
    mounts += [_mount(text) for text in args.mount]
    mounts += [_option("--tmpfs", values.parse_tmpfs, text) for text in args.tmpfs]
    return Job(
        id=args.name or "run",
        rootfs=source_of(args, location),
        command=tuple(command),
        entrypoint=_option("--entrypoint", values.parse_entrypoint, args.entrypoint),
        env=tuple(environment(args).items()),
        mounts=tuple(mounts),
        workdir=_workdir(args.workdir),
        user=args.user,
        hostname=_option("-h", values.check_hostname, args.hostname),
        network=args.network,
        **_network(args),
        **_privileges(args),
        limits=limiting.limits_of(args, _option, _here),
        init=args.init,
        read_only=args.read_only,
        scratch=_option("--scratch", values.parse_scratch, args.scratch),
        cache=not args.no_cache,
        timeout_s=timeout(args),
        stop_signal=_option("--stop-signal", values.parse_signal, args.stop_signal) if args.stop_signal else None,
        stop_timeout_s=_option("--stop-timeout", values.parse_duration, args.stop_timeout),
    )


def timeout(args: Options) -> float | None:
    """--timeout; None: never."""
    return (_option("--timeout", values.parse_duration, args.timeout) or None) if args.timeout else None


def source_of(args: Options, location: str) -> Source:
    """ROOTFS, with the options that say how it is come by.

    Raises:
        UsageError: naming the option.
    """
    source: Source = _option("ROOTFS", sources.parse, location, _here())
    if args.sha256 is not None:
        source = source.replace(sha256=_option("--sha256", sources.check_sha256, args.sha256))
    return bounded(args, source)


def bounded(args: Options, source: Source) -> Source:
    """A source, with the options that say how any is come by.

    Raises:
        UsageError: naming the option.
    """
    read: dict[str, Any] = {}
    if args.pull != Source.pull:
        if args.pull not in PULLS:
            raise errors.UsageError(f"--pull {args.pull}: expected {' or '.join(PULLS)}{values.near(args.pull, PULLS)}")
        read["pull"] = args.pull
    if args.platform:
        read["platform"] = _option("--platform", sources.check_platform, args.platform)
    if args.max_unpacked:
        read["max-unpacked"] = _option("--max-unpacked", values.parse_size, args.max_unpacked)
    if args.max_entries:
        read["max-entries"] = _option("--max-entries", _count, args.max_entries)
    return sources.bounded(source, read)


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise errors.UsageError(f"expected a whole number of at least 1, got {values.quoted(text)}")
    return int(text)


def _network(args: Options) -> dict[str, Any]:
    """The fields of a Job that -p, -P, --dns and --add-host give."""
    if not (args.publish or args.publish_all or args.dns or args.add_host):
        return {}
    from guntainer.jobs import network

    ports = [port for text in args.publish for port in _option("-p", network.parse_ports, text)]
    hosts = [_option("--add-host", network.parse_add_host, text) for text in args.add_host]
    return {
        "ports": _option("-p", network.check_ports, ports, args.network),
        "publish_all": _option("-P", network.check_publish_all, args.publish_all, args.network),
        "dns": _option("--dns", network.parse_dns, args.dns),
        "add_hosts": _option("--add-host", network.check_hosts, hosts, args.network),
    }


def _privileges(args: Options) -> dict[str, Any]:
    """The fields of a Job that --cap-add, --cap-drop, --security-opt and their like give."""
    found: dict[str, Any] = {"privileged": args.privileged, "root_emulation": args.root_emulation}
    if args.cap_add or args.cap_drop:
        from guntainer import capabilities

        found["cap_add"] = tuple(_option("--cap-add", capabilities.parse, text) for text in args.cap_add)
        found["cap_drop"] = tuple(_option("--cap-drop", capabilities.parse, text) for text in args.cap_drop)
    if args.security_opt:
        from guntainer.jobs import security

        found.update(_option("--security-opt", security.parse, tuple(args.security_opt), _here()))
    return found


def _option(name: str, parse: Callable[..., Any], *values_: Any) -> Any:
    """A value of an option; a mistake in it is named with the option."""
    try:
        return parse(*values_)
    except errors.UsageError as error:
        raise errors.UsageError(f"{name}: {error.message}", hint=error.hint) from None


def _here() -> str:
    """The working directory; "" where it has been deleted under us."""
    try:
        return os.getcwd()
    except OSError:
        return ""


_MOUNT_KEYS = {
    "type": "type",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "readonly": "ro",
    "ro": "ro",
    "size": "size",
    "tmpfs-size": "size",
}
_YES_OR_NO = {"": True, "true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def _mount(text: str) -> Mount:
    """`--mount type=bind,source=…,target=…[,readonly]`, docker's and podman's notation."""
    found: dict[str, str] = {"type": "bind"}
    for part in text.split(","):
        key, _, value = part.partition("=")
        if key not in _MOUNT_KEYS:
            raise errors.UsageError(f"--mount {text}: unknown key {values.quoted(key)}{values.near(key, _MOUNT_KEYS)}")
        found[_MOUNT_KEYS[key]] = value
    target = _option("--mount", values.check_target, found.get("target", ""))
    read_only = _YES_OR_NO.get(found.get("ro", "false").lower())
    if read_only is None:
        raise errors.UsageError(f"--mount {text}: readonly: expected true or false, got {values.quoted(found['ro'])}")
    unfit = {"bind": "size", "tmpfs": "source"}.get(found["type"])
    if unfit in found:
        raise errors.UsageError(f"--mount {text}: {unfit} does not go with type={found['type']}")
    if found["type"] == "tmpfs":
        size = _option("--mount", values.parse_size, found["size"]) if "size" in found else None
        return Mount(kind="tmpfs", target=target, read_only=read_only, size_bytes=size)
    if found["type"] != "bind" or not found.get("source"):
        raise errors.UsageError(f"--mount {text}: expected type=bind,source=…,target=… or type=tmpfs,target=…")
    source = _option("--mount", values.host_path, found["source"], _here())
    return Mount(source=source, target=target, read_only=read_only)


def _workdir(path: str | None) -> str | None:
    if path is not None and not path.startswith("/"):
        raise errors.UsageError(f"-w {path}: expected an absolute path")
    return path


_DOCKERS_NETWORKS = ("bridge", "default", "slirp4netns", "pasta")
"""What docker and podman call a network of the container's own."""
_ENV_FILE_LIMIT = 4 << 20


def environment(args: Options) -> dict[str, str]:
    """The variables that -e and --env-file give."""
    found: dict[str, str] = {}
    for path in args.env_file:
        try:
            with open(path, encoding="utf-8", errors="surrogateescape", newline="\n") as file:
                text = file.read(_ENV_FILE_LIMIT + 1)
        except OSError as error:
            raise errors.UsageError(f"--env-file {errors.describe_oserror(error)}") from None
        if len(text) > _ENV_FILE_LIMIT:
            raise errors.UsageError(f"--env-file {path}: larger than {_ENV_FILE_LIMIT >> 20} MiB")
        # only a line feed ends a line, and what stands behind the = is the value, blanks and all
        for number, raw in enumerate(text.split("\n"), 1):
            line = raw.removesuffix("\r").lstrip()
            if line and not line.startswith("#"):
                _variable(found, line, f"{path}:{number}")
    for text in args.env:
        _variable(found, text, "-e")
    return found


def _variable(found: dict[str, str], text: str, where: str) -> None:
    if text.startswith("export "):
        raise errors.UsageError(
            f"{where}: {values.quoted(text.partition('=')[0])}: it is no shell script", hint='leave the "export" out'
        )
    key, value = _option(where, values.parse_env, text)
    if value is not None:
        found[key] = value
    elif key in os.environ:
        found[key] = os.environ[key]
