"""The words of remedies: which distribution this is, its package manager and its names of packages. Reads os-release(5)."""

from __future__ import annotations

import os

from guntainer.value import Value

_INSTALL = {
    "debian": "apt-get install -y",
    "fedora": "dnf install -y",
    "alpine": "apk add",
    "arch": "pacman -S --noconfirm",
    "suse": "zypper install -y",
}
_FAMILIES = {
    **dict.fromkeys(("debian", "ubuntu", "raspbian", "linuxmint", "pop", "kali"), "debian"),
    **dict.fromkeys(("fedora", "rhel", "centos", "rocky", "almalinux", "amzn", "ol"), "fedora"),
    **dict.fromkeys(("alpine", "postmarketos"), "alpine"),
    **dict.fromkeys(("arch", "archlinux", "manjaro", "endeavouros"), "arch"),
    **dict.fromkeys(("suse", "opensuse", "opensuse-leap", "opensuse-tumbleweed", "sles", "sle-micro"), "suse"),
}
_PACKAGES = {
    "uidmap": {
        "debian": "uidmap",
        "fedora": "shadow-utils",
        "alpine": "shadow-uidmap",
        "arch": "shadow",
        "suse": "shadow",
    },
    "libarchive": {"debian": "libarchive13", "suse": "libarchive13"},
    "libseccomp": {"debian": "libseccomp2", "suse": "libseccomp2"},
    "pasta": dict.fromkeys(_INSTALL, "passt"),
}
"""Where a package has another name than the thing itself."""
_TEXT_LIMIT = 1 << 16


class Distribution(Value):
    """One Linux distribution."""

    name: str = ""
    """As it calls itself, for people."""
    family: str = ""
    """debian, fedora, alpine, arch, suse; "" where it is none that we know."""
    root: bool = False
    """Whether commands need nobody's leave."""

    def sudo(self, command: str) -> str:
        """The command as somebody runs it who may."""
        return command if self.root else f"sudo {command}"

    def install(self, thing: str) -> str:
        """The command that installs a thing."""
        if not self.family:
            return f"# install {thing} with your package manager"
        return self.sudo(f"{_INSTALL[self.family]} {_PACKAGES.get(thing, {}).get(self.family, thing)}")

    def sysctl(self, name: str, value: int) -> tuple[str, ...]:
        """Set a kernel parameter, now and at every start: sysctl(8)."""
        file = f"/etc/sysctl.d/90-guntainer-{name.rpartition('.')[2].replace('_', '-')}.conf"
        return (
            self.sudo(f"sysctl -w {name}={value}"),
            f"echo '{name} = {value}' | {self.sudo(f'tee {file}')}",
        )


def read(path: str = "/etc/os-release") -> Distribution:
    """The distribution of this host.

    Args:
        path: of its os-release file.
    """
    values = _values(path)
    words = [values.get("ID", ""), *values.get("ID_LIKE", "").split()]
    family = next((_FAMILIES[word] for word in words if word in _FAMILIES), "")
    name = values.get("PRETTY_NAME") or values.get("ID") or "unknown Linux"
    return Distribution(name=name, family=family, root=os.geteuid() == 0)


def _values(path: str) -> dict[str, str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(_TEXT_LIMIT).splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        key, equals, value = line.strip().partition("=")
        if equals and not key.startswith("#"):
            found[key] = value.strip("\"'")
    return found
