"""An .xz of several blocks on several cores: the same bytes as one after the other, and never silently others."""

from __future__ import annotations

import binascii
import lzma
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guntainer.archive import xz
from guntainer.archive.feeding import COMPRESSED
from guntainer.archive.source import FilePart

pytestmark = pytest.mark.skipif(shutil.which("xz") is None, reason="xz is not installed")
Undo = Callable[[bytes], tuple[str | None, bytes]]
RAW = random.Random(3).randbytes(150_000) + bytes(200_000) + b"the end" * 20_000


def several(raw: bytes = RAW, *options: str) -> bytes:
    line = ["xz", "-c", "-T1", "--block-size=60000", *options]
    return subprocess.run(line, input=raw, capture_output=True, check=True).stdout


@pytest.fixture
def undo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Undo]:
    """Decompress: (what is wrong, or None, what has come out). No thread is left."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(3)))

    def run(data: bytes) -> tuple[str | None, bytes]:
        path = tmp_path / "f"
        path.write_bytes(b"before" + data + b"after")
        out: list[bytes] = []
        source = FilePart(os.open(path, os.O_RDONLY), 6, len(data))
        try:
            failure = xz.undo(source, out.append, COMPRESSED)
            assert failure != "" or source.consumed() == len(data)
        finally:
            source.close()
        return failure, b"".join(out)

    yield run
    until = time.monotonic() + 5
    while threading.active_count() > 1:
        assert time.monotonic() < until
        time.sleep(0.001)


@pytest.mark.parametrize(
    "options", [(), ("--check=sha256",), ("--check=none",), ("--check=crc32",), ("-9e",), ("--x86", "--lzma2")]
)
def test_the_same_bytes(undo: Undo, options: tuple[str, ...]) -> None:
    large = "-9e" in options  # a dictionary of 64 MiB
    assert undo(several(RAW, *options)) == ((None, b"") if large else ("", RAW))


@pytest.mark.parametrize("length", [60_000, 60_001, 120_000, 179_999])
def test_the_last_block(undo: Undo, length: int) -> None:
    data = several(RAW[:length])
    assert undo(data) == ((None, b"") if length == 60_000 else ("", RAW[:length]))


def test_what_is_not_for_it(undo: Undo, monkeypatch: pytest.MonkeyPatch) -> None:
    data = several()
    for other in (b"", data[:20], lzma.compress(RAW), data + data, data + bytes(4), data[:-1], several(several())):
        assert undo(other) == (None, b"")
    monkeypatch.setattr(xz, "_MOST_BYTES", 100_000)
    assert undo(data) == (None, b"")
    monkeypatch.undo()
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: {0})
    assert undo(data) == (None, b"")


def test_damage_is_seen(undo: Undo) -> None:
    """Each byte in turn, of a small one: refused, or left to the other way, which refuses it as well."""
    raw = RAW[100_000:180_000]
    data = several(raw, "--block-size=30000")
    for at in [*range(60), *range(60, len(data) - 100, 997), *range(len(data) - 100, len(data))]:
        failure, out = undo(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        if failure is None:
            with pytest.raises(lzma.LZMAError):
                lzma.decompress(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        else:
            assert failure.startswith("damaged (") and raw.startswith(out), at


def relabelled(data: bytes, change: Callable[[list[int]], None]) -> bytes:
    """With other numbers in its index, and the right checksum over them."""
    size = (int.from_bytes(data[-8:-4], "little") + 1) * 4
    index = data[-12 - size : -12]
    numbers = list(xz._numbers(index[1:-4]))
    numbers = numbers[: 1 + 2 * numbers[0]]
    change(numbers)
    made = b"\0" + b"".join(map(number_of, numbers))
    made += bytes(-len(made) % 4)
    made += binascii.crc32(made).to_bytes(4, "little")
    flags = ((len(made) // 4 - 1).to_bytes(4, "little")) + data[-4:-2]
    return data[: -12 - size] + made + binascii.crc32(flags).to_bytes(4, "little") + flags + b"YZ"


def number_of(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_an_index_that_lies(undo: Undo) -> None:
    data = several()
    assert undo(relabelled(data, lambda _numbers: None)) == ("", RAW)

    def longer(numbers: list[int]) -> None:
        numbers[2] += 1

    def shorter(numbers: list[int]) -> None:
        numbers[4] -= 1

    def moved(numbers: list[int]) -> None:
        numbers[1] += 8
        numbers[3] -= 8

    for change in (longer, shorter, moved):
        failure, out = undo(relabelled(data, change))
        assert failure is not None and failure.startswith("damaged (") and len(out) <= len(RAW)

    def fewer(numbers: list[int]) -> None:
        numbers[0] -= 1

    def nonsense(numbers: list[int]) -> None:
        numbers[1] = 1 << 62

    for change in (fewer, nonsense):
        assert undo(relabelled(data, change)) == (None, b"")


def test_a_writer_that_gives_up(tmp_path: Path, undo: Undo) -> None:
    (tmp_path / "f").write_bytes(several())
    source = FilePart(os.open(tmp_path / "f", os.O_RDONLY))

    def fail(_piece: bytes) -> None:
        raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        xz.undo(source, fail, COMPRESSED)
    source.close()


def test_a_slow_writer_bounds_what_is_held(tmp_path: Path, undo: Undo, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = bytes(40 << 20)
    data = subprocess.run(["xz", "-c", "-T1", "--block-size=4MiB"], input=raw, capture_output=True, check=True).stdout
    monkeypatch.setattr(xz, "_MOST_BYTES", 20 << 20)
    (tmp_path / "f").write_bytes(data)
    source = FilePart(os.open(tmp_path / "f", os.O_RDONLY))
    crews: list[xz._Crew] = []
    made = xz._Crew.__init__

    def remember(crew: xz._Crew, *arguments: object) -> None:
        made(crew, *arguments)  # type: ignore[arg-type]
        crews.append(crew)

    monkeypatch.setattr(xz._Crew, "__init__", remember)
    held = 0
    written = 0

    def write(piece: bytes) -> None:
        nonlocal held, written
        if not written:
            time.sleep(0.3)  # they run ahead as far as they may
        written += len(piece)
        held = max(held, sum(sum(map(len, ready)) for ready in crews[0]._ready))

    assert xz.undo(source, write, COMPRESSED) == "" and written == len(raw)
    source.close()
    assert held <= (20 << 20) - 2 * (4 << 20) + 2 * xz._AHEAD * xz._OUT
