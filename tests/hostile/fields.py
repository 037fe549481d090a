"""What every hostile test stands on: a store of its own, a folder outside that nobody may touch, and a look at both after it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from guntainer import errors, idmap
from guntainer.idmap import Ids
from guntainer.store import fill
from guntainer.store.filling import Filling, Wanted, wanted_archive
from guntainer.store.lookup import LAYER, ROOTFS, open_store
from guntainer.store.remove import remove_tree

LIMIT_MIB = 160
"""More than this an unpacker never takes, whatever the archive says, beyond what this process has that it is forked from."""


class Field:
    """One store, and what lies around it."""

    def __init__(self, home: Path, ids: Ids) -> None:
        self.home = home
        self.store = open_store(None, ids)
        self.peak_kib = 0
        self._outside = [home / "evil", home / "work", home / "sentinel", Path("/tmp/evil"), Path("/evil")]
        (home / "sentinel" / "d").mkdir(parents=True)
        (home / "sentinel" / "file").write_text("mine")
        (home / "sentinel" / "d" / "link").symlink_to("../file")
        self._before = self._look()

    def _look(self) -> dict[str, object]:
        found: dict[str, object] = {}
        for top in self._outside:
            for path in [top, *sorted(top.rglob("*"))] if top.is_dir() else [top] * os.path.lexists(top):
                status = path.lstat()
                content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
                found[str(path)] = (status.st_mode, status.st_ino, status.st_nlink, status.st_mtime_ns, content)
        return found

    def unpack(self, data: bytes, *, layer: bool = False, limits: tuple[int, int] | None = None) -> str:
        """Give an archive to the store: the path of its tree.

        Raises:
            GuntainerError: it is refused; on one line, and with its name.
        """
        path = self.home / "archive"
        path.write_bytes(data)
        if layer:
            digest = hashlib.sha256(data).hexdigest()
            wanted = Wanted(
                name="archive",
                source=("file", str(path), 0, len(data)),
                key=f"layer-{digest}",
                kind=LAYER,
                sha256=digest,
                limits=limits,
            )
        else:
            wanted = wanted_archive(str(path), None, limits)
        filling = Filling(self.store, wanted)
        wait = os.waitpid

        def measured(pid: int, options: int) -> tuple[int, int]:
            pid, status, usage = os.wait4(pid, options)
            self.peak_kib = max(self.peak_kib, usage.ru_maxrss)
            return pid, status

        os.waitpid = measured
        try:
            lease = fill.Crew((filling,), 1).run()[filling]
        except errors.GuntainerError as error:
            assert len(str(error).splitlines()) == 1, str(error)
            assert "archive" in str(error)
            assert os.listdir(self.home / "store" / ROOTFS) == []
            raise
        finally:
            os.waitpid = wait
            self.check()
        lease.release()
        return lease.tree

    def check(self) -> None:
        """Nothing outside is touched, nothing partial is left, and memory was bounded."""
        assert self._look() == self._before
        assert os.listdir(self.home / "store" / "incoming") == []
        assert self.peak_kib < _own_kib() + (LIMIT_MIB << 10), f"{self.peak_kib >> 10} MiB"

    def empty(self) -> None:
        """Forget what was unpacked."""
        for kind in (ROOTFS, LAYER, "index"):
            folder = self.home / "store" / kind
            for name in os.listdir(folder):
                remove_tree(str(folder / name))


def _own_kib() -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise AssertionError


@pytest.fixture
def field(home: Path) -> Field:
    return Field(home, Ids())


@pytest.fixture
def field_of_many(home: Path) -> Iterator[Field]:
    """With a range of ids, where there is one: the unpacker is root in it, and could do more."""
    ids = idmap.open_ids()
    yield Field(home, ids)
    if ids.namespace >= 0:
        os.close(ids.namespace)
