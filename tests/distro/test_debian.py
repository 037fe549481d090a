"""A real Debian: apt, dpkg and its tools for accounts and owners work, with one id and with a range.

The packages come from a repository that the test makes and serves on loopback.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import KINDS, Box, shared_store
from conftest import PROJECT, Run, Traces
from debian import Missing, rootfs
from likeness import Both
from packages import Entry, apt_repository, deb, tar
from serving import Served, serve

from guntainer import idmap
from guntainer.store.remove import remove_tree

# the first of them makes the rootfs
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400), pytest.mark.usefixtures("user_namespaces")]


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return rootfs(tmp_path_factory.mktemp("debian"))
    except Missing as error:
        pytest.skip(f"no Debian can be made here: {error}")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with shared_store(tmp_path_factory.mktemp("store")) as folder:
        yield folder


@pytest.fixture
def of_debian(home: Path, store: Path, monkeypatch: pytest.MonkeyPatch, debian: Path) -> Path:
    monkeypatch.setenv("GUNTAINER_STORE", str(store))
    return debian


@pytest.fixture(params=KINDS)
def box(request: pytest.FixtureRequest, of_debian: Path, guntainer: Run, traces: Traces) -> Iterator[Box]:
    if request.param == "range":
        request.getfixturevalue("a_range")
    yield Box(guntainer, of_debian, request.param)
    traces.check()


POSTINST = """
useradd --system --no-create-home --shell /usr/sbin/nologin gt-system
adduser --system --group --no-create-home --quiet gt-server
chown gt-system:gt-server /var/lib/gt-owned
chgrp shadow /usr/bin/gt-setgid
chmod 2755 /usr/bin/gt-setgid
install -o daemon -g daemon -m 640 /dev/null /var/lib/gt-owned/installed
chown -R --from=root man: /usr/share/gt-owned
mkdir -p /run/gt && chown gt-server: /run/gt
"""
FILES = [
    Entry("usr/bin/gt-setuid", 0, 0, 0o4755),
    Entry("usr/bin/gt-setgid", 0, 0, 0o755),
    Entry("var/lib/gt-owned", 0, 0, 0o2770, None),
    Entry("var/mail/gt", 5, 8, 0o660),
    Entry("usr/share/gt-owned/file", 0, 0, 0o644),
    Entry("usr/share/gt-owned/of-2", 2, 3, 0o600),
]
STAT = "stat -c '%U:%G %a' /usr/bin/gt-setuid /usr/bin/gt-setgid /var/lib/gt-owned /var/lib/gt-owned/installed \
/var/mail/gt /usr/share/gt-owned/file /usr/share/gt-owned/of-2 /run/gt"
OWNERS = ["root:root", "root:shadow", "gt-system:gt-server", "daemon:daemon", "games:mail", "man:man", "bin:sys"]
OWNERS += ["gt-server:gt-server"]
MODES = ["4755", "2755", "2770", "640", "660", "644", "600", "755"]


def owned(box: Box) -> list[str]:
    """What STAT says: everything is root's where one id is mapped, and modes are as they should be everywhere."""
    owners = OWNERS if box.userns == "range" else ["root:root"] * len(OWNERS)
    return [f"{owner} {mode}" for owner, mode in zip(owners, MODES, strict=True)]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Served]]:
    folder = tmp_path_factory.mktemp("repository")
    deb(folder, "gt-base", [Entry("usr/share/gt-base/file", 1, 1, 0o640)], "chown nobody:nogroup /usr/share/gt-base")
    deb(folder, "gt-owned", FILES, POSTINST, depends="gt-base")
    apt_repository(folder)
    with serve(folder) as served:
        yield folder, served


INSTALL = """
rm -rf /etc/apt/sources.list.d/*
echo 'deb [trusted=yes] {address} ./' > /etc/apt/sources.list
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y gt-owned >&2
"""


def test_apt_get(box: Box, repository: tuple[Path, Served]) -> None:
    script = f"""{INSTALL.format(address=repository[1].address)}
    {STAT}
    stat -c '%U:%G %a' /usr/share/gt-base/file /usr/share/gt-base
    dpkg-query -W -f '${{Package}} ${{Status}}\\n' 'gt-*'
    dpkg --audit
    apt-get -qq purge -y gt-owned >&2
    test ! -e /usr/bin/gt-setuid && echo gone
    """
    repository[1].asked.clear()
    of_base = [box.either("root:root 640", "daemon:daemon 640"), box.either("root:root 755", "nobody:nogroup 755")]
    states = ["gt-base install ok installed", "gt-owned install ok installed", "gone"]
    assert box.sh(script) == [*owned(box), *of_base, *states]
    # it came from here, and nothing else was asked for it
    assert {"/Packages", "/Release", "/gt-base_1.0_all.deb", "/gt-owned_1.0_all.deb"} <= {
        path.replace("/./", "/") for path in repository[1].asked
    }


def test_dpkg(box: Box, repository: tuple[Path, Served]) -> None:
    told = box.sh(f"dpkg -i /debs/*.deb >&2; {STAT}; dpkg -r gt-owned gt-base >&2", "-v", f"{repository[0]}:/debs:ro")
    assert told == owned(box)


def test_without_emulation_dpkg_fails(of_debian: Path, guntainer: Run, repository: tuple[Path, Served]) -> None:
    """What the tests above show is the emulation's work."""
    box = Box(guntainer, of_debian, "single")
    done = box.try_sh("dpkg -i /debs/*.deb", "--root-emulation", "off", "-v", f"{repository[0]}:/debs:ro")
    assert done.returncode == 1
    assert "error setting ownership" in done.stderr


def test_accounts(box: Box) -> None:
    script = """
    useradd --create-home --shell /bin/sh anna
    adduser --disabled-password --gecos '' berta >&2
    groupadd --system team; usermod -aG team anna; gpasswd -a berta team >&2
    echo anna:secret | chpasswd
    chage -M 90 anna; passwd -l berta >&2
    id anna; id -Gn berta | tr ' ' '\\n' | grep team
    stat -c '%U:%G' /home/anna/.profile /home/berta
    getent shadow anna | cut -c 1-8; stat -c '%U:%G %a' /etc/shadow
    userdel anna; deluser --quiet berta
    getent passwd anna berta || echo gone
    """
    assert box.sh(script) == [
        "uid=1000(anna) gid=1000(anna) groups=1000(anna),999(team)",
        "team",
        box.either("root:root", "anna:anna"),
        box.either("root:root", "berta:berta"),
        "anna:$y$",
        box.either("root:root 640", "root:shadow 640"),
        "gone",
    ]


def test_owners(box: Box, home: Path) -> None:
    """install, chown of many, cp, and tar with owners: there and back."""
    entries = [Entry("t", 5, 60, 0o2750, None), Entry("t/a", 7, 9, 0o4711), Entry("t/b", 33, 33, 0o600)]
    (home / "owned.tar").write_bytes(tar(entries))
    script = """
    cd /root
    install -d -o daemon -g staff -m 3770 d; install -o daemon -g mail -m 4750 /etc/hostname d/f
    cp -a d e; stat -c '%U:%G %a' d d/f e/f
    mkdir many; seq -f many/%g 3000 | xargs touch; chown -R www-data:www-data many; chgrp -h tty many/7
    find many -user {user} | wc -l
    tar xpf /owned.tar --same-owner; stat -c '%u:%g %a' t t/a t/b
    tar cpf again.tar --sort=name t; tar tvf again.tar --numeric-owner | awk '{{ print $2 }}'
    """
    told = box.sh(script.format(user=box.either("root", "www-data")), "-v", f"{home / 'owned.tar'}:/owned.tar:ro")
    if box.userns == "single":
        owners = ["root:root"] * 3 + ["0:0"] * 3
    else:
        owners = ["daemon:staff", "daemon:mail", "daemon:mail", "5:60", "7:9", "33:33"]
    modes = ["3770", "4750", "4750", "2750", "4711", "600"]
    told_of = [f"{owner} {mode}" for owner, mode in zip(owners, modes, strict=True)]
    packed = [owner.replace(":", "/") for owner in owners[3:]]
    assert told == [*told_of[:3], "3001", *told_of[3:], *packed]


def test_other_users(of_debian: Path, a_range: None, guntainer: Run, traces: Traces) -> None:
    box = Box(guntainer, of_debian, "range")
    script = """
    su -s /bin/sh nobody -c id
    runuser -u man -- id -un
    setpriv --reuid daemon --regid daemon --init-groups id -nu
    chroot --userspec=games / id -un
    su -s /bin/sh nobody -c 'cat /etc/shadow' 2> /dev/null || echo refused
    su -s /bin/sh nobody -c 'touch /tmp/x && stat -c %U:%G /tmp/x && mkdir /tmp/y && rmdir /tmp/y'
    su -s /bin/sh nobody -c 'expiry -f' && echo setgid
    """
    nobody = "uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)"
    assert box.sh(script) == [nobody, "man", "daemon", "games", "refused", "nobody:nogroup", "setgid"]
    traces.check()


ROW = re.compile(r"\| `(?P<command>.+)` \| (?P<single>.+) \| (?P<range>.+) \|")


def test_the_readme_says_what_is_not_emulated(box: Box) -> None:
    text = (PROJECT / "README.md").read_text()
    head = "| in a Debian's shell | one id | a range |\n| --- | --- | --- |\n"
    table = text[text.index(head) + len(head) :].partition("\n\n")[0].splitlines()
    rows = [ROW.fullmatch(line) for line in table]
    assert len(rows) >= 5 and None not in rows, table
    script = "".join(f"( mkdir /{n}; cd /{n}; {row['command']} ) 2> /dev/null\n" for n, row in enumerate(rows) if row)
    assert box.sh(f"set +e\n{script}") == [row[box.userns] for row in rows if row]


def test_devices(box: Box, home: Path) -> None:
    """Nodes are made in name only with one id, and refused with a range; there too they can be emulated."""
    script = "cd /root; mknod c c 1 3 && mknod b b 7 0 && test ! -e b && echo fine; mknod p p && stat -c %F p"
    assert box.try_sh(script).stdout.split() == (["fine", "fifo"] if box.userns == "single" else ["fifo"])
    assert box.sh(script, "--root-emulation", "on") == ["fine", "fifo"]


def test_a_batch_installs_in_many_at_once(
    of_debian: Path, home: Path, guntainer: Run, traces: Traces, repository: tuple[Path, Served]
) -> None:
    job = {"rootfs": str(of_debian), "run": INSTALL.format(address=repository[1].address) + STAT, "repeat": 6}
    (home / "jobs.json").write_text(json.dumps({"jobs": {"apt": job}}))
    done = guntainer("batch", "--userns", "single", "-j", "3", "--results", home / "results", home / "jobs.json")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    logs = [path.read_text().splitlines() for path in sorted((home / "results").glob("*/stdout"))]
    assert logs == [owned(Box(guntainer, of_debian, "single"))] * 6
    traces.check()


@pytest.mark.parametrize("kind", KINDS)
def test_the_tree_is_what_tar_makes(home: Path, debian: Path, kind: str, a_range: None) -> None:
    """But for the devices, which neither can make here."""
    ids = idmap.open_ids(kind)
    try:
        found = Both(home, ids).compare(debian, without="dev")
        assert len(found) > 5000
        assert kind == "single" or len({tuple(row["owner"]) for row in found.values()}) > 5
    finally:
        for name in ("ours", "theirs"):
            remove_tree(str(home / name))
        if ids.namespace >= 0:
            os.close(ids.namespace)
