"""A job's workspace: a folder of the host's to work in.

    mode         what the job sees at the target
    copy         its own: an overlay in its mount namespace, the folder below, its layer above; where that is refused, a copy
    mount        the host's folder itself
    read-only    the same, and it can not be written to

An overlay costs nothing until something is written, however large the folder is. What guntainer itself keeps in there (results,
the store, run folders) is hidden in it, and left out of a copy: it grows while the job runs. A layer is one of the run folder's,
and goes the way of all layers.
"""

from __future__ import annotations

import errno
import os
import stat

from guntainer import errors
from guntainer.jobs.model import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.errand import Errand
    from guntainer.idmap import Ids
    from guntainer.jobs.model import Workspace

COPY, READ_ONLY = "copy", "read-only"
STEP = "workspace"
"""The step of a plan that a host may refuse: see `planner`."""
_OPAQUE = "user.overlay.opaque"
_FULL = 2
_NO_XATTRS = (errno.EOPNOTSUPP, errno.EPERM)


def check(workspace: Workspace) -> None:
    """Whether the folder is there.

    Raises:
        UsageError: naming it.
    """
    what = f"workspace {workspace.source}"
    try:
        mode = os.stat(workspace.source).st_mode
    except FileNotFoundError:
        raise errors.UsageError(f"{what}: it does not exist on the host") from None
    except OSError as error:
        raise errors.UsageError(f"{what}: {error.strerror}") from None
    if not stat.S_ISDIR(mode):
        raise errors.UsageError(f"{what}: it is not a folder", hint="a single file is a volume")
    if workspace.mode == COPY and os.path.realpath(workspace.source) == "/":
        raise errors.UsageError(f"{what}: the host's whole root is none", hint="name a folder of it")


def bound(workspace: Workspace) -> Mount:
    """The mount of one that is the host's own folder."""
    return Mount(source=workspace.source, target=workspace.target, read_only=workspace.mode == READ_ONLY)


def inside(source: str, places: Iterable[str]) -> tuple[str, ...]:
    """Those of some folders that lie inside of `source`, as seen from there."""
    above = os.path.realpath(source).rstrip("/") + "/"
    found = (os.path.realpath(place) for place in places if place)
    return tuple(sorted({place[len(above) :] for place in found if place.startswith(above)}))


def layered(workspace: Workspace, layer: str, hidden: tuple[str, ...]) -> Mount:
    """The mount of an overlay over the folder.

    Args:
        layer: its writable layer, with empty folders upper/ and work/.
        hidden: folders inside of it that look empty.

    Raises:
        OSError: the layer can not be prepared.
    """
    upper = f"{layer}/upper"
    for path in hidden:
        _hide(workspace.source, upper, path)
    os.chmod(upper, stat.S_IMODE(os.stat(workspace.source).st_mode))  # overlayfs shows the upper one's
    return Mount(kind="overlay", source=workspace.source, target=workspace.target, layer=layer)


def _hide(source: str, upper: str, path: str) -> None:
    """Make the upper folder of one that overlayfs shows nothing below of: overlayfs.rst, "whiteouts and opaque directories"."""
    parts = path.split("/")
    for count in range(1, len(parts) + 1):
        part = "/".join(parts[:count])
        if not os.path.isdir(f"{source}/{part}"):
            return
        try:
            os.mkdir(f"{upper}/{part}")
        except FileExistsError:
            pass
        os.chmod(f"{upper}/{part}", stat.S_IMODE(os.stat(f"{source}/{part}").st_mode) | 0o700)
    try:
        os.setxattr(f"{upper}/{path}", _OPAQUE, b"y")
    except OSError as error:
        if error.errno not in _NO_XATTRS:
            raise  # without xattrs it is shown as it is: read-only, as all of it


def is_refused(error: errors.GuntainerError | None) -> bool:
    """Whether a launch has failed because there can be no overlay over this folder."""
    return isinstance(error, errors.SetupError) and error.step == STEP


def copying(workspace: Workspace, layer: str, hidden: tuple[str, ...], ids: Ids) -> Errand:
    """Begin to copy the folder into a layer.

    Raises:
        HostError: it would be copied into itself, or no process can be started.
    """
    import marshal

    from guntainer import errand

    if inside(workspace.source, (layer,)) and not any(
        f"{one}/".startswith(tuple(f"{path}/" for path in hidden)) for one in inside(workspace.source, (layer,))
    ):
        raise errors.HostError(
            f"workspace {workspace.source}: it would be copied into itself", hint="set TMPDIR to a folder outside of it"
        )
    told = marshal.dumps((workspace.source, f"{layer}/upper", hidden))
    inherited = (ids.namespace,) if errand.must_enter(ids) else ()
    return errand.Errand(f"workspace {workspace.source}", errand.line("workspace", ids), told, inherited)


def copied(workspace: Workspace, layer: str, code: int, said: bytes) -> Mount:
    """The mount of what was copied.

    Raises:
        HostError: it was not.
    """
    if code:
        why = said.decode("utf-8", "replace").strip() or f"it ended with {code}"
        hint = (
            "set TMPDIR to a disk with more room"
            if code == _FULL
            else 'use mode = "mount", or leave out what can not be read'
        )
        raise errors.HostError(f"workspace {workspace.source}: copying it failed: {why}", hint=hint)
    return Mount(source=f"{layer}/upper", target=workspace.target)


def main() -> None:
    """The process that copies."""
    import marshal

    from guntainer import errand
    from guntainer.store import flatten

    errand.enter()
    with open(0, "rb", closefd=False) as file:
        source, target, hidden = marshal.loads(file.read())
    os.umask(0)
    try:
        said, code = flatten.Flattening((source,), target, without=frozenset((*hidden, "."))).run(), 0
    except OSError as error:
        said, code = errors.describe_oserror(error), _FULL if error.errno in (errno.ENOSPC, errno.EDQUOT) else 1
    os.write(1, said.encode("utf-8", "surrogateescape"))
    os._exit(code)
