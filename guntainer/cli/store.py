"""`guntainer store ls | prune | path`: what is kept of the archives that were run."""

from __future__ import annotations

import os
import time

from guntainer import errors
from guntainer.cli import show, write
from guntainer.cli.parsing import Parser
from guntainer.jobs.model import USERNS

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def parser() -> Parser:
    p = Parser(prog="guntainer store", description="List, prune and look up unpacked rootfs.")
    p.add_argument("--debug", action="store_true", help="tracebacks")
    verbs = p.add_subparsers(dest="verb", metavar="ls|prune|path", parser_class=Parser)
    ls = verbs.add_parser("ls", help="list what is kept")
    prune = verbs.add_parser("prune", help="remove what is not in use; without options: what was never finished")
    prune.add_argument("--older-than", metavar="TIME", help="and what was not used for this long (30d, 12h)")
    prune.add_argument("--all", action="store_true", help="and everything else")
    path = verbs.add_parser("path", help="print the folder of an archive, unpacking it if need be")
    path.add_argument("archive", metavar="ARCHIVE")
    path.add_argument("--userns", choices=USERNS, default="auto", help="for which ids (default: auto)")
    for verb in (ls, prune, path):
        verb.add_argument("--store", metavar="DIR", help="where unpacked archives are kept")
        verb.add_argument("--debug", action="store_true", help="tracebacks")
    return p


def main(words: list[str]) -> int:
    p = parser()
    args = p.parse(words)
    if args.verb is None:
        p.error("expected one of ls, prune, path")
    return {"ls": _ls, "prune": _prune, "path": _path}[args.verb](args)


def _ls(args: argparse.Namespace) -> int:
    from guntainer.store import prune
    from guntainer.store.lookup import open_store

    rows = [("DIGEST", "IDS", "SIZE", "LAST USED", "SOURCE")]
    for entry in prune.entries(open_store(args.store)):
        used = f"{ago(time.time() - entry.used_at)} ago" + (" (in use)" if entry.in_use else "")
        ids = entry.ids.partition(":")[0]
        rows.append((entry.digest[:12], ids, size(entry.size_bytes), used, ", ".join(entry.sources) or "-"))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        show("  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[4]]) + "\n")
    return 0


def _prune(args: argparse.Namespace) -> int:
    from guntainer.jobs import values
    from guntainer.store import prune
    from guntainer.store.lookup import open_store

    try:
        older = values.parse_duration(args.older_than) if args.older_than is not None else None
    except errors.UsageError as error:
        raise errors.UsageError(f"--older-than: {error.message}") from None
    removed = prune.prune(open_store(args.store), older_than_s=older, everything=args.all)
    for entry in removed:
        show(f"removed {entry.digest[:12]} {size(entry.size_bytes)}\n")
    write(f"{len(removed)} removed, {size(sum(entry.size_bytes for entry in removed))} freed\n")
    return 0


def _path(args: argparse.Namespace) -> int:
    from guntainer import idmap, opening
    from guntainer.store import fill
    from guntainer.store.lookup import open_store

    if opening.kind_of(args.archive, args.archive) == "folder":
        raise errors.UsageError(f"{args.archive} is a folder: it is run on as it is, and never kept")
    store = open_store(args.store, idmap.open_ids(args.userns))
    archive = os.path.abspath(args.archive)
    lease = store.find(archive) or fill.lease(store, archive)
    show(lease.tree + "\n")
    lease.release()
    return 0


def size(count: float) -> str:
    """Bytes for people: 7.4 MiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def ago(seconds: float) -> str:
    """A duration in its largest unit: 3 h."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"
