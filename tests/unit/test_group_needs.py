"""How results name the jobs that one needs: in few words, however many there are."""

from __future__ import annotations

import anyio

from guntainer.group import Group
from guntainer.jobs.model import Job, Source


def job(job_id: str, needs: tuple[str, ...] = ()) -> Job:
    return Job(
        id=job_id, key=job_id.partition(" (")[0], rootfs=Source(location="r", kind="path"), command=("x",), needs=needs
    )


def cells(key: str, count: int) -> tuple[str, ...]:
    return tuple(f"{key} ({n})" for n in range(count))


def named(*wanted: str, of: tuple[str, ...]) -> tuple[str, ...]:
    needs = tuple(wanted)
    user = job("user", needs)

    async def ask() -> tuple[str, ...]:
        return Group((*map(job, of), user)).named(user)

    return anyio.run(ask)


def test_few_are_named_by_id() -> None:
    few = cells("build", 20)
    assert named(*few, of=few) == few
    assert named(of=few) == ()


def test_a_whole_matrix_is_named_by_its_key() -> None:
    many, lint = cells("build", 5000), ("lint",)
    assert named(*many, *lint, of=many + lint) == ("build", "lint")


def test_a_matrix_with_a_cell_missing_is_not_whole() -> None:
    many = cells("build", 30)
    assert named(*many[1:], of=many) == many[1:]


def test_no_more_than_a_hundred() -> None:
    others = tuple(f"job{n}" for n in range(5000))
    assert named(*others, of=others) == others[:100]


def test_jobs_with_the_same_needs_share_the_words() -> None:
    needs = cells("build", 1000)
    users = [job(f"test ({n})", needs) for n in range(1000)]

    async def ask() -> set[int]:
        group = Group((*map(job, needs), *users))
        return {id(group.named(user)) for user in users}

    assert len(anyio.run(ask)) == 1
