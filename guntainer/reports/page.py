"""The report page: one file of HTML that needs nothing else, neither a network nor a server.

    <style>, skeleton            assets/page.html and page.css
    <script type=text/plain>     logs: blocks of a mebibyte, deflated, base64
    <script type=application/json>  everything else, see `rows`
    <script>                     assets/*.js, one after the other

What jobs have printed and how they are named is in the two scripts that are no scripts: base64, and JSON in which none of the
characters that end a script or an entity stands. The page makes text nodes of it, and nothing else. Its content security
policy lets only our own script and style run, by their digests, and nothing be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
import zlib

from guntainer.reports import rows
from guntainer.reports.logs import MOST_BYTES, shares

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from guntainer.report import Report, Result
    from guntainer.reports.compare import Comparison
    from guntainer.reports.logs import Logs

    History = Mapping[str, Sequence[Mapping[str, Any]]]
    """Earlier runs of each job, by id, the oldest first: `wall_ns` and `outcome` of each."""

MOST_ALL = 28 << 20
"""Bytes of all logs together: as base64 that is what a browser opens without a wait."""
_BLOCK = 1 << 20
_ASSETS = os.path.join(os.path.dirname(__file__), "assets")
_SCRIPTS = ("base", "ansi", "logs", "grid", "timeline", "table", "panel", "search", "main")
_DARK = ':root[data-theme="dark"] {'
_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; img-src data:; base-uri 'none'; form-action 'none'"
)
_ENDS = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def embedded(value: object) -> str:
    """JSON that can stand in a script element: ASCII, without any of the characters that HTML looks for."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_ENDS)


def links_from(page: str, results_folder: str | None) -> str | None:
    """The results folder as a relative URL of the page, ending with /; None where it does not lie beside or below it."""
    if results_folder is None:
        return None
    beside = os.path.dirname(os.path.realpath(page))
    way = os.path.relpath(os.path.realpath(results_folder), beside)
    if way.split("/", 1)[0] == "..":
        return None
    from urllib.parse import quote

    return "./" if way == "." else f"./{quote(os.fsencode(way))}/"


def pieces(
    a_report: Report,
    logs: Logs,
    *,
    links: str | None = None,
    history: History | None = None,
    problems: tuple[str, ...] = (),
    comparison: Comparison | None = None,
) -> Iterator[bytes]:
    """The page, a part at a time: what it takes of memory is a block of logs and the table of jobs."""
    style = _style()
    script = "(() => {\n'use strict';\n" + "".join(_asset(f"{name}.js") for name in _SCRIPTS) + "})();\n"
    above, below = _asset("page.html").split("<!--content-->\n")
    title = a_report.name or a_report.file or "guntainer"
    policy = _POLICY.format(script=_digest(script), style=_digest(style))
    for name, text in (("policy", policy), ("title", title), ("summary", rows.summary(a_report))):
        above = above.replace(f"<!--{name}-->", html.escape(rows.shown(text)))
    yield above.replace("<!--style-->", style).encode("utf-8", "replace")
    packed = _Packed(a_report.results, logs)
    yield from packed.blocks()
    table = rows.table(a_report, links=links, problems=(*problems, *logs.problems))
    if comparison is not None:
        table["comparison"] = rows.of_comparison(comparison)
    yield f'<script type="application/json" id="facts">{embedded(table)[:-1]},"jobs":['.encode()
    between = b""
    for row in rows.jobs(a_report, logs, packed.places, links=links, history=history or {}):
        yield between + embedded(row).encode()
        between = b",\n"
    yield b"]}</script>\n"
    yield below.replace("<!--script-->", script).encode()


def _asset(name: str) -> str:
    with open(os.path.join(_ASSETS, name), encoding="utf-8") as file:
        return file.read()


def _style() -> str:
    """The dark colours stand in it twice: chosen, and asked for by the system before our script or without it."""
    text = _asset("page.css")
    dark = text[text.index(_DARK) + len(_DARK) :].partition("}")[0]
    return f"{text}@media screen and (prefers-color-scheme: dark) {{ :root:not([data-theme]) {{{dark}}} }}\n"


def _digest(text: str) -> str:
    """A source of a content security policy: CSP 3, §2.3.1."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


class _Packed:
    """All logs, within the budget, in blocks.

    `places` has, of each job, what `rows` tells the page: (stream, attempt, bytes of the whole, block, offset, bytes of the
    head, bytes of the tail, its name in the results folder).
    """

    def __init__(self, results: Sequence[Result], logs: Logs) -> None:
        self._results = results
        self._logs = logs
        self.places: list[list[tuple[str, int, int, int, int, int, int, str]]] = [[] for _ in results]

    def blocks(self) -> Iterator[bytes]:
        sizes = [self._logs.sizes(result, services=True) for result in self._results]
        wanted = [sum(size for _, _, size in of) for of in sizes]
        most = shares(wanted, [not result.ok for result in self._results], MOST_ALL, MOST_BYTES)
        block, number = bytearray(), 0
        for place, result in enumerate(self._results):
            streams = sizes[place]
            each = shares(
                [size for _, _, size in streams], [attempt == 0 for _, attempt, _ in streams], most[place], MOST_BYTES
            )
            for (stream, attempt, _), share in zip(streams, each, strict=True):
                log = self._logs.read(result, stream, attempt, share)
                if log is None:
                    continue
                self.places[place].append(
                    (stream, attempt, log.size_bytes, number, len(block), len(log.head), len(log.tail), log.name)
                )
                block += log.head + log.tail
            if len(block) >= _BLOCK:
                yield _script(number, block)
                block, number = bytearray(), number + 1
        if block:
            yield _script(number, block)


def _script(number: int, block: bytearray) -> bytes:
    packed = base64.b64encode(zlib.compress(block, 6))
    return b'<script type="text/plain" id="block-%d">%s</script>\n' % (number, packed)
