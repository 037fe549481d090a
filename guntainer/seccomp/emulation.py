"""What succeeds without doing anything where a container's root is one user of the host's: root emulation.

With one id mapped, the kernel refuses to give a file to another user, to become one, and to make devices. Package managers
do all three, and rarely look whether it worked: with these rules they go on, and every file stays root's.

What is NOT emulated: nothing remembers what was asked for, so stat(2) and getuid(2) tell the truth, and a program that looks
finds it; a device is not there afterwards; chmod(2), mount(2), quotas and clocks do what they do without us. setxattr(2) of
security.capability is told from other attributes by its name alone, which a filter can not read: with one id the kernel
takes it as it is, user_namespaces(7).
"""

from __future__ import annotations

from guntainer.seccomp.profile import ERRNO, Rule

_OWNERS = ("chown", "fchown", "lchown", "fchownat", "chown32", "fchown32", "lchown32")
_IDENTITIES = tuple(
    name + width
    for width in ("", "32")
    for name in (
        *("setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setfsuid", "setfsgid", "setgroups"),
    )
)
_S_IFMT, _S_IFCHR, _S_IFBLK = 0o170000, 0o020000, 0o060000  # inode(7)

RULES = (
    Rule(names=(*_OWNERS, *_IDENTITIES, "capset"), action=ERRNO),
    *(
        Rule(names=(name,), action=ERRNO, conditions=((index, "MASKED_EQ", _S_IFMT, kind),))
        for name, index in (("mknod", 1), ("mknodat", 2))  # where the mode is
        for kind in (_S_IFCHR, _S_IFBLK)
    ),
)
"""Error 0: the kernel skips the call and answers 0, seccomp(2)."""
