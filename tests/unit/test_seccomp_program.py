"""Compiled filters, asked call by call: they answer as libseccomp's own do, and the default and root emulation as they say."""

from __future__ import annotations

import errno
import itertools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seccomp_reference import DECIDES_BY_ARGUMENT, answer, constants, expressible, libseccomp_program

from guntainer import capabilities, errors
from guntainer.seccomp import bpf, cache, names, profile, verdicts
from guntainer.seccomp.profile import ALLOW, ERRNO, KILL_PROCESS, KILL_THREAD, LOG, TRACE, TRAP, Profile, Rule

EPERM, ENOSYS = ERRNO | errno.EPERM, ERRNO | errno.ENOSYS
ALL_64 = (1 << 64) - 1
MACHINES = {names.X86_64: "x86_64", names.AARCH64: "aarch64"}
KIN = {names.X86_64: (names.X86_64, names.X86, names.X32), names.AARCH64: (names.AARCH64, names.ARM)}
EVERY_CAPABILITY = frozenset(capabilities.KNOWN)
NONE: frozenset[str] = frozenset()


@pytest.fixture(params=MACHINES.values(), ids=str)
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    number = {name: number for number, name in MACHINES.items()}[request.param]
    monkeypatch.setattr(names, "native", lambda: number)
    return number


@pytest.fixture
def x86_64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "native", lambda: names.X86_64)


def default(native: int = names.X86_64, held: frozenset[str] = capabilities.DEFAULT) -> Profile:
    return profile.load(cache.DEFAULT_PROFILE, capabilities=held, machine=MACHINES[native], release="6.12.0")


def compiled(rules: Profile | None, *, emulate_root: bool = False) -> bytes:
    return verdicts.compile_program(rules, emulate_root=emulate_root)


class Filter:
    """A program, asked by the names of calls."""

    def __init__(self, program: bytes, architecture: int) -> None:
        self.program = program
        self.architecture = architecture

    def __call__(self, name: str, *arguments: int) -> int:
        found = names.places(self.architecture, name)
        assert found, f"there is no {name} on {self.architecture:#x}"
        return self.number(found[0][0], *arguments)

    def number(self, number: int, *arguments: int) -> int:
        architecture = names.X86_64 if self.architecture == names.X32 else self.architecture
        return answer(self.program, architecture, number, arguments)


# -- the same answers as libseccomp's program


def arguments_for(*programs: bytes) -> list[int]:
    """Values around everything that the programs compare with, in both halves of an argument."""
    values = {0, 1, 0xFFFF_FFFF, 1 << 32, ALL_64}
    for constant in {k for program in programs for k in constants(program) if not 0xC000_0000 & k or k >= 0xF000_0000}:
        values |= {constant, max(constant - 1, 0), constant + 1, constant | 1 << 32, constant << 32}
    return sorted(value for value in values if value <= ALL_64)


def differences(rules: Profile, native: int, numbers: dict[int, list[int]]) -> list[str]:
    own, reference = compiled(rules), libseccomp_program(rules, native)
    values = arguments_for(own, reference)
    found = []
    for architecture, asked in numbers.items():
        narrow = architecture != native
        audit = native if architecture == names.X32 else architecture
        for number in asked:
            pair = answer(own, audit, number, None), answer(reference, audit, number, None)
            if DECIDES_BY_ARGUMENT not in pair:
                if pair[0] != pair[1]:
                    found.append(f"{architecture:#x} {number}: {pair[0]:#x} {pair[1]:#x}")
                continue
            tried = [(0,) * index + (value,) for index in range(6) for value in values]
            tried += list(itertools.product(values[:: max(1, len(values) // 12)], repeat=2))
            for arguments in tried:
                given_ = tuple(value & 0xFFFF_FFFF for value in arguments) if narrow else arguments
                pair = answer(own, audit, number, given_), answer(reference, audit, number, given_)
                if pair[0] != pair[1]:
                    found.append(f"{architecture:#x} {number} {given_}: {pair[0]:#x} {pair[1]:#x}")
                    break
    return found


def known_to_libseccomp(architecture: int, last: int) -> list[int]:
    """Numbers up to `last`, without those whose names this host's libseccomp does not know yet."""
    library = names.library()
    newer = {
        place[0]
        for name in (*names._EVERYWHERE, *names._NEWER.get(architecture, {}))
        if library.seccomp_syscall_resolve_name_arch(architecture, name.encode()) == -1
        for place in names.places(architecture, name) or ()
    }
    return [number for number in range(last + 1) if number not in newer]


@pytest.mark.parametrize("held", [NONE, capabilities.DEFAULT, EVERY_CAPABILITY], ids=["none", "default", "all"])
def test_the_default_is_what_libseccomp_makes_of_it(native: int, held: frozenset[str]) -> None:
    rules, dropped = expressible(default(native, held))
    assert dropped == {"ioctl", "socket"}
    last = names._EVERYWHERE["open_tree_attr"]
    asked = {one: known_to_libseccomp(one, last) for one in KIN[native] if one != names.X32}
    if native == names.X86_64:
        asked[names.X32] = [names.X32_BIT, names.X32_BIT + 59, names.X32_BIT + 547]  # killed by both
    asked[names.RISCV64] = [0, 63, 221]
    assert differences(rules, native, asked) == []


@pytest.mark.parametrize("capability", sorted(capabilities.KNOWN))
def test_each_capability_is_what_libseccomp_makes_of_it(x86_64: None, capability: str) -> None:
    rules, _ = expressible(default(held=frozenset({capability})))
    numbers = known_to_libseccomp(names.X86_64, names._EVERYWHERE["open_tree_attr"])
    assert differences(rules, names.X86_64, {names.X86_64: numbers, names.X86: numbers[:300:7]}) == []


CALLS = ("read", "ioctl", "socket", "accept", "semget", "semop", "chown", "clone", "openat", "mmap", "personality")
INSIDE = ("socket", "accept", "semget", "semop")
"""Those that i386 has in socketcall(2) and ipc(2)."""
ANSWERS = (ALLOW, LOG, TRACE | 7, ERRNO | 5, ERRNO, TRAP, KILL_THREAD, KILL_PROCESS)
values = st.sampled_from((0, 1, 5, 0xFF, 0xFFFF_FFFF, 0x7FFF_FFFF, 0x8000_0000))
wide_values = values | st.sampled_from((1 << 32, 5 << 32 | 7, ALL_64, ALL_64 - 1))
operators = st.sampled_from(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))


def conditions(values: st.SearchStrategy[int]) -> st.SearchStrategy[tuple[tuple[int, str, int, int], ...]]:
    one = st.tuples(st.integers(0, 5), operators, values, values)
    return st.lists(one, max_size=2, unique_by=lambda condition: condition[0]).map(tuple)


@st.composite
def profiles(draw: st.DrawFn, *, plain: bool) -> Profile:
    """Profiles; `plain`: a rule per call, with numbers of 32 bits, which libseccomp has no trouble with."""
    default_action = draw(st.sampled_from(ANSWERS))
    rules = []
    for name in draw(st.lists(st.sampled_from(CALLS), unique=True, max_size=5)):
        if plain:
            action = draw(st.sampled_from([one for one in ANSWERS if one != default_action]))
            rules.append(Rule(names=(name,), action=action, conditions=draw(conditions(values))))
        else:
            several = st.lists(st.tuples(st.sampled_from(ANSWERS), conditions(wide_values)), min_size=1, max_size=4)
            rules += [Rule(names=(name,), action=action, conditions=one) for action, one in draw(several)]
    known = frozenset(CALLS) | {"removexattrat", "pwritev2"}  # 547 on x32
    kin = frozenset(draw(st.sets(st.sampled_from(("SCMP_ARCH_X86", "SCMP_ARCH_X32")))))
    return Profile(path="p", default=default_action, rules=tuple(rules), known=known, kin=kin)


@settings(max_examples=100)
@given(rules=profiles(plain=True))
def test_any_plain_profile_is_what_libseccomp_makes_of_it(rules: Profile) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "native", lambda: names.X86_64)
        asked: dict[int, list[int]] = {}
        for architecture in KIN[names.X86_64]:
            numbers = [place[0] for name in CALLS for place in names.places(architecture, name) or ()]
            around = {near for number in numbers for near in (number - 1, number, number + 1)}
            asked[architecture] = sorted(around - {-1, names.X32_BIT - 1})
        if any(rule.conditions and set(rule.names) & set(INSIDE) for rule in rules.rules):
            asked[names.X86] = [number for number in asked[names.X86] if number not in (102, 117)]  # we are stricter
        asked[names.ARM] = [3]
        assert differences(rules, names.X86_64, asked) == []


def holds(condition: tuple[int, str, int, int], arguments: tuple[int, ...]) -> bool:
    index, operator, value, second = condition
    given_ = arguments[index]
    return {
        "NE": given_ != value,
        "LT": given_ < value,
        "LE": given_ <= value,
        "EQ": given_ == value,
        "GE": given_ >= value,
        "GT": given_ > value,
        "MASKED_EQ": given_ & value == second & value,
    }[operator]


def said(rules: Profile, name: str, arguments: tuple[int, ...]) -> int:
    """What the rules say of a call, word by word."""
    mine = [rule for rule in rules.rules if name in rule.names]
    for rule in mine:
        if rule.conditions and all(holds(condition, arguments) for condition in rule.conditions):
            return rule.action
    return next((rule.action for rule in mine if not rule.conditions), rules.default)


@settings(max_examples=100)
@given(rules=profiles(plain=False), data=st.data())
def test_any_profile_does_what_its_rules_say(rules: Profile, data: st.DataObject) -> None:
    """Also where libseccomp does not: of several inequalities for one call, its 2.5 confuses some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "native", lambda: names.X86_64)
        program = compiled(rules)
        around = sorted({near for one in arguments_for(program) for near in (one, one & 0xFFFF_FFFF)})
        calls = [name for rule in rules.rules for name in rule.names] or ["read"]
        for _ in range(40):
            arguments = tuple(data.draw(st.lists(st.sampled_from(around), min_size=6, max_size=6)))
            for name in calls:
                assert Filter(program, names.X86_64)(name, *arguments) == said(rules, name, arguments)
                narrow = tuple(one & 0xFFFF_FFFF for one in arguments)
                places = names.places(names.X86, name) or ()
                if "SCMP_ARCH_X86" in rules.kin and places and not places[0][1]:
                    assert Filter(program, names.X86)(name, *narrow) == said(rules, name, narrow)
                if "SCMP_ARCH_X32" in rules.kin:
                    assert Filter(program, names.X32)(name, *arguments) == said(rules, name, arguments)


# -- what the default says


ALLOWED = ("read", "openat", "execve", "chown", "mount_setattr", "ptrace", "mknod", "chroot", "futex_wait", "mseal")
REFUSED = (
    *("mount", "umount2", "unshare", "setns", "pivot_root", "keyctl", "add_key", "request_key", "bpf", "reboot"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "userfaultfd", "kexec_load", "init_module", "swapon"),
    *("perf_event_open", "open_by_handle_at", "settimeofday", "clock_settime", "mbind", "move_pages", "iopl", "acct"),
    *("syslog", "sethostname", "quotactl", "fsopen", "open_tree", "open_tree_attr", "lsm_list_modules", "uselib"),
    *("kcmp", "pidfd_getfd", "process_madvise", "vhangup", "fanotify_init", "nfsservctl", "set_mempolicy_home_node"),
)
GIVEN_BY = {
    "CAP_SYS_ADMIN": ("mount", "umount2", "unshare", "setns", "clone3", "fsopen", "mount_setattr", "bpf", "syslog"),
    "CAP_SYS_PTRACE": ("kcmp", "pidfd_getfd", "process_madvise"),
    "CAP_SYS_NICE": ("mbind", "set_mempolicy", "get_mempolicy", "set_mempolicy_home_node"),
    "CAP_SYS_TIME": ("settimeofday", "clock_settime"),
    "CAP_SYS_MODULE": ("init_module", "finit_module", "delete_module"),
    "CAP_SYS_RAWIO": ("iopl", "ioperm"),
    "CAP_SYS_CHROOT": ("chroot",),
    "CAP_SYS_BOOT": ("reboot",),
    "CAP_SYS_PACCT": ("acct",),
    "CAP_SYS_TTY_CONFIG": ("vhangup",),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
    "CAP_SYSLOG": ("syslog",),
    "CAP_BPF": ("bpf",),
    "CAP_PERFMON": ("perf_event_open",),
}


@pytest.mark.parametrize("architecture", [names.X86_64, names.X86])
def test_what_the_default_lets_through(x86_64: None, architecture: int) -> None:
    asked = Filter(compiled(default()), architecture)
    allowed = [name for name in ALLOWED if name != "mount_setattr"]
    assert {name: asked(name) for name in allowed} == dict.fromkeys(allowed, ALLOW)
    refused = [name for name in REFUSED if names.places(architecture, name)]
    assert len(refused) > 35
    assert {name: asked(name) for name in refused} == dict.fromkeys(refused, EPERM)


@pytest.mark.parametrize("capability", GIVEN_BY)
def test_what_a_capability_adds(x86_64: None, capability: str) -> None:
    for architecture in (names.X86_64, names.X86):
        without = Filter(compiled(default(held=EVERY_CAPABILITY - {capability})), architecture)
        having = Filter(compiled(default(held=frozenset({capability}))), architecture)
        for name in GIVEN_BY[capability]:
            assert having(name) == ALLOW, name
            also = {"syslog", "bpf", "perf_event_open"} if capability != "CAP_SYS_ADMIN" else {"syslog", "bpf"}
            if name not in also:  # CAP_SYS_ADMIN and a capability of their own both give these
                assert without(name) in (EPERM, ENOSYS), name
    neither = Filter(compiled(default(held=EVERY_CAPABILITY - {capability, "CAP_SYS_ADMIN"})), names.X86_64)
    if capability != "CAP_SYS_ADMIN":
        assert {neither(name) for name in GIVEN_BY[capability]} == {EPERM}


NEW_NAMESPACES = (0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000)


def test_a_process_may_be_cloned_but_no_namespace(native: int) -> None:
    for architecture in KIN[native][:2]:
        asked = Filter(compiled(default(native)), architecture)
        wide = 0 if architecture in (names.X86, names.ARM) else 1 << 40
        assert asked("clone", 0x0121_1111 & ~0x7E02_0000) == ALLOW  # threads, vfork
        for flag in NEW_NAMESPACES:
            assert asked("clone", flag) == EPERM
            assert asked("clone", flag | 17 | wide) == EPERM
        assert asked("clone3", 0) == ENOSYS  # where its flags are, no filter sees: a C library then takes clone
        free = Filter(compiled(default(native, frozenset({"CAP_SYS_ADMIN"}))), architecture)
        assert free("clone", sum(NEW_NAMESPACES)) == ALLOW and free("clone3", 0) == ALLOW


def test_sockets_of_every_family_but_two(native: int) -> None:
    asked = Filter(compiled(default(native)), native)
    for family in range(70):
        expected = EPERM if family in (38, 40) else ALLOW  # AF_ALG, AF_VSOCK
        assert asked("socket", family) == expected, family
        assert asked("socket", family | 0xDEAD << 32) == expected, "the kernel looks at 32 bits"


def test_personalities(native: int) -> None:
    asked = Filter(compiled(default(native)), native)
    for value in (0, 8, 0x20000, 0x20008, 0xFFFF_FFFF, ALL_64):
        assert asked("personality", value) == ALLOW
    for value in (1, 0x40000, 0x0400_0000, 0x20009, 0xFFFF_FFFE):
        assert asked("personality", value) == EPERM


def test_nothing_is_typed_into_a_terminal(native: int) -> None:
    for held in (capabilities.DEFAULT, EVERY_CAPABILITY):
        for architecture in KIN[native][:2]:
            asked = Filter(compiled(default(native, held)), architecture)
            for request in (0x5412, 0x541C):  # TIOCSTI, TIOCLINUX
                assert asked("ioctl", 0, request) == EPERM
                if architecture == native:
                    assert asked("ioctl", 0, request | 1 << 32) == EPERM, "the kernel looks at 32 bits"
            assert asked("ioctl", 0, 0x5413) == ALLOW and asked("ioctl", 0x5412, 0) == ALLOW


def test_calls_newer_than_the_profile_are_not_there(native: int) -> None:
    for architecture in KIN[native][:2]:
        asked = Filter(compiled(default(native)), architecture)
        last = names._EVERYWHERE["open_tree_attr"]
        assert asked.number(last) == EPERM
        assert {asked.number(number) for number in (last + 1, last + 2, 1000, 0x7FFF)} == {ENOSYS}


def test_arm_has_calls_far_above_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "native", lambda: names.AARCH64)
    asked = Filter(compiled(default(names.AARCH64)), names.ARM)
    assert {asked(name) for name in ("set_tls", "cacheflush", "breakpoint")} == {ALLOW}
    assert asked.number(600) == asked.number(0xF0003) == asked.number(0xF0006) == ENOSYS


@pytest.mark.parametrize("emulate_root", [False, True])
def test_foreign_architectures_and_x32_are_killed(native: int, emulate_root: bool) -> None:
    program = compiled(default(native), emulate_root=emulate_root)
    strangers = {names.X86_64, names.X86, names.AARCH64, names.ARM, names.RISCV64, 0, 0xFFFF_FFFF} - set(KIN[native])
    for stranger in strangers:
        assert {answer(program, stranger, number) for number in (0, 1, 59, 221, 400)} == {KILL_PROCESS}
    if native == names.X86_64:
        assert {answer(program, native, names.X32_BIT + number) for number in (0, 92, 520, 0x3FFF_FFFF)} == {
            KILL_PROCESS
        }
        assert answer(program, native, 0xFFFF_FFFF) == ENOSYS  # a tracer's "no call"


def test_x32_where_a_profile_has_it(x86_64: None) -> None:
    rules = default()
    asked = Filter(compiled(rules.replace(kin=rules.kin | {"SCMP_ARCH_X32"}), emulate_root=True), names.X32)
    assert asked("read") == ALLOW and asked("keyctl") == EPERM and asked("chown") == ERRNO
    assert asked("ioctl", 0, 0x5412) == EPERM and asked("execve") == ALLOW
    assert asked.number(names.X32_BIT + 2000) == ENOSYS


def test_an_architecture_left_out_is_foreign(x86_64: None) -> None:
    program = compiled(default().replace(kin=frozenset()))
    assert answer(program, names.X86, 3) == KILL_PROCESS and answer(program, names.X86_64, 0) == ALLOW


# -- root emulation


SUCCEEDS = (
    *("chown", "fchown", "lchown", "fchownat", "setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid"),
    *("setfsuid", "setfsgid", "setgroups", "capset", "chown32", "fchown32", "lchown32", "setuid32", "setgid32"),
    *("setreuid32", "setregid32", "setresuid32", "setresgid32", "setfsuid32", "setfsgid32", "setgroups32"),
)


@pytest.mark.parametrize("confined", [True, False], ids=["default", "unconfined"])
def test_root_emulation(native: int, confined: bool) -> None:
    program = compiled(default(native) if confined else None, emulate_root=True)
    for architecture in KIN[native]:
        if architecture == names.X32 and confined:
            continue  # killed
        asked = Filter(program, architecture)
        there = [name for name in SUCCEEDS if names.places(architecture, name)]
        assert len(there) >= 12
        assert {name: asked(name, 1, 2, 3) for name in there} == dict.fromkeys(there, ERRNO)
        for name, before in (("mknod", (0,)), ("mknodat", (0xFFFF_FF9C, 0))):
            if not names.places(architecture, name):
                continue
            for kind in (0o020000, 0o060000):
                assert asked(name, *before, kind | 0o644, 0x103) == ERRNO
            for kind in (0, 0o010000, 0o040000, 0o100000, 0o120000, 0o140000):
                assert asked(name, *before, kind | 0o644) == ALLOW, "pipes, sockets and files are made"
        others = ("read", "fchmodat", "fsetxattr", "getuid", "setsid")
        assert {asked(name) for name in others if names.places(architecture, name)} == {ALLOW}
        assert asked("keyctl") == (EPERM if confined else ALLOW)
    assert answer(program, names.RISCV64, 0) == (KILL_PROCESS if confined else ALLOW)


def test_root_emulation_wins_over_the_profile(x86_64: None) -> None:
    always = Rule(names=("chown",), action=ERRNO | 5)
    sometimes = Rule(names=("chown", "mknod"), action=KILL_PROCESS, conditions=((0, "EQ", 0, 0),))
    rules = Profile(path="p", default=ALLOW, rules=(sometimes, always), known=frozenset({"chown"}), kin=frozenset())
    asked = Filter(compiled(rules, emulate_root=True), names.X86_64)
    assert asked("chown", 0) == asked("chown", 1) == ERRNO
    assert asked("mknod", 0, 0o020000) == ERRNO and asked("mknod", 0, 0o100000) == KILL_PROCESS


# -- rules of one call


def ruled(*rules: Rule, action: int = EPERM, kin: frozenset[str] = frozenset()) -> bytes:
    known = frozenset(name for rule in rules for name in rule.names)
    return compiled(Profile(path="profile.json", default=action, rules=rules, known=known, kin=kin))


def test_conditions_come_before_none_and_the_first_one_first(x86_64: None) -> None:
    five = Rule(names=("ioctl",), action=ERRNO | 5, conditions=((1, "EQ", 7, 0),))
    six = Rule(names=("ioctl",), action=ERRNO | 6, conditions=((1, "LE", 7, 0),))
    plain, late = Rule(names=("ioctl",), action=ALLOW), Rule(names=("ioctl",), action=KILL_PROCESS)
    asked = Filter(ruled(plain, late, five, six), names.X86_64)
    assert [asked("ioctl", 0, value) for value in (6, 7, 8)] == [ERRNO | 6, ERRNO | 5, ALLOW]


def test_calls_through_socketcall_and_ipc(x86_64: None) -> None:
    kin = frozenset({"SCMP_ARCH_X86"})
    inside = Rule(names=("socket",), action=ERRNO | 97, conditions=((0, "EQ", 40, 0),))
    open_, queue = Rule(names=("socket",), action=ALLOW), Rule(names=("semget",), action=ALLOW)
    asked = Filter(ruled(open_, inside, queue, kin=kin), names.X86)
    assert asked("socket", 40) == ERRNO | 97 and asked("socket", 2) == ALLOW
    assert asked("socketcall", 1) == ERRNO | 97, (
        "what can not be looked at is answered as strictly as it may have to be"
    )
    assert asked("socketcall", 2) == EPERM
    assert asked("ipc", 2) == asked("ipc", 2 | 1 << 16) == ALLOW and asked("ipc", 3) == EPERM
    only = Rule(names=("socket",), action=ALLOW, conditions=((0, "EQ", 2, 0),))
    assert Filter(ruled(only, kin=kin), names.X86)("socketcall", 1) == EPERM
    told = Filter(ruled(open_, inside, Rule(names=("socketcall",), action=ALLOW), kin=kin), names.X86)
    assert told("socketcall", 1) == ALLOW


@pytest.mark.parametrize("action", [ALLOW, LOG, TRACE])
def test_a_call_that_nobody_knows_can_not_be_refused(x86_64: None, action: int) -> None:
    rules = Rule(names=("read", "opennat"), action=EPERM, place="syscalls[3]")
    with pytest.raises(errors.UsageError, match=r'profile.json: syscalls\[3\].names: "opennat" can not be refused'):
        ruled(rules, action=action)
    ruled(Rule(names=("chown32", "mseal", "riscv_hwprobe"), action=EPERM), action=action)  # known, if not here
    assert Filter(ruled(Rule(names=("read", "opennat"), action=ALLOW), action=EPERM), names.X86_64)("read") == ALLOW


def test_a_program_has_a_longest_length(x86_64: None) -> None:
    def many(count: int) -> list[Rule]:
        return [Rule(names=("ioctl",), action=ALLOW, conditions=((1, "EQ", value, 0),)) for value in range(count)]

    asked = Filter(ruled(*many(800)), names.X86_64)  # jumps farther than a byte can say
    assert {asked("ioctl", 0, value) for value in (0, 300, 799)} == {ALLOW}
    assert {asked("ioctl", 0, value) for value in (800, 1 << 32, ALL_64)} == {EPERM}
    for count in (2100, 20000):
        with pytest.raises(errors.UsageError, match="longer than 4096 instructions"):
            ruled(*many(count))


@given(
    cuts=st.lists(st.integers(1, 600), unique=True, max_size=120),
    answers=st.lists(st.integers(0, 6), min_size=121, max_size=121),
)
def test_any_line_of_numbers(cuts: list[int], answers: list[int]) -> None:
    line = bpf.merged(list(zip([0, *sorted(cuts)], answers, strict=False)))
    program = bpf.assemble(bpf.Graph(), [(7, line)], 99)
    for number in range(640):
        expected = next(verdict for start, verdict in reversed(line) if start <= number)
        assert answer(program, 7, number) == expected
    assert answer(program, 8, 0) == 99


# -- without libseccomp, and the package


def test_libseccomp_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(names, "_library", None)
    monkeypatch.setattr(names.ctypes, "CDLL", refuse)
    with pytest.raises(errors.HostError) as caught:
        cache.program(str(tmp_path), profile="default", capabilities=NONE, emulate_root=False)
    told = str(caught.value)
    for part in ("libseccomp.so.2", "libseccomp2 (Debian", "Fedora, Alpine", "seccomp=unconfined", "doctor seccomp"):
        assert part in told
    assert cache.program(str(tmp_path), profile="unconfined", capabilities=NONE, emulate_root=False) == b""


def test_our_own_numbers_are_libseccomps() -> None:
    """Where the library knows a call, both tables say the same."""
    library, compared = names.library(), 0
    for architecture in (names.X86_64, names.X86, names.X32, names.AARCH64, names.ARM):
        for name, own in names._EVERYWHERE.items():
            number = library.seccomp_syscall_resolve_name_arch(architecture, name.encode())
            if number >= 0:
                compared += 1
                assert number == own | (names.X32_BIT if architecture == names.X32 else 0), name
    assert compared > 100
