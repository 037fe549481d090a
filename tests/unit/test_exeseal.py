"""What is sealed, and when: heads of ELF files, and files that can be changed."""

from __future__ import annotations

import _socket
import errno
import fcntl
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from guntainer import errors, exeseal
from guntainer.launcher import spawn

pytestmark = pytest.mark.root


def elf(bits: int, headers: list[tuple[int, bytes]]) -> bytes:
    """An ELF file of this byte order with these program headers: (type, content)."""
    head, size = (64, 56) if bits == 64 else (52, 32)
    table, content = b"", b""
    for kind, data in headers:
        at = head + size * len(headers) + len(content)
        content += data
        if bits == 64:
            table += struct.pack("=IIQQQQQQ", kind, 4, at, 0, 0, len(data), len(data), 1)
        else:
            table += struct.pack("=IIIIIIII", kind, at, 0, 0, len(data), len(data), 4, 1)
    order = 1 if sys.byteorder == "little" else 2
    ident = b"\x7fELF" + bytes([2 if bits == 64 else 1, order, 1]) + bytes(9)
    widths = "=HHIQQQIHHHHHH" if bits == 64 else "=HHIIIIIHHHHHH"
    return ident + struct.pack(widths, 2, 0, 1, 0, head, 0, 0, head, size, len(headers), 0, 0, 0) + table + content


@pytest.mark.parametrize("bits", [32, 64])
def test_the_loader_of_a_program(tmp_path: Path, bits: int) -> None:
    file = tmp_path / "program"
    file.write_bytes(elf(bits, [(1, b"text"), (3, b"/lib/ld-x.so.2\0"), (4, b"note")]))
    assert exeseal.elf_loader(str(file)) == "/lib/ld-x.so.2"
    file.write_bytes(elf(bits, [(1, b"text")]))
    assert exeseal.elf_loader(str(file)) == ""


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF\x02\x03" + bytes(60)])
def test_what_is_no_program(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ValueError, match="no ELF file"):
        exeseal.elf_loader(str(tmp_path / "file"))


def test_a_head_that_promises_too_much(tmp_path: Path) -> None:
    head = bytearray(elf(64, []))
    head[54:58] = b"\xff" * 4
    (tmp_path / "file").write_bytes(head)
    with pytest.raises(ValueError, match="program headers"):
        exeseal.elf_loader(str(tmp_path / "file"))


def test_a_sealed_copy_can_be_executed_and_nothing_else() -> None:
    fd, words = exeseal.sealed(["-IS", "-c", "print('sealed')"])
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        wanted = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        assert seals & wanted == wanted
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        assert fcntl.fcntl(fd, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        done = subprocess.run(
            words, executable=f"/proc/self/fd/{fd}", pass_fds=[fd], capture_output=True, text=True, check=True
        )
        assert done.stdout == "sealed\n"
    finally:
        os.close(fd)


def test_a_static_interpreter_is_copied_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = elf(64, [(1, b"text")])
    (tmp_path / "python").write_bytes(content)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(exeseal, "_EXE", str(tmp_path / "python"))
    fd, words = exeseal.sealed(["-c", "pass"])
    try:
        assert os.pread(fd, 1 << 16, 0) == content
        assert words == [str(tmp_path / "python"), "-c", "pass"]
    finally:
        os.close(fd)


@pytest.mark.parametrize("program", [None, "/bin/true"], ids=["a script", "a program"])
def test_a_wrapper_in_the_interpreters_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str | None
) -> None:
    """What it executes is what has to be sealed."""
    wrapper = tmp_path / "python"
    wrapper.write_bytes(Path(program).read_bytes() if program else b"#!/bin/sh\n")
    wrapper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(wrapper))
    fd, words = exeseal.sealed(["-ISc", "import sys; print('real')"])
    try:
        assert os.readlink("/proc/self/exe") in words
        done = subprocess.run(
            words, executable=f"/proc/self/fd/{fd}", pass_fds=[fd], capture_output=True, text=True, check=True
        )
    finally:
        os.close(fd)
    assert done.stdout == "real\n"


def test_who_is_exposed(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_bytes(b"")
    own.chmod(0o555)
    assert exeseal.is_exposed(str(own)) and exeseal.is_exposed(str(tmp_path / "missing"))
    assert exeseal.is_exposed(shutil.which("sh") or "") == (os.geteuid() == 0)


def refused(*_: object) -> int:
    raise PermissionError(13, "Permission denied")


def test_a_helper_where_no_copy_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "memfd_create", refused)
    monkeypatch.setattr(exeseal, "is_exposed", lambda _: True)
    before = sorted(os.listdir("/proc/self/fd"))
    with pytest.raises(errors.HostError, match="could be changed by a container") as caught:
        spawn.spawn()
    assert caught.value.probe == "python"
    assert sorted(os.listdir("/proc/self/fd")) == before
    monkeypatch.setattr(exeseal, "is_exposed", lambda _: False)
    helper = spawn.spawn()
    try:
        assert os.readlink(f"/proc/{helper.pid}/exe") == os.path.realpath(sys.executable)
    finally:
        helper.close()


@pytest.mark.parametrize("owner, name", [(_socket, "socketpair"), (os, "pipe2")])
def test_a_helper_where_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    pipe = spawn.FaultPipe()
    monkeypatch.setattr(spawn, "FaultPipe", lambda: pipe)

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(owner, name, none_left)
    with pytest.raises(errors.HostError, match="can not start the fork helper: Too many open files"):
        spawn.spawn()
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_the_helper_executes_from_a_sealed_copy() -> None:
    helper = spawn.spawn()
    try:
        assert os.readlink(f"/proc/{helper.pid}/exe") == exeseal._LINK
    finally:
        helper.close()
