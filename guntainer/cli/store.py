"""`guntainer store`: what is kept of the archives and images that were run, and making room there."""

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
    from collections.abc import Sequence
    from typing import Any

    from guntainer.store.entries import Entry

VERBS = {
    "ls": "list what is kept",
    "du": "tell what it takes of the disk",
    "prune": "remove what is not in use; without options: what was never finished, layers of no image",
    "rm": "remove what is named",
    "path": "print the folders of a source, uppermost first, unpacking it if need be",
    "export": "write what is kept as an archive",
    "import": "the same as guntainer pull",
    "verify": "look whether all is as it was when it was unpacked",
}
_NAME = "the beginning of a digest, or a source, as `ls` shows them"


def parser() -> Parser:
    from guntainer.cli import pull

    p = Parser(
        prog="guntainer store", description="List, measure, check and remove what is kept of archives and images."
    )
    p.add_argument("--debug", action="store_true", help="tracebacks")
    verbs = p.add_subparsers(dest="verb", metavar="|".join(VERBS), parser_class=Parser)
    of: dict[str, Parser] = {}
    for name, what in VERBS.items():
        above = [pull.parser()] if name == "import" else []
        of[name] = verbs.add_parser(name, help=what, description=what, parents=above, add_help=not above)
        if not above:
            of[name].add_argument("--store", metavar="DIR", help="where unpacked archives are kept")
            of[name].add_argument("--debug", action="store_true", help="tracebacks")
    of["ls"].add_argument("--layers", action="store_true", help="and layers of images")
    for name in ("ls", "du"):
        of[name].add_argument("--json", action="store_true", help="for programs")
    _add_options(of)
    return p


def _add_options(of: dict[str, Parser]) -> None:
    prune = of["prune"]
    prune.add_argument("--older-than", metavar="TIME", help="and what was not used for this long (30d, 12h)")
    prune.add_argument(
        "--keep-size", metavar="SIZE", help="and the longest unused, until what is left is not larger (10g)"
    )
    prune.add_argument("--all", action="store_true", help="and everything else")
    prune.add_argument("--dry-run", action="store_true", help="tell what would go, and remove nothing")
    of["rm"].add_argument("names", nargs="+", metavar="NAME", help=_NAME)
    of["path"].add_argument("archive", metavar="SOURCE", help="what `run` takes as ROOTFS")
    of["path"].add_argument("--userns", choices=USERNS, default="auto", help="for which ids (default: auto)")
    of["export"].add_argument("name", metavar="NAME", help=f"{_NAME}; or anything that `run` takes as ROOTFS")
    of["export"].add_argument(
        "-o", "--output", metavar="FILE", default="-", help="OUT.tar[.gz|.bz2|.xz|.zst|.lz4] (default: a tar to stdout)"
    )
    of["export"].add_argument("--userns", choices=USERNS, default="auto", help="of which ids (default: auto)")
    of["verify"].add_argument("names", nargs="*", metavar="NAME", help=f"{_NAME} (default: all)")
    of["verify"].add_argument(
        "--repair", action="store_true", help="remove what is damaged: the next use unpacks again"
    )


def main(words: list[str]) -> int:
    if words[:1] == ["import"]:
        from guntainer.cli import pull

        return pull.main(words[1:])
    p = parser()
    args = p.parse(words)
    if args.verb is None:
        p.error(f"expected one of {', '.join(VERBS)}")
    from guntainer.cli import store_reading

    how = {
        "ls": _ls,
        "prune": _prune,
        "rm": _rm,
        "path": _path,
        "du": store_reading.du,
        "verify": store_reading.verify,
        "export": store_reading.export,
    }
    return how[args.verb](args)


def _ls(args: argparse.Namespace) -> int:
    from guntainer.store import entries
    from guntainer.store.lookup import CACHE, KINDS, open_store

    found = entries.entries(open_store(args.store), KINDS if args.layers else entries.USED)
    if args.json:
        import json

        show(json.dumps({"entries": [facts(entry) for entry in found]}, indent=2) + "\n")
        return 0
    rows = [("KIND", "DIGEST", "IDS", "SIZE", "LAST USED", "SOURCE")]
    for entry in found:
        used = f"{ago(time.time() - entry.used_at)} ago" + (" (in use)" if entry.in_use else "")
        state = "" if entry.whole else " (not whole)"
        taken = "-" if entry.kind == CACHE else size(entry.size_bytes)  # see `du`
        rows.append((kind(entry) + state, entry.digest[:12], ids(entry), taken, used, source(entry)))
    table(rows)
    return 0


def facts(entry: Entry) -> dict[str, Any]:
    """An entry for programs."""
    from guntainer.store.choosing import readable

    return {
        "kind": kind(entry),
        "digest": entry.digest,
        "ids": ids(entry),
        "map": entry.ids,
        "path": entry.place,
        "size_bytes": entry.size_bytes,
        "used_at": entry.used_at,
        "in_use": entry.in_use,
        "whole": entry.whole,
        "sealed": bool(entry.seal),
        "sources": list(entry.sources),
        "references": [readable(link) for link in entry.references if link.startswith("refs/")],
        "layers": [name.partition(".")[0] for name in entry.layers],
    }


def kind(entry: Entry) -> str:
    """Its kind, in the singular: rootfs, image, layer, build, folder."""
    return entry.kind if entry.kind == "rootfs" else entry.kind.removesuffix("s")


def ids(entry: Entry) -> str:
    """`single` or `range`."""
    return entry.ids.partition(":")[0]


def source(entry: Entry) -> str:
    """What it comes from, on one line whatever is in it."""
    text = ", ".join(entry.sources) or "-"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def table(rows: Sequence[tuple[str, ...]]) -> None:
    """Columns, each as wide as it must be, to stdout."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    text = [
        "  ".join([*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    show("".join(f"{line.rstrip()}\n" for line in text))


def _prune(args: argparse.Namespace) -> int:
    from guntainer.jobs import values
    from guntainer.store import entries, prune
    from guntainer.store.lookup import open_store

    older = _value("--older-than", values.parse_duration, args.older_than)
    keep = _value("--keep-size", values.parse_size, args.keep_size)
    if keep is not None:
        from guntainer import idmap

        idmap.enter(idmap.open_ids())  # what it takes is measured, also where sub-ids own it
    removed = prune.prune(
        open_store(args.store), older_than_s=older, keep_bytes=keep, everything=args.all, dry=args.dry_run
    )
    for entry in removed:
        what = "would remove" if args.dry_run else "removed"
        show(f"{what} {kind(entry)} {entry.digest[:12]} {size(entry.size_bytes)}\n")
    freed = size(entries.total(removed))
    count = len(removed)
    write(f"would remove {count}, and free {freed}\n" if args.dry_run else f"{count} removed, {freed} freed\n")
    return 0


def _value(option: str, parse: Any, text: str | None) -> Any:
    try:
        return parse(text) if text is not None else None
    except errors.UsageError as error:
        raise errors.UsageError(f"{option}: {error.message}") from None


def _rm(args: argparse.Namespace) -> int:
    from guntainer.store import choosing, prune
    from guntainer.store.entries import all_entries
    from guntainer.store.lookup import LAYER, open_store

    store = open_store(args.store)
    found = all_entries(store)
    chosen = list(dict.fromkeys(entry for name in args.names for entry in choosing.choose(found, name)))
    # all or nothing, as far as can be seen now
    for entry in chosen:
        if entry.kind == LAYER and not {image.name for image in chosen} >= set(entry.images):
            raise _stays(entry, f"an image is made of it ({entry.images[0][:12]})", "remove that")
        if entry.in_use:
            raise _stays(entry, "in use", "it can be removed when nobody runs on it any more")
    stay = prune.take_out(store, sorted(chosen, key=lambda entry: entry.kind == LAYER))
    for entry in stay:
        if os.path.exists(f"{store.path}/{entry.place}/meta"):
            raise _stays(entry, "in use", "it can be removed when nobody runs on it any more")
    for entry in chosen:
        show(f"removed {kind(entry)} {entry.digest[:12]} {size(entry.size_bytes)}\n")
    return 0


def _stays(entry: Entry, why: str, hint: str) -> errors.StoreError:
    return errors.StoreError(f"{kind(entry)} {entry.digest[:12]} is not removed: {why}", hint=hint)


def _path(args: argparse.Namespace) -> int:
    from guntainer import idmap, opening
    from guntainer.jobs import sources
    from guntainer.store import acquire
    from guntainer.store.lookup import open_store

    source = sources.parse(args.archive, os.getcwd())
    opening.check(source)
    store = open_store(args.store, idmap.open_ids(args.userns))
    if opening.folder_of(source, store.path) is not None:
        raise errors.UsageError(f"{args.archive} is a folder: it is run on as it is, and never kept")
    with acquire.acquire(store, source) as lease:
        show("".join(f"{os.path.realpath(folder)}\n" for folder in lease.rootfs.folders))
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
