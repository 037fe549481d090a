"""What a launch makes in a writable layer by itself: folders and files for volumes to be mounted on."""

from __future__ import annotations

import os

from guntainer import rootfs as rootfs_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from guntainer.jobs.model import Job
    from guntainer.rootfs import Rootfs


def made_for(job: Job, rootfs: Rootfs) -> frozenset[bytes]:
    """The names, relative to the root, of mount points of the job that the rootfs has not."""
    folders = rootfs.folders
    return frozenset(os.fsencode(path) for mount in job.mounts for path in rootfs_.missing(folders, mount.target))
