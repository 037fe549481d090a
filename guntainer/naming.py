"""Name resolution inside: the texts of /etc/hosts and /etc/resolv.conf, hosts(5), resolv.conf(5).

Imported only where a container has a private network, or names and name servers of its own: what the others have is in
`skeleton`.
"""

from __future__ import annotations

import _socket

from guntainer import errors
from guntainer.jobs.network import GATEWAY, NO_DNS

FORWARDER = "10.0.2.3"
"""Where pasta and slirp4netns pass what comes for port 53 on to the host's first name server, wherever that listens."""
_SOMEWHERE = ("192.0.2.1", 9)  # TEST-NET-1, RFC 5737: nothing is sent there


def resolv_conf(network: str, dns: tuple[str, ...], host: str) -> str | None:
    """The text of /etc/resolv.conf; None: the rootfs's own stays.

    Args:
        dns: what was asked for.
        host: the host's.
    """
    if dns == (NO_DNS,):
        return None
    servers = list(dns)
    if not servers:
        if network != "private":
            return host if network == "host" else ""
        servers = _servers(host)
        if uses_forwarder(dns, host):
            # It stands for the first one, whose own answers pasta would show as the forwarder's.
            servers = [FORWARDER, *(server for server in servers[1:] if not _is_near(server))]
    kept = [line for line in host.splitlines() if line.split() and not _is_server(line.split())]
    return "".join(f"{line}\n" for line in [*(f"nameserver {server}" for server in servers), *kept])


def uses_forwarder(dns: tuple[str, ...], host: str) -> bool:
    """Whether a private network needs the forwarder: one of the host's name servers can not be reached from there."""
    servers = _servers(host)
    return not dns and (not servers or any(_is_near(server) for server in servers))


def _servers(host: str) -> list[str]:
    return list(dict.fromkeys(words[1] for words in map(str.split, host.splitlines()) if _is_server(words)))


def _is_server(words: list[str]) -> bool:
    return len(words) > 1 and words[0] == "nameserver"


def _is_near(server: str) -> bool:
    """Whether a name server is the host's own, or of one link: out of reach of a private network."""
    own = server.startswith("127.") or server in ("0.0.0.0", "::", "::1")  # noqa: S104 - a comparison
    return own or "%" in server or server.lower().startswith("fe80:")


def hosts(own: str, added: tuple[tuple[str, str], ...]) -> str:
    """The text of /etc/hosts: what was asked for comes first, so that it counts.

    Raises:
        HostError: the host has no address that a container could reach.
    """
    return "".join(f"{host_address() if address == GATEWAY else address}\t{name}\n" for name, address in added) + own


def host_address() -> str:
    """The host's own IPv4 address on the way out.

    Raises:
        HostError: there is none.
    """
    sock = _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        sock.connect(_SOMEWHERE)
        return str(sock.getsockname()[0])
    except OSError as error:
        raise errors.HostError(
            f"{GATEWAY}: this host has no address that a container could reach ({error.strerror})",
            hint="give the address itself",
        ) from None
    finally:
        sock.close()
