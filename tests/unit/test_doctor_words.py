"""The doctor's words, without a host: distributions, tables, what an examination of made-up probes does."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from guntainer import processes, refusals
from guntainer.doctor import distribution, examine, ids, kernel, storage, table
from guntainer.doctor.finding import DEGRADED, MISSING, OK, Finding, degraded, missing, ok
from guntainer.doctor.probes import PROBES, Probe


@pytest.mark.parametrize(
    ("text", "family", "installs"),
    [
        ('ID=debian\nPRETTY_NAME="Debian GNU/Linux 12"\n', "debian", "sudo apt-get install -y uidmap"),
        ("ID=ubuntu\nID_LIKE=debian\n", "debian", "sudo apt-get install -y uidmap"),
        ("ID=something\nID_LIKE='ubuntu debian'\n", "debian", "sudo apt-get install -y uidmap"),
        ("ID=fedora\n", "fedora", "sudo dnf install -y shadow-utils"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "fedora", "sudo dnf install -y shadow-utils"),
        ("ID=alpine\n", "alpine", "sudo apk add shadow-uidmap"),
        ("ID=arch\n", "arch", "sudo pacman -S --noconfirm shadow"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "suse", "sudo zypper install -y shadow"),
        ("ID=nixos\n", "", "# install uidmap with your package manager"),
        ("", "", "# install uidmap with your package manager"),
        ("# nothing\nno sense at all\n", "", "# install uidmap with your package manager"),
    ],
)
def test_distributions(tmp_path: Path, text: str, family: str, installs: str) -> None:
    (tmp_path / "os-release").write_text(text)
    found = distribution.read(str(tmp_path / "os-release")).replace(root=False)
    assert found.family == family and found.name
    assert found.install("uidmap") == installs
    assert found.replace(root=True).install("uidmap") == installs.removeprefix("sudo ")


def test_no_os_release(tmp_path: Path) -> None:
    assert distribution.read(str(tmp_path / "nowhere")).family == ""


def test_a_sysctl_is_set_for_now_and_for_later() -> None:
    now, later = distribution.Distribution().sysctl("user.max_user_namespaces", 15000)
    assert now == "sudo sysctl -w user.max_user_namespaces=15000"
    assert "user.max_user_namespaces = 15000" in later and "/etc/sysctl.d/" in later


def test_the_next_free_range() -> None:
    assert ids.next_free("", "") == 100000
    assert ids.next_free("a:100000:65536\nb:165536:65536\n", "a:100000:65536\n") == 231072
    assert ids.next_free("nonsense\n#x\na:b:c\n1000:100000:1\n", "") == 100001


MOUNTS = """\
22 1 0:21 / / rw,relatime - ext4 /dev/vda rw
30 22 0:30 / /home rw,nosuid - nfs4 server:/home rw
31 30 0:31 / /home/with\\040blank rw,noexec,nosuid - tmpfs none rw
32 22 0:32 / /homes ro - xfs /dev/vdb ro
short
"""


@pytest.mark.parametrize(
    ("path", "place", "kind"),
    [("/usr", "/", "ext4"), ("/", "/", "ext4"), ("/home", "/home", "nfs4"), ("/home/x", "/home", "nfs4"), ("/homes/y", "/homes", "xfs")],
)  # fmt: skip
def test_where_a_path_lies(monkeypatch: pytest.MonkeyPatch, path: str, place: str, kind: str) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _path: os.statvfs_result((4096, 4096, 10, 5, 5, 0, 0, 0, 0, 255)))
    found = storage.file_system(path, MOUNTS)
    assert (found.place, found.kind, found.free_bytes, found.free_entries) == (place, kind, 5 * 4096, -1)


def test_a_folder_that_can_not_be_read_is_swept_as_well(tmp_path: Path) -> None:
    """What an examination that was killed under a strict umask has left; a link of the same name is not followed."""
    other = tmp_path / "other"
    other.mkdir(0o500)
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / ".guntainer-doctor-link").symlink_to(other)
    (parent / ".guntainer-doctor-left").mkdir(0o700)
    (parent / ".guntainer-doctor-left").chmod(0)
    before = os.umask(0o777)
    try:
        made = Path(storage.make_beside(f"{parent}/store"))
    finally:
        os.umask(before)
    assert made.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(parent)) == sorted([".guntainer-doctor-link", made.name])
    assert other.stat().st_mode & 0o777 == 0o500


def test_the_umask_is_no_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = os.umask(0o777)
    try:
        with examine.Circumstances(store=str(tmp_path / "store")) as around:
            assert storage.store(around).status != MISSING
            assert storage._lower(around)
        assert not [name for name in os.listdir(tmp_path) if "doctor" in name]
        assert os.umask(0o777) == 0o777
    finally:
        os.umask(before)


@pytest.mark.parametrize(
    ("number", "say"),
    [(errno.EACCES, "of/yours"), (errno.EROFS, "of/yours"), (errno.ENOSPC, "larger"), (errno.EDQUOT, "larger")],
)
def test_what_helps_a_store_fits_its_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, say: str
) -> None:
    def fail(path: str) -> str:
        raise OSError(number, os.strerror(number), path)

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(storage, "make_beside", fail)
    with examine.Circumstances(store="/some/store") as around:
        found = storage.store(around)
    assert found.status == MISSING
    assert os.strerror(number) in found.found
    assert say in found.remedy[0]


def test_options_of_a_mount_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        os, "statvfs", lambda _path: os.statvfs_result((1, 1, 9 << 30, 9 << 30, 9 << 30, 9, 9, 9, 0, 255))
    )
    found = storage.file_system("/home/with blank/x", MOUNTS)
    assert found.describe() == "tmpfs, 9 GiB free, noexec, nosuid" and found.free_entries == 9


# -- bars, on hosts that are made of files


class Around:
    """Circumstances of a host that is a folder."""

    def __init__(self, root: Path, text: str) -> None:
        self.host = refusals.Host(str(root))
        self.system = distribution.Distribution(name=text, family="debian")


def around(tmp_path: Path, **files: str) -> Any:
    for name, text in files.items():
        path = tmp_path / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Around(tmp_path, "Ubuntu 24.04")


RESTRICTED = "proc__sys__kernel__apparmor_restrict_unprivileged_userns"
ENABLED = "sys__module__apparmor__parameters__enabled"
CURRENT = "proc__self__attr__apparmor__current"


@pytest.mark.parametrize(
    ("files", "refused", "status", "said"),
    [
        ({}, False, OK, "not active"),
        ({ENABLED: "N"}, True, OK, "not active"),
        ({ENABLED: "Y", CURRENT: "unconfined"}, True, OK, "unconfined"),
        ({ENABLED: "Y", RESTRICTED: "0"}, True, OK, "unconfined"),
        ({ENABLED: "Y", RESTRICTED: "1"}, False, OK, "does not restrict this program"),
        ({ENABLED: "Y", RESTRICTED: "1"}, True, MISSING, "apparmor_parser -r /etc/apparmor.d/guntainer"),
        ({ENABLED: "Y", CURRENT: "docker-default (enforce)"}, True, MISSING, "apparmor=unconfined"),
        ({ENABLED: "Y", CURRENT: "docker-default (enforce)"}, False, OK, "docker-default"),
    ],
)
def test_apparmor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], refused: bool, status: str, said: str
) -> None:
    monkeypatch.setattr(kernel, "user_trial", lambda: ("mount", errno.EACCES) if refused else None)
    found = kernel.apparmor(around(tmp_path, **files))
    assert found.status == status
    assert said in "\n".join([found.found, *found.remedy])


@pytest.mark.parametrize(
    ("value", "refused", "status"), [("", True, OK), ("1", True, OK), ("0", False, OK), ("0", True, MISSING)]
)
def test_debians_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, refused: bool, status: str) -> None:
    monkeypatch.setattr(kernel, "user_trial", lambda: ("clone", errno.EPERM) if refused else None)
    files = {"proc__sys__kernel__unprivileged_userns_clone": value} if value else {}
    found = kernel.debian_bar(around(tmp_path, **files))
    assert found.status == status
    assert bool(found.remedy) is (status == MISSING)


def test_an_old_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_refused", lambda _calls: {"mount_setattr": errno.ENOSYS})
    found = kernel.version(around(tmp_path))
    assert found.status == MISSING and "has no mount_setattr: 5.12 is needed" in found.found
    monkeypatch.setattr(kernel, "_refused", lambda _calls: {})
    assert "CONFIG_USER_NS" in kernel.version(around(tmp_path)).found
    assert kernel.version(around(tmp_path, proc__self__ns__user="")).status == OK
    monkeypatch.setattr(kernel.program, "has_machine_code", lambda: False)
    if os.uname().machine in kernel.machine_code.MACHINE_CODE:
        assert kernel.version(around(tmp_path)).status == DEGRADED


# -- what is shown

GOOD = Probe(id="good", what="", attempt=lambda _: ok("fine"), needed=True)
WORSE = Probe(id="worse", what="", attempt=lambda _: degraded("half", "sudo mend half"))
BAD = Probe(id="bad-one", what="", attempt=lambda _: missing("none", "sudo mend it", "# or not"), needed=True)
AFTER = Probe(id="after", what="", attempt=lambda _: ok("never"), needs=("bad-one",))
LAST = Probe(id="last", what="", attempt=lambda around: ok(around.findings["worse"].found), after=("worse", "bad-one"))
FAKES = {probe.id: probe for probe in (GOOD, WORSE, BAD, AFTER, LAST)}


class Nothing:
    """Circumstances without folders."""

    def __init__(self) -> None:
        self.findings: dict[str, Finding] = {}


def tried(*names: str) -> dict[str, Finding]:
    around = Nothing()
    rows = examine.examine([FAKES[name] for name in names], FAKES, around)  # type: ignore[arg-type]
    return {probe.id: finding for probe, finding in rows}


def test_what_needs_a_missing_one_is_not_tried() -> None:
    found = tried(*FAKES)
    assert list(found) == list(FAKES)
    assert found["after"] == missing("needs bad-one", because="bad-one")
    assert found["last"] == ok("half")
    assert [finding.status for finding in found.values()] == [OK, DEGRADED, MISSING, MISSING, OK]


def test_only_the_wanted_are_shown() -> None:
    assert list(tried("last")) == ["last"]
    assert tried("after")["after"].because == "bad-one"


def test_rows_are_aligned() -> None:
    found = tried(*FAKES)
    text = "".join(table.row(FAKES[name], finding, 7, colour=False) for name, finding in found.items())
    assert text.splitlines() == [
        "good     ok        fine",
        "worse    degraded  half",
        "         sudo mend half",
        "bad-one  missing   none",
        "         sudo mend it",
        "         # or not",
        "after    missing   needs bad-one",
        "last     ok        half",
    ]
    assert "\x1b[31mmissing" in table.row(BAD, found["bad-one"], 7, colour=True)
    assert "; see other" in table.row(BAD, missing("none", because="other"), 7, colour=False)


def test_the_summary() -> None:
    rows = [(FAKES[name], finding) for name, finding in tried(*FAKES).items()]
    assert table.summary(rows) == "5 probes: 2 ok, 1 degraded, 2 missing; containers can not be run here: bad-one\n"
    assert table.summary(rows[:1]) == "1 probe: 1 ok; containers can be run here\n"


def test_the_json_object() -> None:
    rows = [(FAKES[name], finding) for name, finding in tried(*FAKES).items()]
    found = json.loads(json.dumps(table.json_object(rows, "Debian")))
    assert (found["version"], found["ok"], found["distribution"]) == (1, False, "Debian")
    assert found["probes"][2] == {
        "id": "bad-one",
        "needed": True,
        "status": "missing",
        "found": "none",
        "because": "",
        "remedy": ["sudo mend it", "# or not"],
    }
    assert table.json_object(rows[:2], "")["ok"]


def test_ids_are_words_with_dashes() -> None:
    for name, probe in PROBES.items():
        assert name == probe.id and name.replace("-", "").isalnum() and name == name.lower()
        assert {*probe.needs, *probe.after} <= set(PROBES)
        order = list(PROBES)
        assert all(order.index(one) < order.index(name) for one in (*probe.needs, *probe.after))


# -- processes of probes


def test_a_probe_that_raises_is_missing() -> None:
    def raises() -> Finding:
        raise ValueError("of mine")

    assert examine.bounded(raises, 5) == missing("ValueError: of mine")


def test_a_probe_that_dies_is_missing() -> None:
    assert examine.bounded(lambda: os._exit(3), 5) == missing("the probe has died")


def test_a_probe_that_hangs_is_killed_with_what_it_started(tmp_path: Path) -> None:
    def hangs() -> Finding:
        daemon = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60'"
        subprocess.run(["sh", "-c", f"({daemon} &)"], check=True)
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        time.sleep(60)
        return ok("late")

    assert examine.bounded(hangs, 1.0) == missing("no answer within 1 s")
    assert processes.descendants(os.getpid()) == []
    assert not processes.alive(int((tmp_path / "pid").read_text()))


def test_a_probe_leaves_no_process(tmp_path: Path) -> None:
    def starts() -> Finding:
        daemon = f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60'"
        subprocess.run(["sh", "-c", f"({daemon} &)"], check=True)
        while not (tmp_path / "pid").exists():
            time.sleep(0.01)
        return ok("done")

    assert examine.bounded(starts, 5) == ok("done")
    assert not processes.alive(int((tmp_path / "pid").read_text()))
