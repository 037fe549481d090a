"""Reports of a batch for other readers than a terminal: a page for people, JUnit's XML for CI servers, and two runs compared.

Owns the results folder as a thing that is read again (`folder`), and the files that reports are written to (`writing`). What
a job has printed or is named is text in all of them, never markup. Nothing is printed here, and no job is started.
"""

from __future__ import annotations

from contextlib import nullcontext

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

    from guntainer.report import Report
    from guntainer.reports.compare import Comparison
    from guntainer.reports.page import History
    from guntainer.reports.reading import Stored
    from guntainer.reports.writing import Target


def write_html(
    target: Target | str,
    report: Report,
    results_folder: str | None = None,
    history: History | None = None,
    *,
    problems: Iterable[str] = (),
    folders: Mapping[str, str] | None = None,
    comparison: Comparison | None = None,
) -> tuple[str, ...]:
    """Write the page, whole or not at all. It reads files, and takes a second per ten thousand jobs: for a thread.

    Args:
        target: where to; a path is opened here.
        results_folder: where logs and artifacts lie; None: the logs are where the results say.
        history: earlier runs of the jobs, by id, the oldest first.
        problems: what is wrong with the results, one sentence each, to be shown.
        folders: the jobs' own folders in there, by id, where these are not those of `jobs.names.folder_name`.

    Returns:
        What of the logs could not be read, one sentence each; the page shows it as well.

    Raises:
        GuntainerError: it can not be written; nothing of it stays.
    """
    from guntainer.reports import page
    from guntainer.reports.logs import open_logs

    with _opened(target, "--html") as opened, open_logs(results_folder, folders) as logs:
        links = page.links_from(opened.place, results_folder)
        pieces = page.pieces(
            report, logs, links=links, history=history or {}, problems=tuple(problems), comparison=comparison
        )
        opened.write(pieces)
        return tuple(logs.problems)


def write_junit(
    target: Target | str, report: Report, results_folder: str | None = None, *, folders: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Write JUnit's XML, whole or not at all.

    Args:
        target: where to; a path is opened here.

    Returns:
        What of the logs could not be read, one sentence each.

    Raises:
        GuntainerError: it can not be written; nothing of it stays.
    """
    from guntainer.reports import junit
    from guntainer.reports.logs import open_logs

    with _opened(target, "--junit") as opened, open_logs(results_folder, folders) as logs:
        opened.write(junit.pieces(report, logs))
        return tuple(logs.problems)


def _opened(target: Target | str, option: str) -> AbstractContextManager[Target]:
    """A target that is closed with the block, where it was opened for it."""
    from guntainer.reports.writing import Target

    return Target(target, option=option) if isinstance(target, str) else nullcontext(target)


def read(path: str) -> Stored:
    """What a results folder holds.

    Raises:
        UsageError: it is no results folder, or can not be read at all.
    """
    from guntainer.reports import reading

    return reading.read(path)
