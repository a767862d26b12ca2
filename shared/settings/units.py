"""The types of settings: how each is written, parsed from text, and shown."""

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Seconds(float):
    """A span of time, written `500ms`, `30s`, `15m`, `12h`, `7d`, or as a number of seconds."""


class Bytes(int):
    """A size, written `64KiB`, `1MiB`, `4GiB`, or as a number of bytes."""


class Names(tuple[str, ...]):
    """Names separated by commas."""

    __slots__ = ()


class Networks(tuple[Network, ...]):
    """Addresses and networks such as `192.0.2.0/24`, separated by commas."""

    __slots__ = ()


def parse(kind: type, text: str) -> object:
    """Parse the text of a setting of this type.

    Raises:
        ValueError: the text cannot be parsed.
    """
    return _KINDS[kind].parse(text.strip())


def expected(kind: type) -> str:
    """What a setting of this type takes, as the end of a sentence."""
    return _KINDS[kind].expected


def toml_types(kind: type) -> tuple[type, ...]:
    """The types that a setting of this type may have in the TOML file."""
    return _KINDS[kind].toml


def parse_seconds(text: str) -> Seconds:
    """Parse a span of time.

    Raises:
        ValueError: it is not written as `Seconds` describes.
    """
    amount, unit = _amount(text)
    if unit not in _SECONDS:
        raise ValueError(text)
    return Seconds(amount * _SECONDS[unit])


def parse_number(text: str) -> float:
    """Parse a decimal number without a sign.

    Raises:
        ValueError: it is not one.
    """
    if not _NUMBER.fullmatch(text):
        raise ValueError(text)
    return float(text)


def parse_list(text: str) -> list[str]:
    """Parse words separated by commas; empty words are left out."""
    return [each.strip() for each in text.split(",") if each.strip()]


def parse_networks(text: str) -> Networks:
    """Parse networks or addresses, separated by commas.

    IPv4 written as IPv6 (`::ffff:192.0.2.0/120`) becomes IPv4, as the addresses of clients do.

    Raises:
        ValueError: one of them is neither.
    """
    return Networks(_unmapped(ipaddress.ip_network(each)) for each in parse_list(text))


def _unmapped(network: Network) -> Network:
    if isinstance(network, ipaddress.IPv6Network) and network.prefixlen >= _MAPPED_PREFIX:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return ipaddress.IPv4Network((mapped, network.prefixlen - _MAPPED_PREFIX))
    return network


_MAPPED_PREFIX: Final = 96
"""Bits before the IPv4 address in an IPv6 address that holds one."""


def _bytes(text: str) -> Bytes:
    amount, unit = _amount(text)
    if unit not in _BYTES or (_BYTES[unit] == 1 and not amount.is_integer()):
        raise ValueError(text)
    return Bytes(amount * _BYTES[unit])


def _amount(text: str) -> tuple[float, str]:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return float(match[1]), match[2]


_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_BYTES: Final = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
# A float and an int hold every amount of so few digits exactly.
_NUMBER: Final = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?")
_AMOUNT: Final = re.compile(rf"({_NUMBER.pattern})\s*([A-Za-z]*)")
_WHOLE_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,15}")


def _text(text: str) -> str:
    if not text.isprintable():
        raise ValueError(text)
    return text


def _whole_number(text: str) -> int:
    if not _WHOLE_NUMBER.fullmatch(text):
        raise ValueError(text)
    return int(text)


_BOOLEANS: Final = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
    "": False,
}


def _boolean(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


class _Kind(NamedTuple):
    """One type of settings."""

    parse: Callable[[str], object]
    toml: tuple[type, ...]
    expected: str


def _described(kind: type) -> str:
    text = kind.__doc__ or ""
    return f"{text[:1].lower()}{text[1:]}"


_KINDS: Final[Mapping[type, _Kind]] = {
    str: _Kind(_text, (str,), "a text without control characters."),
    int: _Kind(_whole_number, (str, int), "a whole number."),
    float: _Kind(parse_number, (str, int, float), "a number, 0 or more."),
    bool: _Kind(_boolean, (str, int, bool), "1 or 0."),
    Seconds: _Kind(parse_seconds, (str, int, float), _described(Seconds)),
    Bytes: _Kind(_bytes, (str, int), _described(Bytes)),
    Names: _Kind(lambda text: Names(parse_list(text)), (str, list), _described(Names)),
    Networks: _Kind(parse_networks, (str, list), _described(Networks)),
}


def shown(value: object) -> str:
    """The value of a setting as a person writes it in the environment."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, Seconds):
        if 0 < value < 1:
            return f"{value * 1000:g}ms"
        return _in_units(value, {"d": 86400, "h": 3600, "m": 60, "s": 1})
    if isinstance(value, Bytes):
        return _in_units(value, {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1})
    return f"{value:g}" if isinstance(value, bool | float) else str(value)


def _in_units(amount: float, units: Mapping[str, int]) -> str:
    """An amount in the largest unit of which it is a whole number."""
    for unit, size in units.items():
        if amount and amount % size == 0:
            return f"{amount / size:.0f}{unit}"
    return f"{amount:g}"
