"""Every setting there is, with its default; nothing else in the project reads the environment.

A setting comes from the environment (`MMS_` and its name in capitals), else from the TOML file
that `MMS_CONFIG` names (its name in lower case, at the top level), else from here. In both, the
name with `_FILE` at its end names a file that holds the value, as containers have their secrets.
What may hold a secret is repeated in no error and shown by no `repr`.
"""

import difflib
import logging
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta
from yarl import URL

from shared import log
from shared.errors import SettingsError
from shared.settings import environment, sources
from shared.settings.bounds import BOUNDS, is_host, within
from shared.settings.environment import variable
from shared.settings.sources import Network, Rules


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


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What all processes agree on."""

    amqp_url: Annotated[
        str, Meta(description="RabbitMQ; the URLs of a cluster's nodes are separated by commas")
    ] = "amqp://guest:guest@127.0.0.1:5672/"
    redis_url: Annotated[
        str, Meta(description="Redis, for the state; also redis+cluster:// and redis+sentinel://")
    ] = "redis://127.0.0.1:6379/0"
    ingest_host: Annotated[str, Meta(description="address the ingress listens on")] = "127.0.0.1"
    ingest_port: Annotated[int, Meta(description="port the ingress listens on")] = 8080
    admin_host: Annotated[str, Meta(description="address for health, readiness and metrics")] = (
        "127.0.0.1"
    )
    admin_port: Annotated[
        int, Meta(description="port for health, readiness and metrics; 0: 9090 or, worker, 9091")
    ] = 0
    tls_cert: Annotated[
        str, Meta(description="PEM file: certificate and chain of the ingress; empty: no TLS")
    ] = ""
    tls_key: Annotated[
        str, Meta(description="PEM file: its private key; empty: in MMS_TLS_CERT too")
    ] = ""
    tls_ca: Annotated[
        str,
        Meta(description="PEM file: who signs amqps:// and rediss:// servers; empty: the system's"),
    ] = ""
    sources: Annotated[
        Names, Meta(description="provider accounts that may POST to /postbacks/{source}")
    ] = Names(("default",))
    rules: Annotated[Rules, Meta(description="what each source must show, see `sources`")] = {}
    rate_per_source: Annotated[
        float, Meta(description="postbacks a second let in, by source and process; 0: no limit")
    ] = 0.0
    open: Annotated[
        bool, Meta(description="1: let anybody send though it listens beyond this machine")
    ] = False
    trusted_proxies: Annotated[
        Networks, Meta(description="networks of proxies whose X-Forwarded-For is believed")
    ] = Networks()
    max_body: Annotated[Bytes, Meta(description="largest request body; larger: 413")] = Bytes(65536)
    max_waiting: Annotated[
        int, Meta(description="postbacks that may wait for a durable answer; more: 503")
    ] = 10_000
    max_connections: Annotated[
        int, Meta(description="connections to the ingress; more are closed at once")
    ] = 1000
    spool_path: Annotated[
        str, Meta(description="where postbacks go while RabbitMQ is away; empty: nowhere, 503")
    ] = "var/spool.db"
    spool_max_bytes: Annotated[Bytes, Meta(description="largest spool; beyond: 503")] = Bytes(2**30)
    state_ttl: Annotated[
        Seconds, Meta(description="how long a record is kept after its last change")
    ] = Seconds(7 * 86400)
    prefetch: Annotated[
        int, Meta(description="batches a worker takes before it has acknowledged one")
    ] = 64
    queue_max_bytes: Annotated[
        Bytes, Meta(description="limit of mms.postbacks.state and of mms.dead, each")
    ] = Bytes(4 * 2**30)
    delivery_limit: Annotated[
        int, Meta(description="deliveries of a batch before it becomes a dead letter")
    ] = 20
    archive_max_age: Annotated[
        Seconds, Meta(description="how long the archive and the event log reach back")
    ] = Seconds(8 * 86400)
    archive_max_bytes: Annotated[
        Bytes, Meta(description="limit of the archive and of the event log, each")
    ] = Bytes(20 * 2**30)
    replicas: Annotated[
        int,
        Meta(description="nodes that keep a copy of each queue and stream; 0: as RabbitMQ decides"),
    ] = 0
    processes: Annotated[
        Names, Meta(description="admin ports (host:port) of the site, for `mms-admin doctor`")
    ] = Names()
    log_level: Annotated[
        str, Meta(description="DEBUG, INFO, WARNING or ERROR; also by logger: INFO,workers=DEBUG")
    ] = "INFO"
    log_format: Annotated[str, Meta(description="text for people, json for machines")] = "text"
    otel_endpoint: Annotated[
        str, Meta(description="where traces go, OTLP over HTTP; empty: no tracing")
    ] = ""

    def __repr__(self) -> str:
        shown = (
            f"{name}=***" if name in SECRET else f"{name}={getattr(self, name)!r}"
            for name in self.__struct_fields__
        )
        return f"Settings({', '.join(shown)})"


SECRET: Final = frozenset({"amqp_url", "redis_url", "rules"})
"""Settings that may hold a secret: their values are shown to nobody."""


class Row(NamedTuple):
    """One setting as people see it."""

    variable: str
    default: str
    description: str


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings from the environment and from the file that `MMS_CONFIG` names.

    Raises:
        SettingsError: names the setting, where it came from and what it takes.
    """
    hints = typing.get_type_hints(Settings)
    collected = environment.collect({name: _TOML[hints[name]] for name in _NAMES}, environ)
    values = {name: _parse(hints[name], name, *value) for name, value in collected.settings.items()}
    settings = msgspec.structs.replace(Settings(), **values)
    _check(settings)
    rules = sources.rules(collected.rules, settings.sources)
    return msgspec.structs.replace(settings, rules=rules)


def warn_of_unknown(environ: Mapping[str, str] = os.environ) -> None:
    """Log a warning for each `MMS_` variable that is no setting; it was probably misspelt."""
    known = {variable(name) for name in _NAMES} | {"MMS_CONFIG"}
    known |= {f"{name}_FILE" for name in known}
    for name in sorted(environ):
        if name.startswith("MMS_") and name not in known and not _OTHERS.match(name):
            nearest = difflib.get_close_matches(name, known, 1, _ALIKE)
            hint = f"; did you mean {nearest[0]}?" if nearest else "; --help lists all settings"
            _log.warning("%s is set, but there is no such setting%s", name, hint)


def describe() -> Iterator[Row]:
    """All settings in the order of the struct, for `--help`."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    for field in msgspec.structs.fields(Settings):
        if field.name == "rules":
            for part, description in sources.DESCRIPTIONS.items():
                yield Row(f"MMS_SOURCE_<NAME>_{part.upper()}", "", description)
            continue
        description = next(meta.description or "" for meta in hints[field.name].__metadata__)
        yield Row(variable(field.name), _shown(field.default), description)


_NAMES: Final = [name for name in Settings.__struct_fields__ if name != "rules"]

_OTHERS: Final = re.compile(
    r"MMS_(?:SOURCE_"  # rules; a misspelt one is an error, see `given`
    r"|PROXY_(?:BIND|ADMIN)$|INGRESS_\d+(?:_ADMIN_PORT)?$"  # haproxy.cfg's own
    r"|.*_SERVICE_(?:HOST|PORT)|.*_PORT_\d+_(?:TCP|UDP))"  # Kubernetes', from names of Services
)
"""Variables of ours that are no settings."""

_ALIKE: Final = 0.75
"""How alike, 0 to 1, a setting's name must be to be taken for what was meant."""

_log: Final = logging.getLogger("settings")


def _parse(kind: type, name: str, text: str, origin: str) -> object:
    try:
        return _PARSERS[kind](text.strip())
    except ValueError:
        hidden = name in SECRET or origin.endswith("_FILE")
        shown = "set" if hidden else repr(text[:_LONGEST_SHOWN])
        wanted = (kind.__doc__ or "") if kind in _DESCRIBED else _PLAIN[kind]
        message = (
            f"{origin} is {shown}, which cannot be read. It takes {wanted[:1].lower()}{wanted[1:]}"
        )
        raise SettingsError(message) from None


_LONGEST_SHOWN: Final = 80
"""Characters of a value that an error repeats."""

_DESCRIBED: Final = {Seconds, Bytes, Names, Networks}
_PLAIN: Final = {
    str: "A text without control characters.",
    int: "A whole number.",
    float: "A number, 0 or more.",
    bool: "1 or 0.",
}

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "": 1.0}
_BYTES: Final = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
# So few digits that a float and an int hold every amount exactly.
_AMOUNT: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([A-Za-z]*)")
_WHOLE: Final = re.compile(r"[+-]?[0-9]{1,15}")

_TOML: Final[dict[type, tuple[type, ...]]] = {
    str: (str,),
    int: (str, int),
    float: (str, int, float),
    bool: (str, int, bool),
    Seconds: (str, int, float),
    Bytes: (str, int),
    Names: (str, list),
    Networks: (str, list),
}
"""What a setting of each type may be in the TOML file."""


def seconds(text: str) -> Seconds:
    """Raises: ValueError: not a span of time as `Seconds` describes it."""
    amount, unit = _amount(text)
    if unit not in _SECONDS:
        raise ValueError(text)
    return Seconds(amount * _SECONDS[unit])


def _bytes(text: str) -> Bytes:
    amount, unit = _amount(text)
    if unit not in _BYTES or (_BYTES[unit] == 1 and not amount.is_integer()):
        raise ValueError(text)
    return Bytes(amount * _BYTES[unit])


def _text(text: str) -> str:
    if not text.isprintable():
        raise ValueError(text)
    return text


def _whole(text: str) -> int:
    if not _WHOLE.fullmatch(text):
        raise ValueError(text)
    return int(text)


def _amount(text: str) -> tuple[float, str]:
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(text)
    return float(match[1]), match[2]


def _names(text: str) -> Names:
    return Names(name.strip() for name in text.split(",") if name.strip())


_BOOLEANS: Final = {"1": True, "true": True, "yes": True, "on": True} | {
    "0": False,
    "false": False,
    "no": False,
    "off": False,
    "": False,
}


def _bool(text: str) -> bool:
    if text.lower() not in _BOOLEANS:
        raise ValueError(text)
    return _BOOLEANS[text.lower()]


def _networks(text: str) -> Networks:
    return Networks(sources.networks(text))


_PARSERS: Final[dict[type, Callable[[str], object]]] = {
    str: _text,
    int: _whole,
    float: sources.number,
    bool: _bool,
    Seconds: seconds,
    Bytes: _bytes,
    Names: _names,
    Networks: _networks,
}


def _check(settings: Settings) -> None:
    for source in settings.sources:
        if not re.fullmatch(r"[a-z0-9-]{1,32}", source):
            raise SettingsError(f"MMS_SOURCES has {source!r}; a source is [a-z0-9-]{{1,32}}")
    if not settings.sources:
        raise SettingsError("MMS_SOURCES is empty; nobody could send a postback")
    for url in settings.amqp_url.split(","):
        _check_amqp(url.strip())
    for name, bounds in BOUNDS.items():
        if not within(name, getattr(settings, name)):
            raise SettingsError(f"{variable(name)} must be {bounds.written}")
    for name in ("ingest_host", "admin_host"):
        if not is_host(getattr(settings, name)):
            raise SettingsError(
                f"{variable(name)} is no address or name; 0.0.0.0 is every IPv4 address, :: every"
                " address"
            )
    if settings.otel_endpoint and not re.match(r"https?://[^/]", settings.otel_endpoint):
        raise SettingsError("MMS_OTEL_ENDPOINT is no http:// or https:// URL")
    _check_log(settings)


def _check_log(settings: Settings) -> None:
    try:
        log.levels(settings.log_level)
    except ValueError as error:
        raise SettingsError("MMS_LOG_LEVEL takes DEBUG, INFO, WARNING or ERROR") from error
    if settings.log_format not in log.FORMATS:
        raise SettingsError(f"MMS_LOG_FORMAT takes {' or '.join(log.FORMATS)}")


def _check_amqp(url: str) -> None:
    """Raises: SettingsError: says what is wrong without repeating the URL."""
    try:
        parsed = URL(url)
    except ValueError:
        parsed = URL()
    if parsed.scheme not in {"amqp", "amqps"} or not parsed.host:
        raise SettingsError(
            "MMS_AMQP_URL is no amqp://user:password@host:port/vhost or amqps://...;"
            " in a password write / as %2F, # as %23, ? as %3F, @ as %40, a comma as %2C"
        )
    if "no_verify_ssl" in parsed.query:
        raise SettingsError(
            "MMS_AMQP_URL has no_verify_ssl, but certificates are always verified;"
            " name their authority with MMS_TLS_CA"
        )
    heartbeat = parsed.query.get("heartbeat", "0")
    if not re.fullmatch(r"[0-9]{1,5}", heartbeat) or int(heartbeat) > _LONGEST_HEARTBEAT:
        raise SettingsError("MMS_AMQP_URL has a heartbeat that is no number of seconds to 65535")


_LONGEST_HEARTBEAT: Final = 65535


def _shown(default: object) -> str:
    if isinstance(default, tuple):
        return ",".join(map(str, default))
    if isinstance(default, bool | float) and not isinstance(default, Seconds):
        return f"{default:g}"
    if isinstance(default, Seconds):
        return _in_units(default, {"d": 86400, "h": 3600, "m": 60, "s": 1})
    if isinstance(default, Bytes):
        return _in_units(default, {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1})
    return str(default)


def _in_units(amount: float, units: dict[str, int]) -> str:
    unit, size = next((unit, size) for unit, size in units.items() if amount % size == 0)
    return f"{amount / size:.0f}{unit}"
