"""Which entries a user means: by the beginning of a digest, by a source or a reference as `store ls` shows it."""

from __future__ import annotations

import os

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from guntainer.store.entries import Entry

_HEX = frozenset("0123456789abcdef")
_DIGITS = 64
_MOST_SHOWN = 5


def choose(found: Iterable[Entry], name: str) -> list[Entry]:
    """The entries that `name` stands for: several where one thing was unpacked for several maps of ids.

    Raises:
        UsageError: there is none, or it could be this or that.
    """
    found = list(found)
    wanted = name.removeprefix("sha256:").lower()
    chosen = [entry for entry in found if name in entry.sources or os.path.abspath(name) in entry.sources]
    if not chosen and name and set(wanted) <= _HEX and len(wanted) <= _DIGITS:
        chosen = [entry for entry in found if entry.digest.startswith(wanted)]
    if not chosen:
        chosen = [entry for entry in found if name in map(readable, entry.references)]
    if not chosen:
        raise errors.UsageError(f"nothing in the store is called {name!r}", hint="see guntainer store ls --layers")
    meant = sorted({(entry.kind, entry.digest) for entry in chosen})
    if len(meant) > 1:
        shown = ", ".join(f"{kind}/{_enough(digest, found)}" for kind, digest in meant[:_MOST_SHOWN])
        more = f" and {len(meant) - _MOST_SHOWN} more" if len(meant) > _MOST_SHOWN else ""
        raise errors.UsageError(f"{name!r} could be any of {shown}{more}", hint="give more of the digest")
    return chosen


def _enough(digest: str, found: list[Entry]) -> str:
    """As much of a digest as tells it apart, and at least a dozen digits."""
    others = {entry.digest for entry in found} - {digest}
    return next((digest[:n] for n in range(12, _DIGITS) if not any(o.startswith(digest[:n]) for o in others)), digest)


def readable(link: str) -> str:
    """`refs/<quoted>` as it was before its name was quoted; the name of any other link as it is."""
    from urllib.parse import unquote

    folder, _, name = link.partition("/")
    return unquote(name) if folder == "refs" else name
