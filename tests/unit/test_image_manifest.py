"""An image's documents: what is read from them, and what of them is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_builder import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    attestation,
    image,
    index,
    layer,
    layer_of,
    sha256,
)

from guntainer import errors
from guntainer.image import configs, document, manifest, platforms
from guntainer.image.manifest import Index, Layer, Manifest
from guntainer.image.platforms import Platform

BASE = layer(("bin", "dir", {}))
DIGEST = "sha256:" + "a" * 64


def read(data: bytes, media_type: str = "") -> Index | Manifest:
    return manifest.parse(data, "x", media_type)


# -- manifests


@pytest.mark.parametrize("docker", [False, True])
def test_a_manifest(docker: bool) -> None:
    made = image(BASE, layer(("a", "file", {}), compression=""), docker=docker)
    found = read(made.manifest)
    assert isinstance(found, Manifest)
    assert found.digest == made.digest
    assert [one.digest for one in found.layers] == [one.digest for one in made.layers]
    assert found.config.digest == sha256(made.config)


def test_a_manifest_that_leaves_its_type_to_whoever_names_it() -> None:
    made = json.loads(image(BASE).manifest)
    del made["mediaType"]
    assert isinstance(read(json.dumps(made).encode()), Manifest)
    for said in (f"{OCI_MANIFEST}; charset=utf-8", "application/json", "text/plain; charset=utf-8"):
        assert isinstance(read(json.dumps(made).encode(), said), Manifest)


@pytest.mark.parametrize("docker", [False, True])
def test_an_index(docker: bool) -> None:
    made = index(image(BASE, architecture="amd64"), image(BASE, architecture="arm64", variant="v8"), docker=docker)
    found = read(made.data)
    assert isinstance(found, Index)
    assert [str(one.platform) for one in found.entries] == ["linux/amd64", "linux/arm64/v8"]


@pytest.mark.parametrize(
    "media_type",
    [
        OCI_LAYER,
        OCI_LAYER + "+gzip",
        OCI_LAYER + "+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    ],
)
def test_kinds_of_layers(media_type: str) -> None:
    assert isinstance(read(image(layer(media_type=media_type)).manifest), Manifest)


def changed(**changes: Any) -> bytes:
    return image(BASE, change_manifest=changes).manifest


def a_layer(**changes: Any) -> bytes:
    one: dict[str, Any] = {"mediaType": OCI_LAYER, "digest": DIGEST, "size": 1}
    one |= changes
    return changed(layers=[{key: value for key, value in one.items() if value is not ...}])


DEEP = b"[" * 100_000 + b"]" * 100_000
BAD_DIGESTS = [
    "",
    "sha256:",
    "a" * 64,
    "sha256:" + "a" * 63,
    "sha256:" + "a" * 65,
    "sha256:" + "A" * 64,
    "sha256:../../../../etc/passwd",
    "sha256:" + "../" * 21 + "a",
    "sha256:/" + "a" * 63,
    "sha256:" + "a" * 63 + "\n",
    "sha256:" + "a" * 63 + "\0",
    "../sha256:" + "a" * 64,
    "SHA256:" + "a" * 64,
    "md5:" + "a" * 32,
    "sha256:" + "a" * 64 + "/..",
    "sha256:" + "ａ" * 64,
]


@pytest.mark.parametrize("digest", BAD_DIGESTS)
def test_digests_of_another_form(digest: str) -> None:
    with pytest.raises(errors.RootfsError, match="digest") as refused:
        read(a_layer(digest=digest))
    assert "\n" not in str(refused.value) and "\0" not in str(refused.value)


def test_a_digest_of_an_algorithm_that_is_known_but_not_here() -> None:
    with pytest.raises(errors.RootfsError, match="sha512 is not supported, only sha256"):
        read(a_layer(digest="sha512:" + "a" * 128))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no valid JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"{", "no valid JSON"),
        (b"[]", "expected a table, got a list"),
        (b"null", "expected a table, got null"),
        (DEEP, "nested too deeply"),
        (b'{"a": 1, "a": 2}', "a key stands there twice"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no valid JSON"),
        (b" " * (document.MOST_BYTES + 1), "larger than 4 MiB"),
        (b"{}", "neither an index nor a manifest"),
        (b'{"schemaVersion": 1, "fsLayers": []}', "schema 1"),
        (b'{"mediaType": "application/vnd.docker.distribution.manifest.v1+prettyjws"}', "schema 1"),
        (b'{"mediaType": "text/html"}', "neither an index nor a manifest of images, but 'text/html'"),
        (b'{"mediaType": 3}', "mediaType: expected a text, got a number"),
        (b'{"manifests": [], "layers": []}', "both an index and a manifest"),
        (b'{"mediaType": "' + OCI_INDEX.encode() + b'"}', "manifests is missing"),
        (b'{"manifests": {}}', "manifests: expected a list, got a table"),
        (b'{"manifests": [1]}', r"manifests\[0\]: expected a table, got a number"),
        (b'{"manifests": [' + b"{}," * 4096 + b"{}]}", "4097 are more than 4096"),
        (b'{"layers": []}', "config is missing"),
        (b'{"layers": [], "config": []}', "config: expected a table, got a list"),
        (
            changed(config={"mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": DIGEST, "size": 2}),
            "helm",
        ),
        (changed(layers=[{}] * 4097), "4097 are more than 4096"),
        (changed(layers={"a": 1}), "layers: expected a list"),
        (a_layer(size=-1), "size: expected a number from 0"),
        (a_layer(size=1 << 63), "size: expected a number from 0"),
        (a_layer(size=True), "size: expected a whole number, got true or false"),
        (a_layer(size=1.5), "size: expected a whole number"),
        (a_layer(size="1"), "size: expected a whole number, got a text"),
        (a_layer(size=...), "size is missing"),
        (a_layer(digest=...), "digest is missing"),
        (a_layer(digest=7), "digest: expected a text"),
        (a_layer(mediaType=...), "media type '' is not that of a layer"),
        (a_layer(mediaType="application/x-7z"), "'application/x-7z' is not that of a layer"),
        (a_layer(mediaType=OCI_LAYER + "+xz\n"), "is not that of a layer"),
        (a_layer(mediaType=OCI_LAYER + "+gzip+encrypted"), "encrypted"),
        (a_layer(urls=["u"] * 17), "17 are more than 16"),
        (a_layer(urls=[3]), "urls: expected a list of texts"),
        (a_layer(urls=["http://x/\0"]), "NUL"),
        (a_layer(annotations=[1]), "annotations: expected a table"),
        (a_layer(annotations={"org.opencontainers.image.ref.name": 1}), "expected a text"),
        (a_layer(annotations={"org.opencontainers.image.ref.name": "\ud800"}), "surrogate"),
        (a_layer(platform="linux"), "platform: expected a table, got a text"),
        (a_layer(platform={"os": 1}), "os: expected a text"),
    ],
)
def test_documents_that_are_wrong(data: bytes, says: str) -> None:
    with pytest.raises(errors.RootfsError, match=says) as refused:
        read(data)
    assert str(refused.value).startswith("x") and len(str(refused.value)) < 500
    assert str(refused.value).isprintable()


def test_a_document_that_is_named_as_something_else() -> None:
    with pytest.raises(errors.RootfsError, match=r"named as .*index.* says of itself that it is .*manifest"):
        read(image(BASE).manifest, OCI_INDEX)


@settings(max_examples=300)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(DIGEST),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["manifests", "layers", "config", "digest", "size", "mediaType", "platform", "rootfs", "diff_ids"]
                ),
                inner,
                max_size=5,
            )
        ),
        max_leaves=20,
    ),
    st.sampled_from(["", OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST]),
)
def test_whatever_a_document_says(value: Any, media_type: str) -> None:
    data = json.dumps(value).encode()
    for reader in (lambda: manifest.parse(data, "x", media_type), lambda: configs.config_of(data, "x")):
        try:
            reader()
        except errors.RootfsError as error:
            assert str(error).isprintable()


# -- configs


def test_a_config() -> None:
    made = image(
        BASE,
        config={
            "Entrypoint": ["/init"],
            "Cmd": None,
            "Env": ["A=b=c", "EMPTY=", "GONE", "A=last"],
            "WorkingDir": "srv",
            "User": "web:",
            "StopSignal": "SIGQUIT",
            "ExposedPorts": {"80/tcp": {}, "443": {}},
            "Volumes": {"/data": {}},
            "Labels": {"b": "2", "a": "1"},
        },
        architecture="arm",
        variant="v7",
        empty_layers=3,
    )
    found, ids = configs.config_of(made.config, "x")
    assert ids == (BASE.diff_id,)
    assert found.as_dict() == {
        "entrypoint": ("/init",),
        "cmd": (),
        "env": (("A", "last"), ("EMPTY", "")),
        "workdir": "/srv",
        "user": "web",
        "stop_signal": "SIGQUIT",
        "ports": ("443", "80/tcp"),
        "volumes": ("/data",),
        "labels": (("a", "1"), ("b", "2")),
        "architecture": "arm",
        "os": "linux",
        "variant": "v7",
    }


def test_a_config_that_says_nothing() -> None:
    found, ids = configs.config_of(b'{"config": null, "rootfs": {"type": "layers", "diff_ids": null}}', "x")
    assert (found.entrypoint, found.cmd, found.env, found.workdir, ids) == ((), (), (), "", ())


def test_a_command_as_old_images_have_it() -> None:
    assert configs.config_of(b'{"config": {"Cmd": "/bin/sh"}, "rootfs": {}}', "x")[0].cmd == ("/bin/sh",)


@pytest.mark.parametrize(
    ("inner", "says"),
    [
        ({"Entrypoint": {"a": 1}}, "Entrypoint: expected a list"),
        ({"Cmd": [1]}, "Cmd: expected a list of texts, got a number"),
        ({"Cmd": ["a\0b"]}, "NUL"),
        ({"Cmd": ["\ud800"]}, "surrogate"),
        ({"Cmd": ["x" * 200_000]}, "bytes long"),
        ({"Env": ["=x"]}, "a variable without a name"),
        ({"Env": "A"}, None),
        ({"WorkingDir": ["/"]}, "WorkingDir: expected a text, got a list"),
        ({"WorkingDir": "/a\0"}, "NUL"),
        ({"User": "a b"}, 'User: expected "UID'),
        ({"User": "-1"}, "User: "),
        ({"User": 0}, "User: expected a text, got a number"),
        ({"ExposedPorts": ["80"]}, "ExposedPorts: expected a table"),
        ({"Labels": {"a": 1}}, "Labels: a: expected a text"),
        ({"Labels": {str(n): "x" * 100_000 for n in range(6)}}, "longer than 512 KiB"),
        ([], None),
        ([1], "config: expected a table, got a list"),
    ],
)
def test_configs_that_are_wrong(inner: Any, says: str | None) -> None:
    data = json.dumps({"config": inner, "rootfs": {}}).encode()
    if says is None:
        configs.config_of(data, "x")
        return
    with pytest.raises(errors.RootfsError, match=says) as refused:
        configs.config_of(data, "x")
    assert str(refused.value).isprintable()


def test_a_manifest_is_no_config() -> None:
    with pytest.raises(errors.RootfsError, match="rootfs is missing"):
        configs.config_of(image(BASE).manifest, "x")


def test_a_config_that_is_not_the_one_that_was_named() -> None:
    made = image(BASE)
    found = read(made.manifest)
    assert isinstance(found, Manifest)
    assert manifest.image_of(found, made.config, "x").layers[0].diff_id == BASE.diff_id
    with pytest.raises(errors.RootfsError, match="bytes long, but"):
        manifest.image_of(found, made.config + b" ", "x")
    with pytest.raises(errors.RootfsError, match="its sha256 is"):
        manifest.image_of(found, made.config.replace(b"linux", b"plan9"), "x")


@pytest.mark.parametrize("ids", [[], [DIGEST, DIGEST]])
def test_a_config_of_other_layers(ids: list[str]) -> None:
    made = image(BASE, change_config={"rootfs": {"type": "layers", "diff_ids": ids}})
    found = read(made.manifest)
    assert isinstance(found, Manifest)
    with pytest.raises(errors.RootfsError, match=f"its manifest has 1 layers, its config {len(ids)}"):
        manifest.image_of(found, made.config, "x")


@pytest.mark.parametrize("digest", BAD_DIGESTS)
def test_diff_ids_of_another_form(digest: str) -> None:
    data = json.dumps({"rootfs": {"diff_ids": [digest]}}).encode()
    with pytest.raises(errors.RootfsError, match="diff_ids"):
        configs.config_of(data, "x")


# -- layers


def numbered(number: int, diff_id: str = "") -> Layer:
    return Layer(digest=f"{number:064x}", size_bytes=1, diff_id=diff_id)


def test_a_layer_that_comes_again_counts_where_it_is_uppermost() -> None:
    one, two, three = map(numbered, range(3))
    assert manifest.stacked((one, two, one, three, two), "x") == (one, three, two)


def test_a_layer_that_is_two() -> None:
    with pytest.raises(errors.RootfsError, match="named twice, with different contents"):
        manifest.stacked((numbered(1, "a"), numbered(1, "b")), "x")


def test_as_many_layers_as_overlayfs_takes() -> None:
    most = tuple(map(numbered, range(manifest.MOST_LAYERS)))
    assert manifest.stacked(most + most, "x") == most
    with pytest.raises(errors.RootfsError, match="500 layers are more than the 499 that overlayfs can stack"):
        manifest.stacked((*most, numbered(1000)), "x")


def test_a_layer_that_is_nowhere() -> None:
    assert Layer(digest="a" * 64, size_bytes=3, path="/x", offset=512).source == ("file", "/x", 512, 3)
    assert Layer(digest="a" * 64, size_bytes=3, request=("u",)).source == ("remote", ("u",))
    with pytest.raises(errors.RootfsError, match="not here"):
        _ = Layer(digest="a" * 64, size_bytes=3).source


# -- platforms


@pytest.fixture
def amd64(monkeypatch: pytest.MonkeyPatch) -> None:
    machine(monkeypatch, "x86_64")


def machine(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    import os

    status = os.uname()
    monkeypatch.setattr(os, "uname", lambda: os.uname_result((*status[:4], name)))


def chosen(*names: str, wanted: str = "") -> int:
    """The place of the platform that is chosen."""
    entries = []
    for name in names:
        os_, architecture, *variant = name.split("/")
        entries.append(image(BASE, os=os_, architecture=architecture, variant="".join(variant)))
    found = read(index(*entries).data)
    assert isinstance(found, Index)
    entry = manifest.choose(found.entries, platforms.parse(wanted) if wanted else None, "x")
    return found.entries.index(entry)


@pytest.mark.parametrize(
    ("own", "names", "place"),
    [
        ("x86_64", ("linux/arm64", "linux/amd64"), 1),
        ("x86_64", ("linux/amd64/v3", "linux/amd64"), 1),
        ("x86_64", ("windows/amd64", "linux/amd64"), 1),
        ("x86_64", ("linux/386", "linux/arm64"), 0),
        ("x86_64", ("linux/386", "linux/amd64"), 1),
        ("aarch64", ("linux/amd64", "linux/arm64/v8"), 1),
        ("aarch64", ("linux/amd64", "linux/arm64"), 1),
        ("armv7l", ("linux/arm/v5", "linux/arm/v6", "linux/arm64"), 1),
        ("armv7l", ("linux/arm", "linux/arm/v6"), 0),
        ("armv6l", ("linux/arm/v7", "linux/arm/v5"), 1),
        ("ppc64le", ("linux/amd64", "linux/ppc64le"), 1),
        ("s390x", ("linux/amd64", "linux/s390x"), 1),
        ("riscv64", ("linux/amd64", "linux/riscv64"), 1),
        ("i686", ("linux/amd64", "linux/386"), 1),
        ("something", ("linux/amd64", "linux/something"), 1),
    ],
)
def test_the_platform_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, own: str, names: tuple[str, ...], place: int
) -> None:
    machine(monkeypatch, own)
    assert chosen(*names) == place


@pytest.mark.parametrize(
    ("wanted", "place"),
    [
        ("linux/arm64", 1),
        ("arm64", 1),
        ("aarch64", 1),
        ("linux/arm64/v8", 1),
        ("linux/arm", 2),
        ("linux/arm/v6", 2),
        ("linux/amd64/v3", 3),
        ("x86_64", 0),
    ],
)
def test_a_platform_that_is_asked_for(amd64: None, wanted: str, place: int) -> None:
    assert chosen("linux/amd64", "linux/arm64/v8", "linux/arm/v6", "linux/amd64/v3", wanted=wanted) == place


def test_no_platform_that_fits(amd64: None) -> None:
    with pytest.raises(errors.RootfsError) as refused:
        chosen("linux/arm64/v8", "linux/arm/v7", "linux/arm/v6", "windows/amd64")
    assert str(refused.value) == (
        "x: this image is for arm64, arm, arm/v6 and windows/amd64; this machine is amd64; --platform chooses another"
    )
    with pytest.raises(errors.RootfsError, match="this image is for amd64, not for linux/riscv64"):
        chosen("linux/amd64", wanted="riscv64")
    with pytest.raises(errors.RootfsError, match=r"a0, .* a10 and 9 more; this machine is amd64"):
        chosen(*(f"linux/a{number}" for number in range(20)))


def test_attestations_are_no_images(amd64: None) -> None:
    one = image(BASE, architecture="arm64")
    found = read(index(attestation(one), one).data)
    assert isinstance(found, Index)
    with pytest.raises(errors.RootfsError, match="this image is for arm64; this machine is amd64"):
        manifest.choose(found.entries, None, "x")
    with pytest.raises(errors.RootfsError, match="this image is for nothing that can be run"):
        manifest.choose(found.entries[:1], None, "x")


def test_an_entry_that_does_not_say(amd64: None) -> None:
    found = read(index(image(BASE, architecture="arm64"), image(BASE, with_platform=False)).data)
    assert isinstance(found, Index)
    assert manifest.choose(found.entries, None, "x") is found.entries[1]


@pytest.mark.parametrize("text", ["linux/", "/amd64", "a/b/c/d", "linux//v8", "li\nnux/x", ""])
def test_platforms_of_another_form(text: str) -> None:
    with pytest.raises(errors.UsageError, match="expected os/arch"):
        platforms.parse(text)


@pytest.mark.parametrize(
    ("config", "wanted", "foreign", "says"),
    [
        ({"architecture": "amd64", "os": "linux"}, "", False, ""),
        ({"architecture": "386", "os": "linux"}, "", False, ""),
        ({"architecture": "amd64", "os": "linux", "variant": "v3"}, "", False, ""),
        ({"architecture": "x86_64", "os": ""}, "", False, ""),
        ({}, "", False, ""),
        ({"architecture": "arm64", "os": "linux"}, "", False, "this image is for arm64; this machine is amd64$"),
        ({"architecture": "arm64", "os": "linux"}, "", True, ""),
        ({"architecture": "arm64", "os": "linux"}, "arm64", False, ""),
        ({"architecture": "arm64", "os": "linux"}, "amd64", True, "this image is for arm64, not for linux/amd64"),
        ({"architecture": "arm64\x1b[2J", "os": "linux"}, "", False, r"this image is for arm64\\x1b\[2j"),
        ({"architecture": "amd64", "os": "windows"}, "", True, "this image is for 'windows'"),
    ],
)
def test_an_image_for_one_platform(amd64: None, config: dict[str, str], wanted: str, foreign: bool, says: str) -> None:
    from guntainer.image.config import Config

    asked = platforms.parse(wanted) if wanted else None
    if not says:
        platforms.check("x", Config(**config), asked, foreign=foreign)
        return
    with pytest.raises(errors.RootfsError, match=says):
        platforms.check("x", Config(**config), asked, foreign=foreign)


def test_names_of_platforms() -> None:
    assert platforms.normal("Linux", "AARCH64") == Platform(os="linux", architecture="arm64")
    assert platforms.normal("linux", "armhf").variant == "v7"
    assert str(platforms.parse("linux/arm/v7")) == "linux/arm/v7"


def test_the_config_of_an_image_of_no_kind_that_is_known() -> None:
    made = image(layer_of(b"x", ""), change_manifest={"config": {"mediaType": OCI_CONFIG, "digest": DIGEST, "size": 1}})
    found = read(made.manifest)
    assert isinstance(found, Manifest)
    with pytest.raises(errors.RootfsError, match="but 1 were named"):
        manifest.image_of(found, made.config, "x")
