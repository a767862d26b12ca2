"""Password checks: who guesses from many addresses holds up nobody who does not."""

import asyncio
import ipaddress
import threading

from ingest.access_control.client_address import owner
from ingest.access_control.password_checks import MAX_ADDRESSES, Checks, Sender


def attacker(number: int) -> Sender:
    return Sender(f"198.51.{number // 256}.{number % 256}", f"connection {number}")


PROVIDER = Sender("192.0.2.1", "the provider's")


async def guess(checks: Checks, senders: list[Sender]) -> None:
    """Each sends one wrong password and waits for the verdict."""
    for at in range(0, len(senders), MAX_ADDRESSES):
        part = senders[at : at + MAX_ADDRESSES]
        assert not any(await asyncio.gather(*(checks.wait(each, lambda: False) for each in part)))


async def test_more_guessing_addresses_than_may_wait_do_not_keep_the_provider_out() -> None:
    """A botnet that fills all places, and takes each that becomes free."""
    checks = Checks()
    guessing = [attacker(number) for number in range(MAX_ADDRESSES + 1)]
    await guess(checks, guessing)
    begin = threading.Event()
    order: list[str] = []

    def check(name: str) -> bool:
        begin.wait(30)
        order.append(name)
        return name == "right"

    waiting = [checks.wait(each, lambda: check("wrong")) for each in guessing]  # one is running
    verdict = checks.wait(PROVIDER, lambda: check("right"))
    begin.set()
    assert await verdict
    assert order[:2] == ["wrong", "right"]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert sum(answer is False for answer in answers) == MAX_ADDRESSES  # one made room


async def test_those_who_guessed_come_after_those_who_did_not() -> None:
    checks = Checks()
    guessing = [attacker(number) for number in range(20)]
    await guess(checks, guessing)
    begin = threading.Event()
    order: list[str] = []

    def check(name: str) -> bool:
        begin.wait(30)
        order.append(name)
        return False

    waiting = [checks.wait(each, lambda: check("guess")) for each in guessing]
    waiting.append(checks.wait(PROVIDER, lambda: check("provider")))
    begin.set()
    await asyncio.gather(*waiting)
    assert order.index("provider") == 1  # the first one was running already


def test_one_party_has_a_whole_network_of_ipv6() -> None:
    addresses = [ipaddress.ip_address(f"2001:db8:0:1::{number:x}") for number in (1, 2, 2**16 - 1)]
    assert {owner(each) for each in addresses} == {"2001:db8:0:1::/64"}
    assert owner(ipaddress.ip_address("fe80::1%eth0")) == "fe80::/64"
    assert owner(ipaddress.ip_address("192.0.2.1")) == "192.0.2.1"
