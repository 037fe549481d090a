"""What a report says of the host."""

from __future__ import annotations

import os

from guntainer import __version__
from guntainer.hostfacts import host_facts


def test_what_is_there() -> None:
    facts = dict(host_facts("range", {}))
    assert facts["guntainer"] == __version__
    assert facts["kernel"].endswith(os.uname().release)
    assert facts["processors"] == str(len(os.sched_getaffinity(0)))
    assert facts["memory"].endswith(" GiB")
    assert facts["ids"] == "range"
    assert "ci" not in facts
    assert all(facts.values())


def test_a_ci_system_and_which_run_of_it() -> None:
    env = {"GITHUB_ACTIONS": "true", "CI": "true", "GITHUB_RUN_ID": "17", "GITHUB_SHA": "a" * 300, "GITHUB_TOKEN": "t"}
    facts = dict(host_facts("single", env))
    assert facts["ci"] == "GitHub Actions"
    assert facts["github_run_id"] == "17"
    assert len(facts["github_sha"]) == 200
    assert "t" not in facts.values()
    assert dict(host_facts("single", {"CI": "1"}))["ci"] == "CI"
