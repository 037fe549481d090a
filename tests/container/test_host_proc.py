"""Where the host's processes are seen, none of them is a way out, nor into another container: with a range of ids too."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Traces, ended_jobs
from test_confined import MASKED
from test_no_pid import NONE

pytestmark = [pytest.mark.usefixtures("user_namespaces", "a_range"), pytest.mark.root]

KEEPER = "echo secret of keeper > /secret; while ! test -e /shared/done; do sleep 0.05; done"
FINDER = """
set +e
sleep 0.5
for place in /proc/[0-9]*; do
    cat $place/root/secret $place/root/etc/shadow
    name=$(cat $place/comm)
    if test "$name" = "$LOOKED_FOR"; then echo "#!$place/root$VICTIM" > /shared/script; fi
done 2>/dev/null
echo > /shared/done
"""


def host(script: str, *words: object) -> subprocess.CompletedProcess[str]:
    """The program as root of a host with a range of ids that `script` has worked over."""
    program = [sys.executable, "-m", "guntainer"]
    inside = ["unshare", "-mp", "--fork", "--mount-proc", "sh", "-ec"]
    line = [*program, "unshare", *inside, f"{script}\n{shlex.join([*program, *map(str, words)])}"]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("rung", ["host-proc", "no-pid"])
def test_a_batch(home: Path, small_archive: Path, traces: Traces, rung: str) -> None:
    """By the fork helper's number, which one job finds out for the next: a script's interpreter is looked up with every
    capability that the launch has."""
    shared = home / "shared"
    shared.mkdir()
    victim = home / "victim"
    shutil.copy("/bin/true", victim)
    (shared / "script").write_text("#!/nowhere\n")
    (shared / "script").chmod(0o755)
    common = {"rootfs": str(small_archive), "volumes": [f"{shared}:/shared"]}
    known = {"LOOKED_FOR": "guntainer-fork", "VICTIM": str(victim)}
    jobs = {
        "keeper": {**common, "run": KEEPER},
        "finder": {**common, "run": FINDER, "env": known},
        "user": {**common, "command": ["/shared/script"]},
    }
    (home / "jobs.json").write_text(json.dumps({"jobs": jobs}))
    script = {"host-proc": MASKED, "no-pid": NONE}[rung]
    done = host(script, "batch", "--userns", "range", "-j2", "--json", home / "report", home / "jobs.json")
    results = {one["id"]: one for one in ended_jobs((home / "report").read_text())}
    assert {one["isolation"] for one in results.values()} == {rung}, done.stderr
    assert (results["keeper"]["outcome"], results["finder"]["outcome"]) == ("ok", "ok"), done.stdout
    assert (shared / "script").read_text().startswith("#!/proc/"), "the helper was not found"
    assert results["user"]["outcome"] == "error" and "Permission denied" in results["user"]["message"], done.stdout
    assert "secret" not in done.stdout and "root:" not in done.stdout
    traces.check()


@pytest.mark.parametrize("rung", ["host-proc", "no-pid"])
def test_run(home: Path, small_archive: Path, traces: Traces, rung: str) -> None:
    """`run` clones its container itself. Its number is the one of the shell that becomes it."""
    victim = home / "victim"
    shutil.copy("/bin/true", victim)
    (home / "shared").mkdir()
    script = {"host-proc": MASKED, "no-pid": NONE}[rung]
    place = home / "shared" / "script"
    prepare = f'{script}\necho "#!/proc/$$/root{victim}" > {place}\nchmod 755 {place}\nexec \\'
    done = host(prepare, "run", "--userns", "range", "-v", f"{home}/shared:/shared", small_archive, "/shared/script")
    assert f"isolation: {rung}" in done.stderr
    assert place.read_text() == f"#!/proc/1/root{victim}\n"
    assert done.returncode == 126 and "Permission denied" in done.stderr, done.stderr
    traces.check()
