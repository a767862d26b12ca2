"""`mms-admin settings`: the settings in effect, or a sample of the settings file."""

from collections.abc import Iterator
from typing import Final

import click
import msgspec

from shared.errors import SettingsError
from shared.process import cli
from shared.settings import units
from shared.settings.describe import sample_file
from shared.settings.environment import variable
from shared.settings.load import load_settings, read_raw
from shared.settings.settings import SECRET, Settings
from workers.admin import console

HIDDEN: Final = "***"


class Item(msgspec.Struct, frozen=True):
    """One setting in effect.

    Attributes:
        setting: its environment variable.
        value: as a person writes it; `***` if it may be a secret.
        origin: where the value comes from.
    """

    setting: str
    value: str
    origin: str


@click.command("settings")
@click.option("--sample", is_flag=True, help="Print a sample of mms.toml with every default.")
@console.json_option
def show_settings(*, sample: bool, as_json: bool) -> None:
    """Show the value of every setting, and where the value comes from.

    A value that may be a secret is shown as ***. The command changes nothing and connects to no
    server.

    \b
    Examples:
        mms-admin settings
        mms-admin settings --sample > mms.toml
    """  # noqa: D301 (click reads the backslash)
    if sample:
        click.echo(sample_file(), nl=False)
        return
    try:
        items = list(_items())
    except SettingsError as error:
        cli.fail(error)
    if as_json:
        for item in items:
            console.print_json(item)
    else:
        rows = [(item.setting, item.value, item.origin) for item in items]
        console.print_table("Settings", ("setting", "value", "origin"), rows)


def _items() -> Iterator[Item]:
    """Raises: SettingsError: the settings cannot be used."""
    settings, raw = load_settings(), read_raw()
    for name in Settings.__struct_fields__:
        if name == "rules":
            for (source, part), each in raw.rules.items():
                rule = f"MMS_SOURCE_{source.upper().replace('-', '_')}_{part.upper()}"
                yield Item(rule, HIDDEN, each.origin)
        elif found := raw.settings.get(name):
            hidden = name in SECRET or found.from_file
            value = HIDDEN if hidden else units.shown(getattr(settings, name))
            yield Item(variable(name), value, found.origin)
        else:
            yield Item(variable(name), units.shown(getattr(settings, name)), "default")
