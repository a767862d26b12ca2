"""The policy of a source: one decision, with the checks in one order and the rate limit last."""

import base64
from collections.abc import Iterator
from unittest.mock import Mock

import pytest
from aiohttp import web
from multidict import CIMultiDict, CIMultiDictProxy

from ingest.access_control.policy import ALLOW, VERIFY_PASSWORD, Policy, Refuse
from shared.settings import password
from shared.settings.sources import BasicAuthUser, Rule
from shared.settings.units import parse_networks

TOKEN = "6ZbQ-9.x_Ltoken~0123"
RULE = Rule(
    token=(TOKEN,),
    basic=(BasicAuthUser(b"mms", password.hashed(b"horse")),),
    allow=parse_networks("192.0.2.0/24"),
)
PEER = "192.0.2.1"


def headers(secret: str) -> CIMultiDictProxy[str]:
    encoded = base64.b64encode(f"mms:{secret}".encode()).decode()
    return CIMultiDictProxy(CIMultiDict({"Authorization": f"Basic {encoded}"}))


def request(secret: str) -> web.BaseRequest:
    return Mock(spec=web.BaseRequest, headers=headers(secret), remote=PEER, transport=None)


@pytest.fixture
def policy() -> Policy:
    return Policy("acme", RULE, rate=2.0, trusted=())


def refused(policy: Policy) -> Iterator[object]:
    """Requests that fail one more check than the one before."""
    yield policy.decide(headers("wrong"), PEER, TOKEN)
    yield policy.decide(headers("wrong"), PEER, "")
    yield policy.decide(headers("wrong"), "203.0.113.1", "")


async def test_the_first_check_that_fails_decides(policy: Policy) -> None:
    assert await policy.verify_password(request("wrong")) == policy.decide(
        headers("wrong"), PEER, TOKEN
    )
    decisions = list(refused(policy))
    assert all(isinstance(each, Refuse) for each in decisions)
    assert [each.text for each in decisions if isinstance(each, Refuse)] == [
        "user or password is missing or wrong",
        "the token in the path is missing or wrong",
        "not from this address",
    ]


async def test_a_new_password_is_verified_and_then_remembered(policy: Policy) -> None:
    assert policy.decide(headers("horse"), PEER, TOKEN) is VERIFY_PASSWORD
    assert await policy.verify_password(request("horse")) is ALLOW
    assert policy.decide(headers("horse"), PEER, TOKEN) is ALLOW


async def test_only_allowed_requests_are_charged(policy: Policy) -> None:
    await policy.verify_password(request("wrong"))
    for _ in range(10):
        assert ALLOW not in list(refused(policy))
        assert policy.decide(headers("horse"), PEER, TOKEN) is VERIFY_PASSWORD
    assert await policy.verify_password(request("horse")) is ALLOW
    assert policy.decide(headers("horse"), PEER, TOKEN) is ALLOW
    over_limit = policy.decide(headers("horse"), PEER, TOKEN)
    assert isinstance(over_limit, Refuse)
    assert (over_limit.status, dict(over_limit.headers)) == (429, {"Retry-After": "1"})


def test_a_source_without_a_rule_is_open_unless_it_has_a_rate_limit() -> None:
    nothing = CIMultiDictProxy(CIMultiDict[str]())
    for rate, is_open in ((0.0, True), (1.0, False)):
        policy = Policy("acme", Rule(), rate, trusted=())
        assert policy.open == is_open
        assert policy.decide(nothing, PEER, "") is ALLOW
