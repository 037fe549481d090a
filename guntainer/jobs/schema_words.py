"""The words that the schema of a job file is made of: JSON Schema, draft 2020-12. Pure.

Patterns are those of ECMA-262, as the standard has it; they are not anchored unless they say so. In a job `${{ … }}` may stand
for any value, so that a number, or true and false, may be a text as well.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Schema = dict[str, Any]

EXPRESSION = r"\$\{\{"
_NUMBER = r"(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
SIZE = rf"^\s*{_NUMBER}\s*(?:[bB]|[kKmMgGtT](?:[iI]?[bB])?)?\s*$"
DURATION = (
    rf"^\s*{_NUMBER}\s*$"
    rf"|^(?=.*[0-9])\s*(?:{_NUMBER}\s*[dD]\s*)?(?:{_NUMBER}\s*[hH]\s*)?(?:{_NUMBER}\s*[mM]\s*)?(?:{_NUMBER}\s*[sS]\s*)?"
    rf"(?:{_NUMBER}\s*[mM][sS])?\s*$"
)
PORT = rf"^(?:(?:[0-9.]*:)?[0-9-]*:)?[0-9]+(?:-[0-9]+)?(?:/(?:tcp|udp|TCP|UDP))?$|{EXPRESSION}"
WHOLE = rf"^\s*-?[0-9]+\s*$|{EXPRESSION}"
EXPRESSIONS: Schema = {"type": "string", "pattern": EXPRESSION}
_LEAST_ONE = rf"^[0-9]*[1-9][0-9]*$|{EXPRESSION}"


def described(schema: Schema, text: str, *examples: object) -> Schema:
    """`schema` with what an editor shows of it."""
    found = {
        "description": text,
        **{key: value for key, value in schema.items() if key not in ("description", "examples")},
    }
    return {**found, "examples": list(examples)} if examples else found


def text(pattern: str = "", *, expression: bool = True) -> Schema:
    """A text that is not empty."""
    found: Schema = {"type": "string", "minLength": 1}
    return {**found, "pattern": f"{pattern}|{EXPRESSION}" if expression else pattern} if pattern else found


def choice(words: tuple[str, ...], *, expression: bool = True) -> Schema:
    """One of a few words."""
    known: Schema = {"enum": [word for word in words if word]}
    return {"anyOf": [known, EXPRESSIONS]} if expression else known


def flag() -> Schema:
    """True or false."""
    return {"type": ["boolean", "string"], "pattern": EXPRESSION}


def count(*, expression: bool = True) -> Schema:
    """A whole number from 1 on."""
    if not expression:
        return {"type": "integer", "minimum": 1}
    return {"type": ["integer", "string"], "minimum": 1, "pattern": EXPRESSION}


def number(pattern: str, *, expression: bool = True) -> Schema:
    """A number, or a text with a unit."""
    return {"type": ["string", "number"], "pattern": f"{pattern}|{EXPRESSION}" if expression else pattern}


def list_of(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def one_or_list(items: Schema) -> Schema:
    return {"anyOf": [items, list_of(items)]}


def with_expression(schema: Schema) -> Schema:
    """A value that may be an expression as well."""
    return {
        "anyOf": [{key: value for key, value in schema.items() if key not in ("description", "examples")}, EXPRESSIONS]
    }


def other_spellings(keys: dict[str, Schema]) -> dict[str, Schema]:
    """Patterns for keys of several words, which may have underscores between them."""
    return {f"^{re.sub('-', '[-_]', key)}$": without_texts(schema) for key, schema in keys.items() if "-" in key}


def without_texts(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key not in ("description", "examples")}


def table(keys: dict[str, Schema], *required: str) -> Schema:
    """A table with these keys, and no others."""
    found: Schema = {"type": "object", "properties": keys, "additionalProperties": False}
    spellings = other_spellings(keys)
    if spellings:
        found["patternProperties"] = spellings
    return {**found, "required": list(required)} if required else found
