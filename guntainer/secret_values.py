"""The values of secrets, read when a batch starts: from variables of the caller's and from files.

They are kept apart from the jobs, which know their names alone, so that nothing that shows a job shows a value.
"""

from __future__ import annotations

import os
import stat

from guntainer import errors, masking

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from guntainer.jobs.model import Job, Secret


def of_jobs(jobs: Iterable[Job], env: Mapping[bytes, bytes] | None = None) -> dict[str, bytes]:
    """The values that these jobs need, by name.

    Args:
        env: the caller's variables; None: os.environb.

    Raises:
        JobFileError: with every secret that has none, or none that can be kept secret.
    """
    wanted = dict.fromkeys(secret for job in jobs for secret in job.secrets)
    wanted.update(dict.fromkeys(one for job in jobs for service in job.services for one in service.job.secrets))
    values: dict[str, bytes] = {}
    problems = []
    for secret in wanted:
        try:
            values[secret.name] = read(secret, os.environb if env is None else env)
        except errors.UsageError as error:
            problems.append(str(error))
    if problems:
        raise errors.JobFileError(tuple(problems))
    return values


def read(secret: Secret, env: Mapping[bytes, bytes]) -> bytes:
    """The value of one.

    Raises:
        UsageError: it has none, or none that can be kept secret.
    """
    if secret.variable:
        value = env.get(os.fsencode(secret.variable))
        if value is None:
            raise errors.UsageError(
                f"secret {secret.name}: the variable {secret.variable} is not set",
                hint="export it before the batch starts",
            )
        return masking.check(secret.name, value, f"the variable {secret.variable}")
    try:
        value = _contents(secret.file)
    except OSError as error:
        raise errors.UsageError(f"secret {secret.name}: {secret.file}: {error.strerror}") from None
    if value is None:
        raise errors.UsageError(f"secret {secret.name}: {secret.file} is not a file")
    for end in (b"\r\n", b"\n"):
        if value.endswith(end):
            value = value.removesuffix(end)
            break
    return masking.check(secret.name, value, secret.file)


def _contents(path: str) -> bytes | None:
    """No more of a file than is too much; None: it is none."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        with open(fd, "rb", closefd=False) as file:  # where it raises, as of a folder, it would not close it
            return file.read(masking.MOST_BYTES + 3)
    finally:
        os.close(fd)
