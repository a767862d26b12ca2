"""What people gave as settings, still as text: from the TOML file, the environment and files.

The environment wins over the TOML file. Either may name a file that holds the value: `..._FILE`.
"""

import errno
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from shared.errors import SettingsError
from shared.settings import sources

Given = tuple[str, str]
"""A setting's text, and where that came from, for an error."""

Kinds = Mapping[str, tuple[type, ...]]
"""By name, of which of TOML's types a setting may be."""

Rules = dict[tuple[str, str], Given]
"""Parts of rules, by source and part."""


NAME_FILES: Final = frozenset({"tls_cert", "tls_key", "tls_ca"})
"""Settings that name a file as it is: with `_FILE` they mean the same."""


LARGEST_FILE: Final = 2**20
"""Bytes that a file of settings, or one that holds a value, may have."""


class Collected(NamedTuple):
    """All that was given."""

    settings: dict[str, Given]
    rules: Rules


def collect(names: Kinds, environ: Mapping[str, str]) -> Collected:
    """Collect what was given for the settings of these names and for the sources' rules.

    Args:
        names: all settings, and of which types they may be in the TOML file.

    Raises:
        SettingsError: a file cannot be read, or something is given twice or does not exist.
    """
    settings: dict[str, Given] = {}
    rules: Rules = {}
    if path := environ.get("MMS_CONFIG"):
        table = _table(path)
        rules |= _rules_of_table(table, path)
        settings |= _given(table, names, path)
    variables = {variable(name): name for name in names}
    from_environment = _given(environ, dict.fromkeys(variables, _STRING), None)
    settings |= {variables[name]: value for name, value in from_environment.items()}
    rules |= _rules_of_environment(environ)
    return Collected(settings, rules)


def variable(name: str) -> str:
    """A setting's name in the environment."""
    return f"MMS_{name.upper()}"


def _table(path: str) -> dict[str, object]:
    try:
        return tomllib.loads(_read(path))
    except OSError as error:
        raise SettingsError(f"MMS_CONFIG names {path}, which cannot be read: {error}") from error
    # Not only what is no TOML: a number of thousands of digits is a bare ValueError.
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"MMS_CONFIG names {path}, which is no TOML: {error}") from None


def _read(path: str) -> str:
    """A file's text. A device such as /dev/zero has no end, so no more than this is read.

    Raises:
        OSError: it cannot be read, or is larger than `LARGEST_FILE`.
        ValueError: it is no text in UTF-8.
    """
    with Path(path).open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), path)
    return content.decode()


def _given(table: Mapping[str, object], names: Kinds, path: str | None) -> dict[str, Given]:
    """What a table says of these names, itself or by naming a file.

    Args:
        table: a TOML table, or the environment.
        path: of the TOML file, which may have nothing else in this table; None: the environment.
    """
    given: dict[str, Given] = {}
    known = set()
    for name, kinds in names.items():
        by_file = f"{name}_FILE" if path is None else f"{name}_file"
        known |= {name, by_file}
        where = "" if path is None else f" in {path}"
        if name in table and by_file in table:
            raise SettingsError(f"{name} and {by_file} are both given{where}; give one")
        if name in table:
            given[name] = (_text(table[name], kinds, f"{name}{where}"), f"{name}{where}")
        elif by_file in table and name.lower().removeprefix("mms_") in NAME_FILES:
            origin = f"{by_file}{where}"
            given[name] = (_text(table[by_file], _STRING, origin), origin)
        elif by_file in table:
            origin = f"{by_file}{where}"
            given[name] = (_content(_text(table[by_file], _STRING, origin), origin), origin)
    if path is not None and (unknown := sorted(set(table) - known)):
        raise SettingsError(f"{path} has settings that do not exist: {', '.join(unknown)}")
    return given


_STRING: Final = (str,)


def _text(value: object, kinds: tuple[type, ...], origin: str) -> str:
    """Raises: SettingsError: it is of another type, so its text would mean something else."""
    items = value if isinstance(value, list) else [value]
    if type(value) not in kinds or (value is items and not all(type(one) is str for one in items)):
        wanted = " or ".join(_TYPES[kind] for kind in kinds)
        raise SettingsError(f"{origin} is of the wrong type: it must be {wanted}")
    try:
        return ",".join(map(str, items))
    except ValueError:  # Python writes no number of more than 4,300 digits
        raise SettingsError(f"{origin} is a number with too many digits") from None


_TYPES: Final = {
    str: "a string",
    list: "a list of strings",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}


def _content(path: str, origin: str) -> str:
    try:
        return _read(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a file of text"
        raise SettingsError(f"{origin} does not name a file that can be read: {reason}") from None


def _rules_of_table(table: dict[str, object], path: str) -> Rules:
    """Take the `[source.<name>]` tables out of the file's table."""
    tables = table.pop("source", {})
    if not isinstance(tables, dict) or not all(isinstance(one, dict) for one in tables.values()):
        raise SettingsError(f"{path} has a `source` that is no table; write [source.<name>]")
    return {
        (source, part): value
        for source, rule in tables.items()
        for part, value in _given(rule, sources.TOML, f"{path} [source.{source}]").items()
    }


def _rules_of_environment(environ: Mapping[str, str]) -> Rules:
    named = {name.removesuffix("_FILE") for name in environ if name.startswith("MMS_SOURCE_")}
    found = {name: match for name in sorted(named) if (match := sources.VARIABLE.fullmatch(name))}
    if misspelt := sorted(named - set(found)):  # it would guard nothing
        raise SettingsError(f"{misspelt[0]} is no part of a source's rule; see --help")
    return {
        (found[name][1].lower().replace("_", "-"), found[name][2].lower()): value
        for name, value in _given(environ, dict.fromkeys(found, _STRING), None).items()
    }
