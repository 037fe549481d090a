"""Container images: their layers are stacked, their words are kept to, whatever form they come in."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path

import image_builder as make
import pytest
from conftest import Run, Traces

pytestmark = [pytest.mark.usefixtures("user_namespaces"), pytest.mark.root]


@pytest.fixture
def base(small_archive: Path) -> make.Layer:
    """A layer with this machine's sh and whatever else the small rootfs has."""
    return make.layer_of(gzip.decompress(small_archive.read_bytes()))


FILES: list[make.Entry] = [
    ("srv", "dir", {}),
    ("srv/gone", "file", {"data": b"gone"}),
    ("srv/kept", "file", {"data": b"kept"}),
    ("srv/old", "dir", {}),
    ("srv/old/a", "file", {"data": b"a"}),
    ("srv/link", "sym", {"to": "/srv/kept"}),
    ("srv/turned", "file", {"data": b"file"}),
]
CHANGES: list[make.Entry] = [
    ("srv", "dir", {}),
    make.whiteout("srv/gone"),
    ("srv/old", "dir", {}),
    make.opaque("srv/old"),
    ("srv/old/b", "file", {"data": b"b"}),
    ("srv/turned", "dir", {}),
    ("srv/turned/in", "file", {"data": b"in"}),
]
SEEN = ["/srv:", "kept", "link", "old", "turned", "/srv/old:", "b", "/srv/turned:", "in"]
LOOK = ("sh", "-c", "ls /srv /srv/old /srv/turned; cat /srv/link; ls /srv/gone 2>/dev/null")


def check_seen(stdout: str) -> None:
    assert [word for word in stdout.split() if word != "kept"] == [word for word in SEEN if word != "kept"]
    assert stdout.endswith("kept")


@pytest.mark.parametrize("scratch", ["disk", "memory"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", ""])
def test_layers_are_stacked(
    guntainer: Run, home: Path, base: make.Layer, compression: str, scratch: str, traces: Traces
) -> None:
    one = make.image(base, make.layer(*FILES, compression=compression), make.layer(*CHANGES, compression=compression))
    make.oci_folder(home / "layout", {"x:1": one})
    check_seen(guntainer("run", "--scratch", scratch, "oci:" + str(home / "layout"), *LOOK).stdout)
    traces.check()


def forms(home: Path, one: make.Image) -> dict[str, str]:
    """The same image in every form: what is given to `run`."""
    found = {
        "folder": str(make.oci_folder(home / "layout", {"x:1": one})),
        "tar": str(make.oci_tar(home / "layout.tar", {"x:1": one})),
        "tar in a folder": str(make.oci_tar(home / "top.tar", {"x:1": one}, top="x/")),
        "docker, old": str(make.docker_tar(home / "old.tar", {"x:1": one})),
        "docker, new": str(make.docker_tar(home / "new.tar", {"x:1": one}, style="new")),
        "no name tells": str(shutil.copy(home / "old.tar", home / "old.zip")),
    }
    for name in ("layout.tar", "old.tar", "new.tar"):
        (home / f"{name}.gz").write_bytes(gzip.compress((home / name).read_bytes(), 1))
        found[f"{name}.gz"] = str(home / f"{name}.gz")
    found["oci:"] = f"oci:{home}/layout:x:1"
    found["oci-archive:"] = f"oci-archive:{home}/layout.tar"
    found["docker-archive:"] = f"docker-archive:{home}/old.tar:x:1"
    return found


def test_every_form_is_recognised(guntainer: Run, home: Path, base: make.Layer, traces: Traces) -> None:
    one = make.image(base, make.layer(*FILES), make.layer(*CHANGES), config={"Env": ["A=1"]})
    for form, given in forms(home, one).items():
        for more in ([], ["--no-cache"]):
            done = guntainer("run", *more, given, *LOOK)
            assert done.returncode in (1, 2), (form, done.stderr)
            check_seen(done.stdout)
    traces.check()


def test_the_same_in_a_batch(guntainer: Run, home: Path, base: make.Layer, traces: Traces) -> None:
    one = make.image(base, make.layer(*FILES), make.layer(*CHANGES), config={"Cmd": ["sh", "-c", "exit 3"]})
    given = forms(home, one)
    lines = [
        f"[jobs.j{n}]\nrootfs = {str(each)!r}\nrun = 'test -e /srv/old/b; ! test -e /srv/gone'\n"
        for n, each in enumerate(given.values())
    ]
    lines += [
        f"[jobs.n{n}]\nrootfs = {str(each)!r}\ncache = false\nrun = 'cat /srv/link'\n"
        for n, each in enumerate(given.values())
    ]
    (home / "work" / "jobs.toml").write_text("".join(lines))
    done = guntainer("batch", "jobs.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    traces.check()


def test_layers_are_shared(guntainer: Run, home: Path, base: make.Layer) -> None:
    make.oci_folder(home / "a", {"a:1": make.image(base, make.layer(*FILES))})
    make.oci_folder(home / "b", {"b:1": make.image(base, make.layer(*CHANGES))})
    for name in "ab":
        assert guntainer("run", str(home / name), "true").returncode == 0
    assert len(os.listdir(home / "store" / "layers")) == 3
    assert len(os.listdir(home / "store" / "images")) == 2


def test_the_second_time_nothing_is_read(guntainer: Run, home: Path, base: make.Layer) -> None:
    make.oci_folder(home / "a", {"a:1": make.image(base)})
    assert guntainer("run", str(home / "a"), "true").returncode == 0
    shutil.rmtree(home / "a" / "blobs")
    assert guntainer("run", str(home / "a"), "echo", "again").stdout == "again\n"


def test_many_layers(guntainer: Run, home: Path, base: make.Layer) -> None:
    """Fifty-one would be over what one page of mount options holds, were they named by their whole paths."""
    layers = [make.layer((f"n{n}", "file", {"data": b"%d" % n}), make.whiteout(f"n{n - 7}")) for n in range(120)]
    make.oci_folder(home / "a", {"a:1": make.image(base, *layers)})
    done = guntainer("run", str(home / "a"), "sh", "-c", "cat /n113 /n119; ls -d /n*")
    assert done.stdout.startswith("113119/n113\n/n114\n"), done.stderr
    assert done.stdout.count("/n") == 7


def test_what_the_image_says_is_done(guntainer: Run, home: Path, base: make.Layer) -> None:
    config = {
        "Entrypoint": ["sh", "-c", 'echo "$0 $@ $A $PWD $(id -u)"'],
        "Cmd": ["cmd"],
        "Env": ["A=image"],
        "WorkingDir": "/made/for/it",
        "User": "12",
    }
    make.oci_folder(home / "a", {"a:1": make.image(base, config=config)})

    def said(*words: str) -> str:
        done = guntainer("run", *words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    given = str(home / "a")
    assert said(given) == "cmd  image /made/for/it 12"
    assert said(given, "x", "y") == "x y image /made/for/it 12"
    assert said("-e", "A=mine", "-w", "/", "-u", "0", given, "x") == "x  mine / 0"
    assert said("--entrypoint", "echo", given, "only") == "only"


def test_an_image_without_a_command_gets_a_shell(guntainer: Run, home: Path, base: make.Layer) -> None:
    make.oci_folder(home / "a", {"a:1": make.image(base)})
    done = guntainer("run", str(home / "a"), input="echo from a shell\n")
    assert done.stdout == "from a shell\n", done.stderr


def test_another_machines_image_is_named(guntainer: Run, home: Path, base: make.Layer) -> None:
    make.oci_folder(home / "a", {"a:1": make.image(base, architecture="riscv64")})
    done = guntainer("run", str(home / "a"), "true")
    assert done.returncode == 125 and "riscv64" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not os.listdir(home / "store" / "layers")


def test_the_right_one_of_several_platforms(guntainer: Run, home: Path, base: make.Layer) -> None:
    other = make.image(make.layer(("other", "file", {})), architecture="riscv64")
    make.oci_folder(home / "a", {"a:1": make.index(other, make.image(base, make.layer(("here", "file", {}))))})
    assert guntainer("run", str(home / "a"), "ls", "/here").returncode == 0
    done = guntainer("run", "--platform", "s390x", str(home / "a"), "true")
    assert done.returncode == 125 and "riscv64" in done.stderr


def test_a_layer_with_another_digest_is_refused(guntainer: Run, home: Path, base: make.Layer, traces: Traces) -> None:
    layer = make.layer(*FILES)
    make.oci_folder(home / "a", {"a:1": make.image(base, layer)})
    blob = next(path for path in (home / "a" / "blobs" / "sha256").iterdir() if path.read_bytes() == layer.data)
    blob.write_bytes(
        make.layer(("evil", "file", {"data": b"x" * 100})).data.ljust(len(layer.data), b"\0")[: len(layer.data)]
    )
    done = guntainer("run", str(home / "a"), "true")
    assert done.returncode == 125 and len(done.stderr.splitlines()) == 1, done.stderr
    assert not os.listdir(home / "store" / "images")
    assert not any(layer.digest.removeprefix("sha256:") in name for name in os.listdir(home / "store" / "layers"))
    traces.check()


def test_a_saved_image_takes_nobodys_place(guntainer: Run, home: Path, base: make.Layer, traces: Traces) -> None:
    """The manifest of another image as its config, or another image's layer under the config of a good one."""
    good = make.image(base, config={"Cmd": ["echo", "good"]})
    files = {
        f"{good.digest}.json": good.manifest,
        "manifest.json": json.dumps([{"Config": f"{good.digest}.json", "RepoTags": None, "Layers": []}]).encode(),
    }
    done = guntainer("run", str(make.write_tar(home / "a.tar", files)), "true")
    assert done.returncode == 125 and "no image's config" in done.stderr
    other = make.layer(("evil", "file", {}))
    assert guntainer("pull", str(make.oci_folder(home / "other", [make.image(other)]))).returncode == 0
    entry = {"Config": "c.json", "RepoTags": None, "Layers": [f"{other.digest}.tar.gz"]}
    files = {"c.json": good.config, f"{other.digest}.tar.gz": other.data, "manifest.json": json.dumps([entry]).encode()}
    done = guntainer("run", str(make.write_tar(home / "b.tar", files)), "true")
    assert done.returncode == 125 and "but its image's config names" in done.stderr
    for path in (make.oci_folder(home / "layout", [good]), make.docker_tar(home / "good.tar", [good])):
        assert guntainer("run", str(path)).stdout == "good\n"
    traces.check()


def test_a_folder_without_an_image(guntainer: Run, home: Path) -> None:
    """One that has a manifest.json of something else is a rootfs like any other."""
    (home / "plain").mkdir()
    (home / "plain" / "manifest.json").write_text('{"name": "an application"}')
    assert guntainer("run", str(home / "plain"), "true").returncode == 127
    done = guntainer("run", f"oci:{home}/plain", "true")
    assert done.returncode == 125 and "a folder in which there is no container image" in done.stderr


def test_an_archive_that_is_kept_is_no_image_either(guntainer: Run, home: Path, small_archive: Path) -> None:
    assert guntainer("run", str(small_archive), "true").returncode == 0
    for _ in range(2):
        done = guntainer("run", f"oci:{small_archive}", "true")
        assert done.returncode == 125 and "not a container image" in done.stderr


def test_one_compressed_image_asked_for_in_several_ways_at_once(
    guntainer: Run, home: Path, base: make.Layer, traces: Traces
) -> None:
    other = make.image(make.layer(("etc/passwd", "file", {})), architecture="s390x", config={"Cmd": ["nothing"]})
    here = make.image(base, config={"Env": ["SAID=here"]})
    make.oci_tar(home / "i.tar.gz", {"1": make.index(here, other)})
    ways = [f"{home}/i.tar.gz", f"oci:{home}/i.tar.gz", f"oci-archive:{home}/i.tar.gz:1"]
    jobs = "".join(
        f'[jobs.j{n}]\nrootfs = "{way}"\ncommand = ["sh", "-c", "test $SAID = here"]\n' for n, way in enumerate(ways)
    )
    jobs += f'[jobs.other]\nrootfs = "{home}/i.tar.gz"\nplatform = "linux/s390x"\ncommand = ["true"]\n'
    (home / "work" / "jobs.toml").write_text(jobs)
    done = guntainer("batch", "-j", "9", "jobs.toml")
    assert "3 ok, 1" in done.stdout and "s390x" in done.stdout, done.stdout + done.stderr
    traces.check()


def test_a_foreign_layer_is_not_fetched_against_ones_will(guntainer: Run, home: Path, base: make.Layer) -> None:
    kind = make.OCI_LAYER.replace("layer.", "layer.nondistributable.") + "+gzip"
    for url, says in (("http://127.0.0.1:1/x", "--pull never"), ("file:///etc/passwd", "its URL: ")):
        foreign = make.layer(("f", "file", {}), urls=(url,), left_out=True, media_type=kind)
        shutil.rmtree(home / "layout", ignore_errors=True)
        make.oci_folder(home / "layout", {"1": make.image(base, foreign)})
        given = ["--pull", "never"] if url.startswith("http") else []
        done = guntainer("run", *given, str(home / "layout"), "true")
        assert done.returncode == 125 and says in done.stderr and len(done.stderr.splitlines()) == 1


def test_limits_hold_for_the_sum_of_the_layers(guntainer: Run, home: Path, base: make.Layer) -> None:
    layers = [make.layer((f"big{n}", "file", {"data": bytes(600_000)})) for n in range(3)]
    make.oci_folder(home / "a", {"a:1": make.image(*layers)})
    done = guntainer("run", "--max-unpacked", "1m", str(home / "a"), "true")
    assert done.returncode == 125 and "more than" in done.stderr
    assert not os.listdir(home / "store" / "images")


def test_an_archive_is_no_image(guntainer: Run, home: Path, small_archive: Path) -> None:
    done = guntainer("run", f"oci:{small_archive}", "true")
    assert done.returncode == 125 and "not a container image" in done.stderr


def test_the_digest_that_is_demanded(guntainer: Run, home: Path, base: make.Layer) -> None:
    """Of a file it is the file's own; of a folder the manifest's. What was found once is not asked twice, and not believed blindly."""
    import hashlib

    one = make.image(base)
    make.oci_folder(home / "folder", {"1": one})
    make.oci_tar(home / "a.tar", {"1": one})
    (home / "a.tar.gz").write_bytes(gzip.compress((home / "a.tar").read_bytes(), 1))
    right = {name: hashlib.sha256((home / name).read_bytes()).hexdigest() for name in ("a.tar", "a.tar.gz")}
    right["folder"] = one.digest.removeprefix("sha256:")
    for name, digest in right.items():
        assert guntainer("run", home / name, "true").returncode == 0
        for _ in range(2):
            done = guntainer("run", "--sha256", "0" * 64, home / name, "true")
            assert done.returncode == 125 and digest in done.stderr, (name, done.stderr)
            assert guntainer("run", "--sha256", digest, home / name, "true").returncode == 0


def test_a_folder_by_the_way_looks_as_it_did(guntainer: Run, home: Path, base: make.Layer) -> None:
    """A layer with `tmp/x` and without `tmp` leaves /tmp as it is."""
    lower = make.layer(
        ("tmp", "dir", {"mode": 0o1777}), ("deep", "dir", {"mode": 0o711}), ("deep/er", "dir", {"mode": 0o750})
    )
    make.oci_folder(
        home / "a", {"1": make.image(base, lower, make.layer(("tmp/x", "file", {}), ("deep/er/x", "file", {})))}
    )
    done = guntainer("run", home / "a", "stat", "-c", "%a", "/tmp", "/deep", "/deep/er", "/tmp/x", "/deep/er/x")
    assert done.stdout.split()[:3] == ["1777", "711", "750"], done.stderr
