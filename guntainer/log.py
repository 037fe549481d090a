"""Our own messages on stderr, by structlog: console lines or JSON lines. Called by the door alone."""

from __future__ import annotations

import sys

from guntainer.report_text import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(*, level: str, format: str, file: Any = None) -> Any:  # noqa: A002
    """A logger whose messages of at least `level` go to stderr.

    Args:
        level: debug, info, warning or error.
        format: "console" or "json".
        file: something with `write` and `flush` to write to instead.
    """
    structlog = _structlog()
    shaping: list[Any] = [structlog.processors.add_log_level]
    if format == "json":
        shaping += [structlog.processors.TimeStamper(fmt="iso", utc=True), structlog.processors.JSONRenderer()]
    else:
        shaping.append(_line)
    return structlog.wrap_logger(
        structlog.WriteLogger(sys.stderr if file is None else file),
        processors=shaping,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
    )


def _structlog() -> Any:
    """structlog without rich, which it would load for tracebacks that are never shown: that takes longer than all the rest."""
    absent = "rich" not in sys.modules
    if absent:
        sys.modules["rich"] = None  # type: ignore[assignment]
    try:
        import structlog
    finally:
        if absent:
            del sys.modules["rich"]
    return structlog


def _line(_logger: Any, _method: str, event: Any) -> str:
    """`guntainer: warning: text key=value`: one line, without what info does not need."""
    level = event.pop("level")
    text = event.pop("event")
    rest = "".join(f" {key}={value}" for key, value in event.items())
    # names in it may come from anywhere
    return visible(f"guntainer: {'' if level in ('info', 'debug') else level + ': '}{text}{rest}")
