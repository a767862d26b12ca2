"""The policy of each source decides on each request: allow, refuse, or verify the password first.

`Policy.decide` holds the order of the checks; both request paths of `http.server` call it. The rate
limit is charged last, and once, so a request that is refused for another reason uses nothing up.
An open source without a rate limit costs one look-up in a table.
"""

import enum
import functools
import hashlib
import hmac
import ipaddress
import math
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION
from multidict import CIMultiDictProxy

from ingest.access_control.basic_auth import BasicAuth
from ingest.access_control.client_address import client_address, client_network, within
from ingest.access_control.password_checks import Client
from ingest.access_control.rate_limit import TokenBucket
from shared.errors import OverloadedError, SettingsError
from shared.settings.settings import Settings
from shared.settings.sources import Rule
from shared.settings.units import Network

PATH: Final = "/postbacks"

BUSY_RETRY_AFTER: Final = "5"
"""Seconds to wait when too many passwords are being checked."""

_MAX_CACHED_ADDRESSES: Final = 256
"""Addresses whose look-up in the allow list is cached, for each source."""


class _Access(enum.Enum):
    ALLOW = enum.auto()
    VERIFY_PASSWORD = enum.auto()


ALLOW: Final = _Access.ALLOW
"""The request is allowed, and counts towards the rate limit."""

VERIFY_PASSWORD: Final = _Access.VERIFY_PASSWORD
"""All checks before the password allow the request; `Policy.verify_password` does the rest."""


class Refuse(NamedTuple):
    """The request is refused with this response."""

    status: int
    text: str
    headers: Mapping[str, str] = {}


Decision = Literal[_Access.ALLOW, _Access.VERIFY_PASSWORD] | Refuse

_WRONG_ADDRESS: Final = Refuse(403, "not from this address")
_WRONG_TOKEN: Final = Refuse(403, "the token in the path is missing or wrong")
_WRONG_PASSWORD: Final = Refuse(
    401,
    "user or password is missing or wrong",
    {"WWW-Authenticate": 'Basic realm="postbacks", charset="UTF-8"'},
)


class Policy:
    """Decides on the requests of one source.

    Attributes:
        source: the source's name.
        open: every request is allowed, so there is nothing to decide.
    """

    def __init__(self, source: str, rule: Rule, rate: float, trusted: Sequence[Network]) -> None:
        self.source = source
        self._tokens = [_digest(token) for token in rule.token]
        self._basic_auth = BasicAuth(rule.basic) if rule.basic else None
        self._bucket = TokenBucket(rate) if rate else None
        self._allow_list = rule.allow
        self._trusted = trusted
        self._is_listed = functools.lru_cache(_MAX_CACHED_ADDRESSES)(self._look_up_address)
        self.open = rule.open and self._bucket is None

    @property
    def wants_token(self) -> bool:
        """Whether the path ends with one more part, the token."""
        return bool(self._tokens)

    def decide(self, headers: CIMultiDictProxy[str], peer: str, token: str) -> Decision:
        """Decide on a request.

        Args:
            headers: the request's.
            peer: the address that the connection comes from.
            token: the last part of the path; empty when it has none.
        """
        if self._allow_list and not self._is_listed(peer, self._forwarded(headers)):
            return _WRONG_ADDRESS
        if self._tokens and not self._is_token(token):
            return _WRONG_TOKEN
        if self._basic_auth is not None:
            right = self._basic_auth.remembered(headers.get(AUTHORIZATION, ""))
            if right is None:
                return VERIFY_PASSWORD
            if not right:
                return _WRONG_PASSWORD
        return self._charge_rate_limit()

    async def verify_password(self, request: web.BaseRequest) -> Decision:
        """Decide on a request after `decide` returned `VERIFY_PASSWORD`: allow or refuse."""
        if self._basic_auth is not None:
            header = request.headers.get(AUTHORIZATION, "")
            try:
                if not await self._basic_auth.verify(header, self._client(request)):
                    return _WRONG_PASSWORD
            except OverloadedError as error:
                return Refuse(503, str(error), {"Retry-After": BUSY_RETRY_AFTER})
        return self._charge_rate_limit()

    def _charge_rate_limit(self) -> Decision:
        if self._bucket is not None and (wait := self._bucket.take()):
            return Refuse(429, "too many postbacks", {"Retry-After": str(math.ceil(wait))})
        return ALLOW

    def _client(self, request: web.BaseRequest) -> Client:
        """The client of a request; many clients share the connection of a trusted proxy."""
        peer = request.remote or ""
        forwarded = self._forwarded(request.headers)
        address = client_address(peer, forwarded, self._trusted)
        direct = address is not None and not within(address, self._trusted) and not forwarded
        transport = request.transport
        name = transport.get_extra_info("peername") if direct and transport is not None else ""
        return Client(peer if address is None else client_network(address), str(name or ""))

    def _is_token(self, token: str) -> bool:
        """Takes as long wherever the token is wrong."""
        digest = _digest(token)
        return any(hmac.compare_digest(digest, each) for each in self._tokens)

    def _forwarded(self, headers: CIMultiDictProxy[str]) -> tuple[str, ...]:
        return tuple(headers.getall("X-Forwarded-For", ())) if self._trusted else ()

    def _look_up_address(self, peer: str, forwarded: tuple[str, ...]) -> bool:
        address = client_address(peer, forwarded, self._trusted)
        return address is not None and within(address, self._allow_list)


class AccessControl:
    """The policies of all sources, by the paths that lead to them.

    Raises:
        SettingsError: a source would be open to a network.
    """

    def __init__(self, settings: Settings) -> None:
        _check_exposure(settings)
        self._policies = {}
        for source in settings.sources:
            rule = settings.rules.get(source, Rule())
            rate = settings.rate_per_source if rule.rate is None else rule.rate
            self._policies[f"{PATH}/{source}"] = Policy(
                source, rule, rate, settings.trusted_proxies
            )
        if default := self._policies.get(f"{PATH}/default"):
            self._policies[PATH] = default

    def policy(self, path: str) -> tuple[Policy | None, str]:
        """The policy for a path, and the token at the path's end if the policy wants one."""
        policy = self._policies.get(path)
        if policy is not None:
            return policy, ""
        parent, _, token = path.rpartition("/")
        policy = self._policies.get(parent) if parent != PATH else None
        return (policy, token) if policy is not None and policy.wants_token else (None, "")


def _check_exposure(settings: Settings) -> None:
    """Raises: SettingsError: it listens on a network, and any host there could send postbacks."""
    open_sources = [each for each in settings.sources if settings.rules.get(each, Rule()).open]
    if open_sources and not settings.open and not _is_loopback(settings.ingest_host):
        raise SettingsError(
            f"MMS_INGEST_HOST is {settings.ingest_host}, so any host that reaches it could send"
            f" postbacks for {', '.join(open_sources)}. Give each source a rule"
            " (MMS_SOURCE_<NAME>_TOKEN, _BASIC or _ALLOW), or set MMS_OPEN=1 if you want this"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(token: str) -> bytes:
    """All digests have one length, so that the comparison does not reveal the token's."""
    return hashlib.blake2b(token.encode("utf-8", "surrogateescape"), digest_size=32).digest()
