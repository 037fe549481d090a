"""`guntainer completion bash|zsh|tcsh`: a completion script, made by shtab from the parsers themselves."""

from __future__ import annotations

from guntainer.cli import COMMANDS, show
from guntainer.cli.parsing import Parser

SHELLS = ("bash", "zsh", "tcsh")


def whole_parser() -> Parser:
    """Every command in one parser: for completion only, each command builds its own when it runs."""
    from importlib import import_module

    whole = Parser(prog="guntainer")
    whole.add_argument("--version", action="store_true", help="print the version")
    verbs = whole.add_subparsers(parser_class=Parser)
    for name, what in COMMANDS.items():
        one = import_module(f"guntainer.cli.{name}").parser()
        verbs.add_parser(name, help=what, parents=[one], add_help=False, conflict_handler="resolve")
    return whole


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
