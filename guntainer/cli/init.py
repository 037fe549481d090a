"""`guntainer init [DIR]`: a first job file, from what is in a folder, or from a GitHub workflow."""

from __future__ import annotations

import errno
import os
import stat

from guntainer import errors
from guntainer.cli import complain, files, results, show, write
from guntainer.cli.parsing import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

_NAME = "jobs.toml"
_MOST_BYTES = 10 << 20
_OTHERS = ("jobs.yaml", "jobs.yml", "jobs.json")


def parser() -> Parser:
    p = Parser(
        prog="guntainer init",
        description="Write a commented job file: from what is in DIR (rootfs archives, pyproject.toml, tox.ini, package.json,"
        " Makefile, Cargo.toml, go.mod), or from a GitHub workflow. Nothing of it is run.",
    )
    p.add_argument("folder", nargs="?", default=".", metavar="DIR", help="the project's folder (default: this one)")
    p.add_argument(
        "-o", "--output", metavar="FILE", help=f"the file to write (default: DIR/{_NAME}); -: standard output"
    )
    p.add_argument("--from-github", metavar="FILE", help="convert the jobs of a workflow, as in .github/workflows")
    p.add_argument("--force", action="store_true", help="replace a file that is there")
    p.add_argument("-q", "--quiet", action="store_true", help="say nothing but warnings")
    p.add_argument("--debug", action="store_true", help="tracebacks")
    return p


def main(words: list[str]) -> int:
    args = parser().parse(words)
    folder = results.absolute(args.folder, "init")
    if not os.path.isdir(folder):
        why = "it is not a folder" if os.path.exists(folder) else os.strerror(2)
        raise errors.UsageError(f"init {args.folder}: {why}", hint="name a folder; -o FILE says where to write")
    output = args.output or os.path.join(args.folder, _NAME)
    if output != "-":
        check(output, args)
    text = _text(args, folder, results.absolute(os.path.dirname(output) if output != "-" else ".", "init"))
    from guntainer.starter import writing

    problem = writing.problem(text)
    if problem:
        why = f"no job file can be made of what is here: {problem}"
        raise errors.UsageError(f"init {args.folder}: {why}", hint="guntainer batch --help says how to write one")
    if output == "-":
        show(text)
        return 0
    files.write_whole(output, text, replace=args.force)
    if not args.quiet:
        there = output if os.path.dirname(output) not in ("", ".") else os.path.basename(output)
        write(f"guntainer: {there}: written; next: guntainer batch{'' if there == _NAME else f' {there}'}\n")
    return 0


def check(output: str, args: argparse.Namespace) -> None:
    """Whether the file may be written, before anything is looked at.

    Raises:
        UsageError: it is there.
    """
    if os.path.lexists(output) and not args.force:
        raise errors.UsageError(
            f"init: {output} is there already", hint="-o FILE writes another one, --force replaces it"
        )
    folder = os.path.dirname(output) or "."
    if args.output is None and not args.force:
        there = next((name for name in _OTHERS if os.path.lexists(f"{folder}/{name}")), None)
        if there is not None:
            raise errors.UsageError(
                f"init: {os.path.join(folder, there)} is there already", hint="-o FILE writes another one"
            )


def _text(args: argparse.Namespace, folder: str, home: str) -> str:
    inside = os.path.relpath(folder, home)
    if args.from_github is None:
        from guntainer.starter import archives, project, writing

        found = project.look(folder)
        for note in found.notes:
            complain(note, "warning")
        return writing.text(writing.Folder(project=found, rootfs=archives.look(folder), inside=inside))
    from guntainer.starter import github

    converted = github.convert(_workflow(args.from_github), name=args.from_github, inside=inside)
    for warning in converted.warnings:
        complain(warning, "warning")
    return converted.text


def _workflow(path: str) -> bytes:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                number = errno.EISDIR if stat.S_ISDIR(mode) else 0
                raise OSError(number, os.strerror(number) if number else "it is not a file")
            with open(fd, "rb", closefd=False) as file:
                return file.read(_MOST_BYTES + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise errors.UsageError(
            f"--from-github {path}: {error.strerror}", hint="expected a workflow such as .github/workflows/ci.yml"
        ) from None
