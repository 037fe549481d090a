"""Images where they lie: OCI layouts and `docker save` tars, chosen by tag, digest and platform, and what is wrong with some."""

from __future__ import annotations

import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image_builder import (
    HERE,
    OCI_INDEX,
    Image,
    Index,
    attestation,
    docker_files,
    docker_tar,
    image,
    index,
    layer,
    layer_of,
    oci_files,
    oci_folder,
    oci_tar,
    sha256,
    whiteout,
    write_folder,
    write_tar,
)

from guntainer import errors
from guntainer.image import layout

BASE = layer(("bin", "dir", {}), ("bin/x", "file", {"data": b"x" * 3000}))
UPPER = layer(whiteout("bin/x"), ("etc/y", "file", {"data": b"y"}), compression="zstd")
PLAIN = layer(("z", "file", {}), compression="")
ONE = image(BASE, UPPER, PLAIN, config={"Cmd": ["/one"]})
TWO = image(BASE, config={"Cmd": ["/two"]})
OTHER = "arm64" if HERE != "arm64" else "amd64"


def bytes_of(one: layout.Layer) -> bytes:
    """What an unpacker would read."""
    with open(one.path, "rb") as file:
        file.seek(one.offset)
        return file.read(one.size_bytes)


def check(found: layout.Image, made: Image) -> None:
    """It is this image, and its layers are where it says."""
    assert [sha256(bytes_of(one)) for one in found.layers] == [one.digest for one in found.layers]
    assert [one.diff_id for one in found.layers] == [one.diff_id for one in made.layers]
    assert found.id == sha256(made.config)
    assert found.config.cmd == tuple(json.loads(made.config)["config"]["Cmd"])


def oci(folder: Path, named: Any) -> Path:
    return oci_folder(folder / "layout", named)


def in_a_tar(folder: Path, named: Any) -> Path:
    return oci_tar(folder / "layout.tar", named)


def in_a_folder_of_a_tar(folder: Path, named: Any) -> Path:
    return oci_tar(folder / "layout.tar", named, top="web-1.0/")


def in_a_folder_of_a_folder(folder: Path, named: Any) -> Path:
    oci_folder(folder / "outer" / "web-1.0", named)
    return folder / "outer"


LAYOUTS = pytest.mark.parametrize("make", [oci, in_a_tar, in_a_folder_of_a_tar, in_a_folder_of_a_folder])
Make = Callable[[Path, Any], Path]


@LAYOUTS
def test_an_oci_layout(tmp_path: Path, make: Make) -> None:
    path = make(tmp_path, {"web:1": ONE})
    assert layout.is_image(str(path)) == "oci"
    found = layout.open_image(str(path))
    check(found, ONE)
    assert found.digest == ONE.digest
    assert [one.digest for one in found.layers] == [one.digest for one in ONE.layers]


@LAYOUTS
def test_one_of_several(tmp_path: Path, make: Make) -> None:
    path = str(make(tmp_path, {"web:1": ONE, "docker.io/library/web:2": TWO}))
    check(layout.open_image(path, "web:1"), ONE)
    check(layout.open_image(path, "web:2"), TWO)
    check(layout.open_image(path, "1"), ONE)
    check(layout.open_image(path, f"@sha256:{TWO.digest}"), TWO)
    check(layout.open_image(path, f"sha256:{TWO.digest}"), TWO)
    with pytest.raises(errors.RootfsError, match=r"x: 2 images are in it: web:1, docker.io/library/web:2; choose one"):
        layout.open_image(path, name="x")
    with pytest.raises(errors.RootfsError, match=r"x: no image 'web:3' in it; there are web:1, docker"):
        layout.open_image(path, "web:3", name="x")
    with pytest.raises(errors.RootfsError, match="there is no image sha256:aaa"):
        layout.open_image(path, "@sha256:" + "a" * 64)
    with pytest.raises(errors.RootfsError, match="expected sha256:"):
        layout.open_image(path, "@sha256:../x")


def test_latest_goes_without_saying(tmp_path: Path) -> None:
    path = str(oci(tmp_path, {"web:latest": ONE, "web:2": TWO}))
    check(layout.open_image(path, "web"), ONE)
    check(layout.open_image(path, "latest"), ONE)


def test_one_image_under_several_names(tmp_path: Path) -> None:
    path = str(oci(tmp_path, {"web:1": ONE, "web:latest": ONE}))
    check(layout.open_image(path), ONE)


def test_several_images_without_names(tmp_path: Path) -> None:
    path = str(oci(tmp_path, [ONE, TWO]))
    with pytest.raises(
        errors.RootfsError, match=f"2 images without names: .*@sha256:{ONE.digest}, @sha256:{TWO.digest}"
    ):
        layout.open_image(path)
    check(layout.open_image(path, f"@sha256:{ONE.digest}"), ONE)
    with pytest.raises(errors.RootfsError, match="no image 'web' in it; its images have no names"):
        layout.open_image(path, "web")


@LAYOUTS
def test_several_platforms(tmp_path: Path, make: Make) -> None:
    foreign = image(BASE, config={"Cmd": ["/foreign"]}, architecture=OTHER)
    path = str(make(tmp_path, {"web": index(attestation(ONE), foreign, ONE)}))
    check(layout.open_image(path), ONE)
    check(layout.open_image(path, "web", f"linux/{OTHER}"), foreign)
    check(layout.open_image(path, f"@sha256:{foreign.digest}", OTHER), foreign)
    with pytest.raises(errors.RootfsError, match=f"this image is for {OTHER} and {HERE}, not for linux/s390x"):
        layout.open_image(path, platform="s390x")
    assert [str(one) for one in layout.contents(path)[0].platforms] == [f"linux/{OTHER}", f"linux/{HERE}"]


def test_several_platforms_in_the_layouts_own_index(tmp_path: Path) -> None:
    foreign = image(BASE, config={"Cmd": ["/foreign"]}, architecture=OTHER)
    path = str(oci(tmp_path, [foreign, ONE]))
    check(layout.open_image(path), ONE)
    check(layout.open_image(path, platform=OTHER), foreign)


def test_an_image_for_another_machine_alone(tmp_path: Path) -> None:
    for with_platform in (True, False):
        foreign = image(BASE, config={"Cmd": ["/f"]}, architecture=OTHER, with_platform=with_platform)
        path = str(oci(tmp_path / str(with_platform), {"web": foreign}))
        with pytest.raises(errors.RootfsError, match=f"x: this image is for {OTHER}; this machine is {HERE}$"):
            layout.open_image(path, name="x")
        check(layout.open_image(path, platform=OTHER), foreign)
        check(layout.open_image(path, foreign=True), foreign)


def test_indexes_in_indexes(tmp_path: Path) -> None:
    inner: Image | Index = ONE
    for _ in range(3):
        inner = Index(images=(), data=json.dumps({"manifests": [inner.descriptor]}).encode(), media_type=OCI_INDEX)
        write_folder(tmp_path / "layout", {f"blobs/sha256/{inner.digest}": inner.data})
    oci(tmp_path, [inner])
    write_folder(tmp_path / "layout", {f"blobs/sha256/{k}": v for k, v in ONE.blobs().items()})
    check(layout.open_image(str(tmp_path / "layout")), ONE)
    check(layout.open_image(str(tmp_path / "layout"), f"@sha256:{ONE.digest}"), ONE)
    deeper = Index(images=(), data=json.dumps({"manifests": [inner.descriptor]}).encode(), media_type=OCI_INDEX)
    write_folder(tmp_path / "layout", {f"blobs/sha256/{deeper.digest}": deeper.data})
    oci(tmp_path, [deeper])
    with pytest.raises(errors.RootfsError, match="more than 4 indexes"):
        layout.open_image(str(tmp_path / "layout"))


def test_a_layer_that_comes_twice(tmp_path: Path) -> None:
    found = layout.open_image(str(oci(tmp_path, [image(BASE, UPPER, BASE, config={"Cmd": ["x"]})])))
    assert [one.digest for one in found.layers] == [UPPER.digest, BASE.digest]


def test_an_image_without_layers(tmp_path: Path) -> None:
    assert layout.open_image(str(oci(tmp_path, [image(config={"Cmd": ["x"]}, empty_layers=2)]))).layers == ()


# -- docker save


@pytest.mark.parametrize("style", ["old", "flat", "new"])
@pytest.mark.parametrize("top", ["", "saved/"])
def test_a_docker_save_tar(tmp_path: Path, style: str, top: str) -> None:
    path = str(docker_tar(tmp_path / "saved.tar", {"web:1": ONE, "web:2": TWO}, style, top))
    assert layout.is_image(path) == ("oci" if style == "new" else "docker")
    check(layout.open_image(path, "web:1"), ONE)
    check(layout.open_image(path, "docker.io/library/web:2"), TWO)
    check(layout.open_image(path, "2"), TWO)
    with pytest.raises(errors.RootfsError, match="2 images are in it: web:1, web:2"):
        layout.open_image(path)
    with pytest.raises(errors.RootfsError, match="no image 'web:3' in it; there are web:1, web:2"):
        layout.open_image(path, "web:3")
    assert [one.names for one in layout.contents(path)] == [("web:1",), ("web:2",)]


@pytest.mark.parametrize("style", ["old", "flat", "new"])
def test_a_docker_save_tar_that_was_unpacked(tmp_path: Path, style: str) -> None:
    files, links = docker_files({"web:1": ONE, "web:2": TWO}, style)
    write_folder(tmp_path / "saved", files)
    for name, target in links.items():
        (tmp_path / "saved" / name).symlink_to(target)
    assert links if style == "old" else not links
    check(layout.open_image(str(tmp_path / "saved"), "web:2"), TWO)


def test_a_docker_save_tar_by_the_images_id(tmp_path: Path) -> None:
    path = str(docker_tar(tmp_path / "saved.tar", [ONE, TWO]))
    found = layout.open_image(path, f"@sha256:{sha256(TWO.config)}")
    check(found, TWO)
    assert found.digest == found.id
    with pytest.raises(errors.RootfsError, match="2 images are in it: @sha256:"):
        layout.open_image(path)
    with pytest.raises(errors.RootfsError, match="there is no image sha256:aaa"):
        layout.open_image(path, "@sha256:" + "a" * 64)


def test_a_layer_that_was_there_before_is_a_link(tmp_path: Path) -> None:
    files, links = docker_files({"web:1": ONE, "web:2": TWO})
    assert len(links) == 1
    path = tmp_path / "saved.tar"
    with tarfile.open(write_tar(path, files), "a") as archive:
        for name, target in links.items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.LNKTYPE, os.path.normpath(f"{name}/../{target}")
            archive.addfile(info)
    check(layout.open_image(str(path), "web:2"), TWO)


def test_compressed_layers_of_others_than_docker(tmp_path: Path) -> None:
    """As crane and kaniko have them: by the digest of the blob, or by no digest at all."""
    for name in (f"{BASE.digest}.tar.gz", f"sha256:{BASE.digest}.tar.gz", "layers/first.tgz", "a/layer.tar"):
        config = f"sha256:{sha256(TWO.config)}"
        manifest = [{"Config": config, "RepoTags": ["web:2"], "Layers": [name]}]
        files = {"manifest.json": json.dumps(manifest).encode(), config: TWO.config, name: BASE.data}
        found = layout.open_image(str(write_tar(tmp_path / "saved.tar", files)))
        check(found, TWO)
        assert found.layers[0].digest == BASE.digest


def test_names_in_repositories_alone(tmp_path: Path) -> None:
    files, links = docker_files({"web:1": ONE, "web:2": TWO})
    manifest = [one | {"RepoTags": None} for one in json.loads(files["manifest.json"])]
    files["manifest.json"] = json.dumps(manifest).encode()
    check(layout.open_image(str(write_tar(tmp_path / "saved.tar", files, links)), "web:2"), TWO)


def test_saved_by_a_docker_of_old(tmp_path: Path) -> None:
    files, links = docker_files({"web:1": ONE})
    del files["manifest.json"]
    path = str(write_tar(tmp_path / "saved.tar", files, links))
    assert layout.is_image(path) == "docker"
    with pytest.raises(errors.RootfsError, match=r"saved by a docker before 1.10"):
        layout.open_image(path)


def saved(folder: Path, **changes: Any) -> str:
    """A `docker save` folder whose manifest.json says something else."""
    files, _ = docker_files({"web:1": TWO})
    manifest = [one | changes for one in json.loads(files["manifest.json"])]
    files["manifest.json"] = json.dumps(manifest).encode()
    return str(write_folder(folder / "saved", files))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"Layers": []}, "manifest.json has 0 layers, the config 1"),
        ({"Layers": ["gone.tar"]}, "gone.tar: it is missing"),
        ({"Layers": ["../../etc/passwd"]}, "leads out of the image"),
        ({"Layers": ["/etc/passwd"]}, "leads out of the image"),
        ({"Layers": [3]}, "Layers: expected a list of texts"),
        ({"Layers": ["a\0"]}, "NUL"),
        ({"Config": "../../etc/passwd"}, "leads out of the image"),
        ({"Config": "gone.json"}, "gone.json: it is missing"),
        ({"Config": None}, "Config is missing"),
        ({"Config": "manifest.json"}, "expected a table, got a list"),
        ({"RepoTags": {"a": 1}}, "RepoTags: expected a list"),
    ],
)
def test_a_manifest_json_that_is_wrong(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(errors.RootfsError, match=says) as refused:
        layout.open_image(saved(tmp_path, **changes))
    assert str(refused.value).isprintable()


def test_the_same_paths_in_a_tar(tmp_path: Path) -> None:
    for changes, says in (
        ({"Layers": ["../../etc/passwd"]}, "it is missing"),
        ({"Layers": ["/etc/passwd"]}, "it is missing"),
    ):
        files, _ = docker_files({"web:1": TWO})
        manifest = [one | changes for one in json.loads(files["manifest.json"])]
        files["manifest.json"] = json.dumps(manifest).encode()
        with pytest.raises(errors.RootfsError, match=says):
            layout.open_image(str(write_tar(tmp_path / "saved.tar", files)))


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("/etc/passwd", "leads out"),
        ("../../../etc/passwd", "leads out"),
        ("layer.tar", "a link to a link"),
        ("gone", "missing"),
    ],
)
def test_links_in_a_tar(tmp_path: Path, target: str, says: str) -> None:
    manifest = [{"Config": "c.json", "RepoTags": ["web:1"], "Layers": ["a/layer.tar"]}]
    files = {"manifest.json": json.dumps(manifest).encode(), "c.json": TWO.config}
    path = write_tar(tmp_path / "saved.tar", files, {"a/layer.tar": target})
    with pytest.raises(errors.RootfsError, match=says):
        layout.open_image(str(path))


def test_a_config_whose_name_is_another_digest(tmp_path: Path) -> None:
    files, _ = docker_files({"web:1": TWO})
    name = next(one for one in files if one.endswith(".json") and one != "manifest.json")
    files[name] = files[name].replace(b"linux", b"linuX")
    with pytest.raises(errors.RootfsError, match="its sha256 is not its name; it is damaged"):
        layout.open_image(str(write_folder(tmp_path / "saved", files)))


# -- layouts that are not whole, or lead elsewhere


def blob(digest: str) -> str:
    return f"blobs/sha256/{digest}"


def config_digest(one: Image) -> str:
    return sha256(one.config)


@LAYOUTS
@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
def test_a_blob_that_is_missing(tmp_path: Path, make: Make, which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = {"manifest": ONE.digest, "config": config_digest(ONE), "layer": UPPER.digest}[which]
    whole = oci_files({"web": ONE})
    monkeypatch.setattr("image_builder.oci_files", lambda _: {k: v for k, v in whole.items() if k != blob(digest)})
    with pytest.raises(errors.RootfsError, match=f"x: blobs/sha256/{digest}: it is missing; the image is not whole"):
        layout.open_image(str(make(tmp_path, {"web": ONE})), name="x")


@pytest.mark.parametrize("which", ["manifest", "config"])
def test_a_blob_with_other_bytes(tmp_path: Path, which: str) -> None:
    path = oci(tmp_path, {"web": ONE})
    digest = {"manifest": ONE.digest, "config": config_digest(ONE)}[which]
    file = path / blob(digest)
    file.write_bytes(file.read_bytes().replace(b"layer", b"lAyer"))
    with pytest.raises(errors.RootfsError, match=f"its sha256 is [0-9a-f]+, but {digest} was named"):
        layout.open_image(str(path))


def test_a_layer_of_another_size(tmp_path: Path) -> None:
    path = oci(tmp_path, {"web": TWO})
    (path / blob(BASE.digest)).write_bytes(BASE.data + b"x")
    with pytest.raises(
        errors.RootfsError, match=f"{len(BASE.data) + 1} bytes long, but its manifest names {len(BASE.data)}"
    ):
        layout.open_image(str(path))


def fifo(file: Path, _outside: Path) -> None:
    os.mkfifo(file)


def absolute(file: Path, outside: Path) -> None:
    file.symlink_to(outside)


def relative(file: Path, outside: Path) -> None:
    file.symlink_to(os.path.relpath(outside, file.parent))


def magic(file: Path, _outside: Path) -> None:
    file.symlink_to("/proc/self/fd/0")


def folder(file: Path, _outside: Path) -> None:
    file.mkdir()


@pytest.mark.parametrize("instead", [fifo, absolute, relative, magic, folder])
@pytest.mark.parametrize("which", ["index.json", "manifest", "config", "layer"])
def test_something_else_in_the_place_of_a_file(
    tmp_path: Path, which: str, instead: Callable[[Path, Path], None]
) -> None:
    """Neither followed out nor waited for; the bytes outside are the right ones."""
    path = oci(tmp_path, {"web": TWO})
    names = {"manifest": blob(TWO.digest), "config": blob(config_digest(TWO)), "layer": blob(BASE.digest)}
    file = path / names.get(which, which)
    outside = tmp_path / "outside"
    file.rename(outside)
    instead(file, outside)
    with pytest.raises(errors.RootfsError, match=r"leads out of the image|not a regular file|Too many levels"):
        layout.open_image(str(path))


def test_a_link_to_another_file_of_the_layout(tmp_path: Path) -> None:
    path = oci(tmp_path, {"web": TWO})
    file = path / blob(BASE.digest)
    file.rename(path / "elsewhere")
    file.symlink_to("../../elsewhere")
    check(layout.open_image(str(path)), TWO)


def test_a_folder_of_blobs_that_leads_out(tmp_path: Path) -> None:
    path = oci(tmp_path, {"web": TWO})
    (path / "blobs").rename(tmp_path / "outside")
    (path / "blobs").symlink_to("../outside")
    with pytest.raises(errors.RootfsError, match="leads out of the image"):
        layout.open_image(str(path))


def test_a_top_folder_that_leads_out(tmp_path: Path) -> None:
    oci_folder(tmp_path / "outside", {"web": TWO})
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "inner").symlink_to("../outside")
    assert layout.is_image(str(tmp_path / "outer")) is None


def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = oci(tmp_path, {"web": TWO})
    (path / blob(TWO.digest)).chmod(0)
    with pytest.raises(errors.RootfsError, match="Permission denied"):
        layout.open_image(str(path))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no valid JSON"),
        (b"{}", "manifests is missing"),
        (b'{"manifests": []}', "there is no image in it"),
        (TWO.manifest, "named as .* says of itself"),
        (b" " * (5 << 20), "larger than 4 MiB"),
    ],
)
def test_an_index_that_is_none(tmp_path: Path, data: bytes, says: str) -> None:
    path = oci(tmp_path, {"web": TWO})
    (path / "index.json").write_bytes(data)
    with pytest.raises(errors.RootfsError, match=f"x: .*{says}"):
        layout.open_image(str(path), name="x")


def test_a_foreign_layer(tmp_path: Path) -> None:
    kind = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    foreign = layer(("f", "file", {}), media_type=kind, urls=("https://example.org/f",), left_out=True)
    found = layout.open_image(str(oci(tmp_path / "a", [image(BASE, foreign, config={"Cmd": ["x"]})])))
    assert (found.layers[1].path, found.layers[1].urls) == ("", ("https://example.org/f",))
    with pytest.raises(errors.RootfsError, match="no way to fetch it"):
        _ = found.layers[1].source
    nowhere = layer(("f", "file", {}), media_type=kind, left_out=True)
    with pytest.raises(errors.RootfsError, match="a foreign layer, whose bytes are not in the image, and no URL"):
        layout.open_image(str(oci(tmp_path / "b", [image(BASE, nowhere)])))
    here = layer(("f", "file", {}), media_type=kind, urls=("https://example.org/f",))
    check(
        layout.open_image(str(oci(tmp_path / "c", [image(BASE, here, config={"Cmd": ["x"]})]))),
        image(BASE, here, config={"Cmd": ["x"]}),
    )


def test_what_is_no_image(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "gone", Path("/dev/null")):
        with pytest.raises(errors.RootfsError, match="x: no container image"):
            layout.open_image(str(path), name="x")


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    good, bad = oci(tmp_path, {"web": ONE}), in_a_tar(tmp_path, {"web": image(layer_of(b"", ""), architecture=OTHER)})
    before = sorted(os.listdir("/proc/self/fd"))
    layout.open_image(str(good))
    layout.contents(str(good))
    with pytest.raises(errors.RootfsError):
        layout.open_image(str(bad))
    with open(bad, "r+b") as file:
        file.truncate(1000)
    with pytest.raises(errors.RootfsError):
        layout.open_image(str(bad))
    assert sorted(os.listdir("/proc/self/fd")) == before


# -- the real ones


def test_real_images(distributions: Path) -> None:
    paths = [*sorted(distributions.glob("oci-busybox-*")), *sorted(distributions.glob("docker-busybox*.tar"))]
    assert paths
    for path in paths:
        found = layout.open_image(str(path), foreign=True)
        assert found.config.cmd == ("sh",)
        for one in found.layers:
            assert sha256(bytes_of(one)) == one.digest
