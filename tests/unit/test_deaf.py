"""Keys that the kernel keeps from a pid 1, without a kernel: what is looked at, and when."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from guntainer import processes
from guntainer.deaf import Deaf

QUIT = 3


class Target:
    pid = 7
    killed = 0

    def kill(self) -> None:
        self.killed += 1


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    monkeypatch.setattr(processes, "has_executed", lambda pid: True)
    monkeypatch.setattr(processes, "command_line", lambda pid: b"command")
    return Target()


@pytest.mark.parametrize(
    ("at_once", "forks", "below", "later", "killed"),
    [
        (False, False, False, False, 1),
        (True, False, False, True, 0),
        (True, False, False, False, 0),  # it has answered, and done with its handler
        (True, True, False, False, 1),  # it was only about to start something, and blocked all for that moment
        (True, True, False, True, 0),  # it waits for signals, all of them
        (True, True, True, False, 0),  # it was about to start something, beside another that listens
    ],
)
def test_who_has_heard_a_key(
    target: Target, monkeypatch: pytest.MonkeyPatch, at_once: bool, forks: bool, below: bool, later: bool, killed: int
) -> None:
    due: list[Callable[[], None]] = []
    deaf = Deaf(target, lambda call, _seconds: due.append(call), launched=0.0)  # type: ignore[arg-type]
    monkeypatch.setattr(processes, "forking", lambda pid: forks)
    monkeypatch.setattr(processes, "heard_in_group", lambda pid, signal: at_once)
    monkeypatch.setattr(processes, "heard_below", lambda pid, signal: below)
    assert deaf.typed(QUIT, int) == (at_once and (not forks or below))
    monkeypatch.setattr(processes, "heard_in_group", lambda pid, signal: later)
    for call in due:
        call()
    assert (target.killed, deaf.key) == (killed, QUIT * killed)
