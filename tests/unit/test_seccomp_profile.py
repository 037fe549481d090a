"""Seccomp profiles: both formats, what applies, and one line with its place for each mistake."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest

from guntainer import capabilities, errors
from guntainer.seccomp import cache, profile
from guntainer.seccomp.profile import ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD, LOG, TRACE, TRAP, Profile

EPERM = ERRNO | errno.EPERM


def loaded(path: Path, *held: str, machine: str = "x86_64", release: str = "6.12.3-arch1") -> Profile:
    return profile.load(str(path), capabilities=frozenset(held), machine=machine, release=release)


def written(tmp_path: Path, content: Any) -> Path:
    path = tmp_path / "profile.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def with_rule(**rule: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", **rule}]}


def named(rules: Profile) -> set[str]:
    return {name for rule in rules.rules for name in rule.names}


# -- what is understood


def test_the_plain_format_of_oci(tmp_path: Path) -> None:
    content = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_ARM"],
        "flags": ["SECCOMP_FILTER_FLAG_TSYNC"],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {
                "names": ["clone"],
                "action": "SCMP_ACT_TRACE",
                "errnoRet": 9,
                "args": [
                    {"index": 0, "value": 7, "valueTwo": 3, "op": "SCMP_CMP_MASKED_EQ"},
                    {"index": 5, "value": 18446744073709551615, "op": "SCMP_CMP_NE"},
                ],
            },
        ],
    }
    rules = loaded(written(tmp_path, content))
    assert rules.default == ERRNO | errno.ENOSYS and rules.kin == {"SCMP_ARCH_X86", "SCMP_ARCH_ARM"}
    first, second = rules.rules
    assert first.names == ("read", "write") and first.action == ALLOW and first.conditions == ()
    assert second.action == TRACE | 9
    assert second.conditions == ((0, "MASKED_EQ", 7, 3), (5, "NE", (1 << 64) - 1, 0))
    assert rules.known == {"read", "write", "clone"}


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        ({"action": "SCMP_ACT_ALLOW"}, ALLOW),
        ({"action": "SCMP_ACT_LOG"}, LOG),
        ({"action": "SCMP_ACT_TRAP"}, TRAP),
        ({"action": "SCMP_ACT_TRACE"}, TRACE | 1),
        ({"action": "SCMP_ACT_KILL"}, KILL_THREAD),
        ({"action": "SCMP_ACT_KILL_THREAD"}, KILL_THREAD),
        ({"action": "SCMP_ACT_KILL_PROCESS"}, KILL_PROCESS),
        ({"action": "SCMP_ACT_ERRNO"}, EPERM),
        ({"action": "SCMP_ACT_ERRNO", "errnoRet": 0}, ERRNO),
        ({"action": "SCMP_ACT_ERRNO", "errnoRet": 4095}, ERRNO | 4095),
        ({"action": "SCMP_ACT_ERRNO", "errnoRet": 1, "errno": "ENOSYS"}, ERRNO | errno.ENOSYS),
    ],
)
def test_actions(tmp_path: Path, given: dict[str, Any], answer: int) -> None:
    (rule,) = loaded(written(tmp_path, with_rule(**given))).rules
    assert rule.action == answer


def test_conditions_on_one_argument_stand_for_themselves(tmp_path: Path) -> None:
    one = {"index": 1, "value": 1, "op": "SCMP_CMP_EQ"}
    other = {"index": 1, "value": 9, "op": "SCMP_CMP_GT"}
    rules = loaded(written(tmp_path, with_rule(args=[one, other]))).rules
    assert [rule.conditions for rule in rules] == [((1, "EQ", 1, 0),), ((1, "GT", 9, 0),)]


def test_null_is_as_if_it_was_not_there(tmp_path: Path) -> None:
    nothing = {"args": None, "includes": None, "excludes": {}, "errnoRet": None, "comment": None}
    content = {**with_rule(**nothing), "archMap": None, "architectures": None}
    (rule,) = loaded(written(tmp_path, content)).rules
    assert rule.conditions == ()
    old = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "read", "action": "SCMP_ACT_ERRNO"}]}
    assert named(loaded(written(tmp_path, old))) == {"read"}
    assert loaded(written(tmp_path, {"defaultAction": "SCMP_ACT_ALLOW"})).rules == ()


@pytest.mark.parametrize(
    ("condition", "applies"),
    [
        ({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, False),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_KILL"]}}, True),
        ({"includes": {"caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"]}}, False),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, True),
        ({"excludes": {"caps": ["CAP_SYS_ADMIN", "CAP_CHOWN"]}}, False),
        ({"includes": {"arches": ["arm64", "amd64"]}}, True),
        ({"includes": {"arches": ["arm64"]}}, False),
        ({"excludes": {"arches": ["amd64"]}}, False),
        ({"excludes": {"arches": ["s390", "s390x"]}}, True),
        ({"includes": {"minKernel": "6.12"}}, True),
        ({"includes": {"minKernel": "6.13"}}, False),
        ({"includes": {"minKernel": "4.99"}}, True),
        ({"excludes": {"minKernel": "4.8"}}, False),
        ({"includes": {"caps": ["CAP_CHOWN"], "arches": ["arm64"]}}, False),
        ({"includes": {"caps": ["CAP_CHOWN"]}, "excludes": {"caps": ["CAP_KILL"]}}, False),
    ],
)
def test_what_applies(tmp_path: Path, condition: dict[str, Any], applies: bool) -> None:
    rules = loaded(written(tmp_path, with_rule(**condition)), "CAP_CHOWN", "CAP_KILL")
    assert named(rules) == ({"read"} if applies else set())
    assert rules.known == {"read"}


@pytest.mark.parametrize(
    ("machine", "kin"),
    [
        ("x86_64", {"SCMP_ARCH_X86", "SCMP_ARCH_X32"}),
        ("aarch64", {"SCMP_ARCH_ARM"}),
        ("riscv64", set()),
        ("unheard-of", set()),
    ],
)
def test_the_map_of_architectures(tmp_path: Path, machine: str, kin: set[str]) -> None:
    content = with_rule()
    content["archMap"] = [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        {"architecture": "SCMP_ARCH_RISCV64", "subArchitectures": None},
    ]
    assert loaded(written(tmp_path, content), machine=machine).kin == kin


def test_the_default_is_a_profile_like_any(tmp_path: Path) -> None:
    for machine in ("x86_64", "aarch64", "riscv64", "loongarch64"):
        rules = loaded(Path(cache.DEFAULT_PROFILE), *capabilities.DEFAULT, machine=machine)
        assert rules.default == EPERM and len(rules.known) > 400
    assert loaded(Path(cache.DEFAULT_PROFILE)).kin == {"SCMP_ARCH_X86"}, "x32 is left out on purpose"


# -- mistakes

LONG = "expected one of SCMP_ACT_ALLOW, SCMP_ACT_ERRNO"
MISTAKES: list[tuple[Any, str, str]] = [
    ("{", ":1:2: no JSON", ""),
    ('{\n"a": 1,,}', ":2:8: no JSON", ""),
    ("[" * 100_000, "no JSON of a profile: nested too deeply", ""),
    ('{"a": ' + "1" * 5000 + "}", "a huge number", ""),
    ([], "the profile: ", "expected an object with defaultAction"),
    ({}, "defaultAction: ", "missing: " + LONG),
    ({"defaultAction": "allow"}, "defaultAction: ", LONG),
    ({"defaultAction": "SCMP_ACT_ALOW"}, "defaultAction: ", '(did you mean "SCMP_ACT_ALLOW"?)'),
    ({"defaultAction": "SCMP_ACT_NOTIFY"}, "defaultAction: ", "SCMP_ACT_NOTIFY needs a listener"),
    ({"defaultAction": ["SCMP_ACT_ALLOW"]}, "defaultAction: ", LONG),
    ({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}, "defaultErrnoRet: ", "has no error number"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}, "defaultErrnoRet: ", "from 0 to 4095"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EPREM"}, "defaultErrno: ", 'such as EPERM, got "EPREM"'),
    ({"defaultAction": "SCMP_ACT_ALLOW", "sycalls": []}, "the profile: ", '"sycalls" (did you mean "syscalls"?)'),
    ({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}, "flags: ", "expected none"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"}, "listenerPath: ", "no listener"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X64"]}, "architectures: ", "did you mean"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "architectures": "x"}, "architectures: ", "expected a list"),
    (
        {
            "defaultAction": "SCMP_ACT_ALLOW",
            "architectures": ["SCMP_ARCH_X86"],
            "archMap": [{"architecture": "SCMP_ARCH_X86_64"}],
        },
        "archMap: ",
        "got both",
    ),
    ({"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{}]}, "archMap[0].architecture: ", "SCMP_ARCH_X86_64"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "archMap": [{"architecture": "x"}]}, "archMap[0]: ", 'architecture "x"'),
    ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}, "syscalls: ", "expected a list"),
    ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": ["read"]}, "syscalls[0]: ", "expected an object with names"),
    (with_rule(names=[]), "syscalls[0].names: ", "expected one system call at least"),
    (with_rule(names=None), "syscalls[0].names: ", "expected one system call at least"),
    (with_rule(names=["read", 3]), "syscalls[0].names[1]: ", "expected a name"),
    (with_rule(names=["re\udc80ad"]), "syscalls[0].names[0]: ", "expected a name"),
    (with_rule(name="write"), "syscalls[0].name: ", "either name or names"),
    (with_rule(action=None), "syscalls[0].action: ", "missing: " + LONG),
    (with_rule(action="SCMP_ACT_NOTIFY"), "syscalls[0].action: ", "SCMP_ACT_NOTIFY needs a listener"),
    (with_rule(errnoRet=5), "syscalls[0].errnoRet: ", "SCMP_ACT_ALLOW has no error number"),
    (with_rule(errno="EPERM"), "syscalls[0].errno: ", "SCMP_ACT_ALLOW has no error number"),
    (with_rule(action="SCMP_ACT_ERRNO", errnoRet="5"), "syscalls[0].errnoRet: ", "from 0 to 4095"),
    (with_rule(action="SCMP_ACT_ERRNO", errnoRet=True), "syscalls[0].errnoRet: ", "a whole number"),
    (with_rule(action="SCMP_ACT_ERRNO", errnoRet=-1), "syscalls[0].errnoRet: ", "from 0"),
    (with_rule(arg=[]), "syscalls[0]: ", 'unknown key "arg" (did you mean "args"?)'),
    (with_rule(args={"index": 0}), "syscalls[0].args: ", "expected a list"),
    (with_rule(args=[{"index": 0, "value": 1, "op": "EQ"}]), "syscalls[0].args[0].op: ", "SCMP_CMP_NE, SCMP_CMP_LT"),
    (with_rule(args=[{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]), "syscalls[0].args[0].index: ", "from 0 to 5"),
    (with_rule(args=[{"value": 1, "op": "SCMP_CMP_EQ"}]), "syscalls[0].args[0].index: ", "missing"),
    (with_rule(args=[{"index": 1, "op": "SCMP_CMP_EQ"}]), "syscalls[0].args[0].value: ", "missing"),
    (
        with_rule(args=[{"index": 1, "value": 1 << 64, "op": "SCMP_CMP_EQ"}]),
        "args[0].value: ",
        "to 18446744073709551615",
    ),
    (with_rule(args=[{"index": 1, "value": 1.0, "op": "SCMP_CMP_EQ"}]), "args[0].value: ", "a whole number"),
    (with_rule(includes={"cap": []}), "syscalls[0].includes: ", '(did you mean "caps"?)'),
    (with_rule(includes={"caps": ["CAP_SYS_ADMN"]}), "syscalls[0].includes.caps: ", '(did you mean "CAP_SYS_ADMIN"?)'),
    (with_rule(excludes={"arches": ["amd46"]}), "syscalls[0].excludes.arches: ", '(did you mean "amd64"?)'),
    (with_rule(includes={"minKernel": 4.8}), "syscalls[0].includes.minKernel: ", 'such as "4.8"'),
    (with_rule(includes={"minKernel": "4.8.1"}), "syscalls[0].includes.minKernel: ", 'such as "4.8"'),
    (with_rule(includes={"minKernel": "new"}), "syscalls[0].includes.minKernel: ", 'such as "4.8"'),
    (
        with_rule(includes={"caps": ["CAP_KILL"]}, args=[{}]),
        "syscalls[0].args[0].op: ",
        "got",
    ),  # though it does not apply
]


@pytest.mark.parametrize(("content", "place", "message"), MISTAKES)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, content: Any, place: str, message: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(errors.UsageError) as caught:
        loaded(path)
    told = str(caught.value)
    assert told.startswith(f"{path}:") and place in told and message in told
    assert "\n" not in told and "Traceback" not in told and len(told) < len(str(path)) + 500


def test_what_is_no_file_and_what_is_too_large(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "missing", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(errors.UsageError, match=f"can not read the seccomp profile {path}: {why}"):
            loaded(path)
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(errors.UsageError, match="fifo"):
        loaded(tmp_path / "fifo")  # and does not wait for a writer
    with pytest.raises(errors.UsageError, match="at most 1 MiB"):
        loaded(written(tmp_path, " " * profile.MOST_BYTES + "{}"))
    (tmp_path / "binary").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(errors.UsageError, match="not in UTF-8"):
        loaded(tmp_path / "binary")
    with pytest.raises(errors.UsageError, match=r"new\\nline"):
        loaded(tmp_path / "new\nline")
