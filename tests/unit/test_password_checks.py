"""Password checks: a client that guesses from many addresses does not delay others."""

import asyncio
import ipaddress
import threading

from ingest.access_control.client_address import client_network
from ingest.access_control.password_checks import MAX_ADDRESSES, Client, PasswordChecks


def attacker(number: int) -> Client:
    return Client(f"198.51.{number // 256}.{number % 256}", f"connection {number}")


PROVIDER = Client("192.0.2.1", "the provider's")


async def guess(checks: PasswordChecks, clients: list[Client]) -> None:
    """Each client sends one wrong password and waits for the result."""
    for at in range(0, len(clients), MAX_ADDRESSES):
        part = clients[at : at + MAX_ADDRESSES]
        assert not any(await asyncio.gather(*(checks.submit(each, lambda: False) for each in part)))


async def test_more_guessing_addresses_than_may_wait_do_not_block_the_provider() -> None:
    """A botnet that fills the queue, and takes each place that becomes free."""
    checks = PasswordChecks()
    guessing = [attacker(number) for number in range(MAX_ADDRESSES + 1)]
    await guess(checks, guessing)
    begin = threading.Event()
    order: list[str] = []

    def check(name: str) -> bool:
        begin.wait(30)
        order.append(name)
        return name == "right"

    waiting = [checks.submit(each, lambda: check("wrong")) for each in guessing]  # one is running
    result = checks.submit(PROVIDER, lambda: check("right"))
    begin.set()
    assert await result
    assert order[:2] == ["wrong", "right"]
    results = await asyncio.gather(*waiting, return_exceptions=True)
    assert (
        sum(each is False for each in results) == MAX_ADDRESSES
    )  # one was removed for the provider


async def test_clients_that_guessed_come_after_clients_that_did_not() -> None:
    checks = PasswordChecks()
    guessing = [attacker(number) for number in range(20)]
    await guess(checks, guessing)
    begin = threading.Event()
    order: list[str] = []

    def check(name: str) -> bool:
        begin.wait(30)
        order.append(name)
        return False

    waiting = [checks.submit(each, lambda: check("guess")) for each in guessing]
    waiting.append(checks.submit(PROVIDER, lambda: check("provider")))
    begin.set()
    await asyncio.gather(*waiting)
    assert order.index("provider") == 1  # the first one was running already


def test_one_client_has_a_whole_network_of_ipv6() -> None:
    addresses = [ipaddress.ip_address(f"2001:db8:0:1::{number:x}") for number in (1, 2, 2**16 - 1)]
    assert {client_network(each) for each in addresses} == {"2001:db8:0:1::/64"}
    assert client_network(ipaddress.ip_address("fe80::1%eth0")) == "fe80::/64"
    assert client_network(ipaddress.ip_address("192.0.2.1")) == "192.0.2.1"
