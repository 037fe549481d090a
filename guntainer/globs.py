"""Patterns of paths: `dist/*.whl`, `/var/log/**`, `!*.tmp`. Pure.

`*` and `?` stay in one folder, `**` is any number of folders; a folder that matches stands for all that is in it, as in GitHub's
upload-artifact. Paths have no `/` at their ends.
"""

from __future__ import annotations

import re

_MAGIC = re.compile(r"[*?\[]")
_ANY_FOLDERS = "**"
EXCEPT = "!"


class Pattern:
    """One pattern.

    Args:
        text: as the job file has it.
        cwd: the folder that it is seen from, where it is not absolute.
    """

    def __init__(self, text: str, cwd: str) -> None:
        self.text = text
        self.excludes = text.startswith(EXCEPT)
        text = text.removeprefix(EXCEPT)
        whole = text if text.startswith("/") else f"{cwd}/{text}"
        parts: list[str] = []
        for part in whole.split("/"):
            if part not in ("", ".") and [part] != parts[-1:] * (part == _ANY_FOLDERS):
                parts.append(part)
        literal = next((n for n, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
        self.base = "/".join(parts[:literal])
        """The folder, or the file, that all that matches is in or is."""
        self._depth = len(parts)
        self._deep = _ANY_FOLDERS in parts
        self._regex = re.compile(_regex(parts), re.DOTALL)

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def matches(self, path: str) -> bool:
        """Whether it means a path, or a folder that this is in."""
        return self._regex.fullmatch(path) is not None

    def may_match_below(self, folder: str) -> bool:
        """Whether there is any use in looking into a folder."""
        return self._deep or (folder.count("/") + 1 if folder else 0) < self._depth or self.matches(folder)


def _regex(parts: list[str]) -> str:
    text = ""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part != _ANY_FOLDERS:
            text += _component(part) + ("" if last else "/")
        else:
            text += ".+" if last else "(?:.+/)?"
    return f"{text}(?:/.*)?" if text else ".*"


def _component(part: str) -> str:
    text, at = "", 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            text += "" if text.endswith("[^/]*") else "[^/]*"
        elif char == "?":
            text += "[^/]"
        elif char == "[" and (end := part.find("]", at + 1 + part.startswith("!", at))) > 0:
            text += _class(part[at:end])
            at = end + 1
        else:
            text += re.escape(char)
    return text


def _class(inner: str) -> str:
    """`[a-c]`, `[!a]`: of one character that is no slash."""
    negated = inner.startswith(("!", "^"))
    chars = inner[negated:]
    found = ""
    while chars:
        if len(chars) > 2 and chars[1] == "-":
            low, high = sorted((chars[0], chars[2]))
            found += f"{re.escape(low)}-{re.escape(high)}"
            chars = chars[3:]
        else:
            found += re.escape(chars[0])
            chars = chars[1:]
    return f"(?!/)[{'^' if negated else ''}{found}]"
