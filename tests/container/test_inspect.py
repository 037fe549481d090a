"""`guntainer inspect`: what there is, in words and in JSON; nothing is left behind, and a bad input is one line."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import Run, Traces
from image_builder import HERE, docker_tar, image, index, layer, oci_folder, sha256, tar_of, write_tar

BASE = layer(("bin", "dir", {}), ("bin/x", "file", {"data": b"x" * 3000}))
ONE = image(
    BASE,
    layer(("y", "file", {}), compression="zstd"),
    config={
        "Entrypoint": ["/bin/x", "a b"],
        "Env": ["A=b"],
        "WorkingDir": "/srv",
        "User": "web",
        "StopSignal": "SIGQUIT",
        "ExposedPorts": {"80/tcp": {}},
        "Volumes": {"/data": {}},
        "Labels": {"what": "a\nlabel"},
    },
)
TWO = image(BASE)
OTHER = "arm64" if HERE != "arm64" else "amd64"


@pytest.fixture
def told(guntainer: Run) -> Any:
    def inspect(*words: object) -> dict[str, Any]:
        done = guntainer("inspect", "--json", *words)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return inspect


def test_an_image(told: Any, guntainer: Run, home: Path, traces: Traces) -> None:
    path = oci_folder(home / "work" / "layout", {"web:1": ONE})
    found = told(path)
    assert found["kind"] == "image" and found["form"] == "oci" and found["names"] == ["web:1"]
    assert found["digest"] == ONE.digest and found["id"] == sha256(ONE.config) and found["kept"] is False
    assert found["platform"] == f"linux/{HERE}"
    assert [one["digest"] for one in found["layers"]] == [one.digest for one in ONE.layers]
    assert [one["size_bytes"] for one in found["layers"]] == [len(one.data) for one in ONE.layers]
    assert found["config"]["entrypoint"] == ["/bin/x", "a b"] and found["config"]["env"] == {"A": "b"}
    text = guntainer("inspect", path).stdout
    for line in (
        "image         web:1",
        f"digest        sha256:{ONE.digest}",
        "entrypoint    '/bin/x' 'a b'",
        "env           A=b",
        "workdir       /srv",
        "user          web",
        "stop signal   SIGQUIT",
        "ports         80/tcp",
        "volumes       /data",
        "label         what=a\\nlabel",
    ):
        assert line in text.splitlines()
    assert "tar+zstd  not kept" in text
    assert not (home / "store" / "VERSION").exists()
    traces.check()


def test_what_is_kept_of_it(told: Any, guntainer: Run, home: Path) -> None:
    path = oci_folder(home / "work" / "layout", {"web:1": ONE, "web:2": TWO})
    assert guntainer("pull", f"oci:{path}:web:2").returncode == 0
    found = told(f"oci:{path}:web:1")
    assert found["kept"] is False
    assert [one["kept"] for one in found["layers"]] == [True, False]
    assert told(f"oci:{path}:web:2")["kept"] is True


def test_several_images(told: Any, guntainer: Run, home: Path) -> None:
    path = docker_tar(home / "work" / "saved.tar", {"web:1": ONE, "web:2": TWO})
    found = told(path)
    assert found["kind"] == "images" and found["form"] == "docker"
    assert [(one["names"], one["digest"]) for one in found["images"]] == [
        (["web:1"], sha256(ONE.config)),
        (["web:2"], sha256(TWO.config)),
    ]
    assert told(f"docker-archive:{path}:web:2")["id"] == sha256(TWO.config)
    text = guntainer("inspect", path).stdout
    assert "2 images" in text and f"sha256:{sha256(ONE.config)}  web:1  linux/{HERE}" in text


def test_several_platforms(told: Any, guntainer: Run, home: Path) -> None:
    foreign = image(BASE, architecture=OTHER)
    path = oci_folder(home / "work" / "layout", {"web": index(ONE, foreign)})
    assert told(path)["platforms"] == [f"linux/{HERE}", f"linux/{OTHER}"]
    assert told("--platform", OTHER, path)["digest"] == foreign.digest
    assert f"platform      linux/{HERE} (and there is linux/{OTHER})" in guntainer("inspect", path).stdout
    done = guntainer("inspect", "--platform", "s390x", path)
    assert done.returncode == 125 and f"this image is for {HERE} and {OTHER}, not for linux/s390x" in done.stderr


def test_an_image_for_another_machine_is_told_of(told: Any, home: Path) -> None:
    path = oci_folder(home / "work" / "layout", [image(BASE, architecture=OTHER)])
    assert told(path)["platform"] == f"linux/{OTHER}"


def test_an_archive(told: Any, guntainer: Run, small_archive: Path, traces: Traces) -> None:
    found = told(small_archive)
    assert found["kind"] == "archive" and found["compression"] == "gzip" and "tar" in found["format"]
    assert found["digest"] == sha256(small_archive.read_bytes()) and found["size_bytes"] == small_archive.stat().st_size
    assert found["architecture"] == {"amd64": "x86_64", "386": "i386"}.get(HERE, HERE)
    assert found["kept"] is False and found["image"] is False
    text = guntainer("inspect", small_archive).stdout
    assert "compression   gzip\n" in text and "kept          no\n" in text
    traces.check()
    assert guntainer("pull", small_archive).returncode == 0
    assert told(small_archive)["kept"] is True


@pytest.mark.parametrize("top", ["", "saved/"])
def test_a_compressed_image(told: Any, guntainer: Run, home: Path, top: str) -> None:
    path = docker_tar(home / "work" / "saved.tar.gz", {"web:1": ONE}, top=top)
    assert told(path)["image"] is True
    assert "image         yes: guntainer pull reads what is in it" in guntainer("inspect", path).stdout
    done = guntainer("inspect", f"docker-archive:{path}:web:1")
    assert done.returncode == 125 and "it is compressed with gzip: guntainer pull reads it" in done.stderr


def test_a_folder_and_the_host(told: Any, home: Path) -> None:
    (home / "work" / "rootfs" / "etc").mkdir(parents=True)
    assert told(home / "work" / "rootfs") == {
        "name": str(home / "work" / "rootfs"),
        "kind": "folder",
        "architecture": "",
    }
    assert told("host")["kind"] == "host"


def test_what_can_not_be_inspected(guntainer: Run, home: Path, traces: Traces) -> None:
    work = home / "work"
    whole = gzip.compress(tar_of([("a", "file", {"data": os.urandom(5000)})]))
    (work / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    (work / "text").write_text("no archive\n")
    (work / "empty").touch()
    os.mkfifo(work / "fifo")
    write_tar(work / "rootfs.tar", {"bin/sh": b""})
    for words, code, says in (
        (("gone",), 125, "No such file or directory"),
        (("cut.tar.gz",), 125, "cut.tar.gz: truncated"),
        (("text",), 125, "not an archive"),
        (("empty",), 125, "empty"),
        (("fifo",), 125, "neither an archive nor a folder"),
        (("oci:rootfs.tar",), 125, "no container image"),
        (("docker-archive:text:x",), 125, "no container image"),
        (("--platform", "plan9/x", "text"), 2, "Linux"),
        (("https://example.org/x.tar",), 2, "guntainer pull it first"),
        ((), 2, "SOURCE"),
    ):
        done = guntainer("inspect", *words)
        assert done.returncode == code, (words, done.stderr)
        assert says in done.stderr and len(done.stderr.splitlines()) == 1, (words, done.stderr)
        assert done.stdout == ""
    traces.check()


def test_an_image_that_is_damaged(guntainer: Run, home: Path) -> None:
    path = oci_folder(home / "work" / "layout", {"web:1": ONE})
    (path / "blobs" / "sha256" / ONE.layers[0].digest).unlink()
    done = guntainer("inspect", path)
    assert done.returncode == 125 and "it is missing; the image is not whole" in done.stderr
    assert len(done.stderr.splitlines()) == 1
