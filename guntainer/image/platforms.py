"""Platforms: which of an image's are for this machine, and their names. OCI image-spec, "image-index.md"."""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.image import document
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from guntainer.image.config import Config

_MACHINES = {  # uname(2) → GOARCH, variant
    "x86_64": ("amd64", ""),
    "aarch64": ("arm64", "v8"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5tel": ("arm", "v5"),
    "i386": ("386", ""),
    "i486": ("386", ""),
    "i586": ("386", ""),
    "i686": ("386", ""),
    "ppc64le": ("ppc64le", ""),
    "s390x": ("s390x", ""),
    "riscv64": ("riscv64", ""),
    "loongarch64": ("loong64", ""),
}
_OTHER_NAMES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "x86": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
}
_USUAL = {"arm": "v7", "arm64": "v8", "amd64": "v1"}
"""What an architecture means whose variant is not named: containerd's, and docker's."""
_ARMS = ("v8", "v7", "v6", "v5")


class Platform(Value):
    """What programs run on."""

    os: str
    architecture: str
    """GOARCH."""
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    @property
    def short(self) -> str:
        """Without what goes without saying."""
        usual = _USUAL.get(self.architecture, "")
        name = f"{self.architecture}/{self.variant}" if self.variant not in ("", usual) else self.architecture
        return name if self.os in ("linux", "") else f"{self.os}/{name}"


def normal(os_: str, architecture: str, variant: str = "") -> Platform:
    """A platform by the names that images have; what is unknown stays as it is."""
    architecture = architecture.lower()
    if architecture in _OTHER_NAMES:
        architecture, usual = _OTHER_NAMES[architecture]
        variant = variant or usual
    return Platform(os=os_.lower(), architecture=architecture, variant=variant.lower())


def parse(text: str) -> Platform:
    """`os/arch[/variant]`, or `arch` alone, which is Linux's.

    Raises:
        UsageError: it is something else.
    """
    parts = text.split("/")
    if len(parts) == 1:
        parts = ["linux", text]
    if len(parts) > 3 or not all(parts) or not text.isprintable():
        raise errors.UsageError(f"expected os/arch[/variant] such as linux/arm64, got {document.shown(text)}")
    return normal(*parts)


def of_this_machine() -> Platform:
    machine = os.uname().machine
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform(os="linux", architecture=architecture, variant=variant)


def _variant(platform: Platform) -> str:
    return platform.variant or _USUAL.get(platform.architecture, "")


def acceptable(wanted: Platform | None) -> tuple[Platform, ...]:
    """What fits, the best first: of one that was asked for that alone, else whatever this machine executes."""
    if wanted is not None and (wanted.variant or wanted.architecture != "arm"):
        return (wanted,)
    own = wanted or of_this_machine()
    if own.architecture == "arm":
        best = _ARMS.index(_variant(own)) if _variant(own) in _ARMS else 0
        return tuple(own.replace(variant=variant) for variant in _ARMS[best:])
    if own.architecture == "amd64":
        return (own, Platform(os=own.os, architecture="386"))
    return (own,)


def fits(found: Platform, wanted: Platform) -> bool:
    """Whether a platform is one that is wanted."""
    same = (found.os or "linux", found.architecture) == (wanted.os, wanted.architecture)
    return same and _variant(found) == _variant(wanted)


def listed(platforms: Sequence[Platform]) -> str:
    """`amd64, arm64 and arm/v6`."""
    names = list(dict.fromkeys(document.shown(one.short)[1:-1] for one in platforms))
    if len(names) > 12:
        names = [*names[:11], f"{len(names) - 11} more"]
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)


def misfit(name: str, found: Sequence[Platform], wanted: Platform | None) -> errors.RootfsError:
    """The error where nothing fits."""
    there = listed(found) or "nothing that can be run"
    if wanted is None:
        mine = of_this_machine().short
        hint = "--platform chooses another" if len(found) > 1 else ""
        return errors.RootfsError(f"{name}: this image is for {there}; this machine is {mine}", hint=hint)
    return errors.RootfsError(f"{name}: this image is for {there}, not for {wanted}")


def check(name: str, config: Config, wanted: Platform | None, *, foreign: bool = False) -> None:
    """Refuse an image of another platform than the one that is wanted.

    Args:
        foreign: programs of other machines are welcome: there is an emulator, or nothing is to be run.

    Raises:
        RootfsError: naming both.
    """
    found = normal(config.os or "linux", config.architecture, config.variant)
    if not found.architecture and found.os == "linux":
        return  # it does not say; a look at its programs will
    if found.os != "linux":
        raise errors.RootfsError(
            f"{name}: this image is for {document.shown(found.os)}; containers here are Linux ones"
        )
    if wanted is None and foreign:
        return
    if not any(fits(found, one) for one in acceptable(wanted)) and not _newer(found, wanted):
        raise misfit(name, (found,), wanted)


def _newer(found: Platform, wanted: Platform | None) -> bool:
    """Whether it is for this very architecture, and only asks for more of it: amd64/v3. The kernel can not tell."""
    own = wanted if wanted is not None and not wanted.variant else of_this_machine() if wanted is None else None
    return own is not None and own.architecture == found.architecture and found.architecture in ("amd64", "arm64")
