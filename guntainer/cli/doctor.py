"""`guntainer doctor [ID…]`: tries on this host what a run needs, and says how to mend what fails."""

from __future__ import annotations

import os

from guntainer import errors
from guntainer.cli import options, show
from guntainer.cli.options import FLAG, Option

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from guntainer.cli.parsing import Parser
    from guntainer.doctor.probes import Probe

OPTIONS = (
    Option("--help", kind=FLAG, help="show this and exit"),
    Option("--json", kind=FLAG, help="one JSON object instead of the table"),
    Option("--list", kind=FLAG, help="name the probes, try none"),
    Option("--store", metavar="DIR", help="look at this store instead of the default one"),
    Option("-q", "--quiet", kind=FLAG, help="only what is not ok"),
    Option("--debug", kind=FLAG, help="tracebacks"),
)
_EPILOG = """\
Each probe tries its part for real, in a process of its own, and leaves nothing behind. A probe is ok, degraded (something
else takes its place, or it works less well) or missing; below it stands what mends it on this distribution. Errors of
guntainer name the probe to look at: guntainer doctor ID…

exit codes: 0 containers can be run here, also with something degraded; 1 something is missing without which none can;
2 bad usage.
"""


class _Names(tuple[str, ...]):
    """The ids, for completion; what is none of them is told by `_wanted`, and argparse would not take none at all."""

    __slots__ = ()

    def __contains__(self, _name: object) -> bool:
        return True


def parser() -> Parser:
    from guntainer.cli.parsing import build
    from guntainer.doctor.probes import PROBES

    p = build(
        OPTIONS,
        prog="guntainer doctor",
        add_help=False,
        usage="guntainer doctor [OPTIONS] [ID…]",
        description="Try on this host what a run needs.",
        epilog=_EPILOG,
    )
    p.add_argument("probes", metavar="ID", nargs="*", choices=_Names(PROBES), help="try only these (default: all)")
    return p


def main(words: list[str]) -> int:
    read = options.read(OPTIONS, words, interleaved=True)
    if read is None or read[0].help:
        p = parser()
        if "--help" in words:
            p.print_help()
            return 0
        given: Any = p.parse(words)
        read = given, given.probes
    args, names = read
    wanted = _wanted(names)
    if args.list:
        width = max(len(probe.id) for probe in wanted)
        for probe in wanted:
            show(f"{probe.id:<{width}}  {probe.what}{'' if probe.needed else ' (optional)'}\n")
        return 0
    return _examine(wanted, store=args.store, as_json=args.json, quiet=args.quiet)


def _wanted(names: list[str]) -> list[Probe]:
    """The probes of these names, in their own order; all where none is named.

    Raises:
        UsageError: one is unknown; the nearest known one is told.
    """
    from guntainer.doctor.probes import PROBES

    for name in names:
        if name not in PROBES:
            from guntainer.jobs.values import near, quoted

            raise errors.UsageError(
                f"doctor: unknown probe {quoted(name)}{near(name, PROBES)}", hint="guntainer doctor --list names them"
            )
    return [probe for probe in PROBES.values() if not names or probe.id in names]


def _examine(wanted: list[Probe], *, store: str | None, as_json: bool, quiet: bool) -> int:
    from guntainer.doctor import examine, table
    from guntainer.doctor.finding import OK
    from guntainer.doctor.probes import PROBES

    colour = os.isatty(1) and not os.environ.get("NO_COLOR")
    width = max(len(probe.id) for probe in wanted)
    rows = []
    with examine.Circumstances(store=store) as around:
        for probe, finding in examine.examine(wanted, PROBES, around):
            rows.append((probe, finding))
            if not as_json and not (quiet and finding.status == OK):
                show(table.row(probe, finding, width, colour=colour))
    if as_json:
        import json

        show(json.dumps(table.json_object(rows, around.system.name), indent=2, ensure_ascii=False) + "\n")
    elif not quiet:
        show(table.summary(rows))
    return errors.FAILED if any(table.is_fatal(*row) for row in rows) else 0
