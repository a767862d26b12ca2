"""The credentials that the options for a protected source give."""

import base64
from io import StringIO

import click
import pytest

from ingest.simulate.credentials import Credentials, read

TOKEN = "a-token-for-the-path"
URL = "http://127.0.0.1:8080/postbacks"


@pytest.mark.parametrize(
    ("token", "source", "path"),
    [
        ("", "default", ""),
        ("", "acme", "/acme"),
        (TOKEN, "default", f"/default/{TOKEN}"),
        (TOKEN, "acme", f"/acme/{TOKEN}"),
    ],
)
def test_the_url_of_a_source(token: str, source: str, path: str) -> None:
    assert Credentials(token).url(URL, source) == URL + path


def test_no_options_give_no_credentials() -> None:
    assert read(None, None, None, None) == Credentials()


def test_secrets_from_files_have_no_line_end() -> None:
    shown = read(None, StringIO(f"{TOKEN}\n"), "mms", StringIO(" corr\u00e8ct: horse \r\n"))
    assert shown.token == TOKEN
    scheme, _, encoded = shown.authorization.partition(" ")
    assert scheme == "Basic"
    assert base64.b64decode(encoded).decode() == "mms: corr\u00e8ct: horse "


@pytest.mark.parametrize(
    ("token", "token_file", "user", "password_file"),
    [
        (TOKEN, StringIO(TOKEN), None, None),
        ("with/a-slash-in-it", None, None, None),
        (None, StringIO(""), None, None),
        (None, None, "mms", None),
        (None, None, None, StringIO("secret")),
        (None, None, "m:s", StringIO("secret")),
    ],
)
def test_options_that_exclude_each_other_are_refused(
    token: str | None,
    token_file: StringIO | None,
    user: str | None,
    password_file: StringIO | None,
) -> None:
    with pytest.raises(click.UsageError) as caught:
        read(token, token_file, user, password_file)
    assert not any(secret in caught.value.message for secret in (TOKEN, "slash", "secret"))
