"""May this socket connect? Asked of the address that it is about to connect to, so no name can lie about it.

A resolver is asked too early (names rebind) or not at all (literal addresses, redirects), and
`ipaddress.is_global` lets some addresses through that lead inside; hence a socket factory and a table of our own.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Network = IPv4Network | IPv6Network
# (family, type, protocol, canonical name, address), as getaddrinfo has it
AddressInfo = tuple[int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[Any, ...]]
SocketFactory = Callable[[AddressInfo], socket.socket]

_DENIED = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",  # this network: Linux connects 0.0.0.0 to loopback
        "10.0.0.0/8",  # private (RFC 1918)
        "100.64.0.0/10",  # carrier-grade NAT; Alibaba's metadata service
        "127.0.0.0/8",  # loopback
        "168.63.129.16/32",  # Azure's wire server: a public address that every guest reaches
        "169.254.0.0/16",  # link-local; the metadata services of most clouds
        "172.16.0.0/12",  # private (RFC 1918)
        "192.0.0.0/24",  # protocol assignments; Oracle's metadata service
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",  # private (RFC 1918)
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
        # IPv6: everything outside 2000::/3 (loopback, unique local, link-local, site-local, multicast, reserved …)
        "::/3",
        "4000::/2",
        "8000::/1",
        "2001::/23",  # protocol assignments
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_MAPPED = ip_network("::ffff:0:0/96")
_NAT64 = ip_network("64:ff9b::/96")
_COMPATIBLE = ip_network("::/96")


class ForbiddenAddressError(PermissionError):
    """The guard's refusal.

    An OSError, since aiohappyeyeballs expects no other from a factory, and always with the same text, since it
    drops the type when the addresses of one name failed with different texts.
    """

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "the address is private or reserved and not in fetch.allowed_networks")


def is_allowed(address: str, allowed_networks: Sequence[Network] = ()) -> bool:
    """May a URL that somebody sent lead to this address? What is not an IP address may not."""
    try:
        ip = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    targets = embedded(ip) if isinstance(ip, IPv6Address) else ()
    return _in_any(ip, allowed_networks) or all(
        _in_any(target, allowed_networks) or not _in_any(target, _DENIED) for target in targets or (ip,)
    )


def socket_factory(allowed_networks: Sequence[Network]) -> SocketFactory:
    """Return a socket factory for aiohttp's connector; it raises ForbiddenAddressError instead of opening a socket."""

    def guarded_socket(info: AddressInfo) -> socket.socket:
        family, kind, protocol, _, address = info
        if family not in (socket.AF_INET, socket.AF_INET6) or not is_allowed(address[0], allowed_networks):
            raise ForbiddenAddressError
        return socket.socket(family, kind, protocol)

    return guarded_socket


def embedded(ip: IPv6Address) -> tuple[IPv4Address, ...]:
    """Return the IPv4 addresses that packets to an IPv6 address end at; none for a native one."""
    if ip.sixtofour is not None:
        return (ip.sixtofour,)
    if ip.teredo is not None:
        return ip.teredo
    if ip in _MAPPED or ip in _NAT64 or (ip in _COMPATIBLE and int(ip) > 1):
        return (IPv4Address(int(ip) & 0xFFFF_FFFF),)
    return ()


def _in_any(ip: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(ip in network for network in networks)
