"""`guntainer run`: options with unusual values, and what they must get."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")


@pytest.fixture
def tree(home: Path, small_archive: Path, guntainer: Run) -> Path:
    assert guntainer("run", small_archive, "true").returncode == 0
    return small_archive


def refused(done: subprocess.CompletedProcess[str], *said: str) -> None:
    """One line that says what is wrong, and 125."""
    assert done.returncode == 125, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1 and done.stderr.startswith("guntainer: error: "), done.stderr
    for text in said:
        assert text in done.stderr


def test_a_warm_run_loads_little(tree: Path) -> None:
    code = "import sys; sys.argv = ['guntainer', 'run', sys.argv[1], 'true']; from guntainer.cli import entry; entry()"
    line = [
        sys.executable,
        "-I",
        "-X",
        "importtime",
        "-c",
        f"import sys; sys.path.insert(0, {os.environ['PYTHONPATH']!r}); {code}",
    ]
    done = subprocess.run([*line, str(tree)], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "guntainer.foreground" in loaded
    heavy = {"argparse", "re", "enum", "typing", "gettext", "signal", "socket", "json", "subprocess", "dataclasses"}
    heavy |= {
        "asyncio",
        "anyio",
        "aiofiles",
        "structlog",
        "libarchive",
        "isal",
        "yaml",
        "tomllib",
        "threading",
        "logging",
    }
    assert not loaded & heavy


def test_mount_notation(tree: Path, guntainer: Run, home: Path) -> None:
    (home / "d").mkdir()
    for value in ("true", "TRUE", "1", "yes", ""):
        done = guntainer(
            "run", "--mount", f"type=bind,src={home}/d,dst=/m,ro{'=' * bool(value)}{value}", tree, "touch", "/m/x"
        )
        assert done.returncode == 1 and "Read-only" in done.stderr
    assert guntainer("run", "--mount", f"type=bind,src={home}/d,dst=/m,ro=no", tree, "touch", "/m/x").returncode == 0
    refused(guntainer("run", "--mount", f"src={home}/d,dst=/m,ro=maybe", tree, "true"), "maybe", "--mount")
    refused(guntainer("run", "--mount", "type=tmpfs,src=x,dst=/m", tree, "true"), "source does not go with type=tmpfs")
    refused(guntainer("run", "--mount", f"type=bind,src={home}/d,dst=/m,size=5", tree, "true"), "size does not go")
    refused(guntainer("run", "--mount", "dst=/m,sauce=/x", tree, "true"), 'did you mean "source"')


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("alpine", "true"),
            "rootfs alpine: No such file or directory; an image of a registry is docker://alpine",
        ),
        (("--pull", "never", "docker://alpine:3.20", "true"), "not in the store, and --pull never was given"),
        (("--pull", "newer", "x", "true"), "--pull newer: expected missing or always or never"),
        (("--platform", "windows/amd64", "x", "true"), "containers here are Linux ones"),
        (("--max-entries", "0", "x", "true"), "--max-entries: expected a whole number of at least 1"),
        (("--network", "bridge", "x", "true"), 'expected host or none or private (did you mean "private"?)'),
        (("--network", "hots", "x", "true"), 'expected host or none or private (did you mean "host"?)'),
        (("--cap-add", "SYS_ADMN", "x", "true"), 'unknown capability "SYS_ADMN" (did you mean "SYS_ADMIN"?)'),
        (("-e", "A B=1", "x", "true"), 'error: -e: "A B" can not name a variable'),
        (("--env-file", "vars", "x", "true"), 'vars:2: "export B": it is no shell script; leave the "export" out'),
        (("-v", ".:/x:ro,Z", "x", "true"), 'the end is "ro,Z"; leave the z out: files keep their labels here'),
        (("--rm=true", "x", "true"), "--rm takes no value, got 'true'"),
    ],
)
def test_usual_slips(guntainer: Run, home: Path, words: tuple[str, ...], said: str) -> None:
    (home / "work" / "vars").write_text("A=1\nexport B=2\n")
    refused(guntainer("run", *words), said)


def test_what_is_no_slip_gets_no_guess(guntainer: Run) -> None:
    for words in (("/srv/rootfs", "true"), ("./rootfs", "true"), ("alpine.tar.gz", "true")):
        assert "docker://" not in guntainer("run", *words).stderr
    for name in ("foo", "all_of_it"):
        assert "did you mean" not in guntainer("run", "--cap-add", name, "x").stderr


def test_mounts_in_each_other(tree: Path, guntainer: Run, home: Path) -> None:
    """The folder first, whatever the order of the options: nothing hides what was asked for."""
    for name in ("outer", "inner"):
        (home / name).mkdir()
        (home / name / name).write_text("")
    (home / "outer" / "in").mkdir()
    for order in (("inner:/m/in", "outer:/m"), ("outer:/m", "inner:/m/in")):
        options = [word for text in order for word in ("-v", f"{home}/{text}")]
        assert guntainer("run", *options, tree, "ls", "/m", "/m/in").stdout.split() == [
            "/m:",
            "in",
            "outer",
            "/m/in:",
            "inner",
        ]


def test_a_mount_in_place_of_a_default(tree: Path, guntainer: Run) -> None:
    done = guntainer("run", "--tmpfs", "/dev/shm:size=1m", tree, "sh", "-c", "cat /proc/mounts")
    rows = [line for line in done.stdout.splitlines() if " /dev/shm " in line]
    assert len(rows) == 1 and "size=1024k" in rows[0], done.stderr


def test_mismatched_mounts_are_named(tree: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    (home / "d").mkdir()
    (home / "f").write_text("")
    refused(
        guntainer("run", "-v", f"{home}/d:/etc/passwd", tree, "true"), "/etc/passwd", "a folder can only be mounted"
    )
    refused(guntainer("run", "-v", f"{home}/f:/etc", tree, "true"), "/etc", "a file on a file")
    refused(guntainer("run", "-v", f"{home}/nosuch:/m", tree, "true"), "does not exist")
    if os.geteuid():
        (home / "closed").mkdir()
        (home / "closed").chmod(0)
        refused(guntainer("run", "-v", f"{home}/closed/x:/m", tree, "true"), "Permission denied")
        (home / "closed").chmod(0o700)
    refused(guntainer("run", "-v", f"{home}/d:/m", "-v", f"{home}/f:/m/", tree, "true"), "mounted twice")
    traces.check()


def test_paths_with_unusual_names(tree: Path, guntainer: Run, home: Path) -> None:
    for name in ("with space", "com,ma", "new\nline", "back\\slash", "späße"):
        folder = home / name
        folder.mkdir()
        (folder / "file").write_text(name)
        shutil.copy(tree, folder / "a.tar.gz")
        done = guntainer(
            "run", "-v", f"{folder}:/m", "--store", folder / "store", folder / "a.tar.gz", "cat", "/m/file"
        )
        assert (done.returncode, done.stdout) == (0, name), done.stderr
    bad = os.fsencode(home) + b"/\xff\xfe"
    os.mkdir(bad)
    with open(bad + b"/file", "w") as file:
        file.write("x")
    line = [sys.executable, "-m", "guntainer", "run", b"-v", bad + b":/m", str(tree), "cat", "/m/file"]
    assert subprocess.run(line, capture_output=True, check=False).stdout == b"x"
    (home / "co:lon").mkdir()
    done = guntainer("run", "--mount", f"type=bind,src={home}/co:lon,dst=/m", tree, "ls", "/m")
    assert done.returncode == 0


def test_a_deleted_working_directory(tree: Path, guntainer: Run, home: Path) -> None:
    def there(*words: object) -> subprocess.CompletedProcess[str]:
        gone = home / "gone"
        gone.mkdir()
        script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
        line = ["sh", "-c", script, "-", str(gone), sys.executable, "-m", "guntainer", "run", *map(str, words)]
        return subprocess.run(line, capture_output=True, text=True, check=False)

    assert there(tree, "echo", "fine").stdout == "fine\n"
    refused(there("-v", ".:/m", tree, "ls", "/m"), "deleted")
    refused(there("--mount", "src=etc,dst=/m", tree, "ls", "/m"), "deleted")
    refused(there("rootfs.tar", "true"), "rootfs.tar", "deleted")


def test_sources_that_are_none(guntainer: Run, home: Path, tree: Path, traces: Traces) -> None:
    (home / "folder").mkdir()
    refused(guntainer("run", "--sha256", "0" * 64, home / "folder", "true"), "a folder has no sha256")
    refused(guntainer("run", "", "true"), "ROOTFS is empty")
    (home / "image").mkdir()
    (home / "image" / "oci-layout").write_text("{}")
    refused(guntainer("run", home / "image", "true"), "index.json: it is missing; the image is not whole")
    traces.check()


def test_env_files(tree: Path, guntainer: Run, home: Path) -> None:
    (home / "env").write_text("A=x\u2028y  \n  B=2\r\n# no\n\nC=a=b\n", newline="")
    done = guntainer("run", "--env-file", home / "env", tree, "sh", "-c", 'printf "%s|" "$A" "$B" "$C"')
    assert done.stdout == "x\u2028y  |2|a=b|"
    refused(guntainer("run", "--env-file", "/dev/zero", tree, "true"), "/dev/zero", "larger than")
    (home / "env").write_bytes(b"A=1\nB=x\0y\n")
    refused(guntainer("run", "--env-file", home / "env", tree, "true"), "env:2", "NUL")


def test_a_long_path(tree: Path, guntainer: Run) -> None:
    many = ":".join(f"/{number}" for number in range(40))
    done = guntainer("run", "-e", f"PATH={many}:/bin:/usr/bin", tree, "echo", "found")
    assert done.stdout == "found\n"
    assert guntainer("run", "-e", f"PATH={many}", tree, "echo").returncode == 127


@pytest.mark.parametrize("init", [[], ["--init"]])
def test_codes_of_commands_that_are_none(tree: Path, guntainer: Run, home: Path, init: list[str]) -> None:
    assert guntainer("run", *init, tree, "nosuch").returncode == 127
    assert guntainer("run", *init, tree, "/etc/nosuch").returncode == 127
    assert guntainer("run", *init, tree, "/etc/passwd").returncode == 126
    assert guntainer("run", *init, tree, "/etc").returncode == 126
    assert guntainer("run", *init, tree, "echo", "fine").stdout == "fine\n"


def test_too_long_a_command(tree: Path, guntainer: Run, home: Path) -> None:
    (home / "env").write_text("A=" + "x" * 131_100)
    refused(guntainer("run", "--env-file", home / "env", tree, "true"), "131", "bytes", "shorten")
    (home / "env").write_text("".join(f"A{number}={'x' * 100_000}\n" for number in range(30)))
    refused(guntainer("run", "--env-file", home / "env", tree, "true"), "3000", "Argument list too long", "shorten")


def test_windows_line_ends(tree: Path, guntainer: Run, home: Path) -> None:
    (home / "script").write_bytes(b"#!/bin/sh\r\necho no\r\n")
    (home / "script").chmod(0o755)
    done = guntainer("run", "-v", f"{home}:/h", tree, "/h/script")
    assert done.returncode == 127 and "Windows line ends" in done.stderr


def test_no_timeout(tree: Path, guntainer: Run) -> None:
    assert guntainer("run", "--timeout", "0", tree, "sleep", "0.3").returncode == 0
    refused(guntainer("run", "--timeout", "-1", tree, "true"), "timeout")


def test_the_callers_umask_stays_outside(tree: Path, guntainer: Run, home: Path, traces: Traces) -> None:
    line = [sys.executable, "-m", "guntainer", "run", str(tree), "sh", "-c", "stat -c %a / /etc /dev/shm; umask"]
    for umask in (0o077, 0o002):
        done = subprocess.run(line, capture_output=True, text=True, umask=umask, check=False)
        assert done.stdout.split() == ["755", "755", "1777", "0022"]


def test_what_is_kept_can_be_removed(tree: Path, guntainer: Run, home: Path) -> None:
    done = guntainer("run", "-q", "--keep", tree, "sh", "-c", "echo x > /x")
    upper = Path(done.stderr.rpartition("kept ")[2].partition(";")[0].strip())
    assert (upper / "x").exists()
    assert guntainer("run", tree, "true").returncode == 0
    subprocess.run(["rm", "-r", upper.parent.parent], check=True)
    shutil.rmtree(home / "tmp")


@pytest.mark.parametrize(
    "environment",
    [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "latin-1"}],
)
def test_help_in_any_locale(environment: dict[str, str], home: Path) -> None:
    for words in (["run", "--help"], ["batch", "--help"], ["store", "--help"], ["pack", "--help"], ["--help"]):
        line = [sys.executable, "-m", "guntainer", *words]
        done = subprocess.run(line, capture_output=True, env={**os.environ, **environment}, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"usage: guntainer" in done.stdout


def test_help_that_nobody_can_read(home: Path) -> None:
    line = f"{sys.executable} -m guntainer run --help > /dev/full"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 125 and "standard output: No space left" in done.stderr


def test_errors_as_json(guntainer: Run) -> None:
    done = guntainer("run", "--log-format", "json", "/nosuch", "true")
    import json

    assert done.returncode == 125
    assert json.loads(done.stderr)["level"] == "error" and "/nosuch" in json.loads(done.stderr)["event"]


def test_names_can_not_break_a_message(guntainer: Run, tree: Path) -> None:
    done = guntainer("run", tree, "no\nsuch\x1b[2J")
    assert done.returncode == 127 and len(done.stderr.splitlines()) == 1 and "\x1b" not in done.stderr


def test_debug_shows_where(guntainer: Run) -> None:
    done = guntainer("run", "--debug", "/nosuch", "true")
    assert done.returncode == 125 and "Traceback" in done.stderr and "guntainer: error:" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion(guntainer: Run, shell: str) -> None:
    done = guntainer("completion", shell)
    assert done.returncode == 0 and "stop-timeout" in done.stdout and "prune" in done.stdout


_ASK_BASH = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
read -r _ _ function _ < <(complete -p guntainer | sed "s/ -o [a-z]*//g")
"$function" guntainer "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
echo "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("option", "begun", "offered"),
    [
        ("--network", "", "host none private"),
        ("--limits", "", "required best-effort"),
        ("--userns", "", "auto single range"),
        ("--root-emulation", "", "auto on off"),
        ("--scratch", "m", "memory"),
        ("--cap-add", "NET_A", "NET_ADMIN"),
        ("--cap-drop", "AL", "ALL"),
        ("--stop-signal", "USR", "USR1 USR2"),
        ("--security-opt", "no", "no-new-privileges"),
    ],
)
def test_completion_of_values(guntainer: Run, home: Path, option: str, begun: str, offered: str) -> None:
    """What bash itself offers after an option; zsh's and tcsh's scripts name the same."""
    script = home / "guntainer.bash"
    script.write_text(guntainer("completion", "bash").stdout)
    line = ["bash", "-c", _ASK_BASH, "bash", str(script), "guntainer", "run", option, begun]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=home)
    assert (done.stdout, done.stderr) == (f"{offered}\n", "")
    for shell in ("zsh", "tcsh"):
        listed = [line for line in guntainer("completion", shell).stdout.splitlines() if option in line]
        assert any(offered.split()[-1] in line for line in listed), shell


def test_what_was_left_out_is_said(guntainer: Run, home: Path, traces: Traces) -> None:
    import tarfile

    path = home / "a.tar"
    assert guntainer("pack", "-q", "-o", path, "true").returncode == 0
    with tarfile.open(path, "a") as archive:
        for name in ("null", "zero"):
            info = tarfile.TarInfo(name)
            info.type, info.devmajor, info.devminor = tarfile.CHRTYPE, 1, 3
            archive.addfile(info)
    done = guntainer("run", path, "true")
    assert (done.returncode, done.stderr.count("2 devices or sockets left out")) == (0, 1)
    assert guntainer("run", path, "true").stderr == ""
    guntainer("store", "prune", "--all")
    (home / "jobs.toml").write_text(f'[jobs.a]\nrootfs = "{path}"\ncommand = ["true"]\nrepeat = 3\n')
    assert guntainer("batch", home / "jobs.toml").stderr.count("2 devices or sockets left out") == 1


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors(tree: Path, home: Path, closed: str, traces: Traces) -> None:
    """Their numbers must not become those of files of ours: output would end up in the store."""
    locks = {path: path.read_bytes() for path in (home / "store").rglob("lock")}
    assert locks
    script = "echo out; echo err >&2; cat; true"
    for words in (["-t", str(tree)], [str(tree)], ["--dry-run", str(tree)], ["--no-cache", str(tree)]):
        line = shlex.join([sys.executable, "-m", "guntainer", "run", *words, "sh", "-c", script])
        subprocess.run(["sh", "-c", f"exec {line} {closed}"], capture_output=True, input=b"", timeout=30, check=False)
        assert {path: path.read_bytes() for path in (home / "store").rglob("lock")} == locks
    traces.check()
