"""Hashed passwords: what matches, their text, and texts that are not valid."""

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from shared.settings import password
from workers.admin.commands import main

HASHED = password.hashed(b"correct horse")


def test_only_the_right_password_matches() -> None:
    assert HASHED.matches(b"correct horse")
    assert not HASHED.matches(b"correct horse ")
    assert not HASHED.matches(b"")
    assert password.hashed(b"correct horse") != HASHED


def test_its_text_can_be_parsed() -> None:
    assert password.parse(str(HASHED)) == HASHED
    assert not set(str(HASHED)) & set("$,:@/#'\" \\=")
    assert repr(HASHED) == "Hashed(***)"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secret",
        str(HASHED).replace("scrypt", "md5"),
        str(HASHED).replace(".14.", ".40."),
        str(HASHED).replace(".14.8.", ".20.20."),
        str(HASHED).replace(".14.", ".-1."),
        str(HASHED)[:-4],
        f"{HASHED}.x",
    ],
    ids=["empty", "no-hash", "scheme", "cost", "memory", "negative", "cut", "longer"],
)
def test_the_error_of_another_text_does_not_repeat_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a hashed password$"):
        password.parse(text)


@given(st.text())
def test_parsing_any_text_raises_only_value_errors(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a hashed password$"):
        password.parse(text)


def test_the_output_of_the_command_is_a_valid_setting() -> None:
    done = CliRunner().invoke(main, ["hash-password", "mms"], input="correct horse\n")
    assert done.exit_code == 0, done.output
    user, _, hashed = done.stdout.strip().partition(":")
    assert user == "mms"
    assert password.parse(hashed).matches(b"correct horse")
    assert "correct" not in done.output


@pytest.mark.parametrize(("user", "secret"), [("a:b", "x\n"), ("", "x\n"), ("mms", "\n")])
def test_the_command_refuses_a_bad_user_and_an_empty_password(user: str, secret: str) -> None:
    assert CliRunner().invoke(main, ["hash-password", user], input=secret).exit_code != 0
