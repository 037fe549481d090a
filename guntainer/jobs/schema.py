"""The JSON Schema of a job file, draft 2020-12: for completion and checks in editors. Pure.

It refuses nothing that `load` takes; `load` refuses more, since it knows what goes with what. (But for parts of a table with
expressions in [defaults] or in a template that no job takes over: nobody knows these.) A test compares its keys with those
that are read, so none can be forgotten here.
"""

from __future__ import annotations

from guntainer.jobs import fields, limits, schema_words, services
from guntainer.jobs.model import EMULATIONS, NETWORKS, NO_FILES, PULLS, RETRY_ON, STAGES, WORKSPACES
from guntainer.jobs.policy import MOST_ATTEMPTS, MOST_PRIORITY
from guntainer.jobs.schema_words import (
    DURATION,
    EXPRESSION,
    PORT,
    SIZE,
    choice,
    count,
    described,
    flag,
    list_of,
    number,
    one_or_list,
    table,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
_JOB_NAME = r"^\.?[A-Za-z0-9_][A-Za-z0-9._-]{0,99}$"
_AXIS = r"^[A-Za-z_][A-Za-z0-9_-]*$"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_ABSOLUTE = "^/"
_SCALAR: Schema = {"type": ["string", "number", "boolean"]}

SOURCE: dict[str, Schema] = {
    "source": described(
        text(expression=False),
        "Where the rootfs comes from: an archive, a folder or an image (a path, seen from this file's folder), docker://NAME[:TAG],"
        " https://…, oci:PATH[:TAG], docker-archive:FILE, or host: this machine's own programs, read-only.",
        "rootfs/debian.tar.zst",
        "docker://alpine:3.20",
        "host",
    ),
    "sha256": described(
        text(r"^[0-9A-Fa-f]{64}$", expression=False),
        "The archive's digest: anything else is refused. Of an image it is its manifest's.",
    ),
    "platform": described(
        text(r"^[a-z0-9._-]+(/[a-z0-9._-]+){0,2}$", expression=False),
        "Which one of an image for several platforms: os/arch[/variant].",
        "linux/arm64",
    ),
    "pull": described(
        choice(PULLS, expression=False), "When to fetch what is elsewhere: missing (default), always, never."
    ),
    "max-unpacked": described(
        number(SIZE, expression=False), "The most bytes that it may unpack to (default: 64g).", "2g"
    ),
    "max-entries": described(count(expression=False), "The most files that it may unpack to (default: 4000000)."),
}
"""The keys of [rootfs.NAME]."""


def _whole(least: int, most: int) -> Schema:
    return {"type": ["integer", "string"], "pattern": schema_words.WHOLE, "minimum": least, "maximum": most}


_NEEDED = {
    "needs": described(
        one_or_list(text()),
        "Jobs that have to end first, by name: all of a matrix with the job's own, or one of its cells. Where one of them fails,"
        " this job is skipped, unless `if` says otherwise.",
        ["build"],
    ),
    "if": described(
        {"type": ["string", "boolean"]},
        "Whether the job runs when what it needs has ended, as on GitHub: success() (default), failure(), always(), cancelled(), and"
        " what its matrix says, with ==, !=, &&, ||, !.",
        "always()",
        "failure() && matrix.os == 'debian'",
    ),
    "stage": described(
        choice(STAGES, expression=False),
        "setup: before all other jobs. teardown: after all others, however those ended.",
    ),
    "allow-failure": described(
        {"anyOf": [flag(), {"const": ""}]}, "A failure of this job is shown and counts for nothing (default: false)."
    ),
    "retry": described(
        {
            "anyOf": [
                {"type": ["integer", "string"], "minimum": 0, "maximum": MOST_ATTEMPTS - 1, "pattern": EXPRESSION},
                table(
                    {
                        "attempts": described(
                            {**count(), "maximum": MOST_ATTEMPTS},
                            "How often it is tried in all, the first time included.",
                            3,
                        ),
                        "backoff": described(
                            number(DURATION),
                            "How long to wait before the second attempt; twice as long before each one after it.",
                            "5s",
                        ),
                        "on": described(
                            {"anyOf": [choice(RETRY_ON), {**list_of(choice(RETRY_ON)), "minItems": 1}]},
                            "How an attempt has to end to be followed by another one: in any of these ways by default.",
                            ["timeout", "exit"],
                        ),
                    },
                    "attempts",
                ),
            ]
        },
        "Try the job again when it fails: how many more times, or a table. One that succeeds then is shown as flaky.",
        2,
        {"attempts": 3, "backoff": "5s", "on": ["timeout"]},
    ),
    "priority": described(
        {
            "type": ["integer", "string"],
            "minimum": -MOST_PRIORITY,
            "maximum": MOST_PRIORITY,
            "pattern": EXPRESSION,
        },
        "Of the jobs that could start, that with the highest number does (default: 0).",
    ),
    "repeat": described(count(), "Run the job so many times: NAME #1, NAME #2 and so on.", 100),
    "fail-fast": described(
        {"type": "boolean"}, "The first failure among the jobs of this matrix cancels the others (default: false)."
    ),
    "max-parallel": described(count(expression=False), "At most so many jobs of this matrix at once."),
    "timeout": described(number(DURATION), "After so long the job is stopped; 0 is no limit.", "5m", "1h30m", 90),
}
_THINGS: dict[str, Schema] = {
    "workspace": described(
        {
            "anyOf": [
                text(),
                table(
                    {
                        "source": described(text(), "A folder of this machine, seen from this file's folder.", "."),
                        "target": described(text(_ABSOLUTE), "Where it is in the container (default: /workspace)."),
                        "mode": described(
                            choice(WORKSPACES),
                            "copy (default): each job has its own, gone with it. mount: the folder itself. read-only: that, not to be"
                            " written to.",
                        ),
                    },
                    "source",
                ),
            ]
        },
        "A folder of this machine for the job to work in.",
        ".",
        {"source": ".", "target": "/src", "mode": "copy"},
    ),
    "artifacts": described(
        {
            "anyOf": [
                one_or_list(text()),
                table(
                    {
                        "paths": described(one_or_list(text()), "Patterns, as above.", ["dist/*.whl"]),
                        "if-none": described(choice(NO_FILES), "What to do where nothing matches (default: warn)."),
                        "if-no-files-found": described(choice(NO_FILES), "GitHub's word for if-none."),
                        "max-size": described(
                            number(SIZE), "The most bytes of all of them together (default: 1g).", "200m"
                        ),
                    },
                    "paths",
                ),
            ]
        },
        "Files that are copied out of the container into the results folder: patterns, in which ** is any number of folders, and !"
        " in front takes away what others match.",
        ["dist/**", "!dist/**/*.tmp"],
    ),
    "cache": described(
        {
            "anyOf": [
                flag(),
                one_or_list(
                    table(
                        {
                            "key": described(
                                {"type": ["string", "number"]},
                                "What the folder is known by: whoever names it shares it.",
                            ),
                            "path": described(text(_ABSOLUTE), "Where it is in the container.", "/root/.cache/pip"),
                        },
                        "key",
                        "path",
                    )
                ),
            ]
        },
        "Folders that are kept between runs, by key. Or false: unpack the rootfs anew, and keep nothing of it (default: true).",
        [{"key": "pip", "path": "/root/.cache/pip"}],
    ),
    "secrets": described(
        one_or_list(text()), "Names in [secrets] that the job gets as variables; no output shows them.", ["TOKEN"]
    ),
    "services": described(
        list_of(text()), "Names in [services] that run beside the job, in its network, while it does.", ["db"]
    ),
}
_PROGRAM: dict[str, Schema] = {
    "rootfs": described(
        text(),
        "What the job runs on: a name in [rootfs], or what `source` takes there; ./NAME is always a path.",
        "host",
        "docker://alpine:3.20",
        "${{ matrix.rootfs }}",
    ),
    **{
        key: described(schema_words.with_expression(SOURCE[key]), SOURCE[key]["description"])
        for key in list(SOURCE)[2:]
    },
    "command": described(
        list_of({"type": ["string", "number"]}),
        "What to run, as it stands, without a shell; [] is the image's own.",
        ["make", "test"],
    ),
    "run": described(text(), "A script for /bin/sh -e: one line or several.", "make test"),
    "entrypoint": described(
        {"anyOf": [{"type": "string"}, list_of({"type": ["string", "number"]})]},
        'The program that the command is given to, instead of the image\'s own; "" is none.',
    ),
    "env": described({"type": "object", "additionalProperties": _SCALAR}, "Variables, by name.", {"CI": "1"}),
    "volumes": described(
        list_of(
            {
                "anyOf": [
                    text(),
                    table(
                        {
                            "type": described(
                                choice(("bind", "tmpfs")),
                                "bind (default): a path of this machine. tmpfs: empty memory.",
                            ),
                            "source": described(text(), "A path of this machine, seen from this file's folder."),
                            "target": described(text(_ABSOLUTE), "Where it is in the container."),
                            "read-only": described(flag(), "It can not be written to (default: false)."),
                            "size": described(number(SIZE), "Of a tmpfs."),
                        },
                        "target",
                    ),
                ]
            }
        ),
        "Paths of this machine in the container: SRC:DST[:ro].",
        [".:/src:ro"],
    ),
    "tmpfs": described(list_of(text()), "Empty folders in memory: DST[:size=16m].", ["/tmp:size=64m"]),
    "workdir": described(text(_ABSOLUTE), "The folder that the command starts in.", "/src"),
    "user": described(
        {"type": ["string", "number"]},
        "Who runs the command: UID[:GID] or name[:group] (default: the image's).",
        "1000:1000",
    ),
    "hostname": described(text(), "The container's host name (default: guntainer)."),
    "stdin": described(text(), "A file to read standard input from (default: there is nothing)."),
}
_BOUNDS: dict[str, Schema] = {
    "network": described(
        choice(NETWORKS),
        "host (default): this machine's. none: nothing but lo. private: an own one, by pasta or slirp4netns.",
    ),
    "ports": described(
        list_of({"type": ["string", "integer"], "pattern": PORT, "minimum": 1, "maximum": 65535}),
        "Ports of a private network that this machine publishes: [[IP:][HOST]:]CONTAINER[/udp].",
        ["8080:80", "53:53/udp"],
    ),
    "publish-all": described(flag(), "Publish what the image listens on as well, on free ports."),
    "dns": described(
        {"anyOf": [{"const": "none"}, list_of(text()), schema_words.EXPRESSIONS]},
        "Name servers instead of this machine's; \"none\" leaves the rootfs's own resolv.conf.",
        ["9.9.9.9"],
    ),
    "add-hosts": described(
        list_of(text(r"^[^:]+:.+$")), "More host names: NAME:IP, or NAME:host-gateway.", ["db:10.1.2.3"]
    ),
    "cap-add": described(list_of(text()), "Capabilities that the command has besides the usual ones.", ["NET_ADMIN"]),
    "cap-drop": described(list_of(text()), "Capabilities that it does not have.", ["ALL"]),
    "security-opt": described(
        list_of(text()), "no-new-privileges, seccomp=unconfined, seccomp=FILE, unmask=PATH.", ["no-new-privileges"]
    ),
    "privileged": described(flag(), "Everything that its user namespace has; nothing of this machine's."),
    "root-emulation": described(
        {"anyOf": [{"type": "boolean"}, choice(EMULATIONS)]},
        "Let what only a root with many ids can do succeed without effect (default: auto).",
    ),
    "memory": described(number(SIZE), "The most memory; all of the container is killed when it is reached.", "512m"),
    "memory-swap": described(
        number(rf"{SIZE}|^\s*-1\s*$"), "The most memory and swap together; -1: all the swap.", "1g"
    ),
    "cpus": described(
        {
            "type": ["number", "string"],
            "pattern": rf"^\s*(?:[0-9]+\.?[0-9]*|\.[0-9]+)\s*$|{EXPRESSION}",
            "minimum": limits.LEAST_CPUS,
        },
        "How many processors' worth of time.",
        1.5,
    ),
    "cpuset-cpus": described(
        {"type": ["string", "integer"], "pattern": rf"^\s*[0-9]+(\s*[-,]\s*[0-9]+)*\s*$|{EXPRESSION}"},
        "Which processors.",
        "0-3,6",
    ),
    "pids-limit": described(
        {"type": ["integer", "string"], "pattern": schema_words.WHOLE},
        "The most processes and threads; -1: no limit.",
        200,
    ),
    "blkio-weight": described(
        {
            "type": ["integer", "string"],
            "pattern": schema_words.WHOLE,
            "minimum": limits.WEIGHTS[0],
            "maximum": limits.WEIGHTS[1],
        },
        "The share of input and output: 10 to 1000.",
    ),
    **{
        option: described(
            list_of(text(rf"^.+:[^:]+$|{EXPRESSION}")),
            f"The most {'bytes' if option.endswith('bps') else 'operations'} a second that a device"
            f" {'gives' if 'read' in option else 'takes'}: DEVICE:RATE.",
            ["/dev/sda:10m"] if option.endswith("bps") else ["/dev/sda:1000"],
        )
        for option in limits.IO_KINDS
    },
    "ulimits": described(
        list_of(text(rf"^[a-z]+=.+$|{EXPRESSION}")), "Limits of setrlimit(2): NAME=SOFT[:HARD].", ["nofile=1024:2048"]
    ),
    "limits": described(
        choice(limits.MODES), "best-effort: go on without the limits that can not be had here (default: required)."
    ),
    "init": described(flag(), "A small init is process 1, instead of the command."),
    "read-only": described(flag(), "The rootfs can not be written to."),
    "scratch": described(
        text(rf"^disk$|^memory(:.+)?$|{EXPRESSION}"),
        "Where what is written to the rootfs goes: disk (default), memory[:SIZE].",
        "memory:64m",
    ),
    "stop-signal": described({"type": ["string", "integer"]}, "What a stop begins with (default: TERM).", "INT"),
    "stop-timeout": described(number(DURATION), "How long after that it is killed (default: 10s).", "30s"),
}
_MATRIX: Schema = described(
    {
        "type": "object",
        "minProperties": 1,
        "properties": {
            "include": described(
                {"type": "array", "items": {"type": "object", "minProperties": 1, "additionalProperties": _SCALAR}},
                "Cells with more values, or more cells: as on GitHub.",
                [{"python": "3.13", "extra": "yes"}],
            ),
            "exclude": described(
                {"type": "array", "items": {"type": "object", "minProperties": 1, "additionalProperties": _SCALAR}},
                "Cells to leave out: those that have all of these values.",
                [{"os": "alpine", "python": "3.11"}],
            ),
        },
        "propertyNames": {"pattern": _AXIS},
        "additionalProperties": {"type": "array", "minItems": 1, "items": _SCALAR},
    },
    "Axes and their values: one job for each combination; ${{ matrix.NAME }} is the value.",
    {"python": ["3.11", "3.12"], "os": ["alpine", "debian"]},
)
_EXTENDS = "later ones over earlier ones, and what stands here over all of them"
_OF_A_JOB: dict[str, Schema] = {**_PROGRAM, **_NEEDED, **_THINGS, **_BOUNDS, "matrix": _MATRIX}
SHARED: dict[str, Schema] = {key: each for key, each in _OF_A_JOB.items() if key not in fields.OF_A_JOB}
"""The keys of a job that [defaults] may have as well."""
JOB: dict[str, Schema] = {
    "extends": described(one_or_list(text(expression=False)), f"Jobs to take over from: {_EXTENDS}.", ".base"),
    **_OF_A_JOB,
}
SERVICE: dict[str, Schema] = {
    **{key: SHARED[key] for key in services.KEYS if key in SHARED},
    "ready": described(
        {"anyOf": [text(), list_of(text())]},
        "A command, or a script, in the service's container that succeeds when it is ready.",
        "pg_isready -U postgres",
    ),
    "ready-port": described(
        {"type": ["integer", "string"], "minimum": 1, "maximum": 65535, "pattern": EXPRESSION},
        "A TCP port that it listens on when it is ready.",
        5432,
    ),
    "ready-timeout": described(number(DURATION), "How long that may take (default: 60s).", "2m"),
}
"""The keys of [services.NAME]."""
SECRET: dict[str, Schema] = {
    "env": described(text(_VARIABLE, expression=False), "The variable of guntainer's own that holds it.", "TOKEN"),
    "file": described(text(expression=False), "The file that holds it; one line break at its end is not part of it."),
}
TOP: dict[str, Schema] = {
    "version": described({"const": 1}, "Of this format."),
    "name": described({"type": "string"}, "What the batch is called in reports."),
    "description": described({"type": "string"}, "What it is for."),
    "extends": described(
        one_or_list(text(expression=False)),
        f"Other job files, which are merged: {_EXTENDS}. Seen from this file's folder.",
        "../common.toml",
    ),
    "max-parallel": described(count(expression=False), "At most so many jobs at once; `-j` is another bound."),
    "fail-fast": described({"type": "boolean"}, "The first failure cancels the whole batch (default: false)."),
    "timeout": described(number(DURATION, expression=False), "After so long the whole batch is stopped.", "1h"),
}


def _exclusive(found: Schema) -> Schema:
    return {**found, "not": {"required": ["command", "run"]}}


def schema() -> Schema:
    """The schema, as plain objects for JSON."""
    return {
        "$schema": DRAFT,
        "$id": "urn:guntainer:jobs:1",
        "title": "guntainer job file",
        "description": "What `guntainer batch` runs.",
        "type": "object",
        "properties": {
            **TOP,
            "defaults": {"description": "What holds for every job that says nothing else.", "$ref": "#/$defs/defaults"},
            "rootfs": _named("Names for what jobs run on: [rootfs.NAME].", "source"),
            "secrets": _named("Texts that no output shows: [secrets.NAME].", "secret"),
            "services": _named("Containers that run beside the jobs which name them: [services.NAME].", "service"),
            "jobs": {
                "description": "The jobs: [jobs.NAME]. One whose name begins with a dot is a template, for others to extend.",
                "type": "object",
                "minProperties": 1,
                "patternProperties": {_JOB_NAME: {"$ref": "#/$defs/job"}},
                "additionalProperties": False,
            },
        },
        "patternProperties": schema_words.other_spellings(TOP),
        "additionalProperties": False,
        "anyOf": [{"required": ["jobs"]}, {"required": ["extends"]}],
        "$defs": {
            "defaults": _exclusive(table(SHARED)),
            "job": _exclusive(table(JOB)),
            "source": table(SOURCE),
            "secret": table(SECRET),
            "service": _exclusive(table(SERVICE)),
        },
    }


def _named(description: str, what: str) -> Schema:
    return {"description": description, "type": "object", "additionalProperties": {"$ref": f"#/$defs/{what}"}}
