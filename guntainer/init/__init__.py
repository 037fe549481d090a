"""Everything that runs in the fork helper and between clone3 and execve. Imports the kernel and a few stdlib modules.

`zygote` is the helper's loop, `child` makes a program of a plan, `ops` is the table of a plan's operations.
"""

import _signal

AS_INIT, AS_SUBREAPER, AS_JOINED = "reaper", "subreaper", "joined"
OUR_INITS = (AS_INIT, AS_SUBREAPER, AS_JOINED)
"""A plan's init where it is ours, see `reaper`: as pid 1 of a pid namespace, without one, or outside of the one that its
command is to be in."""
SUPERVISOR_DIED = int(_signal.SIGRTMAX)
"""The parent-death signal of the one without a pid namespace: it has to end others before itself."""

LIFE, LIFE_WRITER, FIRST = 0, 1, 2
"""Indexes of the descriptors that every launch has (see `process.death_signal`), and of the first of its own."""

# Descriptors of a child's own, at fixed numbers above anything that is handed over; all close-on-exec.
FAULTS, INIT = 188, 189
"""The only ones above 2 that are open when the command is looked up and executed: see `process.seal`."""
OLD_ROOT = 190
MASTER, SLAVE = 191, 192
"""Of the pseudo-terminal."""
VIEW, CONTEXT = 193, 194
"""A mount that is not attached yet, and what it is made of."""
STDIN_ASIDE, NETWORK_NAMESPACE, USER_NAMESPACE, ROUTES = 195, 196, 197, 198
"""See `private_network`."""
KEPT_ROOT = 199
"""See `mounts.offer_root`."""
HELD = 200
"""The first of those that `mounts.hold` takes."""
