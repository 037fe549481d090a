"""Patterns of paths: `dist/*.whl`, `/var/log/**`, `!*.tmp`. Pure.

`*` and `?` stay in one folder, `**` is any number of folders; a folder that matches stands for all that is in it, as in GitHub's
upload-artifact. Paths have no `/` at their ends.

Names come from containers, so whatever they are, a match takes no more steps than their length times the pattern's.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = re.compile(r"[*?\[]")
_ANY_FOLDERS = "**"
_BEGIN, _BEGIN_OF_NEXT, _END = "(?<![^/])", "(?<=/)", "(?![^/])"  # of a name
EXCEPT = "!"


class Pattern:
    """One pattern.

    Args:
        text: as the job file has it.
        cwd: the folder that it is seen from, where it is not absolute; nothing in its name means anything.
    """

    def __init__(self, text: str, cwd: str) -> None:
        self.text = text
        self.excludes = text.startswith(EXCEPT)
        text = text.removeprefix(EXCEPT)
        above = [] if text.startswith("/") else [part for part in cwd.split("/") if part not in ("", ".")]
        parts: list[str] = []
        for part in text.split("/"):
            if part not in ("", ".") and [part] != parts[-1:] * (part == _ANY_FOLDERS):
                parts.append(part)
        literal = next((n for n, part in enumerate(parts) if _MAGIC.search(part)), len(parts))
        self.base = "/".join([*above, *parts[:literal]])
        """The folder, or the file, that all that matches is in or is."""
        self._depth = len(above) + len(parts)
        self._deep = _ANY_FOLDERS in parts
        self._anywhere = not above and parts[:1] == [_ANY_FOLDERS]
        self._runs = list(_runs([*map(re.escape, above)], parts))

    def __repr__(self) -> str:
        return f"Pattern({self.text!r})"

    def matches(self, path: str) -> bool:
        """Whether it means a path, or a folder that this is in."""
        at, anywhere = 0, self._anywhere
        for run in self._runs:
            # The first place that fits is as good as any later one: what comes after the last run may be anything.
            found = run.search(path, at) if anywhere else run.match(path)
            if found is None:
                return False
            at, anywhere = found.end(), True
        return True

    def may_match_below(self, folder: str) -> bool:
        """Whether there is any use in looking into a folder."""
        return self._deep or (folder.count("/") + 1 if folder else 0) < self._depth or self.matches(folder)


def _runs(above: list[str], parts: list[str]) -> Iterator[re.Pattern[str]]:
    """What stands before, between and after the `**`: an expression each, of whole names.

    Args:
        above: expressions of the names that come first.
    """
    begin, run = _BEGIN, [*above]
    for part in [*parts, _ANY_FOLDERS]:
        if part != _ANY_FOLDERS:
            run.append(_component(part))
        elif run:
            yield re.compile(f"{begin}{'/'.join(run)}{_END}")
            begin, run = _BEGIN_OF_NEXT, []
    if parts[-1:] == [_ANY_FOLDERS]:
        yield re.compile(f"{begin}[^/]")


def _component(part: str) -> str:
    """Of one name. What stands between two `*` is looked for once: again, the first place is as good as any."""
    pieces, at = [""], 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            if pieces[-1] or len(pieces) == 1:
                pieces.append("")
        elif char == "?":
            pieces[-1] += "[^/]"
        elif char == "[" and (end := part.find("]", at + 1 + part.startswith("!", at))) > 0:
            pieces[-1] += _class(part[at:end])
            at = end + 1
        else:
            pieces[-1] += re.escape(char)
    if len(pieces) == 1:
        return pieces[0]
    return pieces[0] + "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1]) + "[^/]*" + pieces[-1]


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
