"""`guntainer run [OPTIONS] ROOTFS [COMMAND [ARGS…]]`: one container in the foreground."""

from __future__ import annotations

import os

from guntainer import errors, report
from guntainer.cli import limiting, options, show, write
from guntainer.cli.options import FLAG, LIST, Option, Options
from guntainer.jobs import values
from guntainer.jobs.model import (
    DEFAULT_HOSTNAME,
    DEFAULT_STOP_TIMEOUT_S,
    EMULATIONS,
    NETWORKS,
    NO_LIMITS,
    USERNS,
    Job,
    Mount,
    Source,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from guntainer.cli.parsing import Parser
    from guntainer.ladder import Rung

_EPILOG = """\
ROOTFS is an archive (tar with any compression, zip, cpio, 7z) or a folder; everything after COMMAND belongs to it.
COMMAND defaults to /bin/sh.

exit codes: the command's own; 124 timed out; 125 guntainer failed; 126 found but not executable; 127 not found;
128+N ended by signal N; 130 Ctrl-C.

examples:
  guntainer run alpine.tar.gz                     a shell in it
  guntainer run -v .:/src -w /src alpine.tar.gz make
  guntainer run --network none --timeout 30s rootfs/ ./test
"""


OPTIONS = (
    Option("--help", kind=FLAG, help="show this and exit"),
    Option("-e", "--env", kind=LIST, metavar="K[=V]", help="set a variable; without =V: the host's"),
    Option("--env-file", kind=LIST, metavar="FILE", help="read K=V lines"),
    Option("-v", "--volume", kind=LIST, metavar="SRC:DST[:ro]", help="bind a host path"),
    Option("--mount", kind=LIST, metavar="type=bind|tmpfs,…", help="the same, spelled out"),
    Option("--tmpfs", kind=LIST, metavar="DST[:size=…]", help="mount a memory file system"),
    Option("-w", "--workdir", metavar="DIR", help="start there (default: /)"),
    Option("-u", "--user", metavar="UID[:GID]|NAME", help="run as this user of the rootfs (default: root)"),
    Option("-h", "--hostname", default=DEFAULT_HOSTNAME, metavar="NAME", help="host name (default: {default})"),
    Option("--name", metavar="NAME", help="a name for messages"),
    Option("-i", "--interactive", kind=FLAG, help="accepted: stdin is always passed on"),
    Option("-t", "--tty", kind=FLAG, help="a pseudo-terminal (by default where stdin, stdout and stderr are one)"),
    Option("--no-tty", kind=FLAG, help="no pseudo-terminal, ever"),
    Option("--rm", kind=FLAG, help="accepted: nothing is kept anyway"),
    Option("--keep", kind=FLAG, help="keep what the run wrote, and print where"),
    Option("--read-only", kind=FLAG, help="make the root read-only"),
    Option("--scratch", default="disk", metavar="disk|memory[:SIZE]", help="where the writable layer lies"),
    Option("--network", default="host", metavar="|".join(NETWORKS), help="the host's, nothing but lo, or its own"),
    Option("-p", "--publish", kind=LIST, metavar="[IP:]HOST:CONT[/udp]", help="publish a port; CONT alone: a free one"),
    Option("--dns", kind=LIST, metavar="IP|none", help="a name server; none: the rootfs's own resolv.conf"),
    Option("--add-host", kind=LIST, metavar="NAME:IP", help="a line of /etc/hosts; the IP may be host-gateway"),
    Option("--cap-add", kind=LIST, metavar="CAP", help="add a capability to docker's set; ALL: every one"),
    Option("--cap-drop", kind=LIST, metavar="CAP", help="take one away; ALL: every one"),
    Option(
        "--security-opt",
        kind=LIST,
        metavar="OPT",
        help="no-new-privileges, seccomp=FILE|unconfined, unmask=ALL|PATH[:PATH]",
    ),
    Option("--privileged", kind=FLAG, help="all that the user namespace has; nothing of the host's"),
    Option(
        "--userns",
        choices=USERNS,
        default="auto",
        metavar="|".join(USERNS),
        help="ids: a range of sub-ids, or your own alone (auto: a range where the host has one)",
    ),
    Option(
        "--root-emulation",
        choices=EMULATIONS,
        default="auto",
        metavar="|".join(EMULATIONS),
        help="chown, set*id and mknod succeed and do nothing (auto: with one id, in a distribution)",
    ),
    *limiting.OPTIONS,
    Option("--init", kind=FLAG, help="put a small init before the command"),
    Option("--timeout", metavar="TIME", help="stop after this long (30s, 5m; a bare number is seconds; 0: never)"),
    Option("--stop-signal", default="TERM", metavar="SIGNAL", help="what asks the command to stop"),
    Option("--stop-timeout", default=str(int(DEFAULT_STOP_TIMEOUT_S)), metavar="TIME", help="then wait this long"),
    Option("--no-cache", kind=FLAG, help="unpack into a temporary folder and remove it afterwards"),
    Option("--sha256", metavar="HEX", help="refuse an archive with another digest"),
    Option("--store", metavar="DIR", help="where unpacked archives are kept"),
    Option("--dry-run", kind=FLAG, help="print what would be done, start nothing"),
    Option("--require-isolation", choices=("full",), metavar="full", help="refuse to run with less"),
    Option("--verbose", kind=FLAG, help="more notes of our own"),
    *options.COMMON,
)


def parser() -> Parser:
    """Every option, for completion and for what the quick reader leaves to argparse."""
    from guntainer.cli.parsing import build

    return build(
        OPTIONS,
        prog="guntainer run",
        add_help=False,
        usage="guntainer run [OPTIONS] ROOTFS [COMMAND [ARGS…]]",
        description="Run a command in a rootfs, as your own user, in a container of its own.",
        epilog=_EPILOG,
    )


def main(words: list[str]) -> int:
    read = options.read(OPTIONS, words)
    if read is None or read[0].help or not read[1]:
        from guntainer.cli.parsing import read_slowly

        read = read_slowly(parser(), words, positional="ROOTFS")
        if read is None:
            return 0
    args, rest = read
    job = job_of(args, rest[0], rest[1:])
    return _Run(args, job).run()


def job_of(args: Options, location: str, command: list[str]) -> Job:
    """The options as a Job.

    Raises:
        UsageError: naming the option.
    """
    if args.network not in NETWORKS:
        known = " or ".join(NETWORKS)
        raise errors.UsageError(f"--network {args.network}: expected {known}")
    if args.tty and args.no_tty:
        raise errors.UsageError("-t and --no-tty can not be used together")
    if not location:
        raise errors.UsageError("ROOTFS is empty", hint="is a variable not set?")
    mounts = [_option("-v", values.parse_volume, text, _here()) for text in args.volume]
    mounts += [_mount(text) for text in args.mount]
    mounts += [_option("--tmpfs", values.parse_tmpfs, text) for text in args.tmpfs]
    sha256 = args.sha256
    if sha256 is not None and (len(sha256) != 64 or set(sha256.lower()) - set("0123456789abcdef")):
        raise errors.UsageError(f"--sha256 {sha256}: expected 64 hex digits")
    return Job(
        id=args.name or "run",
        rootfs=Source(
            location=_option("ROOTFS", values.host_path, location, _here()),
            name=location,
            sha256=sha256 and sha256.lower(),
        ),
        command=tuple(command),
        env=tuple(_environment(args).items()),
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
        timeout_s=(_option("--timeout", values.parse_duration, args.timeout) or None) if args.timeout else None,
        stop_signal=_option("--stop-signal", values.parse_signal, args.stop_signal),
        stop_timeout_s=_option("--stop-timeout", values.parse_duration, args.stop_timeout),
    )


def _network(args: Options) -> dict[str, Any]:
    """The fields of a Job that -p, --dns and --add-host give."""
    if not (args.publish or args.dns or args.add_host):
        return {}
    from guntainer.jobs import network

    ports = [port for text in args.publish for port in _option("-p", network.parse_ports, text)]
    hosts = [_option("--add-host", network.parse_add_host, text) for text in args.add_host]
    return {
        "ports": _option("-p", network.check_ports, ports, args.network),
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


_ENV_FILE_LIMIT = 4 << 20


def _environment(args: Options) -> dict[str, str]:
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
        _variable(found, text, f"-e {text.partition('=')[0]}")
    return found


def _variable(found: dict[str, str], text: str, where: str) -> None:
    key, equals, value = text.partition("=")
    _option(where, values.check_env_name, key)
    if equals:
        found[key] = value
    elif key in os.environ:
        found[key] = os.environ[key]


class _Run:
    """One run: lease the rootfs, launch, wait, clean up, in that order and back."""

    def __init__(self, args: Options, job: Job) -> None:
        self._args = args
        self._job = job
        self._folder: Any = None
        self._limiter: Any = None

    def note(self, text: str, level: str = "info") -> None:
        """One line of our own on stderr."""
        least = self._args.log_level or ("warning" if self._args.quiet else "debug" if self._args.verbose else "info")
        if options.LEVELS.index(level) < options.LEVELS.index(least):
            return
        if self._args.log_format == "json":
            from guntainer import log

            getattr(log.configure(level=least, format="json"), level)(text)
        else:
            write(f"guntainer: {text}\n" if level in ("info", "debug") else f"guntainer: {level}: {text}\n")

    def run(self) -> int:
        from guntainer import descriptors, idmap, interrupts, opening, runfolder
        from guntainer.kernel import syscalls

        # as the caller: inside of a user namespace the answers are root's
        opening.check_sources(self._job)
        syscalls.join_session_keyring()
        self._ids = idmap.enter(idmap.open_ids(self._args.userns))
        if self._ids.why:
            self.note(f"one id: {self._ids.why}")
        self.note(f"ids: {self._ids.describe()}", "debug")
        descriptors.allow(descriptors.LEAST + len(self._job.mounts))
        if self._job.network == "private" and not self._args.dry_run:
            from guntainer.network import tools

            tools.check(self._job)
        runfolder.remove_stale()
        try:
            if self._job.limits != NO_LIMITS and not self._args.dry_run:
                self._limit()
            with self._rootfs() as rootfs:
                return self._in(*rootfs)
        finally:
            # from here on there is only clean-up, which is done to its end
            interrupts.ignore()
            if self._limiter is not None:
                self._limiter.close()
            if self._folder is not None:
                self._folder.remove()

    def _limit(self) -> None:
        """Before anything is begun: can the limits be had?"""
        from guntainer.cgroups.limiter import Limiter

        self._limiter = Limiter(alone=self._ids.kind == "single")
        for text in self._limiter.grant(self._job.limits).notes:
            self.note(text, "warning")

    def folder(self) -> Any:
        """The run folder, made when it is first asked for."""
        if self._folder is None:
            from guntainer.runfolder import RunFolder

            self._folder = RunFolder().__enter__()
        return self._folder

    def _rootfs(self) -> Any:
        from guntainer.opening import open_rootfs

        progress = self._progress if os.isatty(2) and not self._args.quiet else None
        return open_rootfs(self._job, self._args.store, self._ids, self.folder, progress, self._go_on, self.note)

    def _go_on(self) -> None:
        """What comes after an unpack, as far as it can be had while another process unpacks."""
        import guntainer.foreground
        from guntainer import assembly

        assert guntainer.foreground
        if self._job.cache:
            from guntainer.store.lookup import open_store

            assembly.compile_early(self._job, open_store(self._args.store).path, self._ids)

    def _progress(self, done: int, total: int) -> None:
        """Of an unpack, on one line of the terminal that is gone when it is over."""
        if total and done < total:
            write(f"\runpacking {os.path.basename(self._job.rootfs.name)}: {done * 100 // total} %\x1b[K")
        else:
            write("\r\x1b[K")

    def _in(self, tree: str, shared: str) -> int:
        from guntainer import assembly

        ground = assembly.Ground(shared, self.folder, self._ids)
        ground.limiter = self._limiter
        terminal = self._wants_terminal()
        if self._args.dry_run:
            return self._dry_run(tree, ground, terminal)
        from guntainer.foreground import Foreground

        container = Foreground(self._job, tree, ground, terminal=terminal, descend=self._descend, note=self.note)
        exit_ = container.run()
        if exit_.reason in (report.TIMEOUT, report.OOM, report.PIDS):
            self.note(f"{self._job.id}: {exit_.describe()}", "warning")
        if self._args.keep:
            self._keep(container.layer)
        return exit_.code

    def _descend(self, rung: Rung) -> None:
        if self._args.require_isolation == "full":
            from guntainer import ladder

            ladder.refuse(rung)
        self.note(rung.note, "warning")

    def _wants_terminal(self) -> bool:
        both = os.isatty(0) and os.isatty(1)
        if self._args.tty and not both:
            self.note("-t: stdin and stdout are not a terminal; going on with a pseudo-terminal of its own", "warning")
        # A pseudo-terminal has one output only, so nobody gets one unasked whose stderr goes elsewhere.
        return bool(self._args.tty or (both and os.isatty(2) and not self._args.no_tty))

    def _dry_run(self, tree: str, ground: Any, terminal: bool) -> int:
        from guntainer import assembly, planner

        made = assembly.assemble(
            self._job,
            tree,
            ground,
            planner.Stdio(terminal=0) if terminal else planner.Stdio(),
            terminal=terminal,
            init="reaper" if self._job.init else "",
            network=0 if self._job.network == "private" else -1,
            cgroup=0 if self._job.limits.wanted else -1,
        )
        show(f"with ids {self._ids.describe()}\n" if self._ids.inside else "")
        show(planner.describe(made.plan))
        return 0

    def _keep(self, layer: str) -> None:
        if not layer:
            self.note("--keep: nothing to keep, the writable layer was in memory", "warning")
            return
        folder, self._folder = self._folder, None
        folder.keep()
        removal = f"; to remove it: guntainer unshare rm -rf {os.path.dirname(layer)}" if self._ids.inside else ""
        self.note(f"kept {layer}/upper{removal}", "warning")
