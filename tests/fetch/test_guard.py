import socket
from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from v2td.fetch.guard import ForbiddenAddressError, is_allowed, socket_factory

DENIED = """
0.0.0.0 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 127.0.0.1 127.255.255.254 168.63.129.16 169.254.169.254
172.16.0.1 172.31.255.255 192.0.0.192 192.0.2.1 192.88.99.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1
240.0.0.1 255.255.255.255
:: ::1 ::7f00:1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:a00:1 ::ffff:169.254.169.254 ::ffff:0:7f00:1
64:ff9b::7f00:1 64:ff9b::10.0.0.1 64:ff9b:1::808:808 100::1 2001::1 2001:0:7f00:1:: 2001:0:808:808::80ff:fffe
2001:db8::1 2002:7f00:1:: 2002:a9fe:a9fe::1 2002:c0a8:101:: 3fff::1 4000::1 5f00::1 fc00::1 fd00:ec2::254 fe80::1
fe80::1%eth0 fec0::1 ff02::1
"""

ALLOWED = """
1.1.1.1 8.8.8.8 100.63.255.255 100.128.0.0 172.15.255.255 172.32.0.1 192.0.1.1 11.0.0.1 223.255.255.255
2606:4700::1111 2a00:1450::1 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::1
"""


@pytest.mark.parametrize("address", [*DENIED.split(), "", "localhost", "127.1", "1.2.3.4.5", "/run/socket"])
def test_denied(address: str) -> None:
    assert not is_allowed(address)


@pytest.mark.parametrize("address", ALLOWED.split())
def test_allowed(address: str) -> None:
    assert is_allowed(address)


@given(st.ip_addresses(v=4))
def test_no_wrapping_opens_a_closed_address(ip: IPv4Address) -> None:
    """Whatever a native IPv4 address gets, it gets in every IPv6 dress."""
    wrapped = [IPv6Address(int(IPv6Address(prefix)) + int(ip)) for prefix in ("::ffff:0:0", "64:ff9b::")]
    wrapped.append(IPv6Address((0x2002 << 112) | (int(ip) << 80)))
    if int(ip) > 1:
        wrapped.append(IPv6Address(int(ip)))
    for address in wrapped:
        assert is_allowed(str(address)) == is_allowed(str(ip))
    teredo = IPv6Address((0x2001_0000 << 96) | (0x08080808 << 64) | (int(ip) ^ 0xFFFF_FFFF))
    assert is_allowed(str(teredo)) == is_allowed(str(ip))


@given(st.ip_addresses())
def test_what_is_not_global_is_denied(ip: IPv4Address | IPv6Address) -> None:
    assume(isinstance(ip, IPv4Address) or (ip.ipv4_mapped is None and ip not in ip_network("64:ff9b::/96")))
    if ip.is_private or ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified or ip.is_reserved:
        assert not is_allowed(str(ip))


def test_configured_networks_are_opened_and_no_others() -> None:
    networks = (ip_network("10.20.0.0/16"), ip_network("fd12::/16"))
    for address in ("10.20.1.2", "::ffff:10.20.1.2", "64:ff9b::a14:102", "fd12::1", "8.8.8.8"):
        assert is_allowed(address, networks)
    for address in ("10.21.0.1", "127.0.0.1", "fd13::1", "::ffff:10.21.0.1"):
        assert not is_allowed(address, networks)


def test_factory_opens_no_socket_for_a_forbidden_address() -> None:
    factory = socket_factory((ip_network("127.0.0.1/32"),))
    with factory((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))) as allowed:
        assert allowed.family is socket.AF_INET
    with pytest.raises(ForbiddenAddressError):
        factory((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.2", 80)))
    with pytest.raises(ForbiddenAddressError):
        factory((socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("fe80::1%eth0", 80, 0, 2)))
    with pytest.raises(ForbiddenAddressError):
        factory((socket.AF_UNIX, socket.SOCK_STREAM, 0, "", ("127.0.0.1",)))
