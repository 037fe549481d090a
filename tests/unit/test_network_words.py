"""The notations of networks: published ports, name servers, host names, and the two files that come of them."""

from __future__ import annotations

import pytest

from guntainer import errors, naming
from guntainer.jobs import network
from guntainer.jobs.load import load
from guntainer.jobs.model import Port
from guntainer.network import tools


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [Port(container=80)]),
        ("8080:80", [Port(container=80, host=8080)]),
        ("8080:80/tcp", [Port(container=80, host=8080)]),
        ("53:53/udp", [Port(container=53, host=53, protocol="udp")]),
        ("53:53/UDP", [Port(container=53, host=53, protocol="udp")]),
        ("127.0.0.1:8080:80", [Port(container=80, host=8080, address="127.0.0.1")]),
        ("127.0.0.1::80", [Port(container=80, address="127.0.0.1")]),
        ("8000-8002:9000-9002", [Port(container=9000 + n, host=8000 + n) for n in range(3)]),
        (
            "127.0.0.2:1-2:3-4/udp",
            [Port(container=3 + n, host=1 + n, address="127.0.0.2", protocol="udp") for n in (0, 1)],
        ),
        ("80-81", [Port(container=80), Port(container=81)]),
        ("65535:1", [Port(container=1, host=65535)]),
    ],
)
def test_ports(text: str, ports: list[Port]) -> None:
    assert list(network.parse_ports(text)) == ports


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "is no port"),
        ("http", '"http" is no port from 1 to 65535'),
        ("0:80", '"0" is no port'),
        ("65536", "is no port"),
        ("８０", "is no port"),
        ("-1:80", "is no port"),
        (":80", "expected [[IP:][HOST]:]CONTAINER[/udp]"),
        ("1:2:3:4", "expected [[IP:][HOST]:]CONTAINER[/udp]"),
        ("8080:", "is no port"),
        ("8000-8002:80", "3 ports of the host and 1 port of the container do not fit"),
        ("9-3", "ends before it begins"),
        ("80/sctp", "only tcp and udp"),
        ("80/", "only tcp and udp"),
        ("300.0.0.1:1:2", '"300.0.0.1" is no IPv4 address'),
        ("localhost:1:2", '"localhost" is no IPv4 address'),
        ("[::1]:80:80", "IPv4 addresses only"),
        ("::1:80:80", "expected [[IP:][HOST]:]CONTAINER[/udp]"),
        ("1\0:2", "is no port"),
    ],
)
def test_what_is_no_port(text: str, part: str) -> None:
    with pytest.raises(errors.UsageError) as caught:
        network.parse_ports(text)
    assert part in str(caught.value)


def test_ports_need_a_private_network() -> None:
    ports = network.parse_ports("8080:80")
    assert network.check_ports(ports, "private") == ports
    assert network.check_ports([], "host") == ()
    with pytest.raises(errors.UsageError, match="with host, the container's ports are the host's already"):
        network.check_ports(ports, "host")
    with pytest.raises(errors.UsageError, match="with none, there is nothing"):
        network.check_ports(ports, "none")


@pytest.mark.parametrize(
    ("one", "other", "fit"),
    [
        ("8080:80", "8080:81", False),
        ("8080:80", "8080:80", False),
        ("8080:80", "8080:80/udp", True),
        ("8080:80", "8081:80", True),
        ("127.0.0.1:8080:80", "8080:80", False),
        ("127.0.0.1:8080:80", "127.0.0.2:8080:80", True),
        ("127.0.0.1:8080:80", "127.0.0.2:8080:81", False),
        ("80", "80", True),
    ],
)
def test_two_ports(one: str, other: str, fit: bool) -> None:
    ports = [*network.parse_ports(one), *network.parse_ports(other)]
    if fit:
        assert network.check_ports(ports, "private") == tuple(ports)
        return
    with pytest.raises(errors.UsageError, match="port 8080/tcp is published twice"):
        network.check_ports(ports, "private")


def test_too_many_ports() -> None:
    with pytest.raises(errors.UsageError, match="2000 ports are more than"):
        network.check_ports(network.parse_ports("1-2000:1-2000"), "private")


def test_name_servers() -> None:
    assert network.parse_dns([]) == ()
    assert network.parse_dns(["192.0.2.1", "2001:db8::1"]) == ("192.0.2.1", "2001:db8::1")
    assert network.parse_dns(["none"]) == ("none",)
    with pytest.raises(errors.UsageError, match="can not be used together"):
        network.parse_dns(["none", "192.0.2.1"])
    with pytest.raises(errors.UsageError, match=r'did you mean "none"'):
        network.parse_dns(["nome"])


def test_added_hosts() -> None:
    assert network.parse_add_host("db:192.0.2.1") == ("db", "192.0.2.1")
    assert network.parse_add_host("db:2001:db8::1") == ("db", "2001:db8::1")
    assert network.parse_add_host("db:[2001:db8::1]") == ("db", "2001:db8::1")
    assert network.parse_add_host("me.example:host-gateway") == ("me.example", "host-gateway")
    for text in (
        "db",
        "db:",
        ":192.0.2.1",
        "a b:192.0.2.1",
        "a#:192.0.2.1",
        "dß:192.0.2.1",
        "a\n:192.0.2.1",
        "db:300.1.1.1",
    ):
        with pytest.raises(errors.UsageError):
            network.parse_add_host(text)
    with pytest.raises(errors.UsageError, match=r'did you mean "host-gateway"'):
        network.parse_add_host("db:host-gatway")


def test_the_gateway_belongs_to_a_private_network() -> None:
    hosts = [("up", "host-gateway"), ("db", "192.0.2.1")]
    assert network.check_hosts(hosts, "private") == tuple(hosts)
    assert network.check_hosts(hosts[1:], "host") == tuple(hosts[1:])
    with pytest.raises(errors.UsageError, match=r"with host, the host is 127\.0\.0\.1"):
        network.check_hosts(hosts, "host")
    with pytest.raises(errors.UsageError, match="can not be reached"):
        network.check_hosts(hosts, "none")


# -- job files


def jobs(text: str) -> object:
    return load(text.encode(), path="jobs.toml", base="/base").jobs


def problems(text: str) -> list[str]:
    with pytest.raises(errors.JobFileError) as caught:
        jobs(text)
    return list(caught.value.problems)


JOB = '[jobs.a]\nrootfs = "./x"\nrun = "true"\n'


def test_keys_of_a_job() -> None:
    keys = (
        'network = "private"\nports = [80, "8080:81", "90-91/udp"]\ndns = ["192.0.2.1"]\nadd-hosts = ["db:192.0.2.7"]\n'
    )
    for text in (JOB + keys, f"[defaults]\n{keys}{JOB}"):
        (job,) = jobs(text)  # type: ignore[misc]
        assert job.network == "private"
        assert [(port.host, port.container, port.protocol) for port in job.ports] == [
            *((0, 80, "tcp"), (8080, 81, "tcp"), (0, 90, "udp"), (0, 91, "udp"))
        ]
        assert (job.dns, job.add_hosts) == (("192.0.2.1",), (("db", "192.0.2.7"),))
    (job,) = jobs(JOB + 'dns = "none"\n')  # type: ignore[misc]
    assert job.dns == ("none",)


def test_ports_of_a_matrix() -> None:
    text = JOB + 'network = "private"\nports = ["${{ matrix.port }}:80"]\n[jobs.a.matrix]\nport = [8080, 8081]\n'
    assert [job.ports[0].host for job in jobs(text)] == [8080, 8081]  # type: ignore[attr-defined]


def test_yaml_does_not_reckon_with_ports() -> None:
    """22:22 without quotes is a number to base 60 in YAML 1.1."""
    text = b"jobs:\n  a:\n    rootfs: ./x\n    run: 'true'\n    network: private\n    ports: [22:22, 80]\n"
    (job,) = load(text, path="jobs.yaml", base="/base").jobs
    assert [(port.host, port.container) for port in job.ports] == [(22, 22), (0, 80)]


def test_mistakes_have_a_place() -> None:
    found = problems(JOB + 'ports = ["8080:80"]\nadd-hosts = ["a:host-gateway"]\n')
    assert found[0].startswith("jobs.toml:4:1: jobs.a.ports: published ports need network private: with host")
    assert found[1].startswith("jobs.toml:5:1: jobs.a.add-hosts: host-gateway needs network private")
    found = problems(
        JOB + 'network = "private"\nports = ["80", "x"]\ndns = ["192.0.2.1", "y", "none"]\nadd-hosts = ["z", true]\n'
    )
    assert [line.split(": ")[1] for line in found] == [
        *("jobs.a.ports[1]", "jobs.a.dns", "jobs.a.dns[1]", "jobs.a.add-hosts[0]", "jobs.a.add-hosts[1]")
    ]
    assert problems(JOB + "dns = true\nports = 80\n")[0].endswith(
        'expected a list such as ["192.0.2.1"], or "none", got true'
    )


def test_a_wrong_network_is_told_alone() -> None:
    (only,) = problems(JOB + 'network = "privat"\nports = ["80"]\n')
    assert 'did you mean "private"' in only


# -- /etc/resolv.conf and /etc/hosts

HOST = "# made by hand\nnameserver 127.0.0.53\nsearch example.org\noptions edns0\n"


def test_name_servers_of_the_host_as_a_private_network_reaches_them() -> None:
    text = naming.resolv_conf("private", (), HOST)
    assert text == "nameserver 10.0.2.3\n# made by hand\nsearch example.org\noptions edns0\n"
    many = (
        "nameserver 127.0.0.1\nnameserver ::1\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\n"
    )
    assert naming.resolv_conf("private", (), many) == (
        "nameserver 10.0.2.3\nnameserver 192.0.2.53\nnameserver 2001:db8::1\n"
    )
    # the forwarder asks the first, and its answers must not come from two addresses
    mixed = "nameserver 192.0.2.53\nnameserver 127.0.0.1\nnameserver 192.0.2.54\n"
    assert naming.resolv_conf("private", (), mixed) == "nameserver 10.0.2.3\nnameserver 192.0.2.54\n"
    away = "nameserver 192.0.2.53\nnameserver 192.0.2.54\n"
    assert naming.resolv_conf("private", (), away) == away
    assert [naming.uses_forwarder((), text) for text in (HOST, many, mixed, "", away)] == [True] * 4 + [False]
    assert not naming.uses_forwarder(("192.0.2.1",), HOST)
    assert naming.resolv_conf("private", (), "") == "nameserver 10.0.2.3\n"
    assert naming.resolv_conf("private", (), "nameserver\n") == "nameserver 10.0.2.3\nnameserver\n"


def test_name_servers_that_were_asked_for() -> None:
    for kind in ("host", "none", "private"):
        text = naming.resolv_conf(kind, ("192.0.2.1", "127.0.0.1"), HOST)
        assert text is not None
        assert text.startswith("nameserver 192.0.2.1\nnameserver 127.0.0.1\n")
        assert "127.0.0.53" not in text and "search example.org\n" in text
        assert naming.resolv_conf(kind, ("none",), HOST) is None
    assert naming.resolv_conf("host", (), HOST) == HOST
    assert naming.resolv_conf("none", (), HOST) == ""


def test_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(naming, "host_address", lambda: "192.0.2.2")
    assert naming.hosts("127.0.0.1\tlocalhost\n", ()) == "127.0.0.1\tlocalhost\n"
    added = (("db", "192.0.2.7"), ("up", "host-gateway"))
    assert naming.hosts("127.0.0.1\tlocalhost\n", added) == "192.0.2.7\tdb\n192.0.2.2\tup\n127.0.0.1\tlocalhost\n"


# -- the tools' command lines


def test_nothing_is_forwarded_unasked() -> None:
    words = tools.pasta(tools.Tool(name="pasta", path="/x/pasta"), "/proc/7/ns/user", ())
    assert words[0] == "/x/pasta"
    for option in ("--tcp-ports", "--udp-ports", "--tcp-ns", "--udp-ns"):
        assert words[words.index(option) + 1] == "none"
    assert "--no-map-gw" in words
    # without it, what comes in before the container has sent a frame is lost with pastas of 2023
    assert words[words.index("--ns-mac-addr") + 1] == "02:42:0a:00:02:64"
    assert "--disable-host-loopback" in tools.slirp4netns(tools.Tool(name="slirp4netns", path="/x/s"), "", "")


def test_ports_on_the_command_line() -> None:
    ports = [*network.parse_ports("127.0.0.1:8080:80"), *network.parse_ports("53:54/udp"), *network.parse_ports("9:9")]
    words = tools.pasta(tools.Tool(name="pasta", path="/x/pasta"), "", ports)
    given = [(words[at], words[at + 1]) for at in range(len(words) - 1) if words[at] in ("--tcp-ports", "--udp-ports")]
    assert given == [
        *(("--tcp-ports", "127.0.0.1/8080:80"), ("--tcp-ports", "0.0.0.0/9:9"), ("--udp-ports", "0.0.0.0/53:54"))
    ]
    assert "--netns-only" in words and "--userns" not in words


def test_where_the_tools_are_looked_for(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    monkeypatch.setenv("PATH", f":{folder}/nowhere:{folder}")
    assert tools.find() == ()
    (folder / "pasta").mkdir()  # executable, and no file
    (folder / "slirp4netns").write_text("#!/bin/sh\n")
    assert tools.find() == ()
    (folder / "slirp4netns").chmod(0o755)
    assert [tool.path for tool in tools.find()] == [f"{folder}/slirp4netns"]
    with pytest.raises(errors.HostError, match="PATH has neither"):
        monkeypatch.setenv("PATH", "")
        tools.require()
