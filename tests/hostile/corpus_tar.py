"""Tars that nobody would send who means well, each with what has to come of it.

An outcome is the words that it is refused with, or the whole tree: name → what is there, as `trees.described` has it.
"""

from __future__ import annotations

from typing import NamedTuple

from forging import (
    BLOCK,
    END,
    base256,
    checked,
    device,
    fifo,
    file,
    folder,
    gnu,
    header,
    link,
    octal,
    old_sparse,
    padded,
    pax,
    pax_raw,
    record,
    symlink,
    tar,
)


class Case(NamedTuple):
    data: bytes
    outcome: str | dict[str, str]
    layer: bool = False


CASES: dict[str, Case] = {}


def case(name: str, outcome: str | dict[str, str], *parts: bytes, layer: bool = False) -> None:
    """A tar of these parts."""
    assert name not in CASES, name
    CASES[name] = Case(tar(*parts), outcome, layer)


# -- names

MAKERS = {
    "file": file,
    "folder": folder,
    "symbolic link": lambda name: symlink(name, b"x"),
    "hard link": lambda name: link(name, b"there"),
    "fifo": fifo,
    "device": device,
}
OUT = {
    "above": b"../evil",
    "above by way of a folder": b"a/../../evil",
    "absolute": b"/evil",
    "absolute twice": b"//evil",
}
for _what, _make in MAKERS.items():
    for _how, _name in OUT.items():
        _words = "has an absolute name" if "absolute" in _how else "leads out of the rootfs"
        case(f"{_what} {_how}", f"entry '{_name.decode()}' {_words}", file(b"there"), _make(_name))

case("dots that stay inside", "entry 'a/../b' leads out", file(b"a/../b"))
case("dots at the end", "entry 'a/..' leads out", folder(b"a/.."))
case("dots alone", "entry '..' leads out", folder(b".."))
case("a hundred dots", "leads out", file(b"../" * 30 + b"evil"))
case("the root as a file", "entry '.' would replace the rootfs", file(b"."))
case("the root as a link", "entry './' would replace the rootfs", symlink(b"./", b"/etc"))
case("the root as a fifo", "entry '.' would replace the rootfs", fifo(b"."))
case("slashes and dots in between", {"a": "d", "a/b": "f:x"}, file(b"./a//.//b"))
case("backslashes are bytes", {"..\\..\\evil": "f:x", "C:\\evil": "f:x"}, file(b"..\\..\\evil"), file(b"C:\\evil"))
case("dots that are names", {"...": "f:x", ".. ": "f:x", "..a": "f:x"}, file(b"..."), file(b".. "), file(b"..a"))
case("names that look like options", {"-rf": "f:x", "--": "d"}, file(b"-rf"), folder(b"--"))
case(
    "names of control characters",
    {"\x01\x1b[2J": "f:x", "\t": "d", "\x7f": "f:x"},
    file(b"\x01\x1b[2J"),
    folder(b"\t"),
    file(b"\x7f"),
)
case("a name of one line more", {"a\nb": "f:x"}, file(b"a\nb"))
case("a name that is no UTF-8", {"\udcff\udcfe": "f:x", "\udcc3": "d"}, file(b"\xff\xfe"), folder(b"\xc3"))
case("a name written from right to left", {"\u202etxt": "f:x"}, file("\u202etxt".encode()))
case("a name of a refusal is one line", r"entry '\.\./a\\nb' leads out", file(b"../a\nb"))
case("an escape in a refusal is shown", r"entry '\.\./\\x1b\[2J' leads out", file(b"../\x1b[2J"))
case("no UTF-8 in a refusal", r"entry '\.\./\\xff' leads out", file(b"../\xff"))
case("dots by way of the prefix field", "entry '../evil' leads out", file(b"evil", prefix=b".."))
case("absolute by way of the prefix field", "entry '/tmp/evil' has an absolute name", file(b"evil", prefix=b"/tmp"))
case("dots by way of pax", "entry '../evil' leads out", pax((b"path", b"../evil")), file(b"good"))
case("absolute by way of pax", "entry '/evil' has an absolute name", pax((b"path", b"/evil")), file(b"good"))
case("dots by way of GNU's long name", "entry '../evil' leads out", gnu(b"L", b"../evil\0"), file(b"good"))
case("dots by way of pax sparse", "damaged",
     pax((b"GNU.sparse.major", b"0"), (b"GNU.sparse.minor", b"1"), (b"GNU.sparse.name", b"../evil"),
         (b"GNU.sparse.size", b"1"), (b"GNU.sparse.numblocks", b"1"), (b"GNU.sparse.map", b"0,1")), file(b"good"))  # fmt: skip
case("a name of 255 bytes", {"n" * 255: "f:x"}, gnu(b"L", b"n" * 255 + b"\0"), file())
case("a name of 256 bytes", "entry 'nnn.*File name too long", gnu(b"L", b"n" * 256 + b"\0"), file())
case("a path of 4,095 bytes", "entry 'aaa.*File name too long", pax((b"path", b"a" * 4095)), file())
case("a path of 4,097 bytes in parts", "File name too long", pax((b"path", b"a/" * 2048 + b"b")), file())
case("4,096 folders in one another", "entry 'd/d/.*File name too long", pax((b"path", b"d/" * 4096)), folder())
case("a name with a slash behind", {"f": "d"}, file(b"f/", b""))
case("names that differ in case", {"a": "f:x", "A": "f:y"}, file(b"a"), file(b"A", b"y"))
case(
    "names of one letter in two ways",
    {"é": "f:x", "e\u0301": "f:y"},
    file("é".encode()),
    file("e\u0301".encode(), b"y"),
)

# -- symbolic links

LINKS = {
    "up": b"..",
    "out": b"/tmp",
    "in": b"d",
    "here": b".",
    "itself": b"a",
    "nothing": b"never",
    "proc": b"/proc/self/root",
}
for _how, _target in LINKS.items():
    for _what, _make in MAKERS.items():
        if _what == "device":
            continue  # not made, so nothing is gone through
        case(f"{_what} through a link to {_how}", "entry 'a/evil' goes through a symbolic link",
             folder(b"d"), file(b"there"), symlink(b"a", _target), _make(b"a/evil"))  # fmt: skip
case(
    "through a link to a link",
    "goes through a symbolic link",
    symlink(b"a", b"b"),
    symlink(b"b", b"/"),
    file(b"a/evil"),
)
case("through a link in a folder", "entry 'd/a/evil' goes through", symlink(b"d/a", b"../.."), file(b"d/a/evil"))
case("a link that becomes a folder", {"a": "d", "a/f": "f:x"}, symlink(b"a", b"/tmp"), folder(b"a"), file(b"a/f"))
case(
    "a folder that becomes a link",
    "entry 'a/g' goes through",
    folder(b"a"),
    file(b"a/f"),
    symlink(b"a", b"/tmp"),
    file(b"a/g"),
)
case("a full folder that becomes a link", {"a": "l:/tmp"}, file(b"a/b/f"), symlink(b"a", b"/tmp"))
case("a link that becomes a file", {"a": "f:new"}, symlink(b"a", b"/tmp/evil"), file(b"a", b"new"))
case("a link that becomes a fifo", {"a": "p"}, symlink(b"a", b"/tmp/evil"), fifo(b"a"))
case("links that say what they like", {"a": "l:/etc/passwd", "b": "l:../../..", "c": "l:a\nb", "d": "l:c/"},
     symlink(b"a", b"/etc/passwd"), symlink(b"b", b"../../.."), symlink(b"c", b"a\nb"), symlink(b"d", b"c/"))  # fmt: skip
case("a link to nothing at all", "symbolic link 'a' has no target", symlink(b"a", b""))
case("a link to 4,095 bytes", {"a": "l:" + "t" * 4095}, gnu(b"K", b"t" * 4095 + b"\0"), symlink(b"a", b"t" * 99))
case("a link to 4,096 bytes", "entry 'a': File name too long", gnu(b"K", b"t" * 4096 + b"\0"), symlink(b"a", b"t" * 99))
case("links in a circle", {"a": "l:b", "b": "l:a"}, symlink(b"a", b"b"), symlink(b"b", b"a"))
case("a link with bytes", {"a": "l:t", "f": "f:x"}, header(b"a", b"2", 0, linkname=b"t"), file(b"f"))
case("a link's target by way of pax", {"a": "l:../evil"}, pax((b"linkpath", b"../evil")), symlink(b"a", b"good"))

# -- hard links

for _how, _target in OUT.items():
    _words = "has an absolute name" if "absolute" in _how else "leads out of the rootfs"
    case(f"a hard link to {_how}", f"hard link 'a' to '{_target.decode()}' {_words}", link(b"a", _target))
    case(f"a hard link to {_how} by way of pax", _words, file(b"f"), pax((b"linkpath", _target)), link(b"a", b"f"))
    case(f"a hard link to {_how} by way of GNU", _words, file(b"f"), gnu(b"K", _target + b"\0"), link(b"a", b"f"))
case("a hard link through a link", "hard link 'b' to 'a/passwd', which goes through a symbolic link",
     symlink(b"a", b"/etc"), link(b"b", b"a/passwd"))  # fmt: skip
case("a hard link through a file", "which goes through a file", file(b"a"), link(b"b", b"a/x"))
case(
    "a late hard link through a link",
    "which goes through a symbolic link",
    link(b"b", b"a/passwd"),
    symlink(b"a", b"/etc"),
)
case(
    "a hard link to a link is one",
    {"a": "l:/etc/passwd", "b": "l:/etc/passwd"},
    symlink(b"a", b"/etc/passwd"),
    link(b"b", b"a"),
)
case("written through a hard link to a link", {"a": "l:/tmp/evil", "b": "f:x"},
     symlink(b"a", b"/tmp/evil"), link(b"b", b"a"), file(b"b"))  # fmt: skip
case(
    "through a hard link to a link",
    "entry 'b/evil' goes through",
    symlink(b"a", b"/tmp"),
    link(b"b", b"a"),
    file(b"b/evil"),
)
case("a hard link to a folder", "is a link to a folder", folder(b"a"), link(b"b", b"a"))
case("a hard link to the root", "is a link to a folder", link(b"b", b"."))
case("a hard link to nothing", "which is not in the archive", link(b"b", b"never"), file(b"f"))
case("a hard link to itself", "which is not in the archive", link(b"a", b"a"))
case("a hard link to itself by another name", "which is not in the archive", link(b"a", b"./a"))
case("a hard link to itself that is there", {"a": "f:x"}, file(b"a"), link(b"a", b"a"))
case("hard links in a circle", "which is not in the archive", link(b"a", b"b"), link(b"b", b"a"))
case("hard links in a chain to come", dict.fromkeys("abcde", "f:x#5"),
     link(b"a", b"b"), link(b"b", b"c"), link(b"c", b"d"), link(b"d", b"e"), file(b"e"))  # fmt: skip
case(
    "a hard link keeps what is replaced",
    {"a": "f:new", "b": "f:old"},
    file(b"a", b"old"),
    link(b"b", b"a"),
    file(b"a", b"new"),
)
case("a hard link in the place of a folder", {"a": "f:x#2", "d": "f:x#2"}, file(b"a"), file(b"d/e"), link(b"d", b"a"))
case("a hard link to what was in its place", "which is not in the archive", file(b"d/e"), link(b"d", b"d/e"))
case("a hard link over its target's folder", {"d": "f:y"}, link(b"d", b"d/e"), file(b"d", b"y"))
case("a hard link does not change modes", {"a": "f:x@4755#2", "b": "f:x@4755#2"},
     file(b"a", mode=octal(0o4755, 8)), link(b"b", b"a", mode=octal(0o777, 8)))  # fmt: skip
case("a hard link to a fifo", {"a": "p", "b": "p"}, fifo(b"a"), link(b"b", b"a"))
case("a hard link with bytes to a fifo", "holds bytes, and is not one to a file",
     fifo(b"a"), pax((b"size", b"1")) + header(b"b", b"1", 1, linkname=b"a") + padded(b"x"))  # fmt: skip
case("a hard link to a device", {"f": "f:x"}, device(b"null"), link(b"also", b"null"), file(b"f"))
case("a file behind a hard link to a device", {"also": "f:x"}, device(b"null"), link(b"also", b"null"), file(b"also"))

# -- kinds

case(
    "devices of all numbers", {"f": "f:x"}, device(b"c"), device(b"b", b"4", 8, 0), device(b"w", b"3", 0, 0), file(b"f")
)
case("a device in the place of a file", {"a": "f:x"}, file(b"a"), device(b"a"))
case("a fifo is never opened", {"a": "f:x"}, fifo(b"a"), file(b"a"))
case("a file in a fifo", "entry 'a/b' goes through a file", fifo(b"a"), file(b"a/b"))
case("setuid, setgid, sticky", {"u": "f:x@4755", "g": "f:x@2711", "t": "d@1777", "all": "d@7777", "none": "f:x@0"},
     file(b"u", mode=octal(0o4755, 8)), file(b"g", mode=octal(0o2711, 8)), folder(b"t", mode=octal(0o1777, 8)),
     folder(b"all", mode=octal(0o7777, 8)), file(b"none", mode=octal(0, 8)))  # fmt: skip
case("modes with the bits of a kind", {"f": "f:x@644"}, file(b"f", mode=octal(0o120644, 8)))
case("modes with bits above all kinds", {"f": "f:x@755"}, file(b"f", mode=octal(0o7000755, 8)))
case("a kind that nobody knows", {"f": "f:x"}, header(b"f", b"Z", 1) + padded(b"x"))
case("a contiguous file", {"f": "f:x"}, header(b"f", b"7", 1) + padded(b"x"))
case("a file of the seventh edition", {"f": "f:x"}, header(b"f", b"\0", 1, magic=b"", version=b"") + padded(b"x"))
case("a folder of the seventh edition", {"f": "d"}, header(b"f/", b"\0", 0, magic=b"", version=b""))
case("a folder with bytes", {"d": "d", "f": "f:x"}, header(b"d", b"5", 0) + file(b"f"))
case("a volume's label", {"f": "f:x"}, header(b"label", b"V"), file(b"f"))

# -- duplicates, and one thing for another

THINGS = {
    "file": (lambda n: file(n, b"old"), lambda n: file(n, b"new"), "f:new"),
    "folder": (lambda n: folder(n) + file(n + b"/old"), lambda n: folder(n) + file(n + b"/new"), "d"),
    "link": (lambda n: symlink(n, b"old"), lambda n: symlink(n, b"new"), "l:new"),
    "hard link": (lambda n: file(b"t") + link(n, b"t"), lambda n: file(b"t") + link(n, b"t"), "f:x#2"),
    "fifo": (fifo, fifo, "p"),
}  # fmt: skip
for _old, (_before, _, _) in THINGS.items():
    for _new, (_, _after, _is) in THINGS.items():
        _tree = {"n": _is}
        if _new == "folder":
            _tree["n/new"] = "f:x"
            if _old == "folder":
                _tree["n/old"] = "f:x"
        if "hard link" in (_old, _new):
            _tree["t"] = "f:x#2" if _new == "hard link" else "f:x"
        case(f"a {_new} for a {_old}", _tree, _before(b"n"), _after(b"n"))
case("one file a hundred times", {"f": "f:99"}, *(file(b"f", b"%d" % n) for n in range(100)))
case(
    "one folder, ever another mode",
    {"d": "d@711", "d/f": "f:x"},
    folder(b"d"),
    file(b"d/f"),
    folder(b"d", mode=octal(0o711, 8)),
)
case("modes of a folder that is gone", {"d": "d", "d/e": "d@755", "d/e/f": "f:x"},
     folder(b"d/e", mode=octal(0, 8)), file(b"d"), folder(b"d"), file(b"d/e/f"))  # fmt: skip

# -- numbers

X = padded(b"x")
case("a size of eight GiB, and a byte", "truncated after", header(b"f", size=b"7" * 11) + X)
case("a size of base 256", {"f": "f:x"}, header(b"f", size=base256(1, 12)) + X)
case("a size below zero", "damaged", header(b"f", size=base256(-1, 12)) + X)
case("a size far below zero", "damaged", header(b"f", size=base256(-(1 << 62), 12)) + X)
case("a size of 2^63", "damaged|truncated", header(b"f", size=base256(1 << 63, 12)) + X)
case("a size of 2^63-1", "damaged|truncated", header(b"f", size=base256((1 << 63) - 1, 12)) + X)
case("a size of all bits", "damaged", header(b"f", size=b"\xff" * 12) + X)
case("a size that is no number", "not an archive", header(b"f", size=b"none"))
case("a size with blanks around", {"f": "f:x"}, header(b"f", size=b"          1 ") + X)
case("a size below zero by way of pax", "damaged|size", pax((b"size", b"-1")) + header(b"f", size=1) + X)
case("a size of twenty digits by way of pax", "damaged|truncated", pax((b"size", b"9" * 20)) + header(b"f", size=1) + X)
case(
    "a size that pax overrides",
    {"f": "f:xy", "g": "f:x"},
    pax((b"size", b"2")) + header(b"f", size=1) + padded(b"xy"),
    file(b"g"),
)
case("owners of base 256", {"f": "f:x"}, file(b"f", uid=base256(1 << 40, 8), gid=base256(-1, 8)))
case("owners that are no numbers", "not an archive", file(b"f", uid=b"\xff" * 8, gid=b"root"))
case("a time of base 256", {"f": "f:x"}, file(b"f", mtime=base256(1 << 40, 12)))
case("a time of all bits", {"f": "f:x"}, file(b"f", mtime=base256(-1, 12)))
case("a time at the end of time", {"f": "f:x"}, file(b"f", mtime=base256((1 << 63) - 1, 12)))
case("a time before all time", {"f": "f:x"}, file(b"f", mtime=base256(-(1 << 63), 12)))
case("a time of pax without sense", {"f": "f:x"}, pax((b"mtime", b"1e999")), file())
case("a time of pax of a thousand digits", {"f": "f:x"}, pax((b"mtime", b"1" * 1000 + b"." + b"9" * 1000)), file())
case("a time of pax that is none", {"f": "f:x"}, pax((b"mtime", b"nan"), (b"atime", b""), (b"ctime", b"-.")), file())

# -- pax

case("a pax header without an entry", "damaged|truncated", file(b"f"), pax((b"path", b"g")))
case("a global one without an entry", {"f": "f:x"}, file(b"f"), pax((b"comment", b"g"), kind=b"g"))
case("two pax headers for one entry", "damaged", pax((b"path", b"a")), pax((b"path", b"b")), file())
case("a global path", {"f": "f:x", "g": "f:x"}, pax((b"path", b"../evil"), kind=b"g"), file(b"f"), file(b"g"))
case(
    "a global link target",
    {"f": "f:x", "l": "l:f"},
    pax((b"linkpath", b"../evil"), kind=b"g"),
    file(b"f"),
    symlink(b"l", b"f"),
)
case("a global size", {"f": "f:x", "g": "f:x"}, pax((b"size", b"0"), kind=b"g"), file(b"f"), file(b"g"))
case("a key twice", {"b": "f:x"}, pax((b"path", b"a"), (b"path", b"b")), file())
case("an empty path", {"f": "f:x"}, pax((b"path", b"")), file())
case("an empty link target", {"l": "l:t"}, pax((b"linkpath", b"")), symlink(b"l", b"t"))
case("a path with a NUL in it", {"a": "f:x"}, pax((b"path", b"a\0../evil")), file())
case("a path with a newline in it", {"a\nb": "f:x"}, pax((b"path", b"a\nb")), file())
case("a path that is no UTF-8", {"\udcff": "f:x"}, pax((b"path", b"\xff")), file())
case("a path that is said to be binary", {"\udcff": "f:x"}, pax((b"hdrcharset", b"BINARY"), (b"path", b"\xff")), file())
case("a key without a name", "damaged|truncated", pax_raw(b"6 =ab\n"), file())
case("a record that is longer than it says", "damaged", pax_raw(b"7 path=abc\n"), file())
case("a record that says it is longer", "damaged", pax_raw(b"99 path=a\n"), file())
case("a record of no length", "damaged", pax_raw(b"0 path=a\n"), file())
case("a record of a length below zero", "damaged", pax_raw(b"-9 path=a\n"), file())
case("a record of a length of many digits", "damaged", pax_raw(b"9" * 30 + b" path=a\n"), file())
case("a record without an equals sign", "damaged", pax_raw(b"8 patha\n"), file())
case("a record without an end", "damaged", pax_raw(b"9 path=ab"), file())
case("a pax header of zeros", "damaged", pax_raw(bytes(100)), file())
case("a pax header of blanks", "damaged", pax_raw(b" " * 100), file())
case("an empty pax header", {"f": "f:x"}, pax_raw(b""), file())
case("a pax header of a gigabyte", "damaged|truncated", header(b"PaxHeader", b"x", 1 << 30) + X)
case("a pax header of 2^62 bytes", "damaged|truncated", header(b"PaxHeader", b"x", base256(1 << 62, 12)) + X)
case("a pax header below zero", "damaged|truncated", header(b"PaxHeader", b"x", base256(-512, 12)) + X)
case("a link target for a file", {"f": "f:x"}, pax((b"linkpath", b"../evil")), file())
case("a pax header of Sun's", "damaged", header(b"PaxHeader", b"X", 10) + padded(record(b"path", b"a")[:10]), file())

# -- GNU

case("a long name without an entry", "damaged|truncated", file(), gnu(b"L", b"n\0"))
case("a long name of no length", "entry '' would replace the rootfs", gnu(b"L", b""), file())
case("a long name of a gigabyte", "damaged|truncated", header(b"L", b"L", 1 << 30, magic=b"ustar ", version=b" \0") + X)
case(
    "a long name below zero",
    "damaged|truncated",
    header(b"L", b"L", base256(-1, 12), magic=b"ustar ", version=b" \0") + X,
)
case("a long name twice", {"b": "f:x"}, gnu(b"L", b"a\0"), gnu(b"L", b"b\0"), file())
case("a long name with a NUL in it", {"a": "f:x"}, gnu(b"L", b"a\0../evil\0"), file())
case("a long target for a file", {"f": "f:x"}, gnu(b"K", b"../evil\0"), file())
case("a long name and a path of pax", {"a": "f:x"}, gnu(b"L", b"a\0"), pax((b"path", b"b")), file())
case("a folder with a list of names", {"d": "d", "f": "f:x"}, header(b"d", b"D", 3) + padded(b"Yx\0"), file())
case(
    "the rest of a file of another volume", "entry 'f' is of a kind that can not be unpacked", header(b"f", b"M", 1) + X
)
case(
    "a header of GNU's with a prefix",
    {"f": "f:x"},
    header(b"f", b"0", 1, magic=b"ustar ", version=b" \0", prefix=b"../evil") + X,
)

# -- sparse files


def sparse(*records: tuple[bytes, bytes], data: bytes = b"x") -> bytes:
    return pax(*records) + header(b"f", size=len(data)) + padded(data)


def sparse_1_0(text: bytes, data: bytes, realsize: bytes) -> bytes:
    """A map in front of the data, as GNU tar writes it today."""
    keys = ((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.name", b"f"))
    whole = padded(text) + data
    return (
        pax(*keys, (b"GNU.sparse.realsize", realsize)) + header(b"GNUSparseFile.0/f", size=len(whole)) + padded(whole)
    )


def sparse_0_1(text: bytes, count: bytes, size: bytes = b"9", data: bytes = b"xy") -> bytes:
    keys = ((b"GNU.sparse.size", size), (b"GNU.sparse.numblocks", count), (b"GNU.sparse.map", text))
    return sparse(*keys, data=data)


def o(number: int) -> bytes:
    return b"%011o\0" % number


case("sparse of old", {"f": "f:\0\0x\0\0y\0\0\0"}, old_sparse(b"f", [(o(2), o(1)), (o(5), o(1))], b"xy", o(9)))
case("sparse 0.0", {"f": "f:\0\0x\0\0y\0\0\0"}, sparse(
    (b"GNU.sparse.size", b"9"), (b"GNU.sparse.numblocks", b"2"), (b"GNU.sparse.offset", b"2"), (b"GNU.sparse.numbytes", b"1"),
    (b"GNU.sparse.offset", b"5"), (b"GNU.sparse.numbytes", b"1"), data=b"xy"))  # fmt: skip
case("sparse 0.1", {"f": "f:\0\0x\0\0y\0\0\0"}, sparse_0_1(b"2,1,5,1", b"2"))
case("sparse 1.0", {"f": "f:\0\0x\0\0y\0\0\0"}, sparse_1_0(b"2\n2\n1\n5\n1\n", b"xy", b"9"))
case(
    "sparse of old whose regions lie over one another",
    {"f": "f:\0\0y\0\0\0\0\0\0"},
    old_sparse(b"f", [(o(2), o(1)), (o(2), o(1))], b"xy", o(9)),
)
case(
    "sparse of old that goes back",
    {"f": "f:\0\0y\0\0x\0\0\0"},
    old_sparse(b"f", [(o(5), o(1)), (o(2), o(1))], b"xy", o(9)),
)
case("sparse of old beyond its size", {"f": "f:" + "\0" * 20 + "x"}, old_sparse(b"f", [(o(20), o(1))], b"x", o(9)))
case("sparse of old below zero", "damaged", old_sparse(b"f", [(base256(-5, 12), o(1))], b"x", o(9)))
case(
    "sparse of old at the end of all numbers",
    "damaged",
    old_sparse(b"f", [(base256((1 << 63) - 1, 12), o(1))], b"x", base256((1 << 63) - 1, 12)),
)
case(
    "sparse of old with more bytes than there are",
    {"f": "f:x" + "\0" * 8},
    old_sparse(b"f", [(o(0), o(9))], b"x", o(9)),
)
case(
    "sparse of old with a table that is missing",
    {"f": "f:" + "\0" * 9},
    old_sparse(b"f", [(o(0), o(1))], b"x", o(9), extended=True),
)
case("sparse 0.1 of no numbers", "damaged|truncated", sparse_0_1(b"a,b", b"1"))
case("sparse 0.1 of half a pair", "damaged|truncated", sparse_0_1(b"2,1,5", b"2"))
case("sparse 0.1 of more pairs than it says", {"f": "f:\0\0x\0\0y\0\0\0"}, sparse_0_1(b"2,1,5,1", b"1"))
case("sparse 0.1 below zero", "damaged|truncated", sparse_0_1(b"-2,1", b"1"))
case("sparse 0.1 of a huge number", "damaged|truncated", sparse_0_1(b"9" * 30 + b",1", b"1"))
case("sparse 1.0 without a map", "damaged|truncated", sparse_1_0(b"", b"", b"9"))
case("sparse 1.0 of no numbers", "damaged|truncated", sparse_1_0(b"x\n", b"xy", b"9"))
case("sparse 1.0 of more pairs than there are", "damaged|truncated", sparse_1_0(b"9\n2\n1\n", b"xy", b"9"))
case("sparse 1.0 of 10^12 pairs", "damaged|truncated", sparse_1_0(b"1000000000000\n2\n1\n", b"xy", b"9"))
case("sparse 1.0 with a line without an end", "damaged|truncated", sparse_1_0(b"1" * 5000, b"xy", b"9"))
case("sparse 1.0 that goes back", {"f": "f:\0\0y\0\0x\0\0\0"}, sparse_1_0(b"2\n5\n1\n2\n1\n", b"xy", b"9"))
case("sparse 1.0 of a size below zero", {"f": "f:x"}, sparse_1_0(b"1\n0\n1\n", b"x", b"-9"))
case("sparse of nothing but a hole", {"f": "f:" + "\0" * 9}, sparse_1_0(b"1\n9\n0\n", b"", b"9"))

# -- attributes


def attribute(name: bytes, value: bytes = b"y", what: bytes = b"SCHILY.xattr.") -> tuple[bytes, bytes]:
    return what + name, value


for _name in (
    "opaque",
    "redirect",
    "metacopy",
    "whiteout",
    "whiteouts",
    "origin",
    "impure",
    "protattr",
    "upper",
    "overlay.opaque",
):
    for _kind in ("user", "trusted"):
        _one = attribute(f"{_kind}.overlay.{_name}".encode(), b"/etc" if _name == "redirect" else b"y")
        case(f"{_kind}.overlay.{_name}", {"d": "d", "d/f": "f:x"}, pax(_one), folder(), pax(_one), file(b"d/f"))
for _name in (
    "user.overlay",
    "security.selinux",
    "security.ima",
    "security.evm",
    "system.posix_acl_access",
    "trusted.x",
    "nonsense",
    "user.",
):
    _one = attribute(_name.encode())
    case(f"attribute {_name}", {"d": "d", "d/f": "f:x"}, pax(_one), folder(), pax(_one), file(b"d/f"))
case("attributes of a link", {"a": "l:/etc/passwd"}, pax(attribute(b"user.x")), symlink(b"a", b"/etc/passwd"))
case("attributes of a fifo", {"a": "p"}, pax(attribute(b"user.x")), fifo(b"a"))
case("attributes of a hard link", {"a": "f:x#2", "b": "f:x#2"}, file(b"a"), pax(attribute(b"user.x")), link(b"b", b"a"))
case("an attribute of 100,000 bytes", {"f": "f:x"}, pax(attribute(b"user.x", b"v" * 100_000)), file())
case("an attribute with a name of 300 bytes", {"f": "f:x"}, pax(attribute(b"user." + b"n" * 300)), file())
case("an attribute with a NUL in its name", "damaged", pax(attribute(b"user.a\0b")), file())
case("a thousand attributes", {"f": "f:x"}, pax(*(attribute(b"user.%d" % n) for n in range(1000))), file())
case("attributes of libarchive's own", {"f": "f:x"},
     pax(attribute(b"user.x", b"####", b"LIBARCHIVE.xattr."), attribute(b"user.%zz", b"eA", b"LIBARCHIVE.xattr.")), file())  # fmt: skip
case("capabilities that are none", {"f": "f:x"}, pax(attribute(b"security.capability", b"x" * 20)), file())
case("capabilities of a folder", {"d": "d"}, pax(attribute(b"security.capability", bytes(20))), folder())
case("an ACL", {"f": "f:x", "d": "d"}, pax((b"SCHILY.acl.access", b"user::rwx,user:0:rwx,group::r-x,mask::rwx,other::---")), file(),
     pax((b"SCHILY.acl.default", b"user::rwx,group::r-x,other::---")), folder())  # fmt: skip
case("an ACL that is none", {"f": "f:x"}, pax((b"SCHILY.acl.access", b"\xff,,,:::user:" + b"9" * 100)), file())

# -- whiteouts: in a plain archive they are files, in a layer what they are meant for

case("whiteouts of a plain archive", {"a": "d", "a/.wh.x": "f:", "a/.wh..wh..opq": "f:", ".wh..": "f:"},
     file(b"a/.wh.x", b""), file(b"a/.wh..wh..opq", b""), file(b".wh..", b""))  # fmt: skip
case("a whiteout in a layer", {"x": "w"}, file(b".wh.x", b""), layer=True)
case("a whiteout of what the layer has", {"x": "f:x"}, file(b"x"), file(b".wh.x", b""), layer=True)
for _name, _what in ((".wh.", "nothing"), (".wh..", "the folder itself"), (".wh...", "the folder above")):
    case(f"a whiteout of {_what}", f"whiteout 'a/{_name}' is of nothing", file(b"a/" + _name.encode(), b""), layer=True)
case("a whiteout above", "leads out of the rootfs", file(b"../.wh.x", b""), layer=True)
case("an absolute whiteout", "has an absolute name", file(b"/.wh.x", b""), layer=True)
for _what, _make in MAKERS.items():
    case(f"a {_what} that is a whiteout", {"x": "w"}, _make(b".wh.x"), layer=True)
    case(f"a {_what} in a whiteout", "lies in a whiteout", _make(b".wh.x/y"), layer=True)
case(
    "a whiteout through a link",
    "goes through a symbolic link",
    symlink(b"a", b"/"),
    file(b"a/.wh.etc", b""),
    layer=True,
)
case("an opaque folder through a link", "goes through", symlink(b"a", b".."), file(b"a/.wh..wh..opq", b""), layer=True)
case("a whiteout in a file", "goes through a file", file(b"a"), file(b"a/.wh.b", b""), layer=True)
case("a whiteout in what becomes a link", {"a": "l:/"}, file(b"a/.wh.etc", b""), symlink(b"a", b"/"), layer=True)
case("a whiteout in what becomes a file", {"a": "f:x"}, file(b"a/.wh.etc", b""), file(b"a"), layer=True)
case("a hard link to a whiteout", "which is not in this layer", file(b".wh.x", b""), link(b"y", b".wh.x"), layer=True)
case(
    "a hard link to what a whiteout makes",
    "which is not in this layer",
    file(b".wh.x", b""),
    link(b"y", b"x"),
    layer=True,
)
case("a device 0:0 in a layer", {"f": "f:x"}, device(b"x", b"3", 0, 0), file(), layer=True)
case("a whiteout with bytes", {"x": "w", "f": "f:x"}, file(b".wh.x", b"bytes"), file(), layer=True)
case("a whiteout twice", {"x": "w"}, file(b".wh.x", b""), file(b".wh.x", b""), layer=True)
case(
    "aufs's own",
    {"f": "f:x"},
    file(b".wh..wh.aufs"),
    folder(b".wh..wh.plnk"),
    file(b".wh..wh.plnk/1"),
    file(),
    layer=True,
)
case("a layer of nothing", {}, layer=True)
case("an archive of nothing", "holds no files")

# -- blocks

case("garbage in front", "damaged|not an archive", b"garbage!" * 64, file())
case("garbage between two entries", "damaged", file(b"a"), b"garbage!" * 64, file(b"b"))
case("a block of zeros between two entries", {"a": "f:x", "b": "f:x"}, file(b"a"), bytes(BLOCK), file(b"b"))
case("two blocks of zeros between two entries", {"a": "f:x", "b": "f:x"}, file(b"a"), END, file(b"b"))
case("garbage behind the end", "damaged", file(b"a"), END, b"garbage!" * 64)
case("a header with a wrong sum", "damaged|not an archive", header(b"a", chksum=b"000000\0 ", check=False), file(b"b"))
case("a header with a sum of signed bytes", {"\udcff": "f:"}, checked(header(b"\xff")))
