"""pasta and slirp4netns: which of them is here, how each is started, and that none outlives its supervisor.

Both connect a network namespace to the host's by ordinary sockets of the user's own, so they need no privileges: pasta(1) of
the package passt, slirp4netns(1). They run beside the container, on the host, and open the device `eth0` in its namespace.

How a tool is bound to the life of its supervisor: its stdin is the reading end of a pipe, whose writing end the supervisor
alone has. The end is set to send SIGKILL to the tool when something happens there (`asking.tie`), which is when the supervisor
dies, however. A parent-death signal would not do: it is lost with a change of credentials, and each tool has some.
"""

from __future__ import annotations

import _signal
import os

from guntainer import descriptors, errors, refusals
from guntainer.init.private_network import DEVICE
from guntainer.jobs.network import check_ports, check_publish_all
from guntainer.naming import FORWARDER
from guntainer.network import asking, versions
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.jobs.model import Job, Port

ADDRESS = "10.0.2.100"
"""The container's own; the host's is none of its, so that it can be reached from there."""
GATEWAY = "10.0.2.2"
_PREFIX = "24"
_MAC = "02:42:0a:00:02:64"  # of the address, as in docker
_TUN = "/dev/net/tun"
_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
# Descriptors of a tool. Newer pastas keep none but the first three; slirp4netns talks on 1 as well.
_LIFE, _SAID = 0, 2
_NETWORK = {"pasta": 1, "slirp4netns": 4}
_READY = {"pasta": _SAID, "slirp4netns": 3}
_SAID_BYTES = 1 << 16
_NOISE = ("Failed to send ", "sent tapfd=", "received tapfd=", "WARNING: ", "Starting slirp", "* ")
_PACKAGES = "install passt, or slirp4netns"
_NEWER = "install a newer passt, or a newer slirp4netns"


class Tool(Value):
    """One of the two programs."""

    name: str
    path: str


def find() -> tuple[Tool, ...]:
    """Those that are in PATH, the better one first."""
    folders = [folder for folder in os.environ.get("PATH", _PATH).split(":") if folder]
    found = []
    for name in ("pasta", "slirp4netns"):
        path = next(
            (p for p in (f"{folder}/{name}" for folder in folders) if os.access(p, os.X_OK) and os.path.isfile(p)), ""
        )
        if path:
            found.append(Tool(name=name, path=os.path.abspath(path)))
    return tuple(found)


def require() -> tuple[tuple[Tool, ...], tuple[str, ...]]:
    """The tools that may be tried, when a private network can be had here: the first is new enough, one after it has not been
    asked. Then why the better one is passed over: `pasta: /usr/bin/pasta: too old: …`.

    Raises:
        HostError: there is no tool, none that is new enough, or no way to the device that it needs.
        Exhausted: no process or descriptor is left to ask one.
    """
    found = find()
    if not found:
        raise errors.HostError(
            "a private network needs pasta or slirp4netns, and PATH has neither", hint=_PACKAGES, probe="network-tool"
        )
    try:
        os.close(os.open(_TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise errors.HostError(
            f"a private network needs {_TUN}, which can not be opened here ({error.strerror})",
            hint=_tun_hint(error),
            probe="tun",
        ) from None
    reasons: list[str] = []
    for at, tool in enumerate(found):
        why = unfit(tool)
        if not why:
            return found[at:], tuple(reasons)
        reasons.append(why)
    raise errors.HostError(f"no private network: {'; '.join(reasons)}", hint=_NEWER, probe="network-tool")


def unfit(tool: Tool) -> str:
    """Why the tool is not used here, with its name and path; "": nothing speaks against it. It is asked the first time alone.

    Raises:
        Exhausted: no process or descriptor is left to ask it.
    """
    try:
        found = versions.judge(tool.name, tool.path, options(tool))
    except OSError as error:
        refusal = refused(f"{tool.path} can not be started", error)
        if isinstance(refusal, errors.Exhausted):
            raise refusal from None
        return f"{tool.name}: {refusal.message}"
    return f"{tool.name}: {tool.path}: {found.fault}" if found.fault else ""


def check(job: Job) -> None:
    """Before anything is unpacked or made for a job: its ports make sense, and a private network can be had.

    Raises:
        UsageError, HostError: saying why not.
    """
    check_ports(job.ports, job.network)
    check_publish_all(job.publish_all, job.network)
    if job.network == "private":
        try:
            require()
        except errors.Exhausted:
            pass  # that may be over when the job's turn comes, and it is asked again then


def _tun_hint(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return f"root can open it to all, as distributions do: chmod 0666 {_TUN}"
    return f"root can load it: modprobe tun; a container around needs --device {_TUN}"


# -- command lines


def pasta(tool: Tool, user: str, ports: Iterable[Port], *, forward: bool = False) -> list[str]:
    """pasta(1). Nothing is forwarded but what is asked for: by default it would be every port that is bound, both ways.

    Args:
        user: the path of the user namespace; "": it is in that one already.
        forward: pass on what comes for the forwarder of name servers, see `naming`.
    """
    words = [tool.path, "--foreground", "--quiet", "--config-net", "--ns-ifname", DEVICE]
    # Else older ones do not know where to send before the container has sent something.
    words += ["--ns-mac-addr", _MAC]
    words += ["--address", ADDRESS, "--netmask", _PREFIX, "--gateway", GATEWAY, "--no-map-gw"]
    words += ["--tcp-ns", "none", "--udp-ns", "none", *(("--dns-forward", FORWARDER) if forward else ())]
    ports = tuple(ports)
    for option, protocol in (("--tcp-ports", "tcp"), ("--udp-ports", "udp")):
        wanted = [f"{port.address}/{port.host}:{port.container}" for port in ports if port.protocol == protocol]
        for text in wanted or ["none"]:
            words += [option, text]
    if os.geteuid() == 0:
        words += ["--runas", "0:0"]  # else it becomes nobody, who may not enter the namespace
    words += ["--pid", f"/proc/self/fd/{_READY[tool.name]}"]  # written when all is set up
    words += ["--netns", f"/proc/self/fd/{_NETWORK[tool.name]}"]
    return [*words, "--userns", user] if user else [*words, "--netns-only"]


def slirp4netns(tool: Tool, user: str, api: str) -> list[str]:
    """slirp4netns(1).

    Args:
        api: the path of the socket on which it takes ports; "": none.
    """
    words = [tool.path, "--configure", "--mtu=65520", "--disable-host-loopback", "--enable-seccomp"]
    words += ["--enable-sandbox"] if os.geteuid() == 0 else []  # it makes a mount namespace without a user namespace
    words += [f"--ready-fd={_READY[tool.name]}", f"--exit-fd={_LIFE}", "--netns-type=path"]
    words += [f"--userns-path={user}"] if user else []
    words += [f"--api-socket={api}"] if api else []
    return [*words, f"/proc/self/fd/{_NETWORK[tool.name]}", DEVICE]


def options(tool: Tool) -> frozenset[str]:
    """Every option with which it may be started: `--netns`."""
    words = slirp4netns(tool, "user", "api")
    if tool.name == "pasta":
        words = [*pasta(tool, "user", (), forward=True), *pasta(tool, "", ())]
    return frozenset(word.partition("=")[0] for word in words if word.startswith("--"))


# -- running


class Running:
    """A tool that was started: `ready` is readable when `is_ready` may have become true, `pidfd` when it has ended.

    Args:
        network: a descriptor of the network namespace.

    Raises:
        Exhausted: no process or descriptor is left.
        HostError: it can not be executed.
    """

    def __init__(self, tool: Tool, words: list[str], network: int) -> None:
        self.tool = tool
        self.pid = 0
        """0 when it has been waited for."""
        self.pidfd = -1
        self.silent = False
        """It will say nothing any more: it is ending."""
        self._said = ""
        self._woken = b""
        self._open: list[int] = []
        try:
            life, self._life = self._pipe()
            self._said_fd, said = self._pipe()
            os.set_blocking(said, False)  # who writes more than anybody reads must not wait for it
            places = {_LIFE: life, 1: said, _SAID: said, _NETWORK[tool.name]: network}
            self.ready = self._said_fd
            if _READY[tool.name] != _SAID:
                self.ready, places[_READY[tool.name]] = self._pipe()
            for fd in (self.ready, self._said_fd):
                os.set_blocking(fd, False)
            self.pid = os.posix_spawn(
                tool.path,
                words,
                {"LC_ALL": "C.UTF-8"},
                file_actions=descriptors.to_places(places),
                setsid=True,  # no key of a terminal reaches it
                setsigmask=(),
                setsigdef=asking.SIGNALS,
            )
            self._number = self.pid
            self.pidfd = os.pidfd_open(self.pid)
            self._open.append(self.pidfd)
            asking.tie(life, self.pid)
        except OSError as error:
            self.close()
            raise refused(f"{tool.path} can not be started", error) from None
        except BaseException:
            self.close()
            raise
        for fd in {life, said, places[_READY[tool.name]]}:
            self._close(fd)

    def _pipe(self) -> tuple[int, int]:
        ends = os.pipe2(os.O_CLOEXEC)
        self._open += ends
        return ends

    def _close(self, fd: int) -> None:
        self._open.remove(fd)
        os.close(fd)

    def is_ready(self) -> bool:
        """Whether it has said so: by a byte, or by a line with its process id among what else it says."""
        if self.ready != self._said_fd:
            return bool(self._read(self.ready))
        self._listen()
        return f"\n{self._number}\n" in "\n" + self._said

    def forget(self) -> None:
        """What it has said until now is of no interest any more."""
        self._listen()
        self._said = ""

    def rests(self) -> bool:
        """Whether it has done nothing since this was asked before: it sleeps, and has not been woken."""
        try:
            with open(f"/proc/{self.pid}/status", "rb") as file:
                text = file.read()
        except OSError:
            return True
        woken = text[text.find(b"\nvoluntary_ctxt_switches") :]
        before, self._woken = self._woken, woken
        return woken == before and b"\nState:\tS" in text

    def _listen(self) -> None:
        self._said = (self._said + self._read(self._said_fd).decode(errors="replace"))[-_SAID_BYTES:]

    def _read(self, fd: int) -> bytes:
        try:
            data = os.read(fd, _SAID_BYTES)
        except BlockingIOError:
            return b""
        self.silent = self.silent or not data
        return data

    def said(self) -> str:
        """What it has said of what went wrong, in one line."""
        self._listen()
        lines = [line.strip() for line in self._said.splitlines()]
        lines = [line for line in lines if line and line != str(self._number) and not line.startswith(_NOISE)]
        return "; ".join(lines[-2:])

    def kill(self) -> None:
        """End it; `pidfd` is readable when it has."""
        if self.pid:
            try:
                os.kill(self.pid, _signal.SIGKILL)
            except ProcessLookupError:
                pass

    def reap(self) -> str:
        """How it ended: `exit 1`, `signal 9 (SIGKILL)`; waits for that."""
        from guntainer import report

        pid, self.pid = self.pid, 0
        try:
            status = os.waitpid(pid, 0)[1]
        except ChildProcessError:
            return "a status that somebody else has taken"
        if os.WIFSIGNALED(status):
            return report.signalled(os.WTERMSIG(status)).describe()
        return report.exited(os.WEXITSTATUS(status)).describe()

    def close(self) -> None:
        """End it where it lives, wait for that, close everything."""
        if self.pid:
            self.kill()
            self.reap()
        for fd in self._open:
            os.close(fd)
        self._open.clear()


def refused(what: str, error: OSError) -> errors.HostError:
    """A refusal of the kernel's in words; Exhausted where it is want of processes or descriptors."""
    found = refusals.of_clone(error.errno or 0, "")
    if isinstance(found, errors.Exhausted):
        return found
    return errors.HostError(f"{what}: {error.strerror}", probe="network-tool")
