"""Compiled filters in the store: what a hit costs, what makes a new entry, and stores that are damaged, full or closed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from guntainer import capabilities, errors
from guntainer.seccomp import cache, verdicts

PROJECT = Path(__file__).resolve().parent.parent.parent


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    path.mkdir(0o700)
    return path


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every program that was compiled, in order."""
    done: list[bytes] = []
    real = verdicts.compile_program

    def noted(*arguments: object, **options: object) -> bytes:
        done.append(real(*arguments, **options))  # type: ignore[arg-type]
        return done[-1]

    monkeypatch.setattr(verdicts, "compile_program", noted)
    return done


def program(
    store: Path,
    profile: str = "default",
    held: frozenset[str] = capabilities.DEFAULT,
    *,
    emulate_root: bool = False,
) -> bytes:
    return cache.program(str(store), profile=profile, capabilities=held, emulate_root=emulate_root)


def entries(store: Path) -> list[Path]:
    return sorted((store / "seccomp").iterdir())


def own_profile(path: Path, error: int = 5) -> str:
    rule = {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": error}
    path.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    return str(path)


def test_a_program_is_compiled_once(store: Path, compiled: list[bytes]) -> None:
    first = program(store)
    assert program(store) == program(store) == first == compiled[0]
    assert len(compiled) == 1 and len(first) % 8 == 0 and 8 * 50 < len(first) < 8 * 400
    (entry,) = entries(store)
    assert entry.stat().st_mode & 0o777 == 0o600 and (store / "seccomp").stat().st_mode & 0o777 == 0o700


def test_nothing_to_filter(store: Path, compiled: list[bytes]) -> None:
    assert program(store, "unconfined") == b""
    assert compiled == [] and not (store / "seccomp").exists()
    assert program(store, "unconfined", emulate_root=True) == program(store, "unconfined", emulate_root=True) != b""
    assert program(store, "unconfined", frozenset(), emulate_root=True) == compiled[0] and len(compiled) == 1


def test_what_makes_another_program(store: Path, compiled: list[bytes], tmp_path: Path) -> None:
    path = own_profile(tmp_path / "profile.json")
    made = {
        program(store),
        program(store, emulate_root=True),
        program(store, held=frozenset()),
        program(store, path),
        program(store, path, emulate_root=True),
    }
    assert len(made) == len(compiled) == len(entries(store)) == 5
    before = program(store, path)
    own_profile(tmp_path / "profile.json", 6)  # of the same length: the time tells
    assert program(store, path) != before
    other = own_profile(tmp_path / "other.json", 6)
    os.replace(other, path)
    assert program(store, path) == compiled[-1] and len(compiled) == 7


def test_a_hit_imports_nothing(store: Path) -> None:
    program(store)
    code = f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
from guntainer import capabilities
before = set(sys.modules)
from guntainer.seccomp import cache
found = cache.program({str(store)!r}, profile="default", capabilities=capabilities.DEFAULT, emulate_root=False)
assert found
print(*sorted(set(sys.modules) - before))
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) <= {"guntainer.seccomp", "guntainer.seccomp.cache", "zlib"}


@pytest.mark.parametrize("damage", ["cut", "longer", "emptied", "one bit", "garbage", "another's"])
def test_a_damaged_entry_is_made_anew(store: Path, compiled: list[bytes], damage: str) -> None:
    whole = program(store)
    (entry,) = entries(store)
    content = entry.read_bytes()
    entry.write_bytes(
        {
            "cut": content[:-3],
            "longer": content + b"\0" * 8,
            "emptied": content[: -len(whole)],
            "one bit": content[:-1] + bytes([content[-1] ^ 1]),
            "garbage": b"\xff" * 100,
            "another's": content.replace(b"CAP_CHOWN", b"CAP_KLING"),
        }[damage]
    )
    assert program(store) == whole and len(compiled) == 2
    assert entry.read_bytes() == content and program(store) == whole and len(compiled) == 2


def test_an_entry_that_can_not_be_read(store: Path, compiled: list[bytes]) -> None:
    whole = program(store)
    (entry,) = entries(store)
    entry.unlink()
    entry.symlink_to("/dev/zero")
    assert program(store) == whole and not entry.is_symlink() and len(compiled) == 2
    entry.unlink()
    entry.mkdir()  # in the way: not ours to remove
    assert program(store) == whole and len(compiled) == 3


@pytest.mark.parametrize("reason", ["missing", "closed", "a file in the way", "full"])
def test_a_store_that_takes_nothing(
    store: Path, compiled: list[bytes], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = store
    if reason == "missing":
        place = store / "not" / "there"
    elif reason == "closed":
        store.chmod(0o500)
        if os.geteuid() == 0:  # whom no mode keeps out
            monkeypatch.setattr(os, "mkdir", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    elif reason == "a file in the way":
        (store / "seccomp").write_text("")
    else:
        monkeypatch.setattr(os, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert program(place) == program(place) != b"" and len(compiled) == 2
    assert not (store / "seccomp").is_dir() or entries(store) == [], "nothing half made is left"


def test_the_store_keeps_a_bounded_number(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MOST_ENTRIES", 5)
    folder = store / "seccomp"
    folder.mkdir()
    for age in range(20):
        (folder / f"old{age:02}").write_text("")
        os.utime(folder / f"old{age:02}", (1000 - age, 1000 - age))
    program(store)
    assert [entry.name for entry in entries(store) if entry.name.startswith("old")] == [
        f"old{age:02}" for age in range(4)
    ]
    assert len(entries(store)) == 5


def test_a_profile_that_is_not_there(store: Path) -> None:
    with pytest.raises(errors.UsageError, match=r"^seccomp profile /no/such\\x1bfile: No such file or directory$"):
        program(store, "/no/such\x1bfile")
    with pytest.raises(errors.UsageError, match="Is a directory"):
        program(store, str(store))


def test_a_wrong_profile_leaves_nothing(store: Path, tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text("{")
    for _ in range(2):
        with pytest.raises(errors.UsageError, match="no JSON"):
            program(store, str(tmp_path / "profile.json"))
    assert not (store / "seccomp").exists()
