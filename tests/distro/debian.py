"""A minimal Debian, made by mmdebstrap(1) from the mirror that this machine's apt is set up for.

Its .tar keeps owners, devices and setuid bits. It takes a quarter of a minute, so a folder for it may be named in
GUNTAINER_TEST_CACHE, or made as ~/.cache/guntainer-tests: one file of about 170 MB then lies there between sessions, and is
made again when it is a week old.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from guntainer import errors, idmap

_LIMIT_S = 300
_WEEK_S = 7 * 24 * 3600.0
_HELPER = "/usr/lib/apt/apt-helper"


class Missing(Exception):
    """Why no Debian can be made here."""


def rootfs(folder: Path) -> Path:
    """The .tar: of the cache, or made in `folder`.

    Raises:
        Missing: this machine lacks what that takes.
        RuntimeError: mmdebstrap failed.
    """
    name = f"debian-{_codename()}-{platform.machine()}.tar"
    kept = _cache()
    if kept is None:
        return _make(folder / name)
    path = kept / name
    for old in kept.glob("debian-*.tar*"):
        if old != path or time.time() - old.stat().st_mtime > _WEEK_S:
            old.unlink(missing_ok=True)
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=kept) as work:
            _make(Path(work, name)).replace(path)
    return path


def _cache() -> Path | None:
    given = os.environ.get("GUNTAINER_TEST_CACHE")
    path = Path(given) if given else Path("~/.cache/guntainer-tests").expanduser()
    return path if path.is_dir() else None


def _codename() -> str:
    try:
        return platform.freedesktop_os_release()["VERSION_CODENAME"]
    except (OSError, KeyError):
        raise Missing("this machine's distribution has no code name") from None


def _make(path: Path) -> Path:
    for program in ("apt-get", "mmdebstrap"):
        if shutil.which(program) is None:
            raise Missing(f"{program} is not installed")
    if os.geteuid() != 0:
        try:
            os.close(idmap.open_ids("range").namespace)
        except errors.HostError as error:
            raise Missing(f"mmdebstrap needs a range of ids: {error.message}") from None
    suite, mirror = _codename(), _mirror()
    mode = "root" if os.geteuid() == 0 else "unshare"
    line = ["mmdebstrap", f"--mode={mode}", "--variant=minbase", suite, str(path), f"deb {mirror} {suite} main"]
    # its sub-ids must be able to walk to its folder, which they could not below a test's own
    environment = {**os.environ, "TMPDIR": "/var/tmp", "LC_ALL": "C.UTF-8", **_proxies()}
    with subprocess.Popen(
        line, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            told, _ = process.communicate(timeout=_LIMIT_S)
        except BaseException:
            process.terminate()  # asked, it removes what it has made
            raise
    if process.returncode:
        raise RuntimeError(f"mmdebstrap ended with {process.returncode}:\n{told[-4000:]}")
    return path


def _mirror() -> str:
    """Where apt gets this machine's own release from, when it answers."""
    suite, wanted = _codename(), platform.freedesktop_os_release()["ID"]
    listed = subprocess.run(["apt-get", "update", "--print-uris"], capture_output=True, text=True, check=False)
    places = [word for line in listed.stdout.splitlines() for word in line.split("'")[1:2]]
    mark = f"/dists/{suite}/InRelease"
    for place in dict.fromkeys(place for place in places if place.endswith(mark)):
        if f"\norigin: {wanted}\n" in _read(place).lower():
            return place.removesuffix(mark)
    raise Missing(f"no mirror of {wanted} {suite} that this machine's apt is set up for answers")


def _read(place: str) -> str:
    """What lies there, fetched as this machine's apt would; "" where it is not to be had."""
    with tempfile.TemporaryDirectory() as work:
        target = f"{work}/InRelease"
        patience = ("-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20")
        done = subprocess.run([_HELPER, *patience, "download-file", place, target], capture_output=True, check=False)
        return Path(target).read_text(encoding="utf-8", errors="replace") if done.returncode == 0 else ""


def _proxies() -> dict[str, str]:
    """The proxies of this machine's apt, for mmdebstrap, which reads no other apt's settings."""
    found = {}
    for scheme in ("http", "https"):
        line = ["apt-config", "shell", "proxy", f"Acquire::{scheme}::Proxy"]
        told = subprocess.run(line, capture_output=True, text=True, check=False).stdout.strip()
        value = told.removeprefix("proxy='").removesuffix("'")
        if value and value != "DIRECT":
            found[f"{scheme}_proxy"] = value
    return found
