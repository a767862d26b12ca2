"""What a source (one provider account) must show before its postbacks are let in.

A rule is written by source, in the TOML file or in the environment, where a source's name is in
capitals and with `_` for `-`:

    [source.acme]                                   MMS_SOURCE_ACME_TOKEN=6Zb…
    token = "6Zb…"                                  MMS_SOURCE_ACME_BASIC=mms:scrypt.14.8.1.…
    basic = "mms:scrypt.14.8.1.…"                   MMS_SOURCE_ACME_ALLOW=192.0.2.0/24,198.51.100.7
    allow = ["192.0.2.0/24", "198.51.100.7"]        MMS_SOURCE_ACME_RATE=200
    rate = 200

All parts that are given must hold. A part that lists several holds with any of them, so that a
token or a password can be changed without a gap.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from shared.errors import SettingsError
from shared.settings import password
from shared.settings.bounds import BOUNDS, within
from shared.settings.password import Hashed

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SHORTEST_TOKEN: Final = 16
"""Characters; who guesses must not get anywhere."""


class Login(msgspec.Struct, frozen=True):
    """A user of HTTP Basic."""

    user: bytes
    password: Hashed


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One source's rule. Empty means that anybody may send.

    Attributes:
        token: secrets, one of which must be the last part of the path.
        basic: users and hashed passwords for HTTP Basic.
        allow: where the sender may be.
        rate: postbacks a second that are let in; 0: no limit; None: MMS_RATE_PER_SOURCE.
    """

    token: tuple[str, ...] = ()
    basic: tuple[Login, ...] = ()
    allow: tuple[Network, ...] = ()
    rate: float | None = None

    @property
    def open(self) -> bool:
        """Whether anybody may send."""
        return not (self.token or self.basic or self.allow)

    def __repr__(self) -> str:
        return "Rule(***)"


Rules = dict[str, Rule]
"""Rules by source."""

DESCRIPTIONS: Final = {
    "token": "secrets; one must end the path: /postbacks/{source}/{token}",
    "basic": "user:hash pairs for HTTP Basic; mms-admin hash-password makes them",
    "allow": "addresses and networks that may send",
    "rate": "postbacks a second let in, by each process, in place of MMS_RATE_PER_SOURCE",
}
"""What each part of a rule is, by its name."""

TOML: Final[dict[str, tuple[type, ...]]] = {
    "token": (str, list),
    "basic": (str, list),
    "allow": (str, list),
    "rate": (str, int, float),
}
"""What each part may be in the TOML file."""

VARIABLE: Final = re.compile(rf"MMS_SOURCE_([A-Z0-9_]+)_({'|'.join(DESCRIPTIONS).upper()})")
"""The environment variable of one part of one source's rule."""


def rules(given: Mapping[tuple[str, str], tuple[str, str]], sources: tuple[str, ...]) -> Rules:
    """Read all rules.

    Args:
        given: by source and part: its text, and where that came from for the error.
        sources: all that exist.

    Raises:
        SettingsError: says where and what it takes, and never repeats a secret.
    """
    parts: dict[str, dict[str, object]] = {}
    for (source, part), (text, origin) in given.items():
        if source not in sources:
            raise SettingsError(f"{origin} is for {source!r}, which MMS_SOURCES does not name")
        parse, wanted = _PARTS[part]
        try:
            parts.setdefault(source, {})[part] = parse(text)
        except ValueError:
            raise SettingsError(f"{origin} cannot be read. It takes {wanted}") from None
    return {source: msgspec.structs.replace(Rule(), **rule) for source, rule in parts.items()}


def networks(text: str) -> tuple[Network, ...]:
    """Networks or addresses, separated by commas.

    IPv4 written as IPv6 (`::ffff:192.0.2.0/120`) becomes IPv4, as the addresses of senders do.

    Raises:
        ValueError: they are not.
    """
    return tuple(_unmapped(ipaddress.ip_network(each)) for each in _listed(text))


def _unmapped(network: Network) -> Network:
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= _MAPPED:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED))
    return network


_MAPPED: Final = 96
"""Bits before an IPv4 address that is written as an IPv6 one."""


def number(text: str) -> float:
    """Raises: ValueError: not a number, 0 or more."""
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


_NUMBER: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")


def _rate(text: str) -> float:
    rate = number(text.strip())
    if not within("rate_per_source", rate):
        raise ValueError(text)
    return rate


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~-]{{{SHORTEST_TOKEN},256}}")


def _some(text: str) -> list[str]:
    """A secret that is there but empty must not open a source: it was meant to close it."""
    if not (listed := _listed(text)):
        raise ValueError
    return listed


def _tokens(text: str) -> tuple[str, ...]:
    tokens = tuple(_some(text))
    if not all(map(_TOKEN.fullmatch, tokens)):
        raise ValueError
    return tokens


def _logins(text: str) -> tuple[Login, ...]:
    pairs = [each.rpartition(":") for each in _some(text)]
    if any(not user or ":" in user for user, _, _ in pairs):
        raise ValueError
    return tuple(Login(user.encode(), password.parse(hashed)) for user, _, hashed in pairs)


def _allowed(text: str) -> tuple[Network, ...]:
    return networks(",".join(_some(text)))


_PARTS: Final[dict[str, tuple[Callable[[str], object], str]]] = {
    "token": (
        _tokens,
        f"secrets of {SHORTEST_TOKEN} to 256 characters of A-Z a-z 0-9 . _ ~ -, with commas",
    ),
    "basic": (_logins, "user:hash pairs as mms-admin hash-password prints them, with commas"),
    "allow": (_allowed, "addresses and networks such as 192.0.2.0/24, with commas"),
    "rate": (_rate, f"a number of postbacks a second: {BOUNDS['rate_per_source'].written}"),
}
