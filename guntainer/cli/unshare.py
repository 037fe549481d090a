"""`guntainer unshare COMMAND…`: a program of the host, as root over your own sub-ids: for files that containers have left with them."""

from __future__ import annotations

import _signal
import os

from guntainer import errors
from guntainer.cli.parsing import Parser, split_at_positional


def parser() -> Parser:
    p = Parser(
        prog="guntainer unshare",
        usage="guntainer unshare COMMAND [ARGS…]",
        description="Run a program of the host in the user namespace that maps your sub-ids: you are root of them there, so that "
        "their files can be looked at, changed and removed. Nothing else is different: it is no container.",
        epilog="example: guntainer unshare rm -rf /tmp/guntainer-1000/kept",
    )
    p.add_argument("--debug", action="store_true", help="tracebacks")
    p.add_argument("command", metavar="COMMAND", nargs="?", help="the program and its arguments")
    return p


def main(words: list[str]) -> int:
    p = parser()
    options, command = split_at_positional(p, words)
    p.parse(options)
    if not command:
        p.error("COMMAND is missing")
    from guntainer import idmap

    idmap.enter(idmap.open_ids("range"))
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # which Python ignores, and a program would go on to
        _signal.signal(number, _signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except FileNotFoundError:
        raise errors.CommandNotFound(f"{command[0]}: command not found") from None
    except OSError as error:
        raise errors.CommandNotExecutable(f"{command[0]}: {error.strerror}", errno=error.errno or 0) from None
