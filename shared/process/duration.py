"""The type of command line options that take a duration, in the notation of the settings."""

import click

from shared.settings.units import parse_seconds


class Duration(click.ParamType[float]):
    """A duration with a unit, such as `30s` or `7d`, as float seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return value if isinstance(value, float) else float(parse_seconds(str(value)))
        except ValueError:
            self.fail(f"{value!r} is not a duration such as 500ms, 30s, 12h or 7d", param, ctx)
