"""docker's and podman's `--security-opt`, as fields of a Job. Pure."""

from __future__ import annotations

from guntainer import errors
from guntainer.jobs.values import host_path, near, quoted
from guntainer.spec import MASKED, READ_ONLY

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

KINDS = ("no-new-privileges", "seccomp", "unmask")
_NOTHING_TO_DO = ("apparmor=unconfined", "label=disable", "seccomp=default", "no-new-privileges=false")
_SWITCHES = ("", "true")


def parse(texts: tuple[str, ...], base: str) -> dict[str, Any]:
    """The fields of a Job that these options give; a later one replaces an earlier one of its kind, but unmask adds up.

    Args:
        base: the folder that a profile's relative path starts at.

    Raises:
        UsageError: there is no such option, or its value makes no sense.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.replace(":", "=", 1).partition("=") if "=" not in text else text.partition("=")
        if f"{name}={value}" in _NOTHING_TO_DO:
            continue
        if name == "no-new-privileges" and value in _SWITCHES:
            found["no_new_privileges"] = True
        elif name == "seccomp" and value:
            found["seccomp"] = value if value == "unconfined" else host_path(value, base)
        elif name == "unmask" and value:
            found["unmask"] = (*found.get("unmask", ()), *_unmask(value))
        else:
            raise errors.UsageError(
                f"expected no-new-privileges, seccomp=FILE|unconfined or unmask=ALL|PATH[:PATH], "
                f"got {quoted(text)}{near(name, KINDS) if name not in KINDS else ''}"
            )
    return found


def _unmask(value: str) -> tuple[str, ...]:
    paths = tuple(value.split(":"))
    for path in paths:
        if path != "ALL" and path not in MASKED + READ_ONLY:
            raise errors.UsageError(
                f"unmask={path}: neither hidden nor read-only{near(path, MASKED + READ_ONLY)}: "
                f"expected ALL or of {', '.join(MASKED + READ_ONLY)}"
            )
    return paths
