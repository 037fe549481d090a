"""The first process of the throw-away kernel that `kernel.py` boots: sets the machine up, runs one command, powers off.

It is started on the host's files, read-only, and puts a memory overlay over them: whatever is written is gone at the end.
Its arguments are how the block devices' names begin, and three lines out. What to do comes as JSON on the second device. The
first line takes the command's stdout, the second its stderr, the third our own words, one JSON object a line: {"started":
true}, and at the end {"status": N, "bytes": [stdout, stderr]} or {"failed": "why"}.

The cgroups have the names that systemd gives, with or without it: the user's manager has user@UID.service, delegated; the
command has a scope below app.slice, and may make others there, as that manager would.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import sys
import termios
import time
import traceback

NOSUID, NODEV, NOEXEC, RDONLY, MOVE, DETACH = 2, 4, 8, 1, 8192, 2
POWER_OFF = 0x4321FEDC
CGROUPS = "/sys/fs/cgroup"
libc = ctypes.CDLL(None, use_errno=True)


def check(result, subject):
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), subject)


def mount(source, target, kind=None, flags=0, options=""):
    texts = [text.encode() if text is not None else None for text in (source, target, kind)]
    check(libc.mount(*texts, ctypes.c_ulong(flags), options.encode()), f"mount {kind} {target}")


def write(path, text):
    with open(path, "w") as file:
        file.write(text)


def load(modules, *names):
    """Load kernel modules with what they need, in the order of modules.dep."""
    with open(f"{modules}/modules.dep") as file:
        needs = dict(line.rstrip("\n").split(":", 1) for line in file)
    known = {os.path.basename(path).split(".")[0]: path for path in needs}
    done = set()
    for name in names:
        for path in [*reversed(needs[known[name]].split()), known[name]]:
            if path in done:
                continue
            done.add(path)
            with open(f"{modules}/{path}", "rb") as file:
                code = file.read()
            parameters = b"numdummies=1" if name == "dummy" else b""
            check(libc.init_module(code, ctypes.c_ulong(len(code)), parameters), path)


def root_file_system():
    """The host's files below, a tmpfs above, and the kernel's file systems on top; then that is the root."""
    mount("tmpfs", "/tmp", "tmpfs", 0, "mode=755")
    for name in ("up", "work", "root"):
        os.mkdir(f"/tmp/{name}", 0o755)
    mount("root", "/tmp/root", "overlay", 0, "lowerdir=/,upperdir=/tmp/up,workdir=/tmp/work")
    for name in ("proc", "sys", "dev"):
        os.makedirs(f"/tmp/root/{name}", exist_ok=True)
        mount(f"/{name}", f"/tmp/root/{name}", None, MOVE)
    os.chdir("/tmp/root")
    check(libc.pivot_root(b".", b"."), "pivot_root")
    check(libc.umount2(b".", DETACH), "umount")
    os.chdir("/")
    for name, mode in (("disk", 0o755), ("run", 0o755), ("tmp", 0o1777)):
        os.makedirs(f"/{name}", exist_ok=True)
        os.chmod(f"/{name}", mode)
    mount("tmpfs", "/run", "tmpfs", NOSUID | NODEV, "mode=755")
    for name, kind, options in (
        ("pts", "devpts", "gid=5,mode=620,ptmxmode=666"), ("shm", "tmpfs", "mode=1777"), ("mqueue", "mqueue", ""),
    ):  # fmt: skip
        os.makedirs(f"/dev/{name}", exist_ok=True)
        mount(kind, f"/dev/{name}", kind, NOSUID | NOEXEC, options)


def devices(closed):
    """Links and permissions as udev makes them."""
    for text, path in (("/proc/self/fd", "fd"), ("fd/0", "stdin"), ("fd/1", "stdout"), ("fd/2", "stderr")):
        os.symlink(text, f"/dev/{path}")
    os.unlink("/dev/ptmx")
    os.symlink("pts/ptmx", "/dev/ptmx")
    for path in ("/dev/net/tun", "/dev/fuse"):
        os.chmod(path, 0o600 if path in closed else 0o666)


def network():
    """`lo`, and an interface with an address and a route that lead nowhere: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:

        def address(text):
            return struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(text))

        def ask(number, name, payload):
            fcntl.ioctl(sock, number, name.encode().ljust(16, b"\0") + payload.ljust(24, b"\0"))

        up = struct.pack("=H", 1)
        ask(0x8914, "lo", up)  # SIOCSIFFLAGS
        ask(0x8916, "dummy0", address("192.0.2.2"))  # SIOCSIFADDR
        ask(0x891C, "dummy0", address("255.255.255.0"))  # SIOCSIFNETMASK
        ask(0x8914, "dummy0", up)
        up_gateway = 3
        route = struct.pack("@L16s16s16sH", 0, address("0.0.0.0"), address("192.0.2.1"), address("0.0.0.0"), up_gateway)
        fcntl.ioctl(sock, 0x890B, route.ljust(120, b"\0"))  # SIOCADDRT


def user_of(uid):
    """(name, gid) of a user, made up where the host has none; sub-ids as useradd(8) would give."""
    with open("/etc/passwd") as file:
        rows = [line.split(":") for line in file if line.strip()]
    found = next((row for row in rows if row[2] == str(uid)), None)
    if found is None:
        found = ["vm", "x", str(uid), str(uid)]
        for path, line in (("passwd", f"vm:x:{uid}:{uid}::/disk/home:/bin/sh\n"), ("group", f"vm:x:{uid}:\n")):
            with open(f"/etc/{path}", "a") as file:
                file.write(line)
    for path in ("/etc/subuid", "/etc/subgid"):
        with contextlib.suppress(FileNotFoundError), open(path) as file:
            if any(line.split(":")[0] in (found[0], str(uid)) for line in file):
                continue
        with open(path, "a") as file:
            file.write(f"{found[0]}:1000000:65536\n")
    return found[0], int(found[3])


def give(path, uid, gid, *, everything):
    """Make a cgroup the user's: what may be delegated of it, or all that is in it, as below a user's own manager."""
    os.chown(path, uid, gid)
    with open("/sys/kernel/cgroup/delegate") as file:
        names = file.read().split()
    for name in os.listdir(path):
        if (everything or name in names) and not os.path.isdir(f"{path}/{name}"):
            os.chown(f"{path}/{name}", uid, gid)


def cgroups(uid, gid, config):
    """Mount cgroup2 and delegate; returns (the user's cgroup, the command's)."""
    mount("cgroup2", CGROUPS, "cgroup2", NOSUID | NODEV | NOEXEC, "nsdelegate,memory_recursiveprot")
    with open(f"{CGROUPS}/cgroup.controllers") as file:
        wanted = file.read().split()
    if config["controllers"] is not None:
        wanted = config["controllers"].split()
    os.mkdir(f"{CGROUPS}/init.scope")
    write(f"{CGROUPS}/init.scope/cgroup.procs", "1")
    path = CGROUPS
    for name in ("user.slice", f"user-{uid}.slice", f"user@{uid}.service"):
        write(f"{path}/cgroup.subtree_control", " ".join(f"+{one}" for one in wanted))
        path = f"{path}/{name}"
        os.mkdir(path)
    delegated, slice_, scope = path, f"{path}/app.slice", f"{path}/app.slice/command.scope"
    for below in (slice_, scope):
        write(f"{os.path.dirname(below)}/cgroup.subtree_control", " ".join(f"+{one}" for one in wanted))
        os.mkdir(below)
    if not config["undelegated"]:
        give(delegated, uid, gid, everything=False)
        give(slice_, uid, gid, everything=True)
        give(scope, uid, gid, everything=True)
    return delegated, scope


def become(uid, gid, name):
    os.initgroups(name, gid)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def spawn(argv, environment, *, cgroup, folder, owner, outputs):
    """Start a program in a cgroup and a session of its own; owner None: root."""
    pid = os.fork()
    if pid:
        return pid
    try:
        write(f"{cgroup}/cgroup.procs", "0")
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, fd in enumerate(outputs, 1):
            os.dup2(fd, number)
        os.closerange(3, 64)
        if owner is not None:
            become(*owner)
        os.chdir(folder)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        execute(argv, environment)
    except BaseException as error:
        os.write(2, f"{argv[0]}: {error}\n".encode())
    os._exit(127)


def execute(argv, environment):
    """execvpe(3), without imports: the modules of this interpreter may lie where only root may look."""
    places = [""] if "/" in argv[0] else [f"{folder}/" for folder in environment["PATH"].split(":")]
    for place in places:
        with contextlib.suppress(FileNotFoundError, PermissionError):
            os.execve(place + argv[0], argv, environment)
    raise OSError(0, "not found")


class Command:
    """The command under way: what it writes goes on to the serial lines, as it comes."""

    def __init__(self, lines):
        self.lines = lines
        self.bytes = [0, 0]
        self.pipes = [os.pipe2(os.O_CLOEXEC) for _ in lines]

    def start(self, config, cgroup, owner, environment):
        ends = tuple(write_end for _, write_end in self.pipes)
        pid = spawn(config["argv"], environment, cgroup=cgroup, folder=config["folder"], owner=owner, outputs=ends)
        for end in ends:
            os.close(end)
        return pid

    def follow(self, pid, ended):
        """Pass output on until both pipes are at their ends; `ended` is called when the command is."""
        pidfd = os.pidfd_open(pid)
        waiting = {self.pipes[0][0]: 0, self.pipes[1][0]: 1, pidfd: -1}
        poll = select.poll()
        for fd in waiting:
            poll.register(fd, select.POLLIN)
        status = None
        while waiting:
            for fd, _ in poll.poll(1000):
                number = waiting[fd]
                if number < 0:
                    _, status = os.waitpid(pid, 0)
                    ended()
                elif data := os.read(fd, 1 << 16):
                    self.pass_on(number, data)
                    continue
                poll.unregister(fd)
                del waiting[fd]
            reap(besides=pid if status is None else 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def pass_on(self, number, data):
        self.bytes[number] += len(data)
        while data:
            data = data[os.write(self.lines[number], data) :]


def reap(*, besides):
    """The orphans of the machine are ours to wait for."""
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and found.si_pid != besides:
            os.waitpid(found.si_pid, 0)


def line_out(path):
    """A line out that changes no byte, also where it is a serial one: termios(3)."""
    deadline = time.monotonic() + 30
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)  # the ports of an emulated computer come one by one
    fd = os.open(path, os.O_WRONLY | os.O_NOCTTY | os.O_CLOEXEC)
    if not os.isatty(fd):
        return fd
    attributes = termios.tcgetattr(fd)
    attributes[0:4] = 0, 0, termios.CS8 | termios.CREAD | termios.CLOCAL, 0
    termios.tcsetattr(fd, termios.TCSANOW, attributes)
    return fd


def machine(config):
    """Everything before the command; returns the arguments of Command.start."""
    for number, item in enumerate(config["sysctls"]):
        if "=" not in item:
            raise ValueError(f"sysctl {number}: expected KEY=VALUE, got {item!r}")
    load(config["modules"], *config["load"])
    root_file_system()
    devices(config["closed"])
    network()
    socket.sethostname("vm")
    uid = config["uid"]
    name, gid = user_of(uid)
    mount(f"{config['disks']}a", "/disk", "ext4")
    if config["swap"]:
        check(libc.swapon(f"{config['disks']}c".encode(), 0), "swapon")
    runtime = f"/run/user/{uid}"
    for path, mode in (("/disk/home", 0o755), ("/disk/tmp", 0o1777), ("/run/user", 0o755), (runtime, 0o700)):
        os.mkdir(path)
        os.chmod(path, mode)
        if path not in ("/disk/tmp", "/run/user"):
            os.chown(path, uid, gid)
    os.makedirs("/run/systemd/system")  # by this, a user's own systemd knows that it may start: sd_booted(3)
    delegated, scope = cgroups(uid, gid, config)
    owner = None if config["root"] else (uid, gid, name)
    environment = {
        "HOME": "/disk/home" if owner else "/root", "USER": name if owner else "root", "SHELL": "/bin/sh",
        "LOGNAME": name if owner else "root", "TMPDIR": "/disk/tmp", "XDG_RUNTIME_DIR": runtime, "LANG": "C.UTF-8",
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "GUNTAINER_VM": "1",
        **config["environment"],
    }  # fmt: skip
    for item in config["sysctls"]:
        key, value = item.split("=", 1)
        write(f"/proc/sys/{key.replace('.', '/')}", value)
    return (config, scope, owner, environment), delegated


def main():
    for kind, path in (("proc", "/proc"), ("sysfs", "/sys")):
        mount(kind, path, kind, NOSUID | NODEV | NOEXEC)
    with open("/proc/self/mounts") as file:
        if not any(line.split()[1] == "/dev" for line in file):
            mount("devtmpfs", "/dev", "devtmpfs", NOSUID, "mode=755")
    disks, *paths = sys.argv[1:5]  # User Mode Linux adds words of its own
    lines = [line_out(path) for path in paths]

    def say(**words):
        os.write(lines[2], json.dumps(words).encode() + b"\n")

    try:
        with open(f"{disks}b", "rb") as file:
            config = {**json.loads(file.read().rstrip(b"\0")), "disks": disks}
        arguments, delegated = machine(config)
        command = Command(lines[:2])
        pid = command.start(*arguments)
        say(started=True)
        status = command.follow(pid, lambda: write(f"{delegated}/cgroup.kill", "1"))
        say(status=status, bytes=command.bytes)
    except BaseException:
        say(failed=traceback.format_exc())
    for line in lines:
        if os.isatty(line):  # another line has what was written to it
            termios.tcdrain(line)
    os.sync()
    libc.reboot(POWER_OFF)


main()
