"""Probes of what is used from the host's packages: the interpreter, libraries, helper programs."""

from __future__ import annotations

import os
import sys

from guntainer import errors
from guntainer.doctor.finding import Finding, degraded, missing, ok

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.doctor.examine import Circumstances

_PYTHON = (3, 11)


def python(_around: Circumstances) -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    found = f"Python {version}, {sys.executable or 'an interpreter without a path'}"
    if sys.version_info < _PYTHON:
        return missing(f"{found}: {_PYTHON[0]}.{_PYTHON[1]} is needed")
    if not os.access(sys.executable or "", os.X_OK):
        return missing(f"{found}: the fork helper can not be started", "# run guntainer by an interpreter with a path")
    return _sealed(found)


def _sealed(found: str) -> Finding:
    """Whether a copy of it, sealed in memory, can be executed: see `exeseal`."""
    import subprocess

    from guntainer import exeseal

    try:
        fd, words = exeseal.sealed(["-ISc", ""])
        try:
            subprocess.run(words, executable=f"/proc/self/fd/{fd}", pass_fds=[fd], check=True, timeout=10)
        finally:
            os.close(fd)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        if exeseal.is_exposed(sys.executable):
            why = exeseal.refused(error)
            return missing(why.message, f"# {why.hint}")
        return degraded(f"{found}; no sealed copy can be executed: {error}", "# sysctl vm.memfd_noexec=1")
    return ok(found)


def libarchive(around: Circumstances) -> Finding:
    from guntainer.archive import library

    try:
        version, lacking = library.abilities()
    except errors.HostError as error:
        return missing(error.message, around.system.install("libarchive"))
    if lacking:
        return degraded(
            f"libarchive {version}, which can not read {', '.join(lacking)}", around.system.install("libarchive")
        )
    return ok(f"libarchive {version}, reads {', '.join((*library.FORMATS, *library.FILTERS))}")


def seccomp(around: Circumstances) -> Finding:
    """Compiles our own profile, and installs it for a process that ends at once."""
    from guntainer import capabilities
    from guntainer.doctor.namespaces import inside
    from guntainer.seccomp import cache

    try:
        compiled = cache.program(
            around.beside_store or around.run,
            profile="default",
            capabilities=capabilities.chosen((), ()),
            emulate_root=True,
        )
    except errors.HostError as error:
        return missing(error.message, around.system.install("libseccomp"))
    trial = inside()
    trial.operation("seccomp", compiled)
    failed = trial.run()
    if failed is not None:
        return missing(
            f"a filter can not be installed: {os.strerror(failed[1])}",
            "# CONFIG_SECCOMP_FILTER of the kernel is needed",
        )
    return ok(f"libseccomp, and a filter of {len(compiled) // 8} instructions")


def init(around: Circumstances) -> Finding:
    from guntainer import assembly

    path = assembly.find_init()
    if path is not None:
        return ok(path)
    return degraded(
        "none that is static: --init takes our own, which needs more memory", around.system.install("catatonit")
    )
