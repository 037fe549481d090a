"""The notations of a private network that options and job files share: published ports, name servers, more host names. Pure.

A port is written as docker and podman have it: `[[IP:][HOST]:]CONTAINER[/udp]`, where HOST and CONTAINER may be ranges of the
same length.
"""

from __future__ import annotations

import _socket

from guntainer import errors
from guntainer.jobs.model import Port
from guntainer.jobs.values import check_text, near, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

GATEWAY = "host-gateway"
"""docker's word for the host's own address, as the container reaches it."""
NO_DNS = "none"
_EXPECTED = "[[IP:][HOST]:]CONTAINER[/udp]"
_MOST_PORTS = 1024  # each is a socket of the tool's
_LAST_PORT = 65535
_LONGEST_NAME = 253  # hostname(7)


def parse_ports(text: str) -> tuple[Port, ...]:
    """`8080:80`, `127.0.0.1:8080:80/udp`, `8000-8010:8000-8010`; `80` alone and `127.0.0.1::80` take a free host port.

    Raises:
        UsageError: it is something else.
    """
    numbers, slash, protocol = text.partition("/")
    if slash and protocol.lower() not in ("tcp", "udp"):
        raise errors.UsageError(f"expected {_EXPECTED}, got {quoted(text)}: only tcp and udp can be published")
    if "[" in numbers:
        raise errors.UsageError(f"{quoted(text)}: ports are published on IPv4 addresses only")
    *before, inside = numbers.split(":")
    if len(before) > 2 or (len(before) == 1 and not before[0]):
        raise errors.UsageError(f'expected {_EXPECTED}, such as "8080:80", got {quoted(text)}')
    address = _ipv4(before[0], text) if len(before) == 2 and before[0] else Port.address
    containers = _range(inside, text)
    hosts = _range(before[-1], text) if before and before[-1] else None
    if hosts is not None and len(hosts) != len(containers):
        raise errors.UsageError(
            f"{quoted(text)}: {_count(hosts)} of the host and {_count(containers)} of the container do not fit together"
        )
    return tuple(
        Port(container=number, host=hosts[place] if hosts else 0, address=address, protocol=(protocol or "tcp").lower())
        for place, number in enumerate(containers)
    )


def _count(numbers: range) -> str:
    return f"{len(numbers)} port{'' if len(numbers) == 1 else 's'}"


def _range(text: str, whole: str) -> range:
    first, dash, last = text.partition("-")
    start, end = _port(first, whole), _port(last, whole) if dash else 0
    if dash and end < start:
        raise errors.UsageError(f"{quoted(whole)}: the range {text} ends before it begins")
    return range(start, (end or start) + 1)


def _port(text: str, whole: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and 1 <= int(text) <= _LAST_PORT):
        raise errors.UsageError(
            f"expected {_EXPECTED}, got {quoted(whole)}: {quoted(text)} is no port from 1 to {_LAST_PORT}"
        )
    return int(text)


def _ipv4(text: str, whole: str) -> str:
    if not is_address(text, _socket.AF_INET):
        raise errors.UsageError(f"expected {_EXPECTED}, got {quoted(whole)}: {quoted(text)} is no IPv4 address")
    return text


def is_address(text: str, *families: int) -> bool:
    """Whether `text` is an address of one of these families: inet_pton(3)."""
    for family in families:
        try:
            _socket.inet_pton(family, text)
        except (OSError, ValueError):  # ValueError: what no C string can hold
            continue
        return True
    return False


def check_ports(ports: Iterable[Port], network: str) -> tuple[Port, ...]:
    """`ports`, when a container with this network can have them.

    Raises:
        UsageError: saying what to use instead.
    """
    ports = tuple(ports)
    if not ports:
        return ports
    _check_network(network)
    if len(ports) > _MOST_PORTS:
        raise errors.UsageError(f"{len(ports)} ports are more than the {_MOST_PORTS} that can be published")
    seen: dict[tuple[str, int], Port] = {}
    for port in ports:
        if port.host:
            other = seen.setdefault((port.protocol, port.host), port)
            # pasta tells ports apart by number alone
            if other is not port and (other.container != port.container or _overlap(other.address, port.address)):
                raise errors.UsageError(f"port {port.host}/{port.protocol} is published twice")
    return ports


def check_publish_all(wanted: bool, network: str) -> bool:
    """`wanted`, when a container with this network can have it; raises as `check_ports` does."""
    if wanted:
        _check_network(network)
    return wanted


def _check_network(network: str) -> None:
    if network != "private":
        why = {
            "host": "with host, the container's ports are the host's already",
            "none": "with none, there is nothing that a port could lead to",
        }
        raise errors.UsageError(f"published ports need network private: {why[network]}")


def _overlap(one: str, other: str) -> bool:
    return one == other or Port.address in (one, other)


def parse_dns(texts: Iterable[str]) -> tuple[str, ...]:
    """Addresses of name servers, or `none` alone.

    Raises:
        UsageError: one is no address, or `none` is not alone.
    """
    found = tuple(texts)
    if NO_DNS in found:
        if len(found) > 1:
            raise errors.UsageError(f'"{NO_DNS}" can not be used together with a name server')
        return found
    for text in found:
        if not is_address(text, _socket.AF_INET, _socket.AF_INET6):
            raise errors.UsageError(f'expected an IP address or "{NO_DNS}", got {quoted(text)}{near(text, (NO_DNS,))}')
    return found


def parse_add_host(text: str) -> tuple[str, str]:
    """`name:IP`, where IP may be in brackets, or `name:host-gateway`.

    Raises:
        UsageError: it is something else.
    """
    name, colon, address = text.partition(":")
    address = address.removeprefix("[").removesuffix("]") if address.startswith("[") else address
    if not colon or not name or not address:
        raise errors.UsageError(f'expected "NAME:IP" or "NAME:{GATEWAY}", got {quoted(text)}')
    if len(name) > _LONGEST_NAME or not name.isascii() or not all(c.isalnum() or c in "-._" for c in name):
        raise errors.UsageError(f"{quoted(name)} can not be a host's name: expected letters, digits, - and .")
    if address != GATEWAY and not is_address(address, _socket.AF_INET, _socket.AF_INET6):
        raise errors.UsageError(
            f"expected an IP address or {GATEWAY} for {quoted(name)}, got {quoted(address)}{near(address, (GATEWAY,))}"
        )
    return name, check_text(address)


def check_hosts(hosts: Iterable[tuple[str, str]], network: str) -> tuple[tuple[str, str], ...]:
    """`hosts`, when a container with this network can have them.

    Raises:
        UsageError: host-gateway where there is no gateway.
    """
    hosts = tuple(hosts)
    if network != "private" and any(address == GATEWAY for _, address in hosts):
        why = "with host, the host is 127.0.0.1" if network == "host" else "with none, the host can not be reached"
        raise errors.UsageError(f"{GATEWAY} needs network private: {why}")
    return hosts
