"""What a guarded source wants to see of the provider: a token in the path, HTTP Basic."""

import base64
import re
from collections.abc import Callable
from typing import Final, NamedTuple, TextIO, TypeVar

import click

F = TypeVar("F", bound=Callable[..., None])

_TOKEN: Final = re.compile(r"[A-Za-z0-9._~-]+")


class Credentials(NamedTuple):
    """What goes with each POST.

    Attributes:
        token: the last part of the path; empty when there is none.
        authorization: the header of that name; empty when there is none.
    """

    token: str = ""
    authorization: str = ""

    def url(self, url: str, source: str) -> str:
        """Where to POST for a source, from the URL that is the same for all.

        A token is under its source's name, the default source's too.
        """
        if source != "default" or self.token:
            url = f"{url}/{source}"
        return f"{url}/{self.token}" if self.token else url


def options(command: F) -> F:
    """Give a command `--token`, `--token-file`, `--user` and `--password-file`; see `read`."""
    for option in reversed(
        (
            click.option("--token", help="The source's token; others on this machine can see it."),
            click.option(
                "--token-file", type=click.File(), help="A file that holds it; - is stdin."
            ),
            click.option("--user", help="The source's user for HTTP Basic."),
            click.option(
                "--password-file",
                type=click.File(),
                help="A file that holds the user's password; - is stdin.",
            ),
        )
    ):
        command = option(command)
    return command


def read(
    token: str | None, token_file: TextIO | None, user: str | None, password_file: TextIO | None
) -> Credentials:
    """The credentials that the options of `options` stand for.

    Raises:
        click.UsageError: they do not go together or cannot be sent; no secret is repeated.
    """
    if token is not None and token_file is not None:
        raise click.UsageError("Give --token or --token-file, not both.")
    if (user is None) != (password_file is None):
        raise click.UsageError("--user and --password-file go together.")
    if token_file is not None:
        token = token_file.read().strip()
    if token is not None and not _TOKEN.fullmatch(token):
        raise click.UsageError("The token must be of A-Z, a-z, 0-9 and ._~- to be part of a path.")
    if user is None or password_file is None:
        return Credentials(token or "")
    if ":" in user:
        raise click.UsageError("No user of HTTP Basic has a colon in its name.")
    password = password_file.read().rstrip("\r\n")
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    return Credentials(token or "", f"Basic {login}")
