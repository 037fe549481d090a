"""What an image says of how it is run, in real containers: its entrypoint, its folder, its user; and what overrides them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Run, Traces
from image_builder import Image, image, layer, layer_of, oci_folder, oci_tar

CONFIG = {
    "Entrypoint": ["/bin/sh", "-c", 'echo "$0:$1"; pwd; id -u; id -g; echo "$A $B"'],
    "Cmd": ["cmd", "arg"],
    "Env": ["A=image", "B=image", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
    "WorkingDir": "/srv/app",
    "User": "0:0",
}


@pytest.fixture(scope="session")
def programs(small_archive: Path) -> bytes:
    import gzip

    return gzip.decompress(small_archive.read_bytes())


@pytest.fixture
def make(programs: bytes, home: Path) -> Callable[..., Path]:
    def one(**config: object) -> Path:
        made: Image = image(layer_of(programs), layer(("etc", "dir", {})), config={**CONFIG, **config})
        return oci_folder(home / "work" / "layout", {"web:1": made})

    return one


def test_all_that_the_image_says(guntainer: Run, make: Callable[..., Path], traces: Traces) -> None:
    done = guntainer("run", make())
    assert (done.returncode, done.stdout) == (0, "cmd:arg\n/srv/app\n0\n0\nimage image\n"), done.stderr
    traces.check()


def test_all_that_the_user_says(guntainer: Run, make: Callable[..., Path]) -> None:
    done = guntainer("run", "-w", "/", "-e", "A=user", make(), "x", "y")
    assert (done.returncode, done.stdout) == (0, "x:y\n/\n0\n0\nuser image\n"), done.stderr


def test_another_entrypoint(guntainer: Run, make: Callable[..., Path]) -> None:
    path = make()
    assert guntainer("run", "--entrypoint", "/bin/echo", path, "x").stdout == "x\n"
    assert guntainer("run", "--entrypoint", "/bin/echo", path).stdout == "\n"
    assert guntainer("run", "--entrypoint", "", path, "/bin/echo", "y").stdout == "y\n"
    assert guntainer("run", "--entrypoint", '["/bin/echo", "z"]', path, "x").stdout == "z x\n"


@pytest.mark.usefixtures("a_range")
def test_the_images_user_can_not_make_the_folder_but_gets_it(guntainer: Run, make: Callable[..., Path]) -> None:
    done = guntainer("run", make(User="1000:1000"))
    assert (done.returncode, done.stdout) == (0, "cmd:arg\n/srv/app\n1000\n1000\nimage image\n"), done.stderr
    done = guntainer("run", "--entrypoint", "stat", make(User="1000"), "-c", "%u %a", "/srv/app", "/srv")
    assert done.stdout == "0 755\n0 755\n", done.stderr


def test_a_folder_of_the_user_is_not_made(guntainer: Run, make: Callable[..., Path]) -> None:
    done = guntainer("run", "-w", "/missing", make())
    assert done.returncode == 125 and "/missing" in done.stderr


@pytest.mark.parametrize("scratch", ["disk", "memory"])
def test_the_folder_under_a_read_only_root(guntainer: Run, make: Callable[..., Path], scratch: str) -> None:
    assert guntainer("run", "--read-only", "--scratch", scratch, make()).stdout.splitlines()[1] == "/srv/app"


def test_the_folder_is_not_made_in_what_is_the_hosts(guntainer: Run, make: Callable[..., Path], home: Path) -> None:
    volume = home / "volume"
    volume.mkdir()
    done = guntainer("run", "-v", f"{volume}:/srv", make())
    assert done.returncode == 125 and "/srv/app" in done.stderr
    assert list(volume.iterdir()) == []
    (volume / "app").mkdir()
    assert guntainer("run", "-v", f"{volume}:/srv", make()).stdout.splitlines()[1] == "/srv/app"


@pytest.mark.parametrize(
    ("entries", "folder"),
    [
        ([("out", "sym", {"to": "/../../../../tmp"})], "/out/made"),
        ([("out", "sym", {"to": "../../../.."})], "/out/tmp/made"),
        ([("a", "dir", {}), ("a/b", "sym", {"to": "/proc/self/root"})], "/a/b/made"),
        ([], "/../../../tmp/made"),
    ],
)
def test_a_folder_that_would_lead_out(
    guntainer: Run, programs: bytes, home: Path, entries: list[tuple[str, str, dict[str, object]]], folder: str
) -> None:
    made = image(layer_of(programs), layer(*entries), config={**CONFIG, "WorkingDir": folder})
    guntainer("run", oci_folder(home / "work" / "layout", {"web:1": made}))
    assert not Path("/made").exists()
    assert not Path("/tmp/made").exists()
    assert not (home / "tmp" / "made").exists()


def test_a_file_where_the_folder_should_be(guntainer: Run, programs: bytes, home: Path) -> None:
    made = image(layer_of(programs), layer(("srv", "file", {})), config=CONFIG)
    done = guntainer("run", oci_folder(home / "work" / "layout", {"web:1": made}))
    assert done.returncode == 125 and "/srv/app" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_user_that_is_not_there(guntainer: Run, make: Callable[..., Path]) -> None:
    done = guntainer("run", make(User="nobody-there"))
    assert done.returncode == 125 and "user 'nobody-there' is not in the rootfs's /etc/passwd" in done.stderr


def test_the_images_stop_signal(guntainer: Run, make: Callable[..., Path]) -> None:
    script = 'trap "echo quit; exit 0" QUIT; trap "echo term; exit 0" TERM; while :; do sleep 0.05; done'
    path = make(Entrypoint=["/bin/sh", "-c", script], StopSignal="SIGQUIT")
    assert guntainer("run", "--timeout", "1s", "--stop-timeout", "20", path).stdout == "quit\n"
    done = guntainer("run", "--timeout", "1s", "--stop-timeout", "20", "--stop-signal", "TERM", path)
    assert done.stdout == "term\n"
    done = guntainer("run", make(StopSignal="SIGNONE"))
    assert done.returncode == 125 and "StopSignal" in done.stderr


def test_publishing_all_needs_a_network_of_its_own(guntainer: Run, make: Callable[..., Path]) -> None:
    for words in ((), ("--network", "none")):
        done = guntainer("run", "-P", *words, make(ExposedPorts={"80/tcp": {}}))
        assert done.returncode == 125 and "-P: published ports need network private" in done.stderr


def test_an_image_for_another_machine(guntainer: Run, programs: bytes, home: Path) -> None:
    path = oci_tar(home / "work" / "web.tar", [image(layer_of(programs), architecture="s390x", config=CONFIG)])
    done = guntainer("run", path)
    assert done.returncode == 125
    assert "this image is for s390x; this machine is" in done.stderr
    assert not list((home / "store").glob("layers/*"))


BATCH = """\
[rootfs.web]
source = "layout"

[jobs.own]
rootfs = "web"
command = []

[jobs.given]
rootfs = "web"
command = ["x", "y"]

[jobs.script]
rootfs = "web"
run = "echo script"

[jobs.other]
rootfs = "web"
entrypoint = ["/bin/echo", "other"]
command = ["z"]
"""


def test_jobs_on_an_image(guntainer: Run, make: Callable[..., Path], home: Path) -> None:
    make()
    (home / "work" / "jobs.toml").write_text(BATCH)
    done = guntainer("batch", "jobs.toml", "--results", "out")
    assert done.returncode == 0, done.stderr
    said = {name: (home / "work" / "out" / name / "stdout").read_text() for name in ("own", "given", "script", "other")}
    assert said == {
        "own": "cmd:arg\n/srv/app\n0\n0\nimage image\n",
        "given": "x:y\n/srv/app\n0\n0\nimage image\n",
        "script": "script\n",
        "other": "other z\n",
    }


def test_a_job_on_what_has_no_command(guntainer: Run, small_archive: Path, home: Path) -> None:
    (home / "work" / "jobs.toml").write_text(f'[jobs.a]\nrootfs = "{small_archive}"\ncommand = []\n')
    done = guntainer("batch", "jobs.toml")
    assert done.returncode == 125
    assert "no command of its own" in done.stdout + done.stderr
