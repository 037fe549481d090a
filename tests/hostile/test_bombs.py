"""Bombs in size, in count, in ratio, and in what only the unpacker's memory would hold."""

from __future__ import annotations

import gzip
import struct
import zlib

import pytest
from fields import Field, field
from forging import (
    BLOCK,
    TRAILER,
    base256,
    file,
    folder,
    gnu,
    header,
    link,
    newc,
    octal,
    pax,
    seven_raw,
    symlink,
    tar,
    zeros,
    zipped,
)

from guntainer import errors
from guntainer.archive import feeder, tree

MIB = 1 << 20


def refused(
    field: Field, data: bytes, words: str, limits: tuple[int, int] | None = None, *, layer: bool = False
) -> None:
    with pytest.raises(errors.RootfsError, match=words):
        field.unpack(data, limits=limits, layer=layer)


# -- size


def bomb(size: int) -> bytes:
    """A gzip of a tar of one file of zeros."""
    return zeros(size, header(b"zeros", size=size), bytes(2 * BLOCK))


def test_one_file(field: Field) -> None:
    refused(field, bomb(64 * MIB), "unpacks to more than 8 MiB", (8 * MIB, 100))


def test_many_files(field: Field) -> None:
    refused(
        field, gzip.compress(tar(*(file(b"%d" % n, bytes(9000)) for n in range(200)))), "more than 1 MiB", (MIB, 1000)
    )


def test_one_file_again_and_again(field: Field) -> None:
    """What was replaced was written as well."""
    refused(field, gzip.compress(tar(*(file(b"f", bytes(9000)) for n in range(200)))), "more than 1 MiB", (MIB, 1000))


def test_a_zip(field: Field) -> None:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(bytes(32 * MIB)) + packer.flush()
    name = b"f"
    crc = zlib.crc32(bytes(32 * MIB))
    fields = (20, 0, 8, 0, 33, crc, len(data), 32 * MIB, 1, 0)
    local = struct.pack("<4s5H3I2H", b"PK\3\4", *fields) + name + data
    table = struct.pack("<4s6H3I5H2I", b"PK\1\2", 0x314, *fields[:-2], 1, 0, 0, 0, 0, 0o100644 << 16, 0) + name
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(table), len(local), 0)
    refused(field, local + table + end, "unpacks to more than 8 MiB", (8 * MIB, 100))


def test_what_no_entry_holds(field: Field) -> None:
    """Behind the end of the archive in it."""
    data = zeros(96 * MIB, tar(file()))
    refused(field, data, "decompresses to more than", (MIB, 100))


def test_holes_take_no_room(field: Field) -> None:
    """A terabyte of nothing is a size, and nothing else: as with any tar."""
    keys = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"f"))
    size = 1 << 40
    text = b"1\n%d\n0\n" % size
    data = (
        pax(*keys, (b"GNU.sparse.realsize", b"%d" % size)) + header(b"f", size=BLOCK) + text + bytes(BLOCK - len(text))
    )
    try:
        status = (field.home / field.unpack(tar(data), limits=(MIB, 10)) / "f").stat()
    except errors.RootfsError as error:
        assert "File too large" in str(error)  # the file system says so
    else:
        assert (status.st_size, status.st_blocks) == (size, 0)


# -- count


def test_files(field: Field) -> None:
    refused(field, tar(*(file(b"%d" % n, b"") for n in range(101))), "more than 100 entries", (MIB, 100))


def test_folders_by_the_way(field: Field) -> None:
    """One entry with a long name makes two thousand of them."""
    deep = pax((b"path", b"d/" * 1900 + b"f")) + file()
    refused(field, tar(deep), "more than 1000 entries", (MIB, 1000))


def test_links(field: Field) -> None:
    many = [symlink(b"%d" % n, b"x") for n in range(50)] + [link(b"h%d" % n, b"0") for n in range(51)]
    refused(field, tar(*many), "more than 100 entries", (MIB, 100))


def test_one_name_again_and_again(field: Field) -> None:
    refused(field, gzip.compress(tar(*([file(b"f", b"")] * 2000))), "more than 1000 entries", (MIB, 1000))


def test_whiteouts(field: Field) -> None:
    refused(
        field, tar(*(file(b".wh.%d" % n, b"") for n in range(101))), "more than 100 entries", (MIB, 100), layer=True
    )


# -- ratio


def test_a_ratio(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody has said how much may come."""
    monkeypatch.setattr(feeder, "_FREE_BYTES", MIB)  # in the workers too: they are forked from here
    refused(field, bomb(64 * MIB), r"unpacks to more than 250 times its size \(.*--max-unpacked")


def test_a_ratio_that_is_let_in(field: Field) -> None:
    field.unpack(bomb(64 * MIB))


def test_a_ratio_that_was_asked_for(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "_FREE_BYTES", MIB)
    field.unpack(bomb(64 * MIB), limits=(65 * MIB, 10))


def test_a_ratio_behind_the_end(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeder, "_FREE_BYTES", MIB)
    monkeypatch.setattr(feeder.Limits, "entries", 100)
    refused(field, zeros(96 * MIB, tar(file())), "decompresses to more than")


# -- memory: `field` measures the unpacker's


def grown(kind: bytes, size: int, **more: bytes) -> bytes:
    """A header that says that as much follows, and all of it, in a gzip."""
    return zeros(size, header(b"h", kind, size, **more), tar(file()))


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"X"])
def test_a_header_of_a_gigabyte(field: Field, kind: bytes) -> None:
    gnu_magic = {"magic": b"ustar ", "version": b" \0"} if kind in b"LK" else {}
    refused(field, grown(kind, 1 << 30, **gnu_magic), "damaged|truncated|memory")


def test_attributes_of_a_gigabyte(field: Field) -> None:
    """Each of a megabyte, at most: none of them is kept for longer than its entry takes."""
    one = pax((b"SCHILY.xattr.user.x", b"v" * 900_000)) + file()
    try:
        field.unpack(gzip.compress(one * 100 + bytes(1024), 1))
    except errors.RootfsError as error:
        assert "damaged" in str(error)


def test_a_name_of_a_gigabyte_in_a_cpio(field: Field) -> None:
    whole = newc(b"f", b"", namesize=1 << 30)
    refused(field, zeros(1 << 30, whole, TRAILER), "damaged|truncated|memory|too long")


def test_a_link_of_a_gigabyte_in_a_cpio(field: Field) -> None:
    refused(
        field, zeros(1 << 30, newc(b"l", b"", 0o120777, size=1 << 30), TRAILER), "damaged|truncated|memory|no target"
    )


def test_a_table_of_a_gigabyte_in_a_7z(field: Field) -> None:
    """Its length is believed only as far as the file goes."""
    refused(field, seven_raw(b"", bytes(64), size=1 << 30), "damaged|truncated|holds no files")


def test_a_table_of_many_in_a_zip(field: Field) -> None:
    entries = [(b"f%d" % n, b"", 0o100644) for n in range(3000)]
    refused(field, zipped(*entries), "more than 1000 entries", (MIB, 1000))


def test_a_dictionary_that_is_filled(field: Field) -> None:
    """An xz may keep a gigabyte: the limit of an unpacker's memory ends that, and says so."""
    import lzma

    packer = lzma.LZMACompressor(filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])
    data = bytearray(packer.compress(tar(file())) + packer.flush())
    data[16] = 38  # 2 GiB: xz-file-format 5.3.1
    length = (data[12] + 1) * 4
    data[12 + length - 4 : 12 + length] = struct.pack("<I", zlib.crc32(bytes(data[12 : 12 + length - 4])))
    refused(field, bytes(data), "memory")


def test_names_that_are_kept(field: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders, late links, what is left out: all that is remembered until the end has a bound."""
    monkeypatch.setattr(tree, "_KEPT_BYTES", 1 << 16)
    late = [link(b"l%d" % n, b"t") for n in range(300)]
    folders = [folder(b"d%d" % n) for n in range(300)]
    devices = [header(b"n%d" % n, b"3") for n in range(300)]
    replaced = [symlink(b"s%d" % n, b"x") + file(b"s%d" % n) for n in range(300)]
    for parts in (late, folders, devices, replaced):
        refused(field, tar(*parts, file(b"t")), "MiB of names of folders and links")
    refused(field, tar(*(file(b".wh.%d" % n, b"") for n in range(400))), "MiB of names", layer=True)
    refused(field, tar(*(file(b"d%d/f" % n) for n in range(400))), "MiB of names", layer=True)


def test_long_names(field: Field) -> None:
    """4,095 bytes each, a million of which are a megabyte when compressed."""
    long = [gnu(b"L", (b"%04d" % n + b"d" * 200 + b"/") * 19 + b"f\0") + folder() for n in range(100)]
    field.unpack(gzip.compress(tar(*long), 1), limits=(MIB, 100_000))


def test_numbers_at_their_ends(field: Field) -> None:
    for size in (base256((1 << 63) - 1, 12), octal(0o77777777777, 12)):
        refused(field, tar(header(b"f", size=size) + bytes(BLOCK)), "truncated|damaged")
