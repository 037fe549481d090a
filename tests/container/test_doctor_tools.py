"""`guntainer doctor` where pasta or slirp4netns is too old, or answers nothing that makes sense. No device is needed for that."""

from __future__ import annotations

import json
from pathlib import Path

import networks
import oldtools
import pytest
from conftest import Run, Traces
from networks import fake
from oldtools import LACKING, LEAST, ODD, OLD, odd, real

pytestmark = [
    pytest.mark.root,
    pytest.mark.vm,
    pytest.mark.usefixtures("user_namespaces"),
    pytest.mark.parametrize("name", networks.TOOLS),
]
place, two_tools = oldtools.place, oldtools.two_tools


def examined(guntainer: Run, **options: object) -> dict[str, dict[str, object]]:
    done = guntainer("doctor", "--json", *networks.TOOLS, "network-tool", **options)
    assert done.stdout, done.stderr
    return {one["id"]: one for one in json.loads(done.stdout)["probes"]}


def test_too_old(guntainer: Run, place: Path, traces: Traces, name: str) -> None:
    path = real(place, name, version=OLD[name])
    found = examined(guntainer)[name]
    why = f"{path}: too old: {OLD[name]}, at least {LEAST[name]} is needed"
    assert (found["status"], found["found"], found["because"]) == ("missing", why, "")
    (remedy,) = found["remedy"]  # type: ignore[misc]
    assert remedy.startswith("# try a newer one: ") and ("passt" if name == "pasta" else name) in remedy
    traces.check()


@pytest.mark.parametrize("kind", list(ODD))
def test_odd(guntainer: Run, place: Path, traces: Traces, name: str, kind: str) -> None:
    path = odd(place, name, kind)
    found = examined(guntainer)[name]
    assert found["status"] == "missing" and found["because"] == "", found
    assert str(found["found"]).startswith(f"{path}: ")
    assert str(found["found"]).endswith(f": at least {LEAST[name]} is needed")
    if kind == "lacks":
        assert f"does not name {LACKING[name]}: " in str(found["found"])
    assert found["remedy"]
    traces.check()


def test_no_answer(guntainer: Run, place: Path, traces: Traces, name: str) -> None:
    path = fake(place, name, f"{place}/nap 600 & exec {place}/nap 600", version="")
    found = examined(guntainer)[name]
    assert found["status"] == "missing" and found["because"] == ""
    assert str(found["found"]).startswith(f"{path}: --version does not end within 5 s, and --help does not end ")
    traces.check()


def test_no_version_and_every_option(guntainer: Run, place: Path, traces: Traces, name: str) -> None:
    path = real(place, name, version="unknown version")
    found = examined(guntainer)[name]
    assert str(found["found"]).startswith(f"{path}, unknown version")
    assert found["status"] == "ok" or found["because"] == "tun"
    traces.check()


def test_new_enough(guntainer: Run, place: Path, traces: Traces, name: str) -> None:
    version = {"pasta": "0.0~git20240220.1e6f92b-1", "slirp4netns": "version 1.3.1"}[name]
    path = real(place, name, version=version)
    found = examined(guntainer)[name]
    assert str(found["found"]).startswith(f"{path}, {version}")
    assert found["status"] == "ok" or found["because"] == "tun"
    traces.check()
