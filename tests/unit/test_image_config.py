"""An image's config, and a job as it is run on it: what the user says comes before what the image says."""

from __future__ import annotations

import marshal
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guntainer import errors, spec
from guntainer.image.config import Config, applied
from guntainer.jobs import values
from guntainer.jobs.model import Job, Port, Source
from guntainer.rootfs import Rootfs

PACKAGE = Path(__file__).resolve().parent.parent.parent
ROOTFS = Source(location="/r", name="r")


def job(**fields: object) -> Job:
    return Job(id="j", rootfs=ROOTFS, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("entrypoint", "command", "own", "becomes"),
    [
        (("e", "1"), ("c", "2"), {}, ("e", "1", "c", "2")),
        (("e", "1"), ("c", "2"), {"command": ("x",)}, ("e", "1", "x")),
        ((), ("c",), {}, ("c",)),
        ((), ("c",), {"command": ("x", "y")}, ("x", "y")),
        (("e",), (), {}, ("e",)),
        (("e",), ("c",), {"entrypoint": ("o", "p")}, ("o", "p")),
        (("e",), ("c",), {"entrypoint": ("o",), "command": ("x",)}, ("o", "x")),
        (("e",), ("c",), {"entrypoint": (), "command": ("x",)}, ("x",)),
        (("e",), ("c",), {"entrypoint": ()}, ()),
        ((), (), {}, ()),
    ],
)
def test_the_command(
    entrypoint: tuple[str, ...], command: tuple[str, ...], own: dict[str, object], becomes: tuple[str, ...]
) -> None:
    found = applied(job(**own), Config(entrypoint=entrypoint, cmd=command))
    assert found.command == becomes
    assert applied(found, Config(entrypoint=entrypoint, cmd=())).command == becomes  # it has been decided


def test_variables_of_the_image_come_first() -> None:
    config = Config(env=(("PATH", "/image"), ("A", "image"), ("B", "image")))
    assert applied(job(env=(("A", "user"), ("C", "user"))), config).env == (
        ("PATH", "/image"),
        ("A", "user"),
        ("B", "image"),
        ("C", "user"),
    )


def test_folder_user_and_signal_of_the_image_where_the_user_names_none() -> None:
    config = Config(workdir="/srv", user="web:www", stop_signal="SIGQUIT")
    found = applied(job(), config)
    assert (found.workdir, found.make_workdir, found.user, found.asks_with) == ("/srv", True, "web:www", signal.SIGQUIT)
    found = applied(job(workdir="/", user="0", stop_signal=signal.SIGINT), config)
    assert (found.workdir, found.make_workdir, found.user, found.asks_with) == ("/", False, "0", signal.SIGINT)
    found = applied(job(), Config())
    assert (found.workdir, found.make_workdir, found.user, found.asks_with) == (None, False, None, signal.SIGTERM)


@pytest.mark.parametrize(
    ("text", "number"),
    [("SIGQUIT", 3), ("QUIT", 3), ("3", 3), ("SIGRTMIN+3", signal.SIGRTMIN + 3), ("RTMIN+3", signal.SIGRTMIN + 3)],
)
def test_ways_to_write_a_signal(text: str, number: int) -> None:
    assert applied(job(), Config(stop_signal=text)).asks_with == number


def test_a_signal_that_there_is_not_can_be_replaced() -> None:
    config = Config(stop_signal="SIGBOGUS")
    with pytest.raises(errors.RootfsError, match=r'StopSignal: expected a signal .* got "SIGBOGUS".*--stop-signal'):
        applied(job(), config)
    assert applied(job(stop_signal=15), config).asks_with == 15


def test_all_ports_of_the_image_but_those_that_are_published_already() -> None:
    config = Config(ports=("80/tcp", "8000-8001", "53/udp", "99/sctp", "80"))
    own = Port(container=53, host=5353, protocol="udp")
    assert applied(job(publish_all=True, ports=(own,), network="private"), config).ports == (
        own,
        Port(container=80),
        Port(container=8000),
        Port(container=8001),
    )
    assert applied(job(ports=(own,), network="private"), config).ports == (own,)


@pytest.mark.parametrize("text", ["http", "0/tcp", "99999/tcp", "8080:x", "8080:80", "127.0.0.1:80:80/tcp"])
def test_a_port_that_there_is_not(text: str) -> None:
    config = Config(ports=(text,))
    assert applied(job(), config).ports == ()
    with pytest.raises(errors.RootfsError, match="ExposedPorts"):
        applied(job(publish_all=True), config)


def test_a_job_of_a_file_that_has_no_command_anywhere() -> None:
    with pytest.raises(errors.RootfsError, match="rootfs r: it has no command of its own"):
        applied(job(key="j"), Config())
    with pytest.raises(errors.RootfsError, match="no command of its own"):
        Rootfs(lowers=("/t",)).job(job(key="j"))
    assert applied(job(key="j"), Config(cmd=("x",))).command == ("x",)
    assert Rootfs(lowers=("/t",)).job(job()).command == ()


def test_an_entrypoint_on_a_rootfs_that_is_no_image() -> None:
    rootfs = Rootfs(lowers=("/t",))
    assert rootfs.job(job(entrypoint=("e",), command=("x",))).command == ("e", "x")
    assert rootfs.job(job(command=("x",))) == job(command=("x",))


def test_a_config_in_the_store() -> None:
    config = Config(
        entrypoint=("e",), env=(("A", "b=c"),), labels=(("l", "x"),), ports=("80/tcp",), architecture="amd64"
    )
    kept = marshal.loads(marshal.dumps(config.as_dict()))
    assert Config.from_dict(kept) == config
    assert Config.from_dict({**kept, "of_another_version": 1}) == config
    assert Config.from_dict({}) == Config()


@pytest.mark.parametrize(("name", "machine"), [("amd64", "x86_64"), ("386", "i386"), ("arm64", "arm64"), ("", "")])
def test_machines(name: str, machine: str) -> None:
    assert Config(architecture=name).machine == machine


def test_the_folder_is_made_for_an_image_alone() -> None:
    account = spec.Account()
    maps = {"uids": ((0, 0, 1),), "gids": ((0, 0, 1),)}
    one = spec.for_job(job(workdir="/w"), tree="/t", account=account, **maps)
    other = spec.for_job(job(workdir="/w", make_workdir=True), tree="/t", account=account, **maps)
    assert "io.guntainer.make-workdir" not in one["annotations"]
    assert other["annotations"]["io.guntainer.make-workdir"] == "true"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, None),
        ("", ()),
        ("/init", ("/init",)),
        ("a b", ("a b",)),
        ('["/init", "-v", ""]', ("/init", "-v", "")),
        ("[]", ()),
    ],
)
def test_entrypoints_on_the_command_line(text: str | None, found: tuple[str, ...] | None) -> None:
    assert values.parse_entrypoint(text) == found


@pytest.mark.parametrize("text", ["[", "[1]", '[""]', '["a"', '["a\\u0000"]'])
def test_entrypoints_that_are_none(text: str) -> None:
    with pytest.raises(errors.UsageError):
        values.parse_entrypoint(text)


def test_the_warm_path_loads_little_for_it() -> None:
    code = "import sys, guntainer.image.config; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE)
    assert not set(done.stdout.split()) & {"json", "re", "enum", "typing", "dataclasses", "ctypes", "hashlib", "socket"}
