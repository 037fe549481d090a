"""`guntainer batch [FILE|-]`: the jobs of a job file, many at a time."""

from __future__ import annotations

import os
import sys

from guntainer import errors
from guntainer.cli import Notes, complain, options, results, show, write
from guntainer.cli.options import FLAG, LIST, NUMBER, Option, Options
from guntainer.jobs.model import USERNS as WANTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.cli.parsing import Parser
    from guntainer.history import History
    from guntainer.idmap import Ids
    from guntainer.jobs.load import JobFile
    from guntainer.jobs.model import Job
    from guntainer.launcher.spawn import Zygote

_FILE_LIMIT = 10 << 20
_DEFAULT_FILES = ("jobs.toml", "jobs.yaml", "jobs.yml", "jobs.json")
_EPILOG = """\
FILE is TOML, YAML or JSON (default: jobs.toml, .yaml, .yml or .json in this folder); - reads standard input.

exit codes: 0 all good; 1 a job failed; 2 bad usage or a bad file; 125 guntainer could not run; 130 Ctrl-C; 143 TERM.
"""


OPTIONS = (
    Option("-h", "--help", kind=FLAG, help="show this and exit"),
    Option("-j", "--jobs", default="auto", metavar="N|auto", help="containers at once (default: one per core)"),
    Option("--set", kind=LIST, metavar="KEY=VALUE", help="set env.NAME, matrix.AXIS or jobs.NAME.KEY; may be repeated"),
    Option("--only", kind=LIST, metavar="GLOB", help="only jobs whose name matches; may be repeated"),
    Option("--matrix", kind=LIST, metavar="AXIS:VALUE", help="only cells with that value; may be repeated"),
    Option("--rerun-failed", kind=FLAG, help="only jobs that were not good last time"),
    Option("--resume", kind=FLAG, help="go on with a batch that was ended early: jobs that were good are taken over"),
    Option("--shard", metavar="I/N", help="only the I-th of N parts of the jobs, for as many machines"),
    Option("--interactive-on-failure", kind=FLAG, help="a shell in the container of each job that failed"),
    Option("--watch", kind=FLAG, help="run again whenever a file that the jobs read has changed"),
    Option("--check", kind=FLAG, help="check the file, run nothing"),
    Option("--list", kind=FLAG, help="list the jobs, run nothing"),
    Option("-n", "--dry-run", kind=FLAG, help="print what each job would run, run nothing"),
    Option("--fail-fast", kind=FLAG, help="the first failure cancels the rest"),
    Option(
        "--output",
        choices=("live", "group", "quiet"),
        metavar="live|group|quiet",
        help="live lines (on a terminal), blocks per job, or neither",
    ),
    Option("--results", metavar="DIR", help="keep each job's stdout, stderr and result.json there"),
    Option("--html", metavar="FILE", help="write a page: matrix, timeline, logs; one file that needs no network"),
    Option("--junit", metavar="FILE", help="write JUnit's XML, for CI servers"),
    Option("--json", metavar="FILE", help="write what happens, as lines of JSON; -: to stdout, and all else to stderr"),
    Option("--store", metavar="DIR", help="where unpacked archives are kept"),
    Option(
        "--userns", choices=WANTED, default="auto", metavar="|".join(WANTED), help="ids: a range of sub-ids, or one"
    ),
    Option("--require-isolation", choices=("full",), metavar="full", help="refuse to run with less"),
    Option(
        "--max-cells",
        kind=NUMBER,
        default=1024,
        metavar="N",
        help="the most cells a matrix may have (default: {default})",
    ),
    Option("-v", "--verbose", kind=FLAG, help="more notes of our own"),
    *options.COMMON,
)


def parser() -> Parser:
    """Every option, for completion and for what the quick reader leaves to argparse."""
    from guntainer.cli.parsing import build

    p = build(
        OPTIONS, prog="guntainer batch", add_help=False, description="Run the jobs of a job file.", epilog=_EPILOG
    )
    p.add_argument("file", nargs="?", metavar="FILE", help="the job file")
    return p


def _options(words: list[str]) -> Options | None:
    """The options, and `file` among them; None where help was asked for, and given."""
    read = options.read(OPTIONS, words, interleaved=True)
    if read is not None and len(read[1]) <= 1 and not read[0].help:
        args, files = read
        args.__dict__["file"] = files[0] if files else None
        return args
    p = parser()
    if {"-h", "--help"} & set(words):
        p.print_help()
        return None
    found = Options()
    found.__dict__.update(vars(p.parse(words)))
    return found


def main(words: list[str]) -> int:
    args = _options(words)
    if args is None:
        return 0
    if args.watch:
        return _watch(args, words)
    zygote: Zygote | None = None
    ids = None
    looking = args.check or args.list or args.dry_run
    if not looking:
        # first of all: it starts while we import
        from guntainer import idmap
        from guntainer.launcher.spawn import spawn

        ids = idmap.open_ids(args.userns)
        zygote = spawn(ids.namespace)
    try:
        return _batch(args, ids, zygote, looking=looking)
    finally:
        if zygote is not None:
            zygote.close()


def _watch(args: Options, words: list[str]) -> int:
    from guntainer.cli.watching import watch

    path = _path(args)
    if path == "-":
        raise errors.UsageError("--watch: standard input can not be watched", hint="name a file")
    if args.check or args.list or args.dry_run:
        raise errors.UsageError("--watch runs jobs: leave out --check, --list and --dry-run")
    if args.rerun_failed or args.resume:
        raise errors.UsageError("--watch runs the same jobs each time: leave out --rerun-failed and --resume")
    from guntainer.history import own_folder
    from guntainer.store.lookup import default_path

    given = (args.results, args.html, args.junit, args.json, args.store or default_path(), own_folder())
    own = [results.absolute(one, "--watch") for one in given if one and one != "-"]
    return watch(words, results.absolute(path, "--watch"), lambda asked: _load(args, asked), own, Notes(args))


def _batch(args: Options, ids: Ids | None, zygote: Zygote | None, *, looking: bool) -> int:
    if args.max_cells < 1:
        raise errors.UsageError(f"--max-cells {args.max_cells}: expected a number from 1")
    from guntainer.cli import selecting
    from guntainer.history import open_history

    selecting.check(args)
    if args.results == "":
        raise errors.UsageError("--results: expected the path of a folder, got an empty one")
    if args.interactive_on_failure and not looking:
        from guntainer.cli.interactive import check

        check(args)
    file = _load(args)
    history = open_history(None if file.path == "<stdin>" else file.path)
    selection = selecting.select(args, file, history)
    if selection.nothing:
        return _nothing(args, selection.nothing, file, history, None if looking else ids)
    if looking or ids is None:
        return _look(args, file, selection.jobs)
    parallel = _bounded(_parallel(args.jobs), file)
    from guntainer.cli.batch_run import Batch

    return Batch(args, selection, file, parallel, ids, zygote, history).run()


def _nothing(args: Options, why: str, file: JobFile, history: History, ids: Ids | None) -> int:
    """There is nothing to be done, and that is good; a report on standard output stands there alone.

    Args:
        ids: that containers would have; None: none were to run, and no report is written.
    """
    (write if args.json == "-" else show)(f"{why}\n")
    if ids is None or not (args.html or args.junit or args.json or args.results):
        return 0
    from guntainer.cli.empty_batch import write_reports

    return write_reports(args, file, history, ids, parallel=_bounded(_parallel(args.jobs), file))


def _bounded(parallel: int, file: JobFile) -> int:
    return parallel if file.max_parallel is None else min(parallel, file.max_parallel)


def _parallel(text: str) -> int:
    if text == "auto":
        return len(os.sched_getaffinity(0))
    if not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise errors.UsageError(f"-j {text}: expected a number from 1 to 100000, or auto")
    return int(text)


def _path(args: Options) -> str:
    path = args.file or next((name for name in _DEFAULT_FILES if os.path.exists(name)), None)
    if path is None:
        raise errors.UsageError(
            "batch: FILE is missing, and there is no jobs.toml here", hint="see guntainer batch --help"
        )
    return str(path)


def _load(args: Options, asked: set[str] | None = None) -> JobFile:
    """The job file, read.

    Args:
        asked: takes the absolute paths of the files that it extends, also of those that are not there.
    """
    from guntainer import jobfile
    from guntainer.jobs import setting
    from guntainer.jobs.load import load

    def read(path: str) -> bytes:
        if asked is not None:
            asked.add(path)
        return jobfile.read(path)

    path = _path(args)
    try:
        if path == "-":
            if sys.stdin is None:
                raise errors.UsageError("batch -: standard input is closed", hint="give it a file, or name one")
            text = sys.stdin.buffer.read(_FILE_LIMIT + 1)
        else:
            with open(path, "rb") as file:
                text = file.read(_FILE_LIMIT + 1)
    except OSError as error:
        raise errors.JobFileError((f"{path}: {error.strerror}",)) from None
    base = results.absolute("." if path == "-" else os.path.dirname(path) or ".", f"batch {path}")
    return load(
        text,
        path="<stdin>" if path == "-" else path,
        base=base,
        max_cells=args.max_cells,
        read=read,
        settings=tuple(setting.parse(text) for text in args.set),
        here=results.absolute(".", "--set") if args.set else "",
        placed=os.environ.get("GITHUB_ACTIONS") == "true",
    )


def _look(args: Options, file: JobFile, jobs: tuple[Job, ...]) -> int:
    for warning in file.warnings:
        complain(warning, "warning")
    if args.list or args.dry_run:
        from guntainer.report_text import visible
        from guntainer.shown.ci import Ci

        ci = Ci(os.environ)
        for job in jobs:
            line = visible(job.id)
            if args.dry_run:
                line += f": {job.rootfs.location if job.rootfs.kind == 'path' else job.rootfs.name}: " + " ".join(
                    map(repr, job.command or ("/bin/sh",))
                )
            show(f"{ci.within(line)}\n")
    else:
        show(f"{file.path}: {len(jobs)} job{'' if len(jobs) == 1 else 's'}, no mistakes\n")
    return 0
