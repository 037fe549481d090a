"""`guntainer pack -o FILE PROGRAM…`: a small rootfs archive from programs of this machine."""

from __future__ import annotations

from guntainer.cli import write
from guntainer.cli.parsing import Parser


def parser() -> Parser:
    p = Parser(
        prog="guntainer pack",
        description="Make a small rootfs archive from programs of this machine and the libraries that they need.",
        epilog="The suffix of FILE says which kind: .tar, .tar.gz, .tar.xz, .tar.zst, .zip, .cpio, .7z and more.",
    )
    p.add_argument("-o", "--output", required=True, metavar="FILE", help="the archive to write")
    p.add_argument("--include", action="append", default=[], metavar="PATH", help="add a file or a folder as it is")
    p.add_argument("--no-shell", action="store_true", help="do not add /bin/sh")
    p.add_argument("-q", "--quiet", action="store_true", help="say nothing")
    p.add_argument("--debug", action="store_true", help="tracebacks")
    p.add_argument("programs", nargs="*", metavar="PROGRAM", help="a name in PATH, or a path")
    return p


def main(words: list[str]) -> int:
    p = parser()
    args = p.parse(words)
    if not args.programs and args.no_shell:
        p.error("expected at least one PROGRAM")
    from guntainer.pack import pack

    packed = pack(args.programs, args.output, include=args.include, shell=not args.no_shell)
    if not args.quiet:
        write(f"guntainer: {packed.path}: {packed.files} entries, {packed.size_bytes / 1e6:.1f} MB\n")
    return 0
