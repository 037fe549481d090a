"""[services.NAME] of a job file: what is read, what is refused, and with which cell's values."""

from __future__ import annotations

import pytest

from guntainer import errors
from guntainer.jobs.load import load
from guntainer.jobs.model import Job

DB = '[services.db]\nrootfs = "./db.tar"\ncommand = ["postgres"]\n'
JOB = '[jobs.a]\nrootfs = "./a.tar"\nrun = "true"\n'
SECRET = '[secrets.PW]\nenv = "PW"\n'
WITH = JOB + 'services = ["db"]\n'


def jobs(text: str) -> tuple[Job, ...]:
    return load(text.encode(), path="jobs.toml", base="/here").jobs


def problems(text: str) -> list[str]:
    with pytest.raises(errors.JobFileError) as caught:
        jobs(text)
    return [line.removeprefix("jobs.toml:") for line in caught.value.problems]


def test_a_service_is_a_job_beside_a_job() -> None:
    table = (
        DB
        + 'ready = ["pg_isready", "-q"]\nready-timeout = "90s"\nenv = {PGDATA = "/data"}\nvolumes = ["./data:/data"]\n'
        'tmpfs = ["/run"]\nuser = "postgres"\nmemory = "64m"\nstop-signal = "INT"\nstop-timeout = 3\nread_only = true\n'
    )
    (job,) = jobs(table + WITH)
    (service,) = job.services
    assert (service.name, service.ready, service.ready_timeout_s) == ("db", ("pg_isready", "-q"), 90.0)
    inner = service.job
    assert (inner.rootfs.location, inner.command, inner.env) == ("/here/db.tar", ("postgres",), (("PGDATA", "/data"),))
    assert [mount.target for mount in inner.mounts] == ["/data", "/run"]
    assert (inner.user, inner.hostname, inner.stop_signal, inner.stop_timeout_s) == ("postgres", "db", 2, 3.0)
    assert inner.read_only and inner.limits.memory_bytes == 64 << 20


def test_it_is_given_what_a_job_is() -> None:
    keys = 'secrets = ["PW"]\nworkspace = "."\ncache = [{key = "pip", path = "/cache"}]\n'
    (service,) = jobs(SECRET + DB + keys + WITH)[0].services
    assert [secret.name for secret in service.job.secrets] == ["PW"]
    assert service.job.workspace is not None and service.job.workspace.source == "/here"
    assert [folder.target for folder in service.job.cache_folders] == ["/cache"]
    assert not jobs(DB + "cache = false\n" + WITH)[0].services[0].job.cache


@pytest.mark.parametrize(
    ("line", "ready", "port"),
    [
        ("", (), None),
        ('ready = "test -e /up"', ("/bin/sh", "-e", "-c", "test -e /up"), None),
        ("ready-port = 5432", (), 5432),
        ("ready_port = 1", (), 1),
    ],
)
def test_ready(line: str, ready: tuple[str, ...], port: int | None) -> None:
    (service,) = jobs(DB + line + "\n" + WITH)[0].services
    assert (service.ready, service.ready_port, service.ready_timeout_s) == (ready, port, 60.0)


def test_without_a_command_it_is_the_image_s_own() -> None:
    (service,) = jobs('[services.db]\nrootfs = "./db.tar"\n' + WITH)[0].services
    assert service.job.command == () and service.job.key == "db"


def test_each_cell_has_its_own_values() -> None:
    table = (
        '[services.db]\nrootfs = "./pg-${{ matrix.pg }}.tar"\nrun = "exec pg"\nenv = {V = "v${{ matrix.pg }}"}\n'
        'ready = ["pg_isready", "${{ matrix.pg }}"]\n[services.cache]\nrootfs = "./cache.tar"\nready-port = 6379\n'
    )
    found = jobs(table + JOB + 'services = ["db", "cache"]\nmatrix = {pg = [15, 16], other = ["x", "y"]}\n')
    assert len(found) == 4
    for job in found:
        pg = dict(job.matrix)["pg"]
        db, cache = job.services
        assert db.job.rootfs.location == f"/here/pg-{pg}.tar"
        assert db.job.env == (("V", f"v{pg}"),) and db.ready == ("pg_isready", pg)
        assert cache.ready_port == 6379 and cache.job.rootfs.location == "/here/cache.tar"


def test_a_number_of_the_matrix_is_one() -> None:
    table = '[services.db]\nrootfs = "./db.tar"\nready-port = "${{ matrix.port }}"\n'
    found = jobs(table + WITH + "matrix = {port = [1001, 1002]}\n")
    assert [job.services[0].ready_port for job in found] == [1001, 1002]


def test_names_may_come_from_the_matrix_and_from_defaults() -> None:
    both = DB + '[services.other]\nrootfs = "./o.tar"\n'
    found = jobs(both + JOB + 'services = ["${{ matrix.s }}"]\nmatrix = {s = ["db", "other"]}\n')
    assert [job.services[0].name for job in found] == ["db", "other"]
    found = jobs(
        both + '[defaults]\nservices = ["db"]\n' + JOB + '[jobs.b]\nrootfs = "./b"\nrun = "x"\nservices = []\n'
    )
    assert [[service.name for service in job.services] for job in found] == [["db"], []]


@pytest.mark.parametrize(
    ("more", "network"),
    [
        ("", "auto"),
        ('network = "host"\n', "host"),
        ('network = "none"\n', "none"),
        ('ports = ["8080:80"]\n', "private"),
        ('add-hosts = ["up:host-gateway"]\n', "private"),
        ('add-hosts = ["up:192.0.2.1"]\n', "auto"),
    ],
)
def test_the_network_of_a_job_with_services(more: str, network: str) -> None:
    assert jobs(DB + WITH + more)[0].network == network
    assert jobs(DB + JOB)[0].network == "host"


def test_a_network_of_the_defaults_counts_as_said() -> None:
    assert jobs(DB + '[defaults]\nnetwork = "host"\n' + WITH)[0].network == "host"


def test_defaults_are_not_a_service_s() -> None:
    text = '[defaults]\nenv = {A = "1"}\nuser = "nobody"\nnetwork = "none"\n' + DB + WITH
    (job,) = jobs(text)
    assert job.env == (("A", "1"),)
    assert job.services[0].job.env == () and job.services[0].job.user is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (WITH, ['4:13: jobs.a.services[0]: no "db" in [services]']),
        (DB.replace(".db]", ".dbs]") + WITH, ['no "db" in [services] (did you mean "dbs"?)']),
        (DB + JOB + 'services = ["db", "db"]\n', ['service "db" is named twice']),
        (DB + JOB + 'services = "db"\n', ['expected a list such as ["db"]']),
        ("services = 3\n" + JOB, ["expected tables [services.NAME], got the number 3"]),
        ('[services]\ndb = "x"\n' + JOB, ["services.db: expected a table"]),
        ('[services."a b"]\nrootfs = "./x"\n' + JOB, ['"a b" can not name a service']),
        ('[services.localhost]\nrootfs = "./x"\n' + JOB, ['"localhost" can not name a service']),
        ('[services.".."]\nrootfs = "./x"\n' + JOB, ['".." can not name a service']),
        ("[services.db]\n" + JOB, ["services.db: rootfs is missing"]),
        (DB + 'run = "x"\n' + JOB, ["command and run exclude each other"]),
        (DB + 'ready = ["x"]\nready-port = 1\n' + JOB, ["ready and ready-port exclude each other"]),
        (DB + "ready-port = 0\n" + JOB, ["expected a port from 1 to 65535, got the number 0"]),
        (DB + "ready-port = true\n" + JOB, ["expected a port from 1 to 65535, got true"]),
        (DB + "ready-timeout = 0\n" + JOB, ["expected a time above 0"]),
        (DB + "ready = []\n" + JOB, ["the command is empty"]),
        (DB + 'ready = " "\n' + JOB, ["the script is empty"]),
        (DB + "ready = 3\n" + JOB, ["expected a list such as"]),
        (DB + "redy = 3\n" + JOB, ['unknown key (did you mean "ready"?)']),
        (DB + "timeout = 3\n" + JOB, ["ready-timeout bounds its start"]),
        (DB + 'network = "host"\n' + JOB, ["a service is in the network of the job"]),
        (DB + 'ports = ["1:1"]\n' + JOB, ["a service is in the network of the job"]),
        (DB + "matrix = {a = [1]}\n" + JOB, ["a service has no matrix of its own"]),
        (DB + 'needs = ["a"]\n' + JOB, ["a service needs nothing"]),
        (DB + 'artifacts = ["x"]\n' + JOB, ["what a service leaves behind is gone with it"]),
        (SECRET + DB + 'secrets = ["PW"]\nenv = {PW = "1"}\n' + WITH, ["PW is in env as well"]),
        (DB + 'volumes = [".:/proc"]\n' + WITH, ["can not mount on /proc"]),
        (DB + 'user = "${{ matrix.u }}"\n' + WITH, ["this job has no matrix"]),
        (DB + 'user = "${{ matrix.u }}"\n' + WITH + "matrix = {v = [1]}\n", ['the matrix has no "u", only v']),
        (DB + 'ready-port = "${{ matrix.u }}"\n' + WITH + 'matrix = {u = ["x"]}\n', ["expected a port from 1"]),
    ],
)
def test_what_is_wrong_is_told(text: str, expected: list[str]) -> None:
    found = problems(text)
    assert len(found) == len(expected), found
    for line, part in zip(found, expected, strict=True):
        assert part in line


def test_a_service_that_nobody_names_is_not_filled() -> None:
    assert jobs(DB + 'user = "${{ matrix.u }}"\n' + JOB)[0].services == ()
