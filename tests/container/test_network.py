"""Private networks: a container reaches out and is reached, by either tool; the host's loopback is closed to it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import networks
import pytest
from conftest import Run, Traces
from networks import ASK, SERVE, Box, batch_file, running, server, until

pytestmark = [pytest.mark.root, pytest.mark.vm, pytest.mark.usefixtures("user_namespaces", "private_networks")]
box, tool, userns, outside = networks.box, networks.tool, networks.userns, networks.outside
private_networks, no_tool_left = networks.private_networks, networks.no_tool_left


# -- out and in


def test_a_server_outside(
    guntainer: Run, box: Box, tool: str, userns: str, outside: str, traces: Traces, no_tool_left: None
) -> None:
    with server(outside) as found:
        script = f"{ASK}\nprint(*(ask(kind, {outside!r}, {found.port}) for kind in (TCP, UDP)), sep=';')"
        done = guntainer("run", "--userns", userns, *box(script))
    assert (done.stdout, done.returncode) == ("echo hi;echo hi\n", 0), done.stderr
    assert found.heard == [f"tcp {outside}", f"udp {outside}"]
    traces.check()


def test_a_published_port(box: Box, tool: str, userns: str, home: Path, traces: Traces, no_tool_left: None) -> None:
    port = networks.free_port()
    with running(
        "run", "--userns", userns, *box(f"{SERVE}\nserve_once(TCP, 80)", "-p", f"127.0.0.1:{port}:80")
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
        with socket.create_connection(("127.0.0.1", port), 10) as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"echo hello"
        assert process.wait(30) == 0
    traces.check()


def test_the_last_bytes_arrive(home: Path, box: Box, tool: str, outside: str) -> None:
    """The command ends when it has written, and its tool, which is held up here, has not read that yet."""
    driver = "from guntainer.network import link\nlink._STEPS = 10 ** 6\nfrom guntainer.cli import entry\nentry()\n"
    with socket.create_server((outside, 0)) as listening:
        script = f"""
import os, socket, time
sock = socket.create_connection(({outside!r}, {listening.getsockname()[1]}))
open("/up/there", "w").close()
while not os.path.exists("/up/go"):
    time.sleep(0.01)
sock.sendall(b"x" * 8000)
os._exit(0)
"""
        words = box(script, "-v", f"{home}/work:/up")
        for command in (("run", *words), ("batch", batch_file(home, words))):
            for name in ("there", "go"):
                (home / "work" / name).unlink(missing_ok=True)
            with subprocess.Popen(
                [sys.executable, "-c", driver, *map(str, command)], stdin=subprocess.DEVNULL
            ) as process:
                until((home / "work" / "there").exists)
                pid = networks.tool_of(process.pid)
                os.kill(pid, signal.SIGSTOP)
                (home / "work" / "go").touch()
                until(lambda: not commands_of(process.pid))
                os.kill(pid, signal.SIGCONT)
                connection, _ = listening.accept()
                with connection:
                    connection.settimeout(20)
                    assert len(b"".join(iter(lambda: connection.recv(1 << 16), b""))) == 8000  # noqa: B023
                assert process.wait(30) == 0


def commands_of(pid: int) -> list[int]:
    """The live children of a supervisor that run a script: containers, in these tests. One with its own words is its guard."""
    found, own = [], Path(f"/proc/{pid}/cmdline").read_bytes()
    for child in networks.children(pid):
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{child}/cmdline").read_bytes()
            if networks.alive(child) and b"sock.sendall" in words != own:
                found.append(child)
    return found


def test_a_published_udp_port(box: Box, tool: str, outside: str, traces: Traces, no_tool_left: None) -> None:
    port = networks.free_port()
    with running("run", *box(f"{SERVE}\nserve_once(UDP, {port})", "-p", f"{port}:{port}/udp")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(10)
            sock.connect((outside, port))
            sock.send(b"hello")
            assert sock.recv(100) == b"echo hello"
        assert process.wait(30) == 0
    traces.check()


def test_a_port_is_bound_to_what_was_asked_for(box: Box, tool: str, outside: str) -> None:
    port, other = networks.free_port(), networks.free_port()
    options = ("-p", f"127.0.0.1:{port}:{port}", "-p", f"{outside}:{other}:{port}")
    with running("run", *box(f"{SERVE}\nserve_once(TCP, {port})", *options)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
        for address, number in ((outside, port), ("127.0.0.1", other)):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((address, number), 10)
        with socket.create_connection((outside, other), 10) as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"echo hello"
        assert process.wait(30) == 0


def test_a_free_port_is_chosen_and_told(box: Box, tool: str) -> None:
    with running("run", *box(f"{SERVE}\nserve_once(TCP, 80)", "-p", "80", "-p", "127.0.0.1::81-82")) as process:
        assert process.stdout is not None and process.stderr is not None
        told = [process.stderr.readline() for _ in range(3)]
        assert process.stdout.readline() == "ready\n"
        first, *others = told
        assert first.startswith("guntainer: 80/tcp is published on 0.0.0.0:")
        assert [line.rpartition(":")[0] for line in others] == [
            f"guntainer: {number}/tcp is published on 127.0.0.1" for number in (81, 82)
        ]
        with socket.create_connection(("127.0.0.1", int(first.rpartition(":")[2])), 10) as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"echo hello"
        assert process.wait(30) == 0


def test_a_range_of_ports(box: Box, tool: str) -> None:
    ports = sorted(networks.free_port() for _ in range(2))
    first = max(1024, ports[0])
    with contextlib.ExitStack() as stack:
        while True:  # two free ones side by side
            try:
                for number in (first, first + 1):
                    with socket.create_server(("127.0.0.1", number)):
                        pass
                break
            except OSError:
                first += 1
        script = f"{SERVE}\nserve_once(TCP, 81)"
        process = stack.enter_context(running("run", *box(script, "-p", f"127.0.0.1:{first}-{first + 1}:80-81")))
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", process.communicate()
        with socket.create_connection(("127.0.0.1", first + 1), 10) as sock:
            sock.sendall(b"hello")
            assert sock.recv(100) == b"echo hello"
        assert process.wait(30) == 0


def test_as_another_user(guntainer: Run, box: Box, tool: str, userns: str, outside: str) -> None:
    """Who is not root may ping, and bind every port, as in docker's networks."""
    with server(outside) as found:
        script = f"""{ASK}
import os
print(os.getuid(), ask(TCP, {outside!r}, {found.port}))
socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP).close()
socket.create_server(("0.0.0.0", 80)).close()
"""
        done = guntainer("run", "--userns", userns, *box(script, "-u", "1000"))
    assert (done.stdout, done.stderr.count("Traceback")) == ("1000 echo hi\n", 0), done.stderr


@pytest.mark.parametrize("option", ["--init", "--read-only", "--scratch=memory", "-t"])
def test_with_other_options(guntainer: Run, box: Box, option: str, outside: str, traces: Traces) -> None:
    with server(outside) as found:
        done = guntainer("run", *box(f"{ASK}\nprint(ask(TCP, {outside!r}, {found.port}))", option))
    assert done.stdout.replace("\r", "") == "echo hi\n", done.stderr
    traces.check()


def test_without_stdin(box: Box, outside: str) -> None:
    """The container's device passes through descriptor 0, which may be closed, and must be what it was."""
    with server(outside) as found:
        script = f"{ASK}\nimport os\nprint(os.path.exists('/proc/self/fd/0'), ask(TCP, {outside!r}, {found.port}))"
        line = [sys.executable, "-m", "guntainer", "run", *box(script)]
        done = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", *line], capture_output=True, text=True, timeout=60, check=False
        )
    assert done.stdout.endswith("echo hi\n"), done.stderr
    done = subprocess.run(
        [*line[:4], *box("print(input())")], input="typed\n", capture_output=True, text=True, check=False
    )
    assert done.stdout == "typed\n"


def test_where_the_set_up_is_made_from_python(box: Box, outside: str, traces: Traces) -> None:
    code = "from guntainer.kernel import program; program._entry = None\nfrom guntainer.cli import entry; entry()"
    with server(outside) as found:
        line = [sys.executable, "-c", code, "run", *box(f"{ASK}\nprint(ask(TCP, {outside!r}, {found.port}))")]
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "echo hi\n", done.stderr
    traces.check()


def test_nothing_of_the_host_is_in_it(guntainer: Run, box: Box, tool: str) -> None:
    """Interfaces, and no descriptor but the three."""
    done = guntainer("run", *box("import os, socket; print(socket.if_nameindex(), os.listdir('/proc/self/fd'))"))
    assert done.stdout == "[(1, 'lo'), (100, 'eth0')] ['0', '1', '2', '3']\n", done.stderr  # 3 is the listing itself


# -- the host's loopback


def test_the_loopback_of_the_host_is_closed(guntainer: Run, box: Box, tool: str, userns: str, outside: str) -> None:
    """Neither by its own address, nor by the gateway's, nor by a socket that is bound to the device, nor by a frame."""
    with server("127.0.0.1") as four, server("::1") as six, server(outside) as reached:
        script = f"""{ASK}
import struct
def to_device(sock): sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
def via_device(sock, address):
    sock.sendmsg([b"hi"], [(socket.IPPROTO_IP, 8, struct.pack("I8x", 100))], 0, (address, {four.port}))
for kind in (TCP, UDP):
    for address in ("127.0.0.1", "127.0.0.2", "10.0.2.2", "10.0.2.3", "0.0.0.0"):
        ask(kind, address, {four.port})
        ask(kind, address, {four.port}, before=to_device)
    for address in ("::1", "::", "::ffff:127.0.0.1"):
        ask(kind, address, {six.port})
        ask(kind, address, {six.port}, before=to_device)
        ask(kind, address, {four.port}, before=to_device)
for address in ("127.0.0.1", "0.0.0.0"):
    with socket.socket(socket.AF_INET, UDP) as sock:
        try:
            via_device(sock, address)
        except OSError:
            pass
for family, kind, protocol in ((socket.AF_PACKET, socket.SOCK_RAW, 0), (socket.AF_INET, socket.SOCK_RAW, 17)):
    try:
        socket.socket(family, kind, protocol)
        print("raw sockets can be made")
    except PermissionError:
        pass
print(ask(UDP, {outside!r}, {reached.port}), ask(TCP, {outside!r}, {reached.port}))
"""
        done = guntainer("run", "--userns", userns, *box(script), timeout=120)
        assert done.stdout == "echo hi echo hi\n", done.stderr
        assert (four.heard, six.heard) == ([], [])
        assert len(reached.heard) == 2


def test_lo_inside_is_as_ever(guntainer: Run, box: Box, tool: str) -> None:
    script = """
import socket
for address in ("127.0.0.1", "127.3.2.1", "::1"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as server:
        with socket.create_connection(server.getsockname()[:2]) as client:
            print(client.getpeername()[0], client.getsockname()[0] == client.getpeername()[0])
"""
    assert guntainer("run", *box(script)).stdout == "127.0.0.1 True\n127.3.2.1 False\n::1 True\n"


def test_raw_sockets_on_demand(guntainer: Run, box: Box) -> None:
    script = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); print('made')"
    assert guntainer("run", *box(script, "--cap-add", "NET_RAW")).stdout == "made\n"
    assert "PermissionError" in guntainer("run", *box(script)).stderr


def test_abstract_sockets_of_the_host_are_not_there(guntainer: Run, box: Box) -> None:
    name = f"guntainer-test-{os.getpid()}"
    script = f"import socket; socket.socket(socket.AF_UNIX).connect('\\0{name}')"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"\0{name}")
        listening.listen()
        assert "ConnectionRefusedError" in guntainer("run", *box(script)).stderr


# -- names


def test_names_by_a_server_on_the_hosts_loopback(home: Path, box: Box, tool: str) -> None:
    """As with systemd-resolved: 127.0.0.53 in /etc/resolv.conf is not the container's own."""
    words = box("import socket; print(socket.gethostbyname('some.example'))")
    line = [sys.executable, "-m", "guntainer", "run", "--userns", "single", *words]
    done = networks.nested("127.0.0.53", home / "resolv.conf", *line)
    assert done.stdout == "203.0.113.7\n", done.stderr


def test_names_by_a_server_of_the_hosts_network(home: Path, box: Box, tool: str) -> None:
    words = box("import socket; print(socket.gethostbyname('some.example'), open('/etc/resolv.conf').read())")
    line = [sys.executable, "-m", "guntainer", "run", "--userns", "single", *words]
    done = networks.nested("198.51.100.2", home / "resolv.conf", *line)
    assert done.stdout == "203.0.113.7 nameserver 198.51.100.2\n\n", done.stderr


def test_names_where_resolv_conf_of_the_rootfs_is_a_link(home: Path, box: Box) -> None:
    (home / "tree" / "etc" / "resolv.conf").symlink_to("/run/nowhere/resolv.conf")
    words = box("import socket; print(socket.gethostbyname('some.example'))")
    line = [sys.executable, "-m", "guntainer", "run", "--userns", "single", *words]
    done = networks.nested("127.0.0.53", home / "resolv.conf", *line)
    assert done.stdout == "203.0.113.7\n", done.stderr


def test_name_servers_and_hosts_of_ones_own(guntainer: Run, box: Box, home: Path, outside: str) -> None:
    (home / "tree" / "etc" / "resolv.conf").write_text("the rootfs's own\n")
    script = "print(open('/etc/resolv.conf').readline(), open('/etc/hosts').read(), sep='')"
    options = (
        "--dns",
        "192.0.2.53",
        "--dns",
        "192.0.2.54",
        "--add-host",
        "db:192.0.2.7",
        "--add-host",
        "up:host-gateway",
    )
    done = guntainer("run", *box(script, *options))
    assert done.stdout.startswith(f"nameserver 192.0.2.53\n192.0.2.7\tdb\n{outside}\tup\n127.0.0.1\tlocalhost\n"), done
    done = guntainer("run", *box(script, "--dns", "none"))
    assert done.stdout.startswith("the rootfs's own\n127.0.0.1\tlocalhost\n"), done


def test_the_gateway_is_the_host(guntainer: Run, box: Box, tool: str, outside: str) -> None:
    with server(outside) as found:
        script = f"{ASK}\nprint(ask(TCP, socket.gethostbyname('up'), {found.port}))"
        done = guntainer("run", *box(script, "--add-host", "up:host-gateway"))
    assert done.stdout == "echo hi\n", done.stderr


def test_a_dry_run_shows_it(guntainer: Run, box: Box) -> None:
    done = guntainer("run", "--dry-run", *box(""))
    assert "hand out the network namespace" in done.stdout
    assert done.stdout.index("wait until the network is there") < done.stdout.index("drop capabilities")
