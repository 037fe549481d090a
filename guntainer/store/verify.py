"""Whether what is in the store is still as it was when it was unpacked; see `archive.seal` for what can be seen."""

from __future__ import annotations

import fcntl
import marshal
import os

from guntainer import errors
from guntainer.archive import seal
from guntainer.store import prune
from guntainer.store.entries import all_entries
from guntainer.store.lookup import CACHE, IMAGE, LAYER, read_meta
from guntainer.value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from guntainer.store.entries import Entry
    from guntainer.store.lookup import Store

DAMAGED, UNSEALED, SKIPPED, SOUND = "damaged", "not sealed", "skipped", "sound"


class Finding(Value):
    """What came of looking at an entry."""

    entry: Entry
    state: str = SOUND
    why: str = ""


def with_layers(store: Store, chosen: Iterable[Entry]) -> list[Entry]:
    """Entries, and the layers that they are made of: those first."""
    found = {entry.place: entry for entry in chosen}
    wanted = {name for entry in found.values() for name in entry.layers}
    for entry in all_entries(store):
        if entry.kind == LAYER and entry.name in wanted:
            found.setdefault(entry.place, entry)
    return sorted(found.values(), key=lambda entry: (entry.kind == IMAGE, -entry.used_at))


def look(
    store: Store, entry: Entry, damaged: Iterable[str] = (), seal_of: Callable[[str, str], str] = seal.seal
) -> Finding:
    """Look at one entry, in the namespace in which it was unpacked.

    Args:
        damaged: names of layers that are.
        seal_of: gives the seal of a tree and what lies beside it.
    """
    path = f"{store.path}/{entry.place}"
    if entry.kind == CACHE:
        return Finding(entry=entry, state=SKIPPED, why="jobs change it as they like")
    try:
        lock = os.open(f"{path}/lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if not os.path.isdir(path):
            return Finding(entry=entry, state=SKIPPED, why="it was removed meanwhile")
        return Finding(entry=entry, state=DAMAGED, why="its lock is missing")
    try:
        try:
            # held as by who runs on it: nobody removes it meanwhile, and its time of last use stays
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return Finding(entry=entry, state=SKIPPED, why="it is being removed")
        if not os.fstat(lock).st_nlink:
            return Finding(entry=entry, state=SKIPPED, why="it was removed meanwhile")
        return _look(path, entry, frozenset(damaged), seal_of)
    except OSError as error:
        return Finding(entry=entry, state=DAMAGED, why=errors.describe_oserror(error))
    finally:
        os.close(lock)


def _look(path: str, entry: Entry, damaged: frozenset[str], seal_of: Callable[[str, str], str]) -> Finding:
    if read_meta(path) is None:
        return Finding(entry=entry, state=DAMAGED, why="what is known of it is missing")
    if entry.kind == IMAGE:
        why = _wrong_with_image(path, entry, damaged)
        return Finding(entry=entry, state=DAMAGED if why else SOUND, why=why)
    if not os.path.isdir(f"{path}/tree"):
        return Finding(entry=entry, state=DAMAGED, why="its tree is missing")
    if not entry.seal:
        _record(path, seal_of(f"{path}/tree", f"{path}/opaque"))
        return Finding(entry=entry, state=UNSEALED, why="nothing was recorded when it was unpacked; now it is")
    if seal_of(f"{path}/tree", f"{path}/opaque") != entry.seal:
        return Finding(entry=entry, state=DAMAGED, why="it was changed since it was unpacked")
    return Finding(entry=entry)


def _record(path: str, found: str) -> None:
    """Seal an entry as it is now: the next look tells what has changed since. By one rename: others read its meta meanwhile."""
    made = f"{path}/meta.{os.getpid()}-{os.urandom(4).hex()}"
    with open(made, "wb") as file:
        file.write(marshal.dumps({**(read_meta(path) or {}), "seal": found}))
    os.rename(made, f"{path}/meta")


def _wrong_with_image(path: str, entry: Entry, damaged: frozenset[str]) -> str:
    """Its layers, and the links to their folders."""
    for name in entry.layers:
        if name in damaged:
            return f"its layer {name[:12]} is damaged"
        if read_meta(f"{path}/../../{LAYER}/{name}") is None:
            return f"its layer {name[:12]} is missing"
    meta = read_meta(path) or {}
    for number in range(int(meta.get("lowers", 0))):
        lower = f"{path}/lowers/{number}"
        own = number == 0 and not os.path.islink(lower)  # see `implied`, and an image without layers
        target = "" if own else os.readlink(lower)
        if not os.path.isdir(lower) or not (own or _is_layers(target, entry.layers)):
            return f"its link {number} leads to no layer of it"
    return ""


def _is_layers(target: str, layers: tuple[str, ...]) -> bool:
    head, _, last = target.rpartition("/")
    return last in ("tree", "opaque") and head in {f"../../../{LAYER}/{name}" for name in layers}


def repair(store: Store, findings: Iterable[Finding]) -> list[Finding]:
    """Remove what is damaged, and the images that are made of it: the next use unpacks again.

    Returns:
        findings of those that had to stay: in use.
    """
    damaged = [finding for finding in findings if finding.state == DAMAGED]
    layers = {finding.entry.name for finding in damaged if finding.entry.kind == LAYER}
    known = {finding.entry.place for finding in damaged}
    damaged += [
        Finding(entry=entry, state=DAMAGED, why="a layer of it is damaged")
        for entry in all_entries(store)
        if entry.kind == IMAGE and entry.place not in known and layers & set(entry.layers)
    ]
    # images first: a layer stays as long as one is made of it
    damaged.sort(key=lambda finding: finding.entry.kind != IMAGE)
    stay = [finding for finding in damaged if not prune.remove(store, finding.entry)]
    prune.tidy(store)
    return stay
