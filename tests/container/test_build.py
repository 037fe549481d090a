"""`guntainer build`: what a Gunfile makes, what is done again and what is not, and what a failure leaves: nothing."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import image_builder
import pytest
from conftest import Run, Traces
from test_confined import NO_OVERLAY, confined

pytestmark = pytest.mark.usefixtures("user_namespaces")

Write = Callable[[str], None]


@pytest.fixture
def gunfile(home: Path, small_archive: Path) -> Write:
    """Write the Gunfile of the working directory, on the small rootfs."""

    def write(steps: str) -> None:
        (home / "work" / "Gunfile").write_text(f'Using "{small_archive}"\n{steps}\n')

    return write


def entries(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return [member.name.removeprefix("./") for member in tar]


def steps_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """For each step whether it was "done" or "cached"."""
    lines = [line for line in done.stderr.splitlines() if line.startswith("guntainer: step ")]
    return ["cached" if line.endswith(" (cached)") else "done" for line in lines]


def layout_of(folder: Path, tag: str = "") -> tuple[dict[str, object], dict[str, object], list[Path]]:
    """(manifest, configuration, layers) of the image in a layout: every digest is checked."""
    import hashlib

    def blob(descriptor: dict[str, object]) -> Path:
        digest = str(descriptor["digest"]).removeprefix("sha256:")
        path = folder / "blobs" / "sha256" / digest
        data = path.read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (digest, descriptor["size"])
        return path

    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    found = json.loads((folder / "index.json").read_text())["manifests"]
    names = [one.get("annotations", {}).get("org.opencontainers.image.ref.name", "") for one in found]
    manifest = json.loads(blob(found[names.index(tag)]).read_text())
    return manifest, json.loads(blob(manifest["config"]).read_text()), [blob(one) for one in manifest["layers"]]


@pytest.mark.parametrize("ids", ["single", "range"])
def test_a_build(
    gunfile: Write, guntainer: Run, home: Path, ids: str, request: pytest.FixtureRequest, traces: Traces
) -> None:
    """Every instruction, an archive and an image of it, and what they run."""
    if ids == "range":
        request.getfixturevalue("a_range")
    source = home / "work" / "src"
    (source / "sub").mkdir(parents=True)
    (source / "run.sh").write_text('#!/bin/sh\necho "$A"; cat sub/f; cat /etc/made; pwd\n')
    (source / "run.sh").chmod(0o755)
    (source / "sub" / "f").write_text("copied\n")
    (source / "link").symlink_to("/etc/passwd")
    gunfile(
        'Env "A=b  c"\nWorkdir /srv/app\nCopy "src" "."\nCopy "src/sub/f" "/etc/made"\n'
        'Exec "test \\"$A\\" = \'b  c\'; pwd; id -u; echo one > /gone; mkdir -p /d/old; echo x > /d/old/x"\n'
        'Exec "rm /gone; rm -rf /d/old; mkdir /d/old; echo n > /d/old/n"\nCmd ["./run.sh"]'
    )
    done = guntainer("build", "--userns", ids, home / "out.tar.gz")
    assert (done.returncode, done.stdout) == (0, "/srv/app\n0\n"), done.stderr
    assert steps_of(done) == ["done"] * 7
    assert "warning: Env, Workdir and Cmd are not kept in an archive" in done.stderr
    found = set(entries(home / "out.tar.gz"))
    assert {"srv/app/run.sh", "srv/app/sub/f", "srv/app/link", "etc/made", "d/old/n"} <= found
    assert not {"gone", "d/old/x", "srv/app/src"} & found
    ran = guntainer("run", "--userns", ids, "-w", "/srv/app", "-e", "A=z", home / "out.tar.gz", "./run.sh")
    assert ran.stdout == "z\ncopied\ncopied\n/srv/app\n", ran.stderr
    done = guntainer("build", "--userns", ids, f"oci:{home}/image:1.0")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert steps_of(done) == ["done", "cached", "cached", "cached", "cached", "cached", "done"]
    _, config, layers = layout_of(home / "image", "1.0")
    assert config["config"] == {"Env": ["A=b  c"], "Cmd": ["./run.sh"], "WorkingDir": "/srv/app"}
    assert [entries(layer)[1:] for layer in layers[-2:]] == [
        ["d", "d/old", "d/old/x", "gone"],
        ["d", "d/old", "d/old/.wh..wh..opq", "d/old/n", ".wh.gone"],
    ]
    ran = guntainer("run", "--userns", ids, f"oci:{home}/image:1.0")
    assert ran.stdout == "b  c\ncopied\ncopied\n/srv/app\n", ran.stderr
    traces.check()


def test_an_image_is_what_others_read(gunfile: Write, guntainer: Run, home: Path) -> None:
    """Unpacked by another tool it is the tree that the archive has."""
    umoci = shutil.which("umoci")
    if umoci is None:
        pytest.skip("umoci is not installed (package umoci)")
    gunfile('Exec "mkdir -p /a/b; echo x > /a/b/c; echo y > /y"\nExec "rm -rf /a/b; mkdir /a/b; rm /y; ln /bin/sh /z"')
    assert guntainer("build", f"oci:{home}/image:t").returncode == 0
    assert guntainer("build", home / "out.tar").returncode == 0
    line = [umoci, "unpack", "--rootless", "--image", f"{home}/image:t", str(home / "bundle")]
    subprocess.run(line, check=True, capture_output=True)
    tree = home / "bundle" / "rootfs"
    unpacked = sorted(str(path.relative_to(tree)) for path in tree.rglob("*"))
    assert unpacked == sorted(name for name in entries(home / "out.tar") if name != ".")


def test_an_image_as_the_base(small_archive: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    """Its layers, its variables and its working directory are those of the steps; what it is run by stays, unless Cmd is given."""
    base = image_builder.layer_of(gzip.decompress(small_archive.read_bytes()))
    upper = image_builder.layer(
        ("etc/group", "file", {"data": b"mine:x:7:\n"}), image_builder.whiteout("etc/passwd"), ("srv/app", "dir", {})
    )
    said = {
        "Entrypoint": ["cat"],
        "Cmd": ["/etc/group"],
        "Env": ["A=b"],
        "WorkingDir": "/srv/app",
        "Labels": {"l": "m"},
    }
    image_builder.oci_folder(home / "base", {"x": image_builder.image(base, upper, config=said)})
    text = f'Using "oci:{home}/base:x"\nExec "pwd; echo $A; cat /etc/group; ls /etc; echo x > here"\n'
    done = guntainer("build", f"oci:{home}/image", "-", input=text)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "/srv/app\nb\nmine:x:7:\ngroup\nhostname\nhosts\nos-release\nresolv.conf\n"
    _, config, layers = layout_of(home / "image")
    assert config["config"] == said
    assert len(layers) == 2
    assert {"etc/group", "srv/app"} <= set(entries(layers[0])) and "etc/passwd" not in entries(layers[0])
    assert entries(layers[1])[1:] == ["srv", "srv/app", "srv/app/here"]
    assert guntainer("run", f"oci:{home}/image").stdout == "mine:x:7:\n"
    done = guntainer("build", f"oci:{home}/image", "-", input=f'{text}Cmd ["here"]\n')
    assert guntainer("run", f"oci:{home}/image").stdout == "x\n"
    done = guntainer("run", "--commit", home / "out.tar", f"oci:{home}/image")
    assert (done.returncode, "an archive does not keep how its image is run" in done.stderr) == (0, True)
    assert {"srv/app/here", "etc/group"} <= set(entries(home / "out.tar")) and "etc/passwd" not in entries(
        home / "out.tar"
    )
    traces.check()


def test_only_what_has_changed_is_done_again(gunfile: Write, guntainer: Run, home: Path, traces: Traces) -> None:
    out = home / "out.tar"
    (home / "work" / "f").write_text("one")
    gunfile('Exec "echo a >> /a"\nCopy "f" "/f"\nExec "cat /f"')
    assert steps_of(guntainer("build", out)) == ["done"] * 3
    os.utime(home / "work" / "f", (0, 0))
    assert steps_of(guntainer("build", out)) == ["cached"] * 3
    (home / "work" / "f").write_text("two")
    done = guntainer("build", out)
    assert (steps_of(done), done.stdout) == (["cached", "done", "done"], "two")
    (home / "work" / "f").chmod(0o755)
    assert steps_of(guntainer("build", out)) == ["cached", "done", "done"]
    gunfile('Exec "echo a >> /a"\nEnv X=1\nCopy "f" "/f"\nExec "cat /f"')
    assert steps_of(guntainer("build", out)) == ["cached", "done", "done", "done"]
    assert steps_of(guntainer("build", "-e", "B=1", out)) == ["done"] * 4
    assert steps_of(guntainer("build", "--userns", "single", out))[0] == "done"
    done = guntainer("build", "--no-cache", out)
    assert steps_of(done) == ["done"] * 4
    assert guntainer("run", out, "cat", "/a").stdout == "a\n"
    assert steps_of(guntainer("build", out)) == ["cached", "done", "cached", "cached"]
    traces.check()


def test_a_folder_as_the_base(small_archive: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    """It is looked at each time: its owner may change it."""
    tree = home / "tree"
    tree.mkdir()
    subprocess.run(["tar", "-xf", small_archive, "-C", tree], check=True)
    text = f'Using "{tree}"\nExec "echo x > /x; cat /etc/own"\n'
    (tree / "etc" / "own").write_text("one")
    for expected, said in (("done", "one"), ("cached", "")):
        done = guntainer("build", home / "out.tar", "-", input=text)
        assert (done.returncode, steps_of(done), done.stdout) == (0, [expected], said), done.stderr
    (tree / "etc" / "own").write_text("two")
    done = guntainer("build", home / "out.tar", "-", input=text)
    assert (steps_of(done), done.stdout) == (["done"], "two")
    assert not (tree / "x").exists()
    traces.check()


def test_a_step_that_fails(gunfile: Write, guntainer: Run, home: Path, traces: Traces) -> None:
    """Its output, its line and its code; what was there stays, and of the step nothing does."""
    out, image = home / "out.tar", home / "image"
    out.write_text("before")
    gunfile('Exec "echo fine"\nExec "echo said; echo wrong >&2; exit 3"\nExec "echo never"')
    for target in (out, f"oci:{image}"):
        done = guntainer("build", target)
        assert done.returncode == 1
        assert done.stdout.split() == (["fine", "said"] if target == out else ["said"])
        told = 'guntainer: error: Gunfile:3: Exec "echo said; echo wrong >&2; exit 3": exit 3'
        assert "wrong\n" in done.stderr and done.stderr.splitlines()[-1] == told
    assert (out.read_text(), image.exists()) == ("before", False)
    assert len(list((home / "store" / "builds").iterdir())) == 1
    gunfile('Exec "sleep 9"')
    done = guntainer("build", "--timeout", "0.2", out)
    assert (done.returncode, done.stderr.splitlines()[-1].rpartition(": ")[2]) == (1, "timeout after 0.2 s")
    traces.check()


def test_a_base_without_a_shell(guntainer: Run, home: Path, traces: Traces) -> None:
    (home / "work" / "f").write_text("x")
    with tarfile.open(home / "bare.tar", "w") as tar:
        tar.add(home / "work" / "f", "etc/f")
    done = guntainer("build", home / "out.tar", "-", input=f'Using "{home}/bare.tar"\nCopy "f" "/g"\n')
    assert (done.returncode, entries(home / "out.tar")) == (0, [".", "etc", "etc/f", "g"]), done.stderr
    done = guntainer("build", home / "out.tar", "-", input=f'Using "{home}/bare.tar"\nExec "true"\n')
    assert (done.returncode, "stdin:2: Exec" in done.stderr, "/bin/sh" in done.stderr) == (1, True, True)
    traces.check()


def test_mistakes_are_told_before_anything_is_done(gunfile: Write, guntainer: Run, home: Path, traces: Traces) -> None:
    gunfile('Exec "touch /ran"\nRun "x"\nCopy "../x" "/x"')
    done = guntainer("build", home / "out.tar")
    assert done.returncode == 2
    assert [line.removeprefix("guntainer: error: ") for line in done.stderr.splitlines()] == [
        'Gunfile:3: unknown instruction "Run" (did you mean Exec?)',
        'Gunfile:4: Copy: "../x" leads out of the Gunfile\'s folder',
    ]
    gunfile('Exec "touch /ran"\nCopy "no" "/x"\nCopy "*.c" "/x"')
    done = guntainer("build", home / "out.tar")
    assert (done.returncode, steps_of(done)) == (2, [])
    assert "Gunfile:3: Copy: no: No such file or directory" in done.stderr
    assert "Gunfile:4: Copy: *.c: No such file or directory: patterns are not expanded" in done.stderr
    gunfile('Exec "touch /ran"')
    for words, told in (
        (("out.zip",), "out.zip: unknown kind of archive"),
        (("-",), "expected NAME.tar[.gz|.zst|.xz] or oci:DIR[:TAG]"),
        ((f"oci:{home}/no/dir",), f"the folder {home}/no does not exist"),
        ((f"oci:{home}/work",), "is there, and is no image layout"),
        ((f"oci:{home}/image:b@d",), "not a tag"),
        (("out.tar", "no"), "no: No such file or directory"),
        (("out.tar", "Gunfile", "more"), "unexpected 'more'"),
        ((), "IMAGE is missing"),
        (("--network", "x", "out.tar"), "invalid choice: 'x'"),
        (("-t", "x", "out.tar"), "unknown option '-t': what is made is the first word: NAME.tar.gz or oci:DIR:TAG"),
        (("--build-arg", "A=b", "out.tar"), "unknown option '--build-arg': here it is -e K=V"),
    ):
        done = guntainer("build", *words)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert told in done.stderr
    (home / "work" / "host").write_text("Using host\n")
    assert "this machine's own folders are not written" in guntainer("build", home / "out.tar", "host").stderr
    assert not (home / "out.tar").exists()
    traces.check()


def test_nothing_outside_is_copied(gunfile: Write, guntainer: Run, home: Path, traces: Traces) -> None:
    """Links that lead out, on the way and at its end; FIFOs; a folder that is shut."""
    secret = home / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (home / "work" / "out").symlink_to("../secret")
    (home / "work" / "key").symlink_to(secret / "key")
    (home / "work" / "proc").symlink_to("/proc/self/root")
    os.mkfifo(home / "work" / "pipe")
    (home / "work" / "folder").mkdir()
    os.mkfifo(home / "work" / "folder" / "pipe")
    for source, told in (
        ("out", "leads out of the Gunfile's folder"),
        ("out/key", "leads out of the Gunfile's folder"),
        ("key", "leads out of the Gunfile's folder"),
        ("proc/etc/passwd", "leads out of the Gunfile's folder"),
        ("pipe", "neither a file nor a folder"),
        ("folder", "folder/pipe: only files, folders and links can be copied"),
    ):
        gunfile(f'Copy "{source}" "/x"')
        done = guntainer("build", home / "out.tar")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
        assert f"Gunfile:2: Copy: {source}" in done.stderr and told in done.stderr
    assert not (home / "out.tar").exists()
    traces.check()


def test_nothing_outside_is_written(gunfile: Write, guntainer: Run, home: Path, traces: Traces) -> None:
    """A rootfs whose links lead to the host: they mean the rootfs."""
    victim = home / "victim"
    victim.mkdir()
    (victim / "f").write_text("mine")
    (home / "work" / "f").write_text("new")
    gunfile(
        f'Exec "ln -s {victim} /way; ln -s {victim}/f /f; ln -s ../../../../../..{victim} /up; mkdir -p {victim}"\n'
        'Copy "f" "/way/f"\nCopy "f" "/f"\nCopy "f" "/up/g"\nCopy "f" "/new/"\nWorkdir "/way/dir"'
    )
    done = guntainer("build", home / "out.tar")
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in victim.iterdir()) == ["f"] and (victim / "f").read_text() == "mine"
    inside = str(victim).lstrip("/")
    assert {f"{inside}/f", f"{inside}/g", f"{inside}/dir", "new/f", "f"} <= set(entries(home / "out.tar"))
    gunfile('Exec "ln -s /proc/self/root /magic"\nCopy "f" "/magic/f"')
    done = guntainer("build", home / "out.tar")  # /proc is nothing but a folder there
    assert (done.returncode, "Gunfile:3: /magic: a link there leads nowhere" in done.stderr) == (125, True)
    gunfile('Exec "mkdir /d"\nCopy "." "/d"\nExec "mkdir -p /e/f"\nCopy "." "/e"')
    done = guntainer("build", home / "out.tar")
    assert done.returncode == 125
    assert "Gunfile:5: f: a folder is there already" in done.stderr
    traces.check()


def test_a_layout_that_is_there(gunfile: Write, guntainer: Run, home: Path, traces: Traces) -> None:
    """Images of other tags stay; that of the same one is replaced."""
    for tag, text in (("a", "1"), ("b", "2"), ("a", "3"), ("", "4"), ("", "5")):
        gunfile(f'Exec "echo {text} > /x"\nEnv "X={text}"')
        image = f"oci:{home}/image" + (f":{tag}" if tag else "")
        assert guntainer("build", image).returncode == 0
    found = json.loads((home / "image" / "index.json").read_text())["manifests"]
    assert len(found) == 3
    for tag, text in (("a", "3"), ("b", "2"), ("", "5")):
        _, config, _ = layout_of(home / "image", tag)
        assert config["config"] == {"Env": [f"X={text}"]}
    (home / "image" / "index.json").write_text("[]")
    done = guntainer("build", f"oci:{home}/image")
    assert done.returncode == 2 and "its index.json is not one" in done.stderr
    traces.check()


def test_a_disk_without_room(gunfile: Write, small_archive: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    gunfile('Exec "true"')
    assert guntainer("build", "--userns", "single", home / "out.tar").returncode == 0
    place = home / "place"
    place.mkdir()
    small = f"mount -t tmpfs -o size=256k none {place}; trap 'find {place} -mindepth 1' EXIT"
    for target in (f"{place}/out.tar.gz", f"oci:{place}/image"):
        done = confined(small, "build", "--userns", "single", target)
        assert (done.returncode, done.stdout) == (125, ""), done.stderr
        assert f"{target}: No space left on device; free some" in done.stderr
    traces.check()


def test_without_overlay(gunfile: Write, guntainer: Run, home: Path, traces: Traces) -> None:
    gunfile('Exec "true"')
    done = confined(NO_OVERLAY.format(home / "tmp"), "build", "--store", f"{home}/tmp/m/s", home / "out.tar")
    assert done.returncode == 125
    assert "overlayfs is refused here, and a step's changes can not be told without it" in done.stderr
    assert not (home / "out.tar").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal(gunfile: Write, guntainer: Run, home: Path, number: signal.Signals, traces: Traces) -> None:
    """While a step runs: nothing of it is left, what was done before is kept."""
    gunfile('Exec "echo one > /one"\nExec "echo begun; exec sleep 60"')
    words = [sys.executable, "-m", "guntainer", "build", str(home / "out.tar")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        process.send_signal(number)
        code = process.wait(20)
    assert code == (-number if number == signal.SIGKILL else 128 + number)
    assert not (home / "out.tar").exists()
    gunfile('Exec "echo one > /one"')
    done = guntainer("build", home / "out.tar")  # who starts next tidies up
    assert (done.returncode, steps_of(done)) == (0, ["cached"]), done.stderr
    give_up = time.monotonic() + 10
    while traces.processes() and time.monotonic() < give_up:
        time.sleep(0.01)
    traces.check()


def test_three_at_once_do_a_step_once(
    gunfile: Write, small_archive: Path, guntainer: Run, home: Path, traces: Traces
) -> None:
    gunfile('Exec "echo ran; sleep 1; echo x > /x"')
    assert guntainer("run", small_archive, "true").returncode == 0
    words = [sys.executable, "-m", "guntainer", "build"]
    both = [
        subprocess.Popen([*words, str(home / f"{n}.tar")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for n in range(3)
    ]
    said = [process.communicate(timeout=60)[0] for process in both]
    assert sorted(said) == [b"", b"", b"ran\n"]
    assert len({(home / f"{n}.tar").read_bytes() for n in range(3)}) == 1
    traces.check()


def test_prune_removes_what_no_build_holds(gunfile: Write, guntainer: Run, home: Path, traces: Traces) -> None:
    gunfile('Exec "echo x > /x"')
    assert guntainer("build", home / "out.tar").returncode == 0
    assert guntainer("store", "prune", "--all").returncode == 0
    assert list((home / "store" / "builds").iterdir()) == []
    assert steps_of(guntainer("build", home / "out.tar")) == ["done"]
    traces.check()


def test_a_signal_while_an_image_is_written(gunfile: Write, guntainer: Run, home: Path, traces: Traces) -> None:
    gunfile('Exec "dd if=/dev/urandom of=/big bs=1M count=200 2>/dev/null; echo begun"')
    words = [sys.executable, "-m", "guntainer", "build", f"oci:{home / 'work' / 'image'}"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        fds = f"/proc/{process.pid}/fd"
        while process.poll() is None:
            try:
                found = [os.readlink(f"{fds}/{fd}") for fd in os.listdir(fds)]
            except OSError:
                continue  # it has closed one
            if any(name.startswith(f"{home / 'work'}/") for name in found):
                process.send_signal(signal.SIGINT)
                break
        assert process.wait(20) == 130
    assert [path.name for path in (home / "work").iterdir()] == ["Gunfile"]
    traces.check()


def test_many_steps(gunfile: Write, guntainer: Run, home: Path) -> None:
    """More layers than fit into one mount(2) by their paths."""
    gunfile("\n".join(f'Exec "echo {n} > /f{n}"' for n in range(30)))
    assert guntainer("build", home / "out.tar").returncode == 0
    assert {f"f{n}" for n in range(30)} <= set(entries(home / "out.tar"))
