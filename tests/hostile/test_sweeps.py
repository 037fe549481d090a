"""Damage everywhere: each field of a header, each block of an archive, each byte of a small one."""

from __future__ import annotations

import ctypes
import gzip
import lzma

import pytest
from fields import Field, field
from forging import (
    BLOCK,
    FIELDS,
    TRAILER,
    ar,
    checked,
    fifo,
    file,
    folder,
    gnu,
    header,
    link,
    newc,
    odc,
    padded,
    pax,
    seven,
    symlink,
    tar,
    zipped,
)
from trees import described

from guntainer import errors
from guntainer.archive.library import load_libarchive

PLAIN = {"a": "f:x", "f": "f:x", "z": "f:x"}
FILLINGS = {
    "ones": b"\xff",
    "zeros": b"\0",
    "blanks": b" ",
    "nines": b"9",
    "letters": b"z",
    "minus": b"-",
    "dots": b"../",
    "sevens": b"7",
}
# what comes of a field that is filled with that, its checksum being right; elsewhere the tree is as it would have been
OTHERWISE: dict[tuple[str, str], str | dict[str, str]] = {
    **{("size", how): "damaged|truncated" for how in FILLINGS},
    ("name", "zeros"): "would replace the rootfs",
    ("name", "dots"): "leads out of the rootfs",
    ("name", "ones"): {"a": "f:x", "\udcff" * 100: "f:x", "z": "f:x"},
    **{
        ("name", how): {"a": "f:x", chr(FILLINGS[how][0]) * 100: "f:x", "z": "f:x"}
        for how in ("blanks", "nines", "letters", "minus", "sevens")
    },
    ("prefix", "dots"): "leads out of the rootfs",
    ("prefix", "ones"): {"a": "f:x", "\udcff" * 155: "d", "\udcff" * 155 + "/f": "f:x", "z": "f:x"},
    **{
        ("prefix", how): {
            "a": "f:x",
            chr(FILLINGS[how][0]) * 155: "d",
            chr(FILLINGS[how][0]) * 155 + "/f": "f:x",
            "z": "f:x",
        }
        for how in ("blanks", "nines", "letters", "minus", "sevens")
    },
}


def filled(name: str, how: str, *, check: bool) -> bytes:
    """A tar of three files; of the middle one a field is filled with something."""
    at, size = FIELDS[name]
    block = bytearray(header(b"f", size=1))
    block[at : at + size] = (FILLINGS[how] * size)[:size]
    middle = checked(bytes(block)) if check else bytes(block)
    return tar(file(b"a"), middle + padded(b"x"), file(b"z"))


@pytest.mark.parametrize("name", FIELDS)
def test_a_damaged_field_is_seen(field: Field, name: str) -> None:
    """Without a right checksum, whatever the field is."""
    for how in FILLINGS:
        data = filled(name, how, check=False)
        if data == filled(name, how, check=True) or data == tar(file(b"a"), file(b"f"), file(b"z")):
            continue
        with pytest.raises(errors.ArchiveError, match="damaged after 1 entries"):
            field.unpack(data)


@pytest.mark.parametrize("name", [name for name in FIELDS if name != "chksum"])
def test_a_strange_field_does_no_harm(field: Field, name: str) -> None:
    """With a right checksum: the very tree, or one line."""
    for how in FILLINGS:
        wanted = OTHERWISE.get((name, how), PLAIN)
        data = filled(name, how, check=True)
        if isinstance(wanted, str):
            with pytest.raises(errors.RootfsError, match=wanted):
                field.unpack(data)
        else:
            assert described(field.unpack(data), wanted) == wanted, how
            field.empty()


RICH = tar(
    folder(b"d"),
    file(b"d/f", b"x" * 700, mode=b"0000000\0"),
    gnu(b"L", b"n" * 150 + b"\0"),
    file(b"n" * 99),
    pax((b"path", b"p" * 120), (b"mtime", b"-1.5"), (b"SCHILY.xattr.user.x", b"y")),
    file(b"p", b"y" * 512),
    symlink(b"s", b"/etc"),
    link(b"h", b"d/f"),
    fifo(b"pipe"),
    file(b"last"),
)
# cut there, one of them says so; a format without a mark at its end can not, and holds what came before
CUT: dict[str, tuple[bytes, int]] = {
    "tar": (RICH[:-BLOCK], BLOCK),
    "tar, within a block": (RICH[:-BLOCK], 1000),
    "gzip": (gzip.compress(RICH), 11),
    "xz": (lzma.compress(RICH), 17),
    "cpio": (newc(b"a", b"x" * 30) + newc(b"b", b"/etc", 0o120777) + newc(b"c", b"y" * 30) + TRAILER, 13),
    "portable cpio": (odc(b"a", b"x" * 30) + odc(b"b", b"y" * 30) + odc(b"TRAILER!!!"), 13),
    "zip": (zipped((b"a", b"x" * 30, 0o100644), (b"b", b"/etc", 0o120777)), 13),
    "7z": (seven("a", b"x" * 60), 7),
}


@pytest.mark.parametrize("kind", CUT)
def test_cut_anywhere(field: Field, kind: str) -> None:
    whole, step = CUT[kind]
    field.unpack(whole)
    field.empty()
    for length in range(0, len(whole), step):
        with pytest.raises(errors.ArchiveError, match=r"truncated|damaged|empty|holds no files|not an archive"):
            field.unpack(whole[:length])


def test_an_ar_has_no_end(field: Field) -> None:
    """A cut between two members can not be seen, nor one in a member's header; one in its bytes is."""
    whole = ar((b"a/", b"x" * 30), (b"b/", b"y" * 30))
    for length in (*range(10, 98, 12), *range(158, 188, 6)):
        with pytest.raises(errors.ArchiveError, match=r"truncated|damaged|holds no files|not an archive"):
            field.unpack(whole[:length])
    for length in (98, 120, 157):
        assert described(field.unpack(whole[:length]), {}) == {"a": "f:" + "x" * 30}
        field.empty()


def test_a_changed_byte_of_a_header_is_seen(field: Field) -> None:
    for at in range(BLOCK, 2 * BLOCK, 13):
        data = bytearray(RICH)
        data[at] ^= 0x41
        with pytest.raises(errors.ArchiveError, match=r"damaged|truncated"):
            field.unpack(bytes(data))


FLIPPED = {
    "cpio": CUT["cpio"][0],
    "portable cpio": CUT["portable cpio"][0],
    "ar": ar((b"#1/4", b"namex" * 6), (b"b/", b"y" * 30)),
    "zip": CUT["zip"][0],
    "7z": CUT["7z"][0],
    "pax": RICH[7 * BLOCK : 9 * BLOCK] + RICH[9 * BLOCK :],
}


@pytest.mark.parametrize("kind", FLIPPED)
def test_a_changed_byte_does_no_harm(field: Field, kind: str) -> None:
    """What has no checksum may come to another tree; it is a tree, or one line."""
    whole = FLIPPED[kind]
    for at in range(0, min(len(whole), 400), 17):
        data = bytearray(whole)
        data[at] ^= 0x01 if at % 2 else 0xFF
        try:
            described(field.unpack(bytes(data)), {})
        except errors.RootfsError:
            continue
        field.empty()


# -- iso 9660, of libarchive's writer


def iso() -> bytes:
    """An image of a CD with Rock Ridge: a folder with a file, a link, and another file."""
    ffi = load_libarchive()
    archive = ffi.write_new()
    ffi.get_write_format_function("iso9660")(archive)
    size = 1 << 21
    buffer, used = ctypes.create_string_buffer(size), ctypes.c_size_t()
    ffi.ffi("write_open_memory", [ffi.c_archive_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p], ctypes.c_int)(
        archive, ctypes.addressof(buffer), size, ctypes.addressof(used)
    )
    set_link = ffi.ffi("entry_copy_symlink", [ffi.c_archive_entry_p, ctypes.c_char_p], None)
    for name, kind, data in (
        (b"folder", 0o040000, b""),
        (b"folder/inside11", 0o100000, b"x" * 3000),
        (b"linklink", 0o120000, b""),
        (b"outside1", 0o100000, b"y"),
    ):
        entry = ffi.entry_new()
        ffi.entry_copy_pathname(entry, name)
        ffi.entry_set_filetype(entry, kind)
        ffi.entry_set_perm(entry, 0o755)
        ffi.entry_set_mtime(entry, 1000, 0)
        ffi.entry_set_size(entry, len(data))
        if kind == 0o120000:
            set_link(entry, b"/etc/targets1")
        ffi.write_header(archive, entry)
        if data:
            ffi.write_data(archive, data, len(data))
        ffi.entry_free(entry)
    ffi.write_close(archive)
    ffi.write_free(archive)
    return buffer.raw[: used.value]


ISO_TREE = {"folder": "d", "folder/inside11": "f:" + "x" * 3000, "linklink": "l:/etc/targets1", "outside1": "f:y"}


def test_an_iso(field: Field) -> None:
    assert described(field.unpack(iso()), ISO_TREE) == ISO_TREE


@pytest.mark.parametrize(
    "name", [b"../../ev", b"/etc/evi", b"..\0\0\0\0\0\0", b".\0\0\0\0\0\0\0", b"\0" * 8, b"a/../../", b"folder/x"]
)
def test_names_in_an_iso(field: Field, name: bytes) -> None:
    """In Rock Ridge's names, which are bytes with a length."""
    try:
        found = described(field.unpack(iso().replace(b"outside1", name)), {})
    except errors.RootfsError:
        return
    assert set(found) >= {"folder", "linklink"}


def test_an_iso_whose_folders_hold_themselves(field: Field) -> None:
    """The folder's place is that of the root: ECMA-119 9.1.3."""
    image = iso()
    root = int.from_bytes(image[0x8000 + 158 : 0x8000 + 162], "little")
    changed = bytearray(image)
    for sector in range(root, root + 8):
        at = sector * 2048
        while at < (sector + 1) * 2048 and image[at]:
            if image[at + 25] & 2:
                changed[at + 2 : at + 10] = root.to_bytes(4, "little") + root.to_bytes(4, "big")
            at += image[at]
    assert changed != image
    try:
        described(field.unpack(bytes(changed)), {})
    except errors.RootfsError as error:
        assert "damaged" in str(error) or "truncated" in str(error)


def test_a_changed_byte_of_an_iso_does_no_harm(field: Field) -> None:
    image = iso()
    places = [at for at in range(0x8000, len(image)) if image[at] and image[at] not in b"xy "]
    for at in places[:: max(1, len(places) // 80)]:
        changed = bytearray(image)
        changed[at] ^= 0xFF
        try:
            described(field.unpack(bytes(changed)), {})
        except errors.RootfsError:
            continue
        field.empty()


def test_a_cut_iso_is_seen(field: Field) -> None:
    image = iso()
    end = image.rindex(b"xxx")
    for length in range(2048, end, max(2048, end // 25)):
        with pytest.raises(errors.ArchiveError):
            field.unpack(image[:length])
