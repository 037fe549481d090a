"""QEMU: a whole computer in software, with two processors and Debian's own kernel, which has every controller of cgroup v2.

It needs no KVM, and asks for none: a /dev/kvm that opens may still be one that does not work, in a machine that is itself
virtual. So it boots in some seconds, and then everything takes some ten times as long as outside; what User Mode Linux
(`uml.py`) can do is left to that.

The kernel and a static busybox are fetched from Debian's packages into a cache folder, QEMU (package qemu-system-x86) must be
installed. This machine's files come in by 9p, read-only. Debian's kernel has that as a module, as it has all of virtio: so
there is an initramfs of busybox and those modules, whose only work is to get at the files.
"""

from __future__ import annotations

import lzma
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import fetching

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

PROGRAM = "qemu-system-x86_64"
IMAGE, BUSYBOX = "linux-image-amd64", "busybox-static"
LACKS = "QEMU or a kernel for it is not here: install qemu-system-x86, then python3 tests/vm/kernel.py --qemu --fetch"
MARK = b"mount_tag=host"
"""What its command line has, and no other's."""
_FIRST = ("virtio_pci", "virtio_blk", "virtio_console", "9pnet_virtio", "9p")
"""The modules in the initramfs."""
_PROCESSORS = 2
_KERNEL_SAYS = "console=ttyS0 panic=-1 mitigations=off no_timer_check tsc=reliable"
"""The processor's flaws are not emulated; time that the host takes away is no fault of the timer's."""
_INIT = """\
#!/busybox sh
set -e
for name in {modules}; do /busybox insmod /$name.ko; done
/busybox mount -t 9p -o trans=virtio,version=9p2000.L,access=any,cache=loose,msize=524288,ro host /host
exec /busybox switch_root /host {words}
"""


class Machine:
    """QEMU, and the kernel for it, found or fetched."""

    loads = ("overlay", "tun", "fuse", "dummy", "veth", "crc32c_generic", "ext4", "bfq")
    """The modules that the guest loads; ext4 needs a checksum and does not say so."""

    def __init__(self) -> None:
        program = shutil.which(PROGRAM)
        self.program = program or fetching.fail(f"{PROGRAM} is not here: install the package qemu-system-x86")
        if not _kernel().exists():
            fetching.fill(_cache(), _fetch)
        self.modules = str(_cache() / "modules")

    def environment(self, given: argparse.Namespace, folder: Path) -> dict[str, str]:
        return {"PATH": "/usr/bin:/bin", "TMPDIR": str(folder), "HOME": str(folder)}

    def command(self, given: argparse.Namespace, folder: Path, guest: Path, lines: list[int]) -> list[str]:
        """What starts it, in `folder`; `lines` are the writing ends for the console, stdout, stderr and the guest's words."""
        console, *ports = lines
        words = [os.path.realpath(sys.executable), "-I", "-S", str(guest), "/dev/vd"]
        words += [f"/dev/vport0p{number}" for number, _ in enumerate(ports, 1)]  # number 0 would be a console
        (folder / "initramfs").write_bytes(_initramfs(words))
        disks = ["disk", "config", *(["swap"] if given.swap else [])]
        return [
            self.program,
            *("-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max"),
            *("-smp", str(_PROCESSORS), "-m", str(given.memory)),
            *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-kernel", str(_kernel()), "-initrd", "initramfs"),
            *("-append", _KERNEL_SAYS + ("" if given.verbose else " quiet")),
            *("-chardev", f"file,id=console,path=/dev/fd/{console}", "-serial", "chardev:console"),
            *("-device", "virtio-serial-pci"),  # the first device of virtio: so its ports are called vport0
            *(word for number, fd in enumerate(ports, 1) for word in _port(number, fd)),
            *("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"),
            *("-device", f"virtio-9p-pci,fsdev=host,{MARK.decode()}"),
            *(word for name in disks for word in _disk(name)),
        ]


def _disk(name: str) -> tuple[str, ...]:
    # what is on it need not outlive the machine
    drive = f"file={name},id={name},if=none,format=raw,cache=unsafe"
    return "-drive", drive, "-device", f"virtio-blk-pci,drive={name}"


def _port(number: int, fd: int) -> tuple[str, ...]:
    device = f"virtserialport,chardev=port{number},nr={number}"
    return "-chardev", f"file,id=port{number},path=/dev/fd/{fd}", "-device", device


def is_there() -> bool:
    return _kernel().exists() and shutil.which(PROGRAM) is not None


def _cache() -> Path:
    return fetching.cache("guntainer-vm-qemu")


def _kernel() -> Path:
    return _cache() / "vmlinuz"


# -- what is fetched


def _fetch(work: Path) -> Path:
    """Of the packages: vmlinuz, busybox, and a folder of the modules that are needed, with what they need."""
    image = fetching.stands_for(IMAGE)
    fetching.unpack(image, ("./boot/vmlinuz-", "./lib/modules/", "./usr/lib/modules/"), work)
    fetching.unpack(BUSYBOX, ("./bin/busybox", "./usr/bin/busybox"), work)
    kept = work / "kept"
    (kept / "modules").mkdir(parents=True)
    for name, pattern in (("vmlinuz", "boot/vmlinuz-*"), ("busybox", "**/bin/busybox")):
        found = next(work.glob(pattern), None) or fetching.fail(f"no {name} in the packages {image} and {BUSYBOX}")
        os.rename(found, kept / name)
    _keep_modules(work, kept / "modules")
    return kept


def _keep_modules(work: Path, kept: Path) -> None:
    """Copy modules, uncompressed, and write modules.dep as depmod(8) does: what each needs, the last first."""
    files = {_name(path): path for path in work.glob("**/kernel/**/*.ko*")}
    built_in = {_name(Path(line)) for path in work.glob("**/modules.builtin") for line in path.read_text().split()}
    needs: dict[str, list[str]] = {}

    def keep(name: str) -> None:
        if name in needs or name in built_in:
            return
        if name not in files:
            fetching.fail(f"the kernel of {IMAGE} has no module {name}")
        packed = files[name].read_bytes()
        code = lzma.decompress(packed) if files[name].suffix == ".xz" else packed
        direct = [_plain(one) for one in _depends(code)]
        for one in direct:
            keep(one)
        ordered = dict.fromkeys(below for one in direct if one in needs for below in (*needs[one], one))
        needs[name] = list(ordered)
        (kept / f"{name}.ko").write_bytes(code)

    for name in (*_FIRST, *Machine.loads):
        keep(_plain(name))
    lines = (f"{name}.ko: {' '.join(f'{one}.ko' for one in reversed(found))}\n" for name, found in needs.items())
    (kept / "modules.dep").write_text("".join(lines))


def _name(path: Path) -> str:
    return _plain(path.name.split(".")[0])


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _depends(code: bytes) -> list[str]:
    """What a module itself says it needs: `depends=` in its .modinfo, a list of texts that end with a zero byte."""
    found = re.search(rb"\0depends=([^\0]*)\0", code)
    return found[1].decode().split(",") if found and found[1] else []


# -- the initramfs


def _initramfs(words: list[str]) -> bytes:
    """The first files of the machine; its init gets at the host's and goes on with these words."""
    folder = _cache() / "modules"
    needs = dict(line.split(":", 1) for line in (folder / "modules.dep").read_text().splitlines())
    order = dict.fromkeys(one for name in _FIRST for one in (*reversed(needs[f"{name}.ko"].split()), f"{name}.ko"))
    init = _INIT.format(modules=" ".join(name.removesuffix(".ko") for name in order), words=shlex.join(words))
    entries = [("host", 0o040755, b""), ("dev", 0o040755, b""), ("init", 0o100755, init.encode())]
    entries.append(("busybox", 0o100755, (_cache() / "busybox").read_bytes()))
    entries += [(name, 0o100644, (folder / name).read_bytes()) for name in order]
    return _cpio(entries)


def _cpio(entries: Iterable[tuple[str, int, bytes]]) -> bytes:
    """An archive that the kernel unpacks: Documentation/driver-api/early-userspace/buffer-format.rst, "newc".

    Args:
        entries: (name, type and permissions, content).
    """
    parts = []
    for number, (name, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        #        ino, mode, uid, gid, links, mtime, size, device's and file's own numbers, length of the name, checksum
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        parts += [head + bytes(-len(head) % 4), content + bytes(-len(content) % 4)]
    return b"".join(parts)
