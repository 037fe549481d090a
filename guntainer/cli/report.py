"""`guntainer report DIR`: the reports of a batch once more, from the results that it has kept; and two batches compared."""

from __future__ import annotations

import os

from guntainer.cli import complain, show
from guntainer.cli.parsing import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse

    from guntainer.reports.compare import Comparison
    from guntainer.reports.reading import Stored
    from guntainer.reports.writing import Target

_EPILOG = """\
DIR is what batch --results has written. Without an option the closing table is printed again, and with --against what has
changed. FILE may be -: standard output.

exit codes: 0 the report was made, whatever is in it; 2 bad usage, or no results in DIR; 125 it could not be written.
"""
_MOST_PROBLEMS = 10


def parser() -> Parser:
    p = Parser(
        prog="guntainer report",
        description="Make reports of a batch from its results, and compare two batches.",
        epilog=_EPILOG,
    )
    p.add_argument("folder", metavar="DIR", help="a folder of results")
    p.add_argument(
        "--html", metavar="FILE", help="write the page: matrix, timeline, logs; one file that needs no network"
    )
    p.add_argument("--junit", metavar="FILE", help="write JUnit's XML, for CI servers")
    p.add_argument("--json", metavar="FILE", help="write lines of JSON: one per job, and one for the end")
    p.add_argument("--against", metavar="DIR", help="the results of an earlier batch, to compare with")
    p.add_argument("--debug", action="store_true", help="tracebacks")
    return p


def main(words: list[str]) -> int:
    from guntainer import reports

    args = parser().parse(words)
    targets = _targets(args)
    stored = reports.read(args.folder)
    _tell(stored.problems, args.folder)
    comparison = _comparison(args.against, stored)
    unread: dict[str, None] = {}  # the same logs are read for each report
    for target in targets:
        with target:
            unread.update(dict.fromkeys(_write(target, stored, comparison)))
    _tell(tuple(unread), args.folder)
    if not targets:
        _print(stored, comparison)
    return 0


def _files(args: argparse.Namespace) -> tuple[tuple[str, str | None], ...]:
    return (("--html", args.html), ("--junit", args.junit), ("--json", args.json))


def _targets(args: argparse.Namespace) -> list[Target]:
    """Where the reports go: before anything is read, which may take its time.

    Raises:
        UsageError: a file can not be written, or two are the same.
    """
    from guntainer.reports import writing

    taken = writing.own_files(args.folder)
    found = []
    for option, path in _files(args):
        if path is not None:
            writing.claim(path, option, taken, folder=args.folder)
            found.append(writing.Target("/dev/stdout" if path == "-" else path, option=option))
    return found


def _tell(problems: tuple[str, ...], folder: str) -> None:
    for text in problems[:_MOST_PROBLEMS]:
        complain(f"{folder}: {text}", "warning")
    if len(problems) > _MOST_PROBLEMS:
        complain(f"{folder}: and {len(problems) - _MOST_PROBLEMS} more that are not as they should be", "warning")


def _comparison(against: str | None, stored: Stored) -> Comparison | None:
    if against is None:
        return None
    from guntainer import reports
    from guntainer.reports.compare import compare

    before = reports.read(against)
    _tell(before.problems, against)
    return compare(before.report, stored.report, before_name=against)


def _write(target: Target, stored: Stored, comparison: Comparison | None) -> tuple[str, ...]:
    """Returns what of the logs could not be read."""
    from guntainer import reports

    if target.option == "--html":
        return reports.write_html(
            target,
            stored.report,
            stored.path,
            stored.runs,
            problems=stored.problems,
            folders=stored.folders,
            comparison=comparison,
        )
    if target.option == "--junit":
        return reports.write_junit(target, stored.report, stored.path, folders=stored.folders)
    from guntainer.json_lines import of_report

    target.write(of_report(stored.report))
    return ()


def _print(stored: Stored, comparison: Comparison | None) -> None:
    from guntainer.report_text import table
    from guntainer.shown.ci import Ci

    colour = os.isatty(1) and not os.environ.get("NO_COLOR")
    shown = table(stored.report, colour=colour)
    if comparison is not None:
        from guntainer.reports.compare import text

        shown += "\n" + text(comparison, colour=colour)
    show(Ci(os.environ).harmless(shown))
