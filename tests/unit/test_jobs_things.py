"""workspace, artifacts, cache folders and secrets in a job file."""

from __future__ import annotations

import pytest

from guntainer import errors
from guntainer.jobs.load import load
from guntainer.jobs.model import Artifacts, CacheFolder, Job, Secret, Workspace

HEAD = '[rootfs.r]\nsource = "/r.tar"\n'


def jobs(text: str, extra: str = "") -> tuple[Job, ...]:
    return load(
        f'{HEAD}{extra}\n[jobs.j]\nrootfs = "r"\nrun = "true"\n{text}\n'.encode(), path="jobs.toml", base="/b"
    ).jobs


def job(text: str, extra: str = "") -> Job:
    return jobs(text, extra)[0]


def problem(text: str, extra: str = "") -> str:
    with pytest.raises(errors.JobFileError) as caught:
        job(text, extra)
    assert len(caught.value.problems) == 1, caught.value.problems
    return caught.value.problems[0]


def test_nothing_of_it() -> None:
    assert not job("").has_belongings


def test_workspace() -> None:
    assert job('workspace = "."').workspace == Workspace(source="/b")
    assert job('workspace = "src/../x"').workspace == Workspace(source="/b/src/../x")
    whole = 'workspace = { source = "/s", target = "/w//x/", mode = "read-only" }'
    assert job(whole).workspace == Workspace(source="/s", target="/w/x", mode="read-only")
    assert job(whole).workdir == "/w/x"
    assert job(whole + '\nworkdir = "/y"').workdir == "/y"
    assert job("").workdir is None
    assert job("", '[defaults]\nworkspace = "d"').workspace == Workspace(source="/b/d")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("workspace = 1", "expected a folder"),
        ('workspace = ""', "empty"),
        ('workspace = { target = "/w" }', "source is missing"),
        ('workspace = { source = ".", target = "w" }', "absolute path"),
        ('workspace = { source = ".", target = "/" }', "can not mount on /"),
        ('workspace = { source = ".", target = "/proc/x" }', "can not mount on /proc/x"),
        ('workspace = { source = ".", mode = "cpoy" }', 'did you mean "copy"'),
        ('workspace = { source = ".", mod = "copy" }', 'did you mean "mode"'),
        ('workspace = "."\nvolumes = ["/a:/workspace/"]', "/workspace is mounted twice"),
        ('workspace = "."\ncache = [{ key = "a", path = "/workspace" }]', "/workspace is mounted twice"),
    ],
)
def test_a_bad_workspace(text: str, why: str) -> None:
    assert why in problem(text)


def test_artifacts() -> None:
    assert job('artifacts = ["dist/*.whl", "/var/log/**"]').artifacts == Artifacts(paths=("dist/*.whl", "/var/log/**"))
    assert job('artifacts = "a"').artifacts == Artifacts(paths=("a",))
    assert job('artifacts = "a\\n\\n  !b \\n"').artifacts == Artifacts(paths=("a", "!b"))
    assert job("artifacts = []").artifacts is None
    whole = 'artifacts = { paths = ["a"], if-none = "error", max-size = "10m" }'
    assert job(whole).artifacts == Artifacts(paths=("a",), if_none="error", most_bytes=10 << 20)
    github = 'artifacts = { paths = "a", if_no_files_found = "ignore" }'
    assert job(github).artifacts == Artifacts(paths=("a",), if_none="ignore")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("artifacts = 1", "expected a list"),
        ("artifacts = [1]", "expected a text"),
        ('artifacts = [""]', "empty"),
        ('artifacts = ["!"]', "matches nothing"),
        ('artifacts = ["!a"]', "nothing to take them away from"),
        ('artifacts = ["a/../../b"]', ".. has no meaning"),
        ("artifacts = {}", "paths is missing"),
        ('artifacts = { paths = ["a"], if-none = "fail" }', 'expected "warn", "error" or "ignore"'),
        ('artifacts = { paths = ["a"], if-none = "warn", if-no-files-found = "warn" }', "are the same"),
        ('artifacts = { paths = ["a"], max-size = "big" }', "expected a size"),
        ('artifacts = { path = ["a"] }', 'did you mean "paths"'),
    ],
)
def test_bad_artifacts(text: str, why: str) -> None:
    with pytest.raises(errors.JobFileError, match=why.replace("..", r"\.\.")):
        job(text)


def test_cache() -> None:
    assert (job("").cache, job("cache = false").cache, job("cache = true").cache) == (True, False, True)
    one = job('cache = { key = "pip", path = "/root/.cache/pip" }')
    assert (one.cache, one.cache_folders) == (True, (CacheFolder(key="pip", target="/root/.cache/pip"),))
    cells = jobs('cache = [{ key = "pip-${{ matrix.py }}", path = "/c" }]\nmatrix = { py = ["3.11", "3.12"] }')
    assert [each.cache_folders[0].key for each in cells] == ["pip-3.11", "pip-3.12"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('cache = "yes"', "expected true, false, or folders"),
        ('cache = [{ key = "a" }]', "path is missing"),
        ('cache = [{ path = "/a" }]', "key is missing"),
        ('cache = [{ key = "a", path = "b" }]', "absolute path"),
        ('cache = [{ key = "a", path = "/dev" }]', "can not mount on /dev"),
        ('cache = [{ key = "a", paht = "/b" }]', 'did you mean "path"'),
        ('cache = [{ key = "a", path = "/b" }, { key = "c", path = "/b" }]', "/b is mounted twice"),
    ],
)
def test_bad_cache(text: str, why: str) -> None:
    with pytest.raises(errors.JobFileError, match=why):
        job(text)


SECRETS = '[secrets.TOKEN]\nenv = "MY_TOKEN"\n[secrets.KEY]\nfile = "key.pem"'


def test_secrets() -> None:
    token, key = Secret(name="TOKEN", variable="MY_TOKEN"), Secret(name="KEY", file="/b/key.pem")
    assert job('secrets = ["TOKEN", "KEY", "TOKEN"]', SECRETS).secrets == (token, key)
    assert job('secrets = "TOKEN"', SECRETS).secrets == (token,)
    assert job("", SECRETS).secrets == ()


@pytest.mark.parametrize(
    ("text", "extra", "why"),
    [
        ('secrets = ["TOKN"]', SECRETS, 'no "TOKN" in [secrets] (did you mean "TOKEN"?)'),
        ('secrets = ["TOKEN"]', "", "there is no [secrets.TOKEN]"),
        ("secrets = [1]", SECRETS, "expected a text"),
        ('secrets = ["TOKEN"]\nenv = { TOKEN = "x" }', SECRETS, "TOKEN is in env as well"),
        ('secrets = ["A"]', "[secrets.A]", "expected one of env"),
        ('secrets = ["A"]', '[secrets.A]\nenv = "B"\nfile = "c"', "expected one of env"),
        ('secrets = ["A"]', '[secrets.A]\nenv = "B C"', "can not name a variable"),
        ("", '[secrets."A-B"]\nenv = "B"', "can not name a variable"),
        ("", '[secrets]\nA = "hunter2!"', "is not written here"),
        ("", "[[secrets]]\nA = 1", "expected tables [secrets.NAME]"),
        ("", '[secrets.A]\nevn = "B"', 'did you mean "env"'),
    ],
)
def test_bad_secrets(text: str, extra: str, why: str) -> None:
    with pytest.raises(errors.JobFileError) as caught:
        job(text, extra)
    assert any(why in line for line in caught.value.problems)
    assert "hunter2!" not in str(caught.value)
