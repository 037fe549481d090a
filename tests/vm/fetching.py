"""Debian packages that the throw-away kernels are made of: fetched with apt-get by any user, into a cache folder.

Nothing is installed, and nothing of a package is run here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, NoReturn

FAILED = 125


def fail(message: str) -> NoReturn:
    print(f"vm: {message}", file=sys.stderr)
    raise SystemExit(FAILED)


def cache(name: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, name)


def fill(folder: Path, make: Callable[[Path], Path]) -> None:
    """Put a folder into the cache, whole or not at all.

    Args:
        make: is given a folder to work in, and returns the one below it that is to stay.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{folder.name}.") as work:
        made = make(Path(work))
        try:
            os.rename(made, folder)
        except OSError:
            if not folder.exists():  # else another one was faster
                raise


def unpack(package: str, wanted: tuple[str, ...], into: Path) -> None:
    """Download a package and unpack its files that begin with one of these (`./usr/bin/…`)."""
    with tempfile.TemporaryDirectory(dir=into) as work:
        download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=", "download", package]
        if subprocess.run(download, cwd=work, stdout=sys.stderr).returncode != 0:
            fail(f"{package} can not be downloaded: install that package, or run apt-get update")
        file = next(Path(work).glob("*.deb"))
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", file], stdout=subprocess.PIPE) as content:
            assert content.stdout is not None
            with tarfile.open(fileobj=content.stdout, mode="r|") as archive:
                for one in archive:
                    if one.isreg() and one.name.startswith(wanted) and ".." not in one.name.split("/"):
                        _write(into / one.name, archive.extractfile(one), one.mode)


def _write(path: Path, content: IO[bytes] | None, mode: int) -> None:
    assert content is not None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.read())
    path.chmod(mode & 0o777)


def stands_for(package: str) -> str:
    """What a package of no content depends on: `linux-image-amd64` → `linux-image-6.1.0-49-amd64`."""
    words = ["env", "LC_ALL=C", "apt-cache", "depends", package]
    asked = subprocess.run(words, capture_output=True, text=True)
    found = [line.split()[-1] for line in asked.stdout.splitlines() if line.strip().startswith("Depends: ")]
    return found[0] if found else fail(f"apt-get knows no package {package}: run apt-get update")
