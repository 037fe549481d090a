"""A TMPDIR without room: what is guntainer's own is an error that names it, what is the command's is told beside its failure."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Run, Traces, ended_jobs
from test_confined import confined

pytestmark = pytest.mark.usefixtures("user_namespaces")

SMALL = "mount -t tmpfs -o {0} none {1}\nexport TMPDIR={1}"
INODES = range(1, 15)  # from none for the run folder to enough for everything


@pytest.fixture
def warm(home: Path, small_archive: Path, guntainer: Run) -> Path:
    assert guntainer("run", small_archive, "true").returncode == 0
    return small_archive


def test_every_step_of_a_set_up_names_the_file_system(warm: Path, home: Path, traces: Traces) -> None:
    """With room for one file more each time another step is refused: the folder, the log, the layer, the overlay, the volume."""
    (home / "place").mkdir()
    volumes = [f"{home}/place:/no/such/place"]
    jobs = {"a": {"rootfs": str(warm), "command": ["true"], "volumes": volumes}}
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    steps = set()
    for count in INODES:
        small = SMALL.format(f"size=1m,nr_inodes={count}", home / "work")
        (result,) = ended_jobs(confined(small, "batch", "--json", "-", home / "jobs.json").stdout)
        if result["outcome"] == "ok":
            continue
        said = result["message"]
        assert (result["outcome"], result["reason"]) == ("error", "setup"), said
        assert f"{home}/work" in said and "free some" in said and "TMPDIR" in said, said
        steps.add(said.split()[0])
        run = confined(small, "run", "-v", volumes[0], warm, "true")
        lines = run.stderr.splitlines()
        assert (run.returncode, len(lines)) in ((125, 1), (0, 0))
        assert not lines or (f"{home}/work" in lines[0] and "free some" in lines[0])
    assert steps == {"no", "stdio:", "overlay", "place"}
    traces.check()


def test_a_command_that_fills_its_layer(warm: Path, home: Path, traces: Traces) -> None:
    """Its end is its own; that there was no room is told beside it, once, and only of one that has failed."""
    fill = "dd if=/dev/zero of=/big bs=1k count=900 2>/dev/null"
    small = SMALL.format("size=256k", home / "work")
    told = f"guntainer: warning: no space left on {home}/work (TMPDIR), where the writable layers are\n"
    done = confined(small, "run", warm, "sh", "-c", f"{fill}; exit 3")
    assert (done.returncode, done.stderr) == (3, told)
    assert confined(small, "run", warm, "sh", "-c", f"{fill}; exit 0").stderr == ""
    assert confined(small, "run", warm, "false").stderr == ""
    assert confined(small, "run", "--scratch", "memory:256k", warm, "sh", "-c", f"{fill}; exit 3").stderr == ""
    jobs = {"a": {"rootfs": str(warm), "run": f"{fill} || exit 3", "repeat": 2}}
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    done = confined(small, "batch", "-j1", "--json", "-", home / "jobs.json")
    results = ended_jobs(done.stdout)
    assert [(r["outcome"], r["code"]) for r in results] == [("failed", 3)] * 2
    assert all(told.partition(": warning: ")[2].strip() in r["notes"] for r in results)
    assert done.stderr.count("no space left on") == 1
    traces.check()
