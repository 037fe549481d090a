"""Findings as text for people and as one JSON object. Pure: opens no file, prints nothing."""

from __future__ import annotations

from guntainer.doctor.finding import DEGRADED, MISSING, OK

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from guntainer.doctor.finding import Finding
    from guntainer.doctor.probes import Probe

    Row = tuple[Probe, Finding]

JSON_VERSION = 1
_COLOURS = {OK: "32", DEGRADED: "33", MISSING: "31"}
_FAINT = "2"
_STATUS_WIDTH = max(map(len, _COLOURS))


def row(probe: Probe, finding: Finding, width: int, *, colour: bool) -> str:
    """One probe: its id, its status, what was found, and below that what mends it.

    Args:
        width: of the longest id.
    """
    status = f"{finding.status:<{_STATUS_WIDTH}}"
    found = finding.found + (f"; see {finding.because}" if finding.because and not _said(finding) else "")
    if colour:
        status = _painted(status, _FAINT if finding.because else _COLOURS[finding.status])
        found = _painted(found, _FAINT) if finding.because else found
    lines = [f"{probe.id:<{width}}  {status}  {found}"]
    margin = " " * (width + 2)
    lines += [f"{margin}{line}" for line in finding.remedy]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _said(finding: Finding) -> bool:
    return finding.found == f"needs {finding.because}"


def _painted(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"


def summary(rows: Iterable[Row]) -> str:
    """`23 probes: 21 ok, 2 degraded; containers can be run here`"""
    rows = list(rows)
    counts = {status: sum(finding.status == status for _, finding in rows) for status in _COLOURS}
    parts = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    lacking = [probe.id for probe, finding in rows if is_fatal(probe, finding) and not finding.because]
    lacking = lacking or [probe.id for probe, finding in rows if is_fatal(probe, finding)]
    said = f"containers can not be run here: {', '.join(lacking)}" if lacking else "containers can be run here"
    return f"{len(rows)} probe{'' if len(rows) == 1 else 's'}: {parts}; {said}\n"


def is_fatal(probe: Probe, finding: Finding) -> bool:
    """Whether nothing can be run for want of this."""
    return probe.needed and finding.status == MISSING


def json_object(rows: Iterable[Row], system: str) -> dict[str, Any]:
    """The object that `--json` prints; keys are only ever added.

    Args:
        system: the distribution's name.
    """
    rows = list(rows)
    return {
        "version": JSON_VERSION,
        "ok": not any(is_fatal(probe, finding) for probe, finding in rows),
        "distribution": system,
        "probes": [
            {
                "id": probe.id,
                "needed": probe.needed,
                "status": finding.status,
                "found": finding.found,
                "because": finding.because,
                "remedy": list(finding.remedy),
            }
            for probe, finding in rows
        ],
    }
