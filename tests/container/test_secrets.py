"""Secrets: the job has them, and nothing shows them."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from conftest import Run, Traces

pytestmark = pytest.mark.usefixtures("user_namespaces")

VALUE = "hunter2/very+secret"
LINES = "first line of it\nsecond line of it"


def job_file(home: Path, archive: Path, text: str) -> Path:
    path = home / "work" / "jobs.toml"
    (home / "work" / "key").write_text(LINES + "\n")
    secrets = '[secrets.TOKEN]\nenv = "MY_TOKEN"\n[secrets.KEY]\nfile = "key"\n'
    path.write_text(f'{secrets}[rootfs.small]\nsource = "{archive}"\n[defaults]\nrootfs = "small"\n{text}')
    return path


def leaks(home: Path, *texts: str) -> list[str]:
    """Where a value can be read."""
    words = (VALUE, *LINES.splitlines(), base64.b64encode(VALUE.encode()).decode())
    files = [path for top in ("work/out", "tmp", "store") for path in (home / top).rglob("*") if path.is_file()]
    found = [str(path) for path in files for word in words if word.encode() in path.read_bytes()]
    return found + [text for text in texts for word in words if word in text]


SHOW = """[jobs.a]
secrets = ["TOKEN", "KEY"]
run = '''
test "$TOKEN" = "$(cat /given)"
echo "it is $TOKEN, and"
echo "to stderr: $TOKEN" >&2
echo "$KEY"
printf '%%s' "${TOKEN%%secret}"; sleep 0.2; echo secret
echo %s
%s
'''
volumes = ["given:/given:ro"]
"""


@pytest.mark.root
@pytest.mark.parametrize("mode", ["live", "group", "quiet"])
@pytest.mark.parametrize("end", ["true", "false"])
def test_they_are_masked_everywhere(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, mode: str, end: str
) -> None:
    (home / "work" / "given").write_text(VALUE)
    encoded = base64.b64encode(VALUE.encode()).decode()
    path = job_file(home, small_archive, SHOW % (encoded, end))
    text = path.read_text().replace(encoded, '$(echo "$ENC")')
    path.write_text(text.replace("[jobs.a]\n", f'[jobs.a]\nenv = {{ ENC = "{encoded}" }}\n'))
    done = guntainer(
        *("batch", "--output", mode, "--results", "out", "--json", "r.json", path),
        env={**os.environ, "MY_TOKEN": VALUE},
    )
    assert done.returncode == (end == "false"), done.stdout + done.stderr
    assert leaks(home, done.stdout, done.stderr, Path("r.json").read_text()) == []
    assert Path("out/a/stdout").read_text() == "it is ***, and\n***\n***\n***\n".replace(
        "***\n***\n***", "***\n***\n***"
    )
    assert Path("out/a/stderr").read_text() == "to stderr: ***\n"
    assert ("it is ***" in done.stdout) == (mode != "quiet" or end == "false")
    traces.check()


def test_also_without_a_folder_of_results(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    path = job_file(home, small_archive, '[jobs.a]\nrun = "echo $TOKEN; false"\nsecrets = "TOKEN"\n')
    done = guntainer("batch", "--output", "quiet", path, env={**os.environ, "MY_TOKEN": VALUE})
    assert done.returncode == 1 and "***" in done.stdout and leaks(home, done.stdout, done.stderr) == []
    traces.check()


def test_a_job_has_those_that_it_names(home: Path, small_archive: Path, guntainer: Run) -> None:
    text = '[jobs.a]\nrun = "env"\nsecrets = ["TOKEN"]\n[jobs.b]\nrun = "env"\n'
    done = guntainer(
        "batch", "--results", "out", job_file(home, small_archive, text), env={**os.environ, "MY_TOKEN": VALUE}
    )
    assert done.returncode == 0, done.stderr
    assert "TOKEN=***\n" in Path("out/a/stdout").read_text() and "KEY" not in Path("out/a/stdout").read_text()
    assert "TOKEN" not in Path("out/b/stdout").read_text()


def test_messages_of_our_own(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    """A command that is a secret and is not found: its name stands in the error."""
    text = f'[jobs.a]\ncommand = ["/{VALUE}"]\nsecrets = ["TOKEN"]\n'
    path = job_file(home, small_archive, text)
    done = guntainer("batch", "--results", "out", path, env={**os.environ, "MY_TOKEN": VALUE})
    assert done.returncode == 1 and "/***" in done.stdout and leaks(home, done.stdout, done.stderr) == []
    traces.check()


def test_names_of_files_in_notes(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    """Notes escape what could command a terminal, and a secret with that."""
    value = 'tok-"\u00e4\t-s3cr3t'
    text = """[jobs.a]
run = 'mkdir /w; ln -s nowhere "/w/x$TOKEN"'
secrets = ["TOKEN"]
artifacts = ["/w/**"]
"""
    path = job_file(home, small_archive, text)
    done = guntainer("batch", "--results", "out", path, env={**os.environ, "MY_TOKEN": value})
    shown = [done.stdout, done.stderr, Path("out/a/result.json").read_text()]
    assert done.returncode == 0 and "links that lead nowhere: /w/x***" in shown[2], shown
    assert not any("s3cr3t" in one for one in shown)
    traces.check()


def test_as_a_shell_shows_it(home: Path, small_archive: Path, guntainer: Run) -> None:
    text = '[jobs.a]\nrun = "set -x; true \\"$TOKEN\\"; export -p"\nsecrets = ["TOKEN"]\n'
    path = job_file(home, small_archive, text)
    env = {**os.environ, "MY_TOKEN": "it's-a-$ecret"}
    assert guntainer("batch", "--results", "out", path, env=env).returncode == 0
    shown = Path("out/a/stdout").read_text() + Path("out/a/stderr").read_text()
    assert shown.count("***") >= 2 and "ecret" not in shown, shown


@pytest.mark.parametrize("words", [["--list"], ["-n"], ["--check"]])
def test_looking_reads_none(home: Path, small_archive: Path, guntainer: Run, words: list[str]) -> None:
    path = job_file(home, small_archive, '[jobs.a]\nrun = "echo $TOKEN"\nsecrets = ["TOKEN"]\n')
    for env in ({**os.environ, "MY_TOKEN": VALUE}, {**os.environ}):
        done = guntainer("batch", *words, path, env=env)
        assert done.returncode == 0 and leaks(home, done.stdout, done.stderr) == []


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (None, "the variable MY_TOKEN is not set"),
        ("", "the variable MY_TOKEN is empty"),
        ("abc", "the variable MY_TOKEN has fewer than 4 bytes"),
        ("x" * 65537, "the variable MY_TOKEN has more than 64 KiB"),
    ],
)
def test_one_that_can_not_be_had(
    home: Path, small_archive: Path, guntainer: Run, traces: Traces, value: str | None, why: str
) -> None:
    """Found out before anything is begun; all of them at once."""
    text = '[jobs.b]\nrun = "true"\n[jobs.a]\nrun = "true"\nsecrets = ["TOKEN", "KEY"]\n'
    path = job_file(home, small_archive, text)
    (home / "work" / "key").unlink()
    env = {**os.environ} if value is None else {**os.environ, "MY_TOKEN": value}
    done = guntainer("batch", path, env=env)
    assert done.returncode == 2 and done.stdout == ""
    assert f"secret TOKEN: {why}" in done.stderr and "secret KEY: " in done.stderr and "No such file" in done.stderr
    assert value is None or len(value) < 4 or value not in done.stderr
    assert not (home / "store" / "rootfs").exists() or not os.listdir(home / "store" / "rootfs")
    traces.check()


@pytest.mark.parametrize("kind", ["fifo", "folder"])
def test_a_file_that_is_none(home: Path, small_archive: Path, guntainer: Run, traces: Traces, kind: str) -> None:
    path = job_file(home, small_archive, '[jobs.a]\nrun = "true"\nsecrets = ["KEY"]\n')
    (home / "work" / "key").unlink()
    os.mkfifo("key") if kind == "fifo" else os.mkdir("key")
    done = guntainer("batch", path)
    assert done.returncode == 2 and "secret KEY: " in done.stderr and "Traceback" not in done.stderr
    traces.check()


def test_a_process_that_escapes_with_the_pipe(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    text = (
        '[jobs.a]\nrun = "(sleep 0.1; echo late $TOKEN) & printf %s ${TOKEN%-*}; echo; exit 0"\nsecrets = ["TOKEN"]\n'
    )
    path = job_file(home, small_archive, text)
    done = guntainer("batch", "--results", "out", path, env={**os.environ, "MY_TOKEN": "half-other-half"})
    assert done.returncode == 0 and Path("out/a/stdout").read_text() == "half-other\n"
    traces.check()


def test_much_output_is_exact(home: Path, small_archive: Path, guntainer: Run, traces: Traces) -> None:
    """Bytes of any kind, a secret now and then, several jobs at once."""
    (home / "work" / "noise").write_bytes(os.urandom(3 << 20).replace(b"hunter2/very+secret", b""))
    text = """[jobs.a]
run = "cat noise; echo $TOKEN; cat noise; printf %s $TOKEN"
secrets = ["TOKEN"]
workspace = "."
matrix = { n = [1, 2, 3] }
"""
    path = job_file(home, small_archive, text)
    done = guntainer("batch", "--output", "quiet", "--results", "../out", path, env={**os.environ, "MY_TOKEN": VALUE})
    assert done.returncode == 0, done.stderr
    noise = Path("noise").read_bytes()
    for number in (1, 2, 3):
        assert (home / "out" / f"a ({number})" / "stdout").read_bytes() == noise + b"***\n" + noise + b"***"
    traces.check()
