"""Hashed passwords: the right one matches, its text survives shells and lists, junk is refused."""

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


def test_it_can_be_written_and_read() -> None:
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
def test_anything_else_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a hashed password$"):
        password.parse(text)


@given(st.text())
def test_parsing_junk_raises_nothing_else(text: str) -> None:
    with pytest.raises(ValueError, match=r"^not a hashed password$"):
        password.parse(text)


def test_the_command_prints_what_the_settings_take() -> None:
    done = CliRunner().invoke(main, ["hash-password", "mms"], input="correct horse\n")
    assert done.exit_code == 0, done.output
    user, _, hashed = done.stdout.strip().partition(":")
    assert user == "mms"
    assert password.parse(hashed).matches(b"correct horse")
    assert "correct" not in done.output


@pytest.mark.parametrize(("user", "secret"), [("a:b", "x\n"), ("", "x\n"), ("mms", "\n")])
def test_the_command_refuses_what_could_not_be_used(user: str, secret: str) -> None:
    assert CliRunner().invoke(main, ["hash-password", user], input=secret).exit_code != 0
