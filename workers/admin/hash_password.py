"""`mms-admin hash-password`: hashes a password for HTTP Basic."""

import sys

import click

from shared.settings import password


@click.command("hash-password")
@click.argument("user")
def hash_password(user: str) -> None:
    """Print USER and the hash of a password, for MMS_SOURCE_<NAME>_BASIC.

    The command asks for the password twice and does not show it. When standard input is no
    terminal, it reads one line from there.
    """
    if not user or ":" in user or "," in user:
        raise click.BadParameter("it must not be empty or contain : or ,", param_hint="USER")
    if sys.stdin.isatty():
        secret = click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    else:
        secret = sys.stdin.readline().rstrip("\r\n")
    if not secret:
        raise click.ClickException("the password is empty")
    click.echo(f"{user}:{password.hashed(secret.encode())}")
