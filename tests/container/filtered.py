"""Run a program under a seccomp filter that refuses some system calls, as a container around it would.

    filtered.py NAME=ERRNO[,NAME=ERRNO…] PROGRAM [ARGS…]

Whoever runs this has CAP_SYS_ADMIN in its user namespace: no_new_privs is not set, so that programs with rights keep them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys

_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06  # classic BPF, <linux/filter.h>
_ALLOW, _ERRNO = 0x7FFF_0000, 0x0005_0000  # <linux/seccomp.h>
_SECCOMP_SET_MODE_FILTER = 1


def install(refused: dict[int, int]) -> None:
    """Let system calls, by number, fail with an errno."""
    steps = [struct.pack("HBBI", _LOAD, 0, 0, 0)]
    for number, error in refused.items():
        steps.append(struct.pack("HBBI", _EQUAL, 0, 1, number))
        steps.append(struct.pack("HBBI", _RETURN, 0, 0, _ERRNO | error))
    steps.append(struct.pack("HBBI", _RETURN, 0, 0, _ALLOW))
    program = ctypes.create_string_buffer(b"".join(steps))
    header = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(steps), ctypes.addressof(program)))
    from guntainer.kernel import abi

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(abi.SYSCALLS["seccomp"], _SECCOMP_SET_MODE_FILTER, 0, header) != 0:
        raise OSError(ctypes.get_errno(), "seccomp")


if __name__ == "__main__":
    from guntainer.kernel import abi

    pairs = [pair.split("=") for pair in sys.argv[1].split(",")]
    install({abi.SYSCALLS[name]: getattr(errno, code) for name, code in pairs})
    os.execvp(sys.argv[2], sys.argv[2:])
