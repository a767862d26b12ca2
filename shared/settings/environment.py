"""Reads settings as text: from the environment, from the TOML file, and from files that they name.

The environment wins over the TOML file. In both, `..._FILE` names a file that holds the value.
"""

import errno
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from shared.errors import SettingsError

MAX_FILE_SIZE: Final = 2**20
"""Bytes at most of the TOML file, and of a file that holds a value."""

PATH_SETTINGS: Final = frozenset({"tls_cert", "tls_key", "tls_ca"})
"""Settings whose value is a path: with `_FILE` they mean the same."""


class RawSetting(NamedTuple):
    """A setting before it is parsed.

    Attributes:
        text: the value.
        origin: where the value comes from, for an error.
        from_file: whether a file holds only this value, as files with secrets do.
    """

    text: str
    origin: str
    from_file: bool = False


TomlTypes = Mapping[str, tuple[type, ...]]
"""The types that a setting may have in the TOML file, by name."""


class RawSettings(NamedTuple):
    """All settings that are set.

    Attributes:
        settings: by name.
        rules: parts of access rules, by source and part.
    """

    settings: dict[str, RawSetting]
    rules: dict[tuple[str, str], RawSetting]


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"MMS_{name.upper()}"


def read(settings: TomlTypes, parts: TomlTypes, environ: Mapping[str, str]) -> RawSettings:
    """Read the settings and the sources' access rules.

    Args:
        settings: all settings that exist.
        parts: all parts of an access rule that exist.

    Raises:
        SettingsError: a file cannot be read, or something is set twice or does not exist.
    """
    found = RawSettings({}, {})
    if path := environ.get("MMS_CONFIG"):
        table = _load_toml(path)
        found.rules.update(_rules_in_table(table, parts, path))
        found.settings.update(_settings_in_table(table, settings, path))
    variables = {variable(name): name for name in settings}
    set_here = _settings_in_table(environ, dict.fromkeys(variables, _STRING), None)
    found.settings.update({variables[name]: raw for name, raw in set_here.items()})
    found.rules.update(_rules_in_environment(environ, parts))
    return found


def _load_toml(path: str) -> dict[str, object]:
    try:
        return tomllib.loads(_read_file(path))
    except OSError as error:
        raise SettingsError(f"MMS_CONFIG names {path}, which cannot be read: {error}") from error
    # Not only TOMLDecodeError: a number of thousands of digits raises a plain ValueError.
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"MMS_CONFIG names {path}, which is not TOML: {error}") from None


def _read_file(path: str) -> str:
    """The text of a file. It reads no more than the limit, because /dev/zero has no end.

    Raises:
        OSError: the file cannot be read, or is larger than `MAX_FILE_SIZE`.
        ValueError: the file is not text in UTF-8.
    """
    with Path(path).open("rb") as file:
        content = file.read(MAX_FILE_SIZE + 1)
    if len(content) > MAX_FILE_SIZE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return content.decode()


def _settings_in_table(
    table: Mapping[str, object], names: TomlTypes, path: str | None
) -> dict[str, RawSetting]:
    """The settings that a table holds, or whose file it names.

    Args:
        table: a TOML table, or the environment.
        path: of the TOML file, which may hold no other keys in this table; None: the environment.
    """
    found: dict[str, RawSetting] = {}
    known = set()
    where = "" if path is None else f" in {path}"
    for name, types in names.items():
        by_file = f"{name}_FILE" if path is None else f"{name}_file"
        known |= {name, by_file}
        if name in table and by_file in table:
            raise SettingsError(f"{name} and {by_file} are both set{where}; set only one")
        if name in table:
            origin = f"{name}{where}"
            found[name] = RawSetting(_as_text(table[name], types, origin), origin)
        elif by_file in table:
            origin = f"{by_file}{where}"
            text = _as_text(table[by_file], _STRING, origin)
            is_path = name.lower().removeprefix("mms_") in PATH_SETTINGS
            found[name] = (
                RawSetting(text, origin)
                if is_path
                else RawSetting(_read_value(text, origin), origin, from_file=True)
            )
    if path is not None and (unknown := sorted(set(table) - known)):
        raise SettingsError(f"{path} has settings that do not exist: {', '.join(unknown)}")
    return found


_STRING: Final = (str,)


def _as_text(value: object, types: tuple[type, ...], origin: str) -> str:
    """Raises: SettingsError: the value has another type, so its text could mean something else."""
    items = value if isinstance(value, list) else [value]
    all_text = all(type(each) is str for each in items)
    if type(value) not in types or (value is items and not all_text):
        expected = " or ".join(_TYPE_NAMES[each] for each in types)
        raise SettingsError(f"{origin} is of the wrong type: it must be {expected}")
    try:
        return ",".join(map(str, items))
    except ValueError:  # Python writes no number of more than 4,300 digits
        raise SettingsError(f"{origin} is a number with too many digits") from None


_TYPE_NAMES: Final = {
    str: "a string",
    list: "a list of strings",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _read_value(path: str, origin: str) -> str:
    try:
        return _read_file(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise SettingsError(f"{origin} does not name a file that can be read: {reason}") from None


def _rules_in_table(
    table: dict[str, object], parts: TomlTypes, path: str
) -> dict[tuple[str, str], RawSetting]:
    """Remove the `[source.<name>]` tables from the file's table; return their parts."""
    tables = table.pop("source", {})
    if not isinstance(tables, dict) or not all(isinstance(one, dict) for one in tables.values()):
        raise SettingsError(f"{path} has a `source` that is not a table; write [source.<name>]")
    return {
        (source, part): raw
        for source, rule in tables.items()
        for part, raw in _settings_in_table(rule, parts, f"{path} [source.{source}]").items()
    }


def _rules_in_environment(
    environ: Mapping[str, str], parts: TomlTypes
) -> dict[tuple[str, str], RawSetting]:
    pattern = re.compile(rf"MMS_SOURCE_([A-Z0-9_]+)_({'|'.join(parts).upper()})")
    variables = {name.removesuffix("_FILE") for name in environ if name.startswith("MMS_SOURCE_")}
    found = {each: match for each in sorted(variables) if (match := pattern.fullmatch(each))}
    # A misspelt variable would leave its source open.
    if misspelt := sorted(variables - set(found)):
        raise SettingsError(f"{misspelt[0]} is not a part of a source's rule; see --help")
    return {
        (found[name][1].lower().replace("_", "-"), found[name][2].lower()): raw
        for name, raw in _settings_in_table(environ, dict.fromkeys(found, _STRING), None).items()
    }
