"""Loads the settings from the environment and the TOML file; nothing else reads `MMS_*` variables.

A setting comes from the environment (`MMS_` and its name in capitals), else from the TOML file
that `MMS_CONFIG` names (its name in lower case, at the top level), else from `Settings`. No error
repeats a value that may be a secret.
"""

import difflib
import logging
import os
import re
import typing
from collections.abc import Mapping
from typing import Final

import msgspec

from shared.errors import SettingsError
from shared.printable import printable
from shared.settings import environment, units
from shared.settings.check import check
from shared.settings.environment import RawSetting, RawSettings, variable
from shared.settings.settings import SECRET, Settings
from shared.settings.sources import PARTS, parse_rules


def load_settings(environ: Mapping[str, str] = os.environ) -> Settings:
    """Load the settings from the environment and from the file that `MMS_CONFIG` names.

    Raises:
        SettingsError: names the setting, its origin and what it takes.
    """
    raw = read_raw(environ)
    values = {name: _parse(name, each) for name, each in raw.settings.items()}
    settings = msgspec.structs.replace(Settings(), **values)
    check(settings, {name: each.origin for name, each in raw.settings.items()})
    rules = parse_rules(raw.rules, settings.sources)
    return msgspec.structs.replace(settings, rules=rules)


def read_raw(environ: Mapping[str, str] = os.environ) -> RawSettings:
    """Read which settings are set, where, and to what; do not parse them.

    Raises:
        SettingsError: a file cannot be read, or something is set twice or does not exist.
    """
    settings = {name: units.toml_types(kind) for name, kind in _KINDS.items()}
    parts = {name: part.toml for name, part in PARTS.items()}
    return environment.read(settings, parts, environ)


def _parse(name: str, raw: RawSetting) -> object:
    kind = _KINDS[name]
    try:
        return units.parse(kind, raw.text)
    except ValueError:
        secret = name in SECRET or raw.from_file
        value = "set" if secret else repr(raw.text[:_MAX_SHOWN])
        message = f"{raw.origin} is {value}, which cannot be read. It takes {units.expected(kind)}"
        raise SettingsError(message) from None


_MAX_SHOWN: Final = 80
"""Characters of a value that an error repeats."""

_KINDS: Final[Mapping[str, type]] = {
    name: kind for name, kind in typing.get_type_hints(Settings).items() if name != "rules"
}
"""The type of each setting, by name."""


def warn_of_unknown_variables(environ: Mapping[str, str] = os.environ) -> None:
    """Log a warning for each `MMS_` variable that is no setting; it is probably misspelt."""
    known = {variable(name) for name in _KINDS} | {"MMS_CONFIG"}
    known |= {f"{name}_FILE" for name in known}
    for name in sorted(environ):
        if name.startswith("MMS_") and name not in known and not _NO_SETTINGS.match(name):
            similar = difflib.get_close_matches(name, known, 1, _MIN_SIMILARITY)
            hint = f"did you mean {similar[0]}?" if similar else "--help lists all settings"
            text = f"{name} is set, but there is no such setting; {hint}"
            _log.warning("%s", printable(text))


_NO_SETTINGS: Final = re.compile(
    r"MMS_(?:SOURCE_"  # access rules; a misspelt one is an error, see `environment`
    r"|PROXY_(?:BIND|ADMIN)$|INGRESS_\d+(?:_ADMIN_PORT)?$"  # haproxy.cfg reads these
    r"|.*_SERVICE_(?:HOST|PORT)|.*_PORT_\d+_(?:TCP|UDP))"  # Kubernetes sets these for Services
)
"""Variables that begin with `MMS_` and are no settings."""

_MIN_SIMILARITY: Final = 0.75
"""How similar a setting's name must be to be suggested: 0 is different, 1 is equal."""

_log: Final = logging.getLogger("settings")
