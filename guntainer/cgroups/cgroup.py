"""The control group of one container: its limits, what it has used, its end."""

from __future__ import annotations

import os
import select
import time

from guntainer import errors, resources
from guntainer.cgroups import host
from guntainer.cgroups.usage import Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.resources import Resources, Setting

_INNER = "inner"
_FROZEN_WITHIN_S = 2.0
_GONE_WITHIN_S = 5.0
_ROUND_S = 0.01
_SIGKILL = 9


class Cgroup:
    """One container's control group; made with its object.

    Args:
        path: where; nothing is there yet.
        fenced: a cgroup namespace keeps its inside from changing the limits at its root. Where it does not, the container
            gets a group below this one.
    """

    def __init__(self, path: str, *, fenced: bool) -> None:
        self.path = path
        self._inside = path if fenced else f"{path}/{_INNER}"
        self.limits: dict[str, str] = {}
        """What was written: file → text."""
        self.notes: list[str] = []
        """What could not be, one sentence each."""
        os.mkdir(path)
        try:
            if not fenced:
                os.mkdir(self._inside)
            self.fd = os.open(self._inside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except BaseException:
            remove(path)
            raise

    def __repr__(self) -> str:
        return f"Cgroup({self.path!r}, {self.limits})"

    def limit(self, wanted: Resources, *, best_effort: bool = False) -> None:
        """Set the limits that a spec asks for.

        Args:
            wanted: its `linux.resources`.
            best_effort: go on without one that can not be set, with a note.

        Raises:
            HostError: the kernel has no such limit, or refuses the value.
        """
        for setting in resources.settings(wanted):
            try:
                self._set(setting)
            except errors.HostError as error:
                if not best_effort:
                    raise
                self.notes.append(error.message)

    def _set(self, setting: Setting) -> None:
        written = [self._write(*one, setting) for one in zip(setting.files, setting.texts, strict=True)]
        if setting.required and not any(written):
            raise errors.HostError(
                f"no limit of {setting.option}: this kernel has no {' or '.join(setting.files)}",
                hint="leave it out, or use --limits best-effort",
            )

    def _write(self, name: str, text: str, setting: Setting) -> bool:
        """Write one file; False where there is none."""
        try:
            fd = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            os.write(fd, text.encode())
        except OSError as error:
            if name == "cpuset.cpus":
                self._check_cpus(text)
            raise errors.HostError(
                f"no limit of {setting.option}: the kernel refuses {text!r} for {name}: {error.strerror}"
            ) from None
        finally:
            os.close(fd)
        if name == "cpuset.cpus":
            self._check_cpus(text)
        self.limits[name] = text
        return True

    def _check_cpus(self, wanted: str) -> None:
        """What is not given to us the kernel leaves out; where nothing is left it takes all, and a number too high it refuses."""
        from guntainer.jobs.limits import processors, spans

        given = "".join(host.words(f"{os.path.dirname(self.path)}/cpuset.cpus.effective"))
        absent = processors(wanted) - (processors(given) if given else set())
        if absent:
            raise errors.HostError(
                f"no limit of cpuset-cpus: processor{'s'[: len(absent) > 1]} {spans(absent)} can not be had here "
                f"(can be had: {given or 'none'})",
                hint="ask for those, or use --limits best-effort",
            )

    # -- while it lives

    def kill(self) -> None:
        """Kill everything in it, forks under way as well: cgroup.kill, Linux 5.14."""
        try:
            self._tell("cgroup.kill", "1")
        except FileNotFoundError:
            self.kill_frozen()
        except OSError:
            pass  # gone

    def kill_frozen(self) -> None:
        """The same on an older kernel: nothing forks while it is frozen, and SIGKILL works all the same."""
        self.freeze()
        for pid in self.pids():
            try:
                os.kill(pid, _SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
        self.thaw()

    def freeze(self) -> bool:
        """Let nothing in it run any more; False where that takes too long: cgroup.freeze, Linux 5.2."""
        self._tell("cgroup.freeze", "1")
        return self._wait_for("frozen 1", _FROZEN_WITHIN_S)

    def thaw(self) -> None:
        self._tell("cgroup.freeze", "0")

    def pids(self) -> list[int]:
        """The processes in it and in what it has made below."""
        found: list[int] = []
        for folder, _, _ in os.walk(self.path):
            found += [int(word) for word in host.words(f"{folder}/cgroup.procs")]
        return found

    def _tell(self, name: str, text: str) -> None:
        fd = os.open(f"{self.path}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)

    def _wait_for(self, line: str, seconds: float) -> bool:
        return _wait_for(self.path, line, seconds)

    # -- at the end

    def usage(self) -> Usage:
        """What it has used until now."""
        cpu = _numbers(f"{self.path}/cpu.stat")
        peak = _first_number(f"{self.path}/memory.peak")
        return Usage(
            memory_peak_bytes=peak,
            cpu_user_ns=cpu.get("user_usec", 0) * 1000,
            cpu_system_ns=cpu.get("system_usec", 0) * 1000,
            cpu_throttled_ns=cpu.get("throttled_usec", 0) * 1000,
            oom_kills=_numbers(f"{self.path}/memory.events").get("oom_kill", 0),
            pids_refused=_numbers(f"{self.path}/pids.events").get("max", 0),
        )

    def close(self) -> None:
        """Let go of its descriptor: it has been launched into, or will not be."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def remove_nowait(self) -> bool:
        """Remove it where nothing is in it; else `remove`, which may take a moment."""
        self.close()
        try:
            if self._inside != self.path:
                os.rmdir(self._inside)
            os.rmdir(self.path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def remove(self) -> bool:
        """Kill what is in it, wait for its end, and remove it; False where it does not end."""
        return self.remove_nowait() or remove(self.path)


def remove(path: str) -> bool:
    """Remove a group and all below it, with what runs there; False where that does not end."""
    deadline = time.monotonic() + _GONE_WITHIN_S
    while os.path.isdir(path):
        if _remove_folders(path):
            return True
        _kill_all(path)
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        _wait_for(path, "populated 0", min(left, 1.0))
    return True


def remove_empty(path: str) -> bool:
    """Remove a group once the last process has left it; False where one stays."""
    _wait_for(path, "populated 0", 1.0)
    return _remove_folders(path)


def _remove_folders(path: str) -> bool:
    try:
        for folder, _, _ in os.walk(path, topdown=False):
            os.rmdir(folder)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return not os.path.isdir(path)


def _kill_all(path: str) -> None:
    for folder, _, _ in os.walk(path):
        try:
            with open(f"{folder}/cgroup.kill", "w", encoding="ascii") as file:
                file.write("1")
            return  # it reaches all below
        except FileNotFoundError:
            for word in host.words(f"{folder}/cgroup.procs"):
                try:
                    os.kill(int(word), _SIGKILL)
                except OSError:
                    pass
        except OSError:
            return


def _wait_for(path: str, line: str, seconds: float) -> bool:
    """Wait until a line is in cgroup.events, which tells of changes by POLLPRI; True where it is, or the group is gone."""
    deadline = time.monotonic() + seconds
    try:
        fd = os.open(f"{path}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLPRI)
        while line.encode() not in os.pread(fd, 4096, 0).splitlines():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(min(left, _ROUND_S) * 1000)
    except OSError:
        return True
    finally:
        os.close(fd)
    return True


def _numbers(path: str) -> dict[str, int]:
    """A flat keyed file: `name number` a line; {} where it is not there."""
    try:
        with open(path, "rb") as file:
            pairs = (line.split() for line in file.read().splitlines())
            return {pair[0].decode(): int(pair[1]) for pair in pairs if len(pair) == 2}
    except (OSError, ValueError):
        return {}


def _first_number(path: str) -> int | None:
    try:
        with open(path, "rb") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None
