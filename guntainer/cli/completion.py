"""`guntainer completion bash|zsh|tcsh`: a completion script, made by shtab from the parsers themselves."""

from __future__ import annotations

from guntainer.cli import COMMANDS, show
from guntainer.cli.parsing import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

SHELLS = ("bash", "zsh", "tcsh")


def whole_parser() -> Parser:
    """Every command in one parser: for completion only, each command builds its own when it runs."""
    from importlib import import_module

    whole = Parser(prog="guntainer")
    whole.add_argument("--version", action="store_true", help="print the version")
    verbs = whole.add_subparsers(parser_class=Parser)
    for name, what in COMMANDS.items():
        one = import_module(f"guntainer.cli.{name}").parser()
        if name == "run":
            # no positionals for argparse, since all that follows ROOTFS is the command's
            one.add_argument("rootfs", metavar="ROOTFS")
            one.add_argument("command", metavar="FILE", nargs="*")
        _complete_files(one)
        _complete_values(one)
        verbs.add_parser(name, help=what, parents=[one], add_help=False, conflict_handler="resolve")
    return whole


_FOLDERS = ("DIR",)
_FILES = ("FILE", "ROOTFS", "SOURCE", "ARCHIVE", "PATH", "PROGRAM", "SRC:DST[:ro]")


def _complete_files(parser: argparse.ArgumentParser) -> None:
    """Tell shtab, by the names of the values, which of them are files."""
    import argparse

    import shtab

    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                _complete_files(below)
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif action.metavar in _FOLDERS:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]


def _complete_values(parser: argparse.ArgumentParser) -> None:
    """The usual values of options that take others as well, or have their own words for a mistake: choices, for shtab alone."""
    from guntainer import capabilities
    from guntainer.jobs import model, values
    from guntainer.jobs.limits import MODES

    names = ("ALL", *(name.removeprefix("CAP_") for name in capabilities.KNOWN))
    known = {
        "network": model.NETWORKS,
        "limits": MODES,
        "scratch": ("disk", "memory"),
        "cap_add": names,
        "cap_drop": names,
        "security_opt": ("no-new-privileges", "seccomp=unconfined", "unmask=ALL"),
        "stop_signal": tuple(name.removeprefix("SIG") for name in values.signal_names().values()),
    }
    for action in parser._actions:
        if action.choices is None:
            action.choices = known.get(action.dest)
        if isinstance(action.metavar, str):
            action.metavar = action.metavar.replace(
                ":", r"\:"
            )  # else the rest of it is the action: zshcompsys(1), _arguments


def parser() -> Parser:
    p = Parser(
        prog="guntainer completion", description="Print a completion script: source <(guntainer completion bash)"
    )
    p.add_argument("shell", choices=SHELLS)
    p.add_argument("--debug", action="store_true", help="tracebacks")
    return p


def main(words: list[str]) -> int:
    args = parser().parse(words)
    import shtab

    show(shtab.complete(whole_parser(), shell=args.shell) + "\n")
    return 0
