"""Filters in the kernel: a child installs one and tries what it forbids, emulates and lets through."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from guntainer import capabilities
from guntainer.seccomp import cache, names

PROJECT = Path(__file__).resolve().parent.parent.parent
CHILD = Path(__file__).with_name("seccomp_child.py")


class Child:
    """Runs scripts under filters of this test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "store").mkdir()

    def program(self, profile: str = "default", *, emulate_root: bool = False) -> bytes:
        return cache.program(
            str(self.folder / "store"), profile=profile, capabilities=capabilities.DEFAULT, emulate_root=emulate_root
        )

    def ended(self, program: bytes, script: str) -> subprocess.CompletedProcess[str]:
        (self.folder / "program").write_bytes(program)
        return subprocess.run(
            [sys.executable, CHILD, self.folder / "program", script],
            capture_output=True,
            text=True,
            timeout=30,
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
        )

    def told(self, program: bytes, script: str) -> dict[str, Any]:
        done = self.ended(program, script)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


@pytest.fixture
def child(tmp_path: Path) -> Child:
    return Child(tmp_path)


def number(name: str, architecture: int | None = None) -> int:
    places = names.places(architecture or names.native(), name)
    assert places
    return places[0][0]


AT_FDCWD = -100
OWNERS = f"""
open("file", "w").close()
before = os.stat("file")
tell("chown", call({number("fchownat")}, {AT_FDCWD}, b"file", 4242, 4242, 0))
os.chown("file", 4242, 4242)
os.fchown(os.open("file", os.O_RDONLY), 4242, 4242)
tell("owner", [os.stat("file").st_uid - before.st_uid, os.stat("file").st_gid - before.st_gid])
"""
DEVICES = f"""
for name, mode in (("char", 0o020644), ("block", 0o060644), ("pipe", 0o010644), ("plain", 0o100644), ("none", 0o644)):
    tell(name, [call({number("mknodat")}, {AT_FDCWD}, name.encode(), mode, 0x103), os.path.lexists(name)])
os.mkfifo("fifo")
"""
IDENTITIES = f"""
before = (os.getresuid(), os.getresgid(), os.getgroups())
for name, arguments in (("setresuid", (4242,) * 3), ("setresgid", (4242,) * 3), ("setuid", (4242,)), ("setfsuid", (4242,))):
    tell(name, call({{"setresuid": {number("setresuid")}, "setresgid": {number("setresgid")}, "setuid": {number("setuid")},
        "setfsuid": {number("setfsuid")}}}[name], *arguments))
os.setgroups([1, 2, 3])
tell("changed", (os.getresuid(), os.getresgid(), os.getgroups()) != before)
tell("capset", call({number("capset")}, 0, 0))
"""


@pytest.mark.root
@pytest.mark.parametrize("profile", ["default", "unconfined"])
def test_root_is_emulated(child: Child, profile: str) -> None:
    program = child.program(profile, emulate_root=True)
    assert child.told(program, OWNERS) == {"chown": 0, "owner": [0, 0]}
    assert child.told(program, DEVICES) == {
        "char": [0, False],
        "block": [0, False],
        "pipe": [0, True],
        "plain": [0, True],
        "none": [0, True],
    }
    found = child.told(program, IDENTITIES)
    assert found == {"setresuid": 0, "setresgid": 0, "setuid": 0, "setfsuid": 0, "changed": False, "capset": 0}


def test_without_emulation_the_kernel_answers(child: Child) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may do all of it")
    script = f"""
open("file", "w").close()
tell("chown", call({number("fchownat")}, {AT_FDCWD}, b"file", 0, 0, 0))
tell("device", call({number("mknodat")}, {AT_FDCWD}, b"device", 0o020644, 0x103))
tell("setresuid", call({number("setresuid")}, 0, 0, 0))
"""
    refused = {"chown": "EPERM", "device": "EPERM", "setresuid": "EPERM"}
    assert child.told(child.program(), script) == child.told(b"", script) == refused


# what is tried, and what the kernel says without a filter, where that is sure
FORBIDDEN = {
    "keyctl": ("0, -3, 0, 0, 0", None),  # KEYCTL_GET_KEYRING_ID of the session
    "add_key": ("b'user', b'name', b'x', 1, -1", None),
    "request_key": ("b'user', b'name', 0, 0", None),
    "bpf": ("0, 0, 0", None),
    "unshare": ("0x10000000", None),
    "setns": ("-1, 0", "EBADF"),
    "mount": ("b'x', b'/nowhere', 0, 4096, 0", None),
    "umount2": ("b'/nowhere', 0", None),
    "io_uring_setup": ("1, 0", None),
    "userfaultfd": ("-1", None),
    "open_by_handle_at": ("-1, 0, 0", None),
    "perf_event_open": ("0, 0, 0, 0, 0", None),
    "personality": ("0x0040000", 0),  # ADDR_NO_RANDOMIZE
    "fsopen": ("b'nothing', 0", None),
    "kcmp": ("0, 0, 99, 0, 0", None),
    "mbind": ("0, 0, 0, 0, 0, 0", 0),
}


@pytest.mark.root
def test_what_the_default_forbids(child: Child) -> None:
    script = "".join(f"tell({name!r}, call({number(name)}, {words}))\n" for name, (words, _) in FORBIDDEN.items())
    assert child.told(child.program(), script) == dict.fromkeys(FORBIDDEN, "EPERM")
    free = child.told(b"", script)
    blunt = [name for name, (_, answer) in FORBIDDEN.items() if answer is not None and free[name] != answer]
    if blunt:
        pytest.skip(f"this host forbids {', '.join(blunt)} by itself: that tells nothing of ours")


CALLS = f"""
import fcntl, socket, threading
master, slave = os.openpty()
for request in (0x5412, 0x541C, 0x5413):
    text = bytearray(b"x" * 64)
    try:
        fcntl.ioctl(slave, request, text)
        tell(hex(request), 0)
    except OSError as error:
        tell(hex(request), errno.errorcode[error.errno])
tell("wide request", call({number("ioctl")}, slave, 0x5412 | 1 << 32, b"x"))
for family in (socket.AF_INET, socket.AF_UNIX, 38, 40, 40 | 1 << 32):
    tell(f"family {{family}}", call({number("socket")}, family, 1, 0) if family > 37 else socket.socket(family).close())
tell("clone3", call({number("clone3")}, 0, 0))
tell("newer", call(1000))
ran = []
thread = threading.Thread(target=ran.append, args=(1,))
thread.start()
thread.join()
tell("thread", ran)
tell("process", os.waitstatus_to_exitcode(os.system("true")))
"""


@pytest.mark.root
def test_what_goes_on_under_the_default(child: Child) -> None:
    found = child.told(child.program(), CALLS)
    expected = {"0x5412": "EPERM", "0x541c": "EPERM", "0x5413": 0, "wide request": "EPERM", "clone3": "ENOSYS"}
    expected |= {"newer": "ENOSYS", "thread": [1], "process": 0}
    expected |= {"family 2": None, "family 1": None, "family 38": "EPERM", "family 40": "EPERM"}
    assert found == {**expected, f"family {40 | 1 << 32}": "EPERM"}


@pytest.mark.root
def test_a_profile_of_ones_own(child: Child) -> None:
    content = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71},
            {
                "names": ["dup3"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 84,
                "args": [{"index": 1, "value": 100, "op": "SCMP_CMP_GE"}],
            },
        ],
    }
    (child.folder / "profile.json").write_text(json.dumps(content))
    program = child.program(str(child.folder / "profile.json"))
    script = f"""
tell("mkdir", call({number("mkdirat")}, {AT_FDCWD}, b"folder", 0o755))
tell("low", call({number("dup3")}, 0, 99, 0))
tell("high", call({number("dup3")}, 0, 100, 0))
"""
    assert child.told(program, script) == {"mkdir": "EPROTO", "low": 99, "high": "EILSEQ"}


@pytest.mark.root
def test_a_profile_that_kills(child: Child) -> None:
    content = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["getpgid"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }
    (child.folder / "profile.json").write_text(json.dumps(content))
    done = child.ended(child.program(str(child.folder / "profile.json")), "os.getpgid(0)")
    assert done.returncode == -signal.SIGSYS


# -- the other entrances of an x86_64 kernel


@pytest.fixture
def x86_64() -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("int 0x80 and x32 are x86_64's")


@pytest.fixture
def int_0x80(x86_64: None, child: Child) -> None:
    if child.ended(b"", "tell('pid', call_32(20) == os.getpid())").stdout != '{"pid": true}':
        pytest.skip("this kernel runs no 32-bit programs (CONFIG_IA32_EMULATION)")


@pytest.mark.root
def test_32_bit_calls_are_filtered_as_well(int_0x80: None, child: Child) -> None:
    script = f"""
tell("getpid", call_32({number("getpid", names.X86)}) == os.getpid())
tell("unshare", call_32({number("unshare", names.X86)}, 0x10000000))
tell("keyctl", call_32({number("keyctl", names.X86)}, 0, 0xFFFFFFFD, 0))
tell("clone3", call_32({number("clone3", names.X86)}, 0, 0))
tell("setuid", call_32({number("setuid32", names.X86)}, 4242))
"""
    confined = child.told(child.program(emulate_root=True), script)
    assert confined == {"getpid": True, "unshare": "EPERM", "keyctl": "EPERM", "clone3": "ENOSYS", "setuid": 0}
    free = child.told(child.program("unconfined", emulate_root=True), script)
    assert free["setuid"] == 0 and free["clone3"] == "EINVAL" and free["getpid"] is True


@pytest.mark.root
def test_32_bit_calls_die_where_a_profile_leaves_them_out(int_0x80: None, child: Child) -> None:
    (child.folder / "profile.json").write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW"}))
    done = child.ended(child.program(str(child.folder / "profile.json")), "call_32(20)")
    assert done.returncode == -signal.SIGSYS


@pytest.mark.root
def test_x32_dies(x86_64: None, child: Child) -> None:
    script = f"tell('x32', call({names.X32_BIT | 39}))"
    assert child.ended(child.program(), script).returncode == -signal.SIGSYS
    assert child.ended(b"", script).returncode == 0
