"""The options of `guntainer run`: the table that they are read by, and that --help and completion are made of."""

from __future__ import annotations

from guntainer.cli import limiting, options
from guntainer.cli.options import FLAG, LIST, Option
from guntainer.jobs.model import DEFAULT_HOSTNAME, DEFAULT_STOP_TIMEOUT_S, EMULATIONS, NETWORKS, USERNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.cli.parsing import Parser

_EPILOG = """\
ROOTFS is an archive (tar with any compression, zip, cpio, 7z), a folder, a container image (an OCI layout or a docker save
tar, oci:DIR:TAG, docker-archive:FILE:TAG), https://…#sha256=…, docker://HOST/NAME:TAG, or `host`: this machine's own system.
COMMAND defaults to the image's own, else to /bin/sh; everything after it belongs to it.

exit codes: the command's own; 124 timed out; 125 guntainer failed; 126 found but not executable; 127 not found;
128+N ended by signal N; 130 Ctrl-C.

examples:
  guntainer run alpine.tar.gz                     a shell in it
  guntainer run -v .:/src -w /src alpine.tar.gz make
  guntainer run --network none --timeout 30s rootfs/ ./test
"""


OPTIONS = (
    Option("--help", kind=FLAG, help="show this and exit"),
    Option("-e", "--env", kind=LIST, metavar="K[=V]", help="set a variable; without =V: the host's, if it has one"),
    Option("--env-file", kind=LIST, metavar="FILE", help="read K=V lines"),
    Option("-v", "--volume", kind=LIST, metavar="SRC:DST[:ro]", help="bind a host path"),
    Option("--mount", kind=LIST, metavar="type=bind|tmpfs,…", help="the same, spelled out"),
    Option("--tmpfs", kind=LIST, metavar="DST[:size=…]", help="mount a memory file system"),
    Option("-w", "--workdir", metavar="DIR", help="start there (default: the image's, else /)"),
    Option(
        "-u",
        "--user",
        metavar="UID[:GID]|NAME",
        help="run as this user of the rootfs (default: the image's, else root)",
    ),
    Option("--entrypoint", metavar="PROGRAM", help='what COMMAND is given to, for the image\'s own ("": nothing)'),
    Option("-h", "--hostname", default=DEFAULT_HOSTNAME, metavar="NAME", help="host name (default: {default})"),
    Option("--name", metavar="NAME", help="a name for messages"),
    Option("-i", "--interactive", kind=FLAG, help="accepted: stdin is always passed on"),
    Option("-t", "--tty", kind=FLAG, help="a pseudo-terminal (by default where stdin, stdout and stderr are one)"),
    Option("--no-tty", kind=FLAG, help="no pseudo-terminal, ever"),
    Option("--rm", kind=FLAG, help="accepted: nothing is kept anyway"),
    Option("--keep", kind=FLAG, help="keep what the run wrote, and print where"),
    Option(
        "--commit", metavar="FILE", help="after success: write the changed rootfs, to .tar[.gz|.zst|.xz], or - (stdout)"
    ),
    Option("--commit-layer", metavar="FILE", help="the same, of nothing but the changes: a layer of an image"),
    Option("--read-only", kind=FLAG, help="make the root read-only"),
    Option("--scratch", default="disk", metavar="disk|memory[:SIZE]", help="where the writable layer lies"),
    Option("--network", default="host", metavar="|".join(NETWORKS), help="the host's, nothing but lo, or its own"),
    Option("-p", "--publish", kind=LIST, metavar="[IP:]HOST:CONT[/udp]", help="publish a port; CONT alone: a free one"),
    Option("-P", "--publish-all", kind=FLAG, help="publish what the image listens on, on free ports"),
    Option("--dns", kind=LIST, metavar="IP|none", help="a name server; none: the rootfs's own resolv.conf"),
    Option("--add-host", kind=LIST, metavar="NAME:IP", help="a line of /etc/hosts; the IP may be host-gateway"),
    Option("--cap-add", kind=LIST, metavar="CAP", help="add a capability to docker's set; ALL: every one"),
    Option("--cap-drop", kind=LIST, metavar="CAP", help="take one away; ALL: every one"),
    Option(
        "--security-opt",
        kind=LIST,
        metavar="OPT",
        help="no-new-privileges, seccomp=FILE|unconfined, unmask=ALL|PATH[:PATH]",
    ),
    Option("--privileged", kind=FLAG, help="all that the user namespace has; nothing of the host's"),
    Option(
        "--userns",
        choices=USERNS,
        default="auto",
        metavar="|".join(USERNS),
        help="ids: a range of sub-ids, or your own alone (auto: a range where the host has one)",
    ),
    Option(
        "--root-emulation",
        choices=EMULATIONS,
        default="auto",
        metavar="|".join(EMULATIONS),
        help="chown, set*id and mknod succeed and do nothing (auto: with one id, in a distribution)",
    ),
    *limiting.OPTIONS,
    Option("--init", kind=FLAG, help="put a small init before the command"),
    Option("--timeout", metavar="TIME", help="stop after this long (30s, 5m; a bare number is seconds; 0: never)"),
    Option("--stop-signal", metavar="SIGNAL", help="what asks the command to stop (default: the image's, else TERM)"),
    Option("--stop-timeout", default=str(int(DEFAULT_STOP_TIMEOUT_S)), metavar="TIME", help="then wait this long"),
    Option("--no-cache", kind=FLAG, help="unpack into a temporary folder and remove it afterwards"),
    Option("--sha256", metavar="HEX", help="refuse an archive with another digest"),
    Option("--pull", default="missing", metavar="missing|always|never", help="when to fetch an image or a URL"),
    Option("--platform", metavar="OS/ARCH", help="of an image for several (default: this machine's)"),
    Option("--max-unpacked", metavar="SIZE", help="refuse what unpacks to more (default: 64g)"),
    Option("--max-entries", metavar="N", help="refuse what holds more files (default: 4000000)"),
    Option("--store", metavar="DIR", help="where unpacked archives are kept"),
    Option("--dry-run", kind=FLAG, help="print what would be done, start nothing"),
    Option("--require-isolation", choices=("full",), metavar="full", help="refuse to run with less"),
    Option("--verbose", kind=FLAG, help="more notes of our own"),
    *options.COMMON,
)


def parser() -> Parser:
    """Every option, for completion and for what the quick reader leaves to argparse."""
    from guntainer.cli.parsing import build

    return build(
        OPTIONS,
        prog="guntainer run",
        add_help=False,
        usage="guntainer run [OPTIONS] ROOTFS [COMMAND [ARGS…]]",
        description="Run a command in a rootfs, as your own user, in a container of its own.",
        epilog=_EPILOG,
    )
