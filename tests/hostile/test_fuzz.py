"""Any archive at all: whatever comes, it is a tree inside or one line, nothing outside is touched, and nothing partial stays.

Entries are put together from names, links, kinds and attributes that have to do with one another, packed as one of several
formats, then bytes are changed and ends cut. GUNTAINER_FUZZ_SECONDS=600 looks for as long; the ordinary suite for some
seconds, each time elsewhere.
"""

from __future__ import annotations

import gzip
import os
from typing import Any

from fields import Field, field, field_of_many
from forging import (
    BLOCK,
    TRAILER,
    base256,
    checked,
    gnu,
    header,
    member,
    newc,
    octal,
    old_sparse,
    padded,
    pax,
    pax_raw,
    tar,
    zipped,
)
from hypothesis import HealthCheck, Phase, event, example, given, settings
from hypothesis import strategies as st
from trees import described, overlay_attributes

from guntainer import errors

_PER_SECOND = 30
EXAMPLES = int(os.environ.get("GUNTAINER_FUZZ_SECONDS", "6")) * _PER_SECOND

PARTS = [
    b"a",
    b"a",
    b"b",
    b"b",
    b"c",
    b"d",
    b"..",
    b".",
    b"",
    b".wh.a",
    b".wh.b",
    b".wh..wh..opq",
    b".wh.",
    b".wh...",
    b".wh..wh.x",
]
PARTS += [b"n" * 255, b"\xff", b"a\nb", b"\\..\\", b"tree", b"evil", b"sentinel"]
plain = st.sampled_from(
    [b"a", b"b", b"c", b"d", b"a/b", b"b/a", b"c/d", b"a/b/c", b"./a", b"b/", b"c//d", b"a/.wh.b", b"d/.wh..wh..opq"]
)
strange = st.builds(
    lambda parts, before, after: before + b"/".join(parts) + after,
    st.lists(st.sampled_from(PARTS), min_size=1, max_size=4),
    st.sampled_from([b"", b"", b"", b"./", b"/", b"../", b"//"]),
    st.sampled_from([b"", b"", b"", b"/", b"\0", b"\0/../evil"]),
)


def seldom(often: Any, one_in: int, other: Any) -> Any:
    """Mostly one strategy, for what is refused hides all that comes after it."""
    return st.integers(1, one_in).flatmap(lambda n: other if n == one_in else often)


names = seldom(plain, 25, strange)
# from the top of a tree, in the store's folder for what is under way, to what lies beside the store
OUT = [b"../../../../sentinel", b"../../../../sentinel/d", b"../../../../evil", b"../../../../sentinel/file"]
targets = st.one_of(
    names,
    st.sampled_from(OUT),
    st.sampled_from([b"/", b"/tmp", b"..", b"../..", b"/etc/passwd", b"/proc/self/root", b"", b"t" * 4096]),
)
kinds = seldom(
    st.sampled_from([b"0", b"0", b"0", b"5", b"5", b"2", b"6", b"3"]),
    8,
    st.sampled_from([b"1", b"1", b"4", b"7", b"\0", b"S", b"M", b"D", b"V", b"N", b"Z"]),
)
contents = st.sampled_from([b"", b"x", b"y" * 511, b"z" * 512, b"0" * 70000]) | st.binary(max_size=40)
modes = st.sampled_from([0o644, 0o755, 0, 0o4755, 0o7777, 0o111, 0o100644, 0o7777777])
numbers = st.sampled_from([0, 1, 2, 511, 512, 1 << 33, (1 << 63) - 1, -1, -(1 << 62)]) | st.integers(
    -(1 << 63), (1 << 63) - 1
)
keys = st.sampled_from(
    [
        b"path",
        b"linkpath",
        b"size",
        b"mtime",
        b"uid",
        b"gid",
        b"SCHILY.xattr.user.x",
        b"SCHILY.xattr.user.overlay.opaque",
        b"SCHILY.xattr.trusted.overlay.redirect",
        b"SCHILY.xattr.security.capability",
        b"LIBARCHIVE.xattr.user.y",
        b"SCHILY.acl.access",
        b"GNU.sparse.major",
        b"GNU.sparse.minor",
        b"GNU.sparse.name",
        b"GNU.sparse.realsize",
        b"GNU.sparse.size",
        b"GNU.sparse.map",
        b"GNU.sparse.numblocks",
        b"GNU.sparse.offset",
        b"GNU.sparse.numbytes",
        b"hdrcharset",
        b"SCHILY.filetype",
        b"comment",
        b"",
    ]
)
values = names | targets | st.binary(max_size=30) | numbers.map(lambda n: b"%d" % n)
values |= st.sampled_from(
    [b"0,1", b"1,2,0,5", b"BINARY", b"user::rwx", b"1.5", b"-0.5", b"y", b"/etc", b"2\n0\n1\n9\n0\n"]
)


@st.composite
def crossings(draw: Any) -> bytes:
    """A link, and later something behind it: what every escape is made of."""
    name = draw(st.sampled_from([b"a", b"b", b"a/b", b"c/d"]))
    above = header(name[:1], b"5") if draw(st.booleans()) and b"/" in name else b""
    kind = draw(st.sampled_from([b"2", b"2", b"2", b"1"]))
    between = draw(seldom(st.just(b""), 3, tar_entries()))
    last = draw(st.sampled_from([b"/x", b"/x/y", b"", b"/.wh.file", b"/file", b"/d"]))
    return above + header(name, kind, linkname=draw(targets)[:100]) + between + draw(tar_entries(st.just(name + last)))


@st.composite
def tar_entries(draw: Any, named: Any = names) -> bytes:
    """One entry of a tar, with what comes before it."""
    before = b""
    for what in draw(seldom(st.just(""), 5, st.lists(st.sampled_from("xxxgLKX"), max_size=2))):
        if what in "xgX":
            pairs = draw(st.lists(st.tuples(keys, values), max_size=4))
            before += (
                pax(*pairs, kind=what.encode())
                if draw(st.booleans()) or pairs
                else pax_raw(draw(st.binary(max_size=60)))
            )
        else:
            before += gnu(what.encode(), draw(targets) + draw(st.sampled_from([b"\0", b""])))
    kind = draw(kinds)
    name, target, data = draw(named)[:100], draw(targets)[:100], draw(contents)
    if kind == b"S":
        spans = [(base256(draw(numbers), 12), base256(draw(numbers), 12)) for _ in range(draw(st.integers(0, 4)))]
        return before + old_sparse(name, spans, data, base256(draw(numbers), 12), extended=draw(st.booleans()))
    size = len(data) if kind in b"07\0Z" else draw(st.sampled_from([0, 0, 0, len(data)]))
    told: int | bytes = size if draw(st.integers(0, 60)) else base256(draw(numbers), 12)
    block = header(
        name, kind, told, linkname=target, mode=octal(draw(modes), 8), devmajor=octal(0, 8), devminor=octal(0, 8)
    )
    return before + block + (padded(data) if size else b"")


cpio_entries = st.builds(
    lambda name, data, mode, inode, links: newc(name, data, mode, inode=inode, links=links),
    names,
    contents,
    st.sampled_from([0o100644, 0o104755, 0o040755, 0o120777, 0o010644, 0o140644, 0o020644, 0o160000, 0]),
    st.integers(1, 3),
    st.integers(1, 3),
)
zip_entries = st.tuples(names, contents, st.sampled_from([0o100644, 0o040755, 0o120777, 0o010644, 0o020644, 0]))


@st.composite
def archives(draw: Any) -> bytes:
    kind = draw(st.sampled_from(["tar", "tar", "tar", "tar", "tar", "tar", "cpio", "zip"]))
    if kind == "tar":
        data = tar(*draw(st.lists(seldom(tar_entries(), 2, crossings()), min_size=1, max_size=6)))
    elif kind == "cpio":
        data = b"".join(draw(st.lists(cpio_entries, min_size=1, max_size=6))) + TRAILER
    else:
        data = zipped(*draw(st.lists(zip_entries, min_size=1, max_size=6)))
    changed = bytearray(data)
    for at, bits in draw(
        seldom(st.just([]), 5, st.lists(st.tuples(st.integers(0, len(data) - 1), st.integers(1, 255)), max_size=3))
    ):
        changed[at] ^= bits
        if kind == "tar" and draw(st.booleans()):  # or nothing but the checksum would ever be looked at
            start = at // BLOCK * BLOCK
            changed[start : start + BLOCK] = checked(bytes(changed[start : start + BLOCK]))
    data = bytes(changed)
    if not draw(st.integers(0, 20)):
        data = data[: draw(st.integers(0, len(data)))]
    packed = draw(st.sampled_from(["", "", "gzip", "members"]))
    if packed == "gzip":
        data = gzip.compress(data, 1)
    elif packed == "members":
        middle = draw(st.integers(0, len(data)))
        data = member(data[:middle]) + member(data[middle:])
    if packed and not draw(st.integers(0, 20)):
        at = draw(st.integers(0, len(data) - 1))
        data = data[:at] + bytes((data[at] ^ 0x55,)) + data[at + 1 :]
    return data


bounded = settings(
    max_examples=EXAMPLES // 2,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@bounded
@given(data=archives(), layer=st.booleans())
@example(data=b"", layer=True)
def test_anything(field: Field, data: bytes, layer: bool) -> None:
    check(field, data, layer=layer)


@bounded
@given(data=archives(), layer=st.booleans())
def test_anything_by_one_who_is_root(field_of_many: Field, data: bytes, layer: bool) -> None:
    check(field_of_many, data, layer=layer)


def check(field: Field, data: bytes, *, layer: bool) -> None:
    try:
        tree = field.unpack(data, layer=layer, limits=(1 << 20, 5000))
    except errors.RootfsError as error:
        event(type(error).__name__)
        return
    event("a tree")
    found = described(tree, {})
    assert "?" not in found.values()
    assert layer or "w" not in found.values()
    assert overlay_attributes(tree) == []
    field.empty()
    assert os.listdir(field.home / "store" / "rootfs") == os.listdir(field.home / "store" / "layers") == []
