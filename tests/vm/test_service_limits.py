"""A service with limits of its own, in a kernel that has control groups: its readiness command is in its group."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import Traces
from scopes import Scope, delegated, scope

pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("user_namespaces")]
READY = "test $(cat /proc/self/cgroup) = 0::/ && cd /sys/fs/cgroup && test $(cat pids.max memory.max | wc -c) = 12"


@pytest.mark.root
@pytest.mark.parametrize("userns", ["single", "range"])
def test_a_service_with_limits(scope: Scope, home: Path, small_archive: Path, traces: Traces, userns: str) -> None:
    db = {"run": "sleep 50", "memory": "64m", "pids-limit": 20, "ready": READY, "ready-timeout": 5}
    job = {"run": "cat /sys/fs/cgroup/pids.max; true", "services": ["db"], "network": "none", "pids-limit": 30}
    path = home / "jobs.json"
    both = [{name: {**keys, "rootfs": str(small_archive)}} for name, keys in (("db", db), ("a", job))]
    path.write_text(json.dumps({"services": both[0], "jobs": both[1]}))
    done = scope.run("batch", "--userns", userns, "--output", "group", path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "30" in done.stdout + done.stderr
    traces.check()
