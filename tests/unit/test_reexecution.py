"""`run` begins again from a sealed copy: what of its caller must not be lost, and what must not stop it."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from guntainer import exeseal, hostids

pytestmark = pytest.mark.root

BEGIN = "import os, sys\nfrom guntainer import errors, exeseal\n"
AGAIN = BEGIN + "exeseal.reexecute()\nprint(exeseal.is_sealed())\n"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A Python that a container could change."""
    folder = tmp_path / "real" / "bin"
    folder.mkdir(parents=True)
    shutil.copy(os.path.realpath(sys.executable), folder / "python3")
    (folder / "python3").chmod(0o755)
    return folder / "python3"


def environment() -> dict[str, str]:
    folders = [*filter(None, sys.path), os.environ.get("PYTHONPATH", ""), os.getcwd()]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders)), "PYTHONDONTWRITEBYTECODE": "1"}


def run(python: Path, code: str, *, descriptors: int = 0) -> subprocess.CompletedProcess[str]:
    def limit() -> None:
        if descriptors:
            resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

    line = [python, "-c", code]
    return subprocess.run(
        line, env=environment(), capture_output=True, text=True, timeout=30, preexec_fn=limit, check=False
    )


def test_few_descriptors(own: Path) -> None:
    """They are raised later, by whoever needs more."""
    done = run(own, AGAIN + "print(os.sysconf('SC_OPEN_MAX'))", descriptors=12)
    assert done.stdout == "True\n12\n", done.stderr


def test_an_environment_that_no_shell_makes(own: Path) -> None:
    """A variable without a name is left out, bytes that are no text stay."""
    code = AGAIN + "print(os.environb[b'MARK'], sorted(name for name in os.environ if not name or 'SEALED' in name))"
    caller = (
        "import ctypes, os, sys\nlibc = ctypes.CDLL(None)\nwords = [os.fsencode(word) for word in sys.argv[1:]]\n"
        "there = [name + b'=' + value for name, value in os.environb.items()] + [b'=x', b'MARK=\\xff\\xe9']\n"
        "argv, envp = ((ctypes.c_char_p * (len(one) + 1))(*one) for one in (words, there))\n"
        "libc.execve(words[0], argv, envp)\n"
    )
    line = [sys.executable, "-c", caller, str(own), "-c", code]
    done = subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=30, check=False)
    assert done.stdout == "True\nb'\\xff\\xe9' []\n", done.stderr


def test_it_begins_again_once(own: Path) -> None:
    """Where the copy executes something else, or can not be told from the file, it would begin for ever."""
    code = (
        BEGIN + "exeseal.is_sealed = lambda: False\n"
        "try:\n    exeseal.reexecute()\nexcept errors.HostError as error:\n    print(error.message, error.probe)\n"
    )
    done = run(own, code)
    assert "no sealed copy can be executed here: /proc is not mounted, or " in done.stdout, done.stderr
    assert done.stdout.endswith(" python\n")


def test_a_link_in_a_venv(tmp_path: Path, own: Path) -> None:
    """The loader is told the file, for libraries that lie beside it ($ORIGIN); the interpreter is told the link."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "pyvenv.cfg").write_text(f"home = {own.parent}\n")
    link = venv / "bin" / "python"
    link.symlink_to(own)
    done = run(
        link, AGAIN + "print(sys.executable, sys.prefix)\nprint(open('/proc/self/cmdline').read().split('\\0')[:4])"
    )
    sealed, places, words = done.stdout.splitlines()
    assert (sealed, places) == ("True", f"{link} {venv}"), done.stderr
    with open(exeseal.elf_loader(str(own)), "rb") as file:
        if b"argv0" in file.read():
            assert words == str([str(link), "--argv0", str(link), str(own)])


def test_a_loader_that_takes_no_name(tmp_path: Path) -> None:
    (tmp_path / "ld.so").write_bytes(b"\x7fELF, --library-path")
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    link = str(tmp_path / "link")
    loader, file = str(tmp_path / "ld.so"), str(tmp_path / "file")
    assert exeseal._for_loader(loader, link, file) == [link, link]
    assert exeseal._for_loader(loader, str(tmp_path / "wrapper"), file) == [file, file]


def test_a_file_of_somebody_elses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a sub-id of the caller's, which a container's root may act for; root is nobody's."""
    file = tmp_path / "python"
    file.write_bytes(b"")
    monkeypatch.setattr(hostids, "UID", 4242)
    cases = [
        (4242, 100005, 0o755, True),
        (4242, 0, 0o755, False),
        (4242, 0, 0o775, True),
        (0, 65534, 0o755, False),  # seen from inside of a user namespace: the host's root
        (0, 0, 0o755, True),
        (0, 5, 0o755, True),
    ]
    real = os.stat(file)
    for us, owner, mode, exposed in cases:
        found = os.stat_result((mode, *real[1:4], owner, *real[5:]))
        with monkeypatch.context() as patch:
            patch.setattr(os, "geteuid", lambda us=us: us)
            patch.setattr(os, "access", lambda *_: False)
            patch.setattr(os, "stat", lambda *_, found=found, **__: found)
            answer = exeseal.is_exposed(str(file))
        assert answer == exposed, (us, owner, mode)
