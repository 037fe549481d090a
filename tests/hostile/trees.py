"""What is in a tree, in words that a case can state."""

from __future__ import annotations

import os
import stat


def described(root: str, wanted: dict[str, str]) -> dict[str, str]:
    """Name → "d", "f:BYTES", "l:TARGET", "p" a FIFO, "w" a whiteout, "?" what must not be there at all.

    Where the wanted text says so, a mode follows as @OCTAL, and the number of a file's names as #N.
    """
    found: dict[str, str] = {}
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(os.path.join(root, folder)) as entries:
            for entry in entries:
                name = os.path.join(folder, entry.name)
                status = entry.stat(follow_symlinks=False)
                text = _kind(os.path.join(root, name), status)
                asked = wanted.get(name, "")
                if "@" in asked and not stat.S_ISLNK(status.st_mode):
                    text += f"@{stat.S_IMODE(status.st_mode):o}"
                if "#" in asked:
                    text += f"#{status.st_nlink}"
                found[name] = text
                if entry.is_dir(follow_symlinks=False):
                    os.chmod(os.path.join(root, name), status.st_mode & 0o7777 | 0o700)
                    folders.append(name)
    return found


def _kind(path: str, status: os.stat_result) -> str:
    kind = stat.S_IFMT(status.st_mode)
    if kind == stat.S_IFREG:
        os.chmod(path, status.st_mode & 0o7777 | 0o400)
        with open(path, "rb") as file:
            return "f:" + file.read(1 << 20).decode("utf-8", "surrogateescape")
    if kind == stat.S_IFLNK:
        return "l:" + os.readlink(path)
    if kind == stat.S_IFCHR and status.st_rdev == 0:
        return "w"
    return {stat.S_IFDIR: "d", stat.S_IFIFO: "p"}.get(kind, "?")


def overlay_attributes(root: str) -> list[str]:
    """Attributes below a tree by which overlayfs, or the host, would be told something."""
    found = []
    for folder, folders, files in os.walk(root):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            found += [
                f"{path}: {one}" for one in os.listxattr(path, follow_symlinks=False) if not one.startswith("user.")
            ]
            found += [
                f"{path}: {one}" for one in os.listxattr(path, follow_symlinks=False) if one.startswith("user.overlay")
            ]
    return found
