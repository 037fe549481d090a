"""Run under a filter and try: seccomp_child.py FILE SCRIPT.

FILE is a program as seccomp(2) takes it; empty: no filter. SCRIPT is Python; its `tell(name, value)` goes to stdout as JSON.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import struct
import sys

_PR_SET_NO_NEW_PRIVS, _SECCOMP_SET_MODE_FILTER = 38, 1
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
told: dict[str, object] = {}
tell = told.__setitem__


def call(number: int, *arguments: int | bytes) -> int | str:
    """A system call's result, or its error's name."""
    words = [ctypes.c_long(one) if isinstance(one, int) else ctypes.c_char_p(one) for one in arguments]
    result: int = libc.syscall(ctypes.c_long(number), *words)
    return result if result != -1 else errno.errorcode[ctypes.get_errno()]


def call_32(number: int, *arguments: int) -> int | str:
    """The same through the entrance for 32-bit programs of x86_64: int 0x80."""
    # push rbx; mov eax, edi; mov ebx, esi; mov ecx, edx; mov edx, r8d (4th is rcx); int 0x80; pop rbx; ret
    code = bytes.fromhex("53 89f8 89f3 4989c8 89d1 4489c2 cd80 5b c3")
    page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    entry = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 4)(ctypes.addressof(ctypes.c_char.from_buffer(page)))
    result: int = entry(number, *(*arguments, 0, 0, 0)[:3])
    return result if result >= 0 else errno.errorcode[-result]


def install(program: bytes) -> None:
    text = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(program) // 8, ctypes.addressof(text)))
    from guntainer.kernel import abi

    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    if libc.syscall(abi.SYSCALLS["seccomp"], _SECCOMP_SET_MODE_FILTER, 0, header) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        content = file.read()
    if content:
        install(content)
    exec(sys.argv[2])
    sys.stdout.write(json.dumps(told))
    sys.stdout.flush()
    os._exit(0)
