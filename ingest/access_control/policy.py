"""Who may come in: each source's rule, held against the path, the headers and the address.

An open source without a limit costs one look-up in a table. Comparing a secret takes as long
wherever it differs.
"""

import functools
import hashlib
import hmac
import ipaddress
import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from aiohttp import web
from aiohttp.hdrs import AUTHORIZATION
from multidict import CIMultiDictProxy

from ingest.access_control.basic_auth import Logins
from ingest.access_control.client_address import owner, sender, within
from ingest.access_control.password_checks import Sender
from ingest.access_control.rate_limit import Bucket
from shared.errors import OverloadedError, SettingsError
from shared.settings.settings import Settings
from shared.settings.sources import Rule
from shared.settings.units import Network

PATH: Final = "/postbacks"

BUSY_RETRY_AFTER: Final = "5"
"""Seconds to wait when too many passwords are being checked."""

_ADDRESSES: Final = 256
"""Senders whose address needs no second look, for each source."""


class Refusal(NamedTuple):
    """An answer that keeps a request out."""

    status: int
    text: str
    headers: dict[str, str]


class Policy:
    """One source's rule, at work.

    Attributes:
        source: its name.
        open: whether there is nothing to ask of anybody.
    """

    def __init__(self, source: str, rule: Rule, rate: float, trusted: Sequence[Network]) -> None:
        self.source = source
        self._tokens = [_digest(token) for token in rule.token]
        self._logins = Logins(rule.basic) if rule.basic else None
        self._bucket = Bucket(rate) if rate else None
        self._allow = rule.allow
        self._trusted = trusted
        self._allowed = functools.lru_cache(_ADDRESSES)(self._is_allowed)
        self.open = rule.open and self._bucket is None

    @property
    def wants_token(self) -> bool:
        """Whether the path has one part more, the token."""
        return bool(self._tokens)

    def allows(self, headers: CIMultiDictProxy[str], peer: str, token: str) -> bool:
        """Whether it is clear at once that a request may come in; if not, `refusal` tells.

        Args:
            peer: the address that the connection comes from.
        """
        if self._allow and not self._comes_from_allowed(headers, peer):
            return False
        if self._tokens and not self._is_token(token):
            return False
        if self._logins is not None and not self._logins.known(headers.get(AUTHORIZATION, "")):
            return False
        return self._bucket is None or not self._bucket.take()

    async def refusal(self, request: web.BaseRequest, token: str) -> Refusal | None:
        """Why this request must stay outside, or None.

        The rate is asked last: who may not come in uses nothing up.
        """
        if self._allow and not self._comes_from_allowed(request.headers, request.remote or ""):
            return Refusal(403, "not from this address", {})
        if self._tokens and not self._is_token(token):
            return Refusal(403, "the token in the path is missing or wrong", {})
        if self._logins is not None and (
            refusal := await _login(self._logins, request, self._sender(request))
        ):
            return refusal
        if self._bucket is not None and (wait := self._bucket.take()):
            return Refusal(429, "too many postbacks", {"Retry-After": str(math.ceil(wait))})
        return None

    def _sender(self, request: web.BaseRequest) -> Sender:
        """Who sends this; connections of trusted proxies are shared by many."""
        peer = request.remote or ""
        forwarded = request.headers.getall("X-Forwarded-For", ()) if self._trusted else ()
        address = sender(peer, forwarded, self._trusted)
        direct = address is not None and not within(address, self._trusted) and not forwarded
        transport = request.transport
        name = transport.get_extra_info("peername") if direct and transport is not None else ""
        return Sender(peer if address is None else owner(address), str(name or ""))

    def _is_token(self, token: str) -> bool:
        digest = _digest(token)
        return any(hmac.compare_digest(digest, each) for each in self._tokens)

    def _comes_from_allowed(self, headers: CIMultiDictProxy[str], peer: str) -> bool:
        forwarded = headers.getall("X-Forwarded-For", ()) if self._trusted else ()
        return self._allowed(peer, tuple(forwarded))

    def _is_allowed(self, peer: str, forwarded: tuple[str, ...]) -> bool:
        address = sender(peer, forwarded, self._trusted)
        return address is not None and within(address, self._allow)


class AccessControl:
    """All gates, by the paths that lead to them.

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
        """The gate that a path leads to and the token that it ends with, if it does."""
        policy = self._policies.get(path)
        if policy is not None:
            return policy, ""
        place, _, token = path.rpartition("/")
        policy = self._policies.get(place) if place != PATH else None
        return (policy, token) if policy is not None and policy.wants_token else (None, "")


async def _login(logins: Logins, request: web.BaseRequest, sender: Sender) -> Refusal | None:
    header = request.headers.get(AUTHORIZATION, "")
    try:
        verdict = logins.known(header)
        if await logins.verify(header, sender) if verdict is None else verdict:
            return None
    except OverloadedError as error:
        return Refusal(503, str(error), {"Retry-After": BUSY_RETRY_AFTER})
    challenge = {"WWW-Authenticate": 'Basic realm="postbacks", charset="UTF-8"'}
    return Refusal(401, "user or password is missing or wrong", challenge)


def _check_exposure(settings: Settings) -> None:
    """Raises: SettingsError: it listens to a network, and anybody there could send."""
    unguarded = [each for each in settings.sources if settings.rules.get(each, Rule()).open]
    if unguarded and not settings.open and not _is_loopback(settings.ingest_host):
        raise SettingsError(
            f"MMS_INGEST_HOST is {settings.ingest_host}, and anybody who reaches it could send"
            f" postbacks for {', '.join(unguarded)}. Give each source a rule"
            " (MMS_SOURCE_<NAME>_TOKEN, _BASIC or _ALLOW), or say that this is meant: MMS_OPEN=1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _digest(token: str) -> bytes:
    """Of one length for all, so that the comparison does not tell the length."""
    return hashlib.blake2b(token.encode("utf-8", "surrogateescape"), digest_size=32).digest()
