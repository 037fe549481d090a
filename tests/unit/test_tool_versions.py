"""Which versions of the tools of private networks are read, which are new enough, and how a program is asked for its own."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from guntainer import Job, Source, errors
from guntainer.network import asking, tools, versions
from guntainer.network.asking import Answer
from guntainer.network.tools import Tool
from guntainer.network.versions import Verdict

PASTA = tools.options(Tool(name="pasta", path="pasta"))
SLIRP = tools.options(Tool(name="slirp4netns", path="slirp4netns"))


@pytest.mark.parametrize(
    ("name", "told", "number"),
    [
        ("pasta", "2024_09_06.6b38f07", (2024, 9, 6)),
        ("pasta", "2023_05_09.96f8d55-10-gf1e0a67", (2023, 5, 9)),
        ("pasta", "0.0~git20240220.1e6f92b-1", (2024, 2, 20)),
        ("pasta", "0^20240510.g7288448-1.fc40.x86_64", (2024, 5, 10)),
        ("pasta", "2024.12.11", (2024, 12, 11)),
        ("pasta", "20250503", (2025, 5, 3)),
        ("pasta", "2021_01_31", (2021, 1, 31)),
        ("pasta", "unknown version", None),
        ("pasta", "", None),
        ("pasta", "2024_09", None),
        ("pasta", "2024_13_06", None),
        ("pasta", "2024_09_32", None),
        ("pasta", "2024_09-06", None),
        ("pasta", "120240906", None),
        ("pasta", "20240906", (2024, 9, 6)),
        ("pasta", "1970_01_01", None),
        ("pasta", "٢٠٢٤_٠٩_٠٦", None),
        ("pasta", "1.2.3", None),
        ("slirp4netns", "version 1.2.0", (1, 2, 0)),
        ("slirp4netns", "version 0.4.0", (0, 4, 0)),
        ("slirp4netns", "version 1.3.0-beta.1", (1, 3, 0)),
        ("slirp4netns", "version 1.2.0+dev", (1, 2, 0)),
        ("slirp4netns", "1.10", (1, 10)),
        ("slirp4netns", "version 1.", None),
        ("slirp4netns", "version 1..2", None),
        ("slirp4netns", "version .1", None),
        ("slirp4netns", "version v1.2", None),
        ("slirp4netns", "version", None),
        ("slirp4netns", "", None),
    ],
)
def test_versions_are_read(name: str, told: str, number: tuple[int, ...] | None) -> None:
    assert versions.read(name, told) == number


def weigh(name: str, version: str, usage: str = "", fault: str = "") -> Verdict:
    options = PASTA if name == "pasta" else SLIRP
    return versions.weigh(name, Answer(text=version, fault=fault), Answer(text=usage, fault=fault), options)


@pytest.mark.parametrize(
    ("name", "version", "old"),
    [
        ("pasta", "pasta 2023_02_27.c538ee8\nCopyright", ""),
        ("pasta", "Can't run AVX2 build\npasta 2023_02_28\n", ""),
        ("pasta", "pasta 2023_02_22.4ddbcb9\n", "too old: 2023_02_22.4ddbcb9, at least 2023_02_27 is needed"),
        ("slirp4netns", "slirp4netns version 0.4.2\ncommit: 0\n", ""),
        ("slirp4netns", "slirp4netns version 1.10.0\n", ""),
        ("slirp4netns", "slirp4netns version 0.4.1\n", "too old: version 0.4.1, at least 0.4.2 is needed"),
        ("slirp4netns", "slirp4netns version 0.4\n", "too old: version 0.4, at least 0.4.2 is needed"),
    ],
)
def test_which_are_new_enough(name: str, version: str, old: str) -> None:
    """Whatever --help says: it is not looked at."""
    assert weigh(name, version).fault == old


def usage(options: frozenset[str]) -> str:
    return "".join(f"  -x, {option}=VALUE|OTHER\tdoes something\nFailed to send 9 bytes\n" for option in options)


def test_without_a_version_the_options_decide() -> None:
    assert weigh("pasta", "pasta unknown version\n", usage(PASTA)) == Verdict(
        version="unknown version, with every option that is used"
    )
    assert weigh("slirp4netns", "", usage(SLIRP)) == Verdict(version="no version, with every option that is used")
    for option in PASTA:
        found = weigh("pasta", "pasta unknown version\n", usage(PASTA - {option}))
        assert found.fault == (
            f"tells no version that can be read (unknown version), and --help does not name {option}: "
            "at least 2023_02_27 is needed"
        )
    # one that begins like another is another
    assert "does not name --netns:" in weigh("pasta", "pasta x\n", usage(PASTA - {"--netns"} | {"--netns-only"})).fault
    found = weigh("slirp4netns", "", "")
    assert "(none), and --help does not name --api-socket, --configure, --disable-host-loopback and " in found.fault
    assert weigh("pasta", "", "", "does not end within 5 s").fault.startswith(
        "--version does not end within 5 s, and --help does not end within 5 s, and does not name --"
    )


def test_what_is_told_is_fit_to_be_shown() -> None:
    found = weigh("pasta", "pasta \x1b[31m\0" + "9" * 10000 + "\n", usage(PASTA))
    assert found.fault == "" and found.version.startswith("?[31m?999") and len(found.version) < 100
    assert weigh("slirp4netns", "slirp4netns version " + "9" * 10000 + ".1\n", usage(SLIRP)).fault == ""


def test_the_options_are_those_of_the_command_lines() -> None:
    assert {"--config-net", "--netns", "--netns-only", "--userns", "--dns-forward", "--tcp-ports", "--pid"} < PASTA
    assert {"--ready-fd", "--exit-fd", "--netns-type", "--userns-path", "--api-socket", "--enable-seccomp"} < SLIRP
    assert ("--runas" in PASTA) == ("--enable-sandbox" in SLIRP) == (os.geteuid() == 0)


# -- asking


def script(folder: Path, text: str) -> str:
    path = folder / "pasta"
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def alive(folder: Path) -> list[str]:
    """Live processes that were started from a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if str(folder) in line and state not in "ZX":
                found.append(line)
    return found


def until_none(folder: Path) -> None:
    while alive(folder):
        pass


def test_both_answers_come_back(tmp_path: Path) -> None:
    path = script(tmp_path, 'echo "to stdout: $1"; echo to stderr >&2; read line; exit 3')
    before = sorted(os.listdir("/proc/self/fd"))
    path = script(tmp_path, 'echo "to stdout: $1"; printf "to stderr\\377" >&2; exit 3')
    texts = [answer.text for answer in asking.ask(path, ("--version", "--help"))]
    assert texts == ["to stdout: --version\nto stderr?", "to stdout: --help\nto stderr?"]
    assert sorted(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize(
    "text",
    [
        "exec ./nap 600",
        "./nap 600 & exit",
        "./nap 600 & ./nap 600 & trap '' TERM HUP INT; wait",
        "cat",
        "exec <&- >&- 2>&-; exec ./nap 600",
        "kill -STOP $$",
    ],
)
def test_what_does_not_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "nap").symlink_to("/bin/sleep")
    monkeypatch.setattr(asking, "BOUND_S", 0.2)
    before = sorted(os.listdir("/proc/self/fd"))
    path = script(tmp_path, f"echo begun; {text.replace('./nap', f'{tmp_path}/nap')}")
    (answer,) = asking.ask(path, ("--version",))
    assert answer.text == "begun\n"
    assert answer.fault == ("" if ">&-" in text else "does not end within 0.2 s")
    until_none(tmp_path)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_what_says_too_much_is_ended(tmp_path: Path) -> None:
    (answer,) = asking.ask(script(tmp_path, "while :; do echo 0123456789012345678901234567890123456789; done"), ("-x",))
    assert answer.fault == "says more than 65536 bytes" and len(answer.text) <= 2 * 65536
    (answer,) = asking.ask(script(tmp_path, "head -c 60000 /dev/urandom"), ("-x",))
    assert answer.fault == "" and answer.text.isascii()
    until_none(tmp_path)


def test_what_can_not_be_executed(tmp_path: Path) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    (tmp_path / "pasta").write_bytes(b"no program\n")
    (tmp_path / "pasta").chmod(0o755)
    tool = Tool(name="pasta", path=f"{tmp_path}/pasta")
    assert tools.unfit(tool) == f"pasta: {tmp_path}/pasta can not be started: Exec format error"
    (tmp_path / "pasta").unlink()
    assert tools.unfit(tool) == f"pasta: {tmp_path}/pasta can not be started: No such file or directory"
    assert sorted(os.listdir("/proc/self/fd")) == before


def tied(file: Path) -> bool:
    """Whether the process whose id is in a file is bound to whoever asks: proc(5), fdinfo."""
    try:
        flags = Path(f"/proc/{int(file.read_text())}/fdinfo/0").read_text().partition("flags:")[2].split()[0]
    except (OSError, ValueError):
        return False
    return bool(int(flags, 8) & os.O_ASYNC)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_outlives_us(tmp_path: Path, number: signal.Signals) -> None:
    """Whoever asks is killed while a tool goes on: the tool and what it has started end as well."""
    (tmp_path / "nap").symlink_to("/bin/sleep")
    path = script(tmp_path, f"{tmp_path}/nap 600 & {tmp_path}/nap 600 & echo $$ > {tmp_path}/up$1; wait")
    code = (
        "from guntainer import interrupts; from guntainer.network import asking\n"
        f"interrupts.install()\nasking.BOUND_S = 60\nasking.ask({path!r}, ('--version', '--help'))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL) as process:
        while not all(tied(tmp_path / f"up{option}") for option in ("--version", "--help")):
            assert process.poll() is None
        process.send_signal(number)
        process.wait(30)
    until_none(tmp_path)


def test_a_tool_is_asked_once_and_again_when_it_is_another(tmp_path: Path) -> None:
    said = tmp_path / "said"
    text = f'echo $1 >> {said}\n[ "$1" = --version ] && echo pasta VERSION'
    tool = Tool(name="pasta", path=script(tmp_path, text.replace("VERSION", "2022_01_01")))
    for _ in range(3):
        assert "too old: 2022_01_01, at least 2023_02_27 is needed" in tools.unfit(tool)
    assert sorted(said.read_text().split()) == ["--help", "--version"]
    script(tmp_path, text.replace("VERSION", "2024_01_01"))
    assert [tools.unfit(tool) for _ in range(3)] == [""] * 3
    assert len(said.read_text().split()) == 4


@pytest.mark.parametrize(
    ("number", "why"),
    [(errno.EAGAIN, "no more processes are allowed"), (errno.EMFILE, "no more descriptors are allowed")],
)
def test_no_room_to_ask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, why: str) -> None:
    """Nothing is held against the tool: a batch waits, and asks again."""
    tool = Tool(name="pasta", path=script(tmp_path, "echo pasta 2024_01_01"))
    before = sorted(os.listdir("/proc/self/fd"))

    def refuses(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_spawn", refuses)
        with pytest.raises(errors.Exhausted, match=why):
            tools.unfit(tool)
        patch.setattr(tools, "require", lambda: tools.unfit(tool))
        tools.check(Job(id="a", rootfs=Source(location="/"), network="private"))
    assert sorted(os.listdir("/proc/self/fd")) == before
    assert tools.unfit(tool) == ""
