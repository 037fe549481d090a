"""What the host may read inside a rootfs before anything runs there: its accounts.

Every look goes through openat2 with RESOLVE_IN_ROOT, because nothing in a rootfs is trusted.
"""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.kernel import abi, syscalls
from guntainer.spec import Account

_FILE_LIMIT = 1 << 20  # bytes of a passwd or group that are looked at
_ID_LIMIT = (1 << 32) - 2


def read_inside(tree: str, path: str) -> bytes:
    """The first MiB of a regular file inside `tree`; b"" where there is none."""
    try:
        root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        rules = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS
        # O_NONBLOCK: a FIFO in its place must not hang us
        fd = syscalls.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, resolve=rules)
    except OSError:
        return b""
    finally:
        os.close(root)
    try:
        return os.read(fd, _FILE_LIMIT)
    except OSError:
        return b""
    finally:
        os.close(fd)


_PACKAGE_MANAGERS = ("var/lib/dpkg", "etc/apk", "var/lib/rpm", "usr/lib/sysimage/rpm", "var/lib/pacman", "var/db/xbps")


def has_package_manager(tree: str) -> bool:
    """Whether this is a distribution's rootfs, whose packages want owners and devices."""
    return any(_is_folder_inside(tree, path) for path in _PACKAGE_MANAGERS)


def _is_folder_inside(tree: str, path: str) -> bool:
    try:
        root = os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        rules = abi.RESOLVE_IN_ROOT | abi.RESOLVE_NO_MAGICLINKS
        os.close(syscalls.openat2(root, path, os.O_PATH | os.O_DIRECTORY, resolve=rules))
    except OSError:
        return False
    finally:
        os.close(root)
    return True


def _rows(tree: str, path: str, columns: int) -> list[list[str]]:
    text = read_inside(tree, path).decode("utf-8", "surrogateescape")
    rows = [line.split(":") for line in text.splitlines() if not line.startswith("#")]
    return [row for row in rows if len(row) >= columns]


def account(tree: str, user: str | None) -> Account:
    """Who `-u` means: `UID[:GID]` or `name[:group]`, looked up in the rootfs's passwd and group; None: root.

    Raises:
        UsageError: the name is not there, or a number is out of range.
    """
    name, _, group = (user or "0").partition(":")
    passwd = _rows(tree, "etc/passwd", 4)
    row = next((row for row in passwd if row[0] == name), None)
    if row is None and name.isdecimal():
        row = next((row for row in passwd if row[2] == name), None)
        uid = _number(name, user)
    elif row is None:
        raise errors.UsageError(f"user {name!r} is not in the rootfs's /etc/passwd", hint="give a number, or add it")
    else:
        uid = _number(row[2], user)
    gid = _number(row[3], user) if row is not None else 0
    groups: tuple[int, ...] = ()
    if group:
        gid = _group(tree, group, user)
    elif row is not None:
        groups = _member_of(tree, row[0], gid)
    home = row[5] if row is not None and len(row) > 5 and row[5].startswith("/") else "/root" if uid == 0 else "/"
    return Account(uid=uid, gid=gid, groups=groups, home=home)


_MOST_GROUPS = 256


def _member_of(tree: str, name: str, gid: int) -> tuple[int, ...]:
    """The groups besides `gid` that the rootfs's group(5) has this user in."""
    rows = [row for row in _rows(tree, "etc/group", 4) if name in row[3].split(",") and row[2].isdecimal()]
    found = dict.fromkeys(int(row[2]) for row in rows if int(row[2]) <= _ID_LIMIT)
    return tuple(one for one in found if one != gid)[:_MOST_GROUPS]


def _group(tree: str, group: str, user: str | None) -> int:
    if group.isdecimal():
        return _number(group, user)
    row = next((row for row in _rows(tree, "etc/group", 3) if row[0] == group), None)
    if row is None:
        raise errors.UsageError(f"group {group!r} is not in the rootfs's /etc/group", hint="give a number, or add it")
    return _number(row[2], user)


def _number(text: str, user: str | None) -> int:
    if not text.isdecimal() or int(text) > _ID_LIMIT:
        raise errors.UsageError(f"user {user!r}: {text!r} is not an id from 0 to {_ID_LIMIT}")
    return int(text)
