"""Checks of settings that were parsed: bounds, names of sources, addresses, URLs, log levels."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from yarl import URL

from shared import log
from shared.errors import SettingsError
from shared.settings.bounds import BOUNDS, is_host, within
from shared.settings.environment import variable
from shared.settings.settings import Settings


def check(settings: Settings, origins: Mapping[str, str]) -> None:
    """Check that settings can be used.

    Args:
        origins: where each value that is not a default comes from, by the name of the setting.

    Raises:
        SettingsError: names the origin of the value and what it takes; never repeats a secret.
    """

    def origin(name: str) -> str:
        return origins.get(name, variable(name))

    _check_sources(settings.sources, origin("sources"))
    for url in settings.amqp_url.split(","):
        _check_amqp(url.strip(), origin("amqp_url"))
    for name, bounds in BOUNDS.items():
        if not within(name, getattr(settings, name)):
            raise SettingsError(f"{origin(name)} must be {bounds.written}")
    for name in ("ingest_host", "admin_host"):
        if not is_host(getattr(settings, name)):
            raise SettingsError(
                f"{origin(name)} is not an address or a name; 0.0.0.0 is every IPv4 address,"
                " :: every address"
            )
    if settings.otel_endpoint and not re.match(r"https?://[^/]", settings.otel_endpoint):
        raise SettingsError(f"{origin('otel_endpoint')} is not an http:// or https:// URL")
    if settings.log_format not in log.FORMATS:
        raise SettingsError(f"{origin('log_format')} takes {' or '.join(log.FORMATS)}")
    _check_log_level(settings.log_level, origin("log_level"))


def _check_sources(names: Sequence[str], origin: str) -> None:
    for name in names:
        if not re.fullmatch(r"[a-z0-9-]{1,32}", name):
            raise SettingsError(f"{origin} has {name!r}; a source is [a-z0-9-]{{1,32}}")
    if not names:
        raise SettingsError(f"{origin} is empty; nobody could send a postback")


def _check_log_level(levels: str, origin: str) -> None:
    try:
        log.levels(levels)
    except ValueError as error:
        raise SettingsError(f"{origin} takes DEBUG, INFO, WARNING or ERROR") from error


def _check_amqp(url: str, origin: str) -> None:
    """Raises: SettingsError: says what is wrong; does not repeat the URL."""
    try:
        parsed = URL(url)
    except ValueError:
        parsed = URL()
    if parsed.scheme not in {"amqp", "amqps"} or not parsed.host:
        raise SettingsError(
            f"{origin} is not an amqp://user:password@host:port/vhost or amqps://...;"
            " in a password write / as %2F, # as %23, ? as %3F, @ as %40, a comma as %2C"
        )
    if "no_verify_ssl" in parsed.query:
        raise SettingsError(
            f"{origin} has no_verify_ssl, but certificates are always verified;"
            " name their authority with MMS_TLS_CA"
        )
    heartbeat = parsed.query.get("heartbeat", "0")
    if not re.fullmatch(r"[0-9]{1,5}", heartbeat) or int(heartbeat) > _MAX_HEARTBEAT:
        raise SettingsError(f"{origin} has a heartbeat that is not 0 to 65535 seconds")


_MAX_HEARTBEAT: Final = 65535
"""Seconds; AMQP sends the heartbeat in 16 bits."""
