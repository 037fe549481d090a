"""The JSON Schema of a job file: that it is one, knows every key that is read, and takes and refuses what `load` does."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from guntainer.errors import JobFileError
from guntainer.jobs import fields, load, model, schema, services, values
from guntainer.jobs.load import load as read

PROJECT = Path(__file__).resolve().parent.parent.parent
WHOLE = schema.schema()
VALIDATOR = jsonschema.Draft202012Validator(WHOLE)


def _blocks(text: str) -> list[str]:
    """The job files among the examples of a text: those with a job."""
    blocks = re.findall(r"^```toml\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [block for block in blocks if re.search(r"^\[jobs\.", block, re.MULTILINE)]


def _examples() -> list[Any]:
    found = [
        pytest.param(path.read_text(), path.suffix, id=path.name) for path in sorted((PROJECT / "configs").iterdir())
    ]
    for name in ("README.md", "BATCH.md"):
        # where a digest would stand there is a sign for one
        texts = _blocks((PROJECT / name).read_text().replace('"…"', f'"{"0" * 64}"'))
        found += [pytest.param(text, ".toml", id=f"{name} {n}") for n, text in enumerate(texts, 1)]
    return found


def _plain(text: str, suffix: str) -> object:
    if suffix == ".toml":
        return tomllib.loads(text)
    return json.loads(text) if suffix == ".json" else yaml.safe_load(text)


def _tells(document: object) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(document)]


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(WHOLE)
    assert json.loads(json.dumps(WHOLE)) == WHOLE


@pytest.mark.parametrize(("text", "suffix"), _examples())
def test_examples_are_valid(text: str, suffix: str) -> None:
    assert _tells(_plain(text, suffix)) == []


class TestKeys:
    """None is forgotten, and none is made up."""

    def test_of_the_top(self) -> None:
        assert set(WHOLE["properties"]) == set(load._TOP)

    def test_of_a_job(self) -> None:
        job = WHOLE["$defs"]["job"]["properties"]
        assert set(job) == {*fields.READERS, "env", "matrix", "extends"}

    def test_of_the_defaults(self) -> None:
        assert set(WHOLE["$defs"]["defaults"]["properties"]) == set(load._SHARED_KEYS)

    def test_of_a_rootfs(self) -> None:
        assert set(WHOLE["$defs"]["source"]["properties"]) == set(fields.SOURCE_READERS)

    def test_of_a_service(self) -> None:
        assert set(WHOLE["$defs"]["service"]["properties"]) == set(services.KEYS)

    def test_of_a_secret(self) -> None:
        assert set(WHOLE["$defs"]["secret"]["properties"]) == {"env", "file"}

    def test_of_tables_in_a_job(self) -> None:
        def keys(name: str) -> set[str]:
            return {key for each in schema.JOB[name]["anyOf"] for key in each.get("properties", ())}

        assert keys("workspace") == set(model.Workspace.fields())
        assert keys("retry") == {"attempts", "backoff", "on"}

    def test_each_is_described(self) -> None:
        tables = [WHOLE["properties"], *(each["properties"] for each in WHOLE["$defs"].values())]
        for table in tables:
            for key, each in table.items():
                assert each["description"].endswith("."), key


def test_every_example_of_a_key_is_valid() -> None:
    for name, table in (("job", schema.JOB), ("source", schema.SOURCE), ("service", schema.SERVICE)):
        validator = jsonschema.Draft202012Validator({**WHOLE["$defs"][name], "$defs": WHOLE["$defs"]})
        for key, each in table.items():
            for example in each.get("examples", ()):
                assert [error.message for error in validator.iter_errors({key: example})] == [], key


def test_every_example_of_a_key_can_be_read() -> None:
    """Those that do not speak of another part of the file."""
    for key, each in schema.SHARED.items():
        if key in ("needs", "secrets", "services", "add-hosts", "ports", "memory-swap"):
            continue
        for example in each.get("examples", ()):
            job = {"rootfs": "./r", key: example} if key != "rootfs" else {key: example}
            if key != "run":
                job.setdefault("command", ["x"])
            if "matrix." in str(example):
                job["matrix"] = {"rootfs": ["a"], "os": ["b"]}
            text = json.dumps({"jobs": {"j": job}})
            assert read(text.encode(), path="f.json", base="/b").jobs, (key, example)


@pytest.mark.parametrize("key", [key for key in schema.JOB if key not in ("extends", "matrix", "env")])
def test_an_expression_may_stand_for_a_value(key: str) -> None:
    expression = "${{ matrix.x }}"
    tables = ("volumes", "tmpfs", "ports", "add-hosts", "cap-add", "cap-drop", "security-opt", "ulimits", "command")
    of_lists = (*tables, "services", *(one for one in schema.JOB if one.startswith("device-")))
    value: object = [expression] if key in of_lists else expression
    if key not in fields.SHARED:  # which all cells have in common
        assert _tells({"jobs": {"j": {key: value}}}) == []


@pytest.mark.parametrize(
    "good", ["1", "0.5", ".5", "10m", "1h30m", "1d 2h", "250ms", "1.5h", " 5s ", "5S", "1h30m10s5ms"]
)
def test_durations(good: str) -> None:
    values.parse_duration(good)
    assert re.search(schema.DURATION, good)


@pytest.mark.parametrize("bad", ["", "m", "1x", "1m1h", "1.", "-1", "+1", "1e3", "nan", "soon", "5 minutes", "1m1m"])
def test_no_durations(bad: str) -> None:
    with pytest.raises(values.errors.UsageError):
        values.parse_duration(bad)
    assert not re.search(schema.DURATION, bad)


@pytest.mark.parametrize("good", ["1", "512m", "1.5g", "1G", "16MiB", "16mb", "1 k", " 5b ", "1t"])
def test_sizes(good: str) -> None:
    values.parse_size(good)
    assert re.search(schema.SIZE, good)


@pytest.mark.parametrize("bad", ["", "m", "1x", "1mm", "-1", "1e3", "5 6", "a lot"])
def test_no_sizes(bad: str) -> None:
    with pytest.raises(values.errors.UsageError):
        values.parse_size(bad)
    assert not re.search(schema.SIZE, bad)


JOB: dict[str, object] = {"rootfs": "./r", "command": ["x"]}
WRONG: list[dict[str, object]] = [
    {},
    {"jobs": {}},
    {"jobs": []},
    {"jobs": {"a b": JOB}},
    {"jobs": {"-a": JOB}},
    {"jobs": {"j": 5}},
    {"version": 2, "jobs": {"j": JOB}},
    {"versoin": 1, "jobs": {"j": JOB}},
    {"name": 5, "jobs": {"j": JOB}},
    {"max-parallel": 0, "jobs": {"j": JOB}},
    {"fail-fast": "yes", "jobs": {"j": JOB}},
    {"timeout": "soon", "jobs": {"j": JOB}},
    {"defaults": {"matrix": {"a": [1]}}, "jobs": {"j": JOB}},
    {"defaults": {"nonsense": 1}, "jobs": {"j": JOB}},
    {"rootfs": {"r": {"source": "x", "sha256": "12"}}, "jobs": {"j": JOB}},
    {"rootfs": {"r": {"source": "x", "pull": "often"}}, "jobs": {"j": JOB}},
    {"rootfs": {"r": {"source": 5}}, "jobs": {"j": JOB}},
    {"rootfs": {"r": {"source": "x", "max-unpacked": "a lot"}}, "jobs": {"j": JOB}},
    {"rootfs": {"r": "x"}, "jobs": {"j": JOB}},
    {"secrets": {"S": "the secret itself"}, "jobs": {"j": JOB}},
    {"secrets": {"S": {"value": "x"}}, "jobs": {"j": JOB}},
    {"services": {"db": {"rootfs": "r", "timeout": "5m"}}, "jobs": {"j": JOB}},
    {"services": {"db": {"rootfs": "r", "ready-port": 0}}, "jobs": {"j": JOB}},
    {"extends": 5, "jobs": {"j": JOB}},
]
WRONG_JOBS: list[dict[str, object]] = [
    {"run": "both"},
    {"command": "a text"},
    {"timeuot": 5},
    {"timeout": "soon"},
    {"timeout": True},
    {"memory": "a lot"},
    {"env": ["A=1"]},
    {"env": {"A": [1]}},
    {"volumes": ".:/src"},
    {"volumes": [{"source": "."}]},
    {"volumes": [{"source": ".", "target": "src"}]},
    {"volumes": [{"source": ".", "target": "/src", "mode": 5}]},
    {"workdir": "src"},
    {"network": "bridge"},
    {"ports": ["a"]},
    {"ports": [70000]},
    {"dns": "all"},
    {"init": "yes"},
    {"limits": "maybe"},
    {"scratch": "tape"},
    {"repeat": 0},
    {"repeat": 1.5},
    {"repeat": "many"},
    {"cpus": 0},
    {"cpus": "two"},
    {"pids-limit": "some"},
    {"blkio-weight": 5},
    {"ulimits": ["nofile"]},
    {"device-read-bps": ["/dev/sda"]},
    {"root-emulation": "perhaps"},
    {"fail-fast": "${{ matrix.a }}", "matrix": {"a": [True]}},
    {"matrix": {}},
    {"matrix": {"a": []}},
    {"matrix": {"a": 5}},
    {"matrix": {"a b": [5]}},
    {"matrix": {"a": [[5]]}},
    {"matrix": {"a": [1], "include": {}}},
    {"matrix": {"a": [1], "exclude": [{}]}},
    {"extends": 5},
    {"needs": 5},
    {"stage": "middle"},
    {"allow-failure": "yes"},
    {"retry": {"attempts": 0}},
    {"retry": {"on": ["moon"]}},
    {"retry": {"tries": 5}},
    {"retry": "often"},
    {"priority": "high"},
    {"workspace": 5},
    {"workspace": {"target": "/x"}},
    {"workspace": {"source": ".", "mode": "move"}},
    {"artifacts": 5},
    {"artifacts": {"if-none": "warn"}},
    {"artifacts": {"paths": ["x"], "if-none": "cry"}},
    {"cache": "yes"},
    {"cache": [{"key": "x"}]},
    {"cache": [{"key": "x", "path": "relative"}]},
    {"secrets": 5},
    {"services": "db"},
]


@pytest.mark.parametrize("document", WRONG, ids=json.dumps)
def test_what_is_wrong_is_refused_by_both(document: dict[str, object]) -> None:
    assert _tells(document)
    with pytest.raises(JobFileError):
        read(json.dumps(document).encode(), path="f.json", base="/b", read=lambda _: b"")


@pytest.mark.parametrize("keys", WRONG_JOBS, ids=json.dumps)
def test_a_job_that_is_wrong_is_refused_by_both(keys: dict[str, object]) -> None:
    test_what_is_wrong_is_refused_by_both({"jobs": {"j": {**JOB, **keys}}})


RIGHT_JOBS: list[dict[str, object]] = [
    {"cpus": "5.", "cpuset-cpus": " 0-3"},
    {"cpus": " .5 ", "cpuset-cpus": " 0 , 2-3 "},
    {"stop_timeout": 5, "add_hosts": ["a:1.2.3.4"], "max_parallel": 2, "device_read_bps": ["/dev/sda:1m"]},
    {"timeout": 0, "user": 1000, "ports": [80, "8080:80", "127.0.0.1::53/udp", "80-81:90-91"], "network": "private"},
    {"memory": 1 << 30, "memory-swap": "-1", "cpus": 0.5, "cpuset-cpus": "0-3, 6", "pids-limit": -1},
    {"volumes": [".:/a:ro", {"type": "tmpfs", "target": "/b", "size": "5m"}], "scratch": "memory:5m"},
    {"entrypoint": "", "dns": "none", "root-emulation": True, "env": {"A": 1, "B": True, "C": 1.5, "D": ""}},
    {"matrix": {"include": [{"a": 1}]}, "timeout": "${{ matrix.a }}m", "repeat": "${{ matrix.a }}"},
    {"matrix": {"a": [1, True, "x"], "b": [2], "exclude": [{"a": 1}]}},
    {"workspace": ".", "artifacts": ["dist/**", "!dist/x"], "cache": {"key": "a", "path": "/a"}},
    {"workspace": {"source": ".", "target": "/w", "mode": "mount"}, "artifacts": "x", "cache": False},
    {"artifacts": {"paths": ["x"], "if-no-files-found": "error", "max-size": "5m"}},
    {"retry": {"attempts": 3, "backoff": "1s", "on": ["exit"]}, "stage": "setup", "priority": -5},
    {"allow-failure": True, "if": "always()"},
]


@pytest.mark.parametrize("keys", RIGHT_JOBS, ids=json.dumps)
def test_what_is_right_is_taken_by_both(keys: dict[str, object]) -> None:
    document = {"jobs": {"j": {**JOB, **keys}}}
    assert _tells(document) == []
    assert read(json.dumps(document).encode(), path="f.json", base="/b").jobs


def test_numbers_that_are_written_in_two_ways_are_two_values() -> None:
    text = '[jobs.j]\nrootfs = "./r"\nrun = "x"\nmatrix = { go = [1.2, 1.20] }'
    assert [job.id for job in read(text.encode(), path="f.toml", base="/b").jobs] == ["j (1.2)", "j (1.20)"]
    assert _tells(tomllib.loads(text)) == []


@pytest.mark.parametrize("where", ["defaults", "template", "service"])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("command", "${{ matrix.a }}"),
        ("ports", "${{ matrix.a }}"),
        ("rootfs", ["${{ matrix.a }}"]),
        ("workdir", {"a": "${{ matrix.a }}"}),
        ("workspace", ["${{ matrix.a }}"]),
        ("retry", ["${{ matrix.a }}"]),
        ("entrypoint", {"a": "${{ matrix.a }}"}),
    ],
)
def test_an_expression_of_a_wrong_kind_is_refused_by_both(where: str, key: str, value: object) -> None:
    """Also where every job has something else."""
    if where == "service" and key in ("ports", "retry"):
        return
    job = {**JOB, "matrix": {"a": ["x"]}}
    job = {**job, "rootfs": "./own", key: {"command": ["x"], "rootfs": "./own", "ports": []}.get(key, "/own")}
    other = {"rootfs": "./r", key: value}
    document: dict[str, object] = {
        "defaults": {"defaults": {key: value}, "jobs": {"j": job}},
        "template": {"jobs": {".t": other, "j": job}},
        "service": {"services": {"s": other}, "jobs": {"j": job}},
    }[where]
    assert _tells(document)
    with pytest.raises(JobFileError, match="expected a"):
        read(json.dumps(document).encode(), path="f.json", base="/b")


def test_files_that_take_over_from_others() -> None:
    assert _tells({"extends": ["a.toml"]}) == []
    assert _tells({"extends": "a.toml", "jobs": {".t": JOB, "j": {"extends": ".t"}}}) == []
    assert _tells({"rootfs": {"r": {"pull": "never"}}, "extends": "a.toml"}) == []


POOL: list[object] = [
    *(
        None,
        True,
        False,
        0,
        1,
        -1,
        5,
        99,
        100,
        1000,
        1 << 31,
        0.5,
        1.5,
        -0.5,
        "",
        " ",
        "x",
        "0",
        "1",
        "1.5",
        "-1",
        "none",
        "host",
    ),
    *(
        "private",
        "5m",
        "1h30m",
        "512m",
        "1.5g",
        "disk",
        "memory",
        "memory:5m",
        "0-3,6",
        "/abs",
        "./rel",
        "a:b",
        ".:/src:ro",
        "always()",
    ),
    *(
        "success() && !failure()",
        "TERM",
        "SIGINT",
        "15",
        "RTMIN+3",
        "1000:1000",
        "auto",
        "on",
        "best-effort",
        "missing",
        "setup",
    ),
    *(
        "linux/arm64",
        "arm64",
        "8080:80",
        "NET_ADMIN",
        "nofile=1:2",
        "/dev/sda:5m",
        "/tmp:size=5m",
        "a:1.2.3.4",
        "${{ matrix.a }}",
    ),
    *("dist/**", "no-new-privileges", "true", "copy", "warn", "a.b.c"),
    *(
        [],
        [""],
        ["x"],
        [1],
        [1.5],
        ["/abs"],
        [".:/src:ro"],
        ["8080:80"],
        [80],
        ["NET_ADMIN"],
        ["nofile=1:2"],
        ["/dev/sda:5m"],
    ),
    *(
        ["/tmp:size=5m"],
        ["a:1.2.3.4"],
        ["9.9.9.9"],
        ["none"],
        ["no-new-privileges"],
        ["dist/**", "!dist/x"],
        [True],
        [None],
        [[]],
        [{}],
    ),
    *(
        {},
        {"A": "1", "B": 2, "C": True},
        {"A": None},
        {"source": "."},
        {"source": ".", "mode": "mount", "target": "/x"},
    ),
    *(
        {"attempts": 2},
        {"attempts": 2, "backoff": "1s", "on": "exit"},
        {"attempts": 2, "on": ["oom"]},
        {"key": "a", "path": "/a"},
    ),
    *(
        [{"key": 1, "path": "/a"}],
        {"paths": "x"},
        {"paths": ["x"], "if_none": "error", "max_size": 5},
        [{"source": ".", "target": "/x"}],
    ),
    *([{"type": "tmpfs", "target": "/x", "size": 5}], [{"source": ".", "target": "/x", "read_only": True}]),
]


@pytest.mark.parametrize("key", [*schema.JOB, "stop_timeout", "device_read_bps"])
def test_nothing_is_refused_that_can_be_read(key: str) -> None:
    taken = 0
    for value in POOL:
        job: dict[str, object] = {"rootfs": "./r", "matrix": {"a": ["5", "true", "/x"]}, key: value}
        if key not in ("run", "command"):
            job["command"] = ["x"]
        document = {"jobs": {"j": job, "x": JOB}}
        try:
            read(json.dumps(document).encode(), path="f.json", base="/b")
        except JobFileError:
            continue
        taken += 1
        assert _tells(document) == [], value
    # which go with another key, or name another part of the file
    assert taken or key in ("secrets", "services", "matrix", "memory-swap")


@pytest.mark.parametrize("key", schema.TOP)
def test_nothing_is_refused_at_the_top_that_can_be_read(key: str) -> None:
    for value in POOL:
        document = {"jobs": {"j": JOB}, key: value}
        try:
            read(json.dumps(document).encode(), path="f.json", base="/b", read=lambda _: b"version = 1")
        except JobFileError:
            continue
        assert _tells(document) == [], value


@pytest.mark.parametrize("key", [*schema.SOURCE, *schema.SERVICE])
def test_nothing_is_refused_in_other_tables_that_can_be_read(key: str) -> None:
    table = "rootfs" if key in schema.SOURCE else "services"
    for value in POOL:
        entry = {"source": "x", key: value} if table == "rootfs" else {"rootfs": "./r", key: value}
        document = {"jobs": {"j": {**JOB, "services": ["one"] if table == "services" else []}}, table: {"one": entry}}
        try:
            read(json.dumps(document).encode(), path="f.json", base="/b")
        except JobFileError:
            continue
        assert _tells(document) == [], value
