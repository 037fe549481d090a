#!/usr/bin/env python3
"""Run a command in a throw-away kernel with cgroup v2: an ordinary process that needs no KVM and no root.

    python3 tests/vm/kernel.py [OPTIONS] -- COMMAND [ARGS…]

The kernel sees this machine's files, read-only, below an overlay in memory. COMMAND runs as an ordinary user in a delegated
cgroup v2 sub-tree, with /dev/net/tun and /dev/fuse open, and /disk, an ext4 on a block device of its own, for HOME and
TMPDIR. Its stdout and stderr come out unmixed and byte for byte, its exit code is ours; 124: time limit, 125: the kernel
failed. Nothing of it is left afterwards. The kernel is User Mode Linux (`uml.py`), or with --qemu one in an emulated computer
(`qemu.py`), which has what that lacks. Needs mkfs.ext4 (e2fsprogs). What happens inside stands in `guest.py`.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import qemu
import uml
from fetching import FAILED, fail

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, NoReturn

    Machine = qemu.Machine | uml.Machine

TIMED_OUT = 124
_GUEST = Path(__file__).with_name("guest.py").resolve()
_MIB = 1 << 20
_GRACE_S = 10.0
_LOOK_S = 0.5
_KEPT_CONSOLE_BYTES = 8192


def options(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="kernel.py", description=__doc__.split("\n")[0], allow_abbrev=False)
    add = parser.add_argument
    add("--qemu", action="store_true", help="the emulated computer: every controller, two processors, slow")
    add("--controllers", metavar="LIST", help="those to delegate, separated by spaces (default: all there are)")
    add("--undelegated", action="store_true", help="the cgroup of the command belongs to root")
    add("--root", action="store_true", help="run the command as root, in the same cgroup")
    add("--uid", type=int, default=os.getuid() or 1000, help="the ordinary user (default: you; 1000 for root)")
    add("--dir", default=os.getcwd(), help="working directory (default: the current one)")
    add("--env", action="append", default=[], metavar="KEY=VALUE", help="nothing of your own environment goes in")
    add("--sysctl", action="append", default=[], metavar="KEY=VALUE", help="set before the command starts")
    add("--closed", action="append", default=[], metavar="DEVICE", help="/dev/net/tun or /dev/fuse: for root alone")
    add("--memory", type=int, default=1024, metavar="MIB", help="of the machine (default: 1024)")
    add("--disk", type=int, default=2048, metavar="MIB", help="size of /disk, a sparse file (default: 2048)")
    add("--swap", type=int, default=0, metavar="MIB", help="swap space (default: none)")
    add("--timeout", type=float, default=300.0, metavar="SECONDS")
    add("--verbose", action="store_true", help="the kernel's console on stderr")
    add("--fetch", action="store_true", help="only see to it that the kernel is there")
    add("command", nargs="*", help="after --")
    given = parser.parse_args(argv)
    if not given.command and not given.fetch:
        parser.error("no command")
    return given


# -- one run


def find_machine(given: argparse.Namespace) -> Machine:
    return qemu.Machine() if given.qemu else uml.Machine()


def sparse(path: Path, mebibytes: int) -> None:
    with open(path, "wb") as file:
        file.truncate(mebibytes * _MIB)


def prepare(folder: Path, given: argparse.Namespace, machine: Machine) -> None:
    """The files of one run: the disk, what the guest is to do, and swap space."""
    sparse(folder / "disk", given.disk)
    environment = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    make = ["mkfs.ext4", "-q", "-F", "-m0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", folder / "disk"]
    try:
        subprocess.run(make, check=True, env=environment, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        fail(f"mkfs.ext4 (package e2fsprogs): {error}")
    if given.swap:
        sparse(folder / "swap", given.swap)
        subprocess.run(["mkswap", "-q", folder / "swap"], check=True, env=environment, stdout=subprocess.DEVNULL)
    config = {
        "argv": given.command,
        "folder": os.path.abspath(given.dir),
        "environment": dict(item.split("=", 1) for item in given.env),
        "controllers": given.controllers,
        "undelegated": given.undelegated,
        "root": given.root,
        "uid": given.uid,
        "sysctls": given.sysctl,
        "closed": given.closed,
        "swap": given.swap > 0,
        "modules": machine.modules,
        "load": machine.loads,
    }
    data = json.dumps(config).encode()
    (folder / "config").write_bytes(data + bytes(-len(data) % 4096))


def boot(machine: Machine, folder: Path, given: argparse.Namespace, lines: list[int]) -> subprocess.Popen[bytes]:
    """Start the kernel; `lines` are the writing ends for the console, stdout, stderr and the guest's own words."""
    die_with_parent = ctypes.CDLL(None).prctl

    def before_exec() -> None:
        die_with_parent(1, signal.SIGKILL, 0, 0, 0)  # PR_SET_PDEATHSIG

    return subprocess.Popen(
        machine.command(given, folder, _GUEST, lines),
        stdin=subprocess.DEVNULL,
        stdout=lines[0],
        stderr=lines[0],
        pass_fds=lines,
        preexec_fn=before_exec,
        start_new_session=True,
        env=machine.environment(given, folder),
        cwd=folder,
    )


class Conversation:
    """What comes out of the kernel: passed on, counted, understood."""

    def __init__(self, verbose: bool) -> None:
        self.ends: list[int] = []
        self._selector = selectors.DefaultSelector()
        self._verbose = verbose
        self._words = b""
        self.console = b""
        self.bytes = [0, 0]
        self.said: dict[str, object] = {}
        for take in (self._console, self._stdout, self._stderr, self._word):
            read_end, write_end = os.pipe()
            self.ends.append(write_end)
            self._selector.register(read_end, selectors.EVENT_READ, take)

    def close_ends(self) -> None:
        """Ours: the kernel has its own now."""
        for fd in self.ends:
            os.close(fd)

    def follow(self, kernel: subprocess.Popen[bytes], until: float) -> bool:
        """Pass on what comes until all has come or the kernel is gone; False: it took too long."""
        while self._selector.get_map() and not self._complete():
            left = until - time.monotonic()
            if left <= 0:
                return False
            ready = self._selector.select(min(left, _LOOK_S))
            if not ready and kernel.poll() is not None:
                return True  # killed: processes that it left, and `end` kills, keep the pipes open
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                key.data(data)
                if not data:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
        return True

    def _complete(self) -> bool:
        return "failed" in self.said or self.said.get("bytes") == self.bytes

    def _console(self, data: bytes) -> None:
        self.console = (self.console + data)[-_KEPT_CONSOLE_BYTES:]
        if self._verbose:
            _write(sys.stderr.buffer, data)

    def _stdout(self, data: bytes) -> None:
        self.bytes[0] += len(data)
        _write(sys.stdout.buffer, data)

    def _stderr(self, data: bytes) -> None:
        self.bytes[1] += len(data)
        _write(sys.stderr.buffer, data)

    def _word(self, data: bytes) -> None:
        *lines, self._words = (self._words + data).split(b"\n")
        for line in lines:
            self.said.update(json.loads(line))


def _write(stream: IO[bytes], data: bytes) -> None:
    stream.write(data)
    stream.flush()


class Guard:
    """A process that outlives us, however we end, and then kills what is left of the kernel and removes the folder.

    The kernel's own processes would stay: it has some of its own for input and output, and one for each of its guests'.
    """

    def __init__(self, folder: Path) -> None:
        read_end, self._pipe = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            os.close(self._pipe)
            self._guard(read_end, folder)
        os.close(read_end)

    def _guard(self, pipe: int, folder: Path) -> NoReturn:
        os.setsid()
        for number in (0, 1, 2):
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        with open(pipe, "rb") as file:
            session = file.read()  # until the other end is closed
        if session:
            try:
                os.killpg(int(session), signal.SIGKILL)
            except ProcessLookupError:
                pass
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    def watch(self, session: int) -> None:
        os.write(self._pipe, str(session).encode())

    def end(self) -> None:
        os.close(self._pipe)
        os.waitpid(self._pid, 0)


def run(given: argparse.Namespace, folder: Path, guard: Guard) -> int:
    machine = find_machine(given)
    prepare(folder, given, machine)
    talk = Conversation(given.verbose)
    kernel = boot(machine, folder, given, talk.ends)
    guard.watch(kernel.pid)
    talk.close_ends()
    in_time = talk.follow(kernel, time.monotonic() + given.timeout)
    if in_time:
        try:
            kernel.wait(_GRACE_S)  # it powers off by itself
        except subprocess.TimeoutExpired:
            pass
    if "failed" in talk.said:
        fail(f"the machine could not be set up:\n{talk.said['failed']}")
    if not in_time:
        print(f"vm: time limit of {given.timeout:g} s", file=sys.stderr)
        return TIMED_OUT
    if "status" not in talk.said:
        fail(f"the kernel ended without a word; its console:\n{talk.console.decode(errors='replace')}")
    if talk.said["bytes"] != talk.bytes:
        fail(f"output was lost: {talk.said['bytes']} bytes of stdout and stderr, {talk.bytes} arrived")
    status = talk.said["status"]
    assert isinstance(status, int)
    return status


def main() -> int:
    given = options(sys.argv[1:])
    if given.fetch:
        print(find_machine(given).program)
        return 0
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    folder = Path(tempfile.mkdtemp(prefix="guntainer-vm."))
    guard = Guard(folder)
    try:
        return run(given, folder, guard)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 141
    finally:
        guard.end()


if __name__ == "__main__":
    sys.exit(main())
