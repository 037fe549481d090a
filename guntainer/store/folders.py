"""Folders that are kept between runs, known by a key: what `cache = [{key, path}]` of a job file means.

    folders/<sha256 of the key>[.<ids>]/data/     the container's; 0755, its root's
                                        meta      the key, as what it comes from
                                        lock      shared by those who use it, exclusive for who removes it; its mtime is the last use

They are entries of the store: `guntainer store ls`, `du`, `rm` and `prune` treat them so. As with an unpacked archive, another
map of ids is another folder: what is in it has other owners.
"""

from __future__ import annotations

import fcntl
import marshal
import os

from guntainer import errors
from guntainer.store.lookup import CACHE, read_meta

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.store.lookup import Store

_TRIES = 10


class CacheFolders:
    """Those that one process uses: held until `close`, so that nobody removes them."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._held: dict[str, tuple[str, int]] = {}

    def held(self, key: str) -> str:
        """The host folder of a key that was opened before; "": it was not."""
        return self._held[key][0] if key in self._held else ""

    def open_nowait(self, key: str) -> str:
        """The host folder of a key, made where it is missing; "" while somebody else removes it, or may.

        Raises:
            StoreError: it can not be made.
        """
        if key not in self._held:
            try:
                opened = self._opened(key)
            except OSError as error:
                raise errors.StoreError(
                    f"cache folder {key!r}: {errors.describe_oserror(error)}",
                    hint="use --store DIR or GUNTAINER_STORE to put it elsewhere",
                    probe="store",
                ) from None
            if opened is None:
                return ""
            self._held[key] = opened
        return self._held[key][0]

    def _opened(self, key: str) -> tuple[str, int] | None:
        entry = self._store.entry(name_of(key), CACHE)
        for _ in range(_TRIES):
            os.makedirs(entry, 0o700, exist_ok=True)
            try:
                lock = os.open(f"{entry}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:
                continue  # it was removed meanwhile
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError as error:
                os.close(lock)
                if isinstance(error, BlockingIOError):
                    return None
                raise
            if not os.fstat(lock).st_nlink:
                os.close(lock)
                continue
            try:
                _fill(entry, key, self._store.ids.describe() if self._store.suffix else "")
                os.utime(lock)
            except BaseException:
                os.close(lock)
                raise
            return f"{entry}/data", lock
        raise errors.StoreError(f"cache folder {key!r}: it vanishes at once", hint="is something cleaning the store?")

    def close(self) -> None:
        """Let go of all of them."""
        for _, lock in self._held.values():
            os.close(lock)
        self._held.clear()


def _fill(entry: str, key: str, ids: str) -> None:
    os.chmod(os.path.dirname(entry), 0o700)
    try:
        os.mkdir(f"{entry}/data")
        os.chmod(f"{entry}/data", 0o755)
    except FileExistsError:
        pass
    if read_meta(entry) is None:
        made = f"{entry}/.meta-{os.getpid()}-{os.urandom(4).hex()}"
        with open(made, "wb") as file:
            file.write(marshal.dumps({"sources": (key,), "ids": ids}))
        os.rename(made, f"{entry}/meta")


def name_of(key: str) -> str:
    """What stands for a key: it may hold anything."""
    from _hashlib import openssl_sha256

    data = key.encode("utf-8", "surrogateescape")
    return str(openssl_sha256(data, usedforsecurity=False).hexdigest())
