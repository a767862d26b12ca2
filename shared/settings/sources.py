"""The access rule of a source (one provider account): what a client must show to send postbacks.

A rule is written for one source, in the TOML file or in the environment. In the environment the
name of the source is in capitals, with `_` for `-`:

    [source.acme]                                   MMS_SOURCE_ACME_TOKEN=6Zb…
    token = "6Zb…"                                  MMS_SOURCE_ACME_BASIC=mms:scrypt.14.8.1.…
    basic = "mms:scrypt.14.8.1.…"                   MMS_SOURCE_ACME_ALLOW=192.0.2.0/24,198.51.100.7
    allow = ["192.0.2.0/24", "198.51.100.7"]        MMS_SOURCE_ACME_RATE=200
    rate = 200

A client must satisfy every part that is set. A part with several values is satisfied by any one of
them, so that a token or a password can be changed without an interruption.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

import msgspec

from shared.errors import SettingsError
from shared.settings import password
from shared.settings.bounds import BOUNDS, within
from shared.settings.environment import RawSetting
from shared.settings.password import Hashed
from shared.settings.units import Network, parse_list, parse_networks, parse_number

MIN_TOKEN_LENGTH: Final = 16
"""Characters that a token has at least, so that it cannot be guessed."""


class BasicAuthUser(msgspec.Struct, frozen=True):
    """A user of HTTP Basic."""

    user: bytes
    password: Hashed


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """The access rule of one source. With no token, basic or allow, any client may send.

    Attributes:
        token: secrets; the last part of the path must be one of them.
        basic: users and hashed passwords for HTTP Basic.
        allow: networks; the client's address must be in one of them.
        rate: the rate limit, in postbacks per second; 0: no limit; None: MMS_RATE_PER_SOURCE.
    """

    token: tuple[str, ...] = ()
    basic: tuple[BasicAuthUser, ...] = ()
    allow: tuple[Network, ...] = ()
    rate: float | None = None

    @property
    def open(self) -> bool:
        """Whether any client may send."""
        return not (self.token or self.basic or self.allow)

    def __repr__(self) -> str:
        return "Rule(***)"


Rules = dict[str, Rule]
"""Rules by source."""


class Part(NamedTuple):
    """One part of a rule.

    Attributes:
        parse: raises ValueError.
        toml: the types that it may have in the TOML file.
        expected: what it takes, for an error.
        description: for `--help`.
    """

    parse: Callable[[str], object]
    toml: tuple[type, ...]
    expected: str
    description: str


def parse_rules(raw: Mapping[tuple[str, str], RawSetting], sources: tuple[str, ...]) -> Rules:
    """Parse the rules of all sources.

    Args:
        raw: parts of rules, by source and part.
        sources: all sources that exist.

    Raises:
        SettingsError: says where the mistake is and what the part takes; never repeats a secret.
    """
    parts: dict[str, dict[str, object]] = {}
    for (source, name), setting in raw.items():
        origin = setting.origin
        if source not in sources:
            raise SettingsError(f"{origin} is for {source!r}, which MMS_SOURCES does not name")
        part = PARTS[name]
        try:
            parts.setdefault(source, {})[name] = part.parse(setting.text)
        except ValueError:
            raise SettingsError(f"{origin} cannot be read. It takes {part.expected}") from None
    return {source: msgspec.structs.replace(Rule(), **rule) for source, rule in parts.items()}


def _not_empty(text: str) -> list[str]:
    """A secret that is set but empty must not open a source: it was meant to close it."""
    if not (words := parse_list(text)):
        raise ValueError
    return words


def _tokens(text: str) -> tuple[str, ...]:
    tokens = tuple(_not_empty(text))
    if not all(map(_TOKEN.fullmatch, tokens)):
        raise ValueError
    return tokens


_TOKEN: Final = re.compile(rf"[A-Za-z0-9._~-]{{{MIN_TOKEN_LENGTH},256}}")


def _basic_auth_users(text: str) -> tuple[BasicAuthUser, ...]:
    pairs = [each.rpartition(":") for each in _not_empty(text)]
    if any(not user or ":" in user for user, _, _ in pairs):
        raise ValueError
    return tuple(BasicAuthUser(user.encode(), password.parse(hashed)) for user, _, hashed in pairs)


def _allowed(text: str) -> tuple[Network, ...]:
    return parse_networks(",".join(_not_empty(text)))


def _rate(text: str) -> float:
    rate = parse_number(text.strip())
    if not within("rate_per_source", rate):
        raise ValueError(text)
    return rate


PARTS: Final[Mapping[str, Part]] = {
    "token": Part(
        _tokens,
        (str, list),
        f"secrets of {MIN_TOKEN_LENGTH} to 256 characters of A-Z a-z 0-9 . _ ~ -, with commas",
        "secrets; one must end the path: /postbacks/{source}/{token}",
    ),
    "basic": Part(
        _basic_auth_users,
        (str, list),
        "user:hash pairs as mms-admin hash-password prints them, with commas",
        "user:hash pairs for HTTP Basic; mms-admin hash-password makes them",
    ),
    "allow": Part(
        _allowed,
        (str, list),
        "addresses and networks such as 192.0.2.0/24, with commas",
        "addresses and networks that may send",
    ),
    "rate": Part(
        _rate,
        (str, int, float),
        f"a number of postbacks a second: {BOUNDS['rate_per_source'].written}",
        "rate limit in postbacks per second and process, instead of MMS_RATE_PER_SOURCE",
    ),
}
"""The parts of a rule, by name."""
