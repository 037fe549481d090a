"""The skeleton layer that every root gets: mount points, and /etc/{hosts,hostname,resolv.conf}.

It is one more lower layer of the overlay, above the rootfs. It costs a launch nothing, leaves the writable layer to the user's
own changes, and hides symbolic links that a rootfs may have in their place.
"""

from __future__ import annotations

import os

from guntainer import errors

_MOUNT_POINTS = ("proc", "sys", "dev", "etc")


def host_text(path: str) -> str:
    """A host file's text; "" where it is missing, dangling or not readable."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read(1 << 20)
    except OSError:
        return ""


APT_DROP_IN = "apt/apt.conf.d/00guntainer-one-id"
_APT_TEXT = """\
// One id is mapped in this container, so there is no user _apt to drop to.
APT::Sandbox::User "root";
"""


def layer(
    parent: str,
    *,
    hostname: str,
    network: str,
    dns: tuple[str, ...] = (),
    add_hosts: tuple[tuple[str, str], ...] = (),
    with_etc: bool = True,
    with_apt: bool = False,
) -> str:
    """The skeleton layer for these settings, made in `parent` if it is not there yet.

    Args:
        network, dns, add_hosts: as of a Job.
        with_etc: False where the rootfs's /etc is not a folder: a folder over it would hide what it leads to.
        with_apt: tell apt not to change its user: apt.conf(5). Only where /etc/apt/apt.conf.d is a folder.

    Returns:
        the path of a folder named after its content, so that two hosts' settings never share one.
    """
    files = {
        "hostname": hostname + "\n",
        "hosts": _hosts(hostname, network),
        "resolv.conf": host_text("/etc/resolv.conf") if network != "none" else "",
    }
    if network == "private" or dns or add_hosts:
        _name_otherwise(files, network, dns, add_hosts)
    if with_apt:
        files[APT_DROP_IN] = _APT_TEXT
    if not with_etc:
        files = {}
    content = "\0".join(f"{name}\0{text}" for name, text in files.items()).encode("utf-8", "surrogateescape")
    path = f"{parent}/{_name(content)}"
    if os.path.isdir(path):
        return path
    made = f"{path}.{os.getpid()}-{os.urandom(4).hex()}"
    try:
        os.makedirs(made, 0o755)
        for name in _MOUNT_POINTS[: None if with_etc else -1]:
            os.mkdir(f"{made}/{name}")
            os.chmod(f"{made}/{name}", 0o755)
        for name, text in files.items():
            _make_folders(f"{made}/etc", name)
            with open(f"{made}/etc/{name}", "w", encoding="utf-8", errors="surrogateescape") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
        os.chmod(made, 0o755)
        os.rename(made, path)
    except OSError as error:
        from guntainer.store.remove import remove_tree

        if os.path.isdir(made):
            remove_tree(made)
        if not os.path.isdir(path):  # else another process was quicker
            raise errors.StoreError(
                f"can not make the skeleton layer: {errors.describe_oserror(error)}", probe="store"
            ) from None
    return path


def _name_otherwise(
    files: dict[str, str], network: str, dns: tuple[str, ...], add_hosts: tuple[tuple[str, str], ...]
) -> None:
    """Names as a private network or the user wants them, in place of the host's."""
    from guntainer import naming

    files["hosts"] = naming.hosts(files["hosts"], add_hosts)
    text = naming.resolv_conf(network, dns, files.pop("resolv.conf"))
    if text is not None:
        files["resolv.conf"] = text


def _make_folders(base: str, name: str) -> None:
    parts = name.split("/")[:-1]
    for depth in range(1, len(parts) + 1):
        path = f"{base}/{'/'.join(parts[:depth])}"
        os.mkdir(path)
        os.chmod(path, 0o755)


def _name(content: bytes) -> str:
    """A name for some kilobytes of our own making: two checks and the length, without the import of a digest."""
    from zlib import adler32, crc32

    return f"{len(content):x}-{crc32(content):08x}{adler32(content):08x}"


def _hosts(hostname: str, network: str) -> str:
    own = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
    if network != "host":
        return own
    return host_text("/etc/hosts").rstrip("\n") + f"\n127.0.1.1\t{hostname}\n" if os.path.exists("/etc/hosts") else own
