"""What goes with a launch: whatever fails after it was opened, it is closed."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from guntainer import errors
from guntainer.container import Container
from guntainer.handover import Handover
from guntainer.jobs.model import Job, Source

JOB = Job(id="one", rootfs=Source(location="/r"), command=("true",), network="private")


class Thing:
    """A link, a control group, or a container's streams."""

    fds: tuple[int, ...] = ()
    plan = None
    closed = 0

    def close(self) -> None:
        self.closed += 1

    def remove_nowait(self) -> bool:
        self.closed += 1
        return True


def attempt(opens: Any, monkeypatch: pytest.MonkeyPatch) -> Thing:
    """A container whose handover opens so; returns its streams."""
    streams = Thing()
    monkeypatch.setattr(Handover, "open", opens)
    container = Container(JOB, "/r", None, None, lambda: streams)  # type: ignore[arg-type, return-value]
    with pytest.raises(errors.Exhausted):
        anyio.run(container.run)
    return streams


def test_a_link_is_closed_where_the_next_thing_can_not_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    link = Thing()

    def opens(given: Any) -> None:
        given.link = link
        raise errors.Exhausted("no more control groups", hint="")

    streams = attempt(opens, monkeypatch)
    assert link.closed == streams.closed == 1


def test_a_control_group_is_removed_where_the_assembly_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup = Thing()

    def opens(given: Any) -> None:
        given.cgroup = cgroup

    def refuses(*_: Any, **__: Any) -> None:
        raise errors.Exhausted("no room", hint="")

    monkeypatch.setattr(Handover, "assemble", refuses)
    streams = attempt(opens, monkeypatch)
    assert cgroup.closed == streams.closed == 1
