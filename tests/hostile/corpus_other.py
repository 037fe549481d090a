"""Everything else that libarchive reads, made by hand: cpio, ar, zip, 7z, iso, and what lies around them; as `corpus_tar`."""

from __future__ import annotations

import binascii
import bz2
import functools
import gzip
import lzma
import struct

from corpus_tar import Case
from forging import (
    TRAILER,
    ar,
    binary,
    file,
    member,
    newc,
    number,
    odc,
    seven,
    seven_raw,
    tar,
    zipped,
)

CASES: dict[str, Case] = {}


def case(name: str, outcome: str | dict[str, str], data: bytes, *, layer: bool = False) -> None:
    assert name not in CASES, name
    CASES[name] = Case(data, outcome, layer)


_REGULAR, _LINK, _FOLDER, _FIFO, _SOCKET, _CHAR = 0o100644, 0o120777, 0o040755, 0o010644, 0o140755, 0o020644

# -- cpio

case("cpio above", "entry '../evil' leads out", newc(b"../evil", b"x") + TRAILER)
case("cpio absolute", "entry '/evil' has an absolute name", newc(b"/evil", b"x") + TRAILER)
case(
    "cpio through a link",
    "entry 'a/evil' goes through a symbolic link",
    newc(b"a", b"/tmp", _LINK) + newc(b"a/evil", b"x") + TRAILER,
)
case(
    "cpio with a device", {"f": "f:x"}, newc(b"d", b"", _CHAR, rmajor=1, rminor=3) + newc(b"f", b"x", inode=2) + TRAILER
)
case("cpio with a socket", {"f": "f:x"}, newc(b"s", b"", _SOCKET) + newc(b"f", b"x", inode=2) + TRAILER)
case("cpio with a fifo", {"p": "p", "f": "f:x"}, newc(b"p", b"", _FIFO) + newc(b"f", b"x", inode=2) + TRAILER)
case("cpio of a kind that nobody knows", "of a kind that can not be unpacked", newc(b"w", b"", 0o160000) + TRAILER)
case("cpio of no kind", "of a kind that can not be unpacked", newc(b"w", b"", 0o644) + TRAILER)
case("cpio without a name", "entry '' would replace the rootfs", newc(b"", b"x") + TRAILER)
case("cpio with a name of no length", "damaged|truncated|would replace", newc(b"f", b"x", namesize=0) + TRAILER)
case("cpio with a name of 4 GiB", "damaged|truncated", newc(b"f", b"x", namesize=0xFFFFFFFF) + TRAILER)
case("cpio with a file of 4 GiB", "truncated", newc(b"f", b"x", size=0xFFFFFFFF) + TRAILER)
case("cpio with a link of 4 GiB", "damaged|truncated", newc(b"f", b"x", _LINK, size=0xFFFFFFFF) + TRAILER)
case("cpio with a link to nothing", "symbolic link 'l' has no target", newc(b"l", b"", _LINK) + TRAILER)
case("cpio with a NUL in its name", {"f": "f:x"}, newc(b"f\0../evil", b"x") + TRAILER)
case("cpio without an end", "truncated", newc(b"f", b"x"))
case(
    "cpio with a wrong magic inside", "damaged|truncated", newc(b"f", b"x") + b"070799" + newc(b"g", b"x")[6:] + TRAILER
)
case("cpio with no digits", "damaged|truncated|not an archive", b"070701" + b"z" * 104 + b"f\0" + TRAILER)
case("cpio whose end has bytes", {"f": "f:x"}, newc(b"f", b"x") + newc(b"TRAILER!!!", b"data", mode=0))
case(
    "cpio of one file under many names",
    dict.fromkeys("abc", "f:x#3"),
    newc(b"a", b"", links=3) + newc(b"b", b"", links=3) + newc(b"c", b"x", links=3) + TRAILER,
)
case(
    "cpio with a link's bytes for a fifo",
    "holds bytes, and is not one to a file",
    newc(b"p", b"", _FIFO, links=2) + newc(b"f", b"x", links=2) + TRAILER,
)
case("cpio, portable", {"f": "f:x"}, odc(b"f", b"x") + odc(b"TRAILER!!!"))
case("cpio, portable, above", "leads out", odc(b"../evil", b"x") + odc(b"TRAILER!!!"))
case(
    "cpio, portable, with a name of no length",
    "damaged|truncated|would replace",
    odc(b"f", b"x", namesize=b"000000") + odc(b"TRAILER!!!"),
)
case("cpio, portable, with a file of 8 GiB", "truncated", odc(b"f", b"x", filesize=b"7" * 11) + odc(b"TRAILER!!!"))
case(
    "cpio, portable, with no digits",
    "damaged|truncated|holds no files",
    odc(b"f", b"x", filesize=b"none       ") + odc(b"TRAILER!!!"),
)
for _order, _how in (("<", "little"), (">", "big")):
    case(
        f"cpio of old, {_how} end first",
        {"f": "f:xyz"},
        binary(b"f", b"xyz", order=_order) + binary(b"TRAILER!!!", order=_order),
    )
    case(
        f"cpio of old, {_how} end first, above",
        "leads out",
        binary(b"../evil", b"xyz", order=_order) + binary(b"TRAILER!!!", order=_order),
    )

# -- ar

case("ar", {"a": "f:x", "b": "f:yy"}, ar((b"a/", b"x"), (b"b/", b"yy")))
case("ar above", "leads out", ar((b"#1/7", b"../evilx")))
case("ar absolute", "absolute", ar((b"#1/5", b"/evilx")))
case("ar with a long name of a gigabyte", "damaged|truncated", ar((b"#1/1073741824", b"x")))
case("ar with a name longer than the file", "damaged|truncated", ar((b"#1/20", b"x")))
case("ar with a name of a table that is missing", "damaged", ar((b"/20", b"x")))
case("ar with a table that is damaged", "has an absolute name|damaged", ar((b"//", b"name/\n"), (b"/900", b"x")))
case(
    "ar with a table of a gigabyte",
    "takes more than 1 GiB of memory|truncated|damaged",
    ar((b"//", b"x"), size=b"1073741824"),
)
case("ar with a size below zero", {"a": "f:"}, ar((b"a/", b"x"), size=b"-1"))
case("ar with a size of all digits", "damaged|truncated", ar((b"a/", b"x"), size=b"9" * 10))
case("ar with a slash in its name", "damaged|leads out|File name|refused|is of a kind", ar((b"../x/", b"x")))
case("ar of nothing", "holds no files", b"!<arch>\n")

# -- zip

case(
    "zip",
    {"f": "f:x", "d": "d", "d/g": "f:y"},
    zipped((b"f", b"x", _REGULAR), (b"d/", b"", _FOLDER), (b"d/g", b"y", _REGULAR)),
)
case("zip above", "leads out", zipped((b"../evil", b"x", _REGULAR)))
case("zip absolute", "absolute", zipped((b"/evil", b"x", _REGULAR)))
case("zip with backslashes", "leads out", zipped((b"..\\evil", b"x", _REGULAR)))
case("zip with a drive", {"C:": "d", "C:/evil": "f:x"}, zipped((b"C:/evil", b"x", _REGULAR)))
case(
    "zip with links",
    {"a": "l:/etc/passwd", "b": "l:../../x"},
    zipped((b"a", b"/etc/passwd", _LINK), (b"b", b"../../x", _LINK)),
)
case("zip through a link", "entry 'a/evil' goes through", zipped((b"a", b"/tmp", _LINK), (b"a/evil", b"x", _REGULAR)))
case("zip through a link up", "entry 'a/evil' goes through", zipped((b"a", b"..", _LINK), (b"a/evil", b"x", _REGULAR)))
case("zip with a link to nothing", "has no target|damaged", zipped((b"a", b"", _LINK)))
case("zip with a link with a NUL in it", {"a": "l:b"}, zipped((b"a", b"b\0/etc", _LINK)))
case("zip with a device", {"f": "f:x"}, zipped((b"d", b"", _CHAR), (b"f", b"x", _REGULAR)))
case("zip with a fifo", {"p": "f:"}, zipped((b"p", b"", _FIFO)))
case("zip with setuid", {"f": "f:x@4755"}, zipped((b"f", b"x", 0o104755)))
case("zip, encrypted", "encrypted", zipped((b"f", b"0123456789abcdef", _REGULAR), flags=1))
case(
    "zip, strongly encrypted", "encrypted|truncated|damaged", zipped((b"f", b"0123456789abcdef", _REGULAR), flags=0x41)
)
case("zip with a NUL in its name", {"f": "f:x"}, zipped((b"f\0../evil", b"x", _REGULAR)))
case("zip without a name", "entry '' would replace the rootfs", zipped((b"", b"x", _REGULAR)))
case("zip with one name twice", {"f": "f:new"}, zipped((b"f", b"old", _REGULAR), (b"f", b"new", _REGULAR)))
case("zip with a wrong checksum", "damaged", zipped((b"f", b"x", _REGULAR), crc=1))
case(
    "zip with a size of 4 GiB", "damaged|truncated", zipped((b"f", b"x", _REGULAR), size=0xFFFFFFFE, packed=0xFFFFFFFE)
)
case("zip with an entry that is elsewhere", "damaged|truncated", zipped((b"f", b"x", _REGULAR), offset=9999))
case("zip whose entries are one", {"f": "f:x"}, zipped((b"f", b"x", _REGULAR), (b"g", b"y", _REGULAR), offset=0))
case("zip with more entries than there are", {"f": "f:x"}, zipped((b"f", b"x", _REGULAR), count=60000))
case(
    "zip with fewer entries than there are",
    {"f": "f:x", "g": "f:y"},
    zipped((b"f", b"x", _REGULAR), (b"g", b"y", _REGULAR), count=1),
)
case("zip cut in its table", "truncated|damaged|not an archive", zipped((b"f", b"x", _REGULAR))[:-30])
case("zip of its table alone", "not an archive", zipped((b"f", b"x", _REGULAR))[32:])
case("zip with something in front", {"f": "f:x"}, b"#!/bin/sh\n" + zipped((b"f", b"x", _REGULAR)))
case("zip with a name of 65,535 bytes", "too long", zipped((b"n" * 65535, b"x", _REGULAR)))

# -- 7z

AES = b"\x24\x06\xf1\x07\x01" + number(2) + b"\x00\x00"
LZMA2_4G = b"\x21\x21\x01\x28"  # a dictionary of 4 GiB - 1
LZMA_4G = b"\x23\x03\x01\x01\x05\x5d" + struct.pack("<I", 0xFFFFFFFF)
PPMD_4G = b"\x23\x03\x04\x01\x05\x20" + struct.pack("<I", 0xFFFFFFDB)
case("7z", {"f": "f:xyz"}, seven("f", b"xyz"))
case("7z above", "leads out", seven("../evil", b"xyz"))
case("7z absolute", "absolute", seven("/evil", b"xyz"))
case("7z with a link", {"l": "l:/etc"}, seven("l", b"/etc", attributes=0x8000 | _LINK << 16))
case("7z with a fifo", {"p": "p"}, seven("p", b"x", attributes=0x8000 | _FIFO << 16))
case("7z, encrypted", "encrypted", seven("f", b"0123456789abcdef", AES))
case("7z with a dictionary of 4 GiB", "damaged|memory|truncated", seven("f", b"\x01\x00\x00x\x00", LZMA2_4G))
case("7z with another dictionary of 4 GiB", "damaged|memory|truncated", seven("f", b"\0" * 20, LZMA_4G))
case("7z with a model of 4 GiB", "damaged|memory|truncated", seven("f", b"\0" * 20, PPMD_4G))
case("7z with a coder that nobody knows", "damaged", seven("f", b"xyz", b"\x01\x7f"))
case("7z without a table", "holds no files", seven_raw(b"", b""))
case("7z with a table of an exabyte", "damaged|truncated", seven_raw(b"x", b"\x01\x00", size=1 << 60))
case(
    "7z with a table at the end of all numbers", "damaged|truncated", seven_raw(b"x", b"\x01\x00", offset=(1 << 63) - 1)
)
case("7z with a table of nonsense", "damaged|truncated", seven_raw(b"x", b"\x01\x04\x06\xff" + b"\xff" * 40))
case(
    "7z with 2^62 streams",
    "damaged|truncated",
    seven_raw(b"x", b"\x01\x04\x06" + number(0) + number(1 << 62) + b"\x09"),
)
case("7z with 2^62 files", "damaged|truncated", seven_raw(b"x", b"\x01\x05" + number(1 << 62) + b"\x11"))

# -- gzip

GOOD = tar(file(b"a"), file(b"b", bytes(3000)))
TREE = {"a": "f:x", "b": "f:" + "\0" * 3000}
case("gzip in two members", TREE, member(GOOD[:700]) + member(GOOD[700:]))
case("gzip with empty members", TREE, member(b"") * 300 + member(GOOD) + member(b"") * 300)
case("gzip with zeros behind", TREE, member(GOOD) + bytes(4000))
case("gzip with garbage behind", "something else follows", member(GOOD) + b"garbage")
case(
    "gzip with garbage between members", "something else follows", member(GOOD[:700]) + b"garbage" + member(GOOD[700:])
)
case("gzip with zeros between members", TREE, member(GOOD[:700]) + bytes(100) + member(GOOD[700:]))
case("gzip with half a member behind", "truncated", member(GOOD) + member(b"x" * 100)[:-9])
case("gzip with the start of a member behind", "truncated", member(GOOD) + b"\x1f\x8b")
case("gzip with a wrong checksum", "damaged", member(GOOD, crc=1))
case("gzip with a wrong length", "damaged", member(GOOD, size=1))
case("gzip with a wrong checksum in its first member", "damaged", member(GOOD[:700], crc=1) + member(GOOD[700:]))
case("gzip with garbage inside", "damaged", member(GOOD)[:20] + b"\xff" * 8 + member(GOOD)[28:])
case(
    "gzip with every field there is",
    TREE,
    member(GOOD, 0x1C, struct.pack("<H", 4) + b"ab\0\0" + b"name\0" + b"comment\0"),
)
case("gzip with a name of a megabyte", TREE, member(GOOD, 8, b"n" * (1 << 20) + b"\0"))
case("gzip with a name without an end", "damaged|truncated", member(GOOD, 8, b"n")[:-8].replace(b"\0", b"n"))
case("gzip with a field longer than all", "truncated", b"\x1f\x8b\x08\x04" + bytes(6) + b"\xff\xff" + b"x" * 100)
case("gzip with reserved flags", TREE, member(GOOD, 0xE0))
case("gzip of another method", "not an archive", b"\x1f\x8b\x07" + member(GOOD)[3:])
case("gzip ten times over", TREE, functools.reduce(lambda data, _: gzip.compress(data), range(10), GOOD))
case("gzip of nothing", "holds no files|not an archive", member(b""))
case("gzip of nothing, and a bomb's worth of times", "holds no files|not an archive", member(b"") * 20000)

# -- other compressions

XZ = lzma.compress(GOOD)
case("xz in two streams", TREE, lzma.compress(GOOD[:700]) + lzma.compress(GOOD[700:]))
case("xz with a changed byte", "damaged", XZ[:40] + bytes((XZ[40] ^ 1,)) + XZ[41:])
case("xz cut", "truncated", XZ[:-20])
case("xz with garbage behind", "damaged|something else|truncated", XZ + b"garbage!")
case("bzip2 in two streams", TREE, bz2.compress(GOOD[:700]) + bz2.compress(GOOD[700:]))
case("bzip2 with garbage behind", "something else", bz2.compress(GOOD) + b"garbage")
case("lzma of old", TREE, lzma.compress(GOOD, lzma.FORMAT_ALONE))
_ALONE = lzma.compress(GOOD, lzma.FORMAT_ALONE)
case(
    "lzma with a dictionary of 4 GiB",
    "not an archive|memory|can not",
    _ALONE[:1] + struct.pack("<I", 0xFFFFFFFF) + _ALONE[5:],
)


def xz_dictionary(size: int) -> bytes:
    """An xz whose block says that its dictionary has that size: xz-file-format 3.1, 5.3.1."""
    data = bytearray(lzma.compress(GOOD, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 4096}]))
    at = 12
    length = (data[at] + 1) * 4
    assert data[at + 2] == 0x21
    data[at + 4] = size
    data[at + length - 4 : at + length] = struct.pack("<I", binascii.crc32(bytes(data[at : at + length - 4])))
    return bytes(data)


case("xz with a dictionary of 4 GiB", "memory", xz_dictionary(40))
case("xz with a dictionary that can not be", "damaged|can not|memory", xz_dictionary(63))


def zstd_raw(data: bytes, window: int) -> bytes:
    """A zstd frame of one raw block (RFC 8878 3.1.1), whose window is 2^(10+window)."""
    assert len(data) < 1 << 17
    block = struct.pack("<I", len(data) << 3 | 1)[:3] + data
    return b"\x28\xb5\x2f\xfd\x00" + bytes((window << 3,)) + block


case("zstd", TREE, zstd_raw(GOOD, 10))
case("zstd in two frames", TREE, zstd_raw(GOOD[:700], 10) + zstd_raw(GOOD[700:], 10))
case("zstd with a window of 2 GiB", "memory", zstd_raw(GOOD, 21))
case("zstd with a frame to skip", TREE, b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd_raw(GOOD, 10))
case("zstd with a frame of 4 GiB to skip", "truncated", b"\x50\x2a\x4d\x18\xff\xff\xff\xffabcd" + zstd_raw(GOOD, 10))
case("compress of nonsense", "damaged|truncated|not an archive", b"\x1f\x9d\x90" + b"\xff" * 200)
case("lz4 of nonsense", "not an archive", b"\x04\x22\x4d\x18" + b"\xff" * 200)
case("uuencode of nonsense", "not an archive", b"begin 644 f\n" + b"~" * 200)

# -- others

WARC = b"WARC/1.0\r\nWARC-Type: resource\r\nWARC-Target-URI: %s\r\nWARC-Date: 2020-01-01T00:00:00Z\r\nContent-Length: %d\r\n\r\n%s\r\n\r\n"
case("warc", {"b": "f:x"}, WARC % (b"http://a/b", 1, b"x"))
case("warc above", "leads out", WARC % (b"http://../../evil", 1, b"x"))
case("warc of a file", "absolute|evil", WARC % (b"file:///tmp/evil", 1, b"x"))
case("warc with a size below zero", "damaged", WARC % (b"http://a/b", -1, b"x"))
case("warc of 2^62 bytes", "truncated", WARC % (b"http://a/b", 1 << 62, b"x"))


def crc16(data: bytes) -> int:
    """CRC-16/ARC."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def lha(name: bytes, data: bytes) -> bytes:
    """One stored file of an LHarc, level 0."""
    body = (
        b"-lh0-"
        + struct.pack("<IIIBB", len(data), len(data), 33 << 16, 0x20, 0)
        + bytes((len(name),))
        + name
        + struct.pack("<H", crc16(data))
    )
    return bytes((len(body), sum(body) & 0xFF)) + body + data + b"\0"


case("lha", {"f": "f:x"}, lha(b"f", b"x"))
case("lha above", "leads out|damaged", lha(b"../evil", b"x"))
case("lha absolute", "absolute|damaged", lha(b"/evil", b"x"))
for _name, _head in {
    "rar": b"Rar!\x1a\x07\x00",
    "rar of today": b"Rar!\x1a\x07\x01\x00",
    "cab": b"MSCF\0\0\0\0",
    "xar": b"xar!\0\x1c\0\x01",
    "iso": bytes(32769) + b"CD001\x01",
}.items():
    case(f"{_name} of nonsense", "damaged|truncated|not an archive|holds no files", _head + b"\xff" * 4000)
    case(f"{_name} of zeros", "damaged|truncated|not an archive|holds no files", _head + bytes(4000))

case(
    "a tar in a zip is a file",
    {"a.tar": "f:" + tar(file(b"../evil")).decode()},
    zipped((b"a.tar", tar(file(b"../evil")), _REGULAR)),
)
case("one byte", "not an archive", b"x")
case("a block of zeros", "holds no files|not an archive", bytes(512))
case("a megabyte of 0xff", "not an archive", b"\xff" * (1 << 20))
