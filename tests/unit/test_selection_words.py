"""Which jobs --only, --matrix, --rerun-failed and --shard mean, and what comes with them."""

from __future__ import annotations

import pytest

from guntainer import errors
from guntainer.jobs import selection
from guntainer.jobs.load import load
from guntainer.jobs.model import Job

FILE = b"""
[defaults]
rootfs = "r.tar"
command = ["true"]
[jobs.prepare]
stage = "setup"
[jobs.build]
matrix = { os = ["alpine", "debian", "fedora"], version = ["1", "2"] }
[jobs.test]
matrix = { os = ["alpine", "debian"], url = ["http://a:80/"] }
needs = "build"
[jobs.lint]
[jobs.clean]
stage = "teardown"
"""


@pytest.fixture(scope="module")
def jobs() -> tuple[Job, ...]:
    return load(FILE, path="jobs.toml", base="/").jobs


def ids(jobs: tuple[Job, ...]) -> list[str]:
    return [job.id for job in jobs]


def test_one_axis_either_value(jobs: tuple[Job, ...]) -> None:
    found = selection.chosen(jobs, (), ["os:fedora"])
    assert ids(found) == ["build (fedora, 1)", "build (fedora, 2)"]
    both = selection.chosen(jobs, (), ["os:fedora", "os:debian"])
    assert {dict(job.matrix)["os"] for job in both} == {"fedora", "debian"} and len(both) == 5


def test_two_axes_both(jobs: tuple[Job, ...]) -> None:
    assert ids(selection.chosen(jobs, (), ["os:alpine", "version:2"])) == ["build (alpine, 2)"]


def test_a_value_may_have_colons(jobs: tuple[Job, ...]) -> None:
    assert len(selection.chosen(jobs, (), ["url:http://a:80/"])) == 2


def test_only_and_matrix_both_hold(jobs: tuple[Job, ...]) -> None:
    assert ids(selection.chosen(jobs, ["test*"], ["os:debian"])) == ["test (debian, http://a:80/)"]
    assert selection.chosen(jobs, (), ()) == jobs
    with pytest.raises(errors.UsageError, match="no job matches --only lint --matrix os:debian together"):
        selection.chosen(jobs, ["lint"], ["os:debian"])
    with pytest.raises(errors.UsageError, match="together"):
        selection.chosen(jobs, (), ["os:fedora", "url:http://a:80/"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("oss:alpine", r'no matrix has "oss", only os, version, url \(did you mean "os"\?\)'),
        ("os:alpin", r'os is never "alpin", only alpine, debian, fedora \(did you mean "alpine"\?\)'),
        ("os", "expected AXIS:VALUE, such as os:alpine"),
        ("os=alpine", "expected AXIS:VALUE, such as os:alpine"),
        (":alpine", 'no matrix has ""'),
        ("os:", 'os is never ""'),
        ("os\x1b:1", r'no matrix has "os\\x1b"'),
    ],
)
def test_what_no_job_has(jobs: tuple[Job, ...], text: str, message: str) -> None:
    with pytest.raises(errors.UsageError, match=message):
        selection.by_matrix(jobs, [text])


def test_no_matrix_at_all(jobs: tuple[Job, ...]) -> None:
    with pytest.raises(errors.UsageError, match="no job has a matrix"):
        selection.by_matrix([job for job in jobs if not job.matrix], ["os:alpine"])


def test_not_good(jobs: tuple[Job, ...]) -> None:
    last = {"build (alpine, 1)": "ok", "build (alpine, 2)": "flaky", "build (debian, 1)": "timeout", "lint": "skipped"}
    assert ids(selection.not_good(jobs, last)) == ["build (debian, 1)", "lint"]
    for word in ("failed", "oom", "pids-limit", "error", "cancelled"):
        assert ids(selection.not_good(jobs, {"lint": word})) == ["lint"]


def test_nothing_failed_where_something_was_merely_skipped(jobs: tuple[Job, ...]) -> None:
    assert selection.not_good(jobs, {"build (alpine, 1)": "ok", "lint": "skipped"}) == ()
    assert selection.not_good(jobs, {"build (alpine, 1)": "ok"}) == ()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 50])
def test_shards_are_disjoint_and_complete(jobs: tuple[Job, ...], count: int) -> None:
    parts = [ids(selection.shard(jobs, f"{number}/{count}")) for number in range(1, count + 1)]
    together = [id_ for part in parts for id_ in part]
    assert len(together) == len(set(together))
    assert set(together) == {job.id for job in jobs if not job.stage}
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert parts == [ids(selection.shard(jobs, f"{number}/{count}")) for number in range(1, count + 1)]


def test_setup_jobs_alone_are_parted_themselves() -> None:
    text = "\n".join(f'[jobs.{name}]\nrootfs = "r"\nrun = "x"\nstage = "setup"' for name in "abc")
    staged = load(text.encode(), path="jobs.toml", base="/").jobs
    assert [ids(selection.shard(staged, f"{number}/2")) for number in (1, 2)] == [["a", "c"], ["b"]]
    assert ids(selection.shard(staged, "1/1")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    "text", ["", "1", "0/4", "5/4", "1/0", "-1/4", "a/b", "1/", "/4", "1/4/2", "1/99999", "²/4", "1 / 4"]
)
def test_no_shard(jobs: tuple[Job, ...], text: str) -> None:
    with pytest.raises(errors.UsageError, match="--shard"):
        selection.shard(jobs, text)


def test_what_a_chosen_job_needs_comes_with_it(jobs: tuple[Job, ...]) -> None:
    whole, added = selection.whole(jobs, {"test (alpine, http://a:80/)"})
    assert len(whole) == 1 + 6 + 2 and "prepare" in added and "clean" in added and "lint" not in added
    assert selection.whole(jobs, {job.id for job in jobs}) == (jobs, ())


def test_again_without_what_was_good(jobs: tuple[Job, ...]) -> None:
    found = selection.again(jobs, {"test (alpine, http://a:80/)"})
    assert ids(found) == ["prepare", "test (alpine, http://a:80/)", "clean"]
    assert found[1].needs == ("prepare",)  # it waited for that by way of the builds, which are not run again
    assert set(found[2].needs) == {"prepare", "test (alpine, http://a:80/)"}


def test_again_keeps_the_order_among_those_that_run(jobs: tuple[Job, ...]) -> None:
    found = selection.again(jobs, {"build (alpine, 1)", "test (alpine, http://a:80/)"})
    by_id = {job.id: job.needs for job in found}
    assert by_id["test (alpine, http://a:80/)"] == ("build (alpine, 1)",)
    assert by_id["build (alpine, 1)"] == ("prepare",)


def test_a_stage_alone(jobs: tuple[Job, ...]) -> None:
    assert ids(selection.again(jobs, {"clean"})) == ["clean"]
    assert selection.again(jobs, set()) == ()
