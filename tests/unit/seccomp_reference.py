"""What the tests of seccomp filters compare with: the kernel's machine for classic BPF, and libseccomp's own compiler."""

from __future__ import annotations

import ctypes
import functools
import os
import struct

from guntainer.seccomp import names
from guntainer.seccomp.profile import KILL_PROCESS, Profile

DECIDES_BY_ARGUMENT = -1


@functools.lru_cache(maxsize=8)
def instructions(program: bytes) -> list[tuple[int, int, int, int]]:
    return [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]


def answer(program: bytes, architecture: int, number: int, arguments: tuple[int, ...] | None = ()) -> int:
    """What the kernel does of a call; DECIDES_BY_ARGUMENT where `arguments` is None and the program asks for one."""
    record = struct.pack("=IIQ", number, architecture, 0)
    for one in (*(arguments or ()), *(0,) * 6)[:6]:
        record += one.to_bytes(8, "little")
    code = instructions(program)
    at = value = 0
    while True:
        operation, then, otherwise, k = code[at]
        at += 1
        if operation == 0x20:  # LD W ABS
            if k >= 16 and arguments is None:
                return DECIDES_BY_ARGUMENT
            assert k % 4 == 0 and k <= 60
            value = int.from_bytes(record[k : k + 4], "little")
        elif operation == 0x54:  # AND K
            value &= k
        elif operation == 0x05:  # JA
            at += k
        elif operation == 0x06:  # RET K
            return k
        else:
            holds = {0x15: value == k, 0x25: value > k, 0x35: value >= k, 0x45: bool(value & k)}[operation]
            at += then if holds else otherwise


def constants(program: bytes) -> set[int]:
    """What the program compares with."""
    return {k for operation, _, _, k in instructions(program) if operation in (0x15, 0x25, 0x35, 0x45, 0x54)}


class _Comparison(ctypes.Structure):
    """struct scmp_arg_cmp of seccomp_rule_add(3)."""

    _fields_ = (("index", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


_OPERATORS = {name: number for number, name in enumerate(("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"), start=1)}
_BADARCH, _OPTIMIZE = 2, 8  # SCMP_FLTATR_ACT_BADARCH, SCMP_FLTATR_CTL_OPTIMIZE
_BINARY_TREE = 2
_KIN = {"SCMP_ARCH_X86": names.X86, "SCMP_ARCH_X32": names.X32, "SCMP_ARCH_ARM": names.ARM}


def libseccomp_program(profile: Profile, native: int) -> bytes:
    """The same rules compiled by libseccomp, whose SCMP_ACT_* are the kernel's numbers; see `expressible`."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_rule_add_array.argtypes = (
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    )
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    for name in ("seccomp_arch_add", "seccomp_arch_remove"):
        getattr(library, name).argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    context = library.seccomp_init(profile.default)
    try:
        wanted = [native, *(_KIN[name] for name in sorted(profile.kin) if name in _KIN)]
        for architecture in wanted:
            assert library.seccomp_arch_add(context, architecture) in (0, -17)
        here = names.library().seccomp_arch_native()
        if here not in wanted:
            assert library.seccomp_arch_remove(context, here) == 0
        assert library.seccomp_attr_set(context, _BADARCH, KILL_PROCESS) == 0
        library.seccomp_attr_set(context, _OPTIMIZE, _BINARY_TREE)  # since 2.5; without, the tests take longer
        for rule in profile.rules:
            if rule.action == profile.default:
                continue  # it refuses these; runc leaves them out
            array = (_Comparison * len(rule.conditions))(
                *(_Comparison(index, _OPERATORS[op], a, b) for index, op, a, b in rule.conditions)
            )
            for name in rule.names:
                number = library.seccomp_syscall_resolve_name(name.encode())
                if number != -1:
                    code = library.seccomp_rule_add_array(context, rule.action, number, len(array), array)
                    assert code == 0, (name, rule, os.strerror(-code))
        file = os.memfd_create("program")
        try:
            assert library.seccomp_export_bpf(context, file) == 0
            return os.pread(file, 1 << 20, 0)
        finally:
            os.close(file)
    finally:
        library.seccomp_release(context)


def expressible(profile: Profile) -> tuple[Profile, set[str]]:
    """The profile without the rules with conditions that libseccomp drops, and the names of the calls that they are for."""
    plain = {name for rule in profile.rules if not rule.conditions for name in rule.names}
    dropped = {name for rule in profile.rules if rule.conditions for name in rule.names if name in plain}
    rules = tuple(rule for rule in profile.rules if not (rule.conditions and set(rule.names) <= dropped))
    return profile.replace(rules=rules), dropped
