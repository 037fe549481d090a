"""What runs a program of system calls in a clone that shares this process's memory: some hundred bytes for each processor.

The clone is made by the same code, for a function that returns twice on one stack has to be written so. How a block is laid
out, and what the numbers in here are, is told by `program`.
"""

from __future__ import annotations

import ctypes
import os

from guntainer.kernel import syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

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


def load() -> Callable[[int, int, int], int] | None:
    """The machine code for this processor, made executable; None where there is none, or a policy forbids it."""
    code = MACHINE_CODE.get(os.uname().machine)
    if code is None:
        return None
    try:
        address = syscalls.executable(code)
    except OSError:
        return None
    entry: Callable[[int, int, int], int] = ctypes.PYFUNCTYPE(
        ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p
    )(address)
    return entry
