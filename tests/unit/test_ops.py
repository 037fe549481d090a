"""The table of operations: every name can be carried out and told, and no two descriptors of a child's own collide."""

from __future__ import annotations

import inspect

import guntainer.init
from guntainer import descriptors
from guntainer.init import descriptions, ops


def test_every_operation_is_described() -> None:
    assert list(descriptions.DESCRIPTIONS) == list(ops.OPERATIONS)


def test_a_description_takes_the_arguments_of_its_operation() -> None:
    for name, function in ops.OPERATIONS.items():
        if name == "seal":
            continue  # the plan says it without arguments: they come from its init
        count = len(inspect.signature(function).parameters) - 1  # of the program
        inspect.signature(descriptions.DESCRIPTIONS[name]).bind(*range(count))


def test_fixed_descriptors_do_not_collide() -> None:
    numbers = [
        value
        for name, value in vars(guntainer.init).items()
        if name.isupper() and isinstance(value, int) and value >= guntainer.init.FAULTS
    ]
    assert len(numbers) == len(set(numbers))
    assert max(numbers) == guntainer.init.HELD < descriptors.LEAST


def test_the_subject_of_an_error() -> None:
    assert descriptions.subject(("mount", "proc", "/proc", 0, "", True)) == "/proc"
    assert descriptions.subject(("place", 3, "/data", True, 0)) == "/data"
    assert descriptions.subject(("overlay", ("/a",), "", "/u", "/w", "/merged")) == "/merged"
    assert descriptions.subject(("hold", 3, "/srv")) == "/srv"
    assert descriptions.subject(("new_session",)) == ""
