"""What a command may do: capabilities, hidden paths, devices, the seccomp filter; and what a hostile one tries in vain."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Run, Traces, host_rootfs

from guntainer import capabilities
from guntainer.spec import MASKED, READ_ONLY

pytestmark = pytest.mark.usefixtures("user_namespaces")

USERNS = ["auto", "single"]


def mask_of(*names: str) -> int:
    return sum(1 << capabilities.KNOWN.index(name) for name in names)


def last_capability() -> int:
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())


ALL = (1 << (last_capability() + 1)) - 1
DEFAULT = mask_of(*capabilities.DEFAULT)


@pytest.mark.root
@pytest.mark.parametrize("userns", USERNS)
@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ([], DEFAULT),
        (["--cap-drop", "ALL"], 0),
        (["--cap-drop", "all", "--cap-add", "net_bind_service"], mask_of("CAP_NET_BIND_SERVICE")),
        (["--cap-add", "SYS_TIME", "--cap-drop", "CAP_CHOWN"], (DEFAULT | mask_of("CAP_SYS_TIME")) & ~1),
        (["--cap-add", "ALL", "--cap-drop", "SYS_ADMIN"], ALL & ~mask_of("CAP_SYS_ADMIN")),
        (["--privileged"], ALL),
        (["--privileged", "--cap-drop", "SYS_ADMIN"], ALL & ~mask_of("CAP_SYS_ADMIN")),
        (["--privileged", "--cap-drop", "ALL", "--cap-add", "KILL"], mask_of("CAP_KILL")),
    ],
)
def test_capabilities(small_archive: Path, guntainer: Run, userns: str, options: list[str], kept: int) -> None:
    done = guntainer("run", "--userns", userns, *options, small_archive, "grep", "^Cap", "/proc/self/status")
    if os.geteuid() == 0 and kept & mask_of("CAP_SYS_ADMIN", "CAP_SYS_PTRACE"):
        assert done.returncode == 125 and "host's root" in done.stderr
        return
    found = {name: int(value, 16) for name, value in re.findall(r"Cap(\w+):\s+([0-9a-f]+)", done.stdout)}
    assert found == {"Inh": 0, "Prm": kept, "Eff": kept, "Bnd": kept, "Amb": 0}, done.stderr


@pytest.mark.parametrize("userns", USERNS)
@pytest.mark.parametrize("init", [[], ["--init"]])
def test_another_user_has_no_capability(small_archive: Path, guntainer: Run, userns: str, init: list[str]) -> None:
    line = ["run", "--userns", userns, *init, "--privileged", "-u", "1000", small_archive]
    done = guntainer(*line, "grep", "^Cap", "/proc/self/status")
    found = dict(re.findall(r"Cap(\w+):\s+([0-9a-f]+)", done.stdout))
    assert {int(found[name], 16) for name in ("Inh", "Prm", "Eff", "Amb")} == {0}, done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--cap-add", "SYS_TIMES"], 'unknown capability "SYS_TIMES" (did you mean "SYS_TIME"?)'),
        (["--cap-drop", ""], "unknown capability"),
        (["--security-opt", "seccomp"], "expected no-new-privileges, seccomp=FILE"),
        (["--security-opt", "secomp=x"], 'did you mean "seccomp"?'),
        (["--security-opt", "unmask=/proc/kcores"], 'did you mean "/proc/kcore"?'),
        (["--security-opt", "seccomp=/no/such/file"], "/no/such/file"),
        (["--userns", "host"], "choose from"),
        (["--root-emulation", "yes"], "choose from"),
    ],
)
def test_mistakes(small_archive: Path, guntainer: Run, traces: Traces, words: list[str], told: str) -> None:
    done = guntainer("run", *words, small_archive, "true")
    assert done.returncode == 125
    assert told in done.stderr and len(done.stderr.splitlines()) == 1
    traces.check()


def test_keys_of_a_job(small_archive: Path, guntainer: Run, home: Path) -> None:
    script = "grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status; cat /proc/sys/kernel/hostname > /dev/null && echo read"
    file = {
        "defaults": {"rootfs": str(small_archive), "run": script, "cap-drop": ["ALL"]},
        "jobs": {
            "none": {"security-opt": ["no-new-privileges"]},
            "one": {"cap_add": ["NET_RAW"]},
            "many": {"privileged": True, "cap-drop": []},
        },
    }
    (home / "jobs.json").write_text(json.dumps(file))
    done = guntainer("batch", "--results", home / "results", home / "jobs.json")
    assert done.returncode == 0, done.stdout
    told = {name: (home / "results" / name / "stdout").read_text().split() for name in file["jobs"]}
    assert int(told["none"][1], 16) == 0 and told["none"][3] == "1"
    assert int(told["one"][1], 16) == mask_of("CAP_NET_RAW") and told["one"][3] == "0"
    assert int(told["many"][1], 16) == ALL


def test_mistakes_in_keys(small_archive: Path, guntainer: Run, home: Path) -> None:
    job = {
        "rootfs": str(small_archive),
        "command": ["true"],
        "cap-add": ["NO_SUCH"],
        "security-opt": ["apparmor=x", 5],
        "privileged": "maybe",
        "root-emulation": "perhaps",
    }
    (home / "jobs.json").write_text(json.dumps({"jobs": {"a": job}}))
    done = guntainer("batch", home / "jobs.json")
    assert done.returncode == 2
    for place in ("cap-add[0]", "security-opt[0]", "security-opt[1]", "privileged", "root-emulation"):
        assert f"jobs.a.{place}: " in done.stderr, place


# -- paths


def there(paths: tuple[str, ...]) -> list[str]:
    return [path for path in paths if os.path.exists(path)]


LOOK = """
for path in "$@"; do
    if test -d $path; then echo $path entries $(ls -A $path | wc -l)
    else echo $path bytes $(head -c 100 $path 2>/dev/null | wc -c); fi
done
"""


@pytest.mark.root
@pytest.mark.parametrize("userns", USERNS)
def test_masked_paths(small_archive: Path, guntainer: Run, userns: str) -> None:
    paths = there(MASKED)
    done = guntainer("run", "--userns", userns, small_archive, "sh", "-c", LOOK, "sh", *paths)
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [words[0] for words in lines] == paths
    assert {words[2] for words in lines} == {"0"}, done.stdout


def test_unmask(small_archive: Path, guntainer: Run) -> None:
    shown = next(path for path in there(("/proc/interrupts", "/proc/timer_list", "/proc/sched_debug")))
    for value, bytes_read in ((shown, "100"), ("ALL", "100"), ("/proc/kcore", "0")):
        line = ["run", "--security-opt", f"unmask={value}", small_archive, "sh", "-c", LOOK, "sh", shown]
        told = guntainer(*line).stdout.split()
        # who may read it at all is the host's affair
        assert (
            told[2] == bytes_read or (told[2] == "0" and not os.access(shown, os.R_OK)) or shown != "/proc/interrupts"
        )


WRITE = "for path in $0; do echo x > $path; done; cat /proc/mounts"


@pytest.mark.root
@pytest.mark.parametrize("userns", USERNS)
def test_read_only_paths(small_archive: Path, guntainer: Run, userns: str) -> None:
    files = ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches"]
    paths = [*there(tuple(files)), "/sys/x", "/sys/kernel/x"]
    done = guntainer("run", "--userns", userns, small_archive, "sh", "-c", WRITE, " ".join(paths))
    assert done.stderr.count("Read-only file system") == len(paths), done.stderr
    mounts = {words[1]: words[3].split(",") for words in map(str.split, done.stdout.splitlines())}
    assert all("ro" in mounts[path] for path in there(READ_ONLY))


def test_devices(small_archive: Path, guntainer: Run) -> None:
    done = guntainer("run", small_archive, "sh", "-c", "cd /dev && stat -c '%n %F' *")
    found = {name for name, _, kind in (line.partition(" ") for line in done.stdout.splitlines()) if "special" in kind}
    assert found == {"null", "zero", "full", "random", "urandom", "tty"}


# -- a hostile command


PYTHON = "/usr/bin/python3"


@pytest.fixture
def snake(home: Path) -> list[object]:
    """Options and a rootfs in which the host's Python runs: the worst tool to have inside."""
    if not os.path.exists(PYTHON):
        pytest.skip("there is no /usr/bin/python3 to attack with")
    rootfs = home / "snake"
    binds = [word for text in host_rootfs(rootfs) for word in ("-v", text)]
    return [*binds, rootfs]


ATTACKS = """
import ctypes, errno, fcntl, os, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
machine = os.uname().machine
NUMBERS = {"x86_64": dict(ptrace=101, mount=165, umount2=166, setns=308, unshare=272, keyctl=250, add_key=248, bpf=321,
    kexec_load=246, init_module=175, reboot=169, swapon=167, open_by_handle_at=304, perf_event_open=298, syslog=103,
    userfaultfd=323, io_uring_setup=425, acct=163, settimeofday=164, pivot_root=155, quotactl=179, iopl=172, fsopen=430,
    open_tree=428, clone3=435, mount_setattr=442, process_vm_readv=310)}
numbers = NUMBERS.get(machine, {})
def call(name, *arguments):
    if libc.syscall(ctypes.c_long(numbers[name]), *arguments) == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return "done"
def text(value): return ctypes.c_char_p(value)
def tiocsti():
    master, slave = os.openpty()
    fcntl.ioctl(slave, 0x5412, b"x"); return "done"
def outside_root(): return "done" if os.path.exists("/proc/1/root" + MARK) else 1/0
def many_processes():
    pids = [n for n in os.listdir("/proc") if n.isdigit() and int(n) not in (os.getpid(), 1)]
    return "done" if pids else 1/0
def fds():
    extra = [n for n in os.listdir("/proc/self/fd") if int(n) > 2 and not os.readlink(f"/proc/self/fd/{n}").startswith("/proc")]
    return "done" if extra else 1/0
def kill_all(): os.kill(-1, 0); return "done"
def write(path, data=b"1"):
    with open(path, "wb", buffering=0) as file: file.write(data)
    return "done"
def device():
    os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)); open("/tmp/disk", "rb"); return "done"
def cgroup():
    for top, folders, files in os.walk("/sys/fs/cgroup"):
        for name in ("cgroup.procs", "release_agent"):
            if name in files:
                write(f"{top}/{name}", b"0"); return "done"
    1/0
def chroot_out():
    os.mkdir("/tmp/jail"); os.chroot("/tmp/jail")
    for _ in range(40): os.chdir("..")
    os.chroot(".")
    return "done" if os.path.exists(MARK) else 1/0
def setuid_shell():
    os.setuid(12345); return "done" if os.geteuid() != 12345 else 1/0
def vsock(): socket.socket(40, socket.SOCK_STREAM); return "done"
MARK = sys.argv[1]
ATTACKS = dict(
    mount=lambda: call("mount", text(b"none"), text(b"/tmp"), text(b"tmpfs"), 0, 0),
    remount=lambda: call("mount", text(b"none"), text(b"/sys"), 0, 32, 0),
    umount=lambda: call("umount2", text(b"/proc/sys"), 2),
    unshare_user=lambda: call("unshare", 0x10000000),
    unshare_mount=lambda: call("unshare", 0x20000),
    setns=lambda: call("setns", os.open("/proc/1/ns/mnt", os.O_RDONLY), 0),
    keyctl=lambda: call("keyctl", 0, -3, 0), add_key=lambda: call("add_key", text(b"user"), text(b"k"), text(b"v"), 1, -3),
    bpf=lambda: call("bpf", 0, 0, 0), kexec=lambda: call("kexec_load", 0, 0, 0, 0),
    module=lambda: call("init_module", 0, 0, 0), reboot=lambda: call("reboot", 0xfee1dead, 672274793, 0x89abcdef, 0),
    swapon=lambda: call("swapon", text(b"/tmp"), 0), handle=lambda: call("open_by_handle_at", -100, 0, 0),
    perf=lambda: call("perf_event_open", 0, 0, -1, -1, 0), syslog=lambda: call("syslog", 3, ctypes.create_string_buffer(99), 99),
    userfaultfd=lambda: call("userfaultfd", 0), io_uring=lambda: call("io_uring_setup", 1, ctypes.create_string_buffer(200)),
    acct=lambda: call("acct", text(b"/tmp/acct")), clock=lambda: call("settimeofday", ctypes.create_string_buffer(16), 0),
    pivot=lambda: call("pivot_root", text(b"/tmp"), text(b"/tmp")), iopl=lambda: call("iopl", 3),
    fsopen=lambda: call("fsopen", text(b"tmpfs"), 0), open_tree=lambda: call("open_tree", -100, text(b"/"), 1),
    clone3=lambda: call("clone3", 0, 0), tiocsti=tiocsti, outside_root=outside_root, other_processes=many_processes,
    leaked_descriptors=fds, kill_everybody=kill_all, device=device, cgroup=cgroup,
    chroot=chroot_out, sysrq=lambda: write("/proc/sysrq-trigger", b"h"), core_pattern=lambda: write("/proc/sys/kernel/core_pattern"),
    kcore=lambda: "done" if open("/proc/kcore", "rb").read(10) else 1/0, oom_of_1=lambda: write("/proc/1/oom_score_adj", b"-1000"),
    uid_map=lambda: write("/proc/self/uid_map", b"0 0 1"), vsock=vsock, hostname=lambda: socket.sethostname("x") or "done",
)
for name, attack in ATTACKS.items():
    try:
        print(name, attack())
    except KeyError: print(name, "unknown-here")
    except ZeroDivisionError: print(name, "nothing-there")
    except OSError as error: print(name, errno.errorcode.get(error.errno, error.errno))
"""


@pytest.mark.root
@pytest.mark.parametrize("userns", USERNS)
@pytest.mark.parametrize("init", [[], ["--init"]], ids=["pid 1", "under an init"])
def test_a_hostile_command_gains_nothing(
    home: Path, snake: list[object], guntainer: Run, traces: Traces, userns: str, init: list[str]
) -> None:
    (home / "mark").write_text("outside")
    line = ["run", "--userns", userns, *init, *snake, PYTHON, "-c", ATTACKS, home / "mark"]
    done = guntainer(*line)
    assert done.returncode == 0, done.stderr
    told = dict(line.split() for line in done.stdout.splitlines())
    assert len(told) > 35
    assert [name for name, outcome in told.items() if outcome == "done"] == []
    assert not [name for name, outcome in told.items() if outcome == "ENOSYS" and name not in ("clone3", "iopl")]
    traces.check()


SIGNALS = """
import os, sys
for pid in range(1, 70000):
    if pid in (os.getpid(), os.getppid()) : continue
    try: os.kill(pid, 0)
    except OSError: continue
    if not os.path.exists(f"/proc/{pid}"): print("reached", pid)
"""


def test_no_process_outside_is_reached(snake: list[object], guntainer: Run) -> None:
    done = guntainer("run", *snake, PYTHON, "-c", SIGNALS)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


KEY = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
add_key, keyctl = (248, 250) if os.uname().machine == "x86_64" else (217, 219)
key = libc.syscall(ctypes.c_long(add_key), b"user", b"of-the-session", b"secret", ctypes.c_size_t(6), ctypes.c_long(-3))
if key < 0:
    sys.exit(77)
words = [str(key) if word == "KEY" else word for word in sys.argv[1:]]
os.execv(words[0], words)
"""
SEARCH = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
keyctl = 250 if os.uname().machine == "x86_64" else 219
def call(*arguments):
    return libc.syscall(ctypes.c_long(keyctl), *arguments)
text = ctypes.create_string_buffer(99)
print(call(10, ctypes.c_long(-3), b"user", b"of-the-session", 0), call(11, ctypes.c_long(int(sys.argv[1])), text, 99), text.value)
"""


@pytest.mark.parametrize("userns", USERNS)
@pytest.mark.parametrize("verb", ["run", "batch"])
def test_keys_of_the_session_stay_outside(
    snake: list[object], home: Path, guntainer: Run, verb: str, userns: str
) -> None:
    """Neither found in the keyring of the session nor read by its number, even where every system call is allowed."""
    *binds, rootfs = snake
    words: list[object] = ["run", "--security-opt", "seccomp=unconfined", *snake, PYTHON, "-c", SEARCH, "KEY"]
    if verb == "batch":
        job = {
            "rootfs": str(rootfs),
            "volumes": binds[1::2],
            "command": [PYTHON, "-c", SEARCH, "${{ matrix.key }}"],
            "matrix": {"key": ["KEY"]},
            "security-opt": ["seccomp=unconfined"],
        }
        text = json.dumps({"jobs": {"a": job}})
        words = ["batch", "-"]
    script = 'exec "$@"' if verb == "run" else f"printf %s '{text}' | sed s/KEY/$0/ | \"$@\""
    line = ["sh", "-c", script, "KEY", sys.executable, "-m", "guntainer", words[0], "--userns", userns, *words[1:]]
    done = subprocess.run(
        [sys.executable, "-c", KEY, "/bin/sh", *map(str, line[1:])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode == 77:
        pytest.skip("this kernel gives this user no keys")
    assert done.returncode == 0, done.stderr
    assert "-1 -1 b''" in done.stdout


@pytest.mark.root
def test_the_store_and_the_layers_are_closed(small_archive: Path, guntainer: Run, home: Path) -> None:
    script = "echo changed > /bin/cat; echo changed > /marker"
    assert guntainer("run", small_archive, "sh", "-c", script).returncode == 0
    assert guntainer("run", small_archive, "cat", "/etc/hostname").stdout == "guntainer\n"
    assert (home / "store").stat().st_mode & 0o777 in (0o700, 0o755)  # the test has made it
    with subprocess.Popen(
        [sys.executable, "-m", "guntainer", "run", str(small_archive), "sh", "-c", "echo up; sleep 30"],
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        (base,) = (home / "tmp").glob("guntainer-*")
        closed = [base, *(path for path in base.iterdir() if path.is_dir())]
        assert {path.stat().st_mode & 0o777 for path in closed} == {0o700}
        process.terminate()


def test_no_new_privileges(small_archive: Path, guntainer: Run) -> None:
    for options, told in (([], "0"), (["--security-opt", "no-new-privileges"], "1")):
        done = guntainer("run", *options, small_archive, "grep", "NoNewPrivs", "/proc/self/status")
        assert done.stdout.split()[1] == told


@pytest.mark.parametrize("userns", USERNS)
def test_a_profile_of_ones_own(small_archive: Path, home: Path, guntainer: Run, userns: str) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71}],
    }
    (home / "work" / "profile.json").write_text(json.dumps(profile))
    for user in ("0", "1000"):
        line = ["run", "--userns", userns, "-u", user, "--security-opt", "seccomp=profile.json", small_archive]
        done = guntainer(*line, "mkdir", "/tmp/x")
        assert done.returncode == 1 and os.strerror(71) in done.stderr


# -- root emulation


def emulated(guntainer: Run, archive: Path, script: str, *options: str) -> subprocess.CompletedProcess[str]:
    return guntainer("run", "--userns", "single", "--root-emulation", "on", *options, archive, "sh", "-c", script)


def test_root_is_emulated(small_archive: Path, guntainer: Run) -> None:
    done = emulated(
        guntainer,
        small_archive,
        "touch /f && chown 5:6 /f && stat -c %u:%g /f && mkdir /d && chown -R 7 /d && echo fine",
    )
    assert done.stdout.split() == ["0:0", "fine"], done.stderr
    off = guntainer(
        "run", "--userns", "single", "--root-emulation", "off", small_archive, "sh", "-c", "touch /f; chown 5 /f"
    )
    assert off.returncode == 1 and "chown" in off.stderr


@pytest.mark.skipif(shutil.which("install") is None, reason="there is no install(1) to put into a rootfs")
def test_root_emulation_of_a_batch(small_archive: Path, guntainer: Run, home: Path) -> None:
    job = {"rootfs": str(small_archive), "run": "touch /f; chown 5 /f", "root-emulation": "on"}
    (home / "jobs.json").write_text(json.dumps({"jobs": {"on": job, "off": {**job, "root-emulation": "off"}}}))
    done = guntainer("batch", "--userns", "single", home / "jobs.json")
    assert "on   ok" in done.stdout and "off  failed" in done.stdout


def test_it_is_on_by_itself_in_a_distribution(small_archive: Path, guntainer: Run, home: Path) -> None:
    tree = guntainer("store", "path", small_archive).stdout.strip()
    subprocess.run(["cp", "-a", tree, home / "rootfs"], check=True)
    line = ["run", "--userns", "single", home / "rootfs", "sh", "-c", "touch /f; chown 5 /f; ls /etc/apt/apt.conf.d"]
    assert guntainer(*line).returncode != 0
    (home / "rootfs" / "var" / "lib" / "dpkg").mkdir(parents=True)
    (home / "rootfs" / "etc" / "apt" / "apt.conf.d").mkdir(parents=True)
    done = guntainer(*line)
    assert (done.returncode, done.stdout) == (0, "00guntainer-one-id\n"), done.stderr
    # nothing of it is in the user's folder
    assert list((home / "rootfs" / "etc" / "apt" / "apt.conf.d").iterdir()) == []
