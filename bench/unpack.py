"""Unpack a whole system from each compression, on tmpfs; against tar, bsdtar, umoci, skopeo and podman."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from bench import archives, unpacker
from bench.measure import Outcome, interleave, run
from bench.peers import Ground

MOST_KIB = 64 << 10


def bench(ground: Ground, rounds: int) -> Outcome:
    plain = archives.system()
    outcome = Outcome(case=f"unpack: {plain.name}", unit="ms")
    place = unpacker.Place(ground)
    packed = {suffix: archives.packed(plain, suffix) for suffix in archives.COMPRESSORS}
    whole: dict[str, list[float]] = {}

    def ours(suffix: str) -> Callable[[], float]:
        def work(into: Path) -> float:
            alone, process = unpacker.unpack((packed[suffix], into / "it"))
            whole.setdefault(f"guntainer, whole process, {suffix}", []).append(process * 1e3)
            return alone

        return lambda: place.timed("system", work, "it/tree") * 1e3

    def peer(work: Callable[[Path], float], tree: str = "") -> Callable[[], float]:
        return lambda: place.timed("system", work, tree) * 1e3

    contestants: dict[str, Callable[[], float]] = {}
    for suffix, archive in packed.items():
        contestants[f"guntainer {suffix}"] = ours(suffix)
        contestants[f"tar {suffix}"] = peer(unpacker.tar(archive))
        if ground.installed("bsdtar"):
            contestants[f"bsdtar {suffix}"] = peer(unpacker.tar(archive, program="bsdtar"))
    if ground.installed("pigz"):
        contestants["tar, pigz .gz"] = peer(unpacker.tar(packed[".gz"], "-I", "pigz"))
    layout = archives.image(packed[".gz"], plain, ground.folder / "image")
    contestants |= {name: peer(work, tree) for name, (work, tree) in _images(ground, layout).items()}
    outcome.samples = interleave(rounds, contestants) | whole
    _goals(outcome)
    for suffix, archive in packed.items():
        peaks = unpacker.peak_kib(archive, ground.folder / "peak")
        for role, kib in peaks.items():
            outcome.bound(f"KiB at most of the {role}, {suffix}", kib, MOST_KIB)
    shutil.rmtree(layout)
    return outcome


def _goals(outcome: Outcome) -> None:
    for peer, suffix, wanted in (
        ("tar .gz", ".gz", 2.0),
        ("tar, pigz .gz", ".gz", 1.3),
        ("tar .zst", ".zst", 1.0),
        ("tar .blocks.xz", ".blocks.xz", 1.5),
        ("tar .xz", ".xz", 0.95),
    ):
        outcome.compare(f"{peer} takes × guntainer", peer, f"guntainer {suffix}", wanted, at_least=True)


def _images(ground: Ground, layout: Path) -> dict[str, tuple[Callable[[Path], float], str]]:
    """What makes a tree of an image with the same layer: (the work, where the tree is)."""
    found: dict[str, tuple[Callable[[Path], float], str]] = {}
    if ground.installed("umoci"):

        def umoci(into: Path) -> float:
            return run(["umoci", "unpack", "--rootless", "--image", f"{layout}:bench", str(into / "b")])

        found["umoci"] = umoci, "b/rootfs"
        if ground.installed("skopeo"):

            def both(into: Path) -> float:
                copy = ground.folder / "copy"
                taken = run(["skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:bench", f"oci:{copy}:bench"])
                taken += run(["umoci", "unpack", "--rootless", "--image", f"{copy}:bench", str(into / "b")])
                shutil.rmtree(copy)
                return taken

            found["skopeo, umoci"] = both, "b/rootfs"
    if ground.installed("podman"):
        archive = ground.folder / "image.tar"
        run(["tar", "-cf", str(archive), "-C", str(layout), "."])

        def podman(into: Path) -> float:
            roots = ["--root", str(into / "root"), "--runroot", str(into / "run")]
            return run(["podman", *roots, "--storage-driver", "vfs", "load", "-q", "-i", str(archive)])

        found["podman load"] = podman, "root/vfs/dir"
    return found
