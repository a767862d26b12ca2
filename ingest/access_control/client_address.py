"""Whose request is this? The peer's address, or what trusted proxies say it was before them."""

import ipaddress
from collections.abc import Sequence
from typing import Final

from shared.settings.units import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def sender(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> Address | None:
    """The sender's address.

    X-Forwarded-For counts only as far as trusted proxies wrote it: it is read from its end, where
    the last proxy has put who connected to it, to the first address that is no trusted proxy. What
    stands before that anybody can have made up.

    Args:
        peer: who is connected to us.
        forwarded: the values of all X-Forwarded-For headers, in their order.
        trusted: networks of proxies.

    Returns:
        None when it cannot be told.
    """
    address = _address(peer)
    hops = [hop for value in forwarded for hop in value.split(",")]
    while hops and address is not None and within(address, trusted):
        address = _address(hops.pop())
    return address


def within(address: Address, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of the networks."""
    return any(address in network for network in networks)


def owner(address: Address) -> str:
    """The address, or the /64 that an IPv6 one is in: whoever has one of it has all 2^64."""
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((int(address), _ONE_OWNER), strict=False))
    return str(address)


_ONE_OWNER: Final = 64
"""Bits of an IPv6 address that tell one network from another."""


def _address(text: str) -> Address | None:
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
