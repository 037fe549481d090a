"""The doctor's probes of control groups and private networks, in a kernel that has both."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import scopes
from conftest import Traces
from scopes import Scope

from guntainer.doctor.cgroups import CONTROLLERS

delegated, scope = scopes.delegated, scopes.scope
pytestmark = [pytest.mark.vm, pytest.mark.usefixtures("user_namespaces")]


def found(scope: Scope, *words: object, **options: object) -> dict[str, dict[str, object]]:
    done = scope.run("doctor", "--json", *words, **options)
    assert done.stdout, done.stderr
    return {one["id"]: one for one in json.loads(done.stdout)["probes"]}


@pytest.mark.qemu  # which has all of them
def test_each_controller_that_is_given_is_ok(scope: Scope, traces: Traces) -> None:
    given = (scope.path / "cgroup.controllers").read_text().split()
    assert given
    probes = found(scope)
    assert probes["cgroup"]["status"] == "ok" and str(scope.path) in str(probes["cgroup"]["found"])
    for name in CONTROLLERS:
        probe = probes[f"cgroup-{name}"]
        assert probe["status"] == ("ok" if name in given else "missing"), probe
        assert bool(probe["remedy"]) is (name not in given)
    traces.check()


def test_a_group_with_others_in_it(scope: Scope, small_archive: Path) -> None:
    other = scope.start_program("sleep", "60")
    try:
        probes = found(scope)
        assert probes["cgroup"]["status"] == "missing" and "sleep" in str(probes["cgroup"]["found"])
        assert {probes[f"cgroup-{name}"]["because"] for name in CONTROLLERS} == {"cgroup"}
        done = scope.run("run", "-m", "64m", small_archive, "true")
        assert done.returncode == 125 and done.stderr.endswith("(guntainer doctor cgroup)\n")
    finally:
        other.kill()
        other.communicate()


def test_a_controller_that_is_not_given(scope: Scope, small_archive: Path) -> None:
    """A group below one that gives nothing has no controllers."""
    below = Scope(scope.path / "below.scope")
    below.path.mkdir()
    try:
        probes = found(below)
        assert probes["cgroup"]["status"] == "ok"
        assert {probes[f"cgroup-{name}"]["status"] for name in CONTROLLERS} == {"missing"}
        assert not any(probes[f"cgroup-{name}"]["because"] for name in CONTROLLERS)
        done = below.run("run", "-m", "64m", small_archive, "true")
        assert done.returncode == 125 and done.stderr.endswith("(guntainer doctor cgroup-memory)\n")
        assert below.is_as_found()
    finally:
        below.path.rmdir()


def test_private_networks(scope: Scope, traces: Traces) -> None:
    probes = found(scope, "tun", "pasta", "slirp4netns", "network-tool")
    assert {name: one["status"] for name, one in probes.items()} == dict.fromkeys(
        ("tun", "pasta", "slirp4netns", "network-tool"), "ok"
    ), probes
    traces.check()


def test_no_tool_for_private_networks(scope: Scope, home: Path) -> None:
    probes = found(scope, "network-tool", "pasta", "tun", env={"PATH": "/nowhere", "TMPDIR": f"{home}/tmp"})
    assert {name: (one["status"], one["because"]) for name, one in probes.items()} == {
        "tun": ("ok", ""),
        "pasta": ("missing", ""),
        "network-tool": ("missing", ""),
    }
    assert any("passt" in line for line in probes["network-tool"]["remedy"])  # type: ignore[attr-defined]
