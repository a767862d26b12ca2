"""The client address: an X-Forwarded-For that a client wrote itself changes nothing."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.access_control.client_address import client_address, within
from shared.settings.units import parse_networks

PROXIES = parse_networks("10.0.0.0/8,2001:db8::/64")


@pytest.mark.parametrize(
    ("peer", "forwarded", "expected"),
    [
        ("192.0.2.1", (), "192.0.2.1"),
        ("192.0.2.1", ("198.51.100.7",), "192.0.2.1"),  # not from a trusted proxy
        ("10.0.0.1", ("198.51.100.7",), "198.51.100.7"),
        ("10.0.0.1", ("203.0.113.9, 198.51.100.7",), "198.51.100.7"),
        ("10.0.0.1", ("203.0.113.9", "198.51.100.7, 10.0.0.2"), "198.51.100.7"),
        ("10.0.0.1", ("198.51.100.7:4711",), "198.51.100.7"),
        ("2001:db8::1", ("[2001:db9::7]:4711",), "2001:db9::7"),
        ("::ffff:10.0.0.1", ("::ffff:198.51.100.7",), "198.51.100.7"),
        ("10.0.0.1", (), "10.0.0.1"),
        ("10.0.0.1", ("198.51.100.7, unknown",), None),
        ("10.0.0.1", ("198.51.100.7, ",), None),
        ("", ("198.51.100.7",), None),
    ],
)
def test_client_address(peer: str, forwarded: tuple[str, ...], expected: str | None) -> None:
    found = client_address(peer, forwarded, PROXIES)
    assert (str(found) if found else None) == expected


@given(st.lists(st.text() | st.ip_addresses().map(str)))
def test_entries_before_the_last_proxys_change_nothing(claims: list[str]) -> None:
    forwarded = (*claims, "198.51.100.7")
    assert client_address("10.0.0.1", forwarded, PROXIES) == ipaddress.ip_address("198.51.100.7")


@given(st.text(), st.lists(st.text()))
def test_any_text_is_parsed_without_an_error(peer: str, forwarded: list[str]) -> None:
    client_address(peer, forwarded, parse_networks("0.0.0.0/0,::/0"))


def test_a_network_of_ipv4_written_as_ipv6_contains_ipv4_clients() -> None:
    for peer in ("192.0.2.1", "::ffff:192.0.2.1"):
        address = client_address(peer, (), ())
        assert address is not None
        assert within(address, parse_networks("::ffff:192.0.2.0/120"))
        assert not within(address, parse_networks("::ffff:198.51.100.0/120"))
