"""A plan with a workspace and with artifacts: what is done when."""

from __future__ import annotations

from typing import Any

from guntainer import errors, planner, spec, workspace
from guntainer.init import descriptions
from guntainer.jobs.model import Job, Mount, Source, Workspace

LAYERED = Mount(kind="overlay", source="/src", target="/workspace", layer="/run/7")


def operations(*mounts: Mount, **options: Any) -> list[tuple[Any, ...]]:
    job = Job(id="j", rootfs=Source(location="/r"), command=("true",), mounts=mounts)
    ids = ((0, 1000, 1),)
    config = spec.for_job(job, tree="/r", account=spec.Account(), uids=ids, gids=ids)
    root = planner.Root(lowers=("/r",), upper="/u", work="/w", mount_point="/m", workspace="/empty")
    return list(planner.plan(config, root, planner.Stdio(stdin=0, stdout=1, stderr=2), **options)[1])


def test_a_workspace_is_mounted_outside_and_placed_inside() -> None:
    found = operations(LAYERED, Mount(source="/v", target="/workspace/v"))
    names = [one[0] for one in found]
    at = names.index("workspace")
    assert found[at] == ("workspace", ("/src",), "", "/run/7/upper", "/run/7/work", "/empty")
    slot = found[at + 1][1]
    assert found[at + 1] == ("hold", slot, "/empty")
    assert names.index("overlay") < at < names.index("pivot")
    placed = [one for one in found if one[0] == "place"]
    assert placed[0] == ("place", slot, "/workspace", True, 0) and placed[1][2] == "/workspace/v"


def test_the_root_is_handed_out_when_nothing_of_the_host_is_in_reach() -> None:
    found = operations(LAYERED, kept=3, kept_mount="/workspace")
    names = [one[0] for one in found]
    slot = next(one[1] for one in found if one[0] == "place")
    assert found[names.index("offer_root")][2] == (slot,)
    assert names.index("leave_host") < names.index("place") < names.index("offer_root") < names.index("seal")
    assert next(one for one in operations(kept=3) if one[0] == "offer_root")[2] == ()
    assert "offer_root" not in [one[0] for one in operations(LAYERED)]


def test_what_is_said_of_them() -> None:
    step = ("workspace", ("/src",), "", "/run/7/upper", "/run/7/work", "/empty")
    assert descriptions.describe(step) == "mount the workspace's overlay at /empty: /run/7/upper over /src"
    assert descriptions.subject(step) == "/empty"
    assert descriptions.describe(("offer_root", 5, ())) == "hand out the root, for artifacts"


def test_which_refusal_means_a_copy() -> None:
    assert workspace.is_refused(errors.SetupError("workspace", "/empty", 22))
    assert not workspace.is_refused(errors.SetupError("overlay", "/m", 22))
    assert not workspace.is_refused(None)


def test_what_lies_inside() -> None:
    assert workspace.inside("/src", ("/src/a/b", "/srcs", "/", "/src", "", "/src/a/b")) == ("a/b",)
    assert workspace.inside("/", ("/proc/x",)) == ("proc/x",)


def test_the_host_s_own_folder() -> None:
    wanted = Workspace(source="/src", target="/w", mode="read-only")
    assert workspace.bound(wanted) == Mount(source="/src", target="/w", read_only=True)
    assert workspace.bound(wanted.replace(mode="mount")) == Mount(source="/src", target="/w")
