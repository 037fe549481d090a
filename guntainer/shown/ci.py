"""What CI systems read between the lines: blocks, annotations, and how a job's text is kept from being taken for either.

GitHub: workflow commands, `::name property=value::text` at the beginning of a line; Gitea and Forgejo read the same.
GitLab: sections, escape sequences with an id and a time. Azure and TeamCity: only kept from being commanded. Pure.
"""

from __future__ import annotations

import os
import re

from guntainer.report_text import visible
from guntainer.shown.taming import Tamer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from guntainer.report import Result

    Places = Mapping[str, tuple[str, int]]

# as in taming, within our own sentences: names of jobs come from a file, and reasons from anywhere
_COMMANDS = re.compile(r"##(?=(?:vso|teamcity)?\[)")
_FIRST = re.compile(r"(?m)^([ \t]*)::")


class Ci:
    """The CI system that reads us, if one does.

    Args:
        places: by a job's key, the file and the line (0: not known) where it is written.
    """

    def __init__(self, env: Mapping[str, str], places: Places | None = None) -> None:
        self.github = env.get("GITHUB_ACTIONS") == "true"
        self.gitlab = env.get("GITLAB_CI") == "true"
        self.reads = self.github or self.gitlab or bool(env.get("TF_BUILD") or env.get("TEAMCITY_VERSION"))
        """Somebody does who could be commanded."""
        self._root = env.get("GITHUB_WORKSPACE", "")
        self._places = places or {}
        self._section = ""

    def within(self, text: str) -> str:
        """A line of our own with names and reasons in it, which command nobody: it begins with words of ours."""
        return _COMMANDS.sub("## ", text) if self.reads else text

    def harmless(self, text: str) -> str:
        """Lines that may begin with anybody's names."""
        return _FIRST.sub(r"\1: :", self.within(text)) if self.github else self.within(text)

    def begin(self, result: Result, title: str) -> str:
        """What begins a block; "" where there are none."""
        if self.github:
            return f"::group::{_value(title)}\n"
        if self.gitlab:
            self._section = f"job_{os.urandom(4).hex()}"
            folded = "false" if result.bad else "true"
            start = f"section_start:{int(result.started_at)}:{self._section}[collapsed={folded}]"
            return f"\x1b[0K{start}\r\x1b[0K{title}\n"
        return ""

    def end(self, result: Result) -> str:
        """What ends it."""
        if self.github:
            return "::endgroup::\n"
        if self.gitlab:
            ended = int(result.started_at + result.wall_ns / 1e9)
            return f"\x1b[0Ksection_end:{ended}:{self._section}\r\x1b[0K\n"
        return ""

    def annotation(self, result: Result, text: str) -> str:
        """A job that failed, at its place in the job file; a warning where it may, a notice where it was flaky."""
        kind = "error" if result.bad else "warning" if result.allowed else "notice" if result.outcome == "flaky" else ""
        if not self.github or not kind or result.outcome == "cancelled":
            return ""
        properties = [f"title={_property(result.id)}"]
        file, line = self._places.get(result.key) or ("", 0)
        if file:
            properties = [
                f"file={_property(self._relative(file))}",
                *([f"line={line}"] if line > 0 else []),
                *properties,
            ]
        return f"::{kind} {','.join(properties)}::{_value(visible(text))}\n"

    def _relative(self, path: str) -> str:
        """GitHub finds a file by its path in the repository."""
        whole = os.path.abspath(path)
        root = self._root.rstrip("/")
        return whole[len(root) + 1 :] if root and whole.startswith(root + "/") else path

    def shielded(self, text: Iterator[bytes], *, tame: bool) -> Iterator[bytes]:
        """A job's text, so that it can not command what shows our output; it ends with a line break."""
        tamer = Tamer() if tame else None
        token = b"::" + os.urandom(16).hex().encode() if self.github else b""
        last = b""
        for data in text:
            if not data:
                continue  # of a text without any there is nothing to be said, nor anything to be switched on again
            if token and not last:
                yield b"::stop-commands" + token + b"\n"
            last = data
            yield tamer.feed(data) if tamer is not None else data
        if not last:
            return
        if tamer is not None:
            yield tamer.end()
        if not last.endswith(b"\n"):
            yield b"\n"
        if token:
            yield token + b"::\n"


def _value(text: str) -> str:
    """The text of a workflow command: percent and line breaks are escaped there."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """A property of a workflow command: colons and commas as well."""
    return _value(visible(text)).replace(":", "%3A").replace(",", "%2C")
