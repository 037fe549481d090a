"""Run folders: what a run writes and nobody keeps.

    $TMPDIR/guntainer-<uid>/          0700, ours; goes with the last run
        <id>.lock                     held (flock) as long as the run lives: a free lock marks a dead run
        <id>/                         writable layers, logs nobody asked for; made after, removed before its lock
        <id>/<container>/{upper,work}

The lock is taken before the folder exists and given up after it is gone, so a folder without a held lock is always left
over from a run that was killed; whoever starts next removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os

from guntainer import errors, hostids, interrupts

_TRIES = 100
CGROUP_RECORD = "cgroup"
"""A file in a run folder: where the run has its control groups."""


def temporary_folder() -> str:
    """$TMPDIR, else /tmp, else /var/tmp: the first that is a folder which can be written.

    Raises:
        HostError: none of them is.
    """
    wanted = [os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp"]
    for path in wanted:
        if path and os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK):
            return os.path.abspath(path)
    raise errors.HostError(
        f"no folder for temporary files: {', '.join(p for p in wanted if p)} can not be written",
        hint="set TMPDIR to one that can",
        probe="tmpdir",
    )


def _base() -> str:
    path = f"{temporary_folder()}/guntainer-{hostids.UID}"
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except OSError as error:
        raise errors.HostError(_full(error), probe="tmpdir") from None
    status = os.lstat(path)
    # The name is known to everybody on the host: what lies there must be ours and nobody else's to write.
    if (status.st_mode & 0o170000) != 0o040000 or status.st_uid != os.geteuid():
        raise errors.HostError(
            f"{path} is not a folder of yours",
            hint="remove it, or set TMPDIR to a folder of your own",
            probe="tmpdir",
        )
    if status.st_mode & 0o077:
        os.chmod(path, 0o700)
    return path


class RunFolder:
    """One run's folder; a context manager that removes it."""

    def __init__(self) -> None:
        self.path = ""
        self._lock = -1
        self._count = 0
        self._free: list[str] = []

    def __enter__(self) -> RunFolder:
        with interrupts.held():
            return self._make()

    def _make(self) -> RunFolder:
        for _ in range(_TRIES):
            lock, base = -1, ""
            try:
                base = _base()
                name = f"{os.getpid()}-{os.urandom(4).hex()}"
                lock = os.open(f"{base}/{name}.lock", os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
                fcntl.flock(lock, fcntl.LOCK_EX)
                if os.fstat(lock).st_nlink:  # else another start took the free lock for a dead run's
                    os.mkdir(f"{base}/{name}", 0o700)
                    self.path, self._lock = f"{base}/{name}", lock
                    return self
            except FileNotFoundError:
                pass  # the base went with another run's end
            except OSError as error:
                if lock >= 0:
                    _unlink(f"{base}/{name}.lock")
                _rmdir(base)  # where we have made it
                raise errors.HostError(_full(error), probe="tmpdir") from None
            finally:
                if lock >= 0 and self._lock != lock:
                    os.close(lock)
        raise errors.HostError("can not make a run folder: it vanishes at once", hint="is something cleaning TMPDIR?")

    def __exit__(self, *_: object) -> None:
        self.remove()

    def layer(self) -> str:
        """A folder with empty folders upper/ and work/ for one container's writable layer."""
        if self._free:
            return self._free.pop()
        self._count += 1
        folder = f"{self.path}/{self._count}"
        try:
            make_layer(folder)
        except OSError as error:
            raise errors.HostError(_full(error), probe="tmpdir") from None
        return folder

    def give_back(self, folder: str) -> bool:
        """A layer whose container has ended: kept for the next one where nothing was written to it.

        Returns:
            False where something was: the caller removes it, which may take a while.
        """
        _empty_work(folder)
        upper = f"{folder}/upper"
        try:
            if os.listdir(f"{folder}/work"):
                return False
            # made anew, not only found empty: the container may have changed the mode of its root folder
            os.rmdir(upper)
            _make_upper(upper)
        except OSError:
            return False
        self._free.append(folder)
        return True

    def remove(self) -> None:
        """Remove everything; what can not be removed is left to the next start, with its lock free."""
        if not self.path:
            return
        base = os.path.dirname(self.path)
        if self._remove_empty() or remove_layer(self.path):
            _unlink(self.path + ".lock")
        self._unlock()
        self.path = ""
        _rmdir(base)

    def _remove_empty(self) -> bool:
        """Remove it where no layer was written to, and nothing else is here; False where there is more to do."""
        for layer in range(1, self._count + 1):
            _remove_empty_layer(f"{self.path}/{layer}")
        return _rmdir(self.path)

    def keep(self) -> str:
        """Leave the folder to the user, without overlayfs's own: no later start will take it for a dead run's.

        Returns:
            its path
        """
        path, self.path = self.path, ""
        for layer in range(1, self._count + 1):
            _empty_work(f"{path}/{layer}")
        _unlink(path + ".lock")
        self._unlock()
        return path

    def _unlock(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _full(error: OSError) -> str:
    what = errors.describe_oserror(error)
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space for a writable layer: {what}; free some, or set TMPDIR to a larger disk"
    return f"can not make a run folder: {what}"


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _rmdir(path: str) -> bool:
    try:
        os.rmdir(path)
    except OSError:
        return False
    return True


def make_layer(folder: str) -> None:
    """A new folder with what overlayfs writes to: upper/ and work/."""
    os.mkdir(folder, 0o700)
    _make_upper(f"{folder}/upper")
    os.mkdir(f"{folder}/work", 0o755)


def _make_upper(path: str) -> None:
    os.mkdir(path)
    os.chmod(path, 0o755)  # the container's root folder has this mode, whatever the umask is


def make_mountable(folder: str) -> None:
    """A layer whose container has ended can be mounted once more, with all that was written to it."""
    _empty_work(folder)


def _empty_work(folder: str) -> None:
    """overlayfs leaves folders of mode 000 in work/, and in them the mark of `volatile`, over which it refuses to mount."""
    names = [f"{folder}/{name}" for name in ("work/work", "work/work/incompat", "work/work/incompat/volatile")]
    try:
        for name in names:
            os.chmod(name, 0o700)
        os.unlink(f"{names[-1]}/dirty")
    except OSError:
        pass  # a mount without `volatile` has fewer of them
    for name in reversed(names):
        _rmdir(name)


def _remove_empty_layer(folder: str) -> bool:
    """Remove a layer to which nothing was written: a few calls and no walk; False where there is more to do."""
    _empty_work(folder)
    return _rmdir(f"{folder}/work") and _rmdir(f"{folder}/upper") and _rmdir(folder)


def remove_layer(folder: str) -> bool:
    """Remove a folder of layers, whatever was written there; False where that failed."""
    if _remove_empty_layer(folder) or not os.path.lexists(folder):
        return True
    from guntainer.store.remove import remove_tree

    try:
        remove_tree(folder)
    except OSError:
        return False
    return True


def remove_stale() -> int:
    """Remove the folders of runs that were killed; returns how many there were."""
    try:
        base = f"{temporary_folder()}/guntainer-{hostids.UID}"
        if os.lstat(base).st_uid != os.geteuid():
            return 0
        names = [name for name in os.listdir(base) if name.endswith(".lock")]
    except (OSError, errors.HostError):
        return 0
    removed = 0
    for name in names:
        path = f"{base}/{name}"
        try:
            lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            folder = path[: -len(".lock")]
            if os.path.exists(f"{folder}/{CGROUP_RECORD}"):
                _remove_cgroups(folder)
            if os.fstat(lock).st_nlink and remove_layer(folder):
                _unlink(path)
                removed += 1
        except OSError:
            pass  # alive
        finally:
            os.close(lock)
    _rmdir(base)
    return removed


def _remove_cgroups(folder: str) -> None:
    from guntainer.cgroups.subtree import remove_left

    with open(f"{folder}/{CGROUP_RECORD}", encoding="utf-8", errors="surrogateescape") as file:
        remove_left(file.read())
