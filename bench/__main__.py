"""`python -m bench [CASE…]`: run the cases, print the tables, write bench/results/<time>.json.

As root it gives its rights up first (to BENCH_USER, else to the first ordinary user), because everything here is rootless;
and it hides a hybrid cgroup v2 mount from the peers in a mount namespace of its own, since crun and podman refuse such hosts.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import pwd
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.measure import Outcome
from bench.peers import Ground

CASES = (
    "throughput", "start", "layers", "cold", "scale", "stream", "matrix", "unpack", "crowd", "removal", "gaps",
    "batches",
)  # fmt: skip
HERE = Path(__file__).resolve().parent


def give_up_root() -> None:
    name = os.environ.get("BENCH_USER") or next(
        (entry.pw_name for entry in pwd.getpwall() if 1000 <= entry.pw_uid < 60000), ""
    )
    if not name:
        sys.exit("bench: there is no ordinary user to run as; make one, or set BENCH_USER")
    hide = "test -d /sys/fs/cgroup/unified && mount -t tmpfs none /sys/fs/cgroup/unified; "
    user = f'exec setpriv --reuid={name} --regid={name} --init-groups "$@"'
    home = pwd.getpwnam(name).pw_dir
    words = ["env", f"HOME={home}", f"USER={name}", "BENCH_USER=", sys.executable, "-m", "bench", *sys.argv[1:]]
    os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", "sh", "-c", hide + user, "bench", *words])


def facts() -> dict[str, str]:
    versions = {}
    for name in ("bwrap", "crun", "runc", "podman"):
        try:
            done = subprocess.run(
                [name, "--version"],
                capture_output=True,
                text=True,
                check=False,
                env={"PATH": "/usr/bin:/usr/sbin:/bin"},
            )
            versions[name] = (done.stdout.splitlines() or [""])[0]
        except OSError:
            versions[name] = "not installed"
    cpu = next((line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), "?")
    return {
        "kernel": platform.release(),
        "cpu": f"{len(os.sched_getaffinity(0))} × {cpu}",
        "python": platform.python_version(),
        "user": str(os.getuid()),
        "load": " ".join(map(str, os.getloadavg())),
        **versions,
    }


def noise() -> str:
    """How steady this machine is: the same short work, many times."""
    taken = []
    for _ in range(50):
        started = time.perf_counter()
        sum(range(200_000))
        taken.append(time.perf_counter() - started)
    taken.sort()
    return f"the same work takes {taken[0] * 1e3:.1f} ms at best, {taken[25] * 1e3:.1f} in the middle, {taken[-1] * 1e3:.1f} at worst"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Compare guntainer with the tools that are installed."
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)} (default: all)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    args = parser.parse_args()
    unknown = set(args.cases) - set(CASES)
    if unknown:
        parser.error(f"unknown case {', '.join(sorted(unknown))}")
    if os.geteuid() == 0:
        give_up_root()
    rootfs = Path(os.environ.get("GUNTAINER_TEST_ROOTFS") or HERE.parent.parent / "shared" / "rootfs")
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    known = facts()
    for name, value in known.items():
        print(f"{name:8} {value}")
    print(f"{'noise':8} {noise()}")
    ground = Ground(Path(tempfile.mkdtemp(prefix="guntainer-bench-", dir=place)), rootfs)
    outcomes: list[Outcome] = []
    try:
        for name in args.cases or CASES:
            outcome: Outcome = importlib.import_module(f"bench.{name}").bench(ground, args.rounds)
            print(outcome.table(), flush=True)
            outcomes.append(outcome)
        for name, why in ground.absent.items():
            print(f"{name:8} left out: {why}")
    finally:
        ground.close()
    write(known, outcomes)
    return 0


def write(known: dict[str, str], outcomes: list[Outcome]) -> None:
    folder = HERE / "results"
    data = {"facts": known, "cases": [dataclasses.asdict(outcome) for outcome in outcomes]}
    try:
        folder.mkdir(exist_ok=True)
        path = folder / f"{time.strftime('%Y%m%d-%H%M%S')}.json"
    except OSError:
        path = Path(tempfile.gettempdir()) / f"guntainer-bench-{time.strftime('%Y%m%d-%H%M%S')}.json"
    try:
        path.write_text(json.dumps(data, indent=2))
    except OSError:
        path = Path(tempfile.gettempdir()) / path.name
        path.write_text(json.dumps(data, indent=2))
    print(f"\nwritten to {path}")


if __name__ == "__main__":
    sys.exit(main())
