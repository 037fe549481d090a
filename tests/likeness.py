"""What an archive came to, by ours and by GNU tar: entry by entry, everything that stat(2) says of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import unpacking

from guntainer import idmap
from guntainer.idmap import Ids

TAR = ["tar", "--numeric-owner", "--delay-directory-restore", "--xattrs", "--xattrs-include=*", "-xpf"]
# argv: a tree. Run where all of its owners are mapped.
LISTING = """
import hashlib, json, os, stat, sys
root = os.fsencode(sys.argv[1])
found, names = {}, {}
folders = [b""]
while folders:
    folder = folders.pop()
    for name in sorted(os.listdir(os.path.join(root, folder))):
        path = os.path.join(folder, name)
        whole = os.path.join(root, path)
        status = os.lstat(whole)
        kind = stat.S_IFMT(status.st_mode)
        row = {"mode": oct(status.st_mode), "owner": [status.st_uid, status.st_gid], "mtime_ns": status.st_mtime_ns}
        if kind != stat.S_IFLNK:
            os.chmod(whole, status.st_mode & 0o7777 | 0o600 | (kind == stat.S_IFDIR) * 0o100)  # only to look at it
        if kind != stat.S_IFDIR:
            row["names"] = status.st_nlink
            row["first"] = names.setdefault(status.st_ino, os.fsdecode(path))
        if kind == stat.S_IFREG:
            row["size"] = status.st_size
            row["sha256"] = hashlib.file_digest(open(whole, "rb"), "sha256").hexdigest()
            row["blocks"] = status.st_blocks
        if kind == stat.S_IFLNK:
            row["target"] = os.fsdecode(os.readlink(whole))
        row["xattrs"] = {
            one: os.getxattr(whole, one, follow_symlinks=False).hex()
            for one in os.listxattr(whole, follow_symlinks=False)
            if one.startswith("user.") or one == "security.capability"
        }
        found[os.fsdecode(path)] = row
        if kind == stat.S_IFDIR:
            folders.append(path)
status = os.lstat(root)
found["."] = {"mode": oct(status.st_mode), "owner": [status.st_uid, status.st_gid], "mtime_ns": status.st_mtime_ns}
print(json.dumps(found))
"""


class Both:
    """Unpacks an archive by ours and by GNU tar, under the same ids, and compares."""

    def __init__(self, home: Path, ids: Ids) -> None:
        self._home = home
        self._ids = ids

    def _inside(self, *words: object) -> subprocess.CompletedProcess[str]:
        line = [str(word) for word in words]
        fds = ()
        if self._ids.namespace >= 0:
            line, fds = idmap.inside(self._ids, line), (self._ids.namespace,)
        return subprocess.run(
            line, pass_fds=fds, capture_output=True, text=True, check=False, env={**os.environ, "TZ": "UTC"}
        )

    def compare(self, archive: Path, *, without: str = "") -> dict[str, Any]:
        """Returns ours.

        Args:
            without: a folder that is looked at by nobody, since tar(1) can not make what is in it.
        """
        ours = unpacking.unpack(str(archive), str(self._home / "ours"), ids=self._ids)
        theirs = self._home / "theirs"
        theirs.mkdir()
        owner = [] if self._ids.namespace >= 0 else ["--no-same-owner"]
        excluded = [f"--exclude=./{without}/*"] if without else []
        done = self._inside(*TAR, archive, "-C", theirs, *owner, *excluded)
        assert done.returncode == 0, done.stderr
        lists = []
        for root in (ours, theirs):
            done = self._inside(sys.executable, "-c", LISTING, root)
            assert done.returncode == 0, done.stderr
            lists.append(json.loads(done.stdout))
        for path, row in list(lists[0].items()):
            if without and f"{path}/".startswith(f"{without}/"):
                del lists[0][path]
                lists[1].pop(path, None)
                continue
            other = lists[1].get(path, {})
            assert row.pop("blocks", 0) <= other.pop("blocks", 0) + 8, f"{path}: its holes are smaller"
        # its time is that of the unpacking, where there is no entry for it
        assert lists[0].pop(".")["owner"] == lists[1].pop(".")["owner"]
        assert lists[0] == lists[1]
        result: dict[str, Any] = lists[0]
        return result
