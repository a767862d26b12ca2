"""The settings for people: the rows of `--help`, and the sample of a TOML file."""

import json
import textwrap
import typing
from collections.abc import Iterator
from typing import Final, NamedTuple

import msgspec

from shared.settings import units
from shared.settings.environment import variable
from shared.settings.settings import Settings
from shared.settings.sources import PARTS


class Row(NamedTuple):
    """One setting.

    Attributes:
        variable: in the environment.
        default: as a person writes it in the environment.
        description: what it sets, and its special values.
    """

    variable: str
    default: str
    description: str


def describe() -> Iterator[Row]:
    """All settings, in the order of the struct, for `--help`."""
    for field in msgspec.structs.fields(Settings):
        if field.name == "rules":
            for name, part in PARTS.items():
                yield Row(f"MMS_SOURCE_<NAME>_{name.upper()}", "", part.description)
        else:
            yield Row(variable(field.name), units.shown(field.default), _description(field.name))


def sample_file() -> str:
    """A TOML file with every setting, its description and its default, each as a comment."""
    lines = [_HEADER]
    for field in msgspec.structs.fields(Settings):
        if field.name == "rules":
            lines += [
                _RULES,
                *(f"#   {name:<6} {part.description}" for name, part in PARTS.items()),
            ]
        else:
            lines += textwrap.wrap(_description(field.name), 96, initial_indent="# ")
            lines.append(f"#{field.name} = {_toml(field.default)}")
        lines.append("")
    return "\n".join(lines)


def _description(name: str) -> str:
    return next(meta.description or "" for meta in _HINTS[name].__metadata__)


_HINTS: Final = typing.get_type_hints(Settings, include_extras=True)

_HEADER: Final = """\
# Settings of mms-postbacks: each one with its default. `mms-admin settings --sample` prints this
# file. Remove the # before a setting to change it, and name the file in the environment:
#
#     MMS_CONFIG=/etc/mms-postbacks/mms.toml
#
# An environment variable wins over this file: MMS_ and the name of the setting in capitals.
# `<name>_file = "/path"` reads a setting from a file of its own, which is good for secrets.
"""

_RULES: Final = """\
# Access rules: a table for each source, at the end of the file. A client must satisfy every part
# that is set. Several values of a part are a list; any one of them satisfies it.
#
#   [source.default]
#   token = "..."
#
# The parts of a rule:"""


def _toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return json.dumps(list(map(str, value)))
    if isinstance(value, units.Seconds | units.Bytes | str):
        return json.dumps(units.shown(value))
    return units.shown(value)
