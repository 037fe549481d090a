"""A real Alpine: apk and busybox's tools for accounts and owners work, with one id and with a range.

The packages come from a repository that the test makes and serves on loopback.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from boxes import KINDS, Box, shared_store
from conftest import Run, Traces
from packages import Entry, apk, apk_repository, tar
from serving import Served, serve

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("user_namespaces")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with shared_store(tmp_path_factory.mktemp("store")) as folder:
        yield folder


@pytest.fixture
def of_alpine(home: Path, store: Path, monkeypatch: pytest.MonkeyPatch, alpine: Path) -> Path:
    monkeypatch.setenv("GUNTAINER_STORE", str(store))
    return alpine


@pytest.fixture(params=KINDS)
def box(request: pytest.FixtureRequest, of_alpine: Path, guntainer: Run, traces: Traces) -> Iterator[Box]:
    if request.param == "range":
        request.getfixturevalue("a_range")
    yield Box(guntainer, of_alpine, request.param)
    traces.check()


PRE = "addgroup -S gt-server; adduser -S -D -H -G gt-server gt-system"
POST = """
chown :shadow /usr/bin/gt-setgid && chmod 2755 /usr/bin/gt-setgid
install -o daemon -g bin -m 640 /dev/null /var/lib/gt-owned/installed
"""
FILES = [
    Entry("usr/bin/gt-setuid", 0, 0, 0o4755),
    Entry("usr/bin/gt-setgid", 0, 0, 0o755),
    Entry("var/lib/gt-owned", 500, 500, 0o2770, None, ("gt-system", "gt-server")),
    Entry("var/lib/gt-owned/of-8", 8, 12, 0o660),
]
STAT = "cd /var/lib/gt-owned; stat -c '%U:%G %a' /usr/bin/gt-setuid /usr/bin/gt-setgid . installed of-8"
OWNERS = ["root:root", "root:shadow", "gt-system:gt-server", "daemon:bin", "mail:mail"]
MODES = ["4755", "2755", "2770", "640", "660"]


def owned(box: Box) -> list[str]:
    """What STAT says: everything is root's where one id is mapped, and modes are as they should be everywhere."""
    owners = OWNERS if box.userns == "range" else ["root:root"] * len(OWNERS)
    return [f"{owner} {mode}" for owner, mode in zip(owners, MODES, strict=True)]


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Served]]:
    base = tmp_path_factory.mktemp("repository")
    folder = base / "x86_64"
    folder.mkdir()
    base_files = [Entry("usr/share/gt-base/file", 1, 1, 0o640)]
    apk(folder, "gt-base", base_files, {"post-install": "chown nobody:nobody /usr/share/gt-base/file"})
    apk(folder, "gt-owned", FILES, {"pre-install": PRE, "post-install": POST}, depends="gt-base")
    apk_repository(folder)
    with serve(base) as served:
        yield folder, served


def test_apk_add(box: Box, repository: tuple[Path, Served]) -> None:
    script = f"""
    echo {repository[1].address} > /etc/apk/repositories
    apk update --allow-untrusted >&2
    apk add --allow-untrusted gt-owned >&2
    {STAT}; stat -c '%U:%G %a' /usr/share/gt-base/file
    cd /; apk info -e gt-owned gt-base; apk audit --packages >&2
    apk del gt-owned >&2; test ! -e /usr/bin/gt-setuid && echo gone
    """
    repository[1].asked.clear()
    of_base = box.either("root:root 640", "nobody:nobody 640")
    assert box.sh(script) == [*owned(box), of_base, "gt-owned", "gt-base", "gone"]
    wanted = {f"/x86_64/{name}" for name in ("APKINDEX.tar.gz", "gt-owned-1.0-r0.apk", "gt-base-1.0-r0.apk")}
    assert wanted == set(repository[1].asked)


def test_apk_add_of_files(box: Box, repository: tuple[Path, Served]) -> None:
    line = "apk add --no-network --allow-untrusted --repositories-file /dev/null /apks/*.apk >&2"
    assert box.sh(f"{line}; {STAT}", "-v", f"{repository[0]}:/apks:ro") == owned(box)


def test_without_emulation_apk_fails(of_alpine: Path, guntainer: Run, repository: tuple[Path, Served]) -> None:
    """What the tests above show is the emulation's work."""
    box = Box(guntainer, of_alpine, "single")
    line = "apk add --no-network --allow-untrusted --repositories-file /dev/null /apks/*.apk"
    done = box.try_sh(line, "--root-emulation", "off", "-v", f"{repository[0]}:/apks:ro")
    assert done.returncode != 0
    assert "chown" in done.stdout + done.stderr


def test_accounts(box: Box) -> None:
    script = """
    adduser -D -s /bin/sh anna; addgroup -S team; addgroup anna team; echo anna:secret | chpasswd 2> /dev/null
    id anna; stat -c '%U:%G %a' /home/anna /etc/shadow; grep -c '^anna:[$]6[$]' /etc/shadow
    deluser --remove-home anna; id anna 2> /dev/null || echo gone
    """
    assert box.sh(script) == [
        "uid=1000(anna) gid=1000(anna) groups=1000(anna),101(team)",
        box.either("root:root 2755", "anna:anna 2755"),
        box.either("root:root 640", "root:shadow 640"),
        "1",
        "gone",
    ]


def test_owners(box: Box, home: Path) -> None:
    """install, chown of many, cp, and tar with owners: there and back."""
    entries = [Entry("t", 5, 60, 0o2750, None), Entry("t/a", 7, 9, 0o4711), Entry("t/b", 33, 33, 0o600)]
    (home / "owned.tar").write_bytes(tar(entries))
    script = """
    cd /root; install -o daemon -g mail -m 4750 /etc/hostname f; cp -a f g; stat -c '%U:%G %a' f g
    mkdir many; seq 3000 | sed s,^,many/, | xargs touch; chown -R guest:users many
    find many -user {user} | wc -l
    tar xpf /owned.tar; stat -c '%u:%g %a' t t/a t/b
    """
    told = box.sh(script.format(user=box.either("root", "guest")), "-v", f"{home / 'owned.tar'}:/owned.tar:ro")
    owners = ["root:root"] * 2 + ["0:0"] * 3
    if box.userns == "range":
        owners = ["daemon:mail", "daemon:mail", "5:60", "7:9", "33:33"]
    modes = ["4750", "4750", "2750", "4711", "600"]
    told_of = [f"{owner} {mode}" for owner, mode in zip(owners, modes, strict=True)]
    assert told == [*told_of[:2], "3001", *told_of[2:]]


def test_other_users(of_alpine: Path, a_range: None, guntainer: Run, traces: Traces) -> None:
    box = Box(guntainer, of_alpine, "range")
    script = """
    su -s /bin/sh nobody -c id
    su -s /bin/sh games -c 'cat /etc/shadow' 2> /dev/null || echo refused
    su -s /bin/sh mail -c 'touch /tmp/x && stat -c %U:%G /tmp/x'
    setpriv --no-new-privs id -un
    """
    nobody = "uid=65534(nobody) gid=65534(nobody) groups=65534(nobody)"
    assert box.sh(script) == [nobody, "refused", "mail:mail", "root"]
    traces.check()
