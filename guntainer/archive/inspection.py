"""What an unpacked tree is: where the rootfs in it begins, and for which machine it is."""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.kernel import abi, syscalls

_ROOT_FOLDERS = {"bin", "etc", "usr", "lib", "sbin"}
# e_machine of elf(5), little end first
_MACHINES = {0x3E: "x86_64", 0xB7: "arm64", 0x03: "i386", 0x28: "arm", 0xF3: "riscv64", 0x15: "ppc64le", 0x16: "s390x"}
_PROBES = ("bin/sh", "bin/busybox", "usr/bin/env", "bin/bash", "usr/bin/sh", "sbin/init")


def rootfs_of(tree: str, name: str) -> str:
    """The rootfs in a tree, relative to it: "" or the one folder that everything is in.

    Raises:
        RootfsError: it is a container image.
    """
    names = os.listdir(tree)
    if not set(names) & _ROOT_FOLDERS:
        if "oci-layout" in names or "manifest.json" in names:
            raise errors.RootfsError(
                f"{name}: a container image, not a rootfs", hint="images are not supported by this version yet"
            )
        if (
            len(names) == 1
            and _is_folder(f"{tree}/{names[0]}")
            and set(os.listdir(f"{tree}/{names[0]}")) & _ROOT_FOLDERS
        ):
            return names[0]
    return ""


def _is_folder(path: str) -> bool:
    return os.lstat(path).st_mode & 0o170000 == 0o040000


def architecture(tree: str) -> str | None:
    """The machine that a rootfs is for, from the ELF header of a program that most have; None: nobody knows."""
    root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in _PROBES:
            try:
                rules = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS
                fd = syscalls.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK, resolve=rules)
            except OSError:
                continue
            try:
                head = os.read(fd, 20)
            except OSError:
                continue
            finally:
                os.close(fd)
            if head[:4] == b"\x7fELF" and len(head) == 20:
                order = "big" if head[5] == 2 else "little"
                return _MACHINES.get(int.from_bytes(head[18:20], order))  # type: ignore[arg-type]
    finally:
        os.close(root)
    return None
