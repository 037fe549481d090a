"""JSON from whoever made an image: bounded in size and depth, and every value looked at before it is believed.

Each reader takes a table, a key, and `where`: what the message begins with, the file and the place in it.
"""

from __future__ import annotations

from guntainer import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Table = dict[str, Any]

MOST_BYTES = 4 << 20
"""Of one document: what registries let a manifest have, distribution spec, "Pushing Manifests"."""
_KINDS = {dict: "a table", list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number"}
_MOST_NUMBER = 1 << 62
_DIGITS = 64
_HEX = frozenset("0123456789abcdef")


def kind(value: object) -> str:
    """What a value is, for a message."""
    return "null" if value is None else _KINDS.get(type(value), "something else")


def shown(text: str) -> str:
    """A text of a document for a message: on one line, and not longer than that."""
    cut = text if len(text) <= 100 else text[:99] + "…"
    return "'" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in cut) + "'"


def bad(where: str, why: str, *, hint: str = "") -> errors.RootfsError:
    return errors.RootfsError(f"{where}: {why}", hint=hint)


def _unique(pairs: list[tuple[str, Any]]) -> Table:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def parse(data: bytes, where: str) -> Any:
    """A whole document.

    Raises:
        RootfsError: it is too large, or no JSON.
    """
    import json

    if len(data) > MOST_BYTES:
        raise bad(where, f"larger than {MOST_BYTES >> 20} MiB")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_no_number)
    except UnicodeDecodeError:
        why = "not UTF-8"
    except json.JSONDecodeError as error:
        why = f"line {error.lineno}: {error.msg}"
    except RecursionError:
        why = "nested too deeply"
    except ValueError as error:
        why = str(error)
    raise bad(where, f"no valid JSON ({why})")


def table(value: object, where: str) -> Table:
    """`value`, when it is a table."""
    if not isinstance(value, dict):
        raise bad(where, f"expected a table, got {kind(value)}")
    return value


def _get(values: Table, key: str, cls: type, expected: str, where: str) -> Any:
    value = values.get(key)
    if value is None or (type(value) is cls):
        return value
    raise bad(where, f"{key}: expected {expected}, got {kind(value)}")


def text(values: Table, key: str, where: str, default: str | None = None) -> str:
    """A text that can be a path or an argument; `default` where there is none, which is wrong where that is None."""
    found: str | None = _get(values, key, str, "a text", where)
    if found is None:
        if default is None:
            raise bad(where, f"{key} is missing")
        return default
    return checked(found, f"{where}: {key}")


def checked(found: str, where: str) -> str:
    """`found`, when the kernel can take it."""
    from guntainer.jobs import values

    try:
        return values.check_text(found)
    except errors.UsageError as error:
        raise bad(where, error.message) from None


def number(values: Table, key: str, where: str) -> int:
    """A whole number from 0 on."""
    found: int | None = _get(values, key, int, "a whole number", where)
    if found is None:
        raise bad(where, f"{key} is missing")
    if not 0 <= found <= _MOST_NUMBER:
        raise bad(where, f"{key}: expected a number from 0 to 2^62")
    return found


def tables(values: Table, key: str, where: str, most: int) -> list[Table]:
    """A list of at most `most` tables; [] where there is none."""
    found: list[Any] = _get(values, key, list, "a list", where) or []
    if len(found) > most:
        raise bad(where, f"{key}: {len(found)} are more than {most}")
    return [table(one, f"{where}: {key}[{place}]") for place, one in enumerate(found)]


def texts(values: Table, key: str, where: str) -> tuple[str, ...]:
    """A list of texts; () where there is none. A single text is a list of one, as old images have it."""
    value = values.get(key)
    found = [value] if isinstance(value, str) and value else _get(values, key, list, "a list", where) or []
    for one in found:
        if not isinstance(one, str):
            raise bad(where, f"{key}: expected a list of texts, got {kind(one)} in it")
    return tuple(checked(one, f"{where}: {key}") for one in found)


def names(values: Table, key: str, where: str) -> tuple[str, ...]:
    """The keys of a table, sorted: a set, as Go's JSON has it."""
    found: Table = _get(values, key, dict, "a table", where) or {}
    return tuple(sorted(checked(one, f"{where}: {key}") for one in found))


def pairs(values: Table, key: str, where: str) -> tuple[tuple[str, str], ...]:
    """A table of texts as pairs, sorted."""
    found: Table = _get(values, key, dict, "a table", where) or {}
    return tuple((name, text(found, name, f"{where}: {key}", "")) for name in sorted(found))


def digest_of(text: str, where: str) -> str:
    """The 64 hex digits of `sha256:…`.

    Raises:
        RootfsError: it is anything else: a digest becomes part of a path.
    """
    algorithm, colon, digits = text.partition(":")
    if colon and algorithm in ("sha512", "sha384", "blake3"):
        raise bad(where, f"digest {shown(text)}: {algorithm} is not supported, only sha256")
    if algorithm != "sha256" or len(digits) != _DIGITS or not set(digits) <= _HEX:
        raise bad(where, f"digest {shown(text)}: expected sha256: and {_DIGITS} hexadecimal digits")
    return digits
