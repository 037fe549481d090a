"""`guntainer pull SOURCE…`: have sources in the store before they are needed; `guntainer store import` is the same."""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.cli import show, write
from guntainer.cli.parsing import Parser
from guntainer.jobs.model import USERNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from guntainer.jobs.model import Source


def parser() -> Parser:
    p = Parser(
        prog="guntainer pull",
        description="Fetch, or read, what `run` takes as ROOTFS, unpack it into the store and print its digest."
        " What is elsewhere is asked for again, whatever is in the store.",
    )
    p.add_argument("sources", nargs="+", metavar="SOURCE", help="docker://…, https://…, an archive, an image")
    p.add_argument("--platform", metavar="OS/ARCH", help="of an image for several (default: this machine's)")
    p.add_argument("--sha256", metavar="HEX", help="refuse anything with another digest")
    p.add_argument("--max-unpacked", metavar="SIZE", help="refuse what unpacks to more (default: 64g)")
    p.add_argument("--max-entries", metavar="N", help="refuse what holds more files (default: 4000000)")
    p.add_argument("--userns", choices=USERNS, default="auto", help="for which ids (default: auto)")
    p.add_argument("--store", metavar="DIR", help="where unpacked archives are kept")
    p.add_argument("-q", "--quiet", action="store_true", help="print digests alone")
    p.add_argument("--debug", action="store_true", help="tracebacks")
    return p


def main(words: list[str]) -> int:
    from guntainer import idmap, opening
    from guntainer.store import acquire
    from guntainer.store.lookup import IMAGE, open_store

    args = parser().parse(words)
    if args.sha256 is not None and len(args.sources) > 1:
        raise errors.UsageError("--sha256 goes with one SOURCE")
    found = [_source(args, text) for text in args.sources]
    store = open_store(args.store, idmap.enter(idmap.open_ids(args.userns)))
    store.tidy()
    for source in found:
        opening.check(source)
        if opening.folder_of(source, store.path) is not None:
            raise errors.UsageError(f"{source.name} is a folder: it is run on as it is, and never kept")
        told = _Telling(source.name, shown=os.isatty(2) and not args.quiet)
        with acquire.acquire(store, source, progress=told.progress) as lease:
            what = "image" if lease.kind == IMAGE else "rootfs"
            for text in opening.not_as_packed(source.name, lease):
                write(f"guntainer: {text}\n")
            show(f"{lease.digest}\n" if args.quiet else f"{what} {lease.digest} {source.name}\n")
    return 0


def _source(args: argparse.Namespace, text: str) -> Source:
    from guntainer.cli.options import Options
    from guntainer.cli.run_job import source_of

    given = Options()
    given.__dict__.update(vars(args), pull="always")
    return source_of(given, text)


class _Telling:
    """How far it is, on one line of the terminal that is gone when it is over."""

    def __init__(self, name: str, *, shown: bool) -> None:
        self._name = name
        self._shown = shown

    def progress(self, done: int, total: int) -> None:
        if not self._shown:
            return
        if total and done < total:
            write(f"\r{self._name}: {done * 100 // total} %\x1b[K")
        else:
            write("\r\x1b[K")
