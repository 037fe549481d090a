"""Durations, sizes, signals, volumes: what is taken, what is refused, and in which words."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from guntainer.errors import UsageError
from guntainer.jobs import values
from guntainer.jobs.model import Mount, Scratch


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600), ("1h30m", 5400), (5, 5), ("5s", 5), ("1.5", 1.5), (1.5, 1.5), ("250ms", 0.25), ("0", 0),
        ("2d", 172800), ("1h 30m", 5400), ("1.5H", 5400), ("1m500ms", 60.5), (" 7 ", 7), (".5", 0.5),
    ],
)  # fmt: skip
def test_durations(text: str | float, seconds: float) -> None:
    assert values.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "m", "-1", -1, "10x", "30m1h", "1h1h", "1e3", "nan", "inf", float("nan"), float("inf"), "1..5", "٣", True,
     "1h30", "5 0", "99999999d"],
)  # fmt: skip
def test_bad_durations(text: str | float) -> None:
    with pytest.raises(UsageError, match=r"expected a duration|ten years"):
        values.parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512m", 512 << 20), ("1", 1), (4096, 4096), ("16M", 16 << 20), ("16mb", 16 << 20), ("16MiB", 16 << 20),
        ("1.5g", 3 << 29), ("10b", 10), ("2t", 2 << 40), ("3 k", 3 << 10),
    ],
)  # fmt: skip
def test_sizes(text: str | int, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "m", "0", "-5m", "5x", "5mm", "50%", "1m1k", "9999999t", "0.1", "²m", "1e3"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="size"):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("SIGTERM", 15), ("sigint", 2), (15, 15), ("9", 9), ("RTMIN+3", signal.SIGRTMIN + 3),
     ("SIGRTMAX-1", signal.SIGRTMAX - 1), ("CHLD", 17), ("RTMIN", signal.SIGRTMIN)],
)  # fmt: skip
def test_signals(text: str | int, number: int) -> None:
    found = values.parse_signal(text)
    assert found == number
    assert type(found) is int


@pytest.mark.parametrize("text", ["", "TREM", 0, 65, -1, "RTMIN-1", "RTMAX+1", "SIG", "٣", "RTMIN+²", "RTMIN+", "1.5"])
def test_bad_signals(text: str | int) -> None:
    with pytest.raises(UsageError, match="expected a signal"):
        values.parse_signal(text)


def test_a_misspelt_signal_has_a_neighbour() -> None:
    with pytest.raises(UsageError, match=r'got "SIGTREM" \(did you mean "TERM"\?\)') as caught:
        values.parse_signal("SIGTREM")
    assert caught.value.exit_code == 125


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        (".:/src:ro", Mount(target="/src", source="/base", read_only=True)),
        ("/a:/b", Mount(target="/b", source="/a")),
        ("data:/data:rw", Mount(target="/data", source="/base/data")),
        ("~/x:/x", Mount(target="/x", source="/home/me/x")),
        ("../x:/x", Mount(target="/x", source="/base/../x")),
    ],
)
def test_volumes(monkeypatch: pytest.MonkeyPatch, text: str, mount: Mount) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert values.parse_volume(text, "/base") == mount


@pytest.mark.parametrize("text", ["", "data", ":", "a:", ":/b", "a:b", "a:/b:rx", "a:/b:ro:z", "a\0:/b"])
def test_bad_volumes(text: str) -> None:
    with pytest.raises(UsageError):
        values.parse_volume(text, "/base")


def test_home_is_needed_only_for_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    assert values.host_path("./a//b/.", "/base") == "/base/a/b"
    assert values.host_path("~x", "/base") == "/base/~x"
    with pytest.raises(UsageError, match="HOME is not set"):
        values.host_path("~/a", "/base")


def test_tmpfs() -> None:
    assert values.parse_tmpfs("/t") == Mount(target="/t", kind="tmpfs")
    assert values.parse_tmpfs("/t:size=16m") == Mount(target="/t", kind="tmpfs", size_bytes=16 << 20)
    assert values.parse_tmpfs("/t:ro,size=1k") == Mount(target="/t", kind="tmpfs", size_bytes=1024, read_only=True)
    for bad in ("t", "", "/t:sise=16m", "/t:size", "/t:size=", "/t:exec"):
        with pytest.raises(UsageError):
            values.parse_tmpfs(bad)


def test_scratch() -> None:
    assert values.parse_scratch("disk") == Scratch()
    assert values.parse_scratch("memory") == Scratch(kind="memory")
    assert values.parse_scratch("memory:16m") == Scratch(kind="memory", size_bytes=16 << 20)
    for bad in ("", "memory:", "disk:1m", "ram"):
        with pytest.raises(UsageError):
            values.parse_scratch(bad)
    with pytest.raises(UsageError, match='did you mean "memory"'):
        values.parse_scratch("memroy:1m")


def test_environment() -> None:
    assert values.parse_env("A=b=c") == ("A", "b=c")
    assert values.parse_env("A=") == ("A", "")
    assert values.parse_env("A") == ("A", None)
    for bad in ("", "=x", "A B=1", "A\n=1", "A=\0"):
        with pytest.raises(UsageError):
            values.parse_env(bad)


def test_users_hosts_and_networks() -> None:
    for good in ("0", "1000:1000", "nobody", "www-data:adm"):
        assert values.check_user(good) == good
    for bad in ("", ":", "a:", ":b", "1:2:3", "a b", "-1", "4294967295", "99999999999"):
        with pytest.raises(UsageError):
            values.check_user(bad)
    for good in ("a", "build-1.example", "X" * 64):
        assert values.check_hostname(good) == good
    for bad in ("", "X" * 65, "a b", "-a", "ü", ".", "a\n"):
        with pytest.raises(UsageError):
            values.check_hostname(bad)
    assert values.check_network("none") == "none"
    assert values.check_network("private") == "private"
    with pytest.raises(UsageError, match='did you mean "host"'):
        values.check_network("hots")


def test_texts_that_the_kernel_refuses() -> None:
    assert values.check_text("x" * values.LONGEST_ARGUMENT)
    for bad in ("a\0b", "\ud800", "x" * (values.LONGEST_ARGUMENT + 1)):
        with pytest.raises(UsageError):
            values.check_text(bad)
    assert values.check_text("\udcff")  # a byte of an argument that is not UTF-8


def test_messages_stay_on_one_line() -> None:
    with pytest.raises(UsageError) as caught:
        values.parse_size("a\n::error::" + "x" * 1000)
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 200


def test_the_fast_path_imports_nothing_heavy() -> None:
    script = (
        "import sys, guntainer.jobs.values as v\n"
        "v.parse_duration('1h'); v.parse_size('1m'); v.parse_signal('TERM'); v.parse_volume('/a:/b', '/')\n"
        "heavy = {'re', 'typing', 'dataclasses', 'difflib', 'json', 'msgspec', 'yaml', 'tomllib', 'inspect'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    paths = [path or "." for path in sys.path]
    program = f"import sys; sys.path[:] = {paths!r}\n{script}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
