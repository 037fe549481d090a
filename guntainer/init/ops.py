"""The operations that a container's set-up is made of: each adds its system calls to a program.

A plan's operations are tuples `(name, argument…)` of plain values, made by `planner` and compiled by `child`, in whichever
process launches. OPERATIONS is the closed set of names; `descriptions` says the same in words.
"""

from __future__ import annotations

from guntainer.init import mounts, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS: dict[str, Callable[..., None]] = {
    # the process: who it is and where
    "id_map": process.id_map,
    "map_ids": process.map_ids,
    "into_cgroup": process.into_cgroup,
    "cgroup_namespace": process.cgroup_namespace,
    "death_signal": process.death_signal,
    "new_session": process.new_session,
    "join": process.join,
    "hostname": process.hostname,
    "loopback_up": process.loopback_up,
    "offer_network": process.offer_network,
    "await_network": process.await_network,
    "stdio": process.stdio,
    "terminal": process.terminal,
    # the root
    "private_mounts": mounts.private_mounts,
    "scratch_memory": mounts.scratch_memory,
    "overlay": mounts.overlay,
    "workspace": mounts.overlay,
    "bind_root": mounts.bind_root,
    "hold": mounts.hold,
    "pivot": mounts.pivot,
    "leave_host": mounts.leave_host,
    "read_only_root": mounts.read_only_root,
    "offer_root": mounts.offer_root,
    # the kernel's file systems
    "mount": mounts.mount,
    "cgroup_view": mounts.cgroup_view,
    "host_view": mounts.host_view,
    "devices": mounts.devices,
    "folder": mounts.folder,
    "mask": mounts.mask,
    "read_only": mounts.read_only,
    # the user's mounts
    "make_folder": mounts.make_folder,
    "place": mounts.place,
    "place_tmpfs": mounts.place_tmpfs,
    # the process: what it may, and its end
    "limits": process.limits,
    "session_keyring": process.session_keyring,
    "capabilities": process.capabilities,
    "credentials": process.credentials,
    "no_new_privileges": process.no_new_privileges,
    "seccomp": process.seccomp,
    "seal": process.seal,
    "workdir": process.workdir,
}
