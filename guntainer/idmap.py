"""Which ids a container has, and the user namespace that gives them: user_namespaces(7), subuid(5), newuidmap(1).

    single   the caller's own uid and gid, and no other; needs nothing of the host
    range    0 is the caller, 1..65535 are the caller's sub-ids; for real root they are the host's own ids

A range is mapped once for a whole run: one namespace, which the fork helper, the unpackers and whoever removes trees enter
by descriptor (setns(2)), so that a launch costs none. It is held by that descriptor alone and gone with the last who has it.
"""

from __future__ import annotations

import _thread
import os
import sys

from guntainer import errors, hostids
from guntainer.kernel import abi, syscalls
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Extent = tuple[int, int, int]

SINGLE, RANGE = "single", "range"
COUNT = 65536
"""The ids that a range maps: 0..65535, as many as /etc/passwd of a distribution may use."""
_NAMES_LIMIT = 1 << 20
_FOLDERS = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/run/wrappers/bin")
_SIGCHLD = 17
_PROBE = "subid"
_one_at_a_time = _thread.allocate_lock()


class Ids(Value):
    """The ids of a container."""

    kind: str = SINGLE
    uids: tuple[Extent, ...] = ()
    """(first inside, first outside, count) of a range, as /proc/PID/uid_map takes them; () of a single id."""
    gids: tuple[Extent, ...] = ()
    why: str = ""
    """Why not a range, where one would have been taken."""
    namespace: int = -1
    """A descriptor of the user namespace of a range; -1 of a single id."""
    inside: bool = False
    """Whether this process has entered it."""

    @property
    def key(self) -> str:
        """What tells trees apart that were unpacked under different maps; "" of a single id, where all is the caller's."""
        if self.kind == SINGLE:
            return ""
        from zlib import crc32

        return f"{crc32(repr((self.uids, self.gids)).encode()):08x}"

    def describe(self) -> str:
        """`range: 0 is 1000, 1-65535 are 100000-165534`: for people."""
        if self.kind == SINGLE:
            return f"single: only {hostids.UID}"
        return "range: " + ", ".join(
            f"{i} is {o}" if n == 1 else f"{i}-{i + n - 1} are {o}-{o + n - 1}" for i, o, n in self.uids
        )


def open_ids(wanted: str = "auto") -> Ids:
    """Choose, and make the namespace of a range.

    Raises:
        HostError: a range was demanded, and can not be had.
    """
    if wanted == SINGLE:
        return Ids()
    try:
        uids, gids = _extents()
        with _one_at_a_time:  # the kernel's answers come into memory that all threads share
            namespace = _namespace(uids, gids)
        return Ids(kind=RANGE, uids=uids, gids=gids, namespace=namespace)
    except errors.HostError as error:
        if wanted == RANGE:
            raise
        # where there are no user namespaces at all, the launch tells
        return Ids(why=error.message if error.probe == _PROBE else "")


def enter(ids: Ids) -> Ids:
    """Let this process, which has one thread, enter the namespace of a range; it is root there: setns(2)."""
    if ids.namespace < 0 or ids.inside:
        return ids
    enter_by(ids.namespace)
    return ids.replace(inside=True)


_entered = False
_real_root: bool | None = None


def enter_by(fd: int) -> None:
    """Enter the user namespace behind a descriptor."""
    global _entered
    is_real_root()  # it can not be seen from inside
    hostids.namespace_limit("pid")  # to be known inside, where the host's limits can not be read any more
    syscalls.setns(fd, abi.CLONE_NEWUSER)
    _entered = True


_ENTER = (
    "import os, sys; sys.dont_write_bytecode = True; sys.path.insert(0, {package!r}); "
    "from guntainer import idmap; idmap.enter_by({fd}); "
)
_REMOVE = "from guntainer.store.remove import remove_tree; remove_tree(sys.argv[1])"
_CLAIM = "os.chown(sys.argv[1], 0, 0)"
_EXECUTE = "os.execvp(sys.argv[1], sys.argv[1:])"


def inside(ids: Ids, words: list[str], code: str = _EXECUTE) -> list[str]:
    """A command line that enters the namespace of `ids`, by the same descriptor, and executes `words` there."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    enter_it = _ENTER.format(package=package, fd=ids.namespace)
    return [sys.executable, "-I", "-S", "-c", enter_it + code, *words]


def remove_mapped(tree: str) -> bool:
    """Remove a tree in which sub-ids own folders: by a process of its own, which enters a namespace that maps them.

    Returns:
        whether it is gone; False as well in a process that is in such a namespace already.
    """
    return _done_inside(_REMOVE, os.path.abspath(tree))


def claim_mapped(fd: int) -> bool:
    """Make a file ours that one of our sub-ids owns, as `remove_mapped`.

    Args:
        fd: an O_PATH descriptor of it.
    """
    os.set_inheritable(fd, True)
    return _done_inside(_CLAIM, f"/proc/self/fd/{fd}")


def _done_inside(code: str, path: str) -> bool:
    if _entered:
        return False
    ids = open_ids()
    if ids.namespace < 0:
        return False
    try:
        os.set_inheritable(ids.namespace, True)
        line = inside(ids, [path], code)
        pid = os.posix_spawn(sys.executable, line, {"LANG": "C.UTF-8"}, file_actions=_QUIET)
        return os.waitpid(pid, 0)[1] == 0
    except OSError:
        return False
    finally:
        os.close(ids.namespace)


_QUIET = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1, 2)]


# -- the ranges


def _extents() -> tuple[tuple[Extent, ...], tuple[Extent, ...]]:
    if hostids.UID == 0:  # root needs nobody's leave, and its archives keep their owners as they are
        return _whole("/proc/self/uid_map"), _whole("/proc/self/gid_map")
    return _map("/etc/subuid", hostids.UID), _map("/etc/subgid", hostids.GID)


def is_real_root() -> bool:
    """Whether we are run by the root of the host, not by that of somebody's user namespace: there every id is mapped."""
    global _real_root
    if _real_root is None:
        _real_root = False
        if hostids.UID == 0:
            with open("/proc/self/uid_map", encoding="ascii") as file:
                _real_root = file.read().split() == ["0", "0", "4294967295"]
    return _real_root


def _whole(path: str) -> tuple[Extent, ...]:
    """Every id stands for itself, in the pieces in which this namespace has them: no extent may cross two of its own.

    Raises:
        HostError: in a container of somebody else's root may have fewer ids.
    """
    found = []
    with open(path, encoding="ascii") as file:
        for first, _, count in (map(int, line.split()) for line in file):
            if first < COUNT:
                found.append((first, first, min(count, COUNT - first)))
    total = sum(count for _, _, count in found)
    if total < COUNT:
        raise _missing(f"root has {_ids(total)} here, and {COUNT} are needed")
    return tuple(found)


def _map(path: str, own: int) -> tuple[Extent, ...]:
    """0 is the caller, then the caller's ranges one after the other, up to COUNT ids.

    Raises:
        HostError: there is no range, or too few ids in all of them.
    """
    ranges = list(ranges_of(path, _login(), hostids.UID))
    total = sum(count for _, count in ranges)
    if not ranges:
        raise _missing(f"{path} has no range for {_login()}")
    if total < COUNT:
        raise _missing(f"the range of {_login()} in {path} has {_ids(total)}, and {COUNT} are needed")
    found = [(0, own, 1)]
    for first, count in ranges:
        at = found[-1][0] + found[-1][2]
        if at < COUNT:
            found.append((at, first, min(count, COUNT - at)))
    return tuple(found)


def ranges_of(path: str, name: str, uid: int) -> Iterable[tuple[int, int]]:
    """(first id, count) of every line of a subuid(5) file for this user, by name or, as directory services have it, by number.

    Lines that make no sense are left out, as newuidmap(1) does.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read(_NAMES_LIMIT).splitlines()
    except OSError:
        return
    for line in lines:
        owner, _, rest = line.strip().partition(":")
        first, _, count = rest.partition(":")
        if owner in (name, str(uid)) and first.isdecimal() and count.isdecimal() and int(count):
            yield int(first), int(count)


def _login() -> str:
    """The caller's name; the number of one that no passwd knows."""
    import pwd

    try:
        return pwd.getpwuid(hostids.UID).pw_name
    except KeyError:
        return str(hostids.UID)


def _ids(count: int) -> str:
    return "1 id" if count == 1 else f"{count} ids"


def _missing(why: str) -> errors.HostError:
    return errors.HostError(
        f"no range of ids can be mapped: {why}", hint="use --userns single, or have one added", probe=_PROBE
    )


# -- the namespace


def _namespace(uids: tuple[Extent, ...], gids: tuple[Extent, ...]) -> int:
    """A descriptor of a new user namespace with these maps.

    A clone that shares our memory and only sleeps holds the namespace until it is mapped: the kernel lets only a process
    outside of it, with the right to those ids, write the maps of more than one id.

    Raises:
        HostError: no user namespace, no helper, or the helper refuses.
    """
    from guntainer.kernel.program import Program

    helpers = [] if hostids.UID == 0 else [helper("newuidmap"), helper("newgidmap")]
    sleep, wake = os.pipe2(os.O_CLOEXEC)
    program = Program(abi.CLONE_NEWUSER)
    program.call("prctl", abi.PR_SET_PDEATHSIG, 9, 0, 0, 0)
    program.call_with_fd("read", 0, 0, program.data(bytes(8), shared=False), 1)
    program.call("exit_group", 0)
    program.finish()
    program.prepare(0, 2, [sleep])
    pid = 0
    try:
        try:
            pid, pidfd = program.launch(program.flags, exit_signal=_SIGCHLD)
        except OSError as error:
            from guntainer.faults import clone_error

            raise clone_error(error.errno or 0, "user") from None
        os.close(pidfd)
        if helpers:
            _map_by_helpers(pid, helpers, (uids, gids))
        else:
            _map_ourselves(pid, (uids, gids))
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        os.close(sleep)
        os.close(wake)


def helper(name: str) -> str:
    """The path of newuidmap or newgidmap, with the rights that it needs.

    Raises:
        HostError: it is not there, or has neither the setuid bit nor file capabilities.
    """
    folders = [*os.environ.get("PATH", "").split(":"), *_FOLDERS]
    path = next((p for p in (f"{folder}/{name}" for folder in folders if folder) if os.access(p, os.X_OK)), "")
    if not path:
        raise _missing(f"{name} is not installed (package uidmap or shadow-utils)")
    if not os.stat(path).st_mode & 0o4000:
        try:
            os.getxattr(path, "security.capability")
        except OSError:
            raise _missing(f"{path} is not setuid root and has no capabilities") from None
    return path


def _map_by_helpers(pid: int, helpers: list[str], maps: tuple[tuple[Extent, ...], ...]) -> None:
    """Both at once: each takes a millisecond."""
    said = os.memfd_create("newuidmap")
    running = []
    status = 0
    try:
        for path, extents in zip(helpers, maps, strict=True):
            words = [path, str(pid), *(str(number) for extent in extents for number in extent)]
            actions = [(os.POSIX_SPAWN_DUP2, said, 1), (os.POSIX_SPAWN_DUP2, said, 2)]
            running.append(os.posix_spawn(path, words, {"PATH": "/usr/bin:/bin"}, file_actions=actions))
    except OSError as error:
        raise _missing(f"{error.filename or helpers[0]}: {error.strerror}") from None
    finally:
        for child in running:
            status |= os.waitpid(child, 0)[1]
        text = os.pread(said, 4096, 0).decode(errors="replace").strip().splitlines()
        os.close(said)
    if status:
        raise _missing(text[0] if text else f"{helpers[0]} ended with {os.waitstatus_to_exitcode(status)}")


def _map_ourselves(pid: int, maps: tuple[tuple[Extent, ...], ...]) -> None:
    for name, extents in zip(("uid_map", "gid_map"), maps, strict=True):
        text = "".join("{} {} {}\n".format(*extent) for extent in extents)
        try:
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        except OSError as error:
            # in a container of somebody else's, root may have fewer ids
            raise _missing(f"{name}: {error.strerror}") from None
