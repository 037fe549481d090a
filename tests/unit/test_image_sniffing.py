"""What is an image, seen from the names in it; and the headers of tars, good ones and others."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_builder import docker_files, docker_tar, image, layer, oci_files, oci_tar, write_folder, write_tar

from guntainer import errors
from guntainer.image import layout, sniffing, tarfiles

ONE = image(layer(("bin", "dir", {}), ("bin/x", "file", {"data": b"x" * 700})), config={"Cmd": ["x"]})
OCI = oci_files({"web": ONE})
DOCKER, _ = docker_files({"web:1": ONE}, "flat")
ROOTFS = {"bin/sh": b"#!", "etc/passwd": b""}
DOCKERS = json.dumps([{"Config": "c", "Layers": []}]).encode()


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (OCI, "oci"),
        (DOCKER, "docker"),
        ({"oci-layout": b"{}"}, "oci"),
        ({"README": b"", **OCI}, "oci"),
        (ROOTFS, None),
        ({**ROOTFS, **OCI}, None),
        ({**OCI, **ROOTFS}, None),
        ({**DOCKER, "usr/bin/x": b""}, None),
        ({"manifest.json": DOCKERS}, "docker"),
        ({"manifest.json": b"[]"}, "docker"),
        ({"manifest.json": b'{"name": "a web page"}'}, None),
        ({"manifest.json": b'[{"name": "a web page"}]'}, None),
        ({"manifest.json": b"no JSON"}, None),
        ({"repositories": b"{}", "a" * 64 + "/layer.tar": b""}, "docker"),
        ({"repositories": b"{}"}, None),
        ({"index.json": b"{}", "x": b""}, None),
        ({"app/x": b""}, None),
    ],
)
def test_names(tmp_path: Path, files: dict[str, bytes], kind: str | None) -> None:
    found = [
        layout.is_image(str(write_folder(tmp_path / "folder", files))),
        layout.is_image(str(write_tar(tmp_path / "a.tar", files))),
        layout.is_image(str(write_tar(tmp_path / "b.tar", files, top="./"))),
        layout.is_image(str(write_tar(tmp_path / "c.tar", files, top="one/"))),
        layout.is_image(str(write_tar(tmp_path / "d.tar", files, top="./one/"))),
    ]
    if kind is None:
        write_folder(tmp_path / "outer" / "one", files)
        found.append(layout.is_image(str(tmp_path / "outer")))
    assert found == [kind] * len(found)


def test_two_folders_of_images_are_none(tmp_path: Path) -> None:
    files = {f"{top}/{name}": data for top in ("a", "b") for name, data in OCI.items()}
    assert layout.is_image(str(write_folder(tmp_path / "folder", files))) is None
    assert layout.is_image(str(write_tar(tmp_path / "a.tar", files))) is None


def test_a_compressed_one_is_seen_when_it_is_unpacked(tmp_path: Path) -> None:
    assert layout.is_image(str(docker_tar(tmp_path / "saved.tar.gz", {"web:1": ONE}))) is None


def test_what_is_neither_a_folder_nor_a_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty").touch()
    for name in ("fifo", "loop", "empty", "gone"):
        assert layout.is_image(str(tmp_path / name)) is None
    assert layout.is_image("/dev/zero") is None


def test_a_rootfs_is_left_after_few_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However large it is, and also where its first folders have unusual names."""
    path = write_tar(tmp_path / "a.tar", {**{f"app/{n}": b"" for n in range(30)}, "x": b"", "usr/y": b"", "z": b""})
    many = write_tar(tmp_path / "b.tar", {f"folder-{n}/x": b"" for n in range(3000)})
    read = 0
    real = os.pread

    def counted(fd: int, n: int, at: int) -> bytes:
        nonlocal read
        read += 1
        return real(fd, n, at)

    monkeypatch.setattr(os, "pread", counted)
    assert layout.is_image(str(path)) is None
    assert read <= 34
    read = 0
    assert layout.is_image(str(many)) is None
    assert read <= sniffing._MOST_OTHERS + 5


# -- tar headers


def members(path: Path) -> list[tarfiles.Member]:
    with open(path, "rb") as file:
        return list(tarfiles.members(file.fileno(), path.stat().st_size))


LONG = "/".join(["folder" * 10] * 5)


@pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_kind_of_header(tmp_path: Path, format_: int) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=format_) as archive:
        for name, kind, target in (
            ("a/file", tarfile.REGTYPE, ""),
            ("grüße" if format_ != tarfile.USTAR_FORMAT else "b", tarfile.REGTYPE, ""),
            (f"{LONG[:200]}/x" if format_ == tarfile.USTAR_FORMAT else f"{LONG}/x", tarfile.REGTYPE, ""),
            ("soft", tarfile.SYMTYPE, "a/file"),
            ("hard", tarfile.LNKTYPE, "a/file" if format_ == tarfile.USTAR_FORMAT else f"{LONG}/x"),
            ("folder", tarfile.DIRTYPE, ""),
            ("fifo", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            info.size = 1000 if kind == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(name.encode()[:1] * info.size))
    found = members(path)
    with tarfile.open(path) as archive:
        expected = archive.getmembers()
    assert [one.name.rstrip("/") for one in found] == [one.name for one in expected]
    assert [one.offset for one in found] == [one.offset_data for one in expected]
    assert [one.size for one in found] == [one.size for one in expected]
    assert [one.target for one in found] == [one.linkname for one in expected]
    assert [one.kind for one in found] == ["file", "file", "file", "symlink", "link", "folder", "other"]


def test_a_size_that_octal_has_no_room_for() -> None:
    assert tarfiles._number(b"\x80" + (1 << 40).to_bytes(11, "big")) == 1 << 40
    assert tarfiles._number(b"00000001750\0") == 1000
    assert tarfiles._number(b"            ") == 0
    assert tarfiles._number(b"99999999999\0") == -1
    assert tarfiles._number(b"\xff" * 12) == -1


def test_a_sparse_member_is_no_file_of_an_image(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("x")
        info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        archive.addfile(info)
    assert [one.kind for one in members(path)] == ["other"]


def test_a_tar_that_is_cut_anywhere(tmp_path: Path) -> None:
    whole = oci_tar(tmp_path / "whole.tar", {"web": ONE}).read_bytes()
    end = max(one.offset + one.size for one in members(tmp_path / "whole.tar"))
    cut = tmp_path / "cut.tar"
    for size in range(0, end, 512):
        cut.write_bytes(whole[:size])
        with pytest.raises(errors.RootfsError) as refused:
            layout.open_image(str(cut), name="x")
        assert str(refused.value).startswith("x: ")


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_tar_that_is_damaged_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    """It is refused in a sentence, or it is still the same image: what no header tells is compared by whoever unpacks it."""
    path = oci_tar(tmp_path / "a.tar", {"web": ONE})
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        header = data.draw(st.sampled_from(range(0, len(content), 512)))
        content[header + data.draw(st.integers(0, 511))] = data.draw(st.integers(0, 255))
        if data.draw(st.booleans()):  # with a checksum that fits
            block = bytes(content[header : header + 148]) + b" " * 8 + bytes(content[header + 156 : header + 512])
            content[header + 148 : header + 156] = b"%06o\0 " % sum(block)
    path.write_bytes(content)
    layout.is_image(str(path))
    try:
        found = layout.open_image(str(path), name="x")
    except errors.GuntainerError as error:
        assert str(error).isprintable()
        return
    assert found.digest == ONE.digest
    assert all(one.offset + one.size_bytes <= len(content) for one in found.layers)


def test_more_members_than_an_image_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = oci_tar(tmp_path / "a.tar", {"web": ONE})
    monkeypatch.setattr("guntainer.image.places._MOST_MEMBERS", 3)
    with pytest.raises(errors.RootfsError, match="more than 3 entries: no container image"):
        layout.open_image(str(path))
