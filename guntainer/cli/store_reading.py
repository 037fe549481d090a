"""`guntainer store du | verify | export`: what looks into trees, inside of the namespace in which they were unpacked."""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.cli import show, write
from guntainer.cli.store import facts, ids, kind, size, source, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from guntainer.idmap import Ids
    from guntainer.store.entries import Entry
    from guntainer.store.lookup import Lease, Store
    from guntainer.store.usage import Usage
    from guntainer.store.verify import Finding


def du(args: argparse.Namespace) -> int:
    from guntainer import idmap
    from guntainer.store import usage
    from guntainer.store.lookup import open_store

    store = open_store(args.store)
    idmap.enter(idmap.open_ids())
    found = usage.measure(store)
    if args.json:
        _as_json(store, found)
        return 0
    rows = [("KIND", "DIGEST", "IDS", "OWN", "SHARED", "SOURCE")]
    for use in found.uses:
        entry = use.entry
        if kind(entry) != "layer" or not entry.images:
            shared = size(use.shared_bytes) if entry.layers else "-"
            rows.append((kind(entry), entry.digest[:12], ids(entry), size(use.own_bytes), shared, source(entry)))
    layers = [use for use in found.uses if len(use.entry.images) > 1]
    if layers:
        text = f"{len(layers)} layers that several images share"
        rows.append(("layers", "-", "-", size(sum(use.own_bytes for use in layers)), "-", text))
    rows += [("other", "-", "-", size(taken), "-", name) for name, taken in found.other]
    rows.append(("total", "-", "-", size(found.total_bytes), "-", store.path))
    table(rows)
    if found.unread:
        write(f"guntainer: warning: {found.unread} folders could not be looked into\n")
    return 0


def _as_json(store: Store, found: Usage) -> None:
    import json

    uses = [
        {
            **facts(use.entry),
            "own_bytes": use.own_bytes,
            "shared_bytes": use.shared_bytes,
            "images": len(use.entry.images),
        }
        for use in found.uses
    ]
    told = {
        "store": store.path,
        "total_bytes": found.total_bytes,
        "entries": uses,
        "other": dict(found.other),
        "unread_folders": found.unread,
    }
    show(json.dumps(told, indent=2) + "\n")


def verify(args: argparse.Namespace) -> int:
    from guntainer.store import choosing, entries
    from guntainer.store import verify as verifying
    from guntainer.store.lookup import CACHE, open_store

    store = open_store(args.store)
    found = entries.all_entries(store)
    if not args.names:
        found = [entry for entry in found if entry.kind != CACHE]  # there is nothing to compare them with
    else:
        found = list(dict.fromkeys(entry for name in args.names for entry in choosing.choose(found, name)))
    findings = _findings(store, verifying.with_layers(store, found))
    for finding in findings:
        if finding.state != verifying.SOUND:
            entry = finding.entry
            show(f"{finding.state} {kind(entry)} {entry.digest[:12]} {source(entry)}: {finding.why}\n")
    count = dict.fromkeys((verifying.DAMAGED, verifying.UNSEALED, verifying.SKIPPED), 0)
    for finding in findings:
        if finding.state in count:
            count[finding.state] += 1
    told = ", ".join(f"{number} {state}" for state, number in count.items() if number or state == verifying.DAMAGED)
    write(f"{len(findings)} looked at, {told}\n")
    damaged = count[verifying.DAMAGED]
    if args.repair and damaged:
        stay = verifying.repair(store, findings)
        for finding in stay:
            write(f"guntainer: warning: {kind(finding.entry)} {finding.entry.digest[:12]} is in use: it stays\n")
        write("what was damaged is removed; the next use unpacks it again\n" if not stay else "")
        damaged = len(stay)
    return errors.FAILED if damaged else 0


def _findings(store: Store, chosen: list[Entry]) -> list[Finding]:
    """Look at each where its ids are what they were: first at those of a single id, from outside of every namespace."""
    from guntainer import idmap
    from guntainer.archive import seal
    from guntainer.store import verify as verifying
    from guntainer.store.lookup import BUILD, LAYER

    own = idmap.Ids()
    if any(entry.suffix for entry in chosen):
        own = idmap.open_ids()
    found: list[Finding] = []
    for suffix in sorted({entry.suffix for entry in chosen}):
        if suffix and suffix == own.key:
            own = idmap.enter(own)
        group = [entry for entry in chosen if entry.suffix == suffix]
        if suffix != own.key and suffix:
            why = f"it was unpacked for ids that are not yours now ({group[0].ids})"
            found += [verifying.Finding(entry=entry, state=verifying.SKIPPED, why=why) for entry in group]
            continue
        for entry in group:
            damaged = [one.entry.name for one in found if one.state == verifying.DAMAGED and one.entry.kind == LAYER]
            by = _seal_as_root if entry.kind == BUILD and not suffix else seal.seal
            found.append(verifying.look(store, entry, damaged, by))
    return found


def _seal_as_root(*folders: str) -> str:
    """As steps of a build with a single id are sealed: where that id is 0."""
    from guntainer import idmap
    from guntainer.archive import seal
    from guntainer.export import helper

    with helper.Helper(idmap.Ids(), lambda _fd: {"seal": seal.seal(*folders)}, folders[0]) as one:
        return str(one.finish()["seal"])


def export(args: argparse.Namespace) -> int:
    from guntainer import idmap
    from guntainer.export import names, saving
    from guntainer.store.lookup import open_store

    try:
        output = names.parse(args.output)
    except errors.UsageError as error:
        raise errors.UsageError(f"export: --output {error.message}", hint=error.hint) from None
    own = idmap.open_ids(args.userns)
    lease, own = _leased(args, own)
    with lease:
        point = f"{open_store(args.store).path}/mount"
        os.makedirs(point, 0o700, exist_ok=True)
        saved = saving.save(saving.read_rootfs(lease.rootfs, own, point, name=args.name), output)
    left_out = saved.left_out()
    if left_out:
        write(f"guntainer: warning: {left_out}\n")
    return 0


def _leased(args: argparse.Namespace, own: Ids) -> tuple[Lease, Ids]:
    """What NAME means: an entry, where there is one of that name, else what `run` would take it for."""
    from guntainer import idmap, opening
    from guntainer.jobs import sources
    from guntainer.store import acquire, choosing
    from guntainer.store.entries import all_entries
    from guntainer.store.lookup import CACHE, Store, open_store

    store = open_store(args.store, own)
    try:
        chosen = choosing.choose([entry for entry in all_entries(store) if entry.kind != CACHE], args.name)
    except errors.UsageError:
        if not os.path.exists(args.name) and ":" not in args.name:
            raise
        where = sources.parse(args.name, os.getcwd())
        opening.check(where)
        if opening.folder_of(where, store.path) is not None:
            raise errors.UsageError(f"{args.name} is a folder, and none of the store's") from None
        own = idmap.enter(own)
        return acquire.acquire(Store(store.path, own), where), own
    entry = next((entry for entry in chosen if entry.suffix == own.key), chosen[0])
    if entry.suffix != own.key:
        own = idmap.Ids() if not entry.suffix else own
        if entry.suffix != own.key:
            raise errors.StoreError(f"{kind(entry)} {entry.digest[:12]} was unpacked for other ids: {entry.ids}")
    own = idmap.enter(own)
    lease = Store(store.path, own).lease(entry.digest, entry.kind)
    if lease is None:
        raise errors.StoreError(f"{kind(entry)} {entry.digest[:12]} is not whole, or was removed meanwhile")
    return lease, own
