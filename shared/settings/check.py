"""Checks of settings that were parsed: bounds, names of sources, addresses, URLs, log levels."""

import re
from typing import Final

from yarl import URL

from shared import log
from shared.errors import SettingsError
from shared.settings.bounds import BOUNDS, is_host, within
from shared.settings.environment import variable
from shared.settings.settings import Settings


def check(settings: Settings) -> None:
    """Check that settings can be used.

    Raises:
        SettingsError: names the setting and what it takes; never repeats a secret.
    """
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
                f"{variable(name)} is not an address or a name; 0.0.0.0 is every IPv4 address,"
                " :: every address"
            )
    if settings.otel_endpoint and not re.match(r"https?://[^/]", settings.otel_endpoint):
        raise SettingsError("MMS_OTEL_ENDPOINT is not an http:// or https:// URL")
    _check_log(settings)


def _check_log(settings: Settings) -> None:
    try:
        log.levels(settings.log_level)
    except ValueError as error:
        raise SettingsError("MMS_LOG_LEVEL takes DEBUG, INFO, WARNING or ERROR") from error
    if settings.log_format not in log.FORMATS:
        raise SettingsError(f"MMS_LOG_FORMAT takes {' or '.join(log.FORMATS)}")


def _check_amqp(url: str) -> None:
    """Raises: SettingsError: says what is wrong; does not repeat the URL."""
    try:
        parsed = URL(url)
    except ValueError:
        parsed = URL()
    if parsed.scheme not in {"amqp", "amqps"} or not parsed.host:
        raise SettingsError(
            "MMS_AMQP_URL is not an amqp://user:password@host:port/vhost or amqps://...;"
            " in a password write / as %2F, # as %23, ? as %3F, @ as %40, a comma as %2C"
        )
    if "no_verify_ssl" in parsed.query:
        raise SettingsError(
            "MMS_AMQP_URL has no_verify_ssl, but certificates are always verified;"
            " name their authority with MMS_TLS_CA"
        )
    heartbeat = parsed.query.get("heartbeat", "0")
    if not re.fullmatch(r"[0-9]{1,5}", heartbeat) or int(heartbeat) > _MAX_HEARTBEAT:
        raise SettingsError("MMS_AMQP_URL has a heartbeat that is not 0 to 65535 seconds")


_MAX_HEARTBEAT: Final = 65535
"""Seconds; AMQP sends the heartbeat in 16 bits."""
