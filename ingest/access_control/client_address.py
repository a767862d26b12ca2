"""The address of a request's client: the peer's, or the one that trusted proxies report."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from shared.settings.units import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_CLIENT_PREFIX: Final = 64
"""Bits of an IPv6 address that identify the network of one client."""


def client_address(
    peer: str, forwarded: Sequence[str], trusted: Sequence[Network]
) -> Address | None:
    """The client's address.

    Only the entries of X-Forwarded-For that trusted proxies wrote are used. Each proxy appends the
    address of its peer, so the header is read from its end to the first address that is not a
    trusted proxy. Anybody can have written the entries before that one.

    Args:
        peer: the address that the connection comes from.
        forwarded: the values of all X-Forwarded-For headers, in their order.
        trusted: networks of proxies.

    Returns:
        None when the address is unknown.
    """
    address = _parse(peer)
    hops = [hop for value in forwarded for hop in value.split(",")]
    while hops and address is not None and within(address, trusted):
        address = _parse(hops.pop())
    return address


def within(address: Address, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of the networks."""
    return any(address in network for network in networks)


def client_network(address: Address) -> str:
    """The IPv4 address, or the /64 of an IPv6 address: one client controls all 2^64 of them."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address), _CLIENT_PREFIX), strict=False))
    return str(address)


def _parse(text: str) -> Address | None:
    text = text.strip()
    try:
        parsed = ipaddress.ip_address(_without_port(text))
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return mapped or parsed  # a socket for both families shows IPv4 peers as ::ffff:192.0.2.1


def _without_port(text: str) -> str:
    """Some proxies write `192.0.2.1:4711` and `[2001:db8::1]:4711`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text
