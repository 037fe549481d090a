"""Where control groups are, in the words of /proc, and the one question to systemd, asked of a manager of our own making."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guntainer import errors, hostids
from guntainer.cgroups import host, limiter, userbus
from guntainer.cgroups.subtree import Subtree
from guntainer.jobs.model import Limits

V2 = "30 24 0:26 {root} {target} rw,nosuid - cgroup2 cgroup2 {options}\n"
V1 = "31 24 0:27 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n"


def on_a_host(monkeypatch: pytest.MonkeyPatch, cgroup: str, mountinfo: str, **files: str) -> None:
    known = {"/proc/self/cgroup": cgroup, "/proc/self/mountinfo": mountinfo, **files}
    monkeypatch.setattr(host, "_lines", lambda path: known.get(path, "").splitlines(keepends=True))


def v2(root: str = "/", target: str = "/sys/fs/cgroup", options: str = "rw,nsdelegate") -> str:
    return V2.format(root=root, target=target, options=options)


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "folder"),
    [
        ("0::/a/b\n", v2(), "/sys/fs/cgroup/a/b"),
        ("0::/\n", v2(), "/sys/fs/cgroup"),
        (
            "12:memory:/x\n1:name=systemd:/y\n0::/a\n",
            V1 + v2(target="/sys/fs/cgroup/unified"),
            "/sys/fs/cgroup/unified/a",
        ),
        ("0::/a/b\n", v2(root="/a"), "/sys/fs/cgroup/b"),
        ("0::/a\n", v2(root="/a"), "/sys/fs/cgroup"),
        ("0::/a\n", v2(target="/mnt/with\\040blank"), "/mnt/with blank/a"),
        ("0::/ab\n", v2(root="/a") + v2(target="/other"), "/other/ab"),
    ],
)
def test_our_own_group(monkeypatch: pytest.MonkeyPatch, cgroup: str, mountinfo: str, folder: str) -> None:
    on_a_host(monkeypatch, cgroup, mountinfo)
    found = host.here()
    assert (found.folder, found.fenced, found.read_only) == (folder, True, False)


@pytest.mark.parametrize(
    ("cgroup", "mountinfo", "say"),
    [
        ("1:name=systemd:/\n", V1, "cgroup v2 is not mounted here"),
        ("0::/\n", V1, "cgroup v2 is not mounted here"),
        ("", "", "cgroup v2 is not mounted here"),
        ("0::/../x\n", v2(), "outside of what is mounted"),
        ("0::/b\n", v2(root="/a"), "outside of what is mounted"),
    ],
)
def test_no_group_of_ours(monkeypatch: pytest.MonkeyPatch, cgroup: str, mountinfo: str, say: str) -> None:
    on_a_host(monkeypatch, cgroup, mountinfo)
    with pytest.raises(errors.HostError, match=say):
        host.here()


def test_options_of_the_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_host(monkeypatch, "0::/a\n", v2(options="ro"))
    assert (host.here().fenced, host.here().read_only) == (False, True)


def test_a_controller_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    controllers = {"/r/cgroup.controllers": "cpu memory pids\n", "/r/a/cgroup.controllers": "memory\n"}
    on_a_host(monkeypatch, "0::/a\n", V1 + v2(target="/r"), **controllers)
    place = host.here()
    assert "memory is in cgroup v1" in str(host.missing("memory", place))
    assert "cpu is not delegated to you (delegated: memory)" in str(host.missing("cpu", place))
    assert "cpuset is not there (there are: cpu, memory, pids)" in str(host.missing("cpuset", place))
    assert host.missing("cpu", place).probe == "cgroup-cpu"


def test_limits_on_a_host_with_version_1(monkeypatch: pytest.MonkeyPatch) -> None:
    on_a_host(monkeypatch, "5:memory:/\n", V1)
    some = Limits(memory_bytes=1 << 26)
    with pytest.raises(errors.HostError, match="no limit of memory: the cgroup controller memory is in cgroup v1"):
        limiter.Limiter(alone=True).grant(some)
    granted = limiter.Limiter(alone=True).grant(some.replace(best_effort=True))
    assert not granted.limits.wanted
    assert granted.notes == ("no limit of memory: the cgroup controller memory is in cgroup v1 on this host",)


def test_what_the_host_refuses_once_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def give(_self: object, wanted: frozenset[str]) -> frozenset[str]:
        asked.append(wanted)
        raise errors.HostError("nothing here")

    on_a_host(monkeypatch, "0::/\n", "")
    monkeypatch.setattr("guntainer.cgroups.subtree.Subtree.give", give)
    one = limiter.Limiter(alone=False)
    for _ in range(2):
        with pytest.raises(errors.HostError, match=r"controllers cpu, pids can not be used: nothing here"):
            one.grant(Limits(cpus=1.0, pids=3))
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("alone", "uid", "release", "rlimits"),
    [
        (True, 1000, "6.1.0-13-amd64", ((6, 30, 30),)),
        (True, 1000, "5.14-rc1", ((6, 30, 30),)),
        (True, 1000, "5.10.0", ()),
        (False, 1000, "6.1.0", ()),
        (True, 0, "6.1.0", ()),
    ],
)
def test_where_a_resource_limit_may_stand_in(
    monkeypatch: pytest.MonkeyPatch, alone: bool, uid: int, release: str, rlimits: tuple[object, ...]
) -> None:
    on_a_host(monkeypatch, "", "")
    monkeypatch.setattr(hostids, "UID", uid)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "h", release, "", "x86_64")))
    granted = limiter.Limiter(alone=alone).grant(Limits(pids=30, best_effort=True))
    assert granted.rlimits == rlimits
    assert ("stands in" in granted.notes[0]) == bool(rlimits)


def test_disks_by_a_path_on_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(errors.UsageError, match="No such file"):
        host.device_of(str(tmp_path / "missing"))
    with pytest.raises(errors.HostError, match=r"/proc is on no disk"):
        host.device_of("/proc")
    on_a_host(monkeypatch, "", "")
    some = Limits(io_max=(("rbps", "/proc", 5),), best_effort=True)
    granted = limiter.Limiter(alone=True).grant(some)
    assert granted.limits.io_max == ()
    assert "device-read-bps: /proc is on no disk" in granted.notes[0]


# -- systemd

Answer = Callable[[socket.socket, list[bytes]], None]
REPLY = struct.pack("<cBBBIII", b"l", 2, 0, 1, 0, 1, 8) + b"\x05\x01u\x00" + struct.pack("<I", 1)


def error(text: bytes) -> bytes:
    body = struct.pack("<I", len(text)) + text + b"\0"
    fields = b"\x05\x01u\x00" + struct.pack("<I", 1) + b"\x04\x01s\x00" + struct.pack("<I", 3) + b"a.b\0"
    return struct.pack("<cBBBIII", b"l", 3, 0, 1, len(body), 1, len(fields)) + fields + bytes(-len(fields) % 8) + body


SIGNAL = struct.pack("<cBBBIII", b"l", 4, 0, 1, 0, 9, 0)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., list[bytes]]]:
    """Start a manager that answers with these bytes, one after the other; returns what it was sent."""
    monkeypatch.setattr(hostids, "UID", 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setattr(userbus, "_TIMEOUT_S", 0.5)
    threads: list[threading.Thread] = []
    opened: list[socket.socket] = []

    def start(*answers: bytes | None, path: str = "systemd/private") -> list[bytes]:
        got: list[bytes] = []
        (tmp_path / path).parent.mkdir(exist_ok=True)
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(tmp_path / path))
        listening.listen()
        opened.append(listening)

        def serve() -> None:
            client, _ = listening.accept()
            with client:
                for answer in answers:
                    data = client.recv(1 << 16)
                    got.append(data)
                    if answer is None:
                        client.recv(1)  # says nothing until the other one hangs up
                        return
                    client.sendall(answer)
                got.append(client.recv(1 << 16))

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        threads.append(thread)
        return got

    yield start
    for thread in threads:
        thread.join(5)
    for sock in opened:
        sock.close()


OK = b"OK 0123\r\n"


def test_a_scope_is_asked_for(manager: Callable[..., list[bytes]]) -> None:
    got = manager(OK, SIGNAL + REPLY)
    userbus.start_scope("x.scope", [7, 8], "ci.slice")
    assert got[0] == b"\0AUTH EXTERNAL " + b"1000".hex().encode() + b"\r\n"
    assert got[1].startswith(b"BEGIN\r\n")
    message = got[1].removeprefix(b"BEGIN\r\n")
    for part in (
        b"StartTransientUnit",
        b"x.scope",
        b"fail",
        b"Delegate",
        b"ci.slice",
        b"PIDs",
        struct.pack("<III", 8, 7, 8),
    ):
        assert part in message
    order, kind, _, _, body, serial, fields = struct.unpack_from("<cBBBIII", message)
    assert (order, kind, serial) == (b"l", 1, 1)
    assert len(message) == 16 + fields + -fields % 8 + body


def test_the_bus_is_greeted_first(manager: Callable[..., list[bytes]]) -> None:
    second = REPLY[:-4] + struct.pack("<I", 2)
    got = manager(OK, REPLY, second, path="bus")
    userbus.start_scope("x.scope", [7], "")
    assert b"Hello" in got[1]
    assert b"StartTransientUnit" in got[2]


@pytest.mark.parametrize(
    ("answers", "say"),
    [
        ((OK, error(b"no such process")), "systemd refuses to make a scope: no such process"),
        ((b"REJECTED EXTERNAL\r\n",), "does not let us in"),
        ((OK, b"B" + bytes(40)), "no D-Bus"),
        ((OK, struct.pack("<cBBBIII", b"l", 2, 0, 1, 0, 1, 4) + b"\x05\x01u\x00" + bytes(4)), "no D-Bus"),
        ((OK, b""), "hangs up|timed out"),
        ((OK, None), "timed out"),
        ((b"",), "hangs up|timed out"),
    ],
)
def test_a_manager_that_does_not_do_it(
    manager: Callable[..., list[bytes]], answers: tuple[bytes | None, ...], say: str
) -> None:
    manager(*answers)
    with pytest.raises(userbus.NoManager, match=say):
        userbus.start_scope("x.scope", [7], "")


@pytest.mark.parametrize(("value", "delegated"), [(1, True), (0, False)])
def test_a_unit_is_asked_for_its_delegation(manager: Callable[..., list[bytes]], value: int, delegated: bool) -> None:
    body = b"\x01b\x00\x00" + struct.pack("<I", value)
    got = manager(OK, REPLY[:4] + struct.pack("<I", len(body)) + REPLY[8:] + body)
    assert userbus.delegates("app-a\\x2db.scope") == delegated
    for part in (b"/unit/app_2da_5cx2db_2escope\0", b"org.freedesktop.systemd1.Scope\0", b"Delegate\0"):
        assert part in got[1]


def test_a_unit_that_the_manager_does_not_know_is_not_ours(manager: Callable[..., list[bytes]]) -> None:
    manager(OK, error(b"no such unit"))
    assert not userbus.delegates("x.scope")


def test_nobody_minds_where_there_is_no_manager(manager: object) -> None:
    assert userbus.delegates("x.scope")


@pytest.mark.parametrize(
    ("uid", "group", "unit"),
    [
        (7, "/user.slice/user-7.slice/user@7.service/app.slice/a.scope", ("a.scope", "app.slice")),
        (7, "/user.slice/user-7.slice/user@7.service/a.slice/a-b.slice/c.service/d", ("c.service", "a-b.slice")),
        (7, "/user.slice/user-7.slice/session-1.scope", ("", "")),
        (7, "/system.slice/ci.service", ("", "")),
        (0, "/system.slice/ci.service/x", ("ci.service", "system.slice")),
        (0, "/", ("", "")),
    ],
)
def test_whose_group_it_is(monkeypatch: pytest.MonkeyPatch, uid: int, group: str, unit: tuple[str, str]) -> None:
    monkeypatch.setattr(hostids, "UID", uid)
    on_a_host(monkeypatch, f"0::{group}\n", v2())
    assert host.unit_of(host.here()) == unit


def test_no_manager(manager: object) -> None:
    with pytest.raises(userbus.NoManager, match="no systemd manager of yours") as caught:
        userbus.start_scope("x.scope", [7], "")
    assert caught.value.absent


@pytest.mark.parametrize(
    ("absent", "uid", "hints"),
    [
        (True, 1000, ("loginctl", "`exec guntainer …`")),
        (True, 0, ("`exec guntainer …`",)),
        (False, 1000, ("systemd-run",)),
    ],
)
def test_the_advice_fits_the_cause(
    monkeypatch: pytest.MonkeyPatch, absent: bool, uid: int, hints: tuple[str, ...]
) -> None:
    def start_scope(*_: object) -> None:
        failed = userbus.NoManager("no scope")
        failed.absent = absent
        raise failed

    on_a_host(monkeypatch, "0::/mine\n", v2())
    monkeypatch.setattr(hostids, "UID", uid)
    monkeypatch.setattr(host, "is_ours", lambda _folder: False)
    monkeypatch.setattr(userbus, "start_scope", start_scope)
    with pytest.raises(errors.HostError, match="is not delegated to you; no scope") as caught:
        Subtree().give(frozenset())
    assert all(hint in caught.value.hint for hint in hints)
    assert ("systemd-run" in caught.value.hint) == (not absent)
