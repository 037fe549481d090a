"""Folders of results and patterns of jobs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guntainer.errors import UsageError
from guntainer.jobs.model import Job, Source
from guntainer.jobs.names import check_key, folder_name, pattern, select


def _job(job_id: str, key: str = "") -> Job:
    return Job(id=job_id, key=key, rootfs=Source(location="/r"))


@pytest.mark.parametrize("name", ["smoke", "smoke (alpine-320, 1) #2", "a.b_c-d", "_x", "0"])
def test_a_safe_id_is_its_own_folder(name: str) -> None:
    assert folder_name(name) == name


@pytest.mark.parametrize(
    ("name", "start"),
    [("", "~"), ("a/b", "a_b~"), ("../x", "_._x~"), ("..", "__~"), (".", "_~"), ("a\n", "a_~"),
     ("ü", "_~"), ("a ", "a_~"),
     ("a b.", "a b_~"), ("a~b", "a_b~"), ("-rf", "_rf~"), (".hidden", "_hidden~"), ("a (x/../y)", "a (x__._"),
     ('a"<&>', "a____~"), ("a:b*?", "a_b__~")],
)  # fmt: skip
def test_an_unsafe_id_is_replaced_and_marked(name: str, start: str) -> None:
    folder = folder_name(name)
    assert folder.startswith(start)
    assert "~" in folder[-9:]


@given(st.text(max_size=400))
def test_every_folder_is_safe(name: str) -> None:
    folder = folder_name(name)
    assert folder.isascii()
    assert 0 < len(folder) <= 150
    assert "/" not in folder
    assert ".." not in folder
    assert folder[0] not in ".-"
    assert folder.isprintable()
    assert folder == folder_name(name)


@given(st.lists(st.text(alphabet="ab./~ -é", max_size=6), unique=True, max_size=30))
def test_folders_are_unique(names: list[str]) -> None:
    assert len({folder_name(name) for name in names}) == len(names)


def test_long_ids_keep_apart() -> None:
    one, two = folder_name("x" * 400 + "1"), folder_name("x" * 400 + "2")
    assert one != two
    assert len(one) == len(two) == 150
    assert folder_name("x" * 150) == "x" * 150


def test_keys() -> None:
    for good in ("a", "0", "_", "A.b-c_d", "x" * 100):
        assert check_key(good) == good
    for bad in ("", "-a", ".a", "a b", "a/b", "x" * 101, "ü", "a\n"):
        with pytest.raises(UsageError):
            check_key(bad)


JOBS = [_job("smoke (a, 1)", "smoke"), _job("smoke (a, 2)", "smoke"), _job("stress #1", "stress"), _job("lone")]


def test_select_by_id_key_and_pattern() -> None:
    assert [job.id for job in select(JOBS, ["smoke"])] == ["smoke (a, 1)", "smoke (a, 2)"]
    assert [job.id for job in select(JOBS, ["smoke (*, 2)"])] == ["smoke (a, 2)"]
    assert [job.id for job in select(JOBS, ["lone", "st*"])] == ["stress #1", "lone"]
    assert select(JOBS, ["*"]) == tuple(JOBS)
    assert select(JOBS, []) == ()


def test_select_takes_an_id_as_it_stands() -> None:
    odd = _job("x ([1], *)", "x")
    assert select([*JOBS, odd], ["x ([1], *)"]) == (odd,)


def test_a_pattern_without_a_match_names_the_nearest() -> None:
    with pytest.raises(UsageError, match=r'no job matches "smok" \(did you mean "smoke"\?\)'):
        select(JOBS, ["smok"])
    with pytest.raises(UsageError, match='no job matches "SMOKE"'):
        select(JOBS, ["lone", "SMOKE"])


@given(st.lists(st.text(alphabet="a ([*?]!-,\n\\", max_size=8), unique=True, min_size=1, max_size=6))
def test_a_pattern_means_one_job_alone(ends: list[str]) -> None:
    jobs = [_job(f"k{end}", "k") for end in ends if end] or [_job("k")]
    ids = {job.id for job in jobs}
    for job in jobs:
        assert select(jobs, [pattern(job.id, ids)]) == (job,)


def test_a_pattern_that_is_another_name() -> None:
    jobs = [_job("k ([)", "k"), _job("k ([[])", "k")]
    assert pattern("k ([)", {job.id for job in jobs}) == "[k] ([[])"
    assert [job.id for job in select(jobs, ["[k] ([[])"])] == ["k ([)"]
