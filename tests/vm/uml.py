"""User Mode Linux: a kernel that is an ordinary process and boots in two seconds, with one processor.

It has no cpuset controller and no io.weight: `qemu.py` has. It is Debian's package user-mode-linux: installed, or fetched into
a cache folder. This machine's files are its root file system, by hostfs.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import fetching

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

PACKAGE = "user-mode-linux"
LACKS = f"{PACKAGE} is not installed here: python3 tests/vm/kernel.py --fetch gets it"
MARK = b"rootfstype=hostfs"
"""What the kernel's command line has, and no other's."""


class Machine:
    """The kernel, found or fetched."""

    loads = ("overlay", "tun", "fuse", "dummy", "veth", "ipv6")
    """The modules that the guest loads."""

    def __init__(self) -> None:
        if not is_there():
            fetching.fill(_cache(), _fetch)
        found = _below(Path("/usr")) or _below(_cache())
        self.program, self.modules = found or fetching.fail(f"the package {PACKAGE} is not as expected")

    def environment(self, given: argparse.Namespace, folder: Path) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "TMPDIR": _memory_folder(given, folder), "HOME": str(folder)}

    def command(self, given: argparse.Namespace, folder: Path, guest: Path, lines: list[int]) -> list[str]:
        """What starts it; `lines` are the writing ends for the console, stdout, stderr and the guest's own words."""
        console, *serial = lines
        return [
            self.program,
            f"mem={given.memory}M",
            "root=/dev/root",
            MARK.decode(),
            "ro",
            f"ubda={folder}/disk",
            f"ubdb={folder}/config",
            *([f"ubdc={folder}/swap"] if given.swap else []),
            f"uml_dir={folder}",
            "con=null",
            f"con0=null,fd:{console}",
            "ssl=null",
            *[f"ssl{number}=null,fd:{fd}" for number, fd in enumerate(serial)],
            *([] if given.verbose else ["quiet"]),
            f"init={os.path.realpath(sys.executable)}",
            "--",
            "-I",
            "-S",
            str(guest),
            "/dev/ubd",
            *[f"/dev/ttyS{number}" for number, _ in enumerate(serial)],
        ]


def is_there() -> bool:
    return any(_below(root) for root in (Path("/usr"), _cache()))


def _cache() -> Path:
    return fetching.cache("guntainer-vm")


def _below(root: Path) -> tuple[str, str] | None:
    """(the kernel, its folder of modules)."""
    program, modules = root / "bin" / "linux.uml", sorted(root.glob("lib/uml/modules/*/modules.dep"))
    return (str(program), str(modules[-1].parent)) if program.exists() and modules else None


def _fetch(work: Path) -> Path:
    fetching.unpack(PACKAGE, ("./usr/bin/linux.uml", "./usr/lib/uml/modules/"), work)
    return work / "usr"


def _memory_folder(given: argparse.Namespace, folder: Path) -> str:
    """Where the machine's memory lies, as a file without a name: on a tmpfs where there is room for it."""
    try:
        room = os.statvfs("/dev/shm")
    except OSError:
        return str(folder)
    enough = room.f_bavail * room.f_frsize > given.memory << 20 and os.access("/dev/shm", os.W_OK)
    return "/dev/shm" if enough else str(folder)
