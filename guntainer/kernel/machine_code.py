"""What runs a program of system calls in a clone that shares this process's memory: some hundred bytes for each processor.

The clone is made by the same code, for a function that returns twice on one stack has to be written so. How a block is laid
out, and what the numbers in here are, is told by `program`.

A second one runs a table of calls in the thread that calls it, without the interpreter's lock. A call is 8 words: its number,
and seven addresses: of its first four arguments; of where its result goes; of the result that it must have, or 0; of the
address of the next call. It returns 0 after the last, whose next is 0, or the address of a call that failed, or whose result
is another one.
"""

from __future__ import annotations

import ctypes
import os

from guntainer.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# In the order in which it runs. rdx: the block, see `program`. Registers: r14 the block, rbx the call.
_X86_64 = bytes.fromhex(
    "b8b3010000"  # mov eax, 435           clone3(rdi, rsi)
    "0f05"  # syscall
    "4885c0"  # test rax, rax
    "7401"  # jz child
    "c3"  # ret                            the parent: pid or -errno
    "4989d6"  # child: mov r14, rdx
    "488d9a20010000"  # lea rbx, [rdx+288]  the first call
    "488b03"  # loop: mov rax, [rbx]
    "488b7b08"  # mov rdi, [rbx+8]
    "488b7310"  # mov rsi, [rbx+16]
    "488b5318"  # mov rdx, [rbx+24]
    "4c8b5320"  # mov r10, [rbx+32]
    "4c8b4328"  # mov r8, [rbx+40]
    "4c8b4b30"  # mov r9, [rbx+48]
    "0f05"  # syscall
    "48894350"  # mov [rbx+80], rax        the result
    "488b4b38"  # mov rcx, [rbx+56]        out
    "4885c9"  # test rcx, rcx
    "7403"  # jz 1f
    "488901"  # mov [rcx], rax
    "483d01f0ffff"  # 1: cmp rax, -4095
    "7306"  # jae error
    "488b5b40"  # mov rbx, [rbx+64]        next
    "ebc5"  # jmp loop
    "488b4b48"  # error: mov rcx, [rbx+72]
    "4885c9"  # test rcx, rcx
    "7405"  # jz fatal
    "4889cb"  # mov rbx, rcx
    "ebb7"  # jmp loop
    "498946"
    "10"  # fatal: mov [r14+16], rax       the result
    "488b4358"  # mov rax, [rbx+88]
    "49894608"  # mov [r14+8], rax         the step
    "b801000000"  # mov eax, 1             write(fault fd, block, 288)
    "498b7e18"  # mov rdi, [r14+24]
    "4c89f6"  # mov rsi, r14
    "ba20010000"  # mov edx, 288
    "0f05"  # syscall
    "b8e7000000"  # mov eax, 231           exit_group(125)
    "bf7d000000"  # mov edi, 125
    "0f05"  # syscall
    "f4"  # hlt
)
MACHINE_CODE = {"x86_64": _X86_64}
_TABLE_X86_64 = bytes.fromhex(
    "53"  # push rbx
    "4889fb"  # mov rbx, rdi              the first call
    "488b03"  # loop: mov rax, [rbx]
    "488b4b08488b39"  # mov rcx, [rbx+8]; mov rdi, [rcx]
    "488b4b10488b31"  # mov rcx, [rbx+16]; mov rsi, [rcx]
    "488b4b18488b11"  # mov rcx, [rbx+24]; mov rdx, [rcx]
    "488b4b204c8b11"  # mov rcx, [rbx+32]; mov r10, [rcx]
    "0f05"  # syscall
    "488b4b28488901"  # mov rcx, [rbx+40]; mov [rcx], rax
    "488b4b304885c9"  # mov rcx, [rbx+48]; test rcx, rcx
    "7405"  # jz any
    "483b01"  # cmp rax, [rcx]            the result that it must have
    "7514"  # jne stop
    "483d01f0ffff"  # any: cmp rax, -4095
    "730c"  # jae stop
    "488b4b38488b19"  # mov rcx, [rbx+56]; mov rbx, [rcx]
    "4885db"  # test rbx, rbx
    "75b6"  # jnz loop
    "4889d8"  # stop: mov rax, rbx
    "5b"  # pop rbx
    "c3"  # ret
)
TABLE_CODE = {"x86_64": _TABLE_X86_64}


def load() -> Callable[[int, int, int], int] | None:
    """The machine code for this processor, made executable; None where there is none, or a policy forbids it."""
    kind = ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    entry: Callable[[int, int, int], int] | None = _loaded(MACHINE_CODE, kind)
    return entry


def load_table() -> Callable[[int], int] | None:
    """What runs a table, given the address of its first call; None where there is none, or a policy forbids it."""
    run: Callable[[int], int] | None = _loaded(TABLE_CODE, ctypes.CFUNCTYPE(ctypes.c_size_t, ctypes.c_void_p))
    return run


def _loaded(codes: dict[str, bytes], kind: Any) -> Any:
    code = codes.get(os.uname().machine)
    if code is None:
        return None
    try:
        return kind(syscalls.executable(code))
    except OSError:
        return None
