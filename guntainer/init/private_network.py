"""A container's own part of its private network: the device, the namespace that it hands out, and the waiting.

The supervisor connects the network namespace from outside, by a tool that opens the device from there (see `network`). The
device is made here, and is persistent, so that it has a known index and the tool's end costs no wait for its removal. The
container must not execute before the tool is ready.

Addresses of loopback never leave the namespace. A socket that is bound to the device (SO_BINDTODEVICE, IP_PKTINFO; anybody
may) would send there whatever its destination is, and the tools carry even that to the loopback of the host. So these
addresses are made local on the device as well. Only who has CAP_NET_ADMIN or CAP_NET_RAW can get round that, which a
container with a private network has when it is asked for alone: see spec.capabilities_of.
"""

from __future__ import annotations

import os
import struct

from guntainer.init import NETWORK_NAMESPACE, ROUTES, STDIN_ASIDE, USER_NAMESPACE
from guntainer.kernel import abi
from guntainer.kernel.program import Program

DEVICE = "eth0"
_INDEX = 100  # of the device; lower ones may be taken by tunnels that the kernel makes in each namespace

_PORTS_FOR_ALL = ("net/ipv4/ip_unprivileged_port_start", "0")
_LOOPBACKS = ((abi.AF_INET, bytes((127, 0, 0, 0)), 8), (abi.AF_INET6, bytes(15) + b"\1", 128))


def _open(program: Program, path: str, how: int, *, at: int) -> None:
    fd = program.call("openat", abi.AT_FDCWD, path, how | os.O_CLOEXEC)
    program.call("dup3", fd, at, os.O_CLOEXEC)


def offer(program: Program, channel: int, ping_groups: tuple[int, int]) -> None:
    """Make the tap device, set what docker sets in a network, hand out the namespace through a socket: tun(4), unix(7).

    Args:
        ping_groups: the first and the last group that may ping without CAP_NET_RAW: icmp(7).
    """
    _device(program)
    for name, text in (("net/ipv4/ping_group_range", "{} {}".format(*ping_groups)), _PORTS_FOR_ALL):
        fd = program.call("openat", abi.AT_FDCWD, f"/proc/sys/{name}", os.O_WRONLY | os.O_CLOEXEC, ignore=True)
        program.call("write", fd, text, len(text), ignore=True)
    # What shares our memory between clone and exec may have closed this to others of the same user: prctl(2).
    program.call("prctl", abi.PR_SET_DUMPABLE, 1, 0, 0, 0)
    _open(program, "/proc/self/ns/net", os.O_RDONLY, at=NETWORK_NAMESPACE)
    _open(program, "/proc/self/ns/user", os.O_RDONLY, at=USER_NAMESPACE)
    namespaces = program.rights_message(NETWORK_NAMESPACE, USER_NAMESPACE)
    program.call_with_fd("sendmsg", 0, channel, namespaces, abi.MSG_NOSIGNAL)


def _device(program: Program) -> None:
    """A persistent tap device, detached again, so that the tool can attach.

    The descriptor must have a known number, or it could not be closed: what is opened after 0 was closed is 0.
    """
    request = struct.pack("16sH22x", DEVICE.encode(), abi.IFF_TAP | abi.IFF_NO_PI)
    program.call("dup3", 0, STDIN_ASIDE, os.O_CLOEXEC, ignore=True)  # it may be closed
    program.call("close", 0, ignore=True)
    program.call("openat", abi.AT_FDCWD, "/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
    program.call("ioctl", 0, abi.TUNSETIFINDEX, program.data(struct.pack("I", _INDEX)))
    program.call("ioctl", 0, abi.TUNSETIFF, program.data(request))
    program.call("ioctl", 0, abi.TUNSETPERSIST, 1)
    program.call("close", 0)
    program.call("dup3", STDIN_ASIDE, 0, 0, ignore=True)
    program.call("close", STDIN_ASIDE, ignore=True)


def wait(program: Program, channel: int) -> None:
    """Wait for a byte that says that the network is there, answer it, keep loopback inside.

    At the end of file, when the supervisor has died or given up, the answer fails with EPIPE.
    """
    program.call_with_fd("read", 0, channel, program.data(bytes(8), shared=False), 1)
    program.call_with_fd("sendto", 0, channel, b"m", 1, abi.MSG_NOSIGNAL, 0, 0)
    sock = program.call("socket", abi.AF_NETLINK, abi.SOCK_RAW | os.O_CLOEXEC, 0)
    program.call("dup3", sock, ROUTES, os.O_CLOEXEC)
    for family, address, bits in _LOOPBACKS:
        _local_route(program, family, address, bits)


def _local_route(program: Program, family: int, address: bytes, bits: int) -> None:
    """Make addresses local on the device: rtnetlink(7). The kernel has acted when the call returns, and answers only a refusal."""
    route = struct.pack(
        "=8BI",
        *(family, bits, 0, 0),
        *(abi.RT_TABLE_LOCAL, abi.RTPROT_STATIC, abi.RT_SCOPE_HOST, abi.RTN_LOCAL, 0),
    )
    for kind, value in (
        (abi.RTA_DST, address),
        (abi.RTA_OIF, struct.pack("I", _INDEX)),
        (abi.RTA_PRIORITY, struct.pack("I", 1024)),  # after the one of lo
    ):
        route += struct.pack("HH", 4 + len(value), kind) + value
    head = struct.pack("IHHII", 16 + len(route), abi.RTM_NEWROUTE, abi.NLM_F_REQUEST | abi.NLM_F_CREATE, 1, 0)
    message = head + route
    program.call("sendto", ROUTES, program.data(message), len(message), 0, 0, 0)
    done = program.label()
    program.call("recvfrom", ROUTES, program.data(bytes(64), shared=False), 64, abi.MSG_DONTWAIT, 0, 0, on_error=done)
    if family == abi.AF_INET:
        program.call("prctl", -1, 0, 0, 0, 0)  # fails: tells the record
    program.here(done)
