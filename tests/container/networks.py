"""What the tests of private networks share: a rootfs in which this machine's Python runs, the two tools one by one, servers of
the host's, and a host of its own made of namespaces."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guntainer import errors, naming
from guntainer.network import tools

Box = Callable[..., list[str]]
TOOLS = ("pasta", "slirp4netns")
_PYTHON = os.path.realpath(sys.executable)
_SHARED = ("/usr", "/lib", "/lib64", "/bin", "/sbin", sys.base_prefix, os.path.dirname(_PYTHON))


def python_rootfs(tree: Path) -> tuple[Path, list[str]]:
    """A folder as rootfs, and the volumes with which `python` below runs in it: as this machine has them, links as links."""
    (tree / "etc").mkdir(parents=True)
    (tree / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n")
    volumes: list[str] = []
    for path in _SHARED:
        if os.path.islink(path):
            (tree / path[1:]).symlink_to(os.readlink(path))
        elif (
            os.path.isdir(path) and not any(path.startswith(f"{volume}/") for volume in volumes) and path not in volumes
        ):
            volumes.append(path)
    return tree, [word for path in volumes for word in ("-v", f"{path}:{path}:ro")]


def python(script: str) -> list[str]:
    return [_PYTHON, "-I", "-S", "-c", script]


def only(tool: str, folder: Path) -> str:
    """A PATH in which of the two tools there is this one alone."""
    folder.mkdir(exist_ok=True)
    path = shutil.which(tool)
    assert path is not None
    (folder / tool).symlink_to(path)
    return str(folder)


def fake(folder: Path, name: str, script: str, version: str = "2024_09_06.6b38f07") -> Path:
    """A program of a tool's name that tells a version when it is asked, and else does what the script says.

    Args:
        version: "": being asked is nothing special.
    """
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.unlink(missing_ok=True)
    asked = f'[ "$1" = --version ] && echo {name} {version} && exit\n' if version else ""
    path.write_text(f"#!/bin/sh\n{asked}{script}\n")
    path.chmod(0o755)
    return path


def tool_of(pid: int) -> int:
    """The process id of the tool that a supervisor has started; 0 where there is none."""
    for child in children(pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")[0].rpartition(b"/")[2].decode() in TOOLS:
                return child
    return 0


def children(pid: int) -> list[int]:
    """Process ids: proc(5)."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += [int(word) for word in Path(f"/proc/{pid}/task/{thread}/children").read_text().split()]
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def tools_alive() -> set[int]:
    """Every process of this machine that is one of the tools."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name = (entry / "cmdline").read_bytes().split(b"\0")[0].rpartition(b"/")[2].decode(errors="replace")
                if name in TOOLS and alive(int(entry.name)):
                    found.add(int(entry.name))
    return found


class Server:
    """TCP and UDP on one port of the host's, which answer with what they got, and know from whom."""

    def __init__(self, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.heard: list[str] = []
        self._tcp = socket.create_server((address, 0), family=family)
        self.port = int(self._tcp.getsockname()[1])
        self._udp = socket.socket(family, socket.SOCK_DGRAM)
        self._udp.bind((address, self.port))
        self._ending = False
        self._threads = [threading.Thread(target=serve) for serve in (self._serve_tcp, self._serve_udp)]
        for sock in (self._tcp, self._udp):
            sock.settimeout(0.1)
        for thread in self._threads:
            thread.start()

    def _serve_tcp(self) -> None:
        while not self._ending:
            with contextlib.suppress(OSError):
                connection, peer = self._tcp.accept()
                self.heard.append(f"tcp {peer[0]}")
                with connection:
                    connection.settimeout(10)
                    connection.sendall(b"echo " + connection.recv(100))

    def _serve_udp(self) -> None:
        while not self._ending:
            with contextlib.suppress(OSError):
                data, peer = self._udp.recvfrom(100)
                self.heard.append(f"udp {peer[0]}")
                self._udp.sendto(b"echo " + data, peer)

    def close(self) -> None:
        self._ending = True
        for thread in self._threads:
            thread.join()
        self._tcp.close()
        self._udp.close()


@contextlib.contextmanager
def server(address: str) -> Iterator[Server]:
    found = Server(address)
    try:
        yield found
    finally:
        found.close()


ASK = """
import socket, sys
def ask(kind, address, port, text=b"hi", before=lambda s: None):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, kind) as sock:
            sock.settimeout(1)
            before(sock)
            sock.connect((address, port))
            sock.send(text)
            return sock.recv(100).decode()
    except OSError as error:
        return type(error).__name__
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
"""
"""For a script inside: one message to a server, and its answer or the name of the error."""

SERVE = """
import socket
def serve_once(kind, port):
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("0.0.0.0", port))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        print("ready", flush=True)
        if kind == socket.SOCK_STREAM:
            connection, _ = sock.accept()
            connection.sendall(b"echo " + connection.recv(100))
            connection.close()
        else:
            data, peer = sock.recvfrom(100)
            sock.sendto(b"echo " + data, peer)
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
"""
"""For a script inside: a server of one answer."""


def free_port() -> int:
    """A port that was free a moment ago, for TCP and for UDP."""
    while True:
        with socket.socket() as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("", 0))
            with contextlib.suppress(OSError):
                udp.bind(("", tcp.getsockname()[1]))
                return int(tcp.getsockname()[1])


_NEST = """
import ctypes, fcntl, os, socket, struct, subprocess, sys, threading

def interface(sock, number, name, payload):
    fcntl.ioctl(sock, number, name.encode().ljust(16, b"\\0") + payload.ljust(24, b"\\0"))

def address(text):
    return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))

uplink = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(uplink, 0x400454CA, struct.pack("16sH22x", b"uplink", 0x1002))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    interface(sock, 0x8914, "lo", struct.pack("=H", 1))
    interface(sock, 0x8916, "uplink", address("198.51.100.2"))
    interface(sock, 0x891C, "uplink", address("255.255.255.0"))
    interface(sock, 0x8914, "uplink", struct.pack("=H", 1))
    route = struct.pack("@L16s16s16sH", 0, address("0.0.0.0"), address("198.51.100.1"), address("0.0.0.0"), 3)
    fcntl.ioctl(sock, 0x890B, route.ljust(120, b"\\0"))

def answer(query):
    end = 12
    while query[end]:
        end += query[end] + 1
    question = query[12:end + 5]
    if question[-4:-2] != b"\\0\\1":
        return query[:2] + b"\\x81\\x80" + query[4:6] + bytes(6) + question
    record = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\1\\0\\4" + socket.inet_aton("203.0.113.7")
    return query[:2] + b"\\x81\\x80" + query[4:6] + query[4:6] + bytes(4) + question + record

names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
names.bind((sys.argv[1], 53))

def serve():
    while True:
        query, peer = names.recvfrom(512)
        names.sendto(answer(query), peer)

threading.Thread(target=serve, daemon=True).start()
libc = ctypes.CDLL(None)
with open(sys.argv[2], "w") as file:
    file.write(f"nameserver {sys.argv[1]}\\n")
source, target = sys.argv[2].encode(), os.path.realpath("/etc/resolv.conf").encode()
if libc.mount(source, target, None, 4096, None):
    sys.exit("/etc/resolv.conf can not be mounted over")
sys.exit(subprocess.run(sys.argv[3:]).returncode)
"""


def nested(name_server: str, resolv_conf: Path, *line: object, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command on a host of its own: a user, network and mount namespace with an uplink that leads nowhere, and a name
    server that knows every name."""
    unshare = shutil.which("unshare", path="/usr/bin:/bin")  # PATH may have nothing but a tool
    words = [unshare, "-Urnm", "--propagation", "private", sys.executable, "-c", _NEST, name_server, resolv_conf, *line]
    settings: dict[str, object] = {"capture_output": True, "text": True, "timeout": 60, "stdin": subprocess.DEVNULL}
    settings.update(options)
    return subprocess.run(list(map(str, words)), **settings)  # type: ignore[call-overload,no-any-return]


# -- what the files of tests take over by name


@pytest.fixture(scope="session")
def private_networks() -> None:
    try:
        found, passed_over = tools.require()
    except errors.HostError as error:
        pytest.skip(f"no private network can be had here: {error.message}")
    if passed_over or [tool.name for tool in found] != list(TOOLS):
        pytest.skip("both pasta and slirp4netns are needed")


@pytest.fixture(scope="session")
def outside() -> str:
    """An address of this host that is not loopback's."""
    try:
        return naming.host_address()
    except errors.HostError as error:
        pytest.skip(f"this host is on no network: {error.message}")


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two, as if the other one were not installed."""
    monkeypatch.setenv("PATH", f"{only(request.param, home / 'bin')}:{home}/else")
    (home / "else").mkdir()
    for name in ("setpriv", "newuidmap", "newgidmap"):
        if path := shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin"):
            (home / "else" / name).symlink_to(path)
    return str(request.param)


@pytest.fixture(params=["single", "auto"])
def userns(request: pytest.FixtureRequest) -> str:
    """With one id, and with a range where the host has one."""
    return str(request.param)


@pytest.fixture
def box(home: Path) -> Box:
    """The words after `guntainer run` that run a Python script in a container with a private network."""
    tree, volumes = python_rootfs(home / "tree")

    def words(script: str, *options: object) -> list[str]:
        return ["--network", "private", *volumes, *map(str, options), str(tree), *python(script)]

    return words


@contextlib.contextmanager
def running(*words: object) -> Iterator[subprocess.Popen[str]]:
    """The program in the background, until it has said a line; killed where the block has not ended it."""
    line = [sys.executable, "-m", "guntainer", *map(str, words)]
    with subprocess.Popen(
        line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)


@pytest.fixture
def no_tool_left() -> Iterator[None]:
    before = tools_alive()
    yield
    assert tools_alive() <= before


def batch_file(home: Path, words: list[str], *, repeat: int = 1, more: str = "") -> Path:
    """The job that `run` would make of these words, as a file."""
    volumes = [words[at + 1] for at, word in enumerate(words) if word == "-v"]
    at = words.index(str(home / "tree"))
    path = home / "jobs.toml"
    path.write_text(
        f'[defaults]\nnetwork = "private"\nrootfs = {json.dumps(words[at])}\nvolumes = {json.dumps(volumes)}\n'
        f"[jobs.a]\ncommand = {json.dumps(words[at + 1 :])}\nrepeat = {repeat}\n{more}"
    )
    return path
