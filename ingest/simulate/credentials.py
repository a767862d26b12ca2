"""The credentials of a protected source: a token in the path, HTTP Basic."""

import base64
import re
from collections.abc import Callable
from typing import Final, NamedTuple, TextIO, TypeVar

import click

F = TypeVar("F", bound=Callable[..., None])

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~-]+")


class Credentials(NamedTuple):
    """What each POST carries.

    Attributes:
        token: the last part of the path; empty when there is none.
        authorization: the header of that name; empty when there is none.
    """

    token: str = ""
    authorization: str = ""

    def url(self, url: str, source: str) -> str:
        """The URL of a source, from the URL that all sources share.

        A path with a token contains the name of its source, also for the default source.
        """
        if source != "default" or self.token:
            url = f"{url}/{source}"
        return f"{url}/{self.token}" if self.token else url


def options(command: F) -> F:
    """Add `--token`, `--token-file`, `--user` and `--password-file` to a command; see `read`."""
    for option in reversed(
        (
            click.option(
                "--token", help="The source's token. Other users of this machine can see it."
            ),
            click.option(
                "--token-file", type=click.File(), help="A file with the token; - is stdin."
            ),
            click.option("--user", help="The source's user for HTTP Basic."),
            click.option(
                "--password-file",
                type=click.File(),
                help="A file with the user's password; - is stdin.",
            ),
        )
    ):
        command = option(command)
    return command


def read(
    token: str | None, token_file: TextIO | None, user: str | None, password_file: TextIO | None
) -> Credentials:
    """The credentials from the command line.

    Raises:
        click.UsageError: the options exclude each other, or a value cannot be sent. The message
            contains no secret.
    """
    if token is not None and token_file is not None:
        raise click.UsageError("Use --token or --token-file, not both.")
    if (user is None) != (password_file is None):
        raise click.UsageError("Use --user and --password-file together.")
    if token_file is not None:
        token = token_file.read().strip()
    if token is not None and not _TOKEN.fullmatch(token):
        raise click.UsageError("The token may contain only A-Z, a-z, 0-9 and ._~-")
    if user is None or password_file is None:
        return Credentials(token or "")
    if ":" in user:
        raise click.UsageError("The user of HTTP Basic must not contain a colon.")
    password = password_file.read().rstrip("\r\n")
    encoded = base64.b64encode(f"{user}:{password}".encode()).decode()
    return Credentials(token or "", f"Basic {encoded}")
