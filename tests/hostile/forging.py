"""Archives by hand, down to the byte: what no honest writer makes."""

from __future__ import annotations

import binascii
import struct
import zlib

BLOCK = 512
END = bytes(2 * BLOCK)
# name → (offset, size) in a header block, tar(5)
FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "chksum": (148, 8),
    "typeflag": (156, 1),
    "linkname": (157, 100),
    "magic": (257, 6),
    "version": (263, 2),
    "uname": (265, 32),
    "gname": (297, 32),
    "devmajor": (329, 8),
    "devminor": (337, 8),
    "prefix": (345, 155),
}


def checked(block: bytes) -> bytes:
    """A header block with its checksum as it is to be."""
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def octal(number: int, size: int) -> bytes:
    return b"%0*o\0" % (size - 1, number)


def base256(number: int, size: int) -> bytes:
    """A number as GNU tar writes what octal digits can not hold."""
    data = bytearray(number.to_bytes(size, "big", signed=True))
    if number >= 0:
        data[0] |= 0x80
    return bytes(data)


def header(
    name: bytes = b"f", kind: bytes = b"0", size: int | bytes = 0, *, check: bool = True, **fields: bytes
) -> bytes:
    """One header block; `fields` are put in as they are."""
    values = {
        "name": name,
        "mode": octal(0o755 if kind == b"5" else 0o644, 8),
        "uid": octal(0, 8),
        "gid": octal(0, 8),
        "size": size if isinstance(size, bytes) else octal(size, 12),
        "mtime": octal(1000, 12),
        "typeflag": kind,
        "magic": b"ustar\0",
        "version": b"00",
        **fields,
    }
    block = bytearray(BLOCK)
    for field, value in values.items():
        at, room = FIELDS[field]
        assert len(value) <= room, field
        block[at : at + len(value)] = value
    return checked(bytes(block)) if check else bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def file(name: bytes = b"f", data: bytes = b"x", **fields: bytes) -> bytes:
    return header(name, b"0", len(data), **fields) + padded(data)


def folder(name: bytes = b"d", **fields: bytes) -> bytes:
    return header(name, b"5", **fields)


def symlink(name: bytes, target: bytes, **fields: bytes) -> bytes:
    return header(name, b"2", linkname=target, **fields)


def link(name: bytes, target: bytes, **fields: bytes) -> bytes:
    return header(name, b"1", linkname=target, **fields)


def fifo(name: bytes, **fields: bytes) -> bytes:
    return header(name, b"6", **fields)


def device(name: bytes, kind: bytes = b"3", major: int = 1, minor: int = 3) -> bytes:
    return header(name, kind, devmajor=octal(major, 8), devminor=octal(minor, 8))


def record(key: bytes, value: bytes) -> bytes:
    """A record of a pax header: its length counts itself."""
    length = len(key) + len(value) + 3
    while len(b"%d" % length) + len(key) + len(value) + 3 != length:
        length = len(b"%d" % length) + len(key) + len(value) + 3
    return b"%d %s=%s\n" % (length, key, value)


def pax_raw(data: bytes, kind: bytes = b"x") -> bytes:
    return header(b"PaxHeader", kind, len(data)) + padded(data)


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    return pax_raw(b"".join(record(*one) for one in records), kind)


def gnu(kind: bytes, data: bytes) -> bytes:
    """A long name (L) or a long link target (K) of GNU tar."""
    return header(b"././@LongLink", kind, len(data), magic=b"ustar ", version=b" \0") + padded(data)


def old_sparse(
    name: bytes, regions: list[tuple[bytes, bytes]], data: bytes, realsize: bytes, *, extended: bool = False
) -> bytes:
    """A sparse file of GNU tar's own, up to four regions."""
    block = bytearray(header(name, b"S", len(data), magic=b"ustar ", version=b" \0"))
    for number, (offset, count) in enumerate(regions):
        at = 386 + 24 * number
        block[at : at + 24] = offset.ljust(12, b"\0")[:12] + count.ljust(12, b"\0")[:12]
    block[482] = extended
    block[483:495] = realsize.ljust(12, b"\0")[:12]
    return checked(bytes(block)) + padded(data)


def tar(*parts: bytes) -> bytes:
    return b"".join(parts) + END


# -- cpio


def newc(
    name: bytes, data: bytes = b"", mode: int = 0o100644, *, links: int = 1, inode: int = 1, **fields: int
) -> bytes:
    """One entry of a cpio, "new ASCII"."""
    numbers = {
        "inode": inode,
        "mode": mode,
        "uid": 0,
        "gid": 0,
        "links": links,
        "mtime": 1000,
        "size": len(data),
        "major": 0,
        "minor": 0,
        "rmajor": 0,
        "rminor": 0,
        "namesize": len(name) + 1,
        "check": 0,
        **fields,
    }
    out = b"070701" + b"".join(b"%08X" % number for number in numbers.values()) + name + b"\0"
    out += bytes(-len(out) % 4) + data
    return out + bytes(-len(out) % 4)


TRAILER = newc(b"TRAILER!!!", mode=0, inode=0)


def odc(name: bytes, data: bytes = b"", mode: int = 0o100644, **fields: bytes) -> bytes:
    """One entry of a cpio, POSIX.1's portable format."""
    numbers = {
        "dev": b"000000",
        "ino": b"000001",
        "mode": b"%06o" % mode,
        "uid": b"000000",
        "gid": b"000000",
        "nlink": b"000001",
        "rdev": b"000000",
        "mtime": b"%011o" % 1000,
        "namesize": b"%06o" % (len(name) + 1),
        "filesize": b"%011o" % len(data),
        **fields,
    }
    return b"070707" + b"".join(numbers.values()) + name + b"\0" + data


def binary(name: bytes, data: bytes = b"", mode: int = 0o100644, order: str = "<") -> bytes:
    """One entry of a cpio of old, in either order of bytes."""
    raw = name + b"\0"
    words = (0o070707, 0, 1, mode, 0, 0, 1, 0, 0, 1000, len(raw), len(data) >> 16, len(data) & 0xFFFF)
    return struct.pack(f"{order}13H", *words) + raw + bytes(len(raw) % 2) + data + bytes(len(data) % 2)


# -- ar


def ar(*members: tuple[bytes, bytes], **sizes: bytes) -> bytes:
    """An ar of (name field, data); `size` replaces every size field."""
    out = b"!<arch>\n"
    for name, data in members:
        size = sizes.get("size", b"%d" % len(data))
        out += name.ljust(16) + b"1000".ljust(12) + b"0".ljust(6) * 2 + b"100644".ljust(8) + size.ljust(10) + b"`\n"
        out += data + b"\n" * (len(data) % 2)
    return out


# -- zip


def zipped(*entries: tuple[bytes, bytes, int], flags: int = 0, **central: int) -> bytes:
    """A zip of stored (name, data, mode); the table's fields may say what they like.

    Args:
        central: crc, size, packed, offset, count: what the table says instead.
    """
    body, table = b"", b""
    for name, data, mode in entries:
        crc = binascii.crc32(data)
        offset = len(body)
        body += struct.pack("<4s5H3I2H", b"PK\3\4", 20, flags, 0, 0, 33, crc, len(data), len(data), len(name), 0)
        body += name + data
        table += struct.pack(
            "<4s6H3I5H2I",
            b"PK\1\2",
            (3 << 8) | 20,
            20,
            flags,
            0,
            0,
            33,
            central.get("crc", crc),
            central.get("packed", len(data)),
            central.get("size", len(data)),
            len(name),
            0,
            0,
            0,
            0,
            mode << 16,
            central.get("offset", offset),
        )
        table += name
    count = central.get("count", len(entries))
    return body + table + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count, count, len(table), len(body), 0)


# -- 7z


def number(value: int) -> bytes:
    """A number of a 7z's header."""
    return bytes((value,)) if value < 0x80 else b"\xff" + value.to_bytes(8, "little")


def seven(name: str, data: bytes, coder: bytes = b"\x01\x00", *, attributes: int = 0) -> bytes:
    """A 7z of one file under one coder; without another, it is copied."""
    names = name.encode("utf-16-le") + b"\0\0"
    head = b"\x01"  # header
    head += b"\x04"  # main streams
    head += b"\x06" + number(0) + number(1) + b"\x09" + number(len(data)) + b"\x00"
    head += b"\x07\x0b" + number(1) + b"\x00" + number(1) + coder + b"\x0c" + number(len(data)) + b"\x00"
    head += b"\x08\x00\x00"
    head += b"\x05" + number(1) + b"\x11" + number(len(names) + 1) + b"\x00" + names
    if attributes:
        head += b"\x15" + number(6) + b"\x01\x00" + struct.pack("<I", attributes)
    head += b"\x00\x00"
    return seven_raw(data, head)


def seven_raw(data: bytes, head: bytes, *, size: int | None = None, offset: int | None = None) -> bytes:
    start = struct.pack(
        "<QQI", len(data) if offset is None else offset, len(head) if size is None else size, zlib.crc32(head)
    )
    return b"7z\xbc\xaf\x27\x1c\0\x04" + struct.pack("<I", zlib.crc32(start)) + start + data + head


# -- gzip


def member(
    data: bytes, flags: int = 0, extra: bytes = b"", *, crc: int | None = None, size: int | None = None
) -> bytes:
    """One member of a gzip file, RFC 1952."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -15)
    body = packer.compress(data) + packer.flush()
    tail = struct.pack(
        "<II", zlib.crc32(data) if crc is None else crc, (len(data) if size is None else size) & 0xFFFFFFFF
    )
    return b"\x1f\x8b\x08" + bytes((flags,)) + bytes(4) + b"\0\x03" + extra + body + tail


_ZEROS = member(bytes(1 << 20))


def zeros(size: int, before: bytes = b"", after: bytes = b"") -> bytes:
    """A gzip of `before`, that many MiB of zeros in bytes, and `after`, member by member."""
    return member(before) + _ZEROS * (size >> 20) + member(after)
