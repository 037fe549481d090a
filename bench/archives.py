"""Archives to unpack: a minimal Debian in several compressions, 100,000 small files, a container image of them; made once.

They are kept in $BENCH_CACHE, or ~/.cache/guntainer-bench, for a week: about 700 MB. The Debian is mmdebstrap(1)'s; where none
can be had it is as much of this machine's /usr, and its name says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import json
import os
import platform
import random
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

_WEEK_S = 7 * 24 * 3600.0
_SIZE = 170 << 20
SMALL_FILES = 100_000
COMPRESSORS = {
    ".gz": "gzip -6 -n",
    ".zst": "zstd -q -3 -T1",
    ".xz": "xz -6 -T1",
    ".blocks.xz": "xz -6 -T2",  # of 24 MiB each, as xz has them by itself
}


def cache() -> Path:
    path = Path(os.environ.get("BENCH_CACHE") or Path("~/.cache/guntainer-bench").expanduser())
    path.mkdir(parents=True, exist_ok=True)
    return path


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    path = cache() / f"bench-{name}"
    if not path.exists() or time.time() - path.stat().st_mtime > _WEEK_S:
        work = path.with_name(f".{name}.{os.getpid()}")
        try:
            make(work)
            work.replace(path)
        finally:
            work.unlink(missing_ok=True)
    return path


def system() -> Path:
    """A whole system's .tar, without devices: nobody here could make them."""
    try:
        made = _debian()
    except (ImportError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        print(f"no Debian can be had, /usr takes its place: {str(error).splitlines()[0]}")
        return _kept("usr.tar", _usr)
    return _kept("debian.tar", lambda path: _without_devices(made, path))


def _debian() -> Path:
    """The one that the tests are run on: tests/distro/debian.py."""
    place = Path(__file__).resolve().parent.parent / "tests" / "distro" / "debian.py"
    spec = importlib.util.spec_from_file_location("bench_debian", place)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is not there")
    debian = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(debian)
    os.environ["GUNTAINER_TEST_CACHE"] = str(cache())
    try:
        path: Path = debian.rootfs(cache())
    except debian.Missing as error:
        raise RuntimeError(str(error)) from None
    return path


def _without_devices(source: Path, path: Path) -> None:
    with tarfile.open(source) as old, tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as new:
        for info in old:
            if not info.isdev():
                new.addfile(info, old.extractfile(info) if info.isreg() else None)


def _usr(path: Path) -> None:
    """Files of this machine, in the order of their names, until there are enough of them."""
    left = _SIZE
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for folder, folders, files in os.walk("/usr"):
            folders.sort()
            for name in sorted(files):
                place = Path(folder, name)
                if left < 0 or not os.access(place, os.R_OK):
                    continue
                archive.add(place, arcname=str(place)[1:], recursive=False)
                left -= place.lstat().st_size


def packed(plain: Path, suffix: str) -> Path:
    def compress(path: Path) -> None:
        with plain.open("rb") as source, path.open("wb") as goal:
            subprocess.run(COMPRESSORS[suffix].split(), stdin=source, stdout=goal, check=True)

    return _kept(f"{plain.name.removeprefix('bench-')}{suffix}", compress)


def small_files() -> Path:
    """100 files of up to 800 bytes in each of 1,000 folders."""

    def make(path: Path) -> None:
        chance = random.Random(1)
        with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
            for number in range(SMALL_FILES):
                folder = f"pkg/folder-{number // 100:04}"
                if number % 100 == 0:
                    archive.addfile(_info(folder, tarfile.DIRTYPE, 0o755))
                data = bytes(chance.choices(b"abcdefghij \n", k=chance.randint(20, 800)))
                archive.addfile(
                    _info(f"{folder}/file-{number:06}.txt", tarfile.REGTYPE, 0o644, len(data)), io.BytesIO(data)
                )

    return packed(_kept("small.tar", make), ".gz")


def _info(name: str, kind: bytes, mode: int, size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.size, info.mtime = kind, mode, size, 1_700_000_000
    return info


def image(layer: Path, plain: Path, into: Path) -> Path:
    """An OCI image layout of one layer, tagged `bench`: OCI image specification, image-layout.md."""
    blobs = into / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    diff = hashlib.sha256(plain.read_bytes()).hexdigest()
    config = {
        "architecture": architecture,
        "os": "linux",
        "config": {},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{diff}"]},
    }

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob(json.dumps(config).encode(), "config.v1+json"),
        "layers": [blob(layer.read_bytes(), "layer.v1.tar+gzip")],
    }
    top = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    top["annotations"] = {"org.opencontainers.image.ref.name": "bench"}
    (into / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
    (into / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    return into
