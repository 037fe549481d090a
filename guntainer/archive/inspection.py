"""What an unpacked tree is: where the rootfs in it begins, and for which machine it is."""

from __future__ import annotations

import os

from guntainer.kernel import abi, syscalls

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ROOT_FOLDERS = {"bin", "etc", "usr", "lib", "sbin"}
# e_machine of elf(5), little end first
_MACHINES = {0x3E: "x86_64", 0xB7: "arm64", 0x03: "i386", 0x28: "arm", 0xF3: "riscv64", 0x15: "ppc64le", 0x16: "s390x"}
ELF_HEAD = 20
_PROBES = ("bin/sh", "bin/busybox", "usr/bin/env", "bin/bash", "usr/bin/sh", "sbin/init")


def is_image(names: Iterable[str]) -> bool:
    """Whether what lies at the top of a folder or an archive makes it a container image: an OCI layout, a `docker save`."""
    found = set(names)
    return not found & _ROOT_FOLDERS and ("oci-layout" in found or "manifest.json" in found)


def image_of(tree: str) -> str | None:
    """Where in a tree the files of a container image are, relative to it: "", or the one folder that everything is in."""
    names = os.listdir(tree)
    top = "" if is_image(names) else names[0] if len(names) == 1 else None
    if top is None or (top and not is_image(_names_in(f"{tree}/{top}"))):
        return None
    from guntainer.image import sniffing

    # a web application has a manifest.json as well
    return top if sniffing.detect(f"{tree}/{top}") is not None else None


def rootfs_of(tree: str) -> str:
    """The rootfs in a tree, relative to it: "" or the one folder that everything is in."""
    names = os.listdir(tree)
    inner = _names_in(f"{tree}/{names[0]}") if len(names) == 1 else []
    if names and names[0] not in _ROOT_FOLDERS and set(inner) & _ROOT_FOLDERS:
        # a rootfs that its owner can not search is useless, whatever the archive says
        os.chmod(f"{tree}/{names[0]}", os.lstat(f"{tree}/{names[0]}").st_mode & 0o7777 | 0o700)
        return names[0]
    return ""


def _names_in(folder: str) -> list[str]:
    """What is in a folder, one without permissions as well; [] for anything else."""
    mode = os.lstat(folder).st_mode
    if mode & 0o170000 != 0o040000:
        return []
    if mode & 0o500 == 0o500:
        return os.listdir(folder)
    os.chmod(folder, 0o700)
    try:
        return os.listdir(folder)
    finally:
        os.chmod(folder, mode & 0o7777)


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
                head = os.read(fd, ELF_HEAD)
            except OSError:
                continue
            finally:
                os.close(fd)
            if head[:4] == b"\x7fELF":
                return machine_of(head)
    finally:
        os.close(root)
    return None


def machine_of(head: bytes) -> str | None:
    """The machine that a program is for, by its first ELF_HEAD bytes: elf(5); None: it is none, or for another one."""
    if head[:4] != b"\x7fELF" or len(head) < ELF_HEAD:
        return None
    order = "big" if head[5] == 2 else "little"
    return _MACHINES.get(int.from_bytes(head[18:20], order))  # type: ignore[arg-type]


def emulated() -> bool:
    """Whether the kernel starts an emulator for programs of other machines: binfmt_misc."""
    try:
        return any(name.startswith("qemu-") for name in os.listdir("/proc/sys/fs/binfmt_misc"))
    except OSError:
        return False
